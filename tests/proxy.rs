//! Proxies: the REST client and the websocket take the same one, a real gateway behind it.
#![allow(clippy::unwrap_used, reason = "every function here is a step of the test")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use sandkernel::channel::{Deadlines, Keepalive, Target, connect};
use sandkernel::config::{RunOptions, SessionConfig};
use sandkernel::gateway::{Endpoint, GatewayClient};
use sandkernel::proxy::Proxies;
use sandkernel::session::Session;
use sandkernel::{Error, tls};
use support::connect_proxy::ConnectProxy;
use support::fault_server::{FaultServer, Reply};
use support::tls_front::TlsFront;
use support::{Gateway, free_port};

const TOKEN: &str = "s3cret-t0ken";
const PASSWORD: &str = "p@ssw0rd";
/// `me` and the password, percent-encoded as they stand in a URL, and as they are sent.
const USERINFO: &str = "me:p%40ssw0rd";
const CREDENTIALS: &str = "proxy-authorization: basic bwu6cebzc3cwcmq=";
const URL: &str = "SANDKERNEL_TEST_URL";
const TOKEN_VARIABLE: &str = "SANDKERNEL_TEST_TOKEN";
/// Seconds; without it, the default.
const PATIENCE: &str = "SANDKERNEL_TEST_PATIENCE";
const VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

fn wants_credentials(head: &str) -> Option<u16> {
    (!head.to_lowercase().contains(CREDENTIALS)).then_some(407)
}

/// What became of a session in a process with this environment: such variables can't be set in one with threads.
async fn outcome(url: &str, token: &str, environment: &[(&str, String)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "with_the_proxies_of_the_environment", "--ignored", "--nocapture"]);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
        .env(URL, url)
        .env(TOKEN_VARIABLE, token)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let output = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.contains(token) && !output.contains(PASSWORD), "{output}");
    output.into_owned()
}

#[tokio::test]
#[ignore = "run by another test, in an environment of its own"]
async fn with_the_proxies_of_the_environment() {
    let variable = |name| std::env::var(name).unwrap();
    let run = async {
        let endpoint = Endpoint::new(&variable(URL), Some(&variable(TOKEN_VARIABLE)))?;
        let mut config = SessionConfig::default();
        if let Ok(seconds) = std::env::var(PATIENCE) {
            config.connect_timeout = Duration::from_secs_f64(seconds.parse().unwrap());
        }
        let session = Session::open(endpoint, config).await?;
        let execution = session.run("print(6 * 7)".to_owned(), RunOptions::default()).await?;
        session.close().await;
        Ok::<_, Error>(execution.stdout().into_owned())
    };
    let outcome = run.await;
    panic!("outcome: {outcome:?}");
}

/// The first lines of what the proxy was asked.
fn lines(proxy: &ConnectProxy) -> Vec<String> {
    proxy.asked().iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_session_goes_through_the_proxy_of_the_environment() {
    let gateway = Gateway::start().await;
    let proxy = ConnectProxy::start(gateway.port, wants_credentials).await;
    let url = format!("http://{USERINFO}@127.0.0.1:{}", proxy.port);

    // Nobody but the proxy knows the host.
    let said = outcome("http://gateway:8888/", &gateway.token, &[("http_proxy", url.clone())]).await;
    assert!(said.contains(r#"outcome: Ok("42\n")"#), "{said}");
    let asked = lines(&proxy);
    assert_eq!(asked[0], "GET http://gateway:8888/api/kernelspecs HTTP/1.1", "{asked:?}");
    assert!(asked.contains(&"CONNECT gateway:8888 HTTP/1.1".to_owned()), "{asked:?}");

    // This machine is spoken to directly, whatever the environment says.
    let before = proxy.asked().len();
    let said = outcome(&gateway.url(), &gateway.token, &[("ALL_PROXY", url.clone())]).await;
    assert!(said.contains(r#"outcome: Ok("42\n")"#), "{said}");
    assert_eq!(proxy.asked().len(), before);

    // And so is what NO_PROXY names: the proxy, which alone knows the host, is not asked.
    let environment = [
        ("ALL_PROXY", url),
        ("no_proxy", "other.test,gateway.invalid:8888".to_owned()),
        (PATIENCE, "2".to_owned()),
    ];
    let said = outcome("https://gateway.invalid:8888/", TOKEN, &environment).await;
    assert!(said.contains("outcome: Err(Unresolvable"), "{said}");
    assert_eq!(proxy.asked().len(), before);
}

#[tokio::test]
async fn a_session_over_tls_goes_through_the_proxy_too() {
    let gateway = Gateway::start().await;
    let front = TlsFront::start(&["gateway.test", "127.0.0.1"], gateway.port).await;
    let proxy = ConnectProxy::start(front.port, wants_credentials).await;
    let file = std::env::temp_dir().join(format!("sandkernel-proxy-ca-{}.pem", std::process::id()));
    std::fs::write(&file, &front.ca_pem).unwrap();
    let roots = ("SSL_CERT_FILE", file.to_str().unwrap().to_owned());
    let url = format!("http://{USERINFO}@127.0.0.1:{}", proxy.port);
    let environment = [("HTTPS_PROXY", url), ("HTTP_PROXY", "http://127.0.0.1:1".to_owned()), roots];
    let said = outcome("https://gateway.test:8443/", &gateway.token, &environment).await;
    std::fs::remove_file(&file).unwrap();
    assert!(said.contains(r#"outcome: Ok("42\n")"#), "{said}");
    // The proxy sees where to, and no token.
    let asked = proxy.asked();
    assert!(asked.len() >= 2, "{asked:?}");
    for head in asked {
        assert!(head.starts_with("CONNECT gateway.test:8443 HTTP/1.1\r\n"), "{head}");
        assert!(!head.contains(&gateway.token), "{head}");
    }
}

/// A client for a gateway that only `proxy` knows, and what opens a websocket there.
fn way(url: &str, proxy: &str, extra_ca: Option<&str>) -> (GatewayClient, Target) {
    let endpoint = Endpoint::new(url, Some(TOKEN)).unwrap();
    let client =
        GatewayClient::with_proxies(endpoint, extra_ca.map(str::as_bytes), &Proxies::new(proxy, "")).unwrap();
    let target = Target {
        url: client.endpoint().channels("k", "s"),
        authorization: client.endpoint().authorization(),
        secret_query: None,
        tls: client.tls(),
        proxy: client.proxy().cloned(),
        kernel_id: "k".to_owned(),
        received: 0,
        partial: 0,
    };
    (client, target)
}

async fn websocket_refusal(target: &Target) -> Error {
    let keepalive = Keepalive { dead_after: Duration::from_secs(15) };
    let error =
        connect(target, keepalive, 1 << 20, Deadlines::once(Duration::from_secs(20))).await.unwrap_err();
    keeps_the_secrets(&error);
    error
}

fn keeps_the_secrets(error: &Error) {
    let shown = format!("{error} {error:?}");
    for secret in [TOKEN, PASSWORD, USERINFO, "bWU6"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_told_as_such() {
    for status in [403, 407, 502] {
        let proxy = ConnectProxy::start(free_port(), move |_| Some(status)).await;
        let url = format!("http://{USERINFO}@127.0.0.1:{}", proxy.port);
        let expected = format!("the proxy 127.0.0.1:{} refused CONNECT to gateway.test:", proxy.port);
        for gateway in ["http://gateway.test:8888/", "https://gateway.test:8443/"] {
            let (client, target) = way(gateway, &url, None);
            let started = Instant::now();
            // A proxy that can't reach the gateway may do so when that has booted; the others are final.
            let patience = Duration::from_secs(if status == 502 { 1 } else { 120 });
            let rest = client.wait_until_ready(patience).await.unwrap_err();
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
            keeps_the_secrets(&rest);
            for error in [rest, websocket_refusal(&target).await] {
                let shown = error.to_string();
                assert!(
                    shown.contains(&expected) && shown.contains(&format!("status {status}")),
                    "{gateway} {error:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_of_the_gateway_is_not_laid_to_the_proxy() {
    let server = FaultServer::start(|_, _| Reply::http(403, "", "")).await;
    let proxy = ConnectProxy::start(server.port, |_| None).await;
    let (client, target) =
        way("http://gateway.test:8888/", &format!("http://127.0.0.1:{}", proxy.port), None);
    let error = client.wait_until_ready(Duration::from_secs(120)).await.unwrap_err();
    assert!(matches!(error, Error::Auth { status: 403, .. }), "{error:?}");
    let error = websocket_refusal(&target).await;
    assert!(matches!(error, Error::Auth { status: 403, .. }), "{error:?}");
}

#[tokio::test]
async fn a_proxy_may_be_out_of_reach_or_none() {
    let (client, target) =
        way("https://gateway.test/", &format!("http://{USERINFO}@127.0.0.1:{}", free_port()), None);
    let error = client.wait_until_ready(Duration::from_secs(1)).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotReady { reason, .. } if reason.contains("the proxy 127.0.0.1:")),
        "{error:?}"
    );
    let error = websocket_refusal(&target).await;
    assert!(
        matches!(&error, Error::ConnectionLost { reason, .. } if reason.contains("the proxy 127.0.0.1:")),
        "{error:?}"
    );

    let silent = FaultServer::start(|_, _| Reply::Silence).await;
    let (_, target) = way("https://gateway.test/", &format!("http://127.0.0.1:{}", silent.port), None);
    let keepalive = Keepalive { dead_after: Duration::from_secs(15) };
    let started = Instant::now();
    let error =
        connect(&target, keepalive, 1 << 20, Deadlines::once(Duration::from_millis(300))).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(error.to_string().contains("by way of the proxy 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn a_proxy_may_be_spoken_to_over_tls() {
    let gateway = Gateway::start().await;
    let proxy = ConnectProxy::start(gateway.port, wants_credentials).await;
    let front = TlsFront::start(&["127.0.0.1"], proxy.port).await;
    let url = format!("https://{USERINFO}@127.0.0.1:{}", front.port);

    let (client, mut target) = way("http://gateway:8888/", &url, Some(&front.ca_pem));
    // The gateway's own token is another one.
    let error = client.wait_until_ready(support::BOOT_LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error:?}");
    let kernel = gateway.client().create_kernel(None).await.unwrap();
    target.url = client.endpoint().channels(&kernel.id, "s");
    target.authorization = gateway.endpoint().authorization();
    let keepalive = Keepalive { dead_after: Duration::from_secs(15) };
    let (connection, _) =
        connect(&target, keepalive, 1 << 20, Deadlines::once(support::BOOT_LIMIT)).await.unwrap();
    connection.close(Duration::from_secs(1)).await;
    assert!(lines(&proxy).contains(&"CONNECT gateway:8888 HTTP/1.1".to_owned()), "{:?}", lines(&proxy));

    // No credentials go to a proxy that does not prove itself.
    let before = proxy.asked().len();
    let other = TlsFront::start(&["127.0.0.1"], 0).await;
    target.tls = Some(tls::client_config(Some(other.ca_pem.as_bytes())).unwrap());
    let error = websocket_refusal(&target).await;
    assert!(
        matches!(&error, Error::Certificate { host, .. } if host.contains("the proxy 127.0.0.1:")),
        "{error:?}"
    );
    let (client, _) = way("http://gateway:8888/", &url, Some(&other.ca_pem));
    let error = client.wait_until_ready(support::BOOT_LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
    assert_eq!(proxy.asked().len(), before);
}

#[test]
fn a_proxy_of_another_kind_is_refused() {
    let endpoint = Endpoint::new("https://gateway.test/", Some(TOKEN)).unwrap();
    let proxies = Proxies::new(&format!("socks5://{USERINFO}@127.0.0.1:1080"), "");
    let error = GatewayClient::with_proxies(endpoint, None, &proxies).unwrap_err();
    assert!(
        matches!(&error, Error::Configuration(reason) if reason.contains("socks5://127.0.0.1:1080")),
        "{error:?}"
    );
    keeps_the_secrets(&error);
}
