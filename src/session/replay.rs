//! What a kernel keeps of an execution for a connection that breaks, where the gateway keeps no journal.
//!
//! The kernel's side is `kernel/replay.py`. Once the connection is there again, the kernel is asked on the control
//! channel, which it answers while code runs, for what came after the last message of each channel, and what of ours
//! has not come. What arrives meanwhile is held until it has answered. All of it comes from the kernel: it may lie, and is
//! bounded.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::protocol::{ChannelName, Frame, Message, Subprotocol, encode_request};

const QUESTION: &str = "sandkernel_replay_request";
const ANSWER: &str = "sandkernel_replay_reply";

/// How much is kept of what the kernel may not have received.
const SENT_BYTES: usize = 32 << 20;
/// How long the kernel may take with its answer, while nothing comes, until the connection is replaced: a stock gateway
/// that had two in a short time may give one's messages to the other. The time is doubled each time.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// How often a kernel that answers otherwise may leave the question unanswered.
const MOST_UNANSWERED: usize = 3;

/// How much may come while the kernel has not answered.
const HELD_BYTES: usize = 64 << 20;
/// How many messages may be replayed in one execution: more than the kernel keeps.
const MOST_REPLAYED: usize = 1 << 20;
/// The channels that have something to be replayed.
const CHANNELS: [ChannelName; 3] = [ChannelName::Iopub, ChannelName::Shell, ChannelName::Stdin];

/// An execution that survives its connection.
#[derive(Debug)]
pub(super) struct Replay {
    /// The id of its request.
    parent: String,
    /// The id of the last message of each channel.
    last: [String; CHANNELS.len()],
    /// What was sent for it, with the ids of what the kernel takes only once.
    sent: VecDeque<(Option<String>, Frame)>,
    sent_bytes: usize,
    /// What of it is to be sent again.
    outgoing: VecDeque<Frame>,
    question: Option<Question>,
    questions: usize,
    /// How long the kernel may take with its answer.
    wait: Duration,
    /// How often it left the question unanswered, though it answered another one.
    unanswered: usize,
    /// Messages to be taken before any that comes.
    ready: VecDeque<Message>,
    /// The ids of what was replayed, which may come in the usual way, too.
    replayed: HashSet<u64>,
    hasher: RandomState,
}

/// What the kernel was asked.
#[derive(Debug)]
struct Question {
    id: String,
    /// How many frames it asks after, of those noted; the others wait for the answer.
    asked: usize,
    /// What has come of the execution since.
    held: Vec<Message>,
    held_bytes: usize,
    /// Until when something has to come.
    deadline: Instant,
    /// Whether the kernel answers what it answers when no code runs.
    free: bool,
}

/// Why an execution can't go on.
#[derive(Debug)]
pub(super) enum Refused {
    /// The kernel of this session id does not know what it was asked.
    Unknown(String),
    /// What it says is of no use, and why.
    Useless(String),
}

impl From<&str> for Refused {
    fn from(reason: &str) -> Self {
        Self::Useless(reason.to_owned())
    }
}

#[derive(Serialize)]
struct QuestionContent<'a> {
    parent: &'a str,
    after: HashMap<&'static str, &'a str>,
    sent: Vec<&'a str>,
}

#[derive(Deserialize)]
struct AnswerContent {
    missing: Vec<String>,
    overrun: bool,
    last: bool,
}

impl Replay {
    /// Of an execution that is about to be asked for.
    pub(super) fn new(parent: &str) -> Self {
        Self {
            parent: parent.to_owned(),
            last: Default::default(),
            sent: VecDeque::new(),
            sent_bytes: 0,
            outgoing: VecDeque::new(),
            question: None,
            questions: 0,
            wait: ANSWER_WITHIN,
            unanswered: 0,
            ready: VecDeque::new(),
            replayed: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// Notes a frame that is about to be sent, or has to wait for its turn: [`Replay::is_behind`]. Without an id, one
    /// that may well be sent twice.
    pub(super) fn sends(&mut self, msg_id: Option<&str>, frame: &Frame) {
        self.sent.push_back((msg_id.map(str::to_owned), frame.clone()));
        self.sent_bytes += frame.len();
        if self.question.is_none() && !self.outgoing.is_empty() {
            self.outgoing.push_back(frame.clone());
        }
        self.let_go();
    }

    /// Whether something of before may have to be sent again, and what is sent now comes after it.
    pub(super) fn is_behind(&self) -> bool {
        self.question.is_some() || !self.outgoing.is_empty()
    }

    /// Keeps no more than the last of what was sent; all of it while some of it may not have been.
    fn let_go(&mut self) {
        if self.is_behind() {
            return;
        }
        while self.sent_bytes > SENT_BYTES && self.sent.len() > 1 {
            let oldest = self.sent.pop_front();
            self.sent_bytes -= oldest.map_or(0, |(_, frame)| frame.len());
        }
    }

    /// What a new connection is to be sent: the question, and what shows that it is not answered.
    pub(super) fn ask(&mut self, subprotocol: Subprotocol, session_id: &str) -> crate::Result<Vec<Frame>> {
        self.questions += 1;
        let id = format!("{}_replay_{}", self.parent, self.questions);
        let content = QuestionContent {
            parent: &self.parent,
            after: CHANNELS.iter().zip(&self.last).map(|(name, id)| (name.as_str(), id.as_str())).collect(),
            sent: self.sent.iter().filter_map(|(id, _)| id.as_deref()).collect(),
        };
        // By names of their own: a kernel takes no message twice.
        let info = |channel: ChannelName| {
            let (id, content) = (format!("{id}_{}", channel.as_str()), serde_json::json!({}));
            encode_request(subprotocol, channel, "kernel_info_request", &id, session_id, &content, &[])
        };
        let question =
            encode_request(subprotocol, ChannelName::Control, QUESTION, &id, session_id, &content, &[])?;
        let frames = vec![question, info(ChannelName::Control)?, info(ChannelName::Shell)?];
        self.outgoing.clear();
        let deadline = Instant::now() + self.wait;
        self.question = Some(Question {
            id,
            asked: self.sent.len(),
            held: Vec::new(),
            held_bytes: 0,
            deadline,
            free: false,
        });
        Ok(frames)
    }

    /// Until when something has to come.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.question.as_ref()?.deadline)
    }

    /// Notes that nothing came. Whether it is to be tried on another connection.
    pub(super) fn try_again(&mut self) -> bool {
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        self.unanswered += usize::from(self.question.as_ref().is_some_and(|question| question.free));
        self.unanswered < MOST_UNANSWERED
    }

    /// What is to be sent now. It is sent again where it can't be told whether it was: [`Replay::went_out`].
    pub(super) fn outgoing(&self) -> Option<Frame> {
        self.outgoing.front().cloned()
    }

    /// Notes that the first of what is to be sent has been sent.
    pub(super) fn went_out(&mut self) {
        self.outgoing.pop_front();
        self.let_go();
    }

    /// The next message that was replayed, or held.
    pub(super) fn ready(&mut self) -> Option<Message> {
        let message = self.ready.pop_front()?;
        self.note(&message);
        Some(message)
    }

    /// Looks at a message that came; gives it back where it is neither held nor there already.
    ///
    /// # Errors
    ///
    /// Why the execution can't go on.
    pub(super) fn take(&mut self, message: Message) -> Result<Option<Message>, Refused> {
        if let Some(question) = &mut self.question {
            question.deadline = Instant::now() + self.wait;
        }
        if message.parent_id == self.parent {
            if let Some(question) = &mut self.question {
                question.held_bytes = question.held_bytes.saturating_add(message.frame_bytes);
                if question.held_bytes > HELD_BYTES {
                    return Err("the kernel did not say what was missed, and goes on with more".into());
                }
                question.held.push(message);
                return Ok(None);
            }
            if self.was_replayed(&message) {
                return Ok(None);
            }
            self.note(&message);
            return Ok(Some(message));
        }
        let Some(question) = &mut self.question else { return Ok(Some(message)) };
        match (message.channel, message.parent_id.strip_prefix(question.id.as_str())) {
            (ChannelName::Control, Some("")) if message.header.msg_type == ANSWER => {
                self.answered(&message)?;
                Ok(None)
            }
            (ChannelName::Control, Some("_control")) => {
                Err(Refused::Unknown(message.header.session.to_string()))
            }
            (ChannelName::Shell, Some("_shell")) => {
                question.free = true;
                Ok(None)
            }
            _ => Ok(Some(message)),
        }
    }

    /// Takes an answer: what was missed comes before what is held.
    fn answered(&mut self, answer: &Message) -> Result<(), Refused> {
        let content: AnswerContent = serde_json::from_slice(&answer.content)
            .map_err(|error| Refused::Useless(format!("the kernel's record of it is malformed: {error}")))?;
        if content.overrun {
            return Err("more has come of it since than the kernel keeps, so the outcome is not known".into());
        }
        for buffer in &answer.buffers {
            let Ok(mut message) = Message::decode(Subprotocol::V1, &Frame::Binary(buffer.clone())) else {
                continue;
            };
            let belongs = message.parent_id == self.parent && CHANNELS.contains(&message.channel);
            if !belongs || !self.replayed.insert(self.hasher.hash_one(message.header.msg_id.as_bytes())) {
                continue;
            }
            if self.replayed.len() > MOST_REPLAYED {
                return Err("the kernel's record of it has no end".into());
            }
            // It keeps all of the answer in memory.
            message.frame_bytes = answer.frame_bytes;
            self.ready.push_back(message);
        }
        if content.last
            && let Some(question) = self.question.take()
        {
            let missing: HashSet<&str> = content.missing.iter().map(String::as_str).collect();
            let is_missing = |id: &Option<String>| id.as_ref().is_none_or(|id| missing.contains(id.as_str()));
            let noted = self.sent.iter().enumerate();
            let unsent = noted.filter(|(place, (id, _))| *place >= question.asked || is_missing(id));
            self.outgoing = unsent.map(|(_, (_, frame))| frame.clone()).collect();
            self.let_go();
            for message in question.held {
                if !self.was_replayed(&message) {
                    self.ready.push_back(message);
                }
            }
        }
        Ok(())
    }

    fn was_replayed(&self, message: &Message) -> bool {
        !self.replayed.is_empty()
            && self.replayed.contains(&self.hasher.hash_one(message.header.msg_id.as_bytes()))
    }

    /// Notes a message that is taken.
    fn note(&mut self, message: &Message) {
        if let Some(place) = CHANNELS.iter().position(|channel| *channel == message.channel) {
            self.last[place].clear();
            self.last[place].push_str(&message.header.msg_id);
        }
    }
}
