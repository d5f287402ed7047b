//! Whether a new websocket hears what the kernel publishes.
//!
//! A gateway subscribes to a kernel's output when a websocket opens, and asks the kernel something to see that the
//! subscription works; but not where it takes the kernel for busy, as one that has just died while it ran code
//! (`nudge` in `jupyter_server`). What the next execution publishes is then lost, its end included. So we ask too.

use std::time::Duration;

use tokio::time::timeout;

use super::counts::Counts;
use crate::channel::{Broken, Connection};
use crate::protocol::{ChannelName, encode_request};

/// How long to wait for an answer at first, and in all: a kernel that says nothing on its output is let be. One that has
/// just been started has nothing else to do, and answers as soon as it can.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const PATIENCE_WITH_A_NEW_KERNEL: Duration = Duration::from_secs(30);

/// How long to wait between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Asks the kernel until something published in answer arrives, for `patience` at most; gives the session in which it was, if
/// any has.
///
/// # Errors
///
/// Why the connection is lost.
pub(super) async fn hear_the_kernel(
    connection: &mut Connection,
    counts: &mut Counts,
    session_id: &str,
    patience: Duration,
) -> Result<Option<String>, Broken> {
    // Sending is within the time, too: a peer may take nothing.
    timeout(patience, ask(connection, counts, session_id)).await.unwrap_or(Ok(None))
}

async fn ask(
    connection: &mut Connection,
    counts: &mut Counts,
    session_id: &str,
) -> Result<Option<String>, Broken> {
    let mut pause = FIRST_PAUSE;
    // Of this connection: a kernel takes no message twice, and what it answered before may come again.
    let name = format!("{session_id}_probe_{:08x}_", rand::random::<u32>());
    // The control channel does not queue behind running code; not every kernel answers on it.
    for (attempt, channel) in [ChannelName::Control, ChannelName::Shell].into_iter().cycle().enumerate() {
        let msg_id = format!("{name}{attempt}");
        let content = serde_json::json!({});
        let subprotocol = connection.subprotocol();
        let frame =
            encode_request(subprotocol, channel, "kernel_info_request", &msg_id, session_id, &content, &[])
                .map_err(|error| error.to_string())?;
        counts.sends(&frame);
        connection.send(frame).await?;
        if let Ok(heard) = timeout(pause, hear(connection, counts, &name)).await {
            return heard.map(Some);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(None)
}

/// Waits for something published in answer to any of our questions.
async fn hear(connection: &mut Connection, counts: &mut Counts, name: &str) -> Result<String, Broken> {
    loop {
        let message = connection.next().await?;
        counts.received += 1;
        if message.channel == ChannelName::Iopub && message.parent_id.starts_with(name) {
            return Ok(message.header.session.to_string());
        }
    }
}
