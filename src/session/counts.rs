//! What was received and sent in a session, over all its sockets: what a gateway's journal goes by (`journal.py`).

use std::collections::VecDeque;

use crate::channel::Connection;
use crate::protocol::Frame;
use crate::{Error, Result};

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Whether the gateway keeps a journal at all.
    pub(super) journaled: bool,
    pub(super) received: u64,
    sent: u64,
    /// The last frames sent, which the gateway may not have received.
    unconfirmed: VecDeque<Frame>,
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
        }
    }

    /// Notes that what was sent so far has been received, or does not matter any more.
    pub(super) fn confirm(&mut self) {
        self.unconfirmed.clear();
    }

    /// Sends those frames again that the gateway has not received.
    pub(super) async fn send_again(&self, received: u64, connection: &mut Connection) -> Result<()> {
        let missing = usize::try_from(self.sent.saturating_sub(received)).unwrap_or(usize::MAX);
        if missing > self.unconfirmed.len() {
            return Err(Error::Protocol(format!(
                "the gateway says that it has received {received} messages of {}, which can't be",
                self.sent
            )));
        }
        for frame in self.unconfirmed.iter().skip(self.unconfirmed.len() - missing) {
            connection
                .send(frame.clone())
                .await
                .map_err(|reason| Error::ConnectionLost { reason, execution: None })?;
        }
        Ok(())
    }
}
