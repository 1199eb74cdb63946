//! Presence: which visitors are in which rooms now. In memory only.
//!
//! A session's [`Membership`] changes the [`state`] of its room, and the [`room`] publishes it to its subscribers by
//! [`broadcast`]. The [`registry`] has all rooms, and all [`hold`]s and sits. [`accounting`] measures presence for the history, and
//! an [`audit`] recounts everything once a minute. [`activity`], [`live_activity`] and [`feed`] report the pages and
//! contents of visitors. This module imports neither history nor HTTP.

pub(crate) mod accounting;
pub(crate) mod activity;
pub(crate) mod audit;
pub(crate) mod broadcast;
pub(crate) mod clustered;
pub(crate) mod coverage;
pub(crate) mod elsewhere;
pub(crate) mod expiry;
pub(crate) mod feed;
pub(crate) mod hold;
pub(crate) mod live_activity;
pub(crate) mod metrics;
mod own_share;
mod people;
pub(crate) mod registry;
pub(crate) mod room;
mod room_map;
pub(crate) mod share;
pub(crate) mod stamp;
pub(crate) mod state;
mod table;
pub(crate) mod union;
pub(crate) mod visitor;

pub(crate) use accounting::{Sample, Samples};
pub(crate) use activity::VisitorActivity;
pub(crate) use coverage::{Coverage, CoverageSource, NodeCounts};
pub(crate) use feed::Feed;
pub(crate) use hold::{Hold, HoldReason, PermittedSit, Sit, SitOutcome};
pub(crate) use registry::{JoinError, Joined, Membership, Occupant, Registry};
pub(crate) use state::Snapshot;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::protocol::Vocabulary;

/// The settings of presence.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The moods that visitors may set.
    pub moods: Vocabulary,
    /// The most rooms at once.
    pub max_rooms: usize,
    /// The most rooms of one visitor at once; `None` is no limit.
    pub max_rooms_per_visitor: Option<u32>,
    /// How long a visitor stays present after the last socket was lost.
    pub leave_grace: Duration,
    /// The longest sit; zero turns sits off.
    pub sit_limit: Duration,
    /// How long after a stop of the hub its visitors stay present at the next start.
    pub seat_hold: Duration,
    /// The most bytes of what is known of the visitors of other nodes.
    pub elsewhere_bytes: u64,
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
            sit_limit: Duration::from_mins(90),
            seat_hold: Duration::from_secs(15),
            elsewhere_bytes: 256 * 1024 * 1024,
        }
    }
}
