//! HTTP: the routes and their handlers.
//!
//! [`routes`] is the table of all routes, [`state`] what their handlers have. Handlers are grouped by what they read: [`rooms`]
//! and [`websocket`] presence, [`events`] the journal, [`stats`] the database, [`personal_data`] all that is stored of one
//! visitor, [`operate`] the state of the hub, [`pages`], [`assets`] and [`contract`] files. [`access`] and [`cors`] decide who
//! may do what.

pub(crate) mod access;
pub(crate) mod assets;
pub(crate) mod body;
pub(crate) mod bots;
pub(crate) mod contract;
pub(crate) mod cors;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod forwarded;
pub(crate) mod gate;
pub(crate) mod log_throttle;
pub(crate) mod metrics;
pub(crate) mod operate;
pub(crate) mod pages;
mod params;
pub(crate) mod personal_data;
pub(crate) mod rooms;
pub(crate) mod routes;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod websocket;

use axum::http::HeaderName;

pub(crate) use pages::FrameAncestors;
pub(crate) use stats::PublicProps;

use crate::auth::{Access, AllowedOrigins, PublicUrl};

/// The settings of HTTP.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// The admin token, of at least 16 bytes; without one, the hub makes a random one at start and logs it.
    pub admin_token: Option<String>,
    /// Access to the dashboard and its data: the history and the live activity.
    pub dashboard: Access,
    /// The properties of page views by which the history may be broken down without the admin token.
    pub public_props: PublicProps,
    /// Access to `/metrics`.
    pub metrics: Access,
    /// The origins whose pages may connect.
    pub allowed_origins: AllowedOrigins,
    /// The hub's own origin as browsers see it; without it, the request's `Host` counts.
    pub public_url: Option<PublicUrl>,
    /// The sites that may show the room page in a frame.
    pub frame_ancestors: FrameAncestors,
    /// The header with the client's address that the proxy in front sends; without one, the peer's address counts.
    pub client_ip_header: Option<HeaderName>,
}
