//! Results and displayed things: one thing in several formats.

use std::sync::Arc;

use bytes::Bytes;

use super::outcome::omission;
use super::transcript::floor_char_boundary;
use crate::protocol::{Display, Message, parsed_bytes, text, text_prefix};

const PLAIN: &str = "text/plain";
/// Stands for the MIME types of a message that the gateway has left out.
const ANY: &str = "*/*";
/// How much of the plain text is kept of a result that is too large to be kept.
const CUT_TEXT_BYTES: usize = 64 * 1024;
/// Below this, attachments are copied out of the frame; a frame may be a slice of a read buffer of about this size.
const COPIED_BYTES: usize = 1024 * 1024;
/// What an item counts for beside its data, and each of its MIME types.
const ITEM_BYTES: usize = size_of::<DisplayItem>() + 64;
const MIME_TYPE_BYTES: usize = size_of::<(String, MimeValue)>() + 32;

/// How an item came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisplayKind {
    /// It is the value of the last expression.
    ExecuteResult,
    /// It was displayed.
    DisplayData,
}

/// The value of one MIME type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MimeValue {
    /// A text; for an image, base64.
    Text(String),
    /// Anything else, as JSON, nested at most 128 levels deep.
    Json(String),
}

impl MimeValue {
    /// Decodes a value, and gives how many bytes it takes beside its own, once Python has parsed it.
    fn decode(json: &[u8]) -> Option<(Self, usize)> {
        text(json).map(|text| (Self::Text(text), 0)).or_else(|| {
            let (json, parsed) = raw(json)?;
            Some((Self::Json(json), parsed))
        })
    }

    /// The text, or the JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let (Self::Text(text) | Self::Json(text)) = self;
        text
    }
}

/// MIME types and their values, in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MimeBundle(Vec<(String, MimeValue)>);

impl MimeBundle {
    /// The value of a MIME type.
    #[must_use]
    pub fn get(&self, mime_type: &str) -> Option<&MimeValue> {
        self.iter().find(|(known, _)| *known == mime_type).map(|(_, value)| value)
    }

    /// The MIME types and their values.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &MimeValue)> {
        self.0.iter().map(|(mime_type, value)| (mime_type.as_str(), value))
    }

    /// How many MIME types there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn size(&self) -> usize {
        self.0.iter().map(|(mime_type, value)| mime_type.len() + value.as_str().len() + MIME_TYPE_BYTES).sum()
    }
}

/// A result, or something displayed.
#[derive(Clone, Debug)]
pub struct DisplayItem {
    /// How it came about.
    pub kind: DisplayKind,
    /// The thing itself, in several formats; shared among the items of one display id.
    pub data: Arc<MimeBundle>,
    /// What it says about its formats, as a JSON object.
    pub metadata: String,
    /// By what later updates refer to it.
    pub display_id: Option<String>,
    /// Its binary attachments.
    pub buffers: Vec<Bytes>,
    /// The MIME types that were left out or cut for their size or depth, with the length of each in bytes.
    pub omitted: Vec<(String, usize)>,
    /// The frame that the buffers keep in memory; 0 where they were copied out of it.
    retained_bytes: usize,
    /// What its JSON takes beside its length, once it is parsed: of hostile JSON, many times as much.
    parsed_bytes: usize,
}

impl DisplayItem {
    /// An item that is a plain text.
    #[cfg(test)]
    pub(crate) fn of_text(text: String) -> Self {
        Self {
            kind: DisplayKind::DisplayData,
            data: Arc::new(MimeBundle(vec![(PLAIN.to_owned(), MimeValue::Text(text))])),
            metadata: "{}".to_owned(),
            display_id: None,
            buffers: Vec::new(),
            omitted: Vec::new(),
            retained_bytes: 0,
            parsed_bytes: 0,
        }
    }

    /// Makes the item of a message; of its data nothing but a cut plain text if the data is over `limit` bytes.
    pub(super) fn new(kind: DisplayKind, display: Display, message: &Message, limit: usize) -> Self {
        if let Some(bytes) = message.left_out_bytes() {
            return Self::left_out(kind, display, bytes);
        }
        let attached: usize = message.buffers.iter().map(Bytes::len).sum();
        let size = attached + display.metadata.len() + mime_bytes(&display);
        if size > limit {
            return Self::cut(kind, display, limit);
        }
        let copied = attached < COPIED_BYTES || attached < message.frame_bytes / 2;
        let copy = |buffer: &Bytes| if copied { Bytes::copy_from_slice(buffer) } else { buffer.clone() };
        let (mut data, mut omitted) = (Vec::with_capacity(display.data.len()), Vec::new());
        let mut parsed_bytes = 0;
        for (mime_type, json) in display.data {
            match MimeValue::decode(&json) {
                Some((value, parsed)) => {
                    parsed_bytes += parsed;
                    data.push((mime_type, value));
                }
                None => omitted.push((mime_type, json.len())),
            }
        }
        let (metadata, parsed) = raw(&display.metadata).unwrap_or_else(|| ("{}".to_owned(), 0));
        parsed_bytes += parsed;
        Self {
            kind,
            data: Arc::new(MimeBundle(data)),
            metadata,
            display_id: display.display_id,
            buffers: message.buffers.iter().map(copy).collect(),
            omitted,
            retained_bytes: if copied { 0 } else { message.frame_bytes },
            parsed_bytes,
        }
    }

    /// Makes the item of a message of which the gateway has left out all but the beginning of the plain text.
    fn left_out(kind: DisplayKind, display: Display, bytes: usize) -> Self {
        let plain = display.data.iter().find(|(mime_type, _)| mime_type == PLAIN);
        let beginning = plain.and_then(|(_, json)| text(json)).unwrap_or_default();
        Self {
            kind,
            data: cut_plain(&beginning, bytes, CUT_TEXT_BYTES),
            metadata: "{}".to_owned(),
            display_id: display.display_id.filter(|id| !id.is_empty()),
            buffers: Vec::new(),
            omitted: vec![(if beginning.is_empty() { ANY } else { PLAIN }.to_owned(), bytes)],
            retained_bytes: 0,
            parsed_bytes: 0,
        }
    }

    /// Makes an item of no more than the beginning of the plain text.
    fn cut(kind: DisplayKind, display: Display, limit: usize) -> Self {
        let plain = display.data.iter().find(|(mime_type, _)| mime_type == PLAIN);
        // Not much more of the JSON is looked at than is kept: the escapes of a character are its sixfold.
        let beginning = plain.and_then(|(_, json)| text_prefix(json, 6 * CUT_TEXT_BYTES)).unwrap_or_default();
        let length = plain.map_or(0, |(_, json)| json.len().saturating_sub(2));
        Self {
            kind,
            data: cut_plain(&beginning, length, limit),
            metadata: "{}".to_owned(),
            display_id: display.display_id,
            buffers: Vec::new(),
            omitted: display.data.into_iter().map(|(mime_type, json)| (mime_type, json.len())).collect(),
            retained_bytes: 0,
            parsed_bytes: 0,
        }
    }

    /// Leaves out all of the data but as much of the plain text as the item may have in `limit` bytes.
    pub(super) fn into_cut(self, limit: usize) -> Self {
        let mut omitted = self.omitted;
        for (mime_type, value) in self.data.iter() {
            if !omitted.iter().any(|(known, _)| known == mime_type) {
                omitted.push((mime_type.to_owned(), value.as_str().len()));
            }
        }
        let bare = Self {
            data: Arc::default(),
            metadata: "{}".to_owned(),
            buffers: Vec::new(),
            omitted,
            retained_bytes: 0,
            parsed_bytes: 0,
            ..self
        };
        let room =
            limit.saturating_sub(bare.size() + MIME_TYPE_BYTES + PLAIN.len() + omission(u64::MAX).len());
        let plain = self.data.get(PLAIN).map_or("", MimeValue::as_str);
        Self { data: cut_plain(plain, plain.len(), room), ..bare }
    }

    /// How many bytes it keeps in memory, with what is made of its JSON.
    pub(crate) fn size(&self) -> usize {
        let attached: usize = self.buffers.iter().map(Bytes::len).sum();
        let omitted: usize =
            self.omitted.iter().map(|(mime_type, _)| mime_type.len() + MIME_TYPE_BYTES).sum();
        let display_id = self.display_id.as_ref().map_or(0, |id| 2 * id.len() + ITEM_BYTES);
        ITEM_BYTES
            + self.data.size()
            + self.metadata.len()
            + self.parsed_bytes
            + display_id
            + omitted
            + self.buffers.len() * size_of::<Bytes>()
            + attached.max(self.retained_bytes)
    }

    /// Takes over the data of an update, and stays what it is otherwise.
    pub(super) fn update(&mut self, update: &Self) {
        self.data = Arc::clone(&update.data);
        self.metadata.clone_from(&update.metadata);
        self.buffers.clone_from(&update.buffers);
        self.omitted.clone_from(&update.omitted);
        self.retained_bytes = update.retained_bytes;
        self.parsed_bytes = update.parsed_bytes;
    }
}

/// The beginning of a plain text that is `length` bytes long in all, with what is left out said.
fn cut_plain(beginning: &str, length: usize, limit: usize) -> Arc<MimeBundle> {
    let kept = &beginning[..floor_char_boundary(beginning, limit.min(CUT_TEXT_BYTES))];
    if kept.is_empty() {
        return Arc::default();
    }
    let left_out = length.saturating_sub(kept.len());
    let marker = if left_out == 0 { String::new() } else { omission(left_out as u64) };
    Arc::new(MimeBundle(vec![(PLAIN.to_owned(), MimeValue::Text(format!("{kept}{marker}")))]))
}

/// The length of a display's data, as JSON.
fn mime_bytes(display: &Display) -> usize {
    display.data.iter().map(|(mime_type, json)| mime_type.len() + json.len()).sum()
}

/// JSON that a reader with a bound on nesting takes, and how many bytes it takes once it is parsed.
fn raw(json: &[u8]) -> Option<(String, usize)> {
    let json = std::str::from_utf8(json).ok().filter(|json| !json.is_empty())?;
    // Most metadata: no object is made for it unless it is asked for.
    if json == "{}" {
        return Some((json.to_owned(), 0));
    }
    Some((json.to_owned(), parsed_bytes(json.as_bytes())?))
}
