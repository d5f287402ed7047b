//! Questions about a kernel that are not put to the connection in use: whether its gateway still has it, and whether
//! it is still the same process.
//!
//! Code in the kernel can publish in the gateway's name that the kernel is being restarted. So that is believed only
//! where the gateway says so over REST, as ours do, or where another process answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Shared;
use super::counts::Counts;
use super::link::{FAREWELL, new_session_id, open_websocket};
use super::probe::{PATIENCE, hear_the_kernel};
use crate::channel::Deadlines;
use crate::{Error, Result};

/// How long the gateway has for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a process has to show that it is the kernel: it may just be starting.
const IDENTIFY_WITHIN: Duration = Duration::from_secs(15);

/// A front that does not know the way to the gateway for a moment gives the same status as a kernel that is gone: how
/// long after the first such answer the gateway is asked again.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// What became of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is what it was.
    Unchanged,
    /// The gateway has it no more.
    Missing,
    /// Another process is in its place.
    Replaced,
    /// There was no answer.
    Unknown,
}

/// Whether the gateway still has the kernel.
pub(super) async fn look(shared: Arc<Shared>) -> Finding {
    for pause in [Duration::ZERO, SECOND_LOOK] {
        sleep(pause).await;
        match timeout(ANSWER_WITHIN, shared.gateway.get_kernel(&shared.kernel_id())).await {
            Ok(Err(Error::KernelNotFound { .. })) => {}
            Ok(Ok(_)) => return Finding::Unchanged,
            Ok(Err(_)) | Err(_) => return Finding::Unknown,
        }
    }
    Finding::Missing
}

/// Whether the kernel is another process than the one that published in `session`.
pub(super) async fn compare(shared: Arc<Shared>, session: Option<String>) -> Finding {
    match timeout(ANSWER_WITHIN, shared.gateway.get_kernel(&shared.kernel_id())).await {
        Ok(Err(Error::KernelNotFound { .. })) => return look(shared).await,
        Ok(Ok(kernel)) => {
            let before = shared.note_restarts(kernel.restarts);
            if let (Some(before), Some(now)) = (before, kernel.restarts) {
                return if before == now { Finding::Unchanged } else { Finding::Replaced };
            }
        }
        Ok(Err(_)) | Err(_) => {}
    }
    let Some(session) = session else { return Finding::Unknown };
    let identified = async {
        loop {
            match identify(&shared).await {
                Ok(None) => {}
                identified => break identified,
            }
        }
    };
    match timeout(IDENTIFY_WITHIN, identified).await {
        Ok(Ok(Some(found))) if found == session => Finding::Unchanged,
        Ok(Ok(Some(_))) => Finding::Replaced,
        Ok(Err(Error::KernelNotFound { .. })) => look(shared).await,
        Ok(_) | Err(_) => Finding::Unknown,
    }
}

/// The session in which the kernel publishes, asked on a connection of its own.
async fn identify(shared: &Shared) -> Result<Option<String>> {
    let session_id = new_session_id();
    let deadlines = Deadlines::once(shared.config.connect_timeout);
    let (mut connection, _) = open_websocket(shared, &session_id, (0, 0), deadlines).await?;
    let heard = hear_the_kernel(&mut connection, &mut Counts::default(), &session_id, PATIENCE, true).await;
    connection.close(FAREWELL).await;
    match heard {
        Ok(heard) => Ok(heard.session),
        Err(broken) => Err(Error::ConnectionLost { reason: broken.to_string(), execution: None }),
    }
}
