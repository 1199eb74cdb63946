//! Who is here now. Lives in memory only.
//!
//! Data flows one way: a session takes a [`Seat`] in the [`Hub`], which is a step on the room's
//! [`presence`], which the [`room`] publishes to its [`audience`], which writes through each member's
//! [`outlet`]. A [`tally`] adds up who was here for how long, until the next census. This wing does not know that
//! there is a history, or HTTP.

pub mod activity;
pub mod audience;
pub mod feed;
pub mod hub;
pub mod meter;
pub mod outlet;
pub mod presence;
mod registry;
pub mod room;
pub mod tally;

pub use activity::Attention;
pub use feed::Feed;
pub use hub::{Hold, Hub, RoomsFull, Seat};
pub use outlet::Outlet;
pub use registry::Census;
pub use room::Counts;
pub use tally::Sample;

use crate::wire::Vocabulary;

/// What the live side is told by the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The moods that may be set.
    pub moods: Vocabulary,
    /// The most rooms that may exist at once.
    pub max_rooms: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { moods: Vocabulary::default(), max_rooms: 10_000 }
    }
}
