//! The token against cross-site requests, which a Jupyter server without authentication asks of each call that changes
//! something: it gives it as a cookie with a page, and wants it back as the cookie and as a header.

use std::sync::{Mutex, PoisonError};

use reqwest::StatusCode;
use reqwest::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

use super::answer::Answer;

const NAME: &str = "_xsrf";
const HEADER: &str = "x-xsrftoken";

/// What the server gave, once it was asked.
#[derive(Debug, Default)]
pub(super) struct Xsrf(Mutex<Option<HeaderValue>>);

impl Xsrf {
    /// Whether the server refuses a call for want of the token.
    pub(super) fn is_missed(answer: &Answer) -> bool {
        answer.status == StatusCode::FORBIDDEN
            && answer.body.windows(NAME.len()).any(|part| part == NAME.as_bytes())
    }

    /// Keeps the token that came with an answer, if there is one. Whether there is.
    pub(super) fn take(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(SET_COOKIE).into_iter().filter_map(|cookie| cookie.to_str().ok());
        let token = cookies
            .filter_map(|cookie| cookie.split(';').next()?.trim().strip_prefix(NAME)?.strip_prefix('='))
            .find_map(|value| HeaderValue::from_str(value.trim_matches('"')).ok());
        let Some(mut token) = token else { return false };
        token.set_sensitive(true);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        true
    }

    /// The headers that bring the token back, once it is known.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let token = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = token {
            let cookie = [NAME.as_bytes(), b"=", token.as_bytes()].concat();
            if let Ok(mut cookie) = HeaderValue::from_bytes(&cookie) {
                cookie.set_sensitive(true);
                headers.insert(COOKIE, cookie);
            }
            headers.insert(HEADER, token);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_back_as_it_came() {
        let xsrf = Xsrf::default();
        assert!(xsrf.headers().is_empty());
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("username=\"2|1:0\"; HttpOnly; Path=/"));
        headers.append(SET_COOKIE, HeaderValue::from_static("_xsrf_other=1; Path=/"));
        assert!(!xsrf.take(&headers));
        headers.append(SET_COOKIE, HeaderValue::from_static("_xsrf=2|11b5243d|de98|17; Path=/"));
        assert!(xsrf.take(&headers));
        let headers = xsrf.headers();
        assert_eq!(headers.get(COOKIE).unwrap(), "_xsrf=2|11b5243d|de98|17");
        assert_eq!(headers.get(HEADER).unwrap(), "2|11b5243d|de98|17");
        assert!(!format!("{headers:?} {xsrf:?}").contains("11b5243d"));
    }
}
