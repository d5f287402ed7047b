//! A kernel that runs code: the gateway's REST side, one websocket, and the folding of messages, put together.
//!
//! # Layout
//!
//! - `open`: from an endpoint to a kernel with an open websocket.
//! - `worker`: the one task that serves a session: requests in the order they were made.
//! - `link`: the way to the kernel, which the worker owns; `counts`: what it goes by when it takes up a lost one.
//! - `replay`: what it goes by where the kernel keeps what a lost one missed, since the gateway does not.
//! - `probe`: whether a new websocket hears what the kernel publishes.
//! - `execute`: one piece of code, from its request to its [`Execution`].
//! - `ending`: how running code is ended: interrupt, then restart; `sequel`: whether it has, where it does not say so.
//! - `lookout`: looks after a kernel that says nothing; `inquiry`: what is asked about it then.
//! - `proof`: whether a kernel still runs code, after an execution whose end it did not tell.
//! - `unsettled`: what of earlier executions comes before the next one.
//! - `events`: what is seen of an execution while it runs; `replies`: what is answered to code that asks for input.

mod counts;
mod ending;
mod events;
mod execute;
mod inquiry;
mod link;
mod lookout;
mod open;
mod probe;
mod proof;
mod replay;
mod replies;
mod sequel;
mod unsettled;
mod worker;

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use events::{InputRequest, StreamEvent};
pub use replies::{Replier, Reply};

use crate::config::{RunOptions, SessionConfig};
use crate::execution::Execution;
use crate::gateway::{Endpoint, GatewayClient};
use crate::{Error, Result};
use events::EventReceiver;
use replies::Replies;
use worker::{Control, Job};

/// A kernel, and the connection to it.
///
/// It can be used from many tasks at once: executions are served one after the other, in the order of
/// [`Session::start`]. When the last handle goes (a [`Running`] counts as one), the session closes.
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
    controls: mpsc::UnboundedSender<Control>,
}

/// What the session and its worker both look at.
#[derive(Debug)]
struct Shared {
    gateway: GatewayClient,
    config: SessionConfig,
    /// Another one when the gateway has given the kernel up and a new one was created.
    kernel_id: Mutex<Arc<str>>,
    /// The name of its specification, where the gateway says it.
    kernel_name: Option<String>,
    /// Whether the kernel was created here, and so is deleted here.
    owned: bool,
    /// How often its process had been replaced when that was last asked, where the gateway says so.
    restarts: Mutex<Option<u64>>,
    /// Counts how often the kernel's state was found lost.
    generation: AtomicU64,
    /// Whether the gateway keeps what a lost connection missed.
    journaled: AtomicBool,
    /// The generation of the kernel that is known to keep it, plus one; 0 for none.
    recorded: AtomicU64,
    /// The language of the kernel, once it has told it.
    language: OnceLock<String>,
    closed: AtomicBool,
}

impl Shared {
    fn keeps_record(&self) -> bool {
        self.recorded.load(Ordering::Acquire) == self.generation.load(Ordering::Acquire) + 1
    }

    fn kernel_id(&self) -> Arc<str> {
        Arc::clone(&self.kernel_id.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_kernel_id(&self, kernel_id: &str) {
        *self.kernel_id.lock().unwrap_or_else(PoisonError::into_inner) = kernel_id.into();
    }

    /// Whether the kernel is nobody else's, so that it may be restarted, and another one may take its place.
    fn may_replace(&self) -> bool {
        self.owned || self.config.owns_kernel
    }

    /// Notes how often the kernel's process was replaced; gives how often it was before.
    fn note_restarts(&self, restarts: Option<u64>) -> Option<u64> {
        mem::replace(&mut *self.restarts.lock().unwrap_or_else(PoisonError::into_inner), restarts)
    }
}

/// An execution under way. Dropping it cancels the execution: the kernel is interrupted, and what was asked for
/// after it waits until that has worked.
#[derive(Debug)]
pub struct Running {
    done: oneshot::Receiver<Result<Execution>>,
    events: Option<EventReceiver>,
    replier: Option<Replier>,
    /// Keeps the session open as long as somebody waits for this execution.
    _session: Session,
    cancel: CancellationToken,
}

impl Session {
    /// Waits until the gateway is ready, creates or finds the kernel, and connects to it. Must be called on a
    /// tokio runtime, which serves the session from then on.
    pub async fn open(endpoint: Endpoint, config: SessionConfig) -> Result<Self> {
        open::open(endpoint, config).await
    }

    /// The kernel's id on its gateway. A session that created its kernel creates another one, with another id, when
    /// the gateway has it no more: for an execution or a restart, and never in the middle of an execution.
    #[must_use]
    pub fn kernel_id(&self) -> Arc<str> {
        self.shared.kernel_id()
    }

    /// The gateway's base URL, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        self.shared.gateway.endpoint().url().as_str()
    }

    /// What it was told when it was opened.
    #[must_use]
    pub fn config(&self) -> &SessionConfig {
        &self.shared.config
    }

    /// A number that changes whenever the kernel's state was found lost: it was restarted, or it died.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether an execution goes on where it was when its connection is lost: the gateway keeps what is missed, or the
    /// kernel does, as [`Session::rely_on_record`] was told.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.shared.journaled.load(Ordering::Acquire) || self.shared.keeps_record()
    }

    /// Notes that the kernel of a generation keeps what it sends for executions (`kernel/replay.py`). Where the gateway
    /// does not, a lost connection is then survived.
    pub fn rely_on_record(&self, generation: u64) {
        self.shared.recorded.store(generation.saturating_add(1), Ordering::Release);
    }

    /// The name of the kernel's specification, such as `python3`; `None` where the gateway does not say.
    #[must_use]
    pub fn kernel_name(&self) -> Option<&str> {
        self.shared.kernel_name.as_deref()
    }

    /// The language that the kernel runs, as it says itself, such as `python`; `None` where it does not say.
    #[must_use]
    pub fn language(&self) -> Option<&str> {
        self.shared.language.get().map(String::as_str)
    }

    /// Whether the session was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Asks for an execution, which begins when those asked for earlier have ended.
    pub fn start(&self, code: String, options: RunOptions) -> Result<Running> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let (done, receiver) = oneshot::channel();
        let cancel = CancellationToken::new();
        let (sender, events, answers, replies) = if options.observe {
            let (sender, events) = events::channel(self.shared.config.limits);
            let (answers, replies) = replies::channel();
            (Some(sender), Some(events), Some(answers), replies)
        } else {
            (None, None, None, Replies::none())
        };
        let job = Job { code, options, cancel: cancel.clone(), events: sender, replies, done };
        self.jobs.send(job).map_err(|_| Error::Closed)?;
        Ok(Running { done: receiver, events, replier: answers, _session: self.clone(), cancel })
    }

    /// Runs code to its end.
    pub async fn run(&self, code: String, options: RunOptions) -> Result<Execution> {
        self.start(code, options)?.finish().await
    }

    /// Interrupts whatever the kernel runs, as Ctrl-C would.
    pub async fn interrupt(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        self.shared.gateway.interrupt_kernel(&self.shared.kernel_id()).await
    }

    /// Restarts the kernel: its state is gone, and an execution under way ends with [`Error::KernelDied`].
    pub async fn restart(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let (done, receiver) = oneshot::channel();
        self.controls.send(Control::Restart(done)).map_err(|_| Error::Closed)?;
        receiver.await.map_err(|_| Error::Closed)?
    }

    /// Gives the connection up, for who knows otherwise that the gateway is gone: what is under way ends with
    /// [`Error::ConnectionLost`] and what had arrived of it.
    pub fn disconnect(&self) {
        // A session that has ended has no connection.
        let _ = self.controls.send(Control::Disconnect);
    }

    /// Closes the connection, ends what is under way with [`Error::Closed`], and deletes the kernel if it was
    /// created here. A second call does nothing.
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        let (done, receiver) = oneshot::channel();
        if self.controls.send(Control::Close(Some(done))).is_ok() {
            // The sender is dropped unused where another call was first.
            let _ = receiver.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Running {
    /// What cancels the execution without dropping its handle.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// What answers its requests for input; `None` when it is not observed.
    #[must_use]
    pub fn replier(&self) -> Option<Replier> {
        self.replier.clone()
    }

    /// What is seen next of the execution; `None` when it has ended, or when it is not observed.
    pub async fn next_event(&mut self) -> Option<StreamEvent> {
        self.events.as_mut()?.next().await
    }

    /// Waits for the end. Events not taken are dropped; the [`Execution`] has everything.
    pub async fn finish(&mut self) -> Result<Execution> {
        self.events = None;
        (&mut self.done).await.unwrap_or(Err(Error::Closed))
    }
}
