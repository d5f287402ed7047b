//! One piece of code, from its request to its [`Execution`].

use std::mem;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::ending::{Ending, Stopped};
use super::events::EventSender;
use super::link::{Gone, Link};
use super::lookout::{Lookout, Sight};
use super::replies::{Replies, Reply};
use super::sequel::Sequel;
use super::unsettled::Unsettled;
use super::worker::{CloseAsked, Control, Controls, Job, Worker};
use crate::config::RunOptions;
use crate::error::Aftermath;
use crate::execution::{Event, Execution, Fold};
use crate::protocol::{ChannelName, ExecuteRequest, InputReply, Message, Subprotocol, encode_request};
use crate::{Error, Result};

/// How long a caller whose time is over waits for a gateway that does not even take the interrupt.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);

const GATEWAY_GONE: &str = "the gateway is gone";

const REPLACED: &str = "another process has taken its place";

/// An execution that is being asked of the kernel.
pub(super) struct Asked {
    code: String,
    options: RunOptions,
    events: Option<EventSender>,
    replies: Replies,
    /// The id of the request; empty until it is sent.
    msg_id: String,
    /// What it was sent in; the gateway keeps to it.
    subprotocol: Subprotocol,
    pub(super) fold: Fold,
    /// Whether the kernel has said more than that it is busy with it.
    begun: bool,
    sequel: Sequel,
    lookout: Lookout,
    started: Instant,
}

/// Why nobody waits for the end of an execution any more.
enum Interruption {
    Cancelled,
    TimedOut(Duration),
    RestartAsked(oneshot::Sender<Result<()>>),
    Disconnected,
    CloseAsked(CloseAsked),
}

impl Asked {
    /// Whether the kernel may be working on it.
    fn was_sent(&self) -> bool {
        !self.msg_id.is_empty()
    }

    /// Whether the kernel neither counts nor announces it.
    pub(super) fn is_silent(&self) -> bool {
        self.options.silent
    }

    /// Whether the kernel is seen to be working on it.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Sends the request once nothing of before runs any more, and takes what comes until the execution is complete.
    async fn perform(&mut self, unsettled: &mut Unsettled, link: &mut Link) -> Result<(), Failure> {
        if !unsettled.is_settled() {
            // Boxed, as it is large and rare.
            Box::pin(unsettled.settle(link)).await.map_err(Failure::NotAsked)?;
        }
        let subprotocol = link.connect().await.map_err(Failure::NotAsked)?;
        if self.options.generation.is_some_and(|wanted| wanted != link.generation()) {
            return Err(Failure::NotAsked(Error::StateLost));
        }
        let (msg_id, session_id) = link.next_message_id();
        let content = ExecuteRequest {
            silent: self.options.silent,
            store_history: self.options.store_history,
            allow_stdin: self.options.allow_stdin,
            ..ExecuteRequest::new(&self.code)
        };
        let frame = encode_request(
            subprotocol,
            ChannelName::Shell,
            "execute_request",
            &msg_id,
            session_id,
            &content,
            &mem::take(&mut self.options.buffers),
        )
        .map_err(Failure::NotAsked)?;
        self.msg_id = msg_id;
        self.subprotocol = subprotocol;
        link.protect(&self.msg_id);
        let watched = match link.send_once(&self.msg_id, frame).await {
            Ok(()) => self.watch(link).await,
            Err(gone) => Err(gone),
        };
        match watched {
            Ok(()) => Ok(()),
            Err(gone) => Err(Failure::Gone(link.examine(gone).await)),
        }
    }

    /// Takes what comes, and sends what is replied to it, until the execution is complete, or until it is known that
    /// it never will be.
    async fn watch(&mut self, link: &mut Link) -> Result<(), Gone> {
        let generation = link.generation();
        while !self.fold.is_complete() {
            if self.sequel.is_answered() && (self.sequel.is_over() || self.lookout.is_silent()) {
                // Who asked for something in between has had the kernel restarted.
                if link.generation() != generation {
                    return Err(Gone::Died(REPLACED));
                }
                if self.fold.is_half() || self.sequel.is_answered_in_turn() {
                    break;
                }
            }
            tokio::select! {
                biased;
                reply = self.replies.next(), if !link.is_lost() => self.send_reply(&reply, link).await?,
                message = link.next_uninterrupted() => match message {
                    Ok(message) => self.take(&message, link),
                    Err(Gone::Suspected) => self.lookout.ask_instead(link.compare()),
                    Err(Gone::Interrupted) => Box::pin(link.recover()).await?,
                    Err(gone) => return Err(gone),
                },
                sight = self.lookout.next() => match sight {
                    Sight::Found(finding) => link.conclude(finding)?,
                    Sight::Tick => if self.lookout.is_due(self.fold.is_half()) {
                        self.lookout.ask(link.look());
                        if !self.sequel.is_answered() {
                            self.send_sequel(link).await?;
                        }
                    },
                },
            }
        }
        Ok(())
    }

    /// Takes what comes, and sends what is replied to it, until the execution has ended, where it is being ended. May
    /// be dropped and called again.
    pub(super) async fn attend(&mut self, link: &mut Link) -> Result<(), Gone> {
        while !self.fold.is_complete() && !self.sequel.is_over() {
            tokio::select! {
                biased;
                reply = self.replies.next(), if !link.is_lost() => self.send_reply(&reply, link).await?,
                message = link.next_uninterrupted() => match message {
                    Ok(message) => self.take(&message, link),
                    // It ends all the same; before the next one, it is found out.
                    Err(Gone::Suspected) => {}
                    Err(Gone::Interrupted) => Box::pin(link.recover()).await?,
                    Err(gone) => return Err(gone),
                },
            }
        }
        Ok(())
    }

    async fn send_reply(&mut self, Reply { value, buffers }: &Reply, link: &mut Link) -> Result<(), Gone> {
        let (msg_id, session_id) = link.next_message_id();
        let frame = encode_request(
            self.subprotocol,
            ChannelName::Stdin,
            "input_reply",
            &msg_id,
            session_id,
            &InputReply { value },
            buffers,
        );
        match frame {
            Ok(frame) => link.send_once(&msg_id, frame).await,
            // It is larger than any websocket takes: the code goes on waiting.
            Err(_) => Ok(()),
        }
    }

    /// Asks the kernel for something that it gets to when it is done with the code.
    pub(super) async fn send_sequel(&mut self, link: &mut Link) -> Result<(), Gone> {
        self.sequel.send(self.subprotocol, link).await
    }

    /// Forgets that the kernel was asked: some answer while they run code.
    pub(super) fn forget_sequel(&mut self) {
        self.sequel = Sequel::default();
    }

    /// Whether the kernel is known to be done with the code, though not all of its output may have come.
    pub(super) fn has_ended(&self) -> bool {
        self.fold.is_complete() || self.sequel.is_answered()
    }

    /// Takes a message if it belongs here.
    fn take(&mut self, message: &Message, link: &mut Link) {
        if message.parent_id != self.msg_id {
            if self.sequel.take(message) {
                self.lookout.heard();
                if message.channel == ChannelName::Shell {
                    link.heard_from(&message.header.session);
                }
            }
            return;
        }
        self.lookout.heard();
        if message.channel == ChannelName::Shell {
            link.heard_from(&message.header.session);
        }
        self.begun |= message.header.msg_type != "status";
        self.fold.push(message, &mut tell(self.events.as_ref()));
    }

    /// Gives what has come of it until now; what comes later is nobody's.
    fn finish(&mut self) -> Execution {
        self.fold.tell_error(&mut tell(self.events.as_ref()));
        (self.events, self.replies) = (None, Replies::none());
        self.fold.finish(self.started.elapsed())
    }
}

/// Sends on what a fold tells, where somebody listens.
fn tell(events: Option<&EventSender>) -> impl FnMut(Event<'_>) {
    move |event| {
        if let Some(events) = events {
            events.send(event);
        }
    }
}

/// Why an execution has no end of its own.
enum Failure {
    /// The kernel was never asked.
    NotAsked(Error),
    /// The kernel can't be heard any more.
    Gone(Gone),
}

impl Worker {
    /// Runs a job to its end.
    ///
    /// # Errors
    ///
    /// The session is to be closed.
    pub(super) async fn execute(&mut self, job: Job) -> Result<(), CloseAsked> {
        let Job { code, options, cancel, events, replies, done } = job;
        if cancel.is_cancelled() {
            return Ok(());
        }
        let fold = Fold::new(self.shared.config.limits);
        let timeout = options.timeout;
        let mut asked = Asked {
            code,
            options,
            events,
            replies,
            msg_id: String::new(),
            subprotocol: Subprotocol::V1,
            fold,
            begun: false,
            sequel: Sequel::default(),
            lookout: Lookout::new(),
            started: Instant::now(),
        };
        let deadline = timeout.and_then(|timeout| Some((asked.started.checked_add(timeout)?, timeout)));
        let ended = tokio::select! {
            // A kernel that floods must not keep the others from being heard.
            biased;
            interruption = interruption(&mut self.controls, &cancel, deadline) => Err(interruption),
            performed = asked.perform(&mut self.unsettled, &mut self.link) => Ok(performed),
        };
        if matches!(ended, Ok(Ok(()))) && !asked.fold.is_complete() {
            asked.fold.end_unanswered();
            self.unsettled.require_proof();
        }
        if self.link.take_unproven() {
            self.unsettled.require_proof();
        }
        let outcome = match ended {
            Ok(performed) => Ok(outcome(asked, performed)),
            // Boxed, as it is large and rare.
            Err(interruption) => Box::pin(self.end(asked, interruption)).await,
        };
        if self.unsettled.ending.is_none() {
            self.link.unprotect();
        }
        // An observer has seen the end of its stream when it finds the outcome: what holds its other end is gone by now.
        let (outcome, close) = match outcome {
            Ok(outcome) => (outcome, Ok(())),
            Err(close) => (Err(Error::Closed), Err(close)),
        };
        let _ = done.send(outcome);
        close
    }

    /// What the caller gets of an execution that was interrupted. What may go on in the kernel is left to be ended.
    async fn end(
        &mut self,
        mut asked: Asked,
        interruption: Interruption,
    ) -> Result<Result<Execution>, CloseAsked> {
        let was_sent = asked.was_sent();
        match interruption {
            Interruption::TimedOut(timeout) if was_sent => {
                return self.stop(Ending::new(asked), timeout).await;
            }
            Interruption::TimedOut(timeout) => {
                Ok(Err(Error::ExecutionTimeout { timeout, aftermath: Aftermath::NotRun, execution: None }))
            }
            Interruption::Cancelled => {
                (asked.events, asked.replies) = (None, Replies::none());
                self.unsettled.ending = was_sent.then(|| Box::new(Ending::unattended(asked)));
                Ok(Err(Error::Closed))
            }
            Interruption::RestartAsked(done) => {
                self.restart(done).await;
                let reason = "it was restarted on request".to_owned();
                Ok(Err(Error::KernelDied { reason, execution: Some(Box::new(asked.finish())) }))
            }
            Interruption::Disconnected => {
                self.disconnect();
                let execution = was_sent.then(|| Box::new(asked.finish()));
                Ok(Err(Error::ConnectionLost { reason: GATEWAY_GONE.to_owned(), execution }))
            }
            Interruption::CloseAsked(close) => {
                self.unsettled.ending = was_sent.then(|| Box::new(Ending::unattended(asked)));
                Err(close)
            }
        }
    }

    /// Ends an execution that took too long. Where the gateway does not even take the interrupt, the caller does not
    /// wait for it.
    async fn stop(&mut self, mut ending: Ending, limit: Duration) -> Result<Result<Execution>, CloseAsked> {
        let generation = self.link.generation();
        let stopping = async {
            match timeout(ANSWER_WITHIN, ending.proceed(&mut self.link)).await {
                Ok(stopped) => Some(stopped),
                Err(_) if ending.is_heard() => Some(ending.proceed(&mut self.link).await),
                Err(_) => None,
            }
        };
        let stopped = tokio::select! {
            biased;
            control = self.controls.next() => match control {
                Control::Restart(done) => {
                    self.restart(done).await;
                    Some(Stopped::Restarted)
                }
                Control::Disconnect => {
                    self.disconnect();
                    Some(Stopped::Failed(GATEWAY_GONE.to_owned()))
                }
                Control::Close(closer) => {
                    self.unsettled.ending = Some(Box::new(ending));
                    return Err(CloseAsked(closer));
                }
            },
            stopped = stopping => stopped,
        };
        let execution = Some(Box::new(ending.asked.finish()));
        let aftermath = match stopped {
            // What answered was not what ran the code.
            Some(Stopped::Interrupted) if self.link.generation() != generation => {
                return Ok(Err(Error::KernelDied { reason: REPLACED.to_owned(), execution }));
            }
            Some(Stopped::Interrupted) => {
                if !ending.asked.fold.is_complete() {
                    self.unsettled.require_proof();
                }
                Aftermath::Interrupted
            }
            Some(Stopped::Restarted) => Aftermath::Restarted,
            Some(Stopped::Died(reason)) => {
                return Ok(Err(Error::KernelDied { reason: reason.to_owned(), execution }));
            }
            Some(Stopped::Failed(reason)) => {
                return Ok(Err(Error::ConnectionLost { reason, execution }));
            }
            None => {
                self.unsettled.ending = Some(Box::new(ending));
                Aftermath::Unknown
            }
        };
        Ok(Err(Error::ExecutionTimeout { timeout: limit, aftermath, execution }))
    }
}

/// Waits for what ends an execution from outside.
async fn interruption(
    controls: &mut Controls,
    cancel: &CancellationToken,
    deadline: Option<(Instant, Duration)>,
) -> Interruption {
    let timed_out = async {
        match deadline {
            Some((deadline, timeout)) => {
                sleep_until(deadline).await;
                timeout
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Interruption::Cancelled,
        timeout = timed_out => Interruption::TimedOut(timeout),
        control = controls.next() => match control {
            Control::Restart(done) => Interruption::RestartAsked(done),
            Control::Disconnect => Interruption::Disconnected,
            Control::Close(closer) => Interruption::CloseAsked(CloseAsked(closer)),
        },
    }
}

/// What the caller gets of an execution that was not interrupted.
fn outcome(mut asked: Asked, performed: Result<(), Failure>) -> Result<Execution> {
    match performed {
        Ok(()) => Ok(asked.finish()),
        Err(Failure::NotAsked(error)) => Err(error),
        Err(Failure::Gone(Gone::Lost(reason))) => {
            Err(Error::ConnectionLost { reason, execution: Some(Box::new(asked.finish())) })
        }
        Err(Failure::Gone(gone)) => {
            let reason = if let Gone::Died(reason) = gone { reason } else { REPLACED }.to_owned();
            Err(Error::KernelDied { reason, execution: Some(Box::new(asked.finish())) })
        }
    }
}
