//! The upgrade of an HTTP/1.1 connection to a websocket: <https://www.rfc-editor.org/rfc/rfc6455#section-4>.
//!
//! It is read as servers and the proxies before them write it: in pieces of any size, with informational answers before
//! it, and with further options in its `Connection` header.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE,
};

/// The most that is read until the answer's head is whole, in bytes; of a refusal's body, nothing is read.
const HEAD_LIMIT: usize = 64 * 1024;
const HEADER_LIMIT: usize = 128;

/// Why there is no websocket.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The connection broke.
    Broken(std::io::Error),
    /// The server answers with this status, and these headers.
    Status(u16, HeaderMap),
    /// What answers does not speak the protocol.
    NoWebSocket(&'static str),
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

/// The headers of the answer, and what came behind them: the first frames.
#[derive(Debug)]
pub(super) struct Upgraded {
    pub(super) headers: HeaderMap,
    pub(super) behind: Vec<u8>,
}

/// Asks for the websocket at `target`, a path with its query.
pub(super) async fn upgrade(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    target: &str,
    headers: &HeaderMap,
) -> Result<Upgraded, Refusal> {
    let key = generate_key();
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    )
    .into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let upgraded = answer(stream).await?;
    check(&upgraded.headers, &derive_accept_key(key.as_bytes()))?;
    Ok(upgraded)
}

/// The server's final answer, which says that it changes the protocol.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<Upgraded, Refusal> {
    let mut received = Vec::with_capacity(1024);
    let mut remaining = HEAD_LIMIT;
    loop {
        let before = received.len();
        let count = stream.read_buf(&mut received).await?;
        if count == 0 {
            return Err(Refusal::Broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        remaining = remaining.saturating_sub(count);
        // Of an answer that comes byte by byte, each line is looked at, not each byte.
        if received[before..].contains(&b'\n') {
            while let Some((status, headers, length)) = parse(&received)? {
                received.drain(..length);
                match status {
                    101 => return Ok(Upgraded { headers, behind: received }),
                    100..=199 => {}
                    _ => return Err(Refusal::Status(status, headers)),
                }
            }
        }
        if remaining == 0 {
            return Err(Refusal::NoWebSocket("its answer is too long"));
        }
    }
}

/// The first head among the bytes, if it is whole, and its length.
fn parse(bytes: &[u8]) -> Result<Option<(u16, HeaderMap, usize)>, Refusal> {
    let mut parsed = [httparse::EMPTY_HEADER; HEADER_LIMIT];
    let mut response = httparse::Response::new(&mut parsed);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let mut headers = HeaderMap::new();
            for header in response.headers.iter() {
                let name = HeaderName::from_bytes(header.name.as_bytes());
                // One that is of no use is none.
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) {
                    headers.append(name, value);
                }
            }
            Ok(Some((response.code.unwrap_or_default(), headers, length)))
        }
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::NoWebSocket("its answer has too many headers")),
        Err(_) => Err(Refusal::NoWebSocket("its answer is not HTTP")),
    }
}

fn check(headers: &HeaderMap, accept: &str) -> Result<(), Refusal> {
    if !has_option(headers, &UPGRADE, "websocket") {
        return Err(Refusal::NoWebSocket("its answer has no header \"Upgrade: websocket\""));
    }
    if !has_option(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::NoWebSocket("its answer has no header \"Connection: Upgrade\""));
    }
    if !options(headers, &SEC_WEBSOCKET_ACCEPT).any(|value| value == accept) {
        return Err(Refusal::NoWebSocket("its answer is to another request"));
    }
    Ok(())
}

fn has_option(headers: &HeaderMap, name: &HeaderName, option: &str) -> bool {
    options(headers, name).any(|value| value.eq_ignore_ascii_case(option))
}

/// The options that a header lists, over all its lines.
pub(super) fn options<'headers>(
    headers: &'headers HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'headers str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|option| !option.is_empty())
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What comes of an answer to a request, in which `{accept}` stands for what the key asks for.
    async fn ask(answer: &str) -> Result<Upgraded, Refusal> {
        let (mut client, mut server) = duplex(1 << 20);
        let answering = async {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                server.read_buf(&mut request).await.unwrap();
            }
            let request = String::from_utf8(request).unwrap();
            let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let answer = answer.replace("{accept}", &derive_accept_key(key.as_bytes()));
            for byte in answer.into_bytes() {
                // Who has seen enough is gone.
                let _ = server.write_all(&[byte]).await;
                tokio::task::yield_now().await;
            }
            let _ = server.shutdown().await;
            request
        };
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-more"), HeaderValue::from_static("1"))]);
        let (request, outcome) = tokio::join!(answering, upgrade(&mut client, "h:1", "/a?b=c", &headers));
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\nHost: h:1\r\n"), "{request}");
        assert!(request.contains("\r\nx-more: 1\r\n"), "{request}");
        outcome
    }

    #[tokio::test]
    async fn an_answer_is_taken_as_servers_write_it() {
        for head in [
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
            "HTTP/1.1 101 \r\nupgrade: WebSocket\r\nCONNECTION: keep-alive, Upgrade\r\n",
            "HTTP/1.1 101\r\nUPGRADE: h2c, websocket\r\nConnection: keep-alive\r\nConnection: upgrade\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
             HTTP/1.1 101 Any\r\nX-Odd: \u{e9}\r\nUpgrade:websocket\r\nConnection:\tUpgrade\r\n",
        ] {
            let upgraded = ask(&format!("{head}Sec-WebSocket-Accept: {{accept}} \r\n\r\n\x01\x02")).await;
            let upgraded = upgraded.unwrap_or_else(|refusal| panic!("{refusal:?}: {head}"));
            // The end of the head may come with what is behind it, or before.
            assert!(b"\x01\x02".starts_with(&upgraded.behind), "{upgraded:?}");
        }
    }

    #[tokio::test]
    async fn no_other_answer_is_taken() {
        let complete = "HTTP/1.1 101 Any\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        let endless = format!("{complete}X: {}", "y".repeat(2 * HEAD_LIMIT));
        let informational = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10_000);
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "Status(200"),
            ("HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", "Status(302"),
            (&format!("{complete}Sec-WebSocket-Accept: other\r\n\r\n"), "another request"),
            (&format!("{complete}\r\n"), "another request"),
            (
                "HTTP/1.1 101 Any\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
                "Upgrade: websocket",
            ),
            (
                "HTTP/1.1 101 Any\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
                "Connection: Upgrade",
            ),
            ("SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
            (&endless, "too long"),
            (&informational, "too long"),
            (complete, "UnexpectedEof"),
            ("", "UnexpectedEof"),
        ] {
            let refusal = ask(answer).await.unwrap_err();
            assert!(format!("{refusal:?}").contains(expected), "{refusal:?}: {expected}");
        }
    }
}
