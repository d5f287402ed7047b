//! The proxy on the way to a gateway: chosen once, for the REST client and the websocket alike.
//!
//! # Layout
//!
//! - [`Proxies`]: what the environment says; [`Proxy`]: the one that it names for a host.
//! - `tunnel`: how a proxy is asked for a connection to the host (HTTP CONNECT).

mod tunnel;

use std::env;
use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::HeaderValue;
use tokio_tungstenite::tungstenite::http::Uri;
use url::Url;

use crate::{Error, Result};

/// The proxies there are, and for which hosts they are not to be asked.
#[derive(Debug)]
pub struct Proxies {
    matcher: Matcher,
    /// Those hosts, for the entries that the matcher does not understand.
    exceptions: String,
}

impl Proxies {
    /// Those of `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case, and where none
    /// is set, those of the system's settings (macOS, Windows).
    #[must_use]
    pub fn from_environment() -> Self {
        let exceptions = env::var("NO_PROXY").or_else(|_| env::var("no_proxy")).unwrap_or_default();
        Self { matcher: Matcher::from_system(), exceptions }
    }

    /// The proxy `url` for every host but those of `exceptions`, which are written as in `NO_PROXY`.
    #[must_use]
    pub fn new(url: &str, exceptions: &str) -> Self {
        let matcher = Matcher::builder().all(url).no(exceptions).build();
        Self { matcher, exceptions: exceptions.to_owned() }
    }

    /// The proxy for an `http` or `https` URL; `None` where the host is to be spoken to directly.
    ///
    /// Fails with [`Error::Configuration`] where the proxy is of a kind that is not spoken, such as SOCKS.
    pub fn choose(&self, url: &Url) -> Result<Option<Proxy>> {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
        let Ok(origin) = format!("{}://{host}/", url.scheme()).parse::<Uri>() else { return Ok(None) };
        let Some(intercept) = self.matcher.intercept(&origin) else { return Ok(None) };
        if port.is_some_and(|port| self.excepts_port(&origin, port)) {
            return Ok(None);
        }
        let proxy = Proxy { uri: intercept.uri().clone(), authorization: intercept.basic_auth().cloned() };
        match proxy.uri.scheme_str() {
            Some("http" | "https") => Ok(Some(proxy)),
            scheme => Err(Error::Configuration(format!(
                "the environment names {}://{proxy} as the proxy for {host}, and only http:// and https:// proxies \
                 are spoken; set HTTP_PROXY and HTTPS_PROXY to one, or add {host} to NO_PROXY",
                scheme.unwrap_or_default()
            ))),
        }
    }

    /// Whether an entry with a port, such as `example.org:8443`, is about this host and port.
    fn excepts_port(&self, origin: &Uri, port: u16) -> bool {
        let hosts: Vec<&str> = self
            .exceptions
            .split(',')
            .filter_map(|entry| entry.trim().rsplit_once(':'))
            .filter(|(host, entry_port)| !host.is_empty() && entry_port.parse() == Ok(port))
            .map(|(host, _)| host.trim_matches(['[', ']']))
            .collect();
        // Any proxy will do: what matters is whether it is passed by.
        let matcher = Matcher::builder().all("http://proxy").no(hosts.join(",")).build();
        matcher.intercept(origin).is_none()
    }
}

/// A proxy, and the credentials for it. It is shown as its host and port alone.
#[derive(Clone)]
pub struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// The proxy as the HTTP client takes it.
    pub(crate) fn for_requests(&self) -> Result<reqwest::Proxy> {
        let proxy = reqwest::Proxy::all(self.uri.to_string()).map_err(|error| {
            Error::Configuration(format!("the proxy {self} can't be used: {}", error.without_url()))
        })?;
        Ok(match &self.authorization {
            Some(authorization) => proxy.custom_http_auth(authorization.clone()),
            None => proxy,
        })
    }

    /// Whether the proxy itself is spoken to over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The host without the brackets of an IPv6 address, and the port.
    pub(crate) fn address(&self) -> (&str, u16) {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        (host, self.uri.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 }))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.uri.host().unwrap_or_default(), self.address().1)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.choose(&Url::parse(url).unwrap()).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn passes_by_the_exceptions() {
        let exceptions = "example.org, .dotted.test,10.1.0.0/16,fd00::/8,other.test:8443,[2001:db8::1]:8888";
        let proxies = Proxies::new("http://proxy.test:3128", exceptions);
        for url in [
            "https://example.org/",
            "http://a.b.example.org:8888/",
            "https://EXAMPLE.org/",
            "https://dotted.test/",
            "https://a.dotted.test/",
            "http://10.1.2.3:8888/",
            "http://[fd00::1]:8888/",
            "https://other.test:8443/",
            "https://a.other.test:8443/",
            "http://[2001:db8::1]:8888/",
        ] {
            assert_eq!(choose(&proxies, url), None, "{url}");
        }
        for url in [
            "https://notexample.org/",
            "https://example.org.test/",
            "http://10.2.0.1/",
            "https://other.test/",
            "http://other.test:8444/",
            "http://[2001:db8::1]/",
            "http://[2001:db8::2]:8888/",
        ] {
            assert_eq!(choose(&proxies, url).as_deref(), Some("proxy.test:3128"), "{url}");
        }
        assert_eq!(choose(&Proxies::new("http://proxy.test", "*"), "https://example.org/"), None);
        assert_eq!(choose(&Proxies::new("", ""), "https://example.org/"), None);
    }

    #[test]
    fn knows_the_ports_that_are_not_named() {
        for (url, expected) in [
            ("proxy.test", "proxy.test:80"),
            ("http://proxy.test", "proxy.test:80"),
            ("https://proxy.test", "proxy.test:443"),
            ("http://[::1]:3128", "[::1]:3128"),
        ] {
            assert_eq!(choose(&Proxies::new(url, ""), "http://h/").as_deref(), Some(expected), "{url}");
        }
    }

    #[test]
    fn keeps_the_password_to_itself() {
        let url = Url::parse("https://example.org/").unwrap();
        let proxies = Proxies::new("http://me:s3cret@proxy.test:3128", "");
        let proxy = proxies.choose(&url).unwrap().unwrap();
        assert_eq!(proxy.authorization.as_ref().unwrap().as_bytes(), b"Basic bWU6czNjcmV0");
        let shown = format!("{proxies:?} {proxy:?} {proxy}");
        assert!(!shown.contains("s3cret") && !shown.contains("bWU6"), "{shown}");

        let error = Proxies::new("socks5h://me:s3cret@proxy.test:1080", "").choose(&url).unwrap_err();
        assert!(matches!(error, Error::Configuration(_)), "{error:?}");
        assert!(error.to_string().contains("socks5h://proxy.test:1080"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}
