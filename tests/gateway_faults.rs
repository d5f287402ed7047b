//! The REST client against servers that misbehave.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use sandkernel::Error;
use sandkernel::config::SessionConfig;
use sandkernel::gateway::{Endpoint, GatewayClient};
use sandkernel::session::Session;
use support::fault_server::{FaultServer, Reply};
use support::free_port;
use tokio::time::timeout;

const TOKEN: &str = "s3cret-t0ken";
const SOON: Duration = Duration::from_secs(20);
const KERNEL: &str = r#"{"id": "a-b-c-d-e", "name": "python3"}"#;

fn client(url: &str) -> GatewayClient {
    let endpoint = Endpoint::new(url, Some(TOKEN)).expect("the URL and the token are valid");
    GatewayClient::new(endpoint, None).expect("a client can be made")
}

/// The error of waiting for `server`, which must come at once and keep the token.
async fn refusal(server: &FaultServer) -> Error {
    let started = Instant::now();
    let outcome = client(&server.url()).wait_until_ready(Duration::from_secs(120)).await;
    let error = outcome.expect_err("the server is not to be taken for a gateway");
    assert!(started.elapsed() < SOON, "{:?}: {error:?}", started.elapsed());
    assert_eq!(server.requests().len(), 1, "{error:?}");
    keeps_the_token(&error);
    error
}

fn keeps_the_token(error: &Error) {
    let shown = format!("{error} {error:?}");
    assert!(!shown.to_lowercase().contains(TOKEN), "{shown}");
}

#[tokio::test]
async fn a_server_that_boots_is_waited_for() {
    let server = FaultServer::start(|n, _| match n {
        0 => Reply::http(502, "", "<html>bad gateway</html>"),
        1 => Reply::http(503, "", ""),
        2 => Reply::http(404, "", "404 page not found"),
        3 => Reply::http(424, "", ""),
        4 => Reply::http(429, "", ""),
        5 => Reply::Close,
        6 => Reply::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        7 => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"default".to_vec()),
        _ => Reply::ready(),
    })
    .await;
    client(&server.url()).wait_until_ready(SOON).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 9);
    for head in requests {
        assert!(head.starts_with("GET /api/kernelspecs HTTP/1.1\r\n"), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains(&format!("authorization: token {TOKEN}\r\n")), "{head}");
        assert!(!head.contains("origin:") && !head.contains("referer:"), "{head}");
    }
}

#[tokio::test]
async fn the_last_failure_is_named_at_the_deadline() {
    let server =
        FaultServer::start(|_, head| Reply::http(503, "", &format!("booting\u{1b}[31m\n{head}"))).await;
    let timeout = Duration::from_secs(1);
    let started = Instant::now();
    let error = client(&server.url()).wait_until_ready(timeout).await.unwrap_err();
    keeps_the_token(&error);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let Error::NotReady { url, waited, reason } = &error else { panic!("{error:?}") };
    assert_eq!(*url, server.url());
    assert!(*waited <= started.elapsed() && *waited > Duration::from_millis(100), "{waited:?}");
    assert!(reason.starts_with("HTTP status 503: booting [31m GET /api/kernelspecs"), "{reason}");
    assert!(reason.contains("[token]") && !reason.contains(char::is_control), "{reason}");
}

#[tokio::test]
async fn a_closed_port_is_waited_for_until_the_deadline() {
    let url = format!("http://127.0.0.1:{}/", free_port());
    let error = client(&url).wait_until_ready(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&error, Error::NotReady { reason, .. } if reason.contains("refused")), "{error:?}");
    keeps_the_token(&error);
    let error = client(&url).create_kernel(None).await.unwrap_err();
    assert!(matches!(&error, Error::Gateway { reason, .. } if reason.contains("refused")), "{error:?}");
    keeps_the_token(&error);
}

#[tokio::test]
async fn a_silent_server_costs_no_more_than_the_deadline() {
    let server = FaultServer::start(|_, _| Reply::Silence).await;
    let started = Instant::now();
    let client = client(&server.url());
    let waiting = client.wait_until_ready(Duration::from_millis(300));
    let error = timeout(SOON, waiting).await.expect("the deadline ends the wait").unwrap_err();
    assert!(matches!(&error, Error::NotReady { reason, .. } if reason.contains("no answer")), "{error:?}");
    // One attempt alone may take five seconds.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_that_stays_silent_is_given_up_for_another() {
    let server = FaultServer::start(|n, _| if n == 0 { Reply::Silence } else { Reply::ready() }).await;
    let client = client(&server.url());
    let waiting = client.wait_until_ready(Duration::from_secs(60));
    timeout(SOON, waiting).await.expect("the attempt is given up").unwrap();
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_no_gateway_fails_at_once() {
    for body in [
        "<!doctype html><title>Welcome</title>",
        r#"{"hello": "world"}"#,
        r#"["kernelspecs"]"#,
        r#"{"kernelspecs": 1}"#,
        "",
    ] {
        let body = body.to_owned();
        let server = FaultServer::start(move |_, _| Reply::http(200, "", &body)).await;
        let error = refusal(&server).await;
        assert!(matches!(error, Error::Gateway { .. }), "{error:?}");
        assert!(error.to_string().contains("is no Jupyter gateway"), "{error}");
    }
    let server = FaultServer::start(|_, _| Reply::http(400, "", "plain HTTP sent to HTTPS port")).await;
    let error = refusal(&server).await;
    assert!(matches!(&error, Error::Gateway { reason, .. } if reason.contains("HTTPS port")), "{error:?}");
}

#[tokio::test]
async fn a_refused_token_fails_at_once() {
    for refused in [401, 403] {
        let server = FaultServer::start(move |_, head| Reply::http(refused, "", head)).await;
        let error = refusal(&server).await;
        assert!(matches!(&error, Error::Auth { status, .. } if *status == refused), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = FaultServer::start(|_, _| Reply::ready()).await;
    for (status, location, named) in [
        (302, format!("http://127.0.0.1:{}/{TOKEN}?token={TOKEN}", target.port), "127.0.0.1"),
        (307, "https://login.example/?next=here".to_owned(), "login.example"),
        (301, format!("https://{TOKEN}.example/"), "[token].example"),
        (308, "/base/path".to_owned(), "127.0.0.1"),
    ] {
        let headers = format!("Location: {location}\r\n");
        let server = FaultServer::start(move |_, _| Reply::http(status, &headers, "")).await;
        let error = refusal(&server).await;
        let Error::Gateway { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains(&format!("the host {named},")), "{reason}");
        assert!(!reason.contains("next") && !reason.contains("/base"), "{reason}");
    }
    let server =
        FaultServer::start(|_, _| Reply::http(302, &format!("Location: /hub/login?next={TOKEN}\r\n"), ""))
            .await;
    let error = refusal(&server).await;
    assert!(matches!(error, Error::Auth { status: 302, .. }), "{error:?}");
    let server = FaultServer::start(|_, _| Reply::http(302, "", "")).await;
    assert!(matches!(refusal(&server).await, Error::Gateway { .. }));
    assert_eq!(target.requests().len(), 0);
}

#[tokio::test]
async fn a_redirect_of_the_websocket_is_not_followed() {
    let target = FaultServer::start(|_, _| Reply::ready()).await;
    for (status, location, named) in [
        (
            302,
            format!("Location: http://127.0.0.1:{}/?token={TOKEN}\r\n", target.port),
            "the host 127.0.0.1,",
        ),
        (307, "Location: wss://login.example/?next=here\r\n".to_owned(), "the host login.example,"),
        (301, format!("Location: https://{TOKEN}.example/\r\n"), "an unnamed place,"),
        (303, format!("Location: https://{}/\r\n", "x".repeat(300)), "an unnamed place,"),
        (308, "Location: /hub/login\r\n".to_owned(), "the host 127.0.0.1,"),
        (302, String::new(), "an unnamed place,"),
    ] {
        let server = FaultServer::start(move |_, head| {
            if head.contains("/channels") {
                Reply::http(status, &location, "")
            } else if head.contains("/api/kernels ") {
                Reply::http(201, "", KERNEL)
            } else {
                Reply::ready()
            }
        })
        .await;
        let endpoint = Endpoint::new(&server.url(), Some(TOKEN)).unwrap();
        let error = Session::open(endpoint, SessionConfig::default()).await.unwrap_err();
        keeps_the_token(&error);
        let Error::Gateway { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains(&format!("HTTP status {status} redirects to {named}")), "{reason}");
        assert!(!reason.contains("next") && !reason.contains("/hub"), "{reason}");
    }
    assert_eq!(target.requests().len(), 0);
}

#[tokio::test]
async fn a_token_does_not_travel_in_clear_beyond_the_local_network() {
    let config = SessionConfig { connect_timeout: Duration::from_millis(50), ..SessionConfig::default() };
    let open = async |url: &str, token: Option<&str>, config: &SessionConfig| {
        Session::open(Endpoint::new(url, token).unwrap(), config.clone()).await.unwrap_err()
    };
    // Addresses for documentation: nobody is there.
    let url = "http://192.0.2.1:8888/";
    let error = open(url, Some(TOKEN), &config).await;
    keeps_the_token(&error);
    let Error::Configuration(reason) = &error else { panic!("{error:?}") };
    assert!(reason.contains("192.0.2.1") && reason.contains("allow_plain_http=True"), "{reason}");
    // Whatever becomes of these, they are tried.
    let allowed = SessionConfig { allow_plain_http: true, ..config.clone() };
    for error in [
        open(url, Some(TOKEN), &allowed).await,
        open(url, None, &config).await,
        open("https://192.0.2.1:8888/", Some(TOKEN), &config).await,
    ] {
        assert!(!matches!(error, Error::Configuration(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_is_read_and_quoted_within_bounds() {
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(1 << 16, b'x');
    let server = FaultServer::start(move |_, _| Reply::Endless(endless.clone())).await;
    let error = refusal(&server).await;
    assert!(
        matches!(&error, Error::Gateway { reason, .. } if reason.contains("longer than 1 MiB")),
        "{error:?}"
    );

    let server =
        FaultServer::start(|_, head| Reply::http(200, "", &format!("{head}{}", "é\0\u{202e}".repeat(9999))))
            .await;
    let shown = refusal(&server).await.to_string();
    assert!(shown.chars().count() < 500, "{shown}");
    assert!(
        !shown.contains(|character: char| character.is_control() || character == '\u{202e}'),
        "{shown:?}"
    );
}

#[tokio::test]
async fn a_name_that_does_not_exist_fails_at_once() {
    // The system's resolver knows of the first without asking anyone. A machine without a network is told only
    // that its resolver is out of reach, and waits for that: hence the short time.
    for (host, timeout) in
        [("no..name", Duration::from_secs(120)), ("nonexistent.invalid", Duration::from_secs(2))]
    {
        let started = Instant::now();
        let client = client(&format!("http://{host}:8888/"));
        for error in [
            client.wait_until_ready(timeout).await.unwrap_err(),
            client.create_kernel(None).await.unwrap_err(),
        ] {
            assert!(matches!(&error, Error::Unresolvable { host: named, .. } if named == host), "{error:?}");
            keeps_the_token(&error);
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn the_deadline_does_not_hide_what_was_seen_before() {
    let server =
        FaultServer::start(|n, _| if n == 0 { Reply::http(502, "", "booting") } else { Reply::Silence })
            .await;
    let error = client(&server.url()).wait_until_ready(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&error, Error::NotReady { reason, .. } if reason.contains("booting")), "{error:?}");
}

#[tokio::test]
async fn the_start_of_a_kernel_is_retried() {
    let server = FaultServer::start(|n, _| match n {
        0 => Reply::http(404, "", ""),
        1 => Reply::http(500, "", ""),
        2 => Reply::http(503, "", ""),
        _ => Reply::http(201, "", KERNEL),
    })
    .await;
    assert_eq!(client(&server.url()).create_kernel(None).await.unwrap().id, "a-b-c-d-e");
    assert_eq!(server.requests().len(), 4);

    let server = FaultServer::start(|_, _| Reply::http(500, "", r#"{"message": "out of ports"}"#)).await;
    let error = client(&server.url()).create_kernel(None).await.unwrap_err();
    assert!(
        matches!(&error, Error::Gateway { reason, .. } if reason == "HTTP status 500: out of ports"),
        "{error:?}"
    );
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn the_start_of_a_kernel_is_not_repeated_when_its_answer_is_lost() {
    for reply in [|| Reply::Close, || Reply::http(504, "", ""), || Reply::http(201, "", r#"{"id": ".."}"#)] {
        let server = FaultServer::start(move |_, _| reply()).await;
        let error = client(&server.url()).create_kernel(None).await.unwrap_err();
        assert!(matches!(error, Error::Gateway { .. }), "{error:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

/// Environment variables can't be set in a process with threads, so this runs the test below in a new one.
#[tokio::test]
async fn loopback_hosts_bypass_the_proxies_and_others_do_not() {
    let proxy = FaultServer::start(|_, _| Reply::ready()).await;
    let server = FaultServer::start(|_, _| Reply::ready()).await;
    let url = server.url();
    let proxy_url = proxy.url();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "behind_a_proxy", "--ignored", "--nocapture"])
            .env("HTTP_PROXY", &proxy_url)
            .env("http_proxy", &proxy_url)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .env("SANDKERNEL_TEST_URL", url)
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.requests().len(), 1);
    let proxied = proxy.requests();
    assert_eq!(proxied.len(), 1, "{proxied:?}");
    // The proxy resolves the name: this machine may not be able to.
    assert!(proxied[0].starts_with("GET http://elsewhere.invalid/api/kernelspecs "), "{}", proxied[0]);
}

#[tokio::test]
#[ignore = "run by another test, in an environment of its own"]
async fn behind_a_proxy() {
    let url = std::env::var("SANDKERNEL_TEST_URL").unwrap();
    client(&url).wait_until_ready(SOON).await.unwrap();
    client("http://elsewhere.invalid/").wait_until_ready(SOON).await.unwrap();
}
