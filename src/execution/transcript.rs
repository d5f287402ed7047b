//! What was written to the two output streams, in order, its head and its tail kept where it is too much.

use std::collections::VecDeque;
use std::mem;

use crate::protocol::StreamName;

/// How much one block of the tail holds: the grain in which it forgets, and the slack over the limit.
const BLOCK_BYTES: usize = 64 * 1024;
/// How much one block of the head holds at most: far less than what a [`Run`] can tell.
const HEAD_BLOCK_BYTES: usize = 1 << 30;
/// What a change of stream counts for: the size of a run.
const RUN_BYTES: usize = mem::size_of::<Run>();

/// A part of what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text that was kept.
    Text {
        /// Where it was written to.
        stream: StreamName,
        /// The text.
        text: &'a str,
    },
    /// Text that was left out here; at most one piece is this one.
    Omitted {
        /// How many bytes of standard output.
        stdout: u64,
        /// How many bytes of standard error.
        stderr: u64,
    },
}

/// Both streams in order of arrival.
///
/// The text lies in blocks, beside it where the stream changes: a million small messages make a few blocks.
/// The head, which is most often all that there is, is one block, and is read without a copy; the tail is many of
/// fixed size, and moves on by dropping whole ones.
#[derive(Clone, Debug)]
pub(super) struct Transcript {
    limit: usize,
    head: Blocks,
    /// Nothing more goes into the head, even what would fit: it would be out of order.
    head_is_full: bool,
    tail: Blocks,
    /// Where the kept text of the tail's first block begins.
    tail_start: usize,
    omitted: Counts,
}

impl Default for Transcript {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Transcript {
    /// A transcript that keeps `limit` bytes; each change of stream counts for four of them.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            head: Blocks::new((limit / 2).clamp(BLOCK_BYTES, HEAD_BLOCK_BYTES)),
            head_is_full: false,
            tail: Blocks::new(BLOCK_BYTES),
            tail_start: 0,
            omitted: Counts::default(),
        }
    }

    /// Appends what was written.
    pub(super) fn push(&mut self, stream: StreamName, mut text: &str) {
        while !text.is_empty() && !self.head_is_full {
            let room = (self.limit / 2).saturating_sub(self.head.cost);
            let taken = self.head.push(stream, text, room);
            self.head_is_full = taken == 0;
            text = &text[taken..];
        }
        while !text.is_empty() {
            let taken = self.tail.push(stream, text, usize::MAX);
            text = &text[taken..];
            while let Some(first) = self.tail.first_beyond(self.tail_limit()) {
                self.omitted.add_all(first.pieces(0, first.text.len()));
            }
        }
    }

    /// Trims the tail, until now kept in whole blocks, to the limit.
    pub(super) fn seal(&mut self) {
        let excess = self.tail.cost.saturating_sub(self.tail_limit());
        let Some(first) = self.tail.held.front().filter(|_| excess > 0) else { return };
        let start = ceil_char_boundary(&first.text, excess);
        self.omitted.add_all(first.pieces(0, start));
        self.tail_start = start;
    }

    /// How many bytes of that stream were left out.
    pub(super) fn omitted(&self, stream: StreamName) -> u64 {
        self.omitted.of(stream)
    }

    /// All that was kept, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let gap = (self.omitted != Counts::default())
            .then_some(Piece::Omitted { stdout: self.omitted.stdout, stderr: self.omitted.stderr });
        let starts = std::iter::once(self.tail_start).chain(std::iter::repeat(0));
        let text = |(stream, text)| Piece::Text { stream, text };
        let head = self.head.held.iter().flat_map(|block| block.pieces(0, block.text.len()));
        let tail = self.tail.held.iter().zip(starts);
        let tail = tail.flat_map(|(block, start)| block.pieces(start, block.text.len()));
        head.map(text).chain(gap).chain(tail.map(text))
    }

    fn tail_limit(&self) -> usize {
        self.limit - self.limit / 2
    }
}

/// How many bytes of each stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    stdout: u64,
    stderr: u64,
}

impl Counts {
    fn add_all<'a>(&mut self, pieces: impl Iterator<Item = (StreamName, &'a str)>) {
        for (stream, text) in pieces {
            let count = match stream {
                StreamName::Stdout => &mut self.stdout,
                StreamName::Stderr => &mut self.stderr,
            };
            *count = count.saturating_add(text.len() as u64);
        }
    }

    const fn of(self, stream: StreamName) -> u64 {
        match stream {
            StreamName::Stdout => self.stdout,
            StreamName::Stderr => self.stderr,
        }
    }
}

#[derive(Clone, Debug)]
struct Blocks {
    /// How much one of them holds at most.
    most: usize,
    held: VecDeque<Block>,
    cost: usize,
}

impl Blocks {
    const fn new(most: usize) -> Self {
        Self { most, held: VecDeque::new(), cost: 0 }
    }

    /// Appends as much of `text` as the last block takes, and gives how much: 0 if `room` is too small.
    fn push(&mut self, stream: StreamName, text: &str, room: usize) -> usize {
        let first = text.chars().next().map_or(0, char::len_utf8);
        if self.held.back().is_none_or(|last| last.room(stream, self.most) < first) {
            let next = self.held.back_mut().map_or_else(Block::default, Block::close);
            self.held.push_back(next);
        }
        let Some(last) = self.held.back_mut() else { return 0 };
        let before = last.cost();
        let room = room.saturating_sub(last.run_cost(stream)).min(last.room(stream, self.most));
        let taken = floor_char_boundary(text, room);
        if taken > 0 {
            last.push(stream, &text[..taken], self.most);
            self.cost += last.cost() - before;
        }
        taken
    }

    /// Takes out the first block if the others alone reach the limit.
    fn first_beyond(&mut self, limit: usize) -> Option<Block> {
        let others = self.cost - self.held.front()?.cost();
        if others < limit {
            return None;
        }
        self.cost = others;
        self.held.pop_front()
    }
}

/// A stretch of one stream within a block, by where it ends.
#[derive(Clone, Copy, Debug)]
struct Run(u32);

impl Run {
    fn new(stream: StreamName, end: usize) -> Self {
        // A block is far smaller than what fits.
        let end = u32::try_from(end).unwrap_or(u32::MAX >> 1);
        Self(end << 1 | u32::from(stream == StreamName::Stderr))
    }

    const fn stream(self) -> StreamName {
        if self.0 & 1 == 0 { StreamName::Stdout } else { StreamName::Stderr }
    }

    const fn end(self) -> usize {
        (self.0 >> 1) as usize
    }
}

#[derive(Clone, Debug, Default)]
struct Block {
    text: String,
    runs: Vec<Run>,
}

impl Block {
    fn cost(&self) -> usize {
        self.text.len() + RUN_BYTES * self.runs.len().saturating_sub(1)
    }

    /// What a push to that stream costs beside its text.
    fn run_cost(&self, stream: StreamName) -> usize {
        if self.runs.last().is_none_or(|run| run.stream() == stream) { 0 } else { RUN_BYTES }
    }

    fn room(&self, stream: StreamName, most: usize) -> usize {
        most.saturating_sub(self.cost() + self.run_cost(stream))
    }

    fn push(&mut self, stream: StreamName, text: &str, most: usize) {
        let end = self.text.len() + text.len();
        if self.text.capacity() < end {
            let capacity = end.max((2 * self.text.capacity()).min(most));
            self.text.reserve_exact(capacity - self.text.len());
        }
        self.text.push_str(text);
        match self.runs.last_mut() {
            Some(last) if last.stream() == stream => *last = Run::new(stream, end),
            _ => {
                if self.runs.len() == self.runs.capacity() {
                    // By less than double: where the stream changes all the time, this is most of the memory.
                    self.runs.reserve_exact((self.runs.len() / 8).max(16));
                }
                self.runs.push(Run::new(stream, end));
            }
        }
    }

    /// Gives back what the full block doesn't use, and an empty one to follow it.
    fn close(&mut self) -> Self {
        self.text.shrink_to_fit();
        self.runs.shrink_to_fit();
        Self { text: String::with_capacity(BLOCK_BYTES), runs: Vec::new() }
    }

    fn pieces(&self, from: usize, to: usize) -> impl Iterator<Item = (StreamName, &str)> {
        let starts = std::iter::once(0).chain(self.runs.iter().map(|run| run.end()));
        self.runs.iter().zip(starts).filter_map(move |(run, start)| {
            let text = self.text.get(start.max(from)..run.end().min(to))?;
            (!text.is_empty()).then_some((run.stream(), text))
        })
    }
}

/// The greatest boundary between two characters at or before `index`.
pub(super) fn floor_char_boundary(text: &str, index: usize) -> usize {
    let index = index.min(text.len());
    (0..=index).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}

/// The smallest boundary between two characters at or after `index`.
pub(super) fn ceil_char_boundary(text: &str, index: usize) -> usize {
    (index..text.len()).find(|index| text.is_char_boundary(*index)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::StreamName::{Stderr, Stdout};
    use super::*;

    fn joined(transcript: &Transcript, only: Option<StreamName>) -> String {
        let kept = |piece| match piece {
            Piece::Text { stream, text } if only.is_none_or(|only| only == stream) => text,
            Piece::Text { .. } => "",
            Piece::Omitted { .. } => "|",
        };
        transcript.pieces().map(kept).collect()
    }

    #[test]
    fn what_fits_exactly_is_kept_whole() {
        for length in [1, 1000, BLOCK_BYTES, 3 * BLOCK_BYTES + 1] {
            let text: String = ('a'..='z').cycle().take(length).collect();
            let mut transcript = Transcript::new(length);
            for start in (0..length).step_by(7) {
                transcript.push(Stdout, &text[start..length.min(start + 7)]);
            }
            transcript.seal();
            assert_eq!(joined(&transcript, None), text);
        }
    }

    #[test]
    fn head_and_tail_are_kept_and_the_middle_counted() {
        let mut transcript = Transcript::new(10);
        for letter in ["ab", "cd", "é", "é", "é", "é", "wx", "yz"] {
            transcript.push(Stdout, letter);
        }
        transcript.seal();
        // The cuts fall on boundaries: the head has room for half an é, the tail for half of one.
        assert_eq!(joined(&transcript, None), "abcd|wxyz");
        assert_eq!(transcript.omitted(Stdout), 8);
    }

    #[test]
    fn streams_keep_their_order() {
        let mut transcript = Transcript::new(1000);
        for (stream, text) in [(Stdout, "a"), (Stderr, "b"), (Stderr, "c"), (Stdout, "d")] {
            transcript.push(stream, text);
        }
        transcript.seal();
        let pieces: Vec<_> = transcript.pieces().collect();
        let text = |stream, text| Piece::Text { stream, text };
        assert_eq!(pieces, [text(Stdout, "a"), text(Stderr, "bc"), text(Stdout, "d")]);
        assert_eq!(joined(&transcript, Some(Stderr)), "bc");
    }

    #[test]
    fn memory_is_bounded_by_the_limit_however_the_output_comes() {
        let limit = 1 << 18;
        for (length, alternating) in [(1, true), (1, false), (100, true), (70_000, false), (10_000_000, true)]
        {
            let text = "x".repeat(length);
            let mut transcript = Transcript::new(limit);
            for index in 0..(4 * limit).div_ceil(length) {
                let stream = if alternating && index % 2 == 1 { Stderr } else { Stdout };
                transcript.push(stream, &text);
            }
            let blocks = transcript.head.held.iter().chain(&transcript.tail.held);
            let held: usize =
                blocks.map(|block| block.text.capacity() + RUN_BYTES * block.runs.capacity()).sum();
            assert!(held <= limit + 4 * BLOCK_BYTES, "{length} {alternating}: {held}");
        }
    }

    #[test]
    fn a_limit_of_nothing_counts_everything() {
        let mut transcript = Transcript::new(0);
        transcript.push(Stdout, "abc");
        transcript.push(Stderr, "de");
        transcript.seal();
        assert_eq!(transcript.pieces().collect::<Vec<_>>(), [Piece::Omitted { stdout: 3, stderr: 2 }]);
    }
}
