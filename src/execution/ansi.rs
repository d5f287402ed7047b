//! Taking the colours of a terminal out of a text.

use std::borrow::Cow;

const ESCAPE: char = '\u{1b}';
const BELL: u8 = 0x07;

/// Takes the ANSI escape sequences out of a text, in one pass.
///
/// An unfinished sequence goes as far as it can be told; the text after it stays.
#[must_use]
pub fn strip_ansi(text: &str) -> Cow<'_, str> {
    let Some((plain, mut rest)) = text.split_once(ESCAPE) else {
        return Cow::Borrowed(text);
    };
    let mut stripped = String::with_capacity(text.len());
    stripped.push_str(plain);
    loop {
        rest = &rest[sequence_length(rest.as_bytes())..];
        let Some((plain, next)) = rest.split_once(ESCAPE) else {
            stripped.push_str(rest);
            return Cow::Owned(stripped);
        };
        stripped.push_str(plain);
        rest = next;
    }
}

/// How long the sequence is whose escape character stands just before `rest`. It ends at a character boundary,
/// since all but the text of a string sequence is ASCII.
fn sequence_length(rest: &[u8]) -> usize {
    let run = |from: usize, belongs: fn(&u8) -> bool| {
        from + rest.iter().skip(from).take_while(|byte| belongs(byte)).count()
    };
    let ends_with = |at: usize, last: std::ops::RangeInclusive<u8>| {
        at + usize::from(rest.get(at).is_some_and(|byte| last.contains(byte)))
    };
    match rest.first() {
        // Control sequence: parameters, intermediates, a final byte.
        Some(b'[') => {
            let parameters = run(1, |byte| (0x30..=0x3f).contains(byte));
            ends_with(run(parameters, |byte| (0x20..=0x2f).contains(byte)), 0x40..=0x7e)
        }
        // Strings (titles, links, device control): up to a bell or the string terminator. Any other control
        // character ends them as well, lest one that is never closed swallows the text.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let end = run(1, |byte| *byte >= 0x20 && *byte != 0x7f);
            match rest.get(end..) {
                Some([BELL, ..]) => end + 1,
                Some([0x1b, b'\\', ..]) => end + 2,
                _ => end,
            }
        }
        // Two bytes, or more where intermediates stand between, as in the choice of a character set.
        Some(0x20..=0x7e) => ends_with(run(0, |byte| (0x20..=0x2f).contains(byte)), 0x30..=0x7e),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(strip_ansi("grün [0m"), Cow::Borrowed("grün [0m")));
    }

    #[test]
    fn sequences_of_every_kind_go_and_the_text_stays() {
        for (text, plain) in [
            ("\u{1b}[0;31mZeroDivisionError\u{1b}[0m: ü", "ZeroDivisionError: ü"),
            ("a\u{1b}[38;2;1;2;3mb\u{1b}[?25lc\u{1b}[2 qd", "abcd"),
            ("\u{1b}]0;title ü\u{7}a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\b", "alinkb"),
            ("\u{1b}Pq#0\u{1b}\\a\u{1b}(Bb\u{1b}7c\u{1b}=d\u{1b}Me", "abcde"),
            ("a\u{1b}]never closed\nb", "a\nb"),
            ("a\u{1b}[31", "a"),
            ("a\u{1b}[31üb", "aüb"),
            ("a\u{1b}üb\u{1b}", "aüb"),
            ("a\u{1b}\u{1b}[1mb", "ab"),
            ("\u{1b}", ""),
        ] {
            assert_eq!(strip_ansi(text), plain, "{text:?}");
        }
    }
}
