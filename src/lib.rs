//! `breathing-room`: a self-hosted presence hub.
//!
//! People who sit together in a breathing room hold a WebSocket; everybody sees, live, how many are
//! present and in what moods. What they looked at and watched is kept as history. Presence is the open
//! socket: there are no heartbeats, live state is in memory, and the database sees one batch per flush,
//! however many people are there.
//!
//! ```text
//!             browser ⇄ socket
//!                  │
//!    http ──► session ──► live:    presence ─► room ─► frame to every member
//!                  │                              (newest state wins)
//!                  └────► history: journal ─► flush ─► store (SQLite) ─► stats ─► http
//! ```
//!
//! The modules in reading order. Up to `session` each imports only those above it, and `live` and `history` do not
//! know each other (`tests/hub/layers.rs` holds that):
//!
//! - [`wire`]: the words that go over the network;
//! - [`clock`]: wall time and monotonic time, which tests set;
//! - [`panics`]: whom a panic takes along, and where it is counted;
//! - [`address`]: where a request or a socket comes from;
//! - [`quota`]: how much of a shared resource one address may hold;
//! - [`token`]: who may come in where, and until when;
//! - [`live`]: who is here now;
//! - [`history`]: what happened;
//! - [`session`]: one per socket, where both meet;
//! - [`http`]: the server and its routes;
//! - [`command`]: what is done with the history in between: check, export, import;
//! - [`config`]: flags and environment, parsed into a section for each part.
//!
//! To run a hub inside another program:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = breathing_room::listen("127.0.0.1:8080".parse()?)?;
//! let config = breathing_room::config::Config::default();
//! let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
//! breathing_room::serve(listener, config, shutdown).await?;
//! # Ok(())
//! # }
//! ```

// No panic on input: the lints in Cargo.toml, and this one, which clippy.toml cannot turn off for tests.
#![cfg_attr(not(test), deny(clippy::string_slice))]

pub mod address;
pub mod clock;
pub mod command;
pub mod config;
pub mod history;
pub mod http;
pub mod live;
pub mod panics;
pub mod private;
pub mod quota;
pub mod session;
mod sync;
pub mod token;
pub mod wire;

pub use http::{ServeError, Server, listen, serve};
