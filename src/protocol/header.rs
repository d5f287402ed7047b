//! What a message says about itself.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;

use super::json;

/// The channel of a kernel that a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelName {
    /// Requests to run code, and their replies.
    Shell,
    /// Requests that don't queue behind running code.
    Control,
    /// What running code gives out, broadcast.
    Iopub,
    /// The kernel's requests for input, and our replies.
    Stdin,
}

impl ChannelName {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Control => "control",
            Self::Iopub => "iopub",
            Self::Stdin => "stdin",
        }
    }

    /// The channel of that name, if there is one.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        match name {
            b"shell" => Some(Self::Shell),
            b"control" => Some(Self::Control),
            b"iopub" => Some(Self::Iopub),
            b"stdin" => Some(Self::Stdin),
            _ => None,
        }
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The header of a message; a field that is absent or odd is empty.
///
/// The strings are slices of the frame that the message came in, and keep it in memory: to hold on to an id
/// for longer, copy it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The message's own id.
    pub msg_id: ByteString,
    /// What kind of message it is, such as `stream`.
    pub msg_type: ByteString,
    /// The session of the sender.
    pub session: ByteString,
}

/// The usual header, without an escape in it.
#[derive(Deserialize)]
struct Usual<'a> {
    msg_id: &'a str,
    msg_type: &'a str,
    session: &'a str,
}

#[derive(Deserialize)]
struct UsualParent<'a> {
    msg_id: &'a str,
}

impl Header {
    /// Reads a header from JSON.
    pub(super) fn decode(json: &Bytes) -> Self {
        if let Ok(usual) = serde_json::from_slice::<Usual<'_>>(json) {
            return Self {
                msg_id: slice(json, usual.msg_id),
                msg_type: slice(json, usual.msg_type),
                session: slice(json, usual.session),
            };
        }
        let [msg_id, msg_type, session] = json::members(json, ["msg_id", "msg_type", "session"]);
        Self { msg_id: string(msg_id), msg_type: string(msg_type), session: string(session) }
    }

    /// Reads the message id of a parent header; empty where there is none.
    pub(super) fn decode_parent(json: &Bytes) -> ByteString {
        if json.as_ref() == b"{}" {
            return ByteString::new();
        }
        if let Ok(usual) = serde_json::from_slice::<UsualParent<'_>>(json) {
            return slice(json, usual.msg_id);
        }
        let [msg_id] = json::members(json, ["msg_id"]);
        string(msg_id)
    }
}

/// `part` as a slice of `whole`, which it was borrowed from.
fn slice(whole: &Bytes, part: &str) -> ByteString {
    ByteString::try_from(whole.slice_ref(part.as_bytes())).unwrap_or_default()
}

fn string(json: Option<Bytes>) -> ByteString {
    json.and_then(|json| json::text(&json)).unwrap_or_default().into()
}
