//! An HTTP server that answers what a test wants, well formed or not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of a request.
pub(crate) enum Reply {
    /// These bytes, and then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes over and over, until the client goes.
    Endless(Vec<u8>),
    /// Nothing, on a connection that stays open.
    Silence,
    /// The end of the connection.
    Close,
}

impl Reply {
    /// A well-formed answer; `headers` are whole lines, each ended by CRLF.
    pub(crate) fn http(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(
            format!(
                "HTTP/1.1 {status} Any\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .into_bytes(),
        )
    }

    /// What a gateway answers when it is ready.
    pub(crate) fn ready() -> Self {
        Self::http(200, "", r#"{"default": "python3", "kernelspecs": {"python3": {"name": "python3"}}}"#)
    }
}

/// The server; it ends when it is dropped.
pub(crate) struct FaultServer {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl FaultServer {
    /// Answers request number `n`, counted from 0, of head `head`, with `reply(n, head)`.
    pub(crate) async fn start(reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let reply = Arc::new(reply);
            let count = Arc::new(AtomicUsize::new(0));
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, seen, count) = (Arc::clone(&reply), Arc::clone(&seen), Arc::clone(&count));
                connections.spawn(async move {
                    let _ = answer(stream, &*reply, &seen, &count).await;
                });
            }
        });
        Self { port, requests, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no test panics while it holds the requests").clone()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: TcpStream,
    reply: &(impl Fn(usize, &str) -> Reply + Send + Sync),
    requests: &Mutex<Vec<String>>,
    count: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let reply = reply(count.fetch_add(1, Ordering::SeqCst), &head);
    requests.lock().expect("no test panics while it holds the requests").push(head);
    match reply {
        Reply::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            // What is unread at the close would become a reset, which can overtake the answer.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        }
        Reply::Endless(bytes) => loop {
            stream.write_all(&bytes).await?;
        },
        Reply::Silence => std::future::pending().await,
        Reply::Close => {}
    }
    Ok(())
}
