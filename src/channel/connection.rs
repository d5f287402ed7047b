//! Frames in and out of one websocket, and whether the peer is still there.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WebSocketError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message as WebSocketMessage, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::quick_ack::QuickAck;
use crate::error::Seconds;
use crate::protocol::{Frame, Message, Subprotocol};

/// TLS to the gateway, if any, within TLS to a proxy, if any.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<MaybeTlsStream<QuickAck>>>;

/// When a silent peer is asked whether it is there, and when it is taken for dead.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// How long a peer may stay silent, pings included, until the connection counts as lost.
    pub dead_after: Duration,
}

impl Keepalive {
    /// How often the silence is looked at: a black hole is noticed at most this much late.
    fn tick(self) -> Duration {
        (self.dead_after / 6).max(Duration::from_millis(5))
    }

    /// At least two pings go out before the peer is given up.
    fn ping_every(self) -> Duration {
        self.dead_after / 3
    }

    /// How long a peer has for its answer. Only a peer that was asked is ever given up: silence alone may be our
    /// own, of a machine that slept or of an owner that was busy elsewhere.
    fn answer_within(self) -> Duration {
        self.dead_after / 2
    }
}

/// A peer that sends this many frames in a row which are no messages is no gateway.
const MOST_MALFORMED: usize = 100;

/// Why nothing more comes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The connection is lost, and why.
    #[error("{0}")]
    Lost(String),
    /// A message is larger than what is taken. Not even its beginning was read.
    #[error("a message of {bytes} bytes came, and no more than {limit} are taken")]
    TooLarge {
        /// The message's length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self::Lost(reason)
    }
}

/// An open websocket to a kernel.
///
/// It does nothing by itself: whoever owns it has to be in [`Connection::next`] most of the time, which is also
/// what answers the peer's pings.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// How many bytes the system has taken to send.
    taken: Arc<AtomicUsize>,
    subprotocol: Subprotocol,
    keepalive: Keepalive,
    /// Ticks without a timer of its own for each message: a deadline moved at every message would cost more than
    /// the message.
    ticks: Interval,
    last_heard: Instant,
    /// How many of the last frames were no messages.
    malformed: usize,
    /// The first and the last ping since the peer was heard.
    asked: Option<(Instant, Instant)>,
}

impl Connection {
    pub(super) fn new(
        socket: Socket,
        taken: Arc<AtomicUsize>,
        subprotocol: Subprotocol,
        keepalive: Keepalive,
    ) -> Self {
        let now = Instant::now();
        let mut ticks = interval_at(now + keepalive.tick(), keepalive.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { socket, taken, subprotocol, keepalive, ticks, last_heard: now, malformed: 0, asked: None }
    }

    /// The subprotocol that was agreed on.
    #[must_use]
    pub fn subprotocol(&self) -> Subprotocol {
        self.subprotocol
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// Why the connection is lost.
    pub async fn send(&mut self, frame: Frame) -> Result<(), String> {
        let message = match frame {
            Frame::Text(text) => WebSocketMessage::Text(
                text.try_into().map_err(|error| format!("a text frame is not UTF-8: {error}"))?,
            ),
            Frame::Binary(bytes) => WebSocketMessage::Binary(bytes),
        };
        self.write(message).await
    }

    /// The next message. May be dropped and called again without losing anything.
    ///
    /// # Errors
    ///
    /// Why the connection is of no more use.
    pub async fn next(&mut self) -> Result<Message, Broken> {
        loop {
            let frame = tokio::select! {
                biased;
                received = self.socket.next() => {
                    self.last_heard = Instant::now();
                    self.asked = None;
                    match received {
                        Some(Ok(WebSocketMessage::Binary(bytes))) => Frame::Binary(bytes),
                        Some(Ok(WebSocketMessage::Text(text))) => Frame::Text(text.into()),
                        Some(Ok(WebSocketMessage::Close(frame))) => return Err(farewell(frame.as_ref()).into()),
                        // The websocket library answers pings by itself, at the next read or write.
                        Some(Ok(_)) => continue,
                        Some(Err(WebSocketError::Capacity(CapacityError::MessageTooLong { size, max_size }))) => {
                            return Err(Broken::TooLarge { bytes: size, limit: max_size });
                        }
                        Some(Err(error)) => return Err(error.to_string().into()),
                        None => return Err(farewell(None).into()),
                    }
                }
                _ = self.ticks.tick() => {
                    self.check_peer().await?;
                    continue;
                }
            };
            match Message::decode(self.subprotocol, &frame) {
                Ok(message) => {
                    self.malformed = 0;
                    return Ok(message);
                }
                // One odd frame is no reason to lose the others.
                Err(_) if self.malformed < MOST_MALFORMED => self.malformed += 1,
                Err(error) => return Err(error.to_string().into()),
            }
        }
    }

    /// Pings a silent peer, and gives up one that does not answer.
    async fn check_peer(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let silent_for = now.duration_since(self.last_heard);
        match self.asked {
            Some((first, _))
                if silent_for >= self.keepalive.dead_after
                    && now.duration_since(first) >= self.keepalive.answer_within() =>
            {
                Err(format!("nothing was heard of the gateway for {}", Seconds(silent_for)))
            }
            Some((_, last)) if now.duration_since(last) < self.keepalive.ping_every() => Ok(()),
            None if silent_for < self.keepalive.tick() => Ok(()),
            asked => {
                self.asked = Some((asked.map_or(now, |(first, _)| first), now));
                self.write(WebSocketMessage::Ping(Bytes::new())).await
            }
        }
    }

    /// Writes for as long as the peer takes anything: a large message may well take its time on a slow way.
    async fn write(&mut self, message: WebSocketMessage) -> Result<(), String> {
        let Keepalive { dead_after } = self.keepalive;
        let taken = || self.taken.load(Ordering::Relaxed);
        let (mut before, mut since) = (taken(), Instant::now());
        let mut writing = pin!(self.socket.send(message));
        loop {
            match timeout(self.keepalive.tick(), &mut writing).await {
                Ok(written) => return written.map_err(|error| error.to_string()),
                Err(_) if taken() != before => (before, since) = (taken(), Instant::now()),
                Err(_) if since.elapsed() >= dead_after => {
                    return Err(format!("the peer took no data for {}", Seconds(dead_after)));
                }
                Err(_) => {}
            }
        }
    }

    /// Says goodbye; a peer that does not answer within `patience` is left.
    pub async fn close(mut self, patience: Duration) {
        // The code says that nobody comes back.
        let farewell = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
        let _ = timeout(patience, self.socket.close(Some(farewell))).await;
    }
}

fn farewell(frame: Option<&CloseFrame>) -> String {
    match frame {
        Some(frame) if !frame.reason.is_empty() => {
            // The peer's words, without control characters and not too many of them.
            let reason = frame.reason.chars().filter(|character| !character.is_control()).take(200);
            format!("the gateway closed it: {}", reason.collect::<String>())
        }
        Some(frame) => format!("the gateway closed it with code {}", frame.code),
        None => "the gateway closed it".to_owned(),
    }
}
