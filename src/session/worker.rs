//! The one task that owns the websocket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::events::EventSender;
use super::open::DELETE_WITHIN;
use crate::channel::{self, Connection, Keepalive, Target};
use crate::config::RunOptions;
use crate::error::Seconds;
use crate::execution::Execution;
use crate::protocol::{Content, ExecutionState, Message};
use crate::{Error, Result};

/// A piece of code to run, and whom to tell.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) code: String,
    pub(super) options: RunOptions,
    pub(super) cancel: CancellationToken,
    pub(super) events: Option<EventSender>,
    pub(super) done: oneshot::Sender<Result<Execution>>,
}

/// What is not a matter of waiting one's turn.
#[derive(Debug)]
pub(super) enum Control {
    Restart(oneshot::Sender<Result<()>>),
    Close(oneshot::Sender<()>),
}

/// What a message past the kept bounds may add: the parts of a message that are not kept.
const MESSAGE_OVERHEAD_BYTES: usize = 16 * 1024 * 1024;

/// How long a gateway is given to say goodbye.
const FAREWELL: Duration = Duration::from_millis(200);

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) controls: mpsc::UnboundedReceiver<Control>,
    pub(super) connection: Option<Connection>,
    /// The gateway keeps what it could not deliver for a client that comes back under the same id.
    session_id: String,
    messages_sent: u64,
    /// The kernel's own session id: another process has another one.
    kernel_session: Option<String>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        jobs: mpsc::UnboundedReceiver<Job>,
        controls: mpsc::UnboundedReceiver<Control>,
    ) -> Self {
        Self {
            shared,
            jobs,
            controls,
            connection: None,
            session_id: new_session_id(),
            messages_sent: 0,
            kernel_session: None,
        }
    }

    /// Serves until the session is closed or its last handle is gone.
    pub(super) async fn serve(mut self) {
        let closer = loop {
            tokio::select! {
                biased;
                control = self.controls.recv() => match control {
                    Some(Control::Restart(done)) => {
                        let _ = done.send(self.restart().await);
                    }
                    Some(Control::Close(done)) => break Some(done),
                    None => break None,
                },
                Some(job) = self.jobs.recv() => {
                    if let Some(closer) = self.execute(job).await {
                        break closer;
                    }
                }
                incoming = next_of(&mut self.connection) => self.heard_while_idle(incoming),
            }
        };
        self.close().await;
        if let Some(done) = closer {
            let _ = done.send(());
        }
    }

    /// Opens the websocket if there is none.
    pub(super) async fn connect(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            let shared = &self.shared;
            let endpoint = shared.gateway.endpoint();
            let target = Target {
                url: endpoint.channels(&shared.kernel_id, &self.session_id),
                authorization: endpoint.authorization(),
                tls: shared.gateway.tls(),
                kernel_id: shared.kernel_id.clone(),
            };
            let limits = &shared.config.limits;
            let connection = channel::connect(
                &target,
                Keepalive { dead_after: shared.config.dead_peer_timeout },
                limits.output_bytes.max(limits.result_bytes).saturating_add(MESSAGE_OVERHEAD_BYTES),
                shared.config.connect_timeout,
            )
            .await?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or(Error::Closed)
    }

    /// An id for the next message, and the id of the session that sends it.
    pub(super) fn next_message_id(&mut self) -> (String, &str) {
        self.messages_sent += 1;
        (format!("{}_{}", self.session_id, self.messages_sent), &self.session_id)
    }

    /// Restarts the kernel by way of the gateway.
    pub(super) async fn restart(&mut self) -> Result<()> {
        self.kernel_was_replaced();
        let restart = self.shared.gateway.restart_kernel(&self.shared.kernel_id);
        timeout(self.shared.config.connect_timeout, restart).await.map_err(|_| Error::Gateway {
            operation: "restarting the kernel",
            reason: format!(
                "the gateway did not answer within {}",
                Seconds(self.shared.config.connect_timeout)
            ),
        })?
    }

    /// Notes that the kernel is another process than before.
    fn state_is_lost(&mut self) {
        self.kernel_session = None;
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that the gateway has put another kernel in the place of one that died. What the old one said must not
    /// be replayed.
    pub(super) fn kernel_was_replaced(&mut self) {
        self.connection = None;
        self.session_id = new_session_id();
        self.state_is_lost();
    }

    /// Notes who replied: a kernel that was replaced while nobody listened gives itself away here.
    pub(super) fn heard_from(&mut self, kernel_session: &str) {
        if kernel_session.is_empty() || self.kernel_session.as_deref() == Some(kernel_session) {
            return;
        }
        if self.kernel_session.is_some() {
            self.state_is_lost();
        }
        self.kernel_session = Some(kernel_session.to_owned());
    }

    fn heard_while_idle(&mut self, incoming: Result<Message, String>) {
        match incoming {
            Ok(message) if death_notice(&message).is_none() => {}
            Ok(_) => self.kernel_was_replaced(),
            Err(_) => self.connection = None,
        }
    }

    async fn close(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            let _ = job.done.send(Err(Error::Closed));
        }
        if let Some(connection) = self.connection.take() {
            connection.close(FAREWELL).await;
        }
        if self.shared.owned {
            let _ = timeout(DELETE_WITHIN, self.shared.gateway.delete_kernel(&self.shared.kernel_id)).await;
        }
    }
}

/// What comes in; forever pending without a connection.
async fn next_of(connection: &mut Option<Connection>) -> Result<Message, String> {
    match connection {
        Some(connection) => connection.next().await,
        None => std::future::pending().await,
    }
}

/// The gateway's own word that the kernel's process has ended. It answers no request, so it has no parent; what
/// has one comes from the kernel and may be forged by the code that runs there.
pub(super) fn death_notice(message: &Message) -> Option<&'static str> {
    if !message.parent_id.is_empty() || message.header.msg_type != "status" {
        return None;
    }
    match Content::decode(message) {
        Content::Status { execution_state: ExecutionState::Restarting } => {
            Some("its process ended, and the gateway has started a new one")
        }
        Content::Status { execution_state: ExecutionState::Dead } => {
            Some("its process ended, and the gateway could not start a new one")
        }
        _ => None,
    }
}

fn new_session_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
