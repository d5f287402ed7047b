//! What is seen of an execution while it runs.
//!
//! The worker never waits for whoever looks on: a callback that sleeps must not keep it from answering pings. So
//! what was not taken yet is kept, text of one stream merged, up to a bound; past it text and results are skipped and
//! counted.
//! The `Execution` at the end has everything all the same.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::execution::{DisplayItem, Event, ExecutionError, Limits, StreamName};
use crate::protocol::parsed_bytes;

/// Something that happened during an execution.
#[derive(Debug, Clone)]
pub enum StreamEvent {
    /// Text was written.
    Output {
        /// Where to.
        stream: StreamName,
        /// What.
        text: String,
    },
    /// A result was displayed, or an earlier one was updated.
    Result(DisplayItem),
    /// The code raised an exception.
    Error(ExecutionError),
    /// The code asked for its output so far to be cleared.
    ClearOutput {
        /// Whether to wait for the next output before clearing.
        wait: bool,
    },
    /// The code asks for input, and waits for a [`Reply`](super::Reply).
    InputRequest(InputRequest),
    /// What nobody took in time is left out here.
    Skipped {
        /// How much text, in UTF-8.
        bytes: usize,
        /// How many results and updates of results.
        results: usize,
    },
}

/// What the code asks on the stdin channel.
#[derive(Debug, Clone)]
pub struct InputRequest {
    /// What to show to whom is asked.
    pub prompt: String,
    /// Whether what is typed should not be shown.
    pub password: bool,
    /// The binary attachments of the message.
    pub buffers: Vec<Bytes>,
}

impl InputRequest {
    /// The bytes of the prompt and of the attachments.
    #[must_use]
    pub fn size(&self) -> usize {
        self.prompt.len() + self.buffers.iter().map(Bytes::len).sum::<usize>()
    }

    /// The bytes that Python's objects of the first attachment take at most, about, where it is JSON.
    #[must_use]
    pub fn parsed_size(&self) -> usize {
        self.buffers.first().and_then(|document| parsed_bytes(document)).unwrap_or_default()
    }
}

/// Text is merged into pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;

/// What an event counts for beside what it holds: code can make many that hold little.
const EVENT_BYTES: usize = 256;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<StreamEvent>,
    /// What text and requests to clear it take, of the limit for output.
    text_bytes: usize,
    /// What results and requests for input take, of the limit for results.
    result_bytes: usize,
    skipped_bytes: usize,
    skipped_results: usize,
    ended: bool,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
    limits: Limits,
}

#[derive(Debug)]
pub(super) struct EventSender(Arc<Queue>);

#[derive(Debug)]
pub(super) struct EventReceiver(Arc<Queue>);

pub(super) fn channel(limits: Limits) -> (EventSender, EventReceiver) {
    let queue = Arc::new(Queue { state: Mutex::default(), changed: Notify::new(), limits });
    (EventSender(Arc::clone(&queue)), EventReceiver(queue))
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSender {
    pub(super) fn send(&self, event: Event<'_>) {
        let mut state = self.0.state();
        match event {
            Event::Output { stream, text } => state.push_text(stream, text, self.0.limits.output_bytes),
            Event::Result(item) | Event::UpdatedResult(item) => {
                state.push_result(item, self.0.limits.result_bytes);
            }
            Event::Error(error) => state.push(StreamEvent::Error(error.clone())),
            Event::ClearOutput { wait } => state.push_clear(wait, self.0.limits.output_bytes),
            Event::InputRequest { prompt, password, buffers } => {
                let (prompt, buffers) = (prompt.to_owned(), buffers.to_vec());
                state.push_request(InputRequest { prompt, password, buffers }, self.0.limits.result_bytes);
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_one();
    }
}

impl State {
    fn push(&mut self, event: StreamEvent) {
        self.note_skipped();
        self.waiting.push_back(event);
    }

    fn push_text(&mut self, stream: StreamName, text: &str, limit_bytes: usize) {
        let merged = match self.waiting.back_mut() {
            Some(StreamEvent::Output { stream: last, text: merged })
                if *last == stream && merged.len() < PIECE_BYTES && self.skipped_bytes == 0 =>
            {
                Some(merged)
            }
            _ => None,
        };
        let size = text.len() + if merged.is_some() { 0 } else { EVENT_BYTES };
        let has_room = self.text_bytes.saturating_add(size) <= limit_bytes;
        // What is taken at once is not to be left out for its overhead.
        if !has_room && (self.text_bytes > 0 || text.len() > limit_bytes) {
            self.skipped_bytes += text.len();
            return;
        }
        self.text_bytes += size;
        match merged {
            Some(merged) => merged.push_str(text),
            None => self.push(StreamEvent::Output { stream, text: text.to_owned() }),
        }
    }

    /// Of two in a row the second changes nothing.
    fn push_clear(&mut self, wait: bool, limit_bytes: usize) {
        let event = StreamEvent::ClearOutput { wait };
        let is_known =
            matches!(self.waiting.back(), Some(StreamEvent::ClearOutput { wait: last }) if *last == wait);
        if is_known || self.text_bytes.saturating_add(EVENT_BYTES) > limit_bytes {
            return;
        }
        self.text_bytes += EVENT_BYTES;
        self.push(event);
    }

    fn push_result(&mut self, item: &DisplayItem, limit_bytes: usize) {
        if self.takes(item.size(), limit_bytes) {
            self.push(StreamEvent::Result(item.clone()));
        } else {
            self.skipped_results += 1;
        }
    }

    /// A flood of requests that nobody takes is let go: the code that makes it waits in vain.
    fn push_request(&mut self, request: InputRequest, limit_bytes: usize) {
        if self.takes(request.size(), limit_bytes) {
            self.push(StreamEvent::InputRequest(request));
        }
    }

    /// Counts a result or a request where there is room for it, as there always is for a single one.
    fn takes(&mut self, bytes: usize, limit_bytes: usize) -> bool {
        let size = bytes.saturating_add(EVENT_BYTES);
        let has_room = self.result_bytes == 0 || self.result_bytes.saturating_add(size) <= limit_bytes;
        self.result_bytes += if has_room { size } else { 0 };
        has_room
    }

    /// Puts the gap where it belongs: before what comes after it.
    fn note_skipped(&mut self) {
        let (bytes, results) = (mem::take(&mut self.skipped_bytes), mem::take(&mut self.skipped_results));
        if bytes > 0 || results > 0 {
            self.waiting.push_back(StreamEvent::Skipped { bytes, results });
        }
    }

    fn pop(&mut self) -> Option<StreamEvent> {
        if self.waiting.is_empty() {
            self.note_skipped();
        }
        let event = self.waiting.pop_front();
        match &event {
            Some(StreamEvent::Output { text, .. }) => self.text_bytes -= text.len() + EVENT_BYTES,
            Some(StreamEvent::ClearOutput { .. }) => self.text_bytes -= EVENT_BYTES,
            Some(StreamEvent::Result(item)) => self.result_bytes -= item.size().saturating_add(EVENT_BYTES),
            Some(StreamEvent::InputRequest(request)) => {
                self.result_bytes -= request.size().saturating_add(EVENT_BYTES);
            }
            Some(StreamEvent::Error(_) | StreamEvent::Skipped { .. }) | None => {}
        }
        event
    }
}

impl EventReceiver {
    pub(super) async fn next(&mut self) -> Option<StreamEvent> {
        loop {
            {
                let mut state = self.0.state();
                if let Some(event) = state.pop() {
                    return Some(event);
                }
                if state.ended {
                    return None;
                }
            }
            // A change since the look above has left a permit: it is not missed.
            self.0.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Event<'_> {
        Event::Output { stream: StreamName::Stdout, text }
    }

    fn within(bytes: usize) -> Limits {
        Limits { output_bytes: bytes, result_bytes: bytes }
    }

    async fn drain(mut receiver: EventReceiver) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(event) = receiver.next().await {
            seen.push(match event {
                StreamEvent::Output { text, .. } => text,
                other => format!("{other:?}"),
            });
        }
        seen
    }

    #[tokio::test]
    async fn text_of_one_stream_is_merged_while_it_waits() {
        let (sender, receiver) = channel(within(1000));
        sender.send(output("a"));
        sender.send(output("b"));
        sender.send(Event::Output { stream: StreamName::Stderr, text: "c" });
        drop(sender);
        assert_eq!(drain(receiver).await, ["ab", "c"]);
    }

    #[tokio::test]
    async fn requests_past_the_bound_are_let_go() {
        let (sender, mut receiver) = channel(within(1000));
        let buffers = [Bytes::from(vec![0; 2000])];
        for prompt in ["large", "lost"] {
            sender.send(Event::InputRequest { prompt, password: false, buffers: &buffers });
        }
        assert!(
            matches!(receiver.next().await, Some(StreamEvent::InputRequest(first)) if first.prompt == "large")
        );
        sender.send(Event::InputRequest { prompt: "next", password: true, buffers: &[] });
        drop(sender);
        assert!(matches!(receiver.next().await, Some(StreamEvent::InputRequest(next)) if next.password));
        assert!(receiver.next().await.is_none());
    }

    #[tokio::test]
    async fn what_holds_little_counts_too() {
        let (sender, receiver) = channel(within(10 * EVENT_BYTES));
        for _ in 0..1000 {
            sender.send(output("a"));
            sender.send(Event::Output { stream: StreamName::Stderr, text: "b" });
            sender.send(Event::ClearOutput { wait: true });
        }
        drop(sender);
        let seen = drain(receiver).await;
        assert!(seen.len() <= 11);
        assert!(seen.last().is_some_and(|last| last.starts_with("Skipped")));
    }

    #[tokio::test]
    async fn results_past_the_bound_are_counted_where_they_are_missing() {
        let item = crate::execution::DisplayItem::of_text("x".repeat(1000));
        let (sender, mut receiver) = channel(within(3 * item.size()));
        for _ in 0..100 {
            sender.send(Event::Result(&item));
        }
        let mut taken = 0;
        while let Some(StreamEvent::Result(_)) = receiver.next().await {
            taken += 1;
        }
        // The event that ended the loop is the one that tells of the others.
        assert_eq!(taken, 2);
        sender.send(Event::UpdatedResult(&item));
        assert!(matches!(receiver.next().await, Some(StreamEvent::Result(_))));
    }

    #[tokio::test]
    async fn text_past_the_bound_is_counted_where_it_is_missing() {
        let (sender, mut receiver) = channel(within(EVENT_BYTES + 4));
        sender.send(output("abcd"));
        sender.send(output("lost"));
        sender.send(Event::ClearOutput { wait: false });
        assert!(matches!(receiver.next().await, Some(StreamEvent::Output { text, .. }) if text == "abcd"));
        sender.send(output("ef"));
        drop(sender);
        assert_eq!(drain(receiver).await, ["Skipped { bytes: 4, results: 0 }", "ef"]);
    }
}
