//! Connections: from `accept(2)` to an open WebSocket and its end.
//!
//! [`accept`] accepts TCP connections and serves HTTP on them, [`upgrade`] turns a request into a [`socket`], which reads
//! messages; [`writer`] is the one owner of its writes. [`sockets`] has all open sockets and closes them at a graceful
//! shutdown; [`sweep`] finds half-open and stalled ones. [`limits`] and [`rate`] are the rate limits of one address and
//! of one socket. This module does not know rooms or the history.

pub(crate) mod accept;
#[cfg(target_os = "linux")]
mod defer;
pub(crate) mod descriptors;
mod fair_queue;
pub(crate) mod frame_tracker;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod rate;
mod rejection;
pub(crate) mod socket;
pub(crate) mod sockets;
pub mod sweep;
pub(crate) mod upgrade;
pub(crate) mod writer;

use std::time::Duration;

pub(crate) use accept::PeerAddress;
pub(crate) use descriptors::Descriptors;
pub(crate) use limits::{LimitExceeded, Limits};
pub(crate) use socket::Socket;
pub(crate) use sockets::{AdmitError, FeedPermit, SitLimit, SitPermit, Sockets};
pub(crate) use sweep::stall_limit;
pub(crate) use upgrade::{Handshake, UpgradeError, offered_token, offered_visitor};

use crate::protocol::MESSAGE_LIMIT;

/// The settings of connections and sockets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The hub pings a peer from which no byte came for this long.
    pub ping_interval: Duration,
    /// The most open sockets.
    pub max_connections: usize,
    /// The longest message of a client, in bytes.
    pub message_limit: usize,
    /// The limits of one address and one socket; none if rate limits are off.
    pub limits: Option<Limits>,
    /// The most bytes of request bodies in memory, and the most unsent bytes of all sockets.
    pub max_bytes_in_flight: usize,
    /// The process's limit of open files, if it is known.
    pub descriptors: Option<Descriptors>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            max_connections: 15_000,
            message_limit: MESSAGE_LIMIT,
            limits: Some(Limits::DEFAULT),
            max_bytes_in_flight: 64 * 1024 * 1024,
            descriptors: None,
        }
    }
}
