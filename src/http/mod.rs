//! HTTP: the only part that knows all others, and the only one that nobody knows.
//!
//! [`server`] opens and ends everything, and [`accept`] takes connections in; [`routes`] is the table of what there is; the
//! handlers stand in files by whom they ask: [`live`] and [`sockets`] the memory, [`events`] the journal,
//! [`stats`] the database, [`visitors`] all that is kept of one person, [`operate`] the machine room,
//! [`pages`], [`assets`] and [`contract`] nobody. Who may ask at all is said in [`admission`] and [`origins`].

pub mod accept;
pub mod admission;
pub mod app;
pub mod assets;
pub mod body;
pub mod bots;
pub mod contract;
#[cfg(target_os = "linux")]
mod defer;
pub mod descriptors;
pub mod error;
mod etag;
pub mod events;
pub mod forwarded;
pub mod hourly;
pub mod limits;
pub mod live;
pub mod meter;
pub mod operate;
pub mod origins;
pub mod pages;
pub mod routes;
pub mod seats;
pub mod server;
pub mod sockets;
pub mod stats;
pub mod visitors;

use axum::http::HeaderName;

pub use descriptors::Descriptors;
pub use origins::{AllowedOrigins, PublicUrl};
pub use pages::FrameAncestors;
pub use server::{ServeError, Server, listen, serve};
pub use stats::PublicProps;

/// What HTTP is told by the configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The admin's token; without one, a random one is made at start and logged.
    pub admin_token: Option<String>,
    /// Who may see the dashboard, and what it shows: the history and the live activity.
    pub dashboard: Audience,
    /// By which properties everybody may break page views down who may see the history.
    pub public_props: PublicProps,
    /// Who may see `/metrics`.
    pub metrics: Audience,
    /// From which sites browsers may come.
    pub allowed_origins: AllowedOrigins,
    /// The hub's own address as browsers see it; without it, pages of the host that was asked for are its own.
    pub public_url: Option<PublicUrl>,
    /// Who may show the room page in a frame.
    pub frame_ancestors: FrameAncestors,
    /// The header in which a proxy tells whose request it is; without one, the peer's address counts.
    pub client_ip_header: Option<HeaderName>,
    /// How many files the process may have open, where that was asked.
    pub descriptors: Option<Descriptors>,
}

/// Who may see something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Audience {
    /// Everybody.
    #[default]
    Public,
    /// Whoever has the admin token.
    Admin,
}
