//! An HTTP proxy that records what it was asked, and takes every host for a port of this machine.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The proxy; it ends when it is dropped.
pub(crate) struct ConnectProxy {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl ConnectProxy {
    /// Passes on what `refusal` of a request's head gives no status for.
    pub(crate) async fn start(
        target_port: u16,
        refusal: impl Fn(&str) -> Option<u16> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let refusal = Arc::new(refusal);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (seen, refusal) = (Arc::clone(&seen), Arc::clone(&refusal));
                tokio::spawn(async move {
                    let _ = serve(client, target_port, &seen, &*refusal).await;
                });
            }
        });
        Self { port, asked, task }
    }

    /// The heads of the requests until now.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    target_port: u16,
    asked: &Mutex<Vec<String>>,
    refusal: &(dyn Fn(&str) -> Option<u16> + Send + Sync),
) -> std::io::Result<()> {
    let mut received = Vec::new();
    let end = loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    if let Some(status) = refusal(&head) {
        let answer =
            format!("HTTP/1.1 {status} Refused\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused");
        return client.write_all(answer.as_bytes()).await;
    }
    let mut target = TcpStream::connect(("127.0.0.1", target_port)).await?;
    let _ = (client.set_nodelay(true), target.set_nodelay(true));
    if head.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        target.write_all(forwarded(&head).as_bytes()).await?;
    }
    target.write_all(&received[end..]).await?;
    copy_bidirectional(&mut client, &mut target).await?;
    Ok(())
}

/// The head as the target is to see it: its own path alone, and one request for each connection.
fn forwarded(head: &str) -> String {
    let mut parts = head.splitn(3, ' ');
    let (method, url, rest) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let (line, headers) = rest.split_once("\r\n").unwrap_or_default();
    format!("{method} /{path} {line}\r\nConnection: close\r\n{headers}")
}
