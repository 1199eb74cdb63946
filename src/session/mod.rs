//! Sessions: one per socket, and the only place where the live side and the history meet.
//!
//! [`upgrade`] turns an HTTP request into a [`socket`]; [`room`] and [`viewer`] are what is said on
//! it. [`sockets`] knows all open sockets, finds the dead ones, and closes all at the end. [`census`] tells
//! the history who was here.

pub mod acks;
pub mod boundary;
pub mod census;
pub mod events;
pub mod meter;
pub mod room;
pub mod socket;
pub mod sockets;
pub mod upgrade;
pub mod viewer;
pub mod watch_clock;

pub use socket::Socket;
pub use sockets::{Admission, Refused, Sockets};
pub use upgrade::{Handshake, UpgradeError, offered_token};
pub use watch_clock::WatchClocks;

use std::time::Duration;

/// What sessions are told by the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a visitor whose socket was lost stays present.
    pub leave_grace: Duration,
    /// A peer that was not heard for so long is pinged.
    pub ping_interval: Duration,
    /// The most sockets that may be open at once.
    pub max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            leave_grace: Duration::from_secs(3),
            ping_interval: Duration::from_secs(25),
            max_connections: 15_000,
        }
    }
}
