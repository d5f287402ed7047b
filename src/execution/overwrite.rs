//! What a terminal shows of lines with carriage returns.

use std::borrow::Cow;

/// Gives a text as a terminal shows it: what follows a carriage return is written over what is there.
///
/// So a progress bar is what it was in the end, not a line for each of its steps. It takes time in proportion to the
/// text, and no more memory than that, however many carriage returns there are.
#[must_use]
pub fn overwritten(text: &str) -> Cow<'_, str> {
    if !text.contains('\r') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            shown.push('\n');
        }
        overwrite(line, &mut shown);
    }
    Cow::Owned(shown)
}

/// Adds what is left of a line. The last writing stands whole; of one before, what is longer than all after it.
fn overwrite(line: &str, shown: &mut String) {
    let mut columns = 0;
    for written in line.rsplit('\r') {
        // A writing has no more characters than bytes: most need not be counted.
        if written.len() > columns
            && let Some((start, _)) = written.char_indices().nth(columns)
        {
            shown.push_str(&written[start..]);
            columns += written[start..].chars().count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_carriage_return_is_written_over_what_is_there() {
        for (text, shown) in [
            ("10%\r50%\r100%\n", "100%\n"),
            ("a\r\nb\r\n", "a\nb\n"),
            ("abc\rx", "xbc"),
            ("abcd\rxyz\rü", "üyzd"),
            ("äöüß\r\rab\n\r", "abüß\n"),
            ("\r\r\r", ""),
        ] {
            assert_eq!(overwritten(text), shown, "{text:?}");
        }
        assert!(matches!(overwritten("plain\n"), Cow::Borrowed("plain\n")));
    }

    #[test]
    fn many_carriage_returns_take_time_in_proportion() {
        let long = "x".repeat(1 << 20);
        for text in [format!("{long}{}", "\ry".repeat(1 << 20)), format!("{}{long}", "y\r".repeat(1 << 20))] {
            assert_eq!(overwritten(&text).len(), 1 << 20);
        }
    }
}
