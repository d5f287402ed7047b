//! One websocket to one kernel.
//!
//! # Layout
//!
//! - `connect`: TCP, a proxy's tunnel, TLS and the upgrade, with the errors of each told apart.
//! - `handshake`: the upgrade itself, read as servers and proxies write it.
//! - `pieces`: a large message as it is sent again, which each new connection goes on with.
//! - `quick_ack`, `traffic`: the TCP stream underneath, which acknowledges at once, and what is known of its bytes.
//! - `connection`: frames in and out, and whether the peer is still there.

mod connect;
mod connection;
mod handshake;
pub mod pieces;
mod quick_ack;
mod traffic;

pub use connect::{Deadlines, Resumption, Target, connect};
pub use connection::{Broken, Connection, Keepalive};
