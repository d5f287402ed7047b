//! What a session can be told.

use std::time::Duration;

use bytes::Bytes;

use crate::execution::Limits;

/// How a session treats its kernel. The defaults suit an agent.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Attach to this kernel; without it a kernel is created, and deleted when the session closes.
    pub kernel_id: Option<String>,
    /// Whether the kernel of `kernel_id` is nobody else's: then it is restarted where it does not run code any more, and
    /// another one is created where its gateway has it no more. It is not deleted when the session closes.
    pub owns_kernel: bool,
    /// The kernel spec of a created kernel; without it the gateway's default.
    pub kernel_name: Option<String>,
    /// More root certificates, in PEM, beside the platform's.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// Whether a token may travel unencrypted, over `http://`, to a host that is not of a local network.
    pub allow_plain_http: bool,
    /// How long the gateway may take until it is ready, and then the kernel.
    pub connect_timeout: Duration,
    /// The timeout of an execution that names none; without it, none.
    pub timeout: Option<Duration>,
    /// How long code may take to end after an interrupt until the kernel is restarted.
    pub interrupt_grace: Duration,
    /// How long the gateway may stay silent, pings included.
    pub dead_peer_timeout: Duration,
    /// How long a lost connection may take to come back while code runs.
    pub reconnect_timeout: Duration,
    /// How much of an execution is kept.
    pub limits: Limits,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            kernel_id: None,
            owns_kernel: false,
            kernel_name: None,
            extra_ca_pem: None,
            allow_plain_http: false,
            connect_timeout: Duration::from_secs(60),
            timeout: None,
            interrupt_grace: Duration::from_secs(5),
            dead_peer_timeout: Duration::from_secs(15),
            reconnect_timeout: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }
}

/// How one piece of code is run. By default without a timeout, as a cell of a notebook that asks for nothing.
// Each flag is apart from the others.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// How long it may take; `None`: as long as it likes.
    pub timeout: Option<Duration>,
    /// Whether the kernel shall neither count nor announce it.
    pub silent: bool,
    /// Whether it goes into the kernel's history.
    pub store_history: bool,
    /// Whether its events are wanted while it runs.
    pub observe: bool,
    /// Whether `input()` in the code asks for input, or fails at once. Who observes gets the requests, and replies.
    pub allow_stdin: bool,
    /// The [generation](crate::session::Session::generation) of the kernel's state that it is for: with another it
    /// is not run. `None`: it runs with any.
    pub generation: Option<u64>,
    /// Binary attachments of the request, for code that looks for them.
    pub buffers: Vec<Bytes>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            timeout: None,
            silent: false,
            store_history: true,
            observe: false,
            allow_stdin: false,
            generation: None,
            buffers: Vec::new(),
        }
    }
}
