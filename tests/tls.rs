//! TLS: which certificates are accepted, for REST calls and websockets to a server behind a TLS endpoint.

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandkernel::channel::{Deadlines, Keepalive, Target, connect};
use sandkernel::gateway::{Endpoint, GatewayClient};
use sandkernel::{Error, Result, tls};
use support::Gateway;
use support::fault_server::{FaultServer, Reply};
use support::tls_front::TlsFront;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const TOKEN: &str = "s3cret-t0ken";
const CA_FILE: &str = "SSL_CERT_FILE";
const URL: &str = "SANDKERNEL_TEST_URL";

fn client(url: &str, extra_ca: Option<&str>) -> Result<GatewayClient> {
    GatewayClient::new(Endpoint::new(url, Some(TOKEN))?, extra_ca.map(str::as_bytes))
}

/// The error of waiting for `url`, which must come at once and be about the certificate.
async fn refusal(url: &str, extra_ca: Option<&str>) -> String {
    let started = Instant::now();
    let client = client(url, extra_ca).expect("a client can be made");
    let outcome = client.wait_until_ready(Duration::from_secs(120)).await;
    let error = outcome.expect_err("the certificate is not to be accepted");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error:?}");
    let Error::Certificate { host, reason } = error else { panic!("{error:?}") };
    assert_eq!(host, "127.0.0.1");
    reason
}

#[tokio::test]
async fn a_gateway_behind_tls() {
    let gateway = Gateway::start().await;
    let front = TlsFront::start(&["localhost", "127.0.0.1"], gateway.port).await;
    for host in ["localhost", "127.0.0.1"] {
        let endpoint =
            Endpoint::new(&format!("https://{host}:{}/", front.port), Some(&gateway.token)).unwrap();
        let client = GatewayClient::new(endpoint, Some(front.ca_pem.as_bytes())).unwrap();
        client.wait_until_ready(support::BOOT_LIMIT).await.unwrap();
        let kernel = client.create_kernel(None).await.unwrap();
        client.delete_kernel(&kernel.id).await.unwrap();
        assert!(client.tls().is_some());
    }
    assert!(gateway.client().tls().is_none());
}

#[tokio::test]
async fn other_certificates_fail_at_once() {
    let server = FaultServer::start(|_, _| Reply::ready()).await;
    let front = TlsFront::start(&["127.0.0.1"], server.port).await;
    let other = TlsFront::start(&["other.example"], server.port).await;
    let url = format!("https://127.0.0.1:{}/", front.port);
    client(&url, Some(&front.ca_pem)).unwrap().wait_until_ready(support::BOOT_LIMIT).await.unwrap();
    assert_eq!(server.requests().len(), 1);

    assert!(refusal(&url, None).await.contains("UnknownIssuer"));
    assert!(refusal(&url, Some(&other.ca_pem)).await.contains("certificate is not acceptable"));
    let reason = refusal(&format!("https://127.0.0.1:{}/", other.port), Some(&other.ca_pem)).await;
    assert!(reason.contains("not valid for name"), "{reason}");
    // No request, and so no token, went to a server that did not prove itself.
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_websocket_checks_the_certificate_too() {
    let server = FaultServer::start(|_, _| Reply::http(403, "", "")).await;
    let front = TlsFront::start(&["127.0.0.1"], server.port).await;
    let other = TlsFront::start(&["other.example"], server.port).await;
    let open = async |port: u16, extra_ca: Option<&str>| {
        let endpoint = Endpoint::new(&format!("https://127.0.0.1:{port}/"), Some(TOKEN)).unwrap();
        let target = Target {
            url: endpoint.channels("k", "s"),
            authorization: endpoint.authorization(),
            secret_query: None,
            tls: Some(tls::client_config(extra_ca.map(str::as_bytes)).unwrap()),
            proxy: None,
            kernel_id: "k".to_owned(),
            received: 0,
            partial: 0,
        };
        let keepalive = Keepalive { dead_after: Duration::from_secs(15) };
        let error =
            connect(&target, keepalive, 1 << 20, Deadlines::once(Duration::from_secs(20))).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(TOKEN), "{error:?}");
        error
    };
    assert!(matches!(open(front.port, Some(&front.ca_pem)).await, Error::Auth { .. }));
    assert_eq!(server.requests().len(), 1);
    for (port, extra_ca, expected) in [
        (front.port, None, "UnknownIssuer"),
        (front.port, Some(&*other.ca_pem), "invalid peer certificate"),
        (other.port, Some(&*other.ca_pem), "not valid for name"),
    ] {
        let error = open(port, extra_ca).await;
        let Error::Certificate { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains(expected), "{reason}");
    }
    // No request, and so no token, went to a server that did not prove itself.
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_extra_ca_has_to_be_certificates() {
    for (pem, expected) in [
        ("", "holds no certificate"),
        ("not PEM", "holds no certificate"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not valid"),
        ("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "not valid"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "not valid"),
    ] {
        let error = tls::client_config(Some(pem.as_bytes())).unwrap_err();
        assert!(
            matches!(&error, Error::Configuration(reason) if reason.contains(expected)),
            "{pem}: {error:?}"
        );
        assert!(client("https://h/", Some(pem)).is_err(), "{pem}");
        assert!(client("http://h/", Some(pem)).is_ok(), "{pem}");
    }
}

#[tokio::test]
async fn a_server_without_tls_fails_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    assert!(refusal(&url, None).await.contains("http://"));
    server.await.unwrap();
}

#[tokio::test]
async fn a_silent_server_may_be_one_without_tls() {
    // It waits for the end of a request's head, as a kernel gateway does, and so never answers the handshake.
    let server = FaultServer::start(|_, _| Reply::ready()).await;
    let url = format!("https://127.0.0.1:{}/", server.port);
    let error = client(&url, None).unwrap().wait_until_ready(Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(&error, Error::NotReady { reason, .. } if reason.contains("http://")), "{error:?}");
}

#[tokio::test]
async fn the_same_is_made_once() {
    let front = TlsFront::start(&["localhost"], 0).await;
    let front = Some(front.ca_pem.as_bytes());
    let (plain, extra) = (tls::client_config(None).unwrap(), tls::client_config(front).unwrap());
    assert!(Arc::ptr_eq(&plain, &tls::client_config(None).unwrap()));
    assert!(Arc::ptr_eq(&extra, &tls::client_config(front).unwrap()));
    assert!(!Arc::ptr_eq(&plain, &extra));
}

/// Environment variables can't be set in a process with threads, so this runs the test below in new ones.
#[tokio::test]
async fn the_file_of_roots_is_that_of_the_environment() {
    let server = FaultServer::start(|_, _| Reply::ready()).await;
    let front = TlsFront::start(&["127.0.0.1"], server.port).await;
    let url = format!("https://127.0.0.1:{}/", front.port);
    let file = std::env::temp_dir().join(format!("sandkernel-ca-{}.pem", std::process::id()));
    std::fs::write(&file, &front.ca_pem).unwrap();
    let with_file = outcome(&file, &url).await;
    std::fs::remove_file(&file).unwrap();
    let without_file = outcome(&file, &url).await;
    assert!(with_file.contains("outcome: Ok"), "{with_file}");
    assert!(without_file.contains("outcome: Err(Configuration(\"there is no root"), "{without_file}");
    // Without TLS, the roots are not even looked for.
    let without_tls = outcome(&file, &server.url()).await;
    assert!(without_tls.contains("outcome: Ok"), "{without_tls}");
    assert_eq!(server.requests().len(), 2);
}

async fn outcome(ca_file: &Path, url: &str) -> String {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own file"));
    command
        .args(["--exact", "with_the_roots_of_the_environment", "--ignored", "--nocapture"])
        .env(CA_FILE, ca_file)
        .env_remove("SSL_CERT_DIR")
        .env(URL, url);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("starting a process does not panic").expect("a test can be run again");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
#[ignore = "run by another test, in an environment of its own"]
async fn with_the_roots_of_the_environment() {
    let outcome = match client(&std::env::var(URL).unwrap(), None) {
        Ok(client) => client.wait_until_ready(support::BOOT_LIMIT).await,
        Err(error) => Err(error),
    };
    panic!("outcome: {outcome:?}");
}
