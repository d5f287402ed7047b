//! What goes over one TCP connection, as far as it tells whether the peer is there.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;

use super::connection::Keepalive;
use crate::error::Seconds;

/// Shared between who reads and writes the bytes and who judges the peer: between them are TLS and the websocket, which
/// hand on nothing before a frame is whole.
#[derive(Debug)]
pub(super) struct Traffic {
    began: Instant,
    /// When bytes came last, in nanoseconds since it began.
    heard: AtomicU64,
    /// How many bytes came.
    came: AtomicUsize,
    /// How many bytes the system has taken to send.
    taken: AtomicUsize,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            came: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        }
    }

    /// Notes that bytes came.
    pub(super) fn note_heard(&self, count: usize) {
        self.came.fetch_add(count, Ordering::Relaxed);
        let since = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.heard.store(since, Ordering::Relaxed);
    }

    /// Notes that the system took bytes to send.
    pub(super) fn note_taken(&self, count: usize) {
        self.taken.fetch_add(count, Ordering::Relaxed);
    }

    /// When bytes came last.
    pub(super) fn last_heard(&self) -> Instant {
        self.began + Duration::from_nanos(self.heard.load(Ordering::Relaxed))
    }

    /// How many bytes came.
    pub(super) fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }

    /// How many bytes the system has taken to send.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits for a write for as long as the peer takes anything: a large message may well take its time on a slow way.
    pub(super) async fn attend(
        &self,
        keepalive: Keepalive,
        writing: impl Future<Output = Result<(), WebSocketError>>,
    ) -> Result<(), String> {
        let Keepalive { dead_after } = keepalive;
        let (mut before, mut since) = (self.taken(), Instant::now());
        let mut writing = pin!(writing);
        loop {
            match timeout(keepalive.tick(), &mut writing).await {
                Ok(written) => return written.map_err(|error| error.to_string()),
                Err(_) if self.taken() != before => (before, since) = (self.taken(), Instant::now()),
                Err(_) if since.elapsed() >= dead_after => {
                    return Err(format!("the peer took no data for {}", Seconds(dead_after)));
                }
                Err(_) => {}
            }
        }
    }
}
