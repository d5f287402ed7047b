//! What can go wrong below the user's code.
//!
//! An error that the user's code raises is data ([`crate::execution::Execution::error`]); everything here is
//! about the machinery underneath. No message holds a token.

use std::fmt;
use std::time::Duration;

use crate::execution::Execution;

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, with what, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that can't work: a malformed URL, an unknown scheme, a token with a line break.
    #[error("{0}")]
    Configuration(String),

    /// The gateway's certificate, or the local set of root certificates, is not acceptable.
    #[error("the TLS connection to {host} was refused: {reason}")]
    Certificate {
        /// The host that was asked for.
        host: String,
        /// What rustls said.
        reason: String,
    },

    /// The host's name does not resolve.
    #[error("the host name {host} does not resolve: {reason}; check the URL of the gateway")]
    Unresolvable {
        /// The host that was asked for.
        host: String,
        /// What the resolver said.
        reason: String,
    },

    /// The gateway did not answer as it should within the deadline.
    #[error("the gateway at {url} was not ready after {}: {reason}", Seconds(*.waited))]
    NotReady {
        /// The gateway's base URL, without credentials.
        url: String,
        /// How long it was waited for.
        waited: Duration,
        /// The last failure seen.
        reason: String,
    },

    /// The gateway answers, but it is not a gateway, or it refuses the request.
    #[error("{operation} failed: {reason}")]
    Gateway {
        /// What was asked of the gateway, as a phrase ("creating a kernel").
        operation: &'static str,
        /// What it answered, and what to do about it.
        reason: String,
    },

    /// The gateway refuses the token.
    #[error(
        "the gateway at {url} refused the token (HTTP status {status}); pass the token it was started with, as it takes \
         it: authorization=\"token\", \"bearer\" or \"query\""
    )]
    Auth {
        /// The gateway's base URL, without credentials.
        url: String,
        /// 401 or 403, or that of a page to log in, or of a redirect to it.
        status: u16,
    },

    /// The gateway knows no kernel of that id.
    #[error("the gateway has no kernel {kernel_id}; it may have been shut down")]
    KernelNotFound {
        /// The kernel that was asked for.
        kernel_id: String,
    },

    /// The connection to the kernel broke.
    #[error("the connection to the kernel was lost: {reason}")]
    ConnectionLost {
        /// What was seen of it.
        reason: String,
        /// What had arrived of the execution that was cut short, if one was under way.
        execution: Option<Box<Execution>>,
    },

    /// The kernel's process ended while it ran code, or was found ended.
    #[error("the kernel died: {reason}")]
    KernelDied {
        /// What was seen of it.
        reason: String,
        /// What had arrived of the execution that was cut short, if one was under way.
        execution: Option<Box<Execution>>,
    },

    /// An execution took longer than its timeout.
    #[error("the execution did not end within its timeout of {}; {aftermath}", Seconds(*.timeout))]
    ExecutionTimeout {
        /// The limit that was in force.
        timeout: Duration,
        /// What became of the code.
        aftermath: Aftermath,
        /// What had arrived until then, if it was run.
        execution: Option<Box<Execution>>,
    },

    /// Code was meant for a state of the kernel that is gone. It was not run.
    #[error(
        "the kernel was restarted meanwhile, and the state that the code was meant for is gone; it was not run"
    )]
    StateLost,

    /// The kernel is there, and does not run code any more. What was asked of it was not run.
    #[error(
        "the kernel does not run code any more: {reason}; the code was not run: restart the kernel, which loses its \
         state, or use another one"
    )]
    KernelUnresponsive {
        /// What was tried.
        reason: String,
    },

    /// The peer does not speak the protocol.
    #[error("{0}")]
    Protocol(String),

    /// A value that is not taken: too large, too deep, or of a kind that is refused.
    #[error("{0}")]
    Payload(String),

    /// Used after it was closed.
    #[error("the session is closed; open a new one")]
    Closed,
}

/// What became of code that did not end within its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aftermath {
    /// The kernel could not be asked in time; its state is what it was.
    NotRun,
    /// It was interrupted; the kernel's state is kept.
    Interrupted,
    /// It ignored the interrupt; the kernel was restarted, and its state is gone.
    Restarted,
    /// The gateway has not taken the interrupt yet. What is run next waits until the code has ended.
    Unknown,
}

impl Aftermath {
    /// Whether the kernel was restarted, where that is known.
    #[must_use]
    pub const fn restarted(self) -> Option<bool> {
        match self {
            Self::NotRun | Self::Interrupted => Some(false),
            Self::Restarted => Some(true),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for Aftermath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotRun => "the kernel could not be asked to run it until then, so it was not run",
            Self::Interrupted => "it was interrupted and the kernel's state is kept",
            Self::Restarted => "it ignored the interrupt, so the kernel was restarted and its state is gone",
            Self::Unknown => {
                "the gateway has not answered the interrupt, so it may still run; the next execution waits until it \
                 has ended"
            }
        })
    }
}

/// A duration as a person would say it.
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds >= 10.0 {
            write!(formatter, "{seconds:.0} s")
        } else {
            // Two places, and no zeros at the end of them.
            let digits = format!("{seconds:.2}");
            write!(formatter, "{} s", digits.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let said =
            [0.5, 2.0, 0.05, 61.4].map(|seconds| Seconds(Duration::from_secs_f64(seconds)).to_string());
        assert_eq!(said, ["0.5 s", "2 s", "0.05 s", "61 s"]);
    }
}
