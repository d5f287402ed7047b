//! Waiting for a gateway that boots.

use std::time::Duration;

use tokio::time::Instant;

use super::client::GatewayClient;
use crate::{Error, Result};

/// How long one attempt may take. A tunnel may accept the connection and never answer, because the server was
/// not there when it was opened; a new one gets through.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);

const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// With a growth of `g`, a server is noticed `(g - 1) / 2` of its boot time late on average. This one costs some
/// 30 requests until the longest delay is reached.
const GROWTH: f64 = 1.15;

impl GatewayClient {
    /// Waits until the gateway answers, with the token accepted, for `timeout` at most.
    ///
    /// Refused and broken connections, silence, a resolver out of reach, and answers that a front gives for a
    /// server that boots (5xx, 404) are waited out; [`Error::NotReady`] names the last of them, and
    /// [`Error::Unresolvable`] stands for it when that was the resolver's. A refused token
    /// ([`Error::Auth`]), a certificate that is not acceptable ([`Error::Certificate`]), a name that does not
    /// exist ([`Error::Unresolvable`]) and a server that is no gateway ([`Error::Gateway`]) fail at once.
    pub async fn wait_until_ready(&self, timeout: Duration) -> Result<()> {
        let started = Instant::now();
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY, GROWTH);
        let mut last = None;
        loop {
            let attempted = Instant::now();
            let limit = timeout.saturating_sub(started.elapsed()).min(ATTEMPT_LIMIT);
            let error = match self.fetch_kernel_specs("waiting for the gateway", limit).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.passing => failure.error,
                Err(failure) => return Err(failure.error),
            };
            // Of an attempt that the deadline cut short, only that is known: an earlier one tells more.
            let cut_short = limit < ATTEMPT_LIMIT && attempted.elapsed() >= limit;
            let error = if cut_short { last.take().unwrap_or(error) } else { error };
            let delay = backoff.next_delay();
            // A last attempt right at the deadline would have no time to succeed.
            if started.elapsed() + delay >= timeout {
                return Err(match error {
                    Error::Gateway { reason, .. } => Error::NotReady {
                        url: self.endpoint().url().to_string(),
                        waited: started.elapsed(),
                        reason,
                    },
                    other => other,
                });
            }
            last = Some(error);
            tokio::time::sleep(delay).await;
        }
    }
}

/// Growing delays, each off by up to a fifth, so that clients that began together do not stay together.
pub(super) struct Backoff {
    delay: Duration,
    longest: Duration,
    growth: f64,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration, growth: f64) -> Self {
        Self { delay: first, longest, growth }
    }

    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = delay.mul_f64(self.growth).min(self.longest);
        delay.mul_f64(rand::random_range(0.8..=1.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_differ() {
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY, GROWTH);
        let delays: Vec<Duration> = (0..100).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= FIRST_DELAY.mul_f64(1.2), "{:?}", delays[0]);
        let settled = &delays[40..];
        assert!(settled.iter().all(|delay| *delay <= LONGEST_DELAY.mul_f64(1.2)));
        assert!(settled.iter().all(|delay| *delay >= LONGEST_DELAY.mul_f64(0.8)));
        assert!(settled.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
