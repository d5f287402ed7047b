//! What was received and sent in a session, over all its sockets: what a gateway's journal goes by (`journal.py`).

use std::collections::VecDeque;

use crate::channel::Connection;
use crate::channel::pieces::{self, Assembly, PIECE_BYTES};
use crate::protocol::Frame;
use crate::{Error, Result};

/// How much is kept of what the gateway may not have received; the replies to one execution can be many.
const UNCONFIRMED_BYTES: usize = 32 << 20;

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Whether the gateway keeps a journal at all.
    pub(super) journaled: bool,
    /// Whether the kernel was asked whether it is heard.
    pub(super) probed: bool,
    pub(super) received: u64,
    sent: u64,
    /// How many of those are known to be received, or do not matter any more.
    settled: u64,
    /// The last frames sent, which the gateway may not have received.
    unconfirmed: VecDeque<Frame>,
    unconfirmed_bytes: usize,
    /// What is to be sent again on the connection that is open.
    again: Option<Again>,
    /// What has come of the next message, in pieces.
    pub(super) assembly: Assembly,
}

/// The last frames, as many as are to be sent still.
#[derive(Debug)]
struct Again {
    left: usize,
    /// How much of the first of them the gateway has; `None` where it takes no pieces.
    offset: Option<usize>,
}

impl Counts {
    pub(super) fn new(journaled: bool) -> Self {
        Self { journaled, ..Self::default() }
    }

    /// Notes a frame that is about to be sent.
    pub(super) fn sends(&mut self, frame: &Frame) {
        self.sent += 1;
        if self.journaled {
            self.unconfirmed.push_back(frame.clone());
            self.unconfirmed_bytes += frame.len();
            if let Some(again) = &mut self.again {
                // It comes after those.
                again.left += 1;
                return;
            }
            while self.unconfirmed_bytes > UNCONFIRMED_BYTES && self.unconfirmed.len() > 1 {
                let oldest = self.unconfirmed.pop_front();
                self.unconfirmed_bytes -= oldest.as_ref().map_or(0, Frame::len);
            }
        }
    }

    /// Notes that what was sent so far has been received, or does not matter any more.
    pub(super) fn confirm(&mut self) {
        self.settled = self.sent;
        self.unconfirmed.clear();
        self.unconfirmed_bytes = 0;
        self.again = None;
    }

    /// Whether something is to be sent before anything else.
    pub(super) fn is_behind(&self) -> bool {
        self.again.is_some()
    }

    /// Notes what the gateway has received: of what matters, the rest is to be sent again.
    pub(super) fn take_up(&mut self, received: u64, partial: Option<(u64, usize)>) -> Result<()> {
        if received < self.settled {
            // What does not matter is as if it had never been sent.
            self.sent -= self.settled - received;
            self.settled = received;
        }
        let missing = usize::try_from(self.sent.saturating_sub(received)).unwrap_or(usize::MAX);
        if missing > self.unconfirmed.len() {
            return Err(Error::Protocol(format!(
                "the gateway says that it has received {received} messages of {}, and only the last {} are kept",
                self.sent,
                self.unconfirmed.len()
            )));
        }
        let first = self.unconfirmed.iter().rev().nth(missing.wrapping_sub(1));
        let offset = partial.map(|(identity, bytes)| match first {
            Some(Frame::Binary(frame)) if pieces::identity(frame) == identity && bytes < frame.len() => bytes,
            _ => 0,
        });
        self.again = (missing > 0).then_some(Again { left: missing, offset });
        Ok(())
    }

    /// Sends what is to be sent again. May be dropped and called again.
    pub(super) async fn send_again(&mut self, connection: &mut Connection) -> Result<(), String> {
        while let Some((frame, then)) = self.next_again() {
            connection.feed(frame).await?;
            self.again = Some(then);
        }
        connection.flush().await?;
        self.again = None;
        Ok(())
    }

    /// What to send next, and what is left after that.
    fn next_again(&self) -> Option<(Frame, Again)> {
        let Again { left, offset } = self.again.as_ref()?;
        let frame = self.unconfirmed.iter().rev().nth(left.checked_sub(1)?)?;
        match (frame, offset) {
            (Frame::Binary(bytes), Some(offset)) if bytes.len() > PIECE_BYTES => {
                let (piece, end) = pieces::piece(bytes, *offset);
                let (left, offset) = if end < bytes.len() { (*left, end) } else { (left - 1, 0) };
                Some((Frame::Binary(piece), Again { left, offset: Some(offset) }))
            }
            _ => Some((frame.clone(), Again { left: left - 1, offset: offset.map(|_| 0) })),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_kept_of_large_frames_is_bounded() {
        let mut counts = Counts::new(true);
        for _ in 0..20 {
            counts.sends(&Frame::Binary(Bytes::from(vec![0; 4 << 20])));
        }
        assert_eq!((counts.sent, counts.unconfirmed.len()), (20, 8));
        // One that is larger than all that is kept is kept alone.
        counts.sends(&Frame::Binary(Bytes::from(vec![0; UNCONFIRMED_BYTES + 1])));
        assert_eq!(counts.unconfirmed.len(), 1);
        counts.confirm();
        assert_eq!((counts.unconfirmed.len(), counts.unconfirmed_bytes), (0, 0));
    }
}
