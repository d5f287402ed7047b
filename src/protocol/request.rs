//! What we send to a kernel.

use bytes::Bytes;
use serde::Serialize;

use super::header::ChannelName;
use super::wire::{self, Frame, Subprotocol};
use crate::error::{Error, Result};

/// The version of the messaging protocol that we speak.
const PROTOCOL_VERSION: &str = "5.3";

/// The content of an `execute_request`.
// Each flag is one of the protocol's own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExecuteRequest<'a> {
    /// The code to run.
    pub code: &'a str,
    /// Whether to run it without output, history or execution count.
    pub silent: bool,
    /// Whether it enters the history, and counts.
    pub store_history: bool,
    /// Whether the code may ask for input.
    pub allow_stdin: bool,
    /// Whether its failure aborts the requests that wait behind it.
    pub stop_on_error: bool,
}

impl<'a> ExecuteRequest<'a> {
    /// A request that counts and enters the history, may not ask for input, and whose failure concerns no
    /// other request.
    #[must_use]
    pub const fn new(code: &'a str) -> Self {
        Self { code, silent: false, store_history: true, allow_stdin: false, stop_on_error: false }
    }
}

/// The content of an `input_reply`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct InputReply<'a> {
    /// What was typed, without the line's end.
    pub value: &'a str,
}

#[derive(Serialize)]
struct RequestHeader<'a> {
    msg_id: &'a str,
    msg_type: &'a str,
    session: &'a str,
    username: &'a str,
    version: &'a str,
}

/// Encodes a request: an `execute_request`, `input_reply`, `interrupt_request`, `kernel_info_request` or any other.
///
/// `content` is whatever serializes to a JSON object, a [`RawValue`](serde_json::value::RawValue) included.
///
/// # Errors
/// [`Error::Payload`] where `content` does not serialize, or the message is too large for the subprotocol.
pub fn encode_request(
    subprotocol: Subprotocol,
    channel: ChannelName,
    msg_type: &str,
    msg_id: &str,
    session_id: &str,
    content: &(impl Serialize + ?Sized),
    buffers: &[Bytes],
) -> Result<Frame> {
    let header = RequestHeader {
        msg_id,
        msg_type,
        session: session_id,
        username: "sandkernel",
        version: PROTOCOL_VERSION,
    };
    let unserializable =
        |error| Error::Payload(format!("the content of the {msg_type} does not serialize as JSON: {error}"));
    let header = serde_json::to_vec(&header).map_err(unserializable)?;
    let write_content = |out: &mut Vec<u8>| serde_json::to_writer(out, content).map_err(unserializable);
    wire::join(subprotocol, channel, &header, write_content, buffers)
}
