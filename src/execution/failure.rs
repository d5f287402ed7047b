//! The exception that ended the code.

use super::ansi::strip_ansi;
use super::outcome::omission;
use super::transcript::{ceil_char_boundary, floor_char_boundary};
use crate::protocol::ErrorContent;

/// How much of an exception's type name is kept.
const NAME_BYTES: usize = 1024;
/// How much of a traceback is kept.
const TRACEBACK_BYTES: usize = 256 * 1024;

/// The exception that ended the code: data, since it is the user's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutionError {
    /// The exception's type, such as `ZeroDivisionError`; `ExecutionAborted` where the kernel did not run the code,
    /// `ExecutionInterrupted` where it broke it off, `ExecutionUnanswered` where it gave no reply.
    pub name: String,
    /// The exception's text, free of ANSI sequences.
    pub value: String,
    /// The traceback's entries, free of ANSI sequences; one entry may have several lines.
    pub traceback: Vec<String>,
    /// How many bytes are left out in the middle of `value`.
    pub omitted_bytes: usize,
}

impl ExecutionError {
    /// An exception of which at most about `limit` bytes of text are kept.
    pub(super) fn new(content: ErrorContent, limit: usize) -> Self {
        let (name, _) = shortened(name_of_class(content.ename), NAME_BYTES);
        let (value, omitted_bytes) = shortened(content.evalue, limit);
        let traceback = short_traceback(content.traceback, content.omitted_lines);
        Self { name, value, traceback, omitted_bytes }
    }

    /// The error of code that the kernel refused to run.
    pub(super) fn aborted() -> Self {
        Self {
            name: "ExecutionAborted".to_owned(),
            value:
                "the kernel did not run the code, since earlier code failed or was interrupted; run it again"
                    .to_owned(),
            ..Self::default()
        }
    }

    /// The error of code that the kernel broke off and gives the status of code that it did not run.
    pub(super) fn interrupted() -> Self {
        Self {
            name: "ExecutionInterrupted".to_owned(),
            value: "the code was interrupted while it ran; what it did until then stands".to_owned(),
            ..Self::default()
        }
    }

    /// The error of code to which the kernel does not reply.
    pub(super) fn unanswered() -> Self {
        Self {
            name: "ExecutionUnanswered".to_owned(),
            value: "the kernel ended the code without a reply: its own machinery failed before, during or after the \
                    code, for example since the code replaced or closed sys.stdout, or is nested too deeply to be \
                    compiled; what the code did until then stands"
                .to_owned(),
            ..Self::default()
        }
    }

    /// How many bytes it keeps.
    pub(super) fn size(&self) -> usize {
        let entries = self.traceback.iter().map(|entry| entry.len() + size_of::<String>());
        self.name.len() + self.value.len() + entries.sum::<usize>()
    }
}

/// The name alone, as ipykernel gives it, where a kernel (xeus-python) gives `<class 'module.Name'>`.
fn name_of_class(name: String) -> String {
    let Some(path) = name.strip_prefix("<class '").and_then(|rest| rest.strip_suffix("'>")) else {
        return name;
    };
    path.rsplit('.').next().unwrap_or(path).to_owned()
}

/// The text without ANSI sequences, its middle left out where it is longer than `limit`; and how much was.
fn shortened(text: String, limit: usize) -> (String, usize) {
    let stripped = strip_ansi(&text);
    if stripped.len() > limit {
        let head = floor_char_boundary(&stripped, limit / 2);
        let tail = ceil_char_boundary(&stripped, stripped.len() - limit / 2);
        let omitted = tail - head;
        return (format!("{}{}{}", &stripped[..head], omission(omitted as u64), &stripped[tail..]), omitted);
    }
    match stripped {
        std::borrow::Cow::Borrowed(_) => (text, 0),
        std::borrow::Cow::Owned(stripped) => (stripped, 0),
    }
}

/// The entries at the beginning and at the end, which tell where it began and what it was.
fn short_traceback(entries: Vec<String>, omitted_before: usize) -> Vec<String> {
    let mut entries: Vec<_> =
        entries.into_iter().map(|entry| shortened(entry, TRACEBACK_BYTES / 4).0).collect();
    let half = |entries: &mut dyn Iterator<Item = &String>| {
        let mut size = 0;
        let fits = |entry: &&String| {
            size += entry.len();
            size <= TRACEBACK_BYTES / 2
        };
        entries.take_while(fits).count()
    };
    let head = half(&mut entries.iter());
    let tail = half(&mut entries[head..].iter().rev());
    let omitted = entries.len() - head - tail;
    if omitted + omitted_before > 0 {
        let head = if omitted > 0 { head } else { entries.len() / 2 };
        let marker = format!("[… {} entries left out …]", omitted + omitted_before);
        entries.splice(head..head + omitted, [marker]);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(evalue: &str, traceback: Vec<String>) -> ErrorContent {
        ErrorContent { ename: "E".to_owned(), evalue: evalue.to_owned(), traceback, omitted_lines: 0 }
    }

    #[test]
    fn colours_go() {
        let content = error("\u{1b}[31mred\u{1b}[0m", vec!["\u{1b}[0;32m1\u{1b}[0m x".to_owned()]);
        let error = ExecutionError::new(content, 100);
        assert_eq!((error.value.as_str(), error.traceback), ("red", vec!["1 x".to_owned()]));
    }

    #[test]
    fn a_name_is_that_of_the_class_alone() {
        for (told, name) in [
            ("<class 'ZeroDivisionError'>", "ZeroDivisionError"),
            ("<class '__main__.f.<locals>.Odd'>", "Odd"),
            ("<class 'x", "<class 'x"),
            ("", ""),
        ] {
            let content = ErrorContent { ename: told.to_owned(), ..error("", Vec::new()) };
            assert_eq!(ExecutionError::new(content, 100).name, name);
        }
    }

    #[test]
    fn a_long_text_keeps_head_and_tail() {
        let error = ExecutionError::new(error(&format!("a{}z", "é".repeat(100)), Vec::new()), 10);
        assert_eq!(error.value, "aéé\n[… 192 bytes left out …]\nééz");
        assert_eq!(error.omitted_bytes, 192);
    }

    #[test]
    fn a_long_traceback_keeps_its_first_and_last_entries() {
        let entries: Vec<_> = (0..1000).map(|index| format!("{index:04}{}", "x".repeat(1000))).collect();
        let error = ExecutionError::new(error("", entries), 10);
        assert!(error.traceback[0].starts_with("0000"));
        assert!(error.traceback.last().unwrap().starts_with("0999"));
        assert!(error.size() <= 2 * TRACEBACK_BYTES);
        let marker = error.traceback.iter().find(|entry| entry.starts_with('[')).unwrap();
        let kept = error.traceback.len() - 1;
        assert_eq!(*marker, format!("[… {} entries left out …]", 1000 - kept));
    }
}
