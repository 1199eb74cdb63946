//! Presence: who is in which room now. In memory only.
//!
//! Data flows one way: a session's [`Membership`] is a step on the room's [`state`], which the [`room`] publishes to its
//! subscribers by [`broadcast`]. The [`registry`] has all rooms and all [`hold`]s. [`accounting`] adds up presence for the
//! history; an [`audit`] recounts everything once a minute; [`activity`], [`summary`] and [`feed`] make the live activity.
//! This module knows neither history nor HTTP.

pub(crate) mod accounting;
pub(crate) mod activity;
pub(crate) mod audit;
pub(crate) mod broadcast;
pub(crate) mod expiry;
pub(crate) mod feed;
pub(crate) mod hold;
pub(crate) mod live_activity;
pub(crate) mod metrics;
pub(crate) mod registry;
pub(crate) mod room;
mod room_map;
pub(crate) mod state;
mod table;

pub(crate) use accounting::Sample;
pub(crate) use activity::VisitorActivity;
pub(crate) use feed::Feed;
pub(crate) use hold::{Hold, HoldReason};
pub(crate) use registry::{JoinError, Membership, Occupant, Registry};
pub(crate) use room::Snapshot;
pub(crate) use table::Samples;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::protocol::Vocabulary;

/// The settings of presence.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The moods that may be set.
    pub moods: Vocabulary,
    /// The most rooms at once.
    pub max_rooms: usize,
    /// The most rooms that one visitor may be in; none where rate limits are off.
    pub max_rooms_per_visitor: Option<u32>,
    /// How long a visitor whose last socket was lost stays present.
    pub leave_grace: Duration,
    /// How long after a stop of the hub its visitors are held at the next start.
    pub seat_hold: Duration,
}

impl Config {
    /// The default of [`Config::max_rooms_per_visitor`].
    pub const ROOMS_PER_VISITOR: NonZeroU32 = NonZeroU32::new(32).unwrap();
}

impl Default for Config {
    fn default() -> Self {
        Self {
            moods: Vocabulary::default(),
            max_rooms: 10_000,
            max_rooms_per_visitor: Some(Self::ROOMS_PER_VISITOR.get()),
            leave_grace: Duration::from_secs(3),
            seat_hold: Duration::from_secs(15),
        }
    }
}
