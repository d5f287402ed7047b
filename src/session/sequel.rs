//! Whether the kernel is done with code that was interrupted, though it does not say so.
//!
//! An interrupt at an unlucky moment, before or after the code itself, keeps a kernel from sending the reply or the
//! idle status. So it is asked for something that it gets to when it is done with the code.

use super::link::{Gone, Link};
use crate::protocol::{ChannelName, Content, ExecutionState, Message, Subprotocol, encode_request};

#[derive(Debug, Default)]
pub(super) struct Sequel {
    /// Empty until it is sent.
    id: String,
    answered: bool,
    idle: bool,
}

impl Sequel {
    /// Asks the kernel; once more, if it was asked already.
    pub(super) async fn send(
        &mut self,
        subprotocol: Subprotocol,
        msg_id: &str,
        link: &mut Link,
    ) -> Result<(), Gone> {
        self.id = format!("{msg_id}_sequel");
        let (_, session_id) = link.next_message_id();
        let (channel, content) = (ChannelName::Shell, serde_json::json!({}));
        match encode_request(subprotocol, channel, "kernel_info_request", &self.id, session_id, &content, &[])
        {
            Ok(frame) => link.send(frame).await,
            Err(error) => Err(Gone::Lost(error.to_string())),
        }
    }

    /// Looks at a message that does not belong to the code.
    pub(super) fn take(&mut self, message: &Message) {
        if self.id.is_empty() || message.parent_id != self.id {
            return;
        }
        match message.channel {
            ChannelName::Shell => self.answered = true,
            ChannelName::Iopub => {
                let idle = Content::Status { execution_state: ExecutionState::Idle };
                self.idle |= Content::decode(message) == idle;
            }
            ChannelName::Control | ChannelName::Stdin => {}
        }
    }

    /// Whether the kernel is done with the code; its output may still be on the way.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Whether the output of the code has come, too.
    pub(super) fn is_over(&self) -> bool {
        self.answered && self.idle
    }
}
