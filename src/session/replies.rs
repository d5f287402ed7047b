//! What is answered to code that asks for input.

use bytes::Bytes;
use tokio::sync::mpsc;

/// The answer to an [`InputRequest`](super::InputRequest).
#[derive(Debug, Clone)]
pub struct Reply {
    /// What was typed, without the line's end; a `\u{4}` alone is the end of input.
    pub value: String,
    /// Binary attachments of the message, for code that looks for them.
    pub buffers: Vec<Bytes>,
}

/// Answers the requests of one execution, from wherever; after its end, nobody.
#[derive(Debug, Clone)]
pub struct Replier(mpsc::UnboundedSender<Reply>);

impl Replier {
    /// Sends a reply. Whether the execution is still under way.
    #[allow(clippy::must_use_candidate, reason = "a late reply concerns nobody")]
    pub fn reply(&self, reply: Reply) -> bool {
        self.0.send(reply).is_ok()
    }

    /// Whether the execution is still under way: a reply may be waited for.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }
}

/// The worker's end. It has none where nobody observes.
#[derive(Debug)]
pub(super) struct Replies(Option<mpsc::UnboundedReceiver<Reply>>);

impl Replies {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// The next reply; where nobody is left to reply, there never is one. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Reply {
        if let Some(replies) = &mut self.0 {
            if let Some(reply) = replies.recv().await {
                return reply;
            }
            self.0 = None;
        }
        std::future::pending().await
    }
}

pub(super) fn channel() -> (Replier, Replies) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Replier(sender), Replies(Some(receiver)))
}
