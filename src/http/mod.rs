//! HTTP: the routes and their handlers.
//!
//! [`routes`] is the table of all routes, [`state`] what their handlers have. Handlers are grouped by what they read: [`rooms`],
//! [`websocket`] and [`cluster`] presence, [`events`] the journal, [`stats`] the database, [`personal_data`] all that is stored of one
//! visitor, [`operate`] the state of the hub, [`pages`], [`assets`] and [`contract`] files. [`access`] and [`cors`] decide who
//! may do what.

pub(crate) mod access;
pub(crate) mod assets;
pub(crate) mod body;
pub(crate) mod bots;
pub(crate) mod cluster;
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
mod replica;
pub(crate) mod rooms;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod websocket;

pub(crate) use settings::Config;
pub(crate) use settings::{FrameAncestors, Mode};
