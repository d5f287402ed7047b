//! What a caller is told while the code runs.

use bytes::Bytes;

use super::display::DisplayItem;
use super::failure::ExecutionError;
use crate::protocol::StreamName;

/// Something that happened while the code ran, borrowed before it is stored.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something was written.
    Output {
        /// Where to.
        stream: StreamName,
        /// What.
        text: &'a str,
    },
    /// A result, or something displayed; cut to a beginning of its plain text if it alone is over the limit.
    Result(&'a DisplayItem),
    /// What was displayed under this item's display id is now this.
    UpdatedResult(&'a DisplayItem),
    /// The code raised, or was not run.
    Error(&'a ExecutionError),
    /// What was displayed so far is to be cleared. Nothing is taken out of the execution, which says how much it is.
    ClearOutput {
        /// Whether only when the next output arrives.
        wait: bool,
    },
    /// The code waits for input, until an `input_reply` is sent on the stdin channel.
    InputRequest {
        /// What to show to whom is asked.
        prompt: &'a str,
        /// Whether what is typed should not be shown.
        password: bool,
        /// The binary attachments of the message.
        buffers: &'a [Bytes],
    },
}
