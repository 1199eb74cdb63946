//! A room: its presence, its audience, and when to publish.
//!
//! A change publishes at once where none was published lately; otherwise it waits for the end of
//! the window, together with all others that come by then. The window is never re-armed and grows
//! with the room, so that a room costs a bounded share of the CPU whatever the churn. A room
//! has a task only while a window is open.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::audience::{Audience, Place};
use super::meter::Meter;
use super::outlet::Outlet;
use super::presence::Presence;
use crate::sync::lock;
use crate::wire::frame::Frame;
use crate::wire::message::ServerMessage;
use crate::wire::{MoodCounts, RoomId, VisitorId, Vocabulary};

/// The shortest time between two published states of a room.
const WINDOW_MIN: Duration = Duration::from_millis(100);

/// The longest time that a change may wait to be published.
const WINDOW_MAX: Duration = Duration::from_secs(1);

/// Window per member. A delivery costs about 5 µs, so that a tenth of one core is what the busiest
/// room takes.
const WINDOW_PER_MEMBER: Duration = Duration::from_micros(50);

/// One state of a room's aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Which state it is; rises from 1 while the room exists, and is 0 where it does not.
    pub seq: u64,
    /// Distinct visitors.
    pub present: u32,
    /// People by mood.
    pub moods: MoodCounts,
}

/// A room in which somebody is.
#[derive(Debug)]
pub struct Room {
    id: RoomId,
    vocabulary: Vocabulary,
    meter: Meter,
    audience: Audience,
    /// Every step on it is O(1), or one pass over the moods.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    presence: Presence,
    /// The last state that was handed to the audience.
    published: u64,
    /// Whether a window is open, at whose end the room is looked at again.
    in_window: bool,
}

impl Room {
    /// An empty room.
    #[must_use]
    pub fn new(id: RoomId, vocabulary: Vocabulary, meter: Meter) -> Self {
        let state = State { presence: Presence::new(vocabulary.zero()), published: 0, in_window: false };
        Self { id, vocabulary, meter, audience: Audience::default(), state: Mutex::new(state) }
    }

    /// The room's name.
    #[must_use]
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// The room as it is now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts()
    }

    /// Whether nobody is here and no place is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        lock(&self.state).presence.is_empty()
    }

    /// Up to `limit` of the people here, with the number of their open sessions.
    #[must_use]
    pub fn visitors(&self, limit: usize) -> Vec<(VisitorId, u32)> {
        let state = lock(&self.state);
        state.presence.visitors().take(limit).map(|(id, sessions)| (id.clone(), sessions)).collect()
    }

    /// Sockets that are told what happens here.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.audience.len()
    }

    /// Tells `outlet` every state from now on. Before the session joins the presence: the outlet
    /// holds back what comes before its welcome.
    pub fn enter(&self, outlet: Arc<Outlet>) -> Place {
        self.audience.enter(outlet)
    }

    /// Tells the socket nothing more.
    pub fn exit(&self, place: Place) {
        self.audience.exit(place);
    }

    /// Takes one step on the presence, publishes what it changed, and returns what the step
    /// returned together with the state after it.
    pub fn step<T>(self: &Arc<Self>, step: impl FnOnce(&mut Presence) -> T) -> (T, Counts) {
        let mut state = lock(&self.state);
        let result = step(&mut state.presence);
        if state.presence.seq() > state.published && !state.in_window {
            state.in_window = true;
            tokio::spawn(Arc::clone(self).publish_until_quiet());
        }
        (result, state.counts())
    }

    async fn publish_until_quiet(self: Arc<Self>) {
        while let Some(counts) = self.next_to_publish() {
            let window_end = Instant::now() + window(self.audience.len());
            let state = Frame::text(&ServerMessage::Presence {
                seq: counts.seq,
                present: counts.present,
                moods: self.vocabulary.named(&counts.moods),
            });
            let told = self.audience.deliver(counts.seq, &state).await;
            self.meter.publishes.increment(1);
            self.meter.deliveries.increment(told);
            sleep_until(window_end).await;
        }
    }

    /// The newest state, or none where it is published: then the window is shut.
    fn next_to_publish(&self) -> Option<Counts> {
        let mut state = lock(&self.state);
        state.in_window = state.presence.seq() > state.published;
        state.in_window.then(|| {
            state.published = state.presence.seq();
            state.counts()
        })
    }
}

impl State {
    fn counts(&self) -> Counts {
        Counts {
            seq: self.presence.seq(),
            present: self.presence.present(),
            moods: self.presence.moods().clone(),
        }
    }
}

/// How long after a published state the next may follow.
fn window(members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    WINDOW_PER_MEMBER.saturating_mul(members).clamp(WINDOW_MIN, WINDOW_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_with_the_room_between_its_bounds() {
        assert_eq!(window(1), WINDOW_MIN);
        assert_eq!(window(4_000), Duration::from_millis(200));
        assert_eq!(window(usize::MAX), WINDOW_MAX);
    }
}
