//! TCP, TLS and the websocket upgrade.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use url::{Position, Url};

use super::connection::{Connection, Keepalive};
use super::handshake::{self, Refusal};
use super::quick_ack::QuickAck;
use super::traffic::Traffic;
use crate::error::Seconds;
use crate::protocol::{Subprotocol, V1_NAME};
use crate::proxy::Proxy;
use crate::{Error, Result};

/// Where the websocket of a kernel is, and how to get there.
#[derive(Debug)]
pub struct Target {
    /// The `ws` or `wss` URL of the kernel's channels. It holds no token.
    pub url: Url,
    /// The value of the `Authorization` header.
    pub authorization: Option<HeaderValue>,
    /// What is asked for beside the URL's own query, `name=value`: the token, where the server takes it there only.
    pub secret_query: Option<HeaderValue>,
    /// The TLS configuration, needed for `wss` and for a proxy that is spoken to over TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The proxy to ask for the connection.
    pub proxy: Option<Proxy>,
    /// The kernel's id, for errors.
    pub kernel_id: String,
    /// How many messages of this session have been received, over all its sockets.
    pub received: u64,
    /// How much of the next one has been received, in pieces.
    pub partial: usize,
}

impl Target {
    /// The host as it stands in the URL: an IPv6 address is in brackets.
    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// The host and the proxy before it, for errors.
    fn way(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!("{} by way of the proxy {proxy}", host(&self.url)),
            None => host(&self.url),
        }
    }

    /// The host that a redirect leads to, unless a server that repeats what it was sent put the token there.
    fn redirected_host(&self, location: &str) -> Option<String> {
        let location = self.url.join(location).ok()?;
        let host = location.host_str().filter(|host| host.len() <= MOST_OF_A_HOST_NAME)?.to_ascii_lowercase();
        let secrets = [&self.authorization, &self.secret_query].into_iter().flatten();
        let secrets = secrets.filter_map(|value| value.to_str().ok()?.rsplit([' ', '=']).next());
        let is_told = secrets.map(str::to_ascii_lowercase).any(|secret| host.contains(&secret));
        (!is_told).then_some(host)
    }

    /// The path and the query as they are asked for.
    fn path(&self) -> String {
        let path = &self.url[Position::BeforePath..Position::AfterQuery];
        match self.secret_query.as_ref().and_then(|query| query.to_str().ok()) {
            Some(query) => format!("{path}{}{query}", if self.url.query().is_some() { '&' } else { '?' }),
            None => path.to_owned(),
        }
    }
}

/// Whether the session goes on where it was: what a gateway with a journal (`journal.py`) says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// The gateway keeps no journal: what was on the way when an earlier socket broke is lost.
    Unsupported,
    /// The session begins anew.
    New,
    /// The gateway sends what was missed.
    Resumed {
        /// How many messages of ours it has received.
        received: u64,
        /// Of which message it has how much beside, where it takes pieces (`pieces.rs`): its identity, and the bytes.
        partial: Option<(u64, usize)>,
    },
}

const OPERATION: &str = "opening the kernel's websocket";

/// The longest host name that there is.
const MOST_OF_A_HOST_NAME: usize = 253;

const PARTIAL: HeaderName = HeaderName::from_static("sandkernel-partial");
const RECEIVED: HeaderName = HeaderName::from_static("sandkernel-received");
const LIMIT: HeaderName = HeaderName::from_static("sandkernel-limit");
const RESUMED: HeaderName = HeaderName::from_static("sandkernel-resumed");

/// How long to wait between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What one read from the socket is made for. A larger buffer is memory that every idle session holds.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Why a websocket did not open.
enum Failure {
    /// The proxy gives no way to the gateway.
    Proxy(Error),
    Refused(Refusal),
    /// The server did not choose the subprotocol that it was offered.
    OfferRefused,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Refusal::from(error).into()
    }
}

/// How long opening a websocket may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// In all.
    pub whole: Duration,
    /// How long it is attempted again where a front says that the server is away for a moment.
    pub patience: Duration,
}

impl Deadlines {
    /// For one attempt.
    #[must_use]
    pub const fn once(whole: Duration) -> Self {
        Self { whole, patience: Duration::ZERO }
    }
}

/// Opens the websocket of a kernel.
///
/// The v1 subprotocol is offered; a server that does not know it is asked again without. A redirect is not
/// followed: the token would travel to a place that nobody named.
pub async fn connect(
    target: &Target,
    keepalive: Keepalive,
    max_message_bytes: usize,
    deadlines: Deadlines,
) -> Result<(Connection, Resumption)> {
    let began = Instant::now();
    let end = began + deadlines.whole;
    let mut pause = FIRST_PAUSE;
    loop {
        // Boxed, as it is large and rare.
        match Box::pin(attempt(target, keepalive, max_message_bytes, end)).await {
            Some(Ok(opened)) => return Ok(opened),
            Some(Err(Failure::Refused(Refusal::Status(status, _))))
                if is_passing(status) && Instant::now() + pause < end.min(began + deadlines.patience) =>
            {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Some(Err(Failure::Refused(refusal))) => return Err(refused(target, refusal)),
            Some(Err(Failure::Proxy(error))) => return Err(error),
            Some(Err(Failure::OfferRefused)) | None => {
                return Err(Error::ConnectionLost {
                    reason: format!(
                        "the websocket to {} did not open within {}",
                        target.way(),
                        Seconds(deadlines.whole)
                    ),
                    execution: None,
                });
            }
        }
    }
}

/// What comes of one attempt, or of a second one where the first went silent; `None` where that did, too.
async fn attempt(
    target: &Target,
    keepalive: Keepalive,
    max_message_bytes: usize,
    end: Instant,
) -> Option<Result<(Connection, Resumption), Failure>> {
    let once = async || match open(target, true, keepalive, max_message_bytes).await {
        Err(Failure::OfferRefused) => open(target, false, keepalive, max_message_bytes).await,
        outcome => outcome,
    };
    // One that goes silent is given up as it would be once it is open. It may also be that the gateway is slow: the next
    // one has all the time that is left.
    let first = (Instant::now() + keepalive.dead_after).min(end);
    let outcome = match timeout_at(first, once()).await {
        Err(_) => timeout_at(end, once()).await,
        outcome => outcome,
    };
    outcome.ok()
}

/// Opens a websocket.
async fn open(
    target: &Target,
    offer_v1: bool,
    keepalive: Keepalive,
    max_message_bytes: usize,
) -> Result<(Connection, Resumption), Failure> {
    let mut headers = HeaderMap::new();
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers.insert(RECEIVED, HeaderValue::from(target.received));
    headers.insert(PARTIAL, HeaderValue::from(target.partial));
    headers.insert(LIMIT, HeaderValue::from(max_message_bytes));
    if offer_v1 {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(V1_NAME));
    }
    let traffic = Arc::new(Traffic::new());
    let mut stream = encrypt(reach(target, &traffic).await?, target).await?;
    let (host, path) = (host(&target.url), target.path());
    let upgraded = handshake::upgrade(&mut stream, &host, &path, &headers).await?;
    let subprotocol = if offer_v1 {
        // Whoever chose nothing, or something else, is not sure to speak it: a proxy may have left out our offer.
        handshake::options(&upgraded.headers, &SEC_WEBSOCKET_PROTOCOL)
            .map(|name| Subprotocol::negotiated(Some(name.trim_matches('"'))))
            .find(|chosen| *chosen == Subprotocol::V1)
            .ok_or(Failure::OfferRefused)?
    } else {
        Subprotocol::Json
    };
    let said = |name| upgraded.headers.get(name).and_then(|value| value.to_str().ok());
    let resumption = match said(RESUMED).map(str::parse) {
        None => Resumption::Unsupported,
        Some(Err(_)) => Resumption::New,
        Some(Ok(received)) => {
            let partial = said(PARTIAL).and_then(|partial| partial.split_once(':'));
            let partial = partial.and_then(|(of, bytes)| Some((of.parse().ok()?, bytes.parse().ok()?)));
            Resumption::Resumed { received, partial }
        }
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes));
    let socket =
        WebSocketStream::from_partially_read(stream, upgraded.behind, Role::Client, Some(config)).await;
    Ok((Connection::new(socket, traffic, subprotocol, keepalive, max_message_bytes), resumption))
}

/// A connection to the gateway, or to what stands for it: the proxy's tunnel.
async fn reach(target: &Target, traffic: &Arc<Traffic>) -> Result<MaybeTlsStream<QuickAck>, Failure> {
    let open = async |host: &str, port: u16| {
        let stream = TcpStream::connect((host, port)).await?;
        // An execute request is one small write: it must not wait for the answer to an earlier one.
        stream.set_nodelay(true)?;
        std::io::Result::Ok(QuickAck::new(stream, Arc::clone(traffic)))
    };
    let (host, port) = (target.host(), target.port());
    let Some(proxy) = &target.proxy else {
        return Ok(MaybeTlsStream::Plain(open(host.trim_matches(['[', ']']), port).await?));
    };
    let tunnel = async {
        let (proxy_host, proxy_port) = proxy.address();
        let stream = open(proxy_host, proxy_port).await?;
        proxy.tunnel(stream, target.tls.clone(), host, port).await
    };
    tunnel.await.map_err(|failure| Failure::Proxy(failure.into_error(proxy, host, port)))
}

/// TLS with the gateway, where its URL asks for it.
async fn encrypt(
    stream: MaybeTlsStream<QuickAck>,
    target: &Target,
) -> std::io::Result<MaybeTlsStream<MaybeTlsStream<QuickAck>>> {
    let Some(tls) = target.tls.as_ref().filter(|_| target.url.scheme() == "wss") else {
        return Ok(MaybeTlsStream::Plain(stream));
    };
    let name = target.host().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
    Ok(MaybeTlsStream::Rustls(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
}

/// Whether a front answers so while the server behind it is away for a moment, or has too much to do. The numbers from
/// 520 on are those of fronts that are no standard.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 424 | 425 | 429 | 502..=504 | 520..=530)
}

/// What a refused upgrade means. The token stands in none of these errors: of what was asked, nothing is quoted.
fn refused(target: &Target, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Status(status @ (401 | 403), _) => Error::Auth { url: host(&target.url), status },
        Refusal::Status(404, _) => Error::KernelNotFound { kernel_id: target.kernel_id.clone() },
        Refusal::Status(status @ 300..=399, headers) => {
            let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
            Error::Gateway {
                operation: OPERATION,
                reason: format!(
                    "HTTP status {status} redirects to {}, and redirects are not followed; give the URL of the \
                     gateway itself, its base path included",
                    location
                        .and_then(|location| target.redirected_host(location))
                        .map_or_else(|| "an unnamed place".to_owned(), |host| format!("the host {host}"))
                ),
            }
        }
        Refusal::Status(status, _) => Error::Gateway {
            operation: OPERATION,
            reason: format!("{} answered with HTTP status {status}", host(&target.url)),
        },
        Refusal::Broken(error) => match certificate_problem(&error) {
            Some(reason) => Error::Certificate { host: host(&target.url), reason },
            None if error.kind() == std::io::ErrorKind::UnexpectedEof => Error::ConnectionLost {
                reason: format!(
                    "the websocket to {} did not open: the connection was closed before the answer",
                    target.way()
                ),
                execution: None,
            },
            None => Error::ConnectionLost {
                reason: format!("{} can't be reached: {error}", target.way()),
                execution: None,
            },
        },
        Refusal::NoWebSocket(reason) => Error::Protocol(format!(
            "{} does not speak the websocket protocol: {reason}; is it a Jupyter gateway?",
            host(&target.url)
        )),
    }
}

/// rustls' own error inside an I/O error, if there is one.
fn certificate_problem(error: &std::io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

fn host(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}
