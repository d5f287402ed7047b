//! One piece of code, from its request to its [`Execution`].

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::stop::Stopped;
use super::worker::{Control, Job, Worker, death_notice};
use crate::execution::Fold;
use crate::protocol::{ChannelName, ExecuteRequest, Message, encode_request};
use crate::{Error, Result};

/// Why an execution is over.
enum End {
    Complete,
    TimedOut(Duration),
    Cancelled,
    Lost(String),
    Died(String),
    RestartAsked(oneshot::Sender<Result<()>>),
    CloseAsked(Option<oneshot::Sender<()>>),
}

/// An execution that has been asked of the kernel.
pub(super) struct Asked<'a> {
    pub(super) job: &'a Job,
    pub(super) msg_id: String,
    pub(super) fold: Fold,
    started: Instant,
}

impl Asked<'_> {
    /// Takes a message if it belongs here.
    pub(super) fn take(&mut self, message: &Message, worker: &mut Worker) {
        if message.parent_id != self.msg_id {
            return;
        }
        if message.channel == ChannelName::Shell {
            worker.heard_from(&message.header.session);
        }
        let events = self.job.events.as_ref();
        self.fold.push(message, &mut |event| {
            if let Some(events) = events {
                events.send(event);
            }
        });
    }
}

impl Worker {
    /// Runs a job to its end. Where the session is to be closed, whom to tell.
    pub(super) async fn execute(&mut self, job: Job) -> Option<Option<oneshot::Sender<()>>> {
        if job.cancel.is_cancelled() {
            return None;
        }
        let subprotocol = match self.connect().await {
            Ok(connection) => connection.subprotocol(),
            Err(error) => {
                let _ = job.done.send(Err(error));
                return None;
            }
        };
        let (msg_id, session_id) = self.next_message_id();
        let content = ExecuteRequest {
            silent: job.options.silent,
            store_history: job.options.store_history,
            ..ExecuteRequest::new(&job.code)
        };
        let frame = encode_request(
            subprotocol,
            ChannelName::Shell,
            "execute_request",
            &msg_id,
            session_id,
            &content,
            &[],
        );
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                let _ = job.done.send(Err(error));
                return None;
            }
        };
        let mut asked =
            Asked { job: &job, msg_id, fold: Fold::new(self.shared.config.limits), started: Instant::now() };
        let end = match self.connection.as_mut() {
            Some(connection) => match connection.send(frame).await {
                Ok(()) => self.attend(&mut asked).await,
                Err(reason) => End::Lost(reason),
            },
            None => End::Lost("there is no connection".to_owned()),
        };
        let (outcome, closer) = self.conclude(asked, end).await;
        let Job { events, done, .. } = job;
        // The observer's end of the stream comes before the result: whoever has seen it finds the result there.
        drop(events);
        let _ = done.send(outcome);
        closer
    }

    /// Takes what comes in until the execution is over.
    async fn attend(&mut self, asked: &mut Asked<'_>) -> End {
        let timeout = asked.job.options.timeout;
        let deadline = timeout.and_then(|timeout| asked.started.checked_add(timeout));
        let timed_out = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let cancelled = asked.job.cancel.cancelled();
        tokio::pin!(timed_out, cancelled);
        loop {
            let Some(connection) = self.connection.as_mut() else {
                return End::Lost("there is no connection".to_owned());
            };
            let incoming = tokio::select! {
                // A kernel that floods must not keep the others from being heard.
                biased;
                () = &mut cancelled => return End::Cancelled,
                () = &mut timed_out => return End::TimedOut(timeout.unwrap_or_default()),
                control = self.controls.recv() => return match control {
                    Some(Control::Restart(done)) => End::RestartAsked(done),
                    Some(Control::Close(done)) => End::CloseAsked(Some(done)),
                    None => End::CloseAsked(None),
                },
                incoming = connection.next() => incoming,
            };
            match incoming {
                Ok(message) => {
                    if let Some(reason) = death_notice(&message) {
                        return End::Died(reason.to_owned());
                    }
                    asked.take(&message, self);
                    if asked.fold.is_complete() {
                        return End::Complete;
                    }
                }
                Err(reason) => return End::Lost(reason),
            }
        }
    }

    /// What the caller gets, and who wants the session closed.
    async fn conclude(
        &mut self,
        mut asked: Asked<'_>,
        end: End,
    ) -> (Result<crate::execution::Execution>, Option<Option<oneshot::Sender<()>>>) {
        let stopped = match &end {
            End::TimedOut(_) | End::Cancelled => Some(self.stop(&mut asked).await),
            _ => None,
        };
        let execution = asked.fold.finish(asked.started.elapsed());
        let outcome = match end {
            End::Complete => Ok(execution),
            End::TimedOut(timeout) => match stopped {
                Some(Stopped::Failed(reason)) => {
                    Err(Error::ConnectionLost { reason, execution: Some(Box::new(execution)) })
                }
                Some(Stopped::CloseAsked(closer)) => return (Err(Error::Closed), Some(closer)),
                stopped => Err(Error::ExecutionTimeout {
                    timeout,
                    restarted: matches!(stopped, Some(Stopped::Restarted)),
                    execution: Box::new(execution),
                }),
            },
            End::Cancelled => {
                return match stopped {
                    Some(Stopped::CloseAsked(closer)) => (Err(Error::Closed), Some(closer)),
                    _ => (Err(Error::Closed), None),
                };
            }
            End::Lost(reason) => {
                self.connection = None;
                Err(Error::ConnectionLost { reason, execution: Some(Box::new(execution)) })
            }
            End::Died(reason) => {
                self.kernel_was_replaced();
                Err(Error::KernelDied { reason, execution: Some(Box::new(execution)) })
            }
            End::RestartAsked(done) => {
                let _ = done.send(self.restart().await);
                Err(Error::KernelDied {
                    reason: "it was restarted on request".to_owned(),
                    execution: Some(Box::new(execution)),
                })
            }
            End::CloseAsked(closer) => {
                self.abandon().await;
                return (Err(Error::Closed), Some(closer));
            }
        };
        (outcome, None)
    }
}
