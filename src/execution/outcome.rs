//! What came of a piece of code.

use std::borrow::Cow;
use std::time::Duration;

use super::display::DisplayItem;
use super::failure::ExecutionError;
use super::transcript::{Piece, Transcript};
use crate::protocol::{ReplyStatus, StreamName};

/// What came of a piece of code: its output, its results, and the exception that ended it, if one did.
///
/// Also what had arrived of an execution that was cut short: then it is not [`complete`](Self::complete).
#[derive(Clone, Debug, Default)]
pub struct Execution {
    pub(super) transcript: Transcript,
    /// The value of the last expression and what was displayed, in the order they came.
    pub results: Vec<DisplayItem>,
    /// The exception that ended the code.
    pub error: Option<ExecutionError>,
    /// The number that the kernel gave the execution.
    pub execution_count: Option<u64>,
    /// What the kernel's reply says came of the code; `None` if no reply arrived.
    ///
    /// An `error` beside a status of [`ReplyStatus::Ok`] is a traceback that the code merely showed.
    pub status: Option<ReplyStatus>,
    /// How long it took.
    pub duration: Duration,
    /// Whether the kernel's reply and the end of its output have both arrived.
    pub complete: bool,
    /// What was not kept.
    pub omitted: Omitted,
    /// What came before the code last cleared its output. It is all kept.
    pub cleared: Cleared,
}

/// How much came before the code last cleared its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Bytes of both streams together, those included that were not kept.
    pub output_bytes: u64,
    /// The first so many of the results.
    pub results: usize,
}

/// What was not kept of an execution, for its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// How many bytes of standard output.
    pub stdout_bytes: u64,
    /// How many bytes of standard error.
    pub stderr_bytes: u64,
    /// How many results, or updates of one, were left out or cut.
    pub results: u64,
    /// How many bytes of them.
    pub result_bytes: u64,
    /// Of which MIME types they were, the first 16 in the order they came.
    pub result_types: Vec<String>,
}

impl Omitted {
    /// Counts what was left out of an item.
    pub(super) fn add(&mut self, item: &DisplayItem) {
        self.results += 1;
        for (mime_type, bytes) in &item.omitted {
            self.result_bytes = self.result_bytes.saturating_add(*bytes as u64);
            if self.result_types.len() < 16 && mime_type.len() < 256 && !self.result_types.contains(mime_type)
            {
                self.result_types.push(mime_type.clone());
            }
        }
    }
}

impl Execution {
    /// What was written to standard output. Where something is left out, a line says how much.
    #[must_use]
    pub fn stdout(&self) -> Cow<'_, str> {
        self.joined(Some(StreamName::Stdout))
    }

    /// What was written to standard error. Where something is left out, a line says how much.
    #[must_use]
    pub fn stderr(&self) -> Cow<'_, str> {
        self.joined(Some(StreamName::Stderr))
    }

    /// What was written to both, in order of arrival. Where something is left out, a line says how much.
    #[must_use]
    pub fn logs(&self) -> Cow<'_, str> {
        self.joined(None)
    }

    /// What of it came after the code last cleared its output.
    #[must_use]
    pub fn screen(&self) -> String {
        let mut hidden = self.cleared.output_bytes;
        let mut shown = String::new();
        for piece in self.pieces() {
            match piece {
                Piece::Text { text, .. } => {
                    let start = usize::try_from(hidden).unwrap_or(usize::MAX).min(text.len());
                    hidden -= start as u64;
                    shown.push_str(text.get(start..).unwrap_or_default());
                }
                Piece::Omitted { stdout, stderr } => {
                    let bytes = stdout.saturating_add(stderr);
                    if bytes > hidden {
                        shown.push_str(&omission(bytes - hidden));
                    }
                    hidden = hidden.saturating_sub(bytes);
                }
            }
        }
        shown
    }

    /// What was written, piece by piece in order of arrival, without a copy.
    ///
    /// Text written to one stream at one time may come in several pieces.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.transcript.pieces()
    }

    fn joined(&self, only: Option<StreamName>) -> Cow<'_, str> {
        let wanted = |stream| only.is_none_or(|only| only == stream);
        let mut wanted_pieces = self.pieces().filter(|piece| match piece {
            Piece::Text { stream, .. } => wanted(*stream),
            Piece::Omitted { .. } => true,
        });
        match (wanted_pieces.next(), wanted_pieces.next()) {
            (None, _) => return Cow::Borrowed(""),
            (Some(Piece::Text { text, .. }), None) => return Cow::Borrowed(text),
            _ => {}
        }
        let length = self.pieces().map(|piece| match piece {
            Piece::Text { stream, text } if wanted(stream) => text.len(),
            Piece::Text { .. } => 0,
            Piece::Omitted { .. } => omission(u64::MAX).len(),
        });
        let mut joined = String::with_capacity(length.sum());
        for piece in self.pieces() {
            match piece {
                Piece::Text { stream, text } if wanted(stream) => joined.push_str(text),
                Piece::Text { .. } => {}
                Piece::Omitted { stdout, stderr } => {
                    let stdout = if wanted(StreamName::Stdout) { stdout } else { 0 };
                    let stderr = if wanted(StreamName::Stderr) { stderr } else { 0 };
                    if stdout > 0 || stderr > 0 {
                        joined.push_str(&omission(stdout.saturating_add(stderr)));
                    }
                }
            }
        }
        Cow::Owned(joined)
    }
}

/// The line that stands where text was left out.
pub(super) fn omission(bytes: u64) -> String {
    format!("\n[… {bytes} bytes left out …]\n")
}
