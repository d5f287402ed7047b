//! Host names to addresses, with the resolver's verdict kept.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The system's resolver. The standard library's own call folds every failure into one kind of error, so that a
/// name that does not exist looks like a resolver that is out of reach for a moment.
pub(super) struct SystemResolver;

/// A name that did not resolve.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub(super) host: String,
    pub(super) reason: String,
    /// Whether another attempt may do better.
    pub(super) temporary: bool,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} does not resolve: {}", self.host, self.reason)
    }
}

impl std::error::Error for Unresolved {}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let addresses = tokio::task::spawn_blocking(move || addresses(host)).await??;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn addresses(host: String) -> Result<Vec<SocketAddr>, Unresolved> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = match getaddrinfo(Some(&host), None, Some(hints)) {
        Ok(found) => found,
        Err(error) => {
            // `System` is about this machine's own resources, such as too many open files.
            let temporary = matches!(error.kind(), LookupErrorKind::Again | LookupErrorKind::System);
            let reason = io::Error::from(error).to_string();
            return Err(Unresolved { host, reason, temporary });
        }
    };
    let addresses: Vec<SocketAddr> = found.filter_map(|entry| Some(entry.ok()?.sockaddr)).collect();
    if addresses.is_empty() {
        return Err(Unresolved { host, reason: "it has no address".to_owned(), temporary: false });
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_machine() {
        let found = addresses("localhost".to_owned()).unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 0), "{found:?}");
    }

    #[test]
    fn says_that_a_name_does_not_exist() {
        let error = addresses("no such name".to_owned()).unwrap_err();
        assert!(!error.temporary, "{error:?}");
        assert_eq!(error.host, "no such name");
    }
}
