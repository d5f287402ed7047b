//! The two subprotocols of a kernel's websocket: how a message lies in a frame.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::ChannelName;
use super::json;
use crate::error::{Error, Result};

/// The name of [`Subprotocol::V1`], as it is offered in `Sec-WebSocket-Protocol`.
pub const V1_NAME: &str = "v1.kernel.websocket.jupyter.org";

/// How many parts a frame may have; a count beyond is refused before anything is allocated for it.
const MAX_PARTS: usize = 65_536;

/// How messages lie in the frames of a websocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// `v1.kernel.websocket.jupyter.org`: one binary frame, its parts found by offsets.
    V1,
    /// The older default: one JSON text, or a binary frame where the message has buffers.
    Json,
}

impl Subprotocol {
    /// The one that the server chose, by the `Sec-WebSocket-Protocol` header of its answer.
    #[must_use]
    pub fn negotiated(chosen: Option<&str>) -> Self {
        if chosen.is_some_and(|name| name.trim().eq_ignore_ascii_case(V1_NAME)) {
            Self::V1
        } else {
            Self::Json
        }
    }
}

/// What goes to the websocket and comes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text frame. What we encode is valid UTF-8; what we decode need not be.
    Text(Bytes),
    /// A binary frame.
    Binary(Bytes),
}

impl Frame {
    /// The length of the payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        let (Self::Text(bytes) | Self::Binary(bytes)) = self;
        bytes.len()
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The parts of a message, each still JSON, as slices of the frame.
pub(super) struct Parts {
    pub(super) channel: ChannelName,
    pub(super) header: Bytes,
    pub(super) parent_header: Bytes,
    pub(super) metadata: Bytes,
    pub(super) content: Bytes,
    pub(super) buffers: Vec<Bytes>,
}

/// Takes a frame apart.
pub(super) fn split(subprotocol: Subprotocol, frame: &Frame) -> Result<Parts> {
    match (subprotocol, frame) {
        (Subprotocol::V1, Frame::Binary(bytes)) => split_v1(bytes),
        (Subprotocol::Json, Frame::Binary(bytes)) => split_json_binary(bytes),
        (_, Frame::Text(bytes)) => split_json(bytes, Vec::new()),
    }
}

/// Puts the parts of a request together; `write_content` appends its content, as JSON.
pub(super) fn join(
    subprotocol: Subprotocol,
    channel: ChannelName,
    header: &[u8],
    write_content: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    buffers: &[Bytes],
) -> Result<Frame> {
    match subprotocol {
        Subprotocol::V1 => join_v1(channel, header, write_content, buffers),
        Subprotocol::Json => join_json(channel, header, write_content, buffers),
    }
}

fn malformed(what: &str) -> Error {
    Error::Protocol(format!(
        "the kernel sent a malformed message: {what}; check that the URL is that of a kernel gateway or Jupyter server"
    ))
}

fn channel_named(name: &[u8]) -> Result<ChannelName> {
    ChannelName::parse(name).ok_or_else(|| {
        let name: String = String::from_utf8_lossy(name).chars().take(40).collect();
        malformed(&format!("it is on an unknown channel, {name:?}"))
    })
}

/// A little-endian u64 count, so many u64 offsets, then what they bound: channel, header, parent header,
/// metadata, content, buffers. The last offset is the frame's end.
fn split_v1(frame: &Bytes) -> Result<Parts> {
    let (count, rest) = frame.split_first_chunk().ok_or_else(|| malformed("it is cut short"))?;
    let count = usize::try_from(u64::from_le_bytes(*count)).unwrap_or(usize::MAX);
    if count > MAX_PARTS || count > rest.len() / 8 {
        return Err(malformed("it claims more parts than it has room for"));
    }
    let offsets = rest.as_chunks::<8>().0[..count].iter();
    let mut offsets =
        offsets.map(|offset| usize::try_from(u64::from_le_bytes(*offset)).unwrap_or(usize::MAX));
    let mut start = offsets.next().ok_or_else(|| malformed("it has no parts"))?;
    if start < 8 * (1 + count) {
        return Err(malformed("its first part lies within its offsets"));
    }
    let mut parts = offsets.map(|end| {
        let part = part(frame, start, end)?;
        start = end;
        Ok(part)
    });
    let mut next = || parts.next().transpose().map(Option::unwrap_or_default);
    let channel = channel_named(&next()?)?;
    let (header, parent_header, metadata, content) = (next()?, next()?, next()?, next()?);
    let buffers = parts.collect::<Result<_>>()?;
    if header.is_empty() {
        return Err(malformed("it has no header"));
    }
    Ok(Parts { channel, header, parent_header, metadata, content, buffers })
}

/// A big-endian u32 count, so many u32 offsets, then what they begin: the message as JSON, and its buffers.
fn split_json_binary(frame: &Bytes) -> Result<Parts> {
    let (count, rest) = frame.split_first_chunk().ok_or_else(|| malformed("it is cut short"))?;
    let count = usize::try_from(u32::from_be_bytes(*count)).unwrap_or(usize::MAX);
    if count > MAX_PARTS || count > rest.len() / 4 {
        return Err(malformed("it claims more parts than it has room for"));
    }
    let offsets = rest.as_chunks::<4>().0[..count].iter();
    let offsets = offsets.map(|offset| usize::try_from(u32::from_be_bytes(*offset)).unwrap_or(usize::MAX));
    let ends = offsets.clone().skip(1).chain([frame.len()]);
    let mut parts = offsets.zip(ends).map(|(start, end)| {
        if start < 4 * (1 + count) {
            return Err(malformed("its first part lies within its offsets"));
        }
        part(frame, start, end)
    });
    let message = parts.next().ok_or_else(|| malformed("it has no parts"))??;
    split_json(&message, parts.collect::<Result<_>>()?)
}

fn part(frame: &Bytes, start: usize, end: usize) -> Result<Bytes> {
    if start > end || end > frame.len() {
        return Err(malformed("its offsets do not ascend within it"));
    }
    Ok(frame.slice(start..end))
}

fn split_json(message: &Bytes, buffers: Vec<Bytes>) -> Result<Parts> {
    let names = ["channel", "header", "parent_header", "metadata", "content"];
    let [channel, header, parent_header, metadata, content] = json::members(message, names);
    let header = header.ok_or_else(|| malformed("it is no JSON object with a header"))?;
    let channel = channel.and_then(|channel| json::text(&channel)).unwrap_or_default();
    Ok(Parts {
        channel: channel_named(channel.as_bytes())?,
        header,
        parent_header: parent_header.unwrap_or_default(),
        metadata: metadata.unwrap_or_default(),
        content: content.unwrap_or_default(),
        buffers,
    })
}

fn join_v1(
    channel: ChannelName,
    header: &[u8],
    write_content: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    buffers: &[Bytes],
) -> Result<Frame> {
    let count = 6 + buffers.len();
    let mut frame = vec![0; 8 * (1 + count)];
    let mut offsets = Vec::with_capacity(count);
    offsets.push(frame.len());
    for part in [channel.as_str().as_bytes(), header, b"{}", b"{}"] {
        frame.extend_from_slice(part);
        offsets.push(frame.len());
    }
    write_content(&mut frame)?;
    offsets.push(frame.len());
    frame.reserve_exact(buffers.iter().map(Bytes::len).sum());
    for buffer in buffers {
        frame.extend_from_slice(buffer);
        offsets.push(frame.len());
    }
    let numbers = std::iter::once(count).chain(offsets);
    for (place, number) in frame.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *place = (number as u64).to_le_bytes();
    }
    Ok(Frame::Binary(frame.into()))
}

fn join_json(
    channel: ChannelName,
    header: &[u8],
    write_content: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    buffers: &[Bytes],
) -> Result<Frame> {
    let mut message = Vec::with_capacity(256);
    message.extend_from_slice(b"{\"channel\":\"");
    message.extend_from_slice(channel.as_str().as_bytes());
    message.extend_from_slice(b"\",\"header\":");
    message.extend_from_slice(header);
    message.extend_from_slice(b",\"parent_header\":{},\"metadata\":{},\"buffers\":[],\"content\":");
    write_content(&mut message)?;
    message.push(b'}');
    if buffers.is_empty() {
        return Ok(Frame::Text(message.into()));
    }
    let too_large =
        || Error::Payload("a message of 4 GiB or more cannot be sent with the JSON subprotocol".to_owned());
    let length = |length: usize| u32::try_from(length).map_err(|_| too_large());
    let parts = 1 + buffers.len();
    let mut end = length(4 * (1 + parts))?;
    let size = buffers.iter().map(Bytes::len).sum::<usize>() + message.len() + 4 * (1 + parts);
    let mut frame = BytesMut::with_capacity(size);
    frame.put_u32(length(parts)?);
    for part in std::iter::once(message.len()).chain(buffers.iter().map(Bytes::len)) {
        frame.put_u32(end);
        end = end.checked_add(length(part)?).ok_or_else(too_large)?;
    }
    frame.put_slice(&message);
    for buffer in buffers {
        frame.put_slice(buffer);
    }
    Ok(Frame::Binary(frame.freeze()))
}
