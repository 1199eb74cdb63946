//! The audit: once a minute everything that is kept as a count is counted again, and put right where it
//! is wrong.
//!
//! Nothing should ever differ, and nobody should have to restart a hub to get right counts if it does.
//! Rooms are taken one by one, with a pause after every few people; the registry's totals in one pass of
//! additions, since they change together.

use std::fmt::Debug;

use tokio::task::yield_now;
use tracing::error;

use super::hub::Hub;
use crate::clock::Clock;

/// Rooms and people that are passed between two yields.
const CHUNK: usize = 1_024;

/// What is kept as a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    /// The people in a room.
    Present,
    /// Those of them who have no session.
    Held,
    /// Their moods.
    Moods,
    /// Who is in how many rooms.
    Visitors,
    /// Open room sockets of people.
    Sessions,
    /// Rooms with somebody in them.
    Rooms,
    /// Holds by their deadlines.
    Holds,
}

impl Kept {
    /// Everything.
    pub const ALL: [Self; 7] =
        [Self::Present, Self::Held, Self::Moods, Self::Visitors, Self::Sessions, Self::Rooms, Self::Holds];

    /// Its name in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Held => "held",
            Self::Moods => "moods",
            Self::Visitors => "visitors",
            Self::Sessions => "sessions",
            Self::Rooms => "rooms",
            Self::Holds => "holds",
        }
    }
}

/// A count that was wrong, and is right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of what.
    pub of: Kept,
    /// What it was.
    pub kept: String,
    /// What it is.
    pub counted: String,
}

impl Difference {
    /// What differs, if it does.
    pub(super) fn between<T: PartialEq + Debug>(of: Kept, kept: &T, counted: &T) -> Option<Self> {
        (kept != counted).then(|| Self { of, kept: format!("{kept:?}"), counted: format!("{counted:?}") })
    }
}

/// Audits the hub at the end of every minute, for as long as it is polled.
pub async fn run(hub: &Hub, clock: &Clock) {
    let mut begun = clock.wall();
    loop {
        clock.minute_ends(begun).await;
        begun = clock.wall();
        audit(hub).await;
    }
}

/// Recounts everything once, and returns what was wrong.
pub async fn audit(hub: &Hub) -> Vec<Difference> {
    let (mut all, mut passed) = (Vec::new(), 0);
    for chunk in 0.. {
        let Some(rooms) = hub.room_chunk(chunk) else { break };
        for room in rooms {
            let (differences, present) = room.audit(hub.now());
            tell(hub, Some(room.id().as_str()), &differences);
            all.extend(differences);
            passed += 1 + present as usize;
            if passed >= CHUNK {
                passed = 0;
                yield_now().await;
            }
        }
    }
    let differences = hub.audit_registry();
    tell(hub, None, &differences);
    all.extend(differences);
    hub.meter().audits.increment(1);
    all
}

fn tell(hub: &Hub, room: Option<&str>, differences: &[Difference]) {
    for Difference { of, kept, counted } in differences {
        hub.meter().audit_found(*of);
        error!(of = of.as_str(), room, kept, counted, "a count was wrong, and was put right");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::Config;
    use super::super::hold::{Hold, Reason};
    use super::super::meter::Meter;
    use super::*;
    use crate::panics::Panics;
    use crate::wire::{RoomId, VisitorId};

    const HOUR: Duration = Duration::from_hours(1);

    fn id(name: &str) -> VisitorId {
        VisitorId::try_from(name).unwrap()
    }

    fn lobby() -> RoomId {
        RoomId::try_from("lobby").unwrap()
    }

    /// Ann, Bob and Carol in the lobby, Ann calm and in the garden too.
    fn hub() -> Arc<Hub> {
        let hub = Hub::new(Config::default(), Clock::system(), Meter::register(&Panics::register()));
        let calm = hub.vocabulary().find("calm");
        let garden = RoomId::try_from("garden").unwrap();
        let places =
            [(lobby(), "ann", calm), (lobby(), "bob", None), (lobby(), "carol", None), (garden, "ann", None)];
        let hold = Hold::new(Reason::Grace, Instant::now(), HOUR);
        for (room, visitor, mood) in places {
            hub.hold(&room, &id(visitor), mood, hold).unwrap();
        }
        hub
    }

    fn end_all_holds(hub: &Hub) {
        while hub.end_hold(Instant::now() + HOUR).is_continue() {}
    }

    fn what(differences: &[Difference]) -> Vec<Kept> {
        differences.iter().map(|difference| difference.of).collect()
    }

    #[tokio::test]
    async fn right_counts_are_left_alone() {
        let hub = hub();
        let before = (hub.counts(&lobby()), hub.totals());
        assert_eq!(audit(&hub).await, []);
        assert_eq!((hub.counts(&lobby()), hub.totals()), before);
    }

    #[tokio::test]
    async fn wrong_moods_are_put_right_and_published() {
        let hub = hub();
        let (calm, joy) = (hub.vocabulary().find("calm"), hub.vocabulary().find("joy"));
        let right = hub.counts(&lobby());
        let room = hub.rooms(usize::MAX).into_iter().find(|room| *room.id() == lobby()).unwrap();
        let now = hub.now();
        room.step(now, |presence| presence.break_moods(calm.unwrap(), joy.unwrap()));
        assert_ne!(hub.counts(&lobby()).moods, right.moods);
        assert_eq!(what(&audit(&hub).await), [Kept::Moods]);
        let mended = hub.counts(&lobby());
        assert_eq!((mended.present, mended.moods, mended.seq), (3, right.moods, right.seq + 1));
        assert_eq!(audit(&hub).await, []);
    }

    #[tokio::test]
    async fn ghosts_are_counted_out_everywhere() {
        let hub = hub();
        let room = hub.rooms(usize::MAX).into_iter().find(|room| *room.id() == lobby()).unwrap();
        room.step(hub.now(), |presence| presence.break_people(&id("bob")));
        assert_eq!(hub.counts(&lobby()).present, 3, "bob has no session and no place, and counts");
        assert_eq!(what(&audit(&hub).await), [Kept::Present, Kept::Held, Kept::Visitors, Kept::Holds]);
        assert_eq!((hub.counts(&lobby()).present, hub.totals().visitors), (2, 2));
        end_all_holds(&hub);
        assert_eq!((hub.totals().visitors, hub.totals().rooms), (0, 0), "and nobody leaves twice");
    }

    #[tokio::test]
    async fn a_room_of_ghosts_is_closed() {
        let hub = hub();
        for room in hub.rooms(usize::MAX) {
            for name in ["ann", "bob", "carol"] {
                room.step(hub.now(), |presence| presence.break_people(&id(name)));
            }
        }
        let found = what(&audit(&hub).await);
        assert_eq!(found.iter().filter(|of| **of == Kept::Present).count(), 2);
        assert!(found.contains(&Kept::Rooms) && found.contains(&Kept::Visitors), "{found:?}");
        assert_eq!((hub.totals().visitors, hub.totals().rooms), (0, 0));
        end_all_holds(&hub);
        assert_eq!(audit(&hub).await, []);
    }

    #[tokio::test]
    async fn wrong_holds_are_put_right_and_end_in_time() {
        let hub = hub();
        let before = hub.counts(&lobby());
        let room = hub.rooms(usize::MAX).into_iter().find(|room| *room.id() == lobby()).unwrap();
        room.step(hub.now(), super::super::presence::Presence::break_held);
        hub.break_registry(|registry| registry.holds.clear());
        assert_eq!(hub.holds(), [(Reason::Grace, 0), (Reason::Restart, 0)]);
        assert_eq!(what(&audit(&hub).await), [Kept::Held, Kept::Holds]);
        assert_eq!(hub.counts(&lobby()), before, "which is no news for the room");
        assert_eq!(hub.holds(), [(Reason::Grace, 4), (Reason::Restart, 0)]);
        end_all_holds(&hub);
        assert_eq!((hub.totals().visitors, hub.totals().rooms), (0, 0));
    }

    #[tokio::test]
    async fn wrong_totals_are_put_right() {
        let hub = hub();
        hub.break_registry(|registry| {
            registry.sessions += 1;
            registry.break_visitors(&id("ann"), &id("nobody")); // as many as before, and others
        });
        assert_eq!(what(&audit(&hub).await), [Kept::Visitors, Kept::Sessions]);
        assert_eq!((hub.totals().visitors, hub.totals().sessions, hub.totals().rooms), (3, 0, 2));
        assert_eq!(audit(&hub).await, []);
        end_all_holds(&hub);
        assert_eq!((hub.totals().visitors, hub.totals().rooms), (0, 0));
    }
}
