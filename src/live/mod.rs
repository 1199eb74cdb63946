//! Who is here now. Lives in memory only.
//!
//! Data flows one way: a session takes a [`Seat`] in the [`Hub`], which is a step on the room's
//! [`presence`], which the [`room`] publishes to its [`audience`], which writes through each member's
//! [`outlet`]. A [`summary`] of everything is made for whoever looks at all rooms. A [`tally`] adds up who was here for how long, until the next census; an
//! [`audit`] recounts everything. This wing does not know that
//! there is a history, or HTTP.

pub mod activity;
pub mod audience;
pub mod audit;
pub mod feed;
pub mod hold;
pub mod hub;
pub mod meter;
pub mod outlet;
pub mod presence;
mod registry;
pub mod room;
mod rooms;
pub mod summary;
pub mod tally;

pub use activity::Attention;
pub use feed::Feed;
pub use hold::{Hold, Reason};
pub use hub::{Hub, NoPlace, Person, Seat};
pub use outlet::Outlet;
pub use registry::Census;
pub use room::Counts;
pub use tally::Sample;

use std::num::NonZeroU32;

use crate::wire::Vocabulary;

/// The most rooms that one visitor may be in, where nothing else is configured.
pub const ROOMS_PER_VISITOR: NonZeroU32 = NonZeroU32::new(32).unwrap();

/// What the live side is told by the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The moods that may be set.
    pub moods: Vocabulary,
    /// The most rooms that may exist at once.
    pub max_rooms: usize,
    /// The most rooms that one visitor may be in; none where rate limits are off.
    pub max_rooms_per_visitor: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            moods: Vocabulary::default(),
            max_rooms: 10_000,
            max_rooms_per_visitor: Some(ROOMS_PER_VISITOR.get()),
        }
    }
}
