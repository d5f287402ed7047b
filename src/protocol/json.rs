//! Reading single members out of JSON that may be odd, without building a tree of it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How deep a value may be nested to be kept: what the JSON readers of this crate and of Python take.
const MAX_DEPTH: usize = 128;

/// A key of an object; borrowed unless it holds an escape.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Runs a seed over the whole of `json`.
fn parse<'de, S: DeserializeSeed<'de>>(json: &'de [u8], seed: S) -> serde_json::Result<S::Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Gives the raw values of the named members of an object; of a name that occurs twice, the last one.
///
/// What is no JSON object has no members. What a strict reader refuses is repaired and read again.
pub(super) fn members<const N: usize>(json: &Bytes, names: [&str; N]) -> [Option<Bytes>; N] {
    let read = |json: &Bytes| {
        parse(json, Members(&names))
            .map(|found| found.map(|raw| raw.map(|raw| json.slice_ref(raw.get().as_bytes()))))
    };
    read(json).or_else(|_| read(&repair(json))).unwrap_or([const { None }; N])
}

struct Members<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(Key(key)) = map.next_key()? {
            match self.0.iter().position(|name| *name == key) {
                Some(index) => found[index] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Gives the members of an object in order, the first `limit` of them.
pub(super) fn entries(json: &Bytes, limit: usize) -> Vec<(String, Bytes)> {
    let read = |json: &Bytes| {
        let entries = parse(json, Entries(limit))?;
        let owned = entries
            .into_iter()
            .map(|(key, raw)| (key.into_owned(), json.slice_ref(raw.get().as_bytes())))
            .collect();
        Ok::<_, serde_json::Error>(owned)
    };
    read(json).or_else(|_| read(&repair(json))).unwrap_or_default()
}

struct Entries(usize);

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Self::Value = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            let known = entries.iter().position(|(earlier, _)| *earlier == key);
            match known {
                Some(index) => entries[index].1 = map.next_value()?,
                None if entries.len() < self.0 => entries.push((key, map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(entries)
    }
}

/// Gives the strings of a list, the first and the last `limit / 2` of them, and how many were left out between.
///
/// A plain string counts as a list of one; what is no string in the list is passed over.
pub(super) fn lines(json: &Bytes, limit: usize) -> (Vec<String>, usize) {
    if let Some(line) = text(json) {
        return (vec![line], 0);
    }
    let read = |json: &[u8]| {
        let (head, tail, count) = parse(json, Lines(limit / 2))?;
        let lines: Vec<_> =
            head.into_iter().chain(tail).filter_map(|raw| text(raw.get().as_bytes())).collect();
        let omitted = count.saturating_sub(limit / 2 * 2);
        Ok::<_, serde_json::Error>((lines, omitted))
    };
    read(json).or_else(|_| read(&repair(json))).unwrap_or_default()
}

/// Keeps this many items of a list's head, and as many of its tail.
struct Lines(usize);

impl<'de> DeserializeSeed<'de> for Lines {
    type Value = (Vec<&'de RawValue>, std::collections::VecDeque<&'de RawValue>, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Lines {
    type Value = <Self as DeserializeSeed<'de>>::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let (mut head, mut tail, mut count) = Self::Value::default();
        while let Some(raw) = sequence.next_element()? {
            count += 1;
            if head.len() < self.0 {
                head.push(raw);
                continue;
            }
            if tail.len() == self.0 {
                tail.pop_front();
            }
            tail.push_back(raw);
        }
        Ok((head, tail, count))
    }
}

/// Decodes a JSON string; `None` where it is something else.
pub(crate) fn text(json: &[u8]) -> Option<String> {
    if json.first() != Some(&b'"') {
        return None;
    }
    serde_json::from_slice(json).or_else(|_| serde_json::from_slice(&repair(json))).ok()
}

/// Decodes the beginning of a JSON string, from about `limit` bytes of it at most.
pub(crate) fn text_prefix(json: &[u8], limit: usize) -> Option<String> {
    let end = json.len().min(limit);
    if json.first() != Some(&b'"') {
        return None;
    }
    let mut position = 1;
    while position < end && json[position] != b'"' {
        // A pair of surrogates is cut between its halves at worst; the repair makes a U+FFFD of the first.
        let step = match (json[position], json.get(position + 1)) {
            (b'\\', Some(b'u')) => 6,
            (b'\\' | 0xc0..=0xdf, _) => 2,
            (0xe0..=0xef, _) => 3,
            (0xf0..=0xff, _) => 4,
            _ => 1,
        };
        if position + step > end {
            break;
        }
        position += step;
    }
    let mut whole = json[..position].to_vec();
    whole.push(b'"');
    text(&whole)
}

/// Decodes a value that is exactly of the type asked for.
pub(super) fn scalar<'de, T: Deserialize<'de>>(json: Option<&'de Bytes>) -> Option<T> {
    serde_json::from_slice(json?).ok()
}

/// How many bytes Python's objects of a value take at most, about; `None` where it is nested deeper than every reader
/// of it takes.
///
/// A few bytes of JSON may be an object of some hundred: the sizes are those of 64-bit `CPython` 3.10 to 3.14.
pub(crate) fn parsed_bytes(json: &[u8]) -> Option<usize> {
    const DICT: usize = 280;
    const LIST: usize = 80;
    const VALUE: usize = 44;
    const STRING: usize = 56;
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let (mut bytes, mut wide) = (VALUE, false);
    for byte in json {
        match byte {
            _ if escaped => {
                escaped = false;
                wide |= *byte == b'u';
            }
            b'\\' => escaped = in_string,
            b'"' => {
                in_string = !in_string;
                bytes += if in_string { STRING } else { 0 };
            }
            _ if in_string => wide |= !byte.is_ascii(),
            b'[' | b'{' => {
                depth += 1;
                bytes += if *byte == b'{' { DICT } else { LIST };
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' | b':' => bytes += VALUE,
            _ => {}
        }
        if depth >= MAX_DEPTH {
            return None;
        }
    }
    // One character that needs four bytes makes all of its text do so.
    Some(bytes + json.len() * if wide { 4 } else { 1 })
}

/// Mends what Python's `json` writes and strict readers refuse: invalid UTF-8 and lone surrogates become
/// U+FFFD, `NaN` and the infinities `null`.
pub(super) fn repair(json: &[u8]) -> Bytes {
    let json = String::from_utf8_lossy(json);
    let bytes = json.as_bytes();
    let mut repaired = String::with_capacity(json.len());
    let (mut kept, mut position, mut in_string) = (0, 0, false);
    while position < bytes.len() {
        let rest = &bytes[position..];
        let (length, replacement) = match rest[0] {
            b'\\' if in_string => escape(rest),
            b'"' => {
                in_string = !in_string;
                (1, None)
            }
            b'N' | b'I' | b'-' if !in_string => {
                let token = ["NaN", "Infinity", "-Infinity"]
                    .into_iter()
                    .find(|token| rest.starts_with(token.as_bytes()));
                (token.map_or(1, str::len), token.map(|_| "null"))
            }
            _ => (1, None),
        };
        if let Some(replacement) = replacement {
            repaired.push_str(&json[kept..position]);
            repaired.push_str(replacement);
            kept = position + length;
        }
        position += length;
    }
    repaired.push_str(&json[kept..]);
    Bytes::from(repaired)
}

/// The length of the escape that `rest` begins with, and what to put in its place.
fn escape(rest: &[u8]) -> (usize, Option<&'static str>) {
    match (code_unit(rest), rest.get(6..).and_then(code_unit)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
        (Some(0xd800..=0xdfff), _) => (6, Some("\u{fffd}")),
        (Some(_), _) => (6, None),
        // The escaped byte may be the first of a longer character: the rest of it is stepped over singly.
        (None, _) => (2, None),
    }
}

/// The UTF-16 code unit of the `\uXXXX` that `rest` begins with.
fn code_unit(rest: &[u8]) -> Option<u16> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}
