//! What a message says, by its type.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;

use super::json::{entries, lines, members, scalar, text};
use super::message::Message;

/// How many MIME types of one display are looked at.
const MAX_MIME_TYPES: usize = 64;
/// How much of a language's name is taken, in characters: the kernel can say anything.
const LANGUAGE_LENGTH: usize = 64;
/// How many lines of a traceback are looked at, half at its beginning and half at its end.
const MAX_TRACEBACK_LINES: usize = 1024;

/// One of the two output streams of running code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Output on a stream of any other name is taken for standard output rather than lost.
    fn parse(name: &str) -> Self {
        if name == "stderr" { Self::Stderr } else { Self::Stdout }
    }
}

/// What a kernel says it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionState {
    /// It works on the parent request.
    Busy,
    /// It is done with the parent request.
    Idle,
    /// It has just been started.
    Starting,
    /// It died, and the gateway starts it again.
    Restarting,
    /// It died, and stays so.
    Dead,
    /// None of these.
    Other,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyStatus {
    /// The code ran to its end.
    Ok,
    /// The code raised.
    Error,
    /// The code was not run.
    Aborted,
}

/// An exception, as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorContent {
    /// The exception's type.
    pub ename: String,
    /// The exception's text.
    pub evalue: String,
    /// The traceback, with the colours of a terminal.
    pub traceback: Vec<String>,
    /// How many lines are left out in the middle of `traceback`.
    pub omitted_lines: usize,
}

/// A result or something displayed: one thing in several formats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Display {
    /// MIME types and values in the order they came; each value is still JSON, a slice of the frame.
    pub data: Vec<(String, Bytes)>,
    /// The metadata, as JSON; empty where there is none.
    pub metadata: Bytes,
    /// By what later updates refer to it.
    pub display_id: Option<String>,
}

/// The content of a message, for the types that matter to running code.
///
/// A field that is absent or of another type than it should be has its empty value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// `stream`: output.
    Stream {
        /// Where it was written to.
        name: StreamName,
        /// What was written.
        text: Cow<'a, str>,
    },
    /// `display_data`: something displayed.
    DisplayData(Display),
    /// `update_display_data`: new data for what was displayed under the same id.
    UpdateDisplayData(Display),
    /// `execute_result`: the value of the last expression.
    ExecuteResult {
        /// The value.
        display: Display,
        /// The number of the execution.
        execution_count: Option<u64>,
    },
    /// `error`: the exception that ended the code.
    Error(ErrorContent),
    /// `execute_reply`: the end of the execution.
    ExecuteReply {
        /// What came of it.
        status: ReplyStatus,
        /// The number of the execution.
        execution_count: Option<u64>,
        /// The exception; empty unless `status` is [`ReplyStatus::Error`].
        error: ErrorContent,
    },
    /// `status`: what the kernel is doing.
    Status {
        /// What it is doing.
        execution_state: ExecutionState,
    },
    /// `clear_output`: what was displayed so far is to be cleared.
    ClearOutput {
        /// Whether only when the next output arrives.
        wait: bool,
    },
    /// `input_request`: the code waits for input.
    InputRequest {
        /// What to show to whom is asked.
        prompt: String,
        /// Whether what is typed should not be shown.
        password: bool,
    },
    /// `execute_input`: the code that the kernel begins to run.
    ExecuteInput {
        /// The number of the execution.
        execution_count: Option<u64>,
    },
    /// `kernel_info_reply`: what the kernel is.
    KernelInfoReply {
        /// The name of its implementation, such as `ipython`.
        implementation: String,
        /// The name of the language that it runs, such as `python`: short, without control characters, and
        /// empty where it tells none.
        language: String,
    },
    /// Any other message.
    Other,
}

/// A `stream` message as it nearly always is; the type that is read a million times.
#[derive(Deserialize)]
struct UsualStream<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl<'a> Content<'a> {
    /// Decodes the content of a message.
    #[must_use]
    pub fn decode(message: &'a Message) -> Self {
        let content = &message.content;
        match message.header.msg_type.as_ref() {
            "stream" => stream(content),
            "display_data" => Self::DisplayData(display(content)),
            "update_display_data" => Self::UpdateDisplayData(display(content)),
            "execute_result" => {
                Self::ExecuteResult { display: display(content), execution_count: execution_count(content) }
            }
            "error" => Self::Error(error(content)),
            "execute_reply" => execute_reply(content),
            "status" => Self::Status { execution_state: execution_state(content) },
            "clear_output" => {
                let [wait] = members(content, ["wait"]);
                Self::ClearOutput { wait: scalar(wait.as_ref()).unwrap_or_default() }
            }
            "input_request" => {
                let [prompt, password] = members(content, ["prompt", "password"]);
                Self::InputRequest {
                    prompt: string(prompt),
                    password: scalar(password.as_ref()).unwrap_or_default(),
                }
            }
            "execute_input" => Self::ExecuteInput { execution_count: execution_count(content) },
            "kernel_info_reply" => kernel_info_reply(content),
            _ => Self::Other,
        }
    }
}

fn stream(content: &Bytes) -> Content<'_> {
    if let Ok(UsualStream { name, text }) = serde_json::from_slice(content) {
        return Content::Stream { name: StreamName::parse(&name), text };
    }
    let [name, text] = members(content, ["name", "text"]);
    Content::Stream { name: StreamName::parse(&string(name)), text: string(text).into() }
}

fn display(content: &Bytes) -> Display {
    let [data, metadata, transient] = members(content, ["data", "metadata", "transient"]);
    let [display_id] = members(&transient.unwrap_or_default(), ["display_id"]);
    Display {
        data: entries(&data.unwrap_or_default(), MAX_MIME_TYPES),
        metadata: metadata.unwrap_or_default(),
        display_id: display_id.and_then(|id| text(&id)),
    }
}

fn error(content: &Bytes) -> ErrorContent {
    let [ename, evalue, traceback] = members(content, ["ename", "evalue", "traceback"]);
    let (traceback, omitted_lines) = lines(&traceback.unwrap_or_default(), MAX_TRACEBACK_LINES);
    ErrorContent { ename: string(ename), evalue: string(evalue), traceback, omitted_lines }
}

fn execute_reply(content: &Bytes) -> Content<'static> {
    let [status] = members(content, ["status"]);
    let status = match string(status).as_str() {
        "error" => ReplyStatus::Error,
        "aborted" | "abort" => ReplyStatus::Aborted,
        _ => ReplyStatus::Ok,
    };
    let error = if status == ReplyStatus::Error { error(content) } else { ErrorContent::default() };
    Content::ExecuteReply { status, execution_count: execution_count(content), error }
}

fn kernel_info_reply(content: &Bytes) -> Content<'static> {
    let [implementation, language_info] = members(content, ["implementation", "language_info"]);
    let [name] = members(&language_info.unwrap_or_default(), ["name"]);
    let language: String =
        string(name).trim().chars().filter(|letter| !letter.is_control()).take(LANGUAGE_LENGTH).collect();
    Content::KernelInfoReply { implementation: string(implementation), language }
}

fn execution_state(content: &Bytes) -> ExecutionState {
    let [state] = members(content, ["execution_state"]);
    match string(state).as_str() {
        "busy" => ExecutionState::Busy,
        "idle" => ExecutionState::Idle,
        "starting" => ExecutionState::Starting,
        "restarting" | "autorestarting" => ExecutionState::Restarting,
        "dead" => ExecutionState::Dead,
        _ => ExecutionState::Other,
    }
}

fn execution_count(content: &Bytes) -> Option<u64> {
    let [count] = members(content, ["execution_count"]);
    scalar(count.as_ref())
}

fn string(json: Option<Bytes>) -> String {
    json.and_then(|json| text(&json)).unwrap_or_default()
}
