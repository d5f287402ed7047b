//! What is seen of an execution while it runs.
//!
//! The worker never waits for whoever looks on: a callback that sleeps must not keep it from answering pings. So
//! what was not taken yet is kept, text of one stream merged, up to a bound; past it text is skipped and counted.
//! The `Execution` at the end has everything all the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::execution::{DisplayItem, Event, ExecutionError, StreamName};

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
    /// Text that nobody took in time is left out here.
    Skipped {
        /// How much of it, in UTF-8.
        bytes: usize,
    },
}

/// Text is merged into pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<StreamEvent>,
    text_bytes: usize,
    skipped_bytes: usize,
    ended: bool,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
    limit_bytes: usize,
}

#[derive(Debug)]
pub(super) struct EventSender(Arc<Queue>);

#[derive(Debug)]
pub(super) struct EventReceiver(Arc<Queue>);

pub(super) fn channel(limit_bytes: usize) -> (EventSender, EventReceiver) {
    let queue = Arc::new(Queue { state: Mutex::default(), changed: Notify::new(), limit_bytes });
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
            Event::Output { stream, text } => state.push_text(stream, text, self.0.limit_bytes),
            Event::Result(item) | Event::UpdatedResult(item) => state.push(StreamEvent::Result(item.clone())),
            Event::Error(error) => state.push(StreamEvent::Error(error.clone())),
            Event::ClearOutput { wait } => state.push(StreamEvent::ClearOutput { wait }),
            _ => return,
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
        if self.text_bytes + text.len() > limit_bytes {
            self.skipped_bytes += text.len();
            return;
        }
        self.note_skipped();
        self.text_bytes += text.len();
        match self.waiting.back_mut() {
            Some(StreamEvent::Output { stream: last, text: merged })
                if *last == stream && merged.len() < PIECE_BYTES =>
            {
                merged.push_str(text);
            }
            _ => self.waiting.push_back(StreamEvent::Output { stream, text: text.to_owned() }),
        }
    }

    /// Puts the gap where it belongs: before what comes after it.
    fn note_skipped(&mut self) {
        let bytes = std::mem::take(&mut self.skipped_bytes);
        if bytes > 0 {
            self.waiting.push_back(StreamEvent::Skipped { bytes });
        }
    }

    fn pop(&mut self) -> Option<StreamEvent> {
        if self.waiting.is_empty() {
            self.note_skipped();
        }
        let event = self.waiting.pop_front();
        if let Some(StreamEvent::Output { text, .. }) = &event {
            self.text_bytes -= text.len();
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
        let (sender, receiver) = channel(100);
        sender.send(output("a"));
        sender.send(output("b"));
        sender.send(Event::Output { stream: StreamName::Stderr, text: "c" });
        drop(sender);
        assert_eq!(drain(receiver).await, ["ab", "c"]);
    }

    #[tokio::test]
    async fn text_past_the_bound_is_counted_where_it_is_missing() {
        let (sender, mut receiver) = channel(4);
        sender.send(output("abcd"));
        sender.send(output("lost"));
        assert!(matches!(receiver.next().await, Some(StreamEvent::Output { text, .. }) if text == "abcd"));
        sender.send(output("ef"));
        drop(sender);
        assert_eq!(drain(receiver).await, ["Skipped { bytes: 4 }", "ef"]);
    }
}
