//! Whether a kernel still runs code, after an execution whose end it did not tell.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::link::{Gone, Link};
use super::sequel::Sequel;
use crate::error::Seconds;
use crate::protocol::ExecuteRequest;
use crate::{Error, Result};

/// How long each attempt may take. An interrupt that comes late may hit one of them.
const ATTEMPTS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(5)];

/// How long a failure is told without another attempt.
const STANDS: Duration = Duration::from_secs(10);

/// The kernel is asked to run nothing. What comes after it waits for that.
#[derive(Default)]
pub(super) struct Proof {
    stage: Stage,
    /// When it failed, and how; where the kernel could not even be asked, that is tried again by whoever needs it.
    failed: Option<(Instant, Option<String>)>,
}

enum Stage {
    /// The number of the attempt, with its request and its end where it has begun.
    Asking(usize, Option<(Sequel, Instant)>),
    Restarting(JoinHandle<Result<()>>),
    Replacing,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Asking(0, None)
    }
}

impl Proof {
    /// Whether it has failed. It begins anew when somebody wants to know, as the kernel may have been restarted by
    /// its owner.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Goes on until the kernel has run something, or is another one. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// [`Error::KernelUnresponsive`]: it did not, and it is not ours to restart. Or the kernel can't be reached.
    pub(super) async fn proceed(&mut self, link: &mut Link) -> Result<()> {
        match self.failed.take() {
            Some((since, Some(reason))) if since.elapsed() < STANDS => {
                self.failed = Some((since, Some(reason.clone())));
                return Err(Error::KernelUnresponsive { reason });
            }
            _ => {}
        }
        loop {
            match &mut self.stage {
                Stage::Asking(attempt, begun) => {
                    let Some(patience) = ATTEMPTS.get(*attempt) else {
                        if link.may_replace_its_kernel() {
                            self.stage = Stage::Restarting(link.begin_restart());
                            continue;
                        }
                        return Err(self.fail(format!(
                            "it was asked {} times within {} to run nothing, and did not end that",
                            ATTEMPTS.len(),
                            Seconds(ATTEMPTS.iter().sum())
                        )));
                    };
                    if begun.is_none() {
                        let subprotocol = match link.connect().await {
                            Ok(subprotocol) => subprotocol,
                            Err(error) => {
                                self.failed = Some((Instant::now(), None));
                                return Err(error);
                            }
                        };
                        let (id, _) = link.next_message_id();
                        let nothing =
                            ExecuteRequest { silent: true, store_history: false, ..ExecuteRequest::new("") };
                        let mut request = Sequel::default();
                        if request.ask(subprotocol, id, "execute_request", &nothing, link).await.is_ok() {
                            *begun = Some((request, Instant::now() + *patience));
                        }
                    }
                    let outcome = match begun {
                        Some((request, until)) => run(request, *until, link).await,
                        None => Some(Gone::Lost(String::new())),
                    };
                    match outcome {
                        None | Some(Gone::Died(_)) => return Ok(()),
                        Some(_) => (*attempt, *begun) = (*attempt + 1, None),
                    }
                }
                Stage::Restarting(restart) => match restart.await.unwrap_or(Err(Error::Closed)) {
                    Ok(()) => return Ok(()),
                    Err(Error::KernelNotFound { .. }) => self.stage = Stage::Replacing,
                    Err(error) => return Err(self.fail(format!("it could not be restarted: {error}"))),
                },
                Stage::Replacing => {
                    return match link.create_another_kernel().await {
                        Ok(()) => Ok(()),
                        Err(error) => Err(self.fail(format!("it could not be replaced: {error}"))),
                    };
                }
            }
        }
    }

    fn fail(&mut self, reason: String) -> Error {
        (self.stage, self.failed) = (Stage::default(), Some((Instant::now(), Some(reason.clone()))));
        Error::KernelUnresponsive { reason }
    }
}

/// Waits until the kernel has run the request; otherwise why it has not, or `Lost` where its time is over.
async fn run(request: &mut Sequel, until: Instant, link: &mut Link) -> Option<Gone> {
    while !request.is_over() {
        tokio::select! {
            biased;
            message = link.next() => match message {
                Ok(message) => {
                    request.take(&message);
                }
                Err(Gone::Suspected) => {
                    if let Err(gone) = link.resolve().await {
                        return Some(gone);
                    }
                }
                Err(gone) => return Some(gone),
            },
            () = sleep_until(until) => return Some(Gone::Lost(String::new())),
        }
    }
    None
}
