//! A message as it came from a kernel.

use bytes::Bytes;
use bytestring::ByteString;

use super::header::{ChannelName, Header};
use super::wire::{self, Frame, Subprotocol};
use crate::error::Result;

/// A message from a kernel: cheap, since its parts are slices of the frame that it came in.
///
/// Its content is decoded by [`Content::decode`](super::Content::decode), when it is wanted.
#[derive(Clone, Debug)]
pub struct Message {
    /// The channel it came on.
    pub channel: ChannelName,
    /// What it says about itself.
    pub header: Header,
    /// The id of the request that it answers; empty where it answers none.
    pub parent_id: ByteString,
    /// Its metadata, as JSON.
    pub metadata: Bytes,
    /// Its content, as JSON.
    pub content: Bytes,
    /// Its binary attachments.
    pub buffers: Vec<Bytes>,
    /// The length of the frame that it came in, which all the parts together keep in memory.
    pub frame_bytes: usize,
}

impl Message {
    /// Reads a message from a frame.
    ///
    /// # Errors
    /// [`Error::Protocol`](crate::Error::Protocol) where the frame is no message, or on no known channel.
    pub fn decode(subprotocol: Subprotocol, frame: &Frame) -> Result<Self> {
        let parts = wire::split(subprotocol, frame)?;
        Ok(Self {
            channel: parts.channel,
            header: Header::decode(&parts.header),
            parent_id: Header::decode_parent(&parts.parent_header),
            metadata: parts.metadata,
            content: parts.content,
            buffers: parts.buffers,
            frame_bytes: frame.len(),
        })
    }

    /// How large the message was that this one stands for, where our gateway found it too large for us
    /// (`gateway/shortening.py`).
    #[must_use]
    pub fn left_out_bytes(&self) -> Option<usize> {
        let marked = self.metadata.strip_prefix(b"{\"sandkernel_omitted\": ".as_slice())?;
        std::str::from_utf8(marked.strip_suffix(b"}")?).ok()?.parse().ok()
    }
}
