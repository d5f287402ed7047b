//! The Jupyter messaging protocol, as much of it as running code takes.
//!
//! Everything that comes from a kernel is hostile data: nothing here panics, whatever the bytes, nothing
//! allocates by a length that the bytes merely claim, and what is odd in one field loses that field and
//! not the message.

mod content;
mod header;
mod json;
mod message;
mod request;
mod wire;

pub use content::{Content, Display, ErrorContent, ExecutionState, ReplyStatus, StreamName};
pub use header::{ChannelName, Header};
pub(crate) use json::{parsed_bytes, text, text_prefix};
pub use message::Message;
pub use request::{ExecuteRequest, InputReply, encode_request};
pub use wire::{Frame, Subprotocol, V1_NAME};
