//! The REST side of a kernel gateway.
//!
//! # Layout
//!
//! - [`Endpoint`]: where the gateway is, and the token for it, which travels as [`Authorization`] says; every URL is made
//!   here.
//! - [`GatewayClient`]: the life of kernels, one method for each verb; readiness in a file of its own.
//! - `answer`, `failure`, `resolve`: what came back, bounded and quoted; what did not, told apart; the names.
//! - `xsrf`: what a server without a token asks for instead.

mod answer;
mod authorization;
mod client;
mod endpoint;
mod failure;
mod kernel;
mod readiness;
mod resolve;
mod xsrf;

pub use authorization::Authorization;
pub use client::GatewayClient;
pub use endpoint::{Endpoint, Token};
pub use kernel::{KernelInfo, KernelSpecs};
