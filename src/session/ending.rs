//! How running code is ended: interrupt, then restart.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::execute::Asked;
use super::link::{Gone, Link};
use crate::{Error, Result};

/// How long the gateway has for its answer to an interrupt until it is asked again, on a new connection.
const INTERRUPT_WITHIN: Duration = Duration::from_millis(1900);

/// A kernel that has not begun yet overhears an interrupt: when it is sent again at first.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long silent code, which is mostly a request of the host's own, may go on to its end when nobody waits for it any
/// more. An interrupt that comes just as the code ends hits the kernel where it takes none: its reply is lost, and with a
/// restart its state.
const SILENT_CODE_MAY_END: Duration = Duration::from_secs(1);

/// How it went.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The kernel's state is kept: the interrupt ended the code.
    Interrupted,
    /// The kernel was restarted; its state is gone.
    Restarted,
    /// The kernel ended otherwise; its state is gone.
    Died(&'static str),
    /// The kernel can't be reached.
    Failed(String),
}

impl From<Gone> for Stopped {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Died(reason) => Self::Died(reason),
            Gone::Lost(reason) => Self::Failed(reason),
            Gone::Suspected | Gone::Interrupted => Self::Failed(String::new()),
        }
    }
}

/// Code that is being ended. What comes after it finds the kernel idle, and is not hit by an interrupt for it.
pub(super) struct Ending {
    pub(super) asked: Asked,
    stage: Stage,
}

enum Stage {
    Interrupting(Interrupting),
    /// The code has ended; an interrupt under way would hit what comes next.
    Landing(Request, Stopped),
    Restarting(JoinHandle<Result<()>>),
    /// The gateway has the kernel no more.
    Replacing,
}

/// An interrupt under way. Its outcome is `None` where there was no answer.
type Request = JoinHandle<Option<Result<()>>>;

struct Interrupting {
    /// At most one: on a gateway that stands still they would pile up.
    request: Option<Request>,
    next_at: Instant,
    pause: Duration,
    /// Whether the code had begun when the last one was sent.
    begun: bool,
    /// Whether the gateway has taken one.
    taken: bool,
    /// Known when the gateway has answered: while it says nothing, there is no point in asking for a restart.
    restart_at: Option<Instant>,
}

impl Ending {
    /// Ends an execution now.
    pub(super) fn new(asked: Asked) -> Self {
        Self::at(asked, Instant::now())
    }

    /// Ends an execution that nobody waits for any more.
    pub(super) fn unattended(asked: Asked) -> Self {
        let patience = if asked.is_silent() { SILENT_CODE_MAY_END } else { Duration::ZERO };
        Self::at(asked, Instant::now() + patience)
    }

    fn at(mut asked: Asked, next_at: Instant) -> Self {
        asked.forget_sequel();
        Self {
            asked,
            stage: Stage::Interrupting(Interrupting {
                request: None,
                next_at,
                pause: FIRST_PAUSE,
                begun: false,
                taken: false,
                restart_at: None,
            }),
        }
    }

    /// Whether the gateway does what it is asked.
    pub(super) fn is_heard(&self) -> bool {
        match &self.stage {
            Stage::Interrupting(interrupting) => interrupting.taken,
            Stage::Landing(..) | Stage::Restarting(_) | Stage::Replacing => true,
        }
    }

    /// Goes on until the code has ended, or can't be heard of any more. May be dropped and called again.
    pub(super) async fn proceed(&mut self, link: &mut Link) -> Stopped {
        loop {
            match &mut self.stage {
                Stage::Interrupting(interrupting) => {
                    let ended = interrupting.proceed(&mut self.asked, link).await;
                    self.stage = match (ended, interrupting.request.take()) {
                        (Some(stopped), Some(request)) => Stage::Landing(request, stopped),
                        (Some(stopped), None) => return stopped,
                        (None, _) => Stage::Restarting(link.begin_restart()),
                    };
                }
                Stage::Landing(request, stopped) => {
                    let _ = request.await;
                    return stopped.clone();
                }
                Stage::Restarting(restart) => match restart.await.unwrap_or(Err(Error::Closed)) {
                    Err(Error::KernelNotFound { .. }) if link.may_replace_its_kernel() => {
                        self.stage = Stage::Replacing;
                    }
                    outcome => return restarted(outcome),
                },
                Stage::Replacing => return restarted(link.create_another_kernel().await),
            }
        }
    }
}

fn restarted(outcome: Result<()>) -> Stopped {
    match outcome {
        Ok(()) => Stopped::Restarted,
        Err(error) => Stopped::Failed(format!("the kernel could not be restarted: {error}")),
    }
}

impl Interrupting {
    /// Sends interrupts until the code has ended; `None` where it does not react and is to be restarted.
    async fn proceed(&mut self, asked: &mut Asked, link: &mut Link) -> Option<Stopped> {
        loop {
            let none_is_under_way = self.request.is_none();
            tokio::select! {
                biased;
                attended = asked.attend(link) => {
                    return Some(attended.map_or_else(Stopped::from, |()| Stopped::Interrupted));
                }
                outcome = landed(&mut self.request) => {
                    self.request = None;
                    self.note(outcome.as_ref(), link.interrupt_grace());
                    let told = match outcome {
                        // A peer that takes nothing any more is not waited for beyond that.
                        Some(Ok(())) => tokio::select! {
                            biased;
                            sent = asked.send_sequel(link) => sent,
                            () = until(self.restart_at) => Ok(()),
                        },
                        Some(Err(Error::KernelNotFound { .. })) => {
                            let finding = link.look().await;
                            link.conclude(finding)
                        }
                        _ => Ok(()),
                    };
                    if let Err(gone) = told {
                        return Some(gone.into());
                    }
                }
                () = until(self.restart_at) => {
                    // On a slow way, the word that it has ended may wait behind what it gave out before.
                    let ended = asked.has_ended() || link.is_kernel_done().await;
                    return ended.then_some(Stopped::Interrupted);
                }
                () = sleep_until(self.next_at), if none_is_under_way => {
                    self.begun = asked.has_begun();
                    let interrupt = link.interrupt();
                    self.request = Some(tokio::spawn(async { timeout(INTERRUPT_WITHIN, interrupt).await.ok() }));
                }
            }
        }
    }

    /// Notes what became of an interrupt, and when the next one is due.
    fn note(&mut self, outcome: Option<&Result<()>>, grace: Duration) {
        let now = Instant::now();
        self.taken |= matches!(outcome, Some(Ok(()) | Err(Error::KernelNotFound { .. })));
        if outcome.is_some() {
            self.restart_at.get_or_insert(now + grace);
        }
        // Code that was hit has its time to clean up; only late is it hit again, as it may have lost the exception.
        self.next_at = now + if self.taken && self.begun { grace / 2 } else { self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits for the answer to an interrupt, for ever where none is under way.
async fn landed(request: &mut Option<Request>) -> Option<Result<()>> {
    match request {
        Some(request) => request.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// Waits for a time, for ever where it is not known.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
