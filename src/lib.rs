//! A client for Jupyter kernels behind a gateway, made for running the code of agents.
//!
//! # Layout
//!
//! - [`protocol`]: bytes to messages and back; pure, no I/O.
//! - [`execution`]: messages folded into an [`execution::Execution`]; pure, no I/O.
//! - [`gateway`]: the REST side: readiness, and the life of kernels.
//! - [`channel`]: one websocket to one kernel, owned by one task.
//! - [`session`]: the five above put together.
//! - `python`: the extension module, the only place that knows of Python.

pub mod error;
pub mod execution;
pub mod gateway;
pub mod protocol;
pub mod tls;

pub use error::{Error, Result};
