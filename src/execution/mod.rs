//! What came of a piece of code: messages folded into an [`Execution`].
//!
//! The messages are hostile data. What is kept of them is bounded by [`Limits`], what is left out is counted.

mod ansi;
mod display;
mod event;
mod failure;
mod fold;
mod outcome;
mod overwrite;
mod printable;
mod transcript;

pub use crate::protocol::{ReplyStatus, StreamName};
pub use ansi::strip_ansi;
pub use display::{DisplayItem, DisplayKind, MimeBundle, MimeValue};
pub use event::Event;
pub use failure::ExecutionError;
pub use fold::{Fold, Limits};
pub use outcome::{Execution, Omitted};
pub use overwrite::overwritten;
pub use printable::{printable, printable_name};
pub use transcript::Piece;
