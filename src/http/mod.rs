//! HTTP: the routes and their handlers.
//!
//! [`routes`] is the table of all routes. Handlers are grouped by what they read: [`rooms`] and [`websocket`] presence,
//! [`events`] the journal, [`stats`] the database, [`personal_data`] all that is stored of one visitor, [`operate`] the
//! state of the hub, [`pages`], [`assets`] and [`contract`] files. [`extract`] and [`cors`] decide who may do what.

pub(crate) mod app;
pub(crate) mod assets;
pub(crate) mod body;
pub(crate) mod bots;
pub(crate) mod contract;
pub(crate) mod cors;
pub(crate) mod error;
mod etag;
pub(crate) mod events;
pub(crate) mod extract;
pub(crate) mod forwarded;
pub(crate) mod log_throttle;
pub(crate) mod metrics;
pub(crate) mod operate;
pub(crate) mod pages;
pub(crate) mod personal_data;
pub(crate) mod rooms;
pub(crate) mod routes;
pub(crate) mod stats;
pub(crate) mod websocket;

use axum::http::HeaderName;

pub(crate) use pages::FrameAncestors;
pub(crate) use stats::PublicProps;

use crate::auth::{Access, AllowedOrigins, PublicUrl};

/// What HTTP is told by the configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The admin's token; without one, a random one is made at start and logged.
    pub admin_token: Option<String>,
    /// Who may see the dashboard, and what it shows: the history and the live activity.
    pub dashboard: Access,
    /// By which properties everybody may break page views down who may see the history.
    pub public_props: PublicProps,
    /// Who may see `/metrics`.
    pub metrics: Access,
    /// From which sites browsers may come.
    pub allowed_origins: AllowedOrigins,
    /// The hub's own address as browsers see it; without it, pages of the host that was asked for are its own.
    pub public_url: Option<PublicUrl>,
    /// Who may show the room page in a frame.
    pub frame_ancestors: FrameAncestors,
    /// The header in which a proxy tells whose request it is; without one, the peer's address counts.
    pub client_ip_header: Option<HeaderName>,
}
