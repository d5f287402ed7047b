//! Where a gateway is, and the token for it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use reqwest::header::HeaderValue;
use url::{Host, Url};

use super::authorization::Authorization;
use crate::{Error, Result};

/// Reserved for private use: <https://www.iana.org/assignments/special-use-domain-names>.
const LOCAL_SUFFIXES: [&str; 3] = [".internal", ".local", ".home.arpa"];

/// The secret that a gateway was started with. Shown nowhere: `Debug` is redacted, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes visible ASCII only; anything else can't travel in a header, and is an [`Error::Configuration`].
    pub fn new(token: &str) -> Result<Self> {
        if token.is_empty() {
            return Err(Error::Configuration("the token is empty".to_owned()));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Configuration(
                "the token holds a character that is not visible ASCII; is there a space or a line break \
                 around it?"
                    .to_owned(),
            ));
        }
        Ok(Self(token.to_owned()))
    }

    /// As it stands in a URL's query.
    fn encoded(&self) -> String {
        url::form_urlencoded::byte_serialize(self.0.as_bytes()).collect()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(redacted)")
    }
}

/// The base URL of a gateway or Jupyter server, and the token for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
    token: Option<Token>,
    authorization: Authorization,
}

impl Endpoint {
    /// Takes the base URL as `http[s]://host[:port][/base/path]`; an empty token is none.
    ///
    /// Fails with [`Error::Configuration`] on any other scheme, on credentials in the URL, and on a query or a
    /// fragment. None of these messages repeats the URL, since the secret may stand in it.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self> {
        let mut url = Url::parse(url).map_err(|error| {
            refused(&format!("can't be parsed ({error}); give it as https://host[:port][/base/path]"))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused("has to begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(
                "holds a user name or a password; take them out, and pass the secret as token=",
            ));
        }
        if url.query_pairs().any(|(key, _)| key.eq_ignore_ascii_case("token")) {
            return Err(refused("holds a token, which would end in logs; pass it as token="));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("holds a query (?) or a fragment (#); give the base URL alone"));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let token = token.filter(|token| !token.is_empty()).map(Token::new).transpose()?;
        Ok(Self { url, token, authorization: Authorization::default() })
    }

    /// The same, for a server that takes its token in this way.
    #[must_use]
    pub fn with_authorization(mut self, authorization: Authorization) -> Self {
        self.authorization = authorization;
        self
    }

    /// The base URL, with a slash at its end and without credentials.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The host as it stands in the URL: an IPv6 address is in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The port, also when it is the scheme's own.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// Whether the gateway is spoken to over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether the host is this machine by its name or address: no proxy is to be asked for it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name == "localhost" || name.ends_with(".localhost")
            }
            // A server that listens on every address is often given as it was started, at 0.0.0.0.
            Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
            Some(Host::Ipv6(address)) => address.to_canonical().is_loopback() || address.is_unspecified(),
            None => false,
        }
    }

    /// Whether there is a token that would travel in clear, and farther than a local network.
    ///
    /// Of a local network are this machine, private and link-local addresses, names of one label (those of
    /// containers and of a LAN), and names below `.internal`, `.local` and `.home.arpa`, which the public DNS does
    /// not have.
    #[must_use]
    pub fn exposes_token(&self) -> bool {
        self.token.is_some() && !self.is_tls() && !self.is_loopback() && !self.is_local()
    }

    fn is_local(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                !name.contains('.') || LOCAL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
            }
            Some(Host::Ipv4(address)) => is_local_v4(address),
            Some(Host::Ipv6(address)) => match address.to_canonical() {
                IpAddr::V4(address) => is_local_v4(address),
                IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
            },
            None => false,
        }
    }

    /// The URL of a REST resource below the base; each segment is percent-encoded.
    #[must_use]
    pub fn rest(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// The URL of a kernel's websocket.
    #[must_use]
    pub fn channels(&self, kernel_id: &str, session_id: &str) -> Url {
        let mut url = self.rest(&["api", "kernels", kernel_id, "channels"]);
        url.query_pairs_mut().append_pair("session_id", session_id);
        // From one of the web's own schemes to another, which `set_scheme` allows.
        let _ = url.set_scheme(if self.is_tls() { "wss" } else { "ws" });
        url
    }

    /// The value of the `Authorization` header, marked as sensitive, where the token travels there. A gateway knows the
    /// scheme only as `token`, in lower case.
    #[must_use]
    pub fn authorization(&self) -> Option<HeaderValue> {
        let Token(token) = self.token.as_ref()?;
        match self.authorization {
            Authorization::Token => sensitive(&format!("token {token}")),
            Authorization::Bearer => sensitive(&format!("Bearer {token}")),
            Authorization::Query => None,
        }
    }

    /// What a URL's query has to hold beside its own, `token=…`, marked as sensitive, where the token travels there.
    #[must_use]
    pub fn secret_query(&self) -> Option<HeaderValue> {
        let token = self.token.as_ref().filter(|_| self.authorization == Authorization::Query)?;
        sensitive(&format!("token={}", token.encoded()))
    }

    /// A text from the other side with the token taken out, in case the other side repeats what it was sent.
    pub(crate) fn redact(&self, text: &str) -> String {
        let Some(token) = &self.token else { return text.to_owned() };
        // Out of a URL it comes back encoded.
        without(&without(text, &token.0), &token.encoded())
    }
}

/// A text without a secret in it.
fn without(text: &str, secret: &str) -> String {
    // A host name comes back in lower case. ASCII folding keeps every byte at its place.
    let (folded, needle) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let mut redacted = String::with_capacity(text.len());
    let mut end = 0;
    for (start, found) in folded.match_indices(&needle) {
        redacted.push_str(&text[end..start]);
        redacted.push_str("[token]");
        end = start + found.len();
    }
    redacted.push_str(&text[end..]);
    redacted
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_link_local()
}

fn refused(reason: &str) -> Error {
    Error::Configuration(format!("the URL of the gateway {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::new(url, Some("s3cret")).unwrap()
    }

    #[test]
    fn makes_urls_below_the_base_path() {
        for base in ["https://hub.example/user/x", "https://hub.example/user/x/"] {
            let endpoint = endpoint(base);
            assert_eq!(endpoint.url().as_str(), "https://hub.example/user/x/");
            assert_eq!(
                endpoint.rest(&["api", "kernels", "a/b c?#"]).as_str(),
                "https://hub.example/user/x/api/kernels/a%2Fb%20c%3F%23"
            );
            assert_eq!(
                endpoint.channels("k", "s&t").as_str(),
                "wss://hub.example/user/x/api/kernels/k/channels?session_id=s%26t"
            );
        }
        let plain = endpoint("http://[::1]:8888");
        assert_eq!(plain.channels("k", "s").as_str(), "ws://[::1]:8888/api/kernels/k/channels?session_id=s");
        assert_eq!((plain.host(), plain.port(), plain.is_tls()), ("[::1]", 8888, false));
        assert_eq!((endpoint("https://h").port(), endpoint("http://h").port()), (443, 80));
    }

    #[test]
    fn refuses_what_is_no_base_url_without_repeating_it() {
        for (url, expected) in [
            ("", "can't be parsed"),
            ("s3cret", "can't be parsed"),
            ("https://", "can't be parsed"),
            ("https://h:s3cret/", "can't be parsed"),
            ("s3cret:8888", "http:// or https://"),
            ("wss://s3cret/", "http:// or https://"),
            ("file:///s3cret", "http:// or https://"),
            ("http://me:s3cret@h/", "user name or a password"),
            ("http://s3cret@h/", "user name or a password"),
            ("http://h/?token=s3cret", "pass it as token="),
            ("http://h/?a=1&Token=s3cret", "pass it as token="),
            ("http://h/?a=s3cret", "query"),
            ("http://h/?", "query"),
            ("http://h/#s3cret", "fragment"),
        ] {
            let error = Endpoint::new(url, None).unwrap_err();
            assert!(matches!(error, Error::Configuration(_)), "{url}: {error:?}");
            assert!(error.to_string().contains(expected), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{url}: {error:?}");
        }
    }

    #[test]
    fn keeps_the_token_to_itself() {
        let endpoint = endpoint("http://h/");
        let value = endpoint.authorization().unwrap();
        assert_eq!(value.as_bytes(), b"token s3cret");
        assert!(value.is_sensitive());
        assert!(!format!("{endpoint:?} {value:?}").contains("s3cret"));
        assert_eq!(endpoint.redact("é: s3cretS3CRET."), "é: [token][token].");
        assert_eq!(Endpoint::new("http://h/", Some("")).unwrap().authorization(), None);
        for token in ["s3cret\n", "s3 cret", "s3crét", "s3cret\0"] {
            let error = Endpoint::new("http://h/", Some(token)).unwrap_err();
            assert!(matches!(error, Error::Configuration(_)), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("s3"), "{error:?}");
        }
    }

    #[test]
    fn knows_this_machine() {
        for host in
            ["localhost", "LOCALHOST", "a.localhost", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
        {
            assert!(endpoint(&format!("http://{host}:1/")).is_loopback(), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "[::2]", "mylocalhost"] {
            assert!(!endpoint(&format!("http://{host}:1/")).is_loopback(), "{host}");
        }
    }

    #[test]
    fn knows_how_far_a_token_travels_in_clear() {
        for host in [
            "localhost",
            "127.0.0.1",
            "gateway",
            "gateway.",
            "host.docker.internal",
            "gateway.team.svc.cluster.local",
            "printer.home.arpa",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.1",
            "192.168.1.1",
            "169.254.1.1",
            "[fd12::1]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
        ] {
            assert!(!endpoint(&format!("http://{host}:1/")).exposes_token(), "{host}");
        }
        for host in [
            "example.org",
            "internal.example.org",
            "10.example",
            "8.8.8.8",
            "172.32.0.1",
            "100.64.0.1",
            "192.169.0.1",
            "[2001:db8::1]",
            "[::ffff:8.8.8.8]",
        ] {
            assert!(endpoint(&format!("http://{host}:1/")).exposes_token(), "{host}");
            assert!(!endpoint(&format!("https://{host}:1/")).exposes_token(), "{host}");
            assert!(!Endpoint::new(&format!("http://{host}:1/"), None).unwrap().exposes_token(), "{host}");
        }
    }
}
