//! Messages folded, one by one, into what came of the code.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use super::display::{DisplayItem, DisplayKind};
use super::event::Event;
use super::failure::ExecutionError;
use super::outcome::{Cleared, Execution, Omitted};
use super::transcript::Transcript;
use crate::protocol::{
    ChannelName, Content, Display, ErrorContent, ExecutionState, Message, ReplyStatus, StreamName,
};

/// An exception's text is kept to this length even where the results have used up their limit.
const LEAST_ERROR_BYTES: usize = 64 * 1024;
/// How many items of one display id follow its updates.
const MAX_ITEMS_OF_ONE_ID: usize = 1000;

/// How much is kept of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of standard output and standard error together; each change between them counts for four.
    /// 64 MiB by default. Beyond it the head and the tail are kept, and the middle is counted.
    pub output_bytes: usize,
    /// Bytes of results and of the exception together, with the objects that Python makes of JSON. 256 MiB by default.
    /// Beyond it, no more than the beginning of a result's plain text is kept.
    pub result_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { output_bytes: 64 << 20, result_bytes: 256 << 20 }
    }
}

/// The state of one execution while its messages arrive.
// Each flag is apart from the others.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub struct Fold {
    limits: Limits,
    transcript: Transcript,
    results: Vec<DisplayItem>,
    /// Where in `results` the items of a display id are.
    displayed: HashMap<String, Vec<usize>>,
    /// What the results and the exception take of their limit.
    kept_bytes: usize,
    error: Option<ExecutionError>,
    /// Whether nobody has been told of the error yet.
    error_is_untold: bool,
    execution_count: Option<u64>,
    status: Option<ReplyStatus>,
    is_idle: bool,
    /// Whether the kernel is seen to have run the code.
    has_run: bool,
    omitted: Omitted,
    /// Bytes of both streams, those included that were not kept.
    written_bytes: u64,
    cleared: Cleared,
    /// Whether the next output clears what came before it.
    clears_with_next: bool,
}

impl Fold {
    /// An execution of which nothing has arrived.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            transcript: Transcript::new(limits.output_bytes),
            results: Vec::new(),
            displayed: HashMap::new(),
            kept_bytes: 0,
            error: None,
            error_is_untold: false,
            execution_count: None,
            status: None,
            is_idle: false,
            has_run: false,
            omitted: Omitted::default(),
            written_bytes: 0,
            cleared: Cleared::default(),
            clears_with_next: false,
        }
    }

    /// Takes one message whose parent is this execution; `observe` sees what it tells, before it is stored.
    ///
    /// A message on another channel than its type belongs to changes nothing.
    pub fn push(&mut self, message: &Message, observe: &mut dyn FnMut(Event<'_>)) {
        match (message.channel, Content::decode(message)) {
            (ChannelName::Iopub, content) => self.push_output(message, content, observe),
            (ChannelName::Shell, Content::ExecuteReply { status, execution_count, error }) => {
                self.push_reply(status, execution_count, error, observe);
            }
            (ChannelName::Stdin, Content::InputRequest { prompt, password }) => {
                observe(Event::InputRequest { prompt: &prompt, password, buffers: &message.buffers });
            }
            _ => {}
        }
    }

    /// Whether the `execute_reply` and the idle status have both arrived, in whichever order.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.status.is_some() && self.is_idle
    }

    /// Whether only one of the two has arrived.
    #[must_use]
    pub const fn is_half(&self) -> bool {
        self.status.is_some() != self.is_idle
    }

    /// Notes that no `execute_reply` will ever arrive: an exception in the kernel itself kept it from replying.
    pub fn end_unanswered(&mut self) {
        if !self.replied() {
            self.take_error(ExecutionError::unanswered());
        }
    }

    /// Whether the `execute_reply` has arrived.
    #[must_use]
    pub const fn replied(&self) -> bool {
        self.status.is_some()
    }

    /// Gives what came of the code, or what has come of it until now. What comes later is not kept; whether the
    /// execution is complete goes on being known.
    #[must_use]
    pub fn finish(&mut self, duration: Duration) -> Execution {
        self.tell_aborted_from_interrupted();
        self.limits = Limits { output_bytes: 0, result_bytes: 0 };
        self.displayed.clear();
        let mut transcript = mem::take(&mut self.transcript);
        transcript.seal();
        let mut omitted = mem::take(&mut self.omitted);
        omitted.stdout_bytes = transcript.omitted(StreamName::Stdout);
        omitted.stderr_bytes = transcript.omitted(StreamName::Stderr);
        Execution {
            complete: self.is_complete(),
            transcript,
            results: mem::take(&mut self.results),
            error: self.error.take(),
            execution_count: self.execution_count,
            status: self.status,
            duration,
            omitted,
            cleared: self.cleared,
        }
    }

    fn push_output(&mut self, message: &Message, content: Content<'_>, observe: &mut dyn FnMut(Event<'_>)) {
        match content {
            Content::Stream { name, text } => {
                self.clear_if_due();
                self.written_bytes = self.written_bytes.saturating_add(text.len() as u64);
                observe(Event::Output { stream: name, text: &text });
                self.transcript.push(name, &text);
            }
            Content::DisplayData(display) => {
                self.clear_if_due();
                self.push_item(DisplayKind::DisplayData, display, message, observe);
            }
            Content::ExecuteResult { display, execution_count } => {
                self.clear_if_due();
                self.execution_count = self.execution_count.or(execution_count);
                self.push_item(DisplayKind::ExecuteResult, display, message, observe);
            }
            Content::UpdateDisplayData(display) => self.update_items(display, message, observe),
            Content::Error(error) => {
                self.push_error(error);
                self.tell_error(observe);
            }
            Content::Status { execution_state: ExecutionState::Idle } => {
                self.tell_error(observe);
                self.is_idle = true;
            }
            Content::ClearOutput { wait } => {
                observe(Event::ClearOutput { wait });
                self.clears_with_next = true;
                if !wait {
                    self.clear_if_due();
                }
            }
            Content::ExecuteInput { execution_count } => {
                self.has_run = true;
                self.execution_count = self.execution_count.or(execution_count);
            }
            Content::Status { .. }
            | Content::ExecuteReply { .. }
            | Content::InputRequest { .. }
            | Content::KernelInfoReply { .. }
            | Content::Other => {}
        }
    }

    fn clear_if_due(&mut self) {
        if mem::take(&mut self.clears_with_next) {
            self.cleared = Cleared { output_bytes: self.written_bytes, results: self.results.len() };
        }
    }

    fn push_reply(
        &mut self,
        status: ReplyStatus,
        execution_count: Option<u64>,
        error: ErrorContent,
        observe: &mut dyn FnMut(Event<'_>),
    ) {
        if self.replied() {
            return;
        }
        self.status = Some(status);
        self.execution_count = execution_count.or(self.execution_count);
        match status {
            ReplyStatus::Ok => {}
            ReplyStatus::Error => self.push_error(error),
            ReplyStatus::Aborted => {
                // Code that was not run has no number. Of silent code, nothing else tells.
                self.has_run |= execution_count.is_some();
                self.take_error(ExecutionError::aborted());
            }
        }
        // The reply comes on a way of its own: what was written before it may still be under way.
        if self.is_idle {
            self.tell_error(observe);
        }
    }

    fn push_error(&mut self, error: ErrorContent) {
        if self.error.is_none() {
            let limit = self.remaining_bytes().max(LEAST_ERROR_BYTES);
            self.take_error(ExecutionError::new(error, limit));
        }
    }

    /// The first of the two messages that tell the error counts: the kernel sends it twice.
    fn take_error(&mut self, error: ExecutionError) {
        if self.error.is_none() {
            self.kept_bytes = self.kept_bytes.saturating_add(error.size());
            self.error = Some(error);
            self.error_is_untold = true;
        }
    }

    /// Tells `observe` of the error, if there is one that it was not told of.
    pub fn tell_error(&mut self, observe: &mut dyn FnMut(Event<'_>)) {
        if mem::take(&mut self.error_is_untold) {
            self.tell_aborted_from_interrupted();
            if let Some(error) = &self.error {
                observe(Event::Error(error));
            }
        }
    }

    /// A kernel that was interrupted while it ran code may give the same status as for code that it did not run. What
    /// it had announced, or what the code gave out, may come after the reply.
    fn tell_aborted_from_interrupted(&mut self) {
        let has_run = self.has_run || self.written_bytes > 0 || !self.results.is_empty();
        if has_run
            && self.status == Some(ReplyStatus::Aborted)
            && self.error == Some(ExecutionError::aborted())
        {
            self.error = Some(ExecutionError::interrupted());
        }
    }

    fn push_item(
        &mut self,
        kind: DisplayKind,
        display: Display,
        message: &Message,
        observe: &mut dyn FnMut(Event<'_>),
    ) {
        let mut item = DisplayItem::new(kind, display, message, self.limits.result_bytes);
        observe(Event::Result(&item));
        let fits = item.size() <= self.remaining_bytes();
        if !fits {
            item = item.into_cut(self.remaining_bytes());
        }
        if !fits || !item.omitted.is_empty() {
            self.omitted.add(&item);
        }
        if item.size() > self.remaining_bytes() {
            return;
        }
        self.kept_bytes += item.size();
        if let Some(id) = &item.display_id {
            self.displayed.entry(id.clone()).or_default().push(self.results.len());
        }
        self.results.push(item);
    }

    fn update_items(&mut self, display: Display, message: &Message, observe: &mut dyn FnMut(Event<'_>)) {
        let id = display.display_id.clone().unwrap_or_default();
        let update = DisplayItem::new(DisplayKind::DisplayData, display, message, self.limits.result_bytes);
        observe(Event::UpdatedResult(&update));
        let Some(indexes) = self.displayed.get(&id) else { return };
        let indexes = &indexes[..indexes.len().min(MAX_ITEMS_OF_ONE_ID)];
        let freed: usize = indexes.iter().map(|index| self.results[*index].size()).sum();
        let needed = update.size().saturating_mul(indexes.len());
        let others = self.kept_bytes.saturating_sub(freed);
        if needed > self.limits.result_bytes.saturating_sub(others) {
            self.omitted.add(&update.into_cut(0));
            return;
        }
        if !update.omitted.is_empty() {
            self.omitted.add(&update);
        }
        for index in indexes {
            self.results[*index].update(&update);
        }
        self.kept_bytes = others + needed;
    }

    fn remaining_bytes(&self) -> usize {
        self.limits.result_bytes.saturating_sub(self.kept_bytes)
    }
}
