//! Frames in and out of one websocket, and whether the peer is still there.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WebSocketError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message as WebSocketMessage, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::pieces::{Assembly, Taken};
use super::quick_ack::QuickAck;
use super::traffic::Traffic;
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
    pub(super) fn tick(self) -> Duration {
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

const A_MOMENT: Duration = Duration::from_secs(1);

/// More bytes than those of handshakes and pings are part of a message.
const MUCH: usize = 64 * 1024;

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
    traffic: Arc<Traffic>,
    subprotocol: Subprotocol,
    keepalive: Keepalive,
    /// Ticks without a timer of its own for each message: a deadline moved at every message would cost more than
    /// the message.
    ticks: Interval,
    /// When it was looked at last, and whether a whole frame has come since.
    looked: Instant,
    framed: bool,
    /// How many of the last frames were no messages.
    malformed: usize,
    /// What has come of a message in pieces, and how long a message may be.
    assembly: Assembly,
    max_message_bytes: usize,
    /// The first and the last ping of those since the peer was heard.
    asked: Option<(Instant, Instant)>,
}

impl Connection {
    pub(super) fn new(
        socket: Socket,
        traffic: Arc<Traffic>,
        subprotocol: Subprotocol,
        keepalive: Keepalive,
        max_message_bytes: usize,
    ) -> Self {
        let now = Instant::now();
        let mut ticks = interval_at(now + keepalive.tick(), keepalive.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            traffic,
            subprotocol,
            keepalive,
            ticks,
            looked: now,
            framed: false,
            malformed: 0,
            assembly: Assembly::default(),
            max_message_bytes,
            asked: None,
        }
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
        let message = to_send(frame)?;
        self.write(message).await
    }

    /// Takes a frame to send, once what was taken before has gone. Dropped before that, it has not taken it.
    ///
    /// # Errors
    ///
    /// Why the connection is lost.
    pub async fn feed(&mut self, frame: Frame) -> Result<(), String> {
        let message = to_send(frame)?;
        self.traffic.attend(self.keepalive, self.socket.feed(message)).await
    }

    /// Sends what was taken. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// Why the connection is lost.
    pub async fn flush(&mut self) -> Result<(), String> {
        self.traffic.attend(self.keepalive, self.socket.flush()).await
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
                    self.framed = true;
                    match received {
                        Some(Ok(WebSocketMessage::Binary(bytes))) => Frame::Binary(bytes),
                        Some(Ok(WebSocketMessage::Text(text))) => Frame::Text(text.into()),
                        Some(Ok(WebSocketMessage::Close(frame))) => return Err(farewell(frame.as_ref()).into()),
                        // The websocket library answers pings by itself, at the next read or write.
                        Some(Ok(_)) => {
                            // One read may bring thousands: whoever waits for a time to pass gets a turn.
                            consume_budget().await;
                            continue;
                        }
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
                Err(error) => {
                    if let Some(message) = self.assemble(&frame, &error)? {
                        return Ok(message);
                    }
                }
            }
        }
    }

    /// Takes a frame that is no message: it may be a piece of one.
    fn assemble(&mut self, frame: &Frame, error: &crate::Error) -> Result<Option<Message>, Broken> {
        if let Frame::Binary(bytes) = frame {
            match self.assembly.take(bytes, self.max_message_bytes) {
                Taken::Part => {
                    self.malformed = 0;
                    return Ok(None);
                }
                Taken::Whole(whole) => {
                    if let Ok(message) = Message::decode(self.subprotocol, &Frame::Binary(whole)) {
                        self.malformed = 0;
                        return Ok(Some(message));
                    }
                }
                Taken::Nothing => {}
            }
        }
        if self.malformed >= MOST_MALFORMED {
            return Err(error.to_string().into());
        }
        self.malformed += 1;
        Ok(None)
    }

    /// Goes on with what an earlier connection has brought of the next message.
    pub fn go_on_with(&mut self, assembly: Assembly) {
        self.assembly = assembly;
    }

    /// What has come of the next message in pieces, for the connection after this one.
    pub fn into_assembly(self) -> Assembly {
        self.assembly
    }

    /// Whether bytes came a moment ago.
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        self.traffic.last_heard().elapsed() < A_MOMENT
    }

    /// Whether it has carried more than the words by which the ends hear of each other.
    #[must_use]
    pub fn has_carried_much(&self) -> bool {
        self.traffic.came().max(self.traffic.taken()) > MUCH
    }

    /// Pings a silent peer, and gives up one that does not answer. Bytes of a frame that is not whole yet are a sign of
    /// life, too, and the only one: the answer to a ping comes behind them.
    async fn check_peer(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let heard = self.traffic.last_heard();
        let in_a_frame = !mem::take(&mut self.framed) && heard > mem::replace(&mut self.looked, now);
        if in_a_frame {
            // The peer's own pings wait behind what it sends, and it may give up who answers none.
            return self.write(WebSocketMessage::Pong(Bytes::new())).await;
        }
        let silent_for = now.duration_since(heard);
        self.asked = self.asked.filter(|(first, _)| *first > heard);
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

    /// Writes a whole message.
    async fn write(&mut self, message: WebSocketMessage) -> Result<(), String> {
        self.traffic.attend(self.keepalive, self.socket.send(message)).await
    }

    /// Says goodbye; a peer that does not answer within `patience` is left.
    pub async fn close(mut self, patience: Duration) {
        // The code says that nobody comes back.
        let farewell = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
        let _ = timeout(patience, self.socket.close(Some(farewell))).await;
    }
}

fn to_send(frame: Frame) -> Result<WebSocketMessage, String> {
    match frame {
        Frame::Text(text) => {
            let text = text.try_into().map_err(|error| format!("a text frame is not UTF-8: {error}"))?;
            Ok(WebSocketMessage::Text(text))
        }
        Frame::Binary(bytes) => Ok(WebSocketMessage::Binary(bytes)),
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
