//! Requests that got no answer fit for use, told apart by whether another attempt can help.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use super::answer::{Answer, BODY_LIMIT, Unread, excerpt};
use super::endpoint::Endpoint;
use super::resolve::Unresolved;
use crate::Error;

/// A request that failed.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether it may pass by itself, as a refused connection does when the server has booted.
    pub(super) passing: bool,
}

impl Failure {
    pub(super) fn lasting(error: Error) -> Self {
        Self { error, passing: false }
    }

    pub(super) fn passing(error: Error) -> Self {
        Self { error, passing: true }
    }

    /// What a request of `operation`, allowed to take `limit`, came to when no answer could be read.
    pub(super) fn unread(
        endpoint: &Endpoint,
        operation: &'static str,
        limit: Duration,
        unread: Unread,
    ) -> Self {
        match unread {
            Unread::TooLong => Self::lasting(Error::Gateway {
                operation,
                reason: format!(
                    "the answer is longer than {} MiB; the server is no Jupyter gateway",
                    BODY_LIMIT >> 20
                ),
            }),
            Unread::Broken(error) => Self::transport(endpoint, operation, limit, &error.without_url()),
        }
    }

    fn transport(
        endpoint: &Endpoint,
        operation: &'static str,
        limit: Duration,
        error: &reqwest::Error,
    ) -> Self {
        if let Some(unresolved) = find::<Unresolved>(error) {
            return Self {
                error: Error::Unresolvable {
                    host: unresolved.host.clone(),
                    reason: unresolved.reason.clone(),
                },
                passing: unresolved.temporary,
            };
        }
        if let Some(reason) = find::<rustls::Error>(error).and_then(refusal) {
            return Self::lasting(Error::Certificate { host: endpoint.host().to_owned(), reason });
        }
        let reason = if error.is_timeout() {
            let hint = if endpoint.is_tls() {
                "; if it speaks no TLS, the URL has to begin with http://"
            } else {
                ""
            };
            format!("no answer within {limit:.1?}{hint}")
        } else {
            excerpt(endpoint, &innermost(error).to_string())
        };
        Self::passing(Error::Gateway { operation, reason })
    }

    /// What a redirect came to. It is not followed: the token would travel to a place that nobody named.
    pub(super) fn redirect(endpoint: &Endpoint, operation: &'static str, answer: &Answer) -> Self {
        let status = answer.status.as_u16();
        let host = answer.location.as_ref().and_then(|location| location.host_str()).map_or_else(
            || "an unnamed place".to_owned(),
            |host| format!("the host {}", excerpt(endpoint, host)),
        );
        Self::lasting(Error::Gateway {
            operation,
            reason: format!(
                "HTTP status {status} redirects to {host}, and redirects are not followed; give the URL of the \
                 gateway itself, its base path included"
            ),
        })
    }
}

/// What rustls refused, when it will refuse it again. A TLS alert is none of it: a front that has yet to fetch
/// its certificate sends one.
fn refusal(error: &rustls::Error) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(reason) => Some(format!(
            "its certificate is not acceptable: {reason}; if it is signed by a CA of your own, pass that CA"
        )),
        rustls::Error::NoCertificatesPresented => Some("it presents no certificate".to_owned()),
        rustls::Error::PeerIncompatible(reason) => Some(format!("it offers no TLS in common: {reason:?}")),
        rustls::Error::InvalidMessage(_) => {
            Some("it does not answer in TLS; does the URL have to begin with http://?".to_owned())
        }
        _ => None,
    }
}

/// The first error of type `T` among the causes of `error`.
fn find<'error, T: StdError + 'static>(error: &'error (dyn StdError + 'static)) -> Option<&'error T> {
    causes(error).find_map(|cause| cause.downcast_ref::<T>())
}

fn innermost<'error>(error: &'error (dyn StdError + 'static)) -> &'error (dyn StdError + 'static) {
    causes(error).last().unwrap_or(error)
}

/// The error itself and its causes, outermost first.
fn causes<'error>(
    error: &'error (dyn StdError + 'static),
) -> impl Iterator<Item = &'error (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // An `io::Error` names as its source that of the error it wraps, and so passes over the error itself.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}
