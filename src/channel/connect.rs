//! TCP, TLS and the websocket upgrade.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error as WebSocketError, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, client_async_tls_with_config};
use url::Url;

use super::connection::{Connection, Keepalive, Socket};
use super::quick_ack::QuickAck;
use crate::error::Seconds;
use crate::protocol::{Subprotocol, V1_NAME};
use crate::{Error, Result};

/// Where the websocket of a kernel is, and how to get there.
#[derive(Debug)]
pub struct Target {
    /// The `ws` or `wss` URL of the kernel's channels. It holds no token.
    pub url: Url,
    /// The value of the `Authorization` header.
    pub authorization: Option<HeaderValue>,
    /// The TLS configuration, needed for `wss`.
    pub tls: Option<Arc<ClientConfig>>,
    /// The kernel's id, for errors.
    pub kernel_id: String,
    /// How many messages of this session have been received, over all its sockets.
    pub received: u64,
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

const RECEIVED: HeaderName = HeaderName::from_static("sandkernel-received");
const RESUMED: HeaderName = HeaderName::from_static("sandkernel-resumed");

/// What one read from the socket is made for. A larger buffer is memory that every idle session holds.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Opens the websocket of a kernel.
///
/// The v1 subprotocol is offered; a server that does not know it is asked again without.
pub async fn connect(
    target: &Target,
    keepalive: Keepalive,
    max_message_bytes: usize,
    deadline: Duration,
) -> Result<(Connection, Resumption)> {
    let attempt = async {
        match upgrade(target, true, max_message_bytes).await {
            Err(WebSocketError::Protocol(ProtocolError::SecWebSocketSubProtocolError(
                SubProtocolError::NoSubProtocol,
            ))) => upgrade(target, false, max_message_bytes).await,
            outcome => outcome,
        }
    };
    match timeout(deadline, attempt).await {
        Ok(Ok((socket, subprotocol, resumption))) => {
            Ok((Connection::new(socket, subprotocol, keepalive), resumption))
        }
        Ok(Err(error)) => Err(refused(target, error)),
        Err(_) => Err(Error::ConnectionLost {
            reason: format!(
                "the websocket to {} did not open within {}",
                host(&target.url),
                Seconds(deadline)
            ),
            execution: None,
        }),
    }
}

async fn upgrade(
    target: &Target,
    offer_v1: bool,
    max_message_bytes: usize,
) -> Result<(Socket, Subprotocol, Resumption), WebSocketError> {
    let mut request = target.url.as_str().into_client_request()?;
    let headers = request.headers_mut();
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers.insert(RECEIVED, HeaderValue::from(target.received));
    if offer_v1 {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(V1_NAME));
    }
    let host = target.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, target.url.port_or_known_default().unwrap_or(443))).await?;
    // An execute request is one small write: it must not wait for the answer to an earlier one.
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes));
    let connector = match &target.tls {
        Some(tls) => Connector::Rustls(Arc::clone(tls)),
        None => Connector::Plain,
    };
    let (socket, response) =
        client_async_tls_with_config(request, QuickAck::new(stream), Some(config), Some(connector)).await?;
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let resumption = match header(RESUMED) {
        None => Resumption::Unsupported,
        Some(count) => count.parse().map_or(Resumption::New, Resumption::Resumed),
    };
    Ok((socket, Subprotocol::negotiated(header(SEC_WEBSOCKET_PROTOCOL)), resumption))
}

/// What a refused upgrade means. The token stands in none of these errors: it is in no URL, and the websocket
/// library quotes no request header.
fn refused(target: &Target, error: WebSocketError) -> Error {
    match error {
        WebSocketError::Http(response) => match response.status().as_u16() {
            status @ (401 | 403) => Error::Auth { url: host(&target.url), status },
            404 => Error::KernelNotFound { kernel_id: target.kernel_id.clone() },
            status => Error::Gateway {
                operation: "opening the kernel's websocket",
                reason: format!("{} answered with HTTP status {status}", host(&target.url)),
            },
        },
        WebSocketError::Io(error) => match certificate_problem(&error) {
            Some(reason) => Error::Certificate { host: host(&target.url), reason },
            None => Error::ConnectionLost {
                reason: format!("{} can't be reached: {error}", host(&target.url)),
                execution: None,
            },
        },
        WebSocketError::Protocol(error) => Error::Protocol(format!(
            "{} does not speak the websocket protocol: {error}; is it a Jupyter gateway?",
            host(&target.url)
        )),
        error => Error::ConnectionLost {
            reason: format!("the websocket to {} did not open: {error}", host(&target.url)),
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
