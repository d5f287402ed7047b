//! TCP, TLS and the websocket upgrade.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error as WebSocketError, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HeaderName, HeaderValue, LOCATION, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, client_async_tls_with_config};
use url::Url;

use super::connection::{Connection, Keepalive};
use super::quick_ack::QuickAck;
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
    /// The TLS configuration, needed for `wss` and for a proxy that is spoken to over TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The proxy to ask for the connection.
    pub proxy: Option<Proxy>,
    /// The kernel's id, for errors.
    pub kernel_id: String,
    /// How many messages of this session have been received, over all its sockets.
    pub received: u64,
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
        let secret = self.authorization.as_ref().and_then(|value| value.to_str().ok());
        let secret = secret.and_then(|value| value.rsplit(' ').next()).map(str::to_ascii_lowercase);
        secret.is_none_or(|secret| !host.contains(&secret)).then_some(host)
    }
}

/// Whether the session goes on where it was: what a gateway with a journal (`journal.py`) says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// The gateway keeps no journal: what was on the way when an earlier socket broke is lost.
    Unsupported,
    /// The session begins anew.
    New,
    /// The gateway sends what was missed, and has received this many messages of ours.
    Resumed(u64),
}

const OPERATION: &str = "opening the kernel's websocket";

/// The longest host name that there is.
const MOST_OF_A_HOST_NAME: usize = 253;

const RECEIVED: HeaderName = HeaderName::from_static("sandkernel-received");
const LIMIT: HeaderName = HeaderName::from_static("sandkernel-limit");
const RESUMED: HeaderName = HeaderName::from_static("sandkernel-resumed");

/// What one read from the socket is made for. A larger buffer is memory that every idle session holds.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Why a websocket did not open.
enum Failure {
    /// The proxy gives no way to the gateway.
    Proxy(Error),
    WebSocket(Box<WebSocketError>),
}

impl From<WebSocketError> for Failure {
    fn from(error: WebSocketError) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        WebSocketError::from(error).into()
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
    deadline: Duration,
) -> Result<(Connection, Resumption)> {
    let attempt = async || match upgrade(target, true, keepalive, max_message_bytes).await {
        Err(Failure::WebSocket(error)) if is_without_v1(&error) => {
            upgrade(target, false, keepalive, max_message_bytes).await
        }
        outcome => outcome,
    };
    // One that goes silent is given up as it would be once it is open. It may also be that the gateway is slow: the next
    // one has all the time that is left.
    let first = keepalive.dead_after.min(deadline);
    let outcome = match timeout(first, attempt()).await {
        Err(_) => timeout(deadline.saturating_sub(first), attempt()).await,
        outcome => outcome,
    };
    match outcome {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(Failure::WebSocket(error))) => Err(refused(target, *error)),
        Ok(Err(Failure::Proxy(error))) => Err(error),
        Err(_) => Err(Error::ConnectionLost {
            reason: format!("the websocket to {} did not open within {}", target.way(), Seconds(deadline)),
            execution: None,
        }),
    }
}

async fn upgrade(
    target: &Target,
    offer_v1: bool,
    keepalive: Keepalive,
    max_message_bytes: usize,
) -> Result<(Connection, Resumption), Failure> {
    let mut request = target.url.as_str().into_client_request()?;
    let headers = request.headers_mut();
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers.insert(RECEIVED, HeaderValue::from(target.received));
    headers.insert(LIMIT, HeaderValue::from(max_message_bytes));
    if offer_v1 {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(V1_NAME));
    }
    let taken = Arc::new(AtomicUsize::new(0));
    let stream = reach(target, &taken).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes));
    let connector = match &target.tls {
        Some(tls) => Connector::Rustls(Arc::clone(tls)),
        None => Connector::Plain,
    };
    let handshake = client_async_tls_with_config(request, stream, Some(config), Some(connector));
    // Boxed, as it is large and rare.
    let (socket, response) = Box::pin(handshake).await?;
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let resumption = match header(RESUMED) {
        None => Resumption::Unsupported,
        Some(count) => count.parse().map_or(Resumption::New, Resumption::Resumed),
    };
    let subprotocol = Subprotocol::negotiated(header(SEC_WEBSOCKET_PROTOCOL));
    Ok((Connection::new(socket, taken, subprotocol, keepalive), resumption))
}

/// A connection to the gateway, or to what stands for it: the proxy's tunnel.
async fn reach(target: &Target, taken: &Arc<AtomicUsize>) -> Result<MaybeTlsStream<QuickAck>, Failure> {
    let open = async |host: &str, port: u16| {
        let stream = TcpStream::connect((host, port)).await?;
        // An execute request is one small write: it must not wait for the answer to an earlier one.
        stream.set_nodelay(true)?;
        std::io::Result::Ok(QuickAck::new(stream, Arc::clone(taken)))
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

/// Whether the server refused the upgrade for want of the v1 subprotocol.
fn is_without_v1(error: &WebSocketError) -> bool {
    matches!(
        error,
        WebSocketError::Protocol(ProtocolError::SecWebSocketSubProtocolError(
            SubProtocolError::NoSubProtocol
        ))
    )
}

/// What a refused upgrade means. The token stands in none of these errors: it is in no URL, and the websocket
/// library quotes no request header.
fn refused(target: &Target, error: WebSocketError) -> Error {
    match error {
        WebSocketError::Http(response) => match response.status().as_u16() {
            status @ (401 | 403) => Error::Auth { url: host(&target.url), status },
            404 => Error::KernelNotFound { kernel_id: target.kernel_id.clone() },
            status @ 300..=399 => {
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
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
            status => Error::Gateway {
                operation: OPERATION,
                reason: format!("{} answered with HTTP status {status}", host(&target.url)),
            },
        },
        WebSocketError::Io(error) => match certificate_problem(&error) {
            Some(reason) => Error::Certificate { host: host(&target.url), reason },
            None => Error::ConnectionLost {
                reason: format!("{} can't be reached: {error}", target.way()),
                execution: None,
            },
        },
        WebSocketError::Protocol(error @ ProtocolError::HandshakeIncomplete) => Error::ConnectionLost {
            reason: format!("the websocket to {} did not open: {error}", target.way()),
            execution: None,
        },
        WebSocketError::Protocol(error) => Error::Protocol(format!(
            "{} does not speak the websocket protocol: {error}; is it a Jupyter gateway?",
            host(&target.url)
        )),
        error => Error::ConnectionLost {
            reason: format!("the websocket to {} did not open: {error}", target.way()),
            execution: None,
        },
    }
}

/// rustls' own error inside an I/O error, if there is one.
fn certificate_problem(error: &std::io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

fn host(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}
