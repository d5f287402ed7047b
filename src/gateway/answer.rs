//! What a gateway answers: read within a bound, quoted with care.

use std::mem;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use serde::de::DeserializeOwned;
use url::Url;

use super::endpoint::Endpoint;

/// The most that is read of an answer, in bytes. The longest true one, a list of kernelspecs with their logos'
/// paths, stays far below.
pub(super) const BODY_LIMIT: usize = 1 << 20;

/// The most that is quoted of an answer, in characters.
const EXCERPT_LIMIT: usize = 200;

/// An answer, whole and bounded.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    pub(super) headers: HeaderMap,
    /// Where a redirect leads.
    pub(super) location: Option<Url>,
}

/// Why an answer could not be read.
pub(super) enum Unread {
    TooLong,
    Broken(reqwest::Error),
}

impl Answer {
    pub(super) async fn read(mut response: reqwest::Response) -> Result<Self, Unread> {
        let status = response.status();
        let location = status.is_redirection().then(|| location(&response)).flatten();
        let headers = mem::take(response.headers_mut());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(Unread::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self { status, body, headers, location })
    }

    /// The body as JSON of the form asked for.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the server asks to log in, as one does of whom it does not know: with its own page for that, or by sending
    /// there.
    pub(super) fn asks_to_log_in(&self, endpoint: &Endpoint) -> bool {
        if self.status.is_redirection() {
            let here = |location: &&Url| location.host_str() == endpoint.url().host_str();
            return self.location.as_ref().filter(here).is_some_and(|location| has_mark(location.path()));
        }
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        self.status.is_success()
            && kind.to_ascii_lowercase().contains("html")
            && has_mark(&String::from_utf8_lossy(&self.body))
    }

    /// The status and the beginning of the body, fit for an error message.
    pub(super) fn describe(&self, endpoint: &Endpoint) -> String {
        // A Jupyter server puts what it has to say in one field; anything else is quoted as it is.
        let message = self.json::<serde_json::Value>().and_then(|body| {
            let message = body.get("message")?.as_str()?;
            Some(excerpt(endpoint, message))
        });
        let said = message.unwrap_or_else(|| excerpt(endpoint, &String::from_utf8_lossy(&self.body)));
        if said.is_empty() {
            format!("HTTP status {}", self.status.as_u16())
        } else {
            format!("HTTP status {}: {said}", self.status.as_u16())
        }
    }
}

/// The beginning of a text from the other side, on one line, without control characters and without the token.
pub(super) fn excerpt(endpoint: &Endpoint, text: &str) -> String {
    let text: String = endpoint
        .redact(text)
        .chars()
        .map(|character| if is_harmless(character) { character } else { ' ' })
        .collect();
    let mut words = String::new();
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    match words.char_indices().nth(EXCERPT_LIMIT) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// Neither a control character nor one of those that reorder or hide the text around them.
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What a page's address has, or its text, that asks to log in.
const LOGIN_MARKS: [&str; 4] = ["login", "log in", "sign in", "oauth"];

fn has_mark(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    LOGIN_MARKS.iter().any(|mark| text.contains(mark))
}

fn location(response: &reqwest::Response) -> Option<Url> {
    let value = response.headers().get(LOCATION)?.to_str().ok()?;
    response.url().join(value).ok()
}
