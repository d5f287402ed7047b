//! HTTP CONNECT: a proxy's connection to a host, asked for and taken over.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::MaybeTlsStream;

use super::Proxy;
use crate::Error;

/// The most that is read of a proxy's answer, in bytes; a refusal's page is not read at all.
const ANSWER_LIMIT: usize = 16 * 1024;
const HEADER_LIMIT: usize = 100;

const OPERATION: &str = "asking the proxy for a connection to the gateway";

/// Why there is no tunnel.
#[derive(Debug)]
pub(crate) enum TunnelFailure {
    /// The connection to the proxy did not come about, or broke.
    Unreachable(io::Error),
    /// The proxy refuses, with this HTTP status.
    Refused(u16),
    /// What answers is no HTTP proxy.
    NoProxy(&'static str),
}

impl From<io::Error> for TunnelFailure {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}

impl TunnelFailure {
    /// Whether another attempt can't help: the proxy wants credentials, forbids it, or does not prove itself.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Unreachable(error) => rustls_error(error).is_some(),
            Self::Refused(status) => matches!(status, 401 | 403 | 405 | 407),
            Self::NoProxy(_) => false,
        }
    }

    /// What the failure is to the user. The credentials for the proxy stand in none of it.
    pub(crate) fn into_error(self, proxy: &Proxy, host: &str, port: u16) -> Error {
        match self {
            Self::Unreachable(error) => match rustls_error(&error) {
                Some(reason) => Error::Certificate { host: format!("the proxy {proxy}"), reason },
                None => Error::ConnectionLost {
                    reason: format!(
                        "the proxy {proxy}, which the environment names, can't be reached: {error}"
                    ),
                    execution: None,
                },
            },
            Self::Refused(status) => {
                let advice = match status {
                    407 => {
                        "it asks for a user name and a password; give the right ones in the proxy's URL \
                         (http://user:password@host:port)"
                    }
                    _ => "have the proxy allow it, or add the host to NO_PROXY if it can be reached directly",
                };
                Error::Gateway {
                    operation: OPERATION,
                    reason: format!(
                        "the proxy {proxy} refused CONNECT to {host}:{port} with HTTP status {status}; {advice}"
                    ),
                }
            }
            Self::NoProxy(reason) => Error::Gateway {
                operation: OPERATION,
                reason: format!(
                    "{proxy}, which the environment names as the proxy, does not answer as an HTTP proxy: {reason}"
                ),
            },
        }
    }
}

impl Proxy {
    /// Makes of a connection to the proxy one to `host`, which stands in brackets if it is an IPv6 address. `tls` is
    /// for a proxy that is itself spoken to over TLS.
    pub(crate) async fn tunnel<S>(
        &self,
        stream: S,
        tls: Option<Arc<ClientConfig>>,
        host: &str,
        port: u16,
    ) -> Result<MaybeTlsStream<S>, TunnelFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = match tls.filter(|_| self.is_tls()) {
            Some(tls) => {
                let name = ServerName::try_from(self.address().0.to_owned()).map_err(io::Error::other)?;
                MaybeTlsStream::Rustls(TlsConnector::from(tls).connect(name, stream).await?)
            }
            None => MaybeTlsStream::Plain(stream),
        };
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await?;
        stream.flush().await?;
        match answer(&mut stream).await? {
            200..=299 => Ok(stream),
            status => Err(TunnelFailure::Refused(status)),
        }
    }
}

/// The status of the proxy's answer. Of what comes after its head, nothing is read.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, TunnelFailure> {
    let mut answer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(TunnelFailure::Unreachable(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADER_LIMIT];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&answer) {
            Ok(httparse::Status::Complete(length)) => {
                let status = response.code.unwrap_or_default();
                // It is the client that speaks first through a tunnel.
                return if (200..300).contains(&status) && length < answer.len() {
                    Err(TunnelFailure::NoProxy("it sends data before it is asked"))
                } else {
                    Ok(status)
                };
            }
            Ok(httparse::Status::Partial) if answer.len() < ANSWER_LIMIT => {}
            Ok(httparse::Status::Partial) => return Err(TunnelFailure::NoProxy("its answer is too long")),
            Err(_) => return Err(TunnelFailure::NoProxy("its answer is not HTTP")),
        }
    }
}

/// rustls' own error inside an I/O error, if there is one.
fn rustls_error(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use url::Url;

    use super::*;
    use crate::proxy::Proxies;

    fn proxy() -> Proxy {
        let url = Url::parse("https://gateway.test:8443/").unwrap();
        Proxies::new("http://me:s3cret@proxy.test:3128", "").choose(&url).unwrap().unwrap()
    }

    /// What the proxy was asked, and what came of its answer.
    async fn ask(answer: &[u8]) -> (String, Result<(), TunnelFailure>) {
        let (client, mut server) = duplex(64 * 1024);
        server.write_all(answer).await.unwrap();
        server.shutdown().await.unwrap();
        let outcome = proxy().tunnel(client, None, "gateway.test", 8443).await.map(drop);
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        (asked, outcome)
    }

    #[tokio::test]
    async fn asks_with_its_credentials() {
        let (asked, outcome) = ask(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 it\r\n\r\n").await;
        outcome.unwrap();
        assert_eq!(
            asked,
            "CONNECT gateway.test:8443 HTTP/1.1\r\nHost: gateway.test:8443\r\n\
             Proxy-Authorization: Basic bWU6czNjcmV0\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn takes_no_other_answer() {
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        endless.extend_from_slice(&b"X: y\r\n".repeat(10_000));
        let mut long = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        long.resize(60_000, b'y');
        for (answer, expected) in [
            (
                &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
                "proxy.test:3128 refused CONNECT to gateway.test:8443 with HTTP status 407; it asks",
            ),
            (b"HTTP/1.0 403 Forbidden\r\nContent-Length: 5\r\n\r\ns3cret", "HTTP status 403; have the proxy"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP status 502"),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP status 101"),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", "before it is asked"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
            (b"\x05\xff", "not HTTP"),
            (&endless, "not HTTP"),
            (&long, "too long"),
            (b"HTTP/1.1 200 OK\r\n", "can't be reached"),
            (b"", "can't be reached"),
        ] {
            let error = ask(answer).await.1.unwrap_err().into_error(&proxy(), "gateway.test", 8443);
            assert!(error.to_string().contains(expected), "{error}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3cret") && !shown.contains("bWU6"), "{shown}");
        }
    }
}
