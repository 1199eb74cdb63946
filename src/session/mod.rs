//! Sessions: one per socket, and the only place where the live side and the history meet.
//!
//! [`upgrade`] turns an HTTP request into a [`socket`]; [`room`] and [`viewer`] are what is said on
//! it. [`sockets`] knows all open sockets and closes them at the end, [`sweep`] finds the dead ones; [`limits`]
//! and [`pace`] say how much of it one address or one socket may have. [`census`] tells the history who was here.

pub mod acks;
pub mod boundary;
pub mod census;
pub mod events;
pub mod limits;
pub mod meter;
pub mod pace;
pub mod room;
pub mod socket;
pub mod sockets;
pub mod sweep;
pub mod upgrade;
pub mod viewer;
pub mod watch_clock;

pub use limits::{Limits, TooMuch};
pub use socket::Socket;
pub use sockets::{Admission, ConnectionPermit, ListenPermit, Refused, Sockets};
pub use sweep::stall_limit;
pub use upgrade::{Handshake, UpgradeError, offered_token, offered_visitor};
pub use watch_clock::WatchClocks;

use std::time::Duration;

pub use crate::address::Address;
use crate::wire::MESSAGE_LIMIT;

/// What sessions are told by the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a visitor whose socket was lost stays present.
    pub leave_grace: Duration,
    /// How long the seats of those who were here when the hub stopped are held for them at the next start.
    pub seat_hold: Duration,
    /// A peer that was not heard for so long is pinged.
    pub ping_interval: Duration,
    /// The most sockets that may be open at once.
    pub max_connections: usize,
    /// The longest message that may come on one, in bytes: the protocol's, where that is what is spoken.
    pub message_limit: usize,
    /// What one address and one socket may do; none where rate limits are off.
    pub limits: Option<Limits>,
    /// The most bytes that may wait for all peers together.
    pub max_bytes_in_flight: usize,
    /// The most watch sessions that are measured, or wait for their clients to come back.
    pub watch_clocks: usize,
    /// The most bytes that are kept of all sockets together, besides their presence: pages, and what plays.
    pub live_state: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            leave_grace: Duration::from_secs(3),
            seat_hold: Duration::from_secs(15),
            ping_interval: Duration::from_secs(25),
            max_connections: 15_000,
            message_limit: MESSAGE_LIMIT,
            limits: Some(Limits::DEFAULT),
            max_bytes_in_flight: 64 * 1024 * 1024,
            watch_clocks: 100_000,
            live_state: 32 * 1024 * 1024,
        }
    }
}
