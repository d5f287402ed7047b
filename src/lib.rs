//! A client for Jupyter kernels behind a gateway, made for running the code of agents.
//!
//! # Layout
//!
//! - [`protocol`]: bytes to messages and back; pure, no I/O.
//! - [`execution`]: messages folded into an [`execution::Execution`]; pure, no I/O.
//! - [`gateway`]: the REST side: readiness, and the life of kernels.
//! - [`channel`]: one websocket to one kernel.
//! - [`proxy`], [`tls`]: what the two have in common on their way to the gateway.
//! - [`session`]: all of the above put together, by the one task that owns the websocket.
//! - `python`: the extension module, the only place that knows of Python.

#![warn(clippy::unwrap_used)]

pub mod channel;
pub mod config;
pub mod error;
pub mod execution;
pub mod gateway;
pub mod protocol;
pub mod proxy;
#[cfg(feature = "python")]
mod python;
pub mod session;
pub mod tls;

pub use error::{Error, Result};
