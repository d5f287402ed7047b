//! The one task that serves a session: it owns the link, and does one thing after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::events::EventSender;
use super::link::{Gone, Link};
use super::open::DELETE_WITHIN;
use super::replies::Replies;
use super::unsettled::Unsettled;
use crate::config::RunOptions;
use crate::execution::Execution;
use crate::{Error, Result};

/// A piece of code to run, and whom to tell.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) code: String,
    pub(super) options: RunOptions,
    pub(super) cancel: CancellationToken,
    pub(super) events: Option<EventSender>,
    pub(super) replies: Replies,
    pub(super) done: oneshot::Sender<Result<Execution>>,
}

/// What is not a matter of waiting one's turn.
#[derive(Debug)]
pub(super) enum Control {
    Restart(oneshot::Sender<Result<()>>),
    /// The gateway is gone.
    Disconnect,
    /// Whom to tell is not there where the last handle of the session is gone.
    Close(Option<oneshot::Sender<()>>),
}

/// The queue of what does not wait its turn.
pub(super) struct Controls(pub(super) mpsc::UnboundedReceiver<Control>);

impl Controls {
    pub(super) async fn next(&mut self) -> Control {
        self.0.recv().await.unwrap_or(Control::Close(None))
    }
}

/// The session is to be closed, and whom to tell then.
pub(super) struct CloseAsked(pub(super) Option<oneshot::Sender<()>>);

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    pub(super) controls: Controls,
    pub(super) unsettled: Unsettled,
    jobs: mpsc::UnboundedReceiver<Job>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        jobs: mpsc::UnboundedReceiver<Job>,
        controls: mpsc::UnboundedReceiver<Control>,
    ) -> Self {
        Self {
            link: Link::new(Arc::clone(&shared)),
            shared,
            controls: Controls(controls),
            unsettled: Unsettled::default(),
            jobs,
        }
    }

    /// Serves until the session is closed or its last handle is gone.
    pub(super) async fn serve(mut self) {
        let CloseAsked(closer) = self.serve_until_close().await;
        self.shared.closed.store(true, Ordering::Release);
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            let _ = job.done.send(Err(Error::Closed));
        }
        // A kernel that is not ours to delete is left as it was found.
        if self.unsettled.ending.is_some() && !self.shared.owned {
            let _ = timeout(DELETE_WITHIN, self.link.interrupt()).await;
        }
        self.link.close().await;
        if let Some(closer) = closer {
            let _ = closer.send(());
        }
    }

    async fn serve_until_close(&mut self) -> CloseAsked {
        loop {
            tokio::select! {
                biased;
                control = self.controls.next() => match control {
                    Control::Restart(done) => self.restart(done).await,
                    Control::Disconnect => self.disconnect(),
                    Control::Close(done) => return CloseAsked(done),
                },
                Some(job) = self.jobs.recv() => {
                    if let Err(close) = self.execute(job).await {
                        return close;
                    }
                }
                () = idle(&mut self.unsettled, &mut self.link) => {}
            }
        }
    }

    /// Waits for nothing of the gateway any more.
    pub(super) fn disconnect(&mut self) {
        self.unsettled = Unsettled::default();
        self.link.disconnect();
    }

    /// Restarts the kernel on request.
    pub(super) async fn restart(&mut self, done: oneshot::Sender<Result<()>>) {
        self.unsettled = Unsettled::default();
        let _ = done.send(self.link.restart().await);
    }
}

/// What there is to do between two jobs. May be dropped and called again.
async fn idle(unsettled: &mut Unsettled, link: &mut Link) {
    if unsettled.has_work() {
        // What can't be done now is done, or told, when somebody wants something of the kernel.
        let _ = Box::pin(unsettled.settle(link)).await;
    } else if let Err(Gone::Suspected) = link.next().await {
        let _ = link.resolve().await;
        if link.take_unproven() {
            unsettled.require_proof();
        }
    }
    // What else comes while nothing runs concerns nobody; that it comes keeps the connection alive, and what is gone is
    // noted by the link.
}
