//! The way to the kernel: the websocket, opened when it is needed, and what is known of who is at its other end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::Shared;
use super::open::DELETE_WITHIN;
use crate::channel::{self, Connection, Keepalive, Target};
use crate::error::Seconds;
use crate::protocol::{Content, ExecutionState, Frame, Message, Subprotocol};
use crate::{Error, Result};

/// What a message past the kept bounds may add: the parts of a message that are not kept.
const MESSAGE_OVERHEAD_BYTES: usize = 16 * 1024 * 1024;

/// How long a gateway is given to say goodbye.
const FAREWELL: Duration = Duration::from_millis(200);

/// What can be wrong with the other end.
#[derive(Debug)]
pub(super) enum Gone {
    /// The connection is lost, and why.
    Lost(String),
    /// The gateway says that the kernel's process has ended.
    Died(&'static str),
}

pub(super) struct Link {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// The gateway keeps what it could not deliver for a client that comes back under the same id.
    session_id: String,
    messages_sent: u64,
    /// The kernel's own session id: another process has another one.
    kernel_session: Option<String>,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            connection: None,
            session_id: new_session_id(),
            messages_sent: 0,
            kernel_session: None,
        }
    }

    /// Opens the websocket if there is none.
    pub(super) async fn connect(&mut self) -> Result<Subprotocol> {
        if let Some(connection) = &self.connection {
            return Ok(connection.subprotocol());
        }
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
        let subprotocol = connection.subprotocol();
        self.connection = Some(connection);
        Ok(subprotocol)
    }

    /// An id for the next message, and the id of the session that sends it.
    pub(super) fn next_message_id(&mut self) -> (String, &str) {
        self.messages_sent += 1;
        (format!("{}_{}", self.session_id, self.messages_sent), &self.session_id)
    }

    pub(super) async fn send(&mut self, frame: Frame) -> Result<(), Gone> {
        let sent = match &mut self.connection {
            Some(connection) => connection.send(frame).await,
            None => Err("it is not open".to_owned()),
        };
        sent.map_err(|reason| self.lost(reason))
    }

    /// The next message of the kernel; without a connection there never is one. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Message, Gone> {
        let Some(connection) = &mut self.connection else { return std::future::pending().await };
        match connection.next().await {
            Ok(message) => match death_notice(&message) {
                None => Ok(message),
                Some(reason) => {
                    self.kernel_was_replaced();
                    Err(Gone::Died(reason))
                }
            },
            Err(reason) => Err(self.lost(reason)),
        }
    }

    fn lost(&mut self, reason: String) -> Gone {
        self.connection = None;
        Gone::Lost(reason)
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

    /// Notes that the kernel is another process than before.
    fn state_is_lost(&mut self) {
        self.kernel_session = None;
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that another kernel is in the place of the one before. What that one said must not be replayed.
    fn kernel_was_replaced(&mut self) {
        self.connection = None;
        self.session_id = new_session_id();
        self.state_is_lost();
    }

    /// Restarts the kernel by way of the gateway.
    pub(super) async fn restart(&mut self) -> Result<()> {
        self.kernel_was_replaced();
        let patience = self.shared.config.connect_timeout;
        let restart = self.shared.gateway.restart_kernel(&self.shared.kernel_id);
        timeout(patience, restart).await.map_err(|_| Error::Gateway {
            operation: "restarting the kernel",
            reason: format!("the gateway did not answer within {}", Seconds(patience)),
        })?
    }

    /// Asks the gateway to interrupt the kernel; a refusal shows in the code going on.
    pub(super) fn interrupt(&self, patience: Duration) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            let _ = timeout(patience, shared.gateway.interrupt_kernel(&shared.kernel_id)).await;
        }
    }

    /// Closes the connection, and deletes the kernel if it is ours.
    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close(FAREWELL).await;
        }
        if self.shared.owned {
            let _ = timeout(DELETE_WITHIN, self.shared.gateway.delete_kernel(&self.shared.kernel_id)).await;
        }
    }
}

/// The gateway's own word that the kernel's process has ended. It answers no request, so it has no parent; what
/// has one comes from the kernel and may be forged by the code that runs there.
fn death_notice(message: &Message) -> Option<&'static str> {
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
