//! Whether a new websocket hears what the kernel publishes, and what the kernel says of itself.
//!
//! A gateway subscribes to a kernel's output when a websocket opens, and asks the kernel something to see that the
//! subscription works; but not where it takes the kernel for busy, as one that has just died while it ran code
//! (`nudge` in `jupyter_server`). What the next execution publishes is then lost, its end included. So we ask too.

use std::time::Duration;

use tokio::time::timeout;

use super::counts::Counts;
use crate::channel::{Broken, Connection};
use crate::protocol::{ChannelName, Content, encode_request};

/// How long to wait for an answer at first, and in all: a kernel that says nothing on its output is let be. One that has
/// just been started has nothing else to do, and answers as soon as it can.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const PATIENCE_WITH_A_NEW_KERNEL: Duration = Duration::from_secs(30);

/// How long to wait between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many questions a kernel that is heard has to say what it is; it replies at once, if ever.
const QUESTIONS_FOR_A_REPLY: u32 = 3;

/// What is known of a kernel.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The session in which it publishes; `None` where nothing was heard.
    pub(super) session: Option<String>,
    /// The language that it runs; `None` where it did not reply, empty where it tells none.
    pub(super) language: Option<String>,
}

/// Asks the kernel until something published in answer arrives, for `patience` at most.
///
/// The reply to the same question tells the language. It comes within a moment of what is published, before or after; it is
/// waited for where the language is not `known`.
///
/// # Errors
///
/// Why the connection is lost.
pub(super) async fn hear_the_kernel(
    connection: &mut Connection,
    counts: &mut Counts,
    session_id: &str,
    patience: Duration,
    known: bool,
) -> Result<Heard, Broken> {
    let mut heard = Heard::default();
    // Sending is within the time, too: a peer may take nothing.
    timeout(patience, ask(connection, counts, session_id, known, &mut heard)).await.unwrap_or(Ok(()))?;
    Ok(heard)
}

async fn ask(
    connection: &mut Connection,
    counts: &mut Counts,
    session_id: &str,
    known: bool,
    heard: &mut Heard,
) -> Result<(), Broken> {
    let mut pause = FIRST_PAUSE;
    let mut questions_since = 0;
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
        if let Ok(outcome) = timeout(pause, hear(connection, counts, &name, known, heard)).await {
            return outcome;
        }
        questions_since += u32::from(heard.session.is_some());
        if questions_since == QUESTIONS_FOR_A_REPLY {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// Waits for something published in answer to any of our questions and, where the language is not known, for a reply.
async fn hear(
    connection: &mut Connection,
    counts: &mut Counts,
    name: &str,
    known: bool,
    heard: &mut Heard,
) -> Result<(), Broken> {
    while heard.session.is_none() || !(known || heard.language.is_some()) {
        let message = connection.next().await?;
        counts.received += 1;
        if !message.parent_id.starts_with(name) {
            continue;
        }
        if message.channel == ChannelName::Iopub {
            heard.session = Some(message.header.session.to_string());
        } else if let Content::KernelInfoReply { language, .. } = Content::decode(&message) {
            heard.language = Some(language);
        }
    }
    Ok(())
}
