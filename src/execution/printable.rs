//! Text of a kernel's as it may be shown on a terminal, or be the name of a file.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::ansi::strip_ansi;

/// Returns a text that can do nothing to a terminal but be read there.
///
/// Escape sequences are left out, and `\r\n` is a newline. Newlines and tabs stay. Any other character that controls
/// a terminal, or the order in which text is read, is written as its number, such as `\x07` or `\u202e`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(|character| !controls(character)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(written(&strip_ansi(text).replace("\r\n", "\n")))
}

/// Returns the name of a file with nothing in it that controls a terminal.
///
/// Unlike in [`printable`] nothing is left out, so that names that differ stay different; bytes that are no UTF-8
/// stay what they are.
#[must_use]
pub fn printable_name(name: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        result.extend_from_slice(written(chunk.valid()).as_bytes());
        result.extend_from_slice(chunk.invalid());
    }
    result
}

fn written(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        if controls(character) {
            let number = u32::from(character);
            // Writing to a string can't fail.
            let _ = if number < 0x100 {
                write!(result, "\\x{number:02x}")
            } else {
                write!(result, "\\u{number:04x}")
            };
        } else {
            result.push(character);
        }
    }
    result
}

/// Whether a character does something else than to be shown: the control characters C0, DEL and C1 but newline and
/// tab, the separators of lines and paragraphs, and what changes the direction of text (Unicode's `Bidi_Control`).
fn controls(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => character.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_controls_is_borrowed() {
        assert!(matches!(printable("grün\n\tτ 👩\u{200d}🔬"), Cow::Borrowed("grün\n\tτ 👩\u{200d}🔬")));
    }

    #[test]
    fn controls_are_left_out_or_written() {
        for (text, shown) in [
            ("\u{1b}]52;c;cm0=\u{7}a\u{1b}]0;title\u{1b}\\b\u{1b}[2Jc", "abc"),
            ("a\r\nb\rc\r", "a\nb\\x0dc\\x0d"),
            ("\u{7}\u{8}\u{0}\u{7f}", "\\x07\\x08\\x00\\x7f"),
            ("\u{9b}31m\u{85}", "\\x9b31m\\x85"),
            ("user\u{202e}cod.exe\u{2069}\u{200f}\u{61c}", "user\\u202ecod.exe\\u2069\\u200f\\u061c"),
            ("a\u{2028}b\u{2029}", "a\\u2028b\\u2029"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
            assert_eq!(printable(&printable(text)), shown, "{text:?}");
        }
    }

    #[test]
    fn names_that_differ_stay_different() {
        assert_eq!(printable_name("ü\u{1b}[31m.txt".as_bytes()), "ü\\x1b[31m.txt".as_bytes());
        assert_eq!(printable_name(b"a\xff\x07.txt"), b"a\xff\\x07.txt");
    }

    #[test]
    fn no_control_is_left_whatever_the_text() {
        let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        for text in [all.clone(), all.chars().rev().collect()] {
            let name = String::from_utf8(printable_name(text.as_bytes())).unwrap();
            assert!(!printable(&text).chars().chain(name.chars()).any(controls));
        }
    }
}
