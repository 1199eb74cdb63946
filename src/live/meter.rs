//! What the live side counts for `/metrics`: plain handles, so that counting is one
//! atomic addition and nothing here knows how the counters are shown.

use metrics::{Counter, counter, describe_counter};

/// Counters of the live side. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Meter {
    /// Sessions that joined a room.
    pub joins: Counter,
    /// Sessions that left a room, by their own will or by being lost.
    pub leaves: Counter,
    /// States that were published.
    pub publishes: Counter,
    /// Published states that were handed to a socket.
    pub deliveries: Counter,
}

impl Meter {
    /// Registers the counters with the recorder that is current.
    #[must_use]
    pub fn register() -> Self {
        describe_counter!("breathing_room_joins_total", "Sessions that joined a room");
        describe_counter!("breathing_room_leaves_total", "Sessions that left a room or were lost");
        describe_counter!("breathing_room_publishes_total", "Room states published");
        describe_counter!("breathing_room_deliveries_total", "Room states handed to sockets");
        Self {
            joins: counter!("breathing_room_joins_total"),
            leaves: counter!("breathing_room_leaves_total"),
            publishes: counter!("breathing_room_publishes_total"),
            deliveries: counter!("breathing_room_deliveries_total"),
        }
    }
}
