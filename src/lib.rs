//! `breathing-room`: a self-hosted, real-time presence hub.
//!
//! Each visitor of a breathing room holds one WebSocket. Everybody sees, live, how many visitors are present and in what
//! moods. What they looked at and watched is kept as history. Presence is the open socket: there are no heartbeats, live
//! state is in memory, and the database gets one batch for each flush.
//!
//! ```text
//!             browser ⇄ socket
//!                  │
//!    http ──► session ──► presence: registry ─► room ─► broadcast to every subscriber
//!                  │                                       (newest state only)
//!                  └────► history:  journal ─► flush ─► store (SQLite) ─► stats ─► http
//! ```
//!
//! To run a hub on a listener of its own inside another program:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = breathing_room::Config::default();
//! config.history.database_url = "sqlite://data/hub.db".to_owned();
//! let listener = breathing_room::listen("127.0.0.1:8080".parse()?)?;
//! let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
//! breathing_room::serve(listener, config, shutdown).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Server::router`] puts it under a path of an axum program instead (`examples/embed.rs`). What an embedder must know:
//!
//! - `default-features = false` leaves out the feature `cli`, and with it clap, csv, indicatif and tracing-subscriber.
//!   The feature `embed` lets sockets work in `axum::serve`.
//! - The hub isolates panics of sessions and requests, which needs `panic = "unwind"` (the default). With `abort`, each
//!   of them ends the process.
//! - Dropping the future of [`serve`] stops the hub at once: sockets end without a close frame, and pending events are
//!   lost. Resolve `shutdown` and wait for the result instead.
//! - It spawns its tasks on the tokio runtime of the caller. Each hub needs a database of its own.

// No panic on input: the lints in Cargo.toml, and this one, which clippy.toml cannot turn off for tests.
#![cfg_attr(not(test), deny(clippy::string_slice))]
// Dead and unreachable code is looked for with all features, as in CI: `cli` and `internals` reach more of it.
#![cfg_attr(
    not(all(feature = "cli", feature = "internals")),
    allow(dead_code, unreachable_pub, unused_imports)
)]
#![cfg_attr(feature = "internals", allow(private_bounds, private_interfaces))]

mod address;
mod address_rate;
mod auth;
#[cfg(feature = "cli")]
mod cli;
mod cluster;
pub mod config;
mod derived_key;
mod error_page;
mod history;
mod http;
mod panics;
mod presence;
mod private;
mod protocol;
mod quota;
mod rejections;
mod server;
mod session;
mod sync;
mod time;
mod transport;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::main;
pub use config::Config;
pub use server::{ServeError, Server, serve};
pub use transport::accept::listen;

/// What the tests, the fuzz targets and the examples use besides the public face. It is no stable interface.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::auth::keys::TokenKey;
    pub use crate::auth::token::{BadToken, Claims, Tokens};
    pub use crate::cluster::memory::{Network, Policy};
    pub use crate::cluster::update::rewrite_update;
    pub use crate::history::event::{
        Actor, Batch, Event, PageViewEvent, RoomSample, TotalSample, WatchEvent,
    };
    pub use crate::history::journal::JournalMonitor;
    pub use crate::history::lifecycle::plan::quarters_from;
    pub use crate::history::log::message::{is_same_when_rewritten, log_message_of};
    pub use crate::history::record::Record;
    pub use crate::history::stats::StatsQuery;
    pub use crate::history::stats::window::{Window, Zone};
    pub use crate::history::status::JournalStatus;
    pub use crate::history::store::Store;
    pub use crate::history::store::commit::Changes;
    pub use crate::http::contract::{ASYNCAPI, OPENAPI};
    pub use crate::http::error::ApiError;
    pub use crate::http::events::{PostParams, parse_events};
    pub use crate::http::stats::StatsParams;
    pub use crate::http::websocket::JoinParams;
    pub use crate::panics::Panics;
    pub use crate::presence::audit::audit;
    pub use crate::presence::registry::Registry;
    pub use crate::presence::room::Room;
    pub use crate::protocol::code::{CloseCode, ErrorCode};
    pub use crate::protocol::frame::Frame;
    pub use crate::protocol::ids::{RoomId, VisitorId};
    pub use crate::protocol::message::{ClientMessage, PageView, Ref, ServerMessage, Watch, WatchState};
    pub use crate::protocol::mood::DEFAULT_MOODS;
    pub use crate::protocol::parse::ParseError;
    pub use crate::protocol::value::{BoundedText, Props};
    pub use crate::rejections::Rejections;
    pub use crate::transport::accept::{AcceptConfig, Acceptor};
    pub use crate::transport::frame_tracker::FrameTracker;
    pub use crate::transport::metrics::TransportMetrics;
    pub use crate::transport::socket::{Socket, SocketInput};
    pub use crate::transport::sockets::Sockets;
    pub use crate::transport::sweep::{self, stall_limit};
    pub use crate::transport::upgrade::{Handshake, Upgraded};
    pub use crate::transport::writer::SocketWriter;
}
