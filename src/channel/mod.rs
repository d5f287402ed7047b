//! One websocket to one kernel.
//!
//! # Layout
//!
//! - `connect`: TCP, a proxy's tunnel, TLS and the upgrade, with the errors of each told apart.
//! - `quick_ack`: the TCP stream underneath, which acknowledges at once.
//! - `connection`: frames in and out, and whether the peer is still there.

mod connect;
mod connection;
mod quick_ack;

pub use connect::{Resumption, Target, connect};
pub use connection::{Broken, Connection, Keepalive};
