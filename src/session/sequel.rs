//! Whether the kernel is done with code, though it does not say so.
//!
//! An interrupt at an unlucky moment, before or after the code itself, keeps a kernel from sending the reply or the
//! idle status; so does an exception in the kernel's own handling of the request. So it is asked for something that it
//! gets to when it is done with the code: the replies on the shell channel come in the order of their requests.

use serde::Serialize;

use super::link::{Gone, Link};
use crate::protocol::{ChannelName, Content, ExecutionState, Message, Subprotocol, encode_request};

/// What ipykernel calls itself: a kernel that answers nothing on the shell channel while it runs code.
const SERIAL: &str = "ipython";

/// A request, and what has come of it.
#[derive(Debug, Default)]
pub(super) struct Sequel {
    /// Empty until it is sent.
    id: String,
    answered: bool,
    idle: bool,
    serial: bool,
}

impl Sequel {
    /// Asks the kernel what it is; once more, if it was asked already.
    pub(super) async fn send(&mut self, subprotocol: Subprotocol, link: &mut Link) -> Result<(), Gone> {
        let id = if self.id.is_empty() { link.next_message_id().0 } else { self.id.clone() };
        self.ask(subprotocol, id, "kernel_info_request", &serde_json::json!({}), link).await
    }

    /// Sends a request on the shell channel.
    pub(super) async fn ask(
        &mut self,
        subprotocol: Subprotocol,
        id: String,
        msg_type: &str,
        content: &impl Serialize,
        link: &mut Link,
    ) -> Result<(), Gone> {
        self.id = id;
        let (_, session_id) = link.next_message_id();
        match encode_request(subprotocol, ChannelName::Shell, msg_type, &self.id, session_id, content, &[]) {
            Ok(frame) => link.send(frame).await,
            Err(error) => Err(Gone::Lost(error.to_string())),
        }
    }

    /// Looks at a message that does not belong to the code; whether it belongs here.
    pub(super) fn take(&mut self, message: &Message) -> bool {
        if self.id.is_empty() || message.parent_id != self.id {
            return false;
        }
        match message.channel {
            ChannelName::Shell => {
                self.answered = true;
                self.serial = matches!(
                    Content::decode(message),
                    Content::KernelInfoReply { implementation, .. } if implementation == SERIAL
                );
            }
            ChannelName::Iopub => {
                let idle = Content::Status { execution_state: ExecutionState::Idle };
                self.idle |= Content::decode(message) == idle;
            }
            ChannelName::Control | ChannelName::Stdin => {}
        }
        true
    }

    /// Whether the kernel is done with the code; its output may still be on the way.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Whether it was answered by a kernel that is known to answer nothing while it runs code.
    pub(super) fn is_answered_in_turn(&self) -> bool {
        self.answered && self.serial
    }

    /// Whether the output of the code has come, too.
    pub(super) fn is_over(&self) -> bool {
        self.answered && self.idle
    }
}
