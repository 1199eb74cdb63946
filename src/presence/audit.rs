//! The audit: once a minute everything that is kept as a count is counted again, and put right where it
//! is wrong.
//!
//! Nothing should ever differ, and nobody should have to restart a hub to get right counts if it does.
//! Rooms are taken one by one, with a pause after every few people; the registry's totals in one pass of
//! additions, since they change together.

use std::fmt::Debug;

use strum::{IntoStaticStr, VariantArray};
use tokio::task::yield_now;
use tracing::error;

use super::registry::Registry;
use crate::time::Clock;

/// Rooms and people that are passed between two yields.
const CHUNK: usize = 1_024;

/// What is kept as a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum AuditedCount {
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

/// A count that was wrong, and is right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of what.
    pub of: AuditedCount,
    /// What it was.
    pub kept: String,
    /// What it is.
    pub counted: String,
}

impl Difference {
    /// What differs, if it does.
    pub(super) fn between<T: PartialEq + Debug>(of: AuditedCount, kept: &T, counted: &T) -> Option<Self> {
        (kept != counted).then(|| Self { of, kept: format!("{kept:?}"), counted: format!("{counted:?}") })
    }
}

/// Audits the hub at the end of every minute, for as long as it is polled.
pub(crate) async fn run(registry: &Registry, clock: &Clock) {
    let mut begun = clock.wall();
    loop {
        clock.minute_ends(begun).await;
        begun = clock.wall();
        audit(registry).await;
    }
}

/// Recounts everything once, and returns what was wrong.
pub async fn audit(registry: &Registry) -> Vec<Difference> {
    let (mut all, mut passed) = (Vec::new(), 0);
    for chunk in 0.. {
        let Some(rooms) = registry.room_chunk(chunk) else { break };
        for room in rooms {
            let (differences, present) = room.audit(registry.now());
            tell(registry, Some(room.id().as_str()), &differences);
            all.extend(differences);
            passed += 1 + present as usize;
            if passed >= CHUNK {
                passed = 0;
                yield_now().await;
            }
        }
    }
    let differences = registry.audit_table();
    tell(registry, None, &differences);
    all.extend(differences);
    registry.metrics().audits.increment(1);
    all
}

fn tell(registry: &Registry, room: Option<&str>, differences: &[Difference]) {
    for Difference { of, kept, counted } in differences {
        registry.metrics().audit_found(*of);
        error!(of = <&str>::from(of), room, kept, counted, "a count was wrong, and was put right");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::Config;
    use super::super::hold::{Hold, HoldReason};
    use super::super::metrics::PresenceMetrics;
    use super::*;
    use crate::panics::Panics;
    use crate::protocol::{RoomId, VisitorId};

    const HOUR: Duration = Duration::from_hours(1);

    fn id(name: &str) -> VisitorId {
        VisitorId::try_from(name).unwrap()
    }

    fn lobby() -> RoomId {
        RoomId::try_from("lobby").unwrap()
    }

    /// Ann, Bob and Carol in the lobby, Ann calm and in the garden too.
    fn registry() -> Arc<Registry> {
        let registry =
            Registry::new(Config::default(), Clock::system(), PresenceMetrics::register(&Panics::register()));
        let calm = registry.vocabulary().find("calm");
        let garden = RoomId::try_from("garden").unwrap();
        let places =
            [(lobby(), "ann", calm), (lobby(), "bob", None), (lobby(), "carol", None), (garden, "ann", None)];
        let hold = Hold::new(HoldReason::Grace, Instant::now(), HOUR);
        for (room, visitor, mood) in places {
            registry.hold(&room, &id(visitor), mood, hold).unwrap();
        }
        registry
    }

    fn end_all_holds(registry: &Registry) {
        while registry.expire_next(Instant::now() + HOUR).is_continue() {}
    }

    fn what(differences: &[Difference]) -> Vec<AuditedCount> {
        differences.iter().map(|difference| difference.of).collect()
    }

    #[tokio::test]
    async fn right_counts_are_left_alone() {
        let registry = registry();
        let before = (registry.snapshot(&lobby()), registry.totals());
        assert_eq!(audit(&registry).await, []);
        assert_eq!((registry.snapshot(&lobby()), registry.totals()), before);
    }

    #[tokio::test]
    async fn wrong_moods_are_put_right_and_published() {
        let registry = registry();
        let (calm, joy) = (registry.vocabulary().find("calm"), registry.vocabulary().find("joy"));
        let right = registry.snapshot(&lobby());
        let room = registry.rooms(usize::MAX).into_iter().find(|room| *room.id() == lobby()).unwrap();
        let now = registry.now();
        room.step(now, |presence| presence.break_moods(calm.unwrap(), joy.unwrap()));
        assert_ne!(registry.snapshot(&lobby()).moods, right.moods);
        assert_eq!(what(&audit(&registry).await), [AuditedCount::Moods]);
        let mended = registry.snapshot(&lobby());
        assert_eq!((mended.present, mended.moods, mended.seq), (3, right.moods, right.seq + 1));
        assert_eq!(audit(&registry).await, []);
    }

    #[tokio::test]
    async fn ghosts_are_counted_out_everywhere() {
        let registry = registry();
        let room = registry.rooms(usize::MAX).into_iter().find(|room| *room.id() == lobby()).unwrap();
        room.step(registry.now(), |presence| presence.break_people(&id("bob")));
        assert_eq!(registry.snapshot(&lobby()).present, 3, "bob has no session and no place, and counts");
        assert_eq!(
            what(&audit(&registry).await),
            [AuditedCount::Present, AuditedCount::Held, AuditedCount::Visitors, AuditedCount::Holds]
        );
        assert_eq!((registry.snapshot(&lobby()).present, registry.totals().visitors), (2, 2));
        end_all_holds(&registry);
        assert_eq!((registry.totals().visitors, registry.totals().rooms), (0, 0), "and nobody leaves twice");
    }

    #[tokio::test]
    async fn a_room_of_ghosts_is_closed() {
        let registry = registry();
        for room in registry.rooms(usize::MAX) {
            for name in ["ann", "bob", "carol"] {
                room.step(registry.now(), |presence| presence.break_people(&id(name)));
            }
        }
        let found = what(&audit(&registry).await);
        assert_eq!(found.iter().filter(|of| **of == AuditedCount::Present).count(), 2);
        assert!(found.contains(&AuditedCount::Rooms) && found.contains(&AuditedCount::Visitors), "{found:?}");
        assert_eq!((registry.totals().visitors, registry.totals().rooms), (0, 0));
        end_all_holds(&registry);
        assert_eq!(audit(&registry).await, []);
    }

    #[tokio::test]
    async fn wrong_holds_are_put_right_and_end_in_time() {
        let registry = registry();
        let before = registry.snapshot(&lobby());
        let room = registry.rooms(usize::MAX).into_iter().find(|room| *room.id() == lobby()).unwrap();
        room.step(registry.now(), super::super::state::RoomState::break_held);
        registry.break_table(|table| table.holds.clear());
        assert_eq!(registry.hold_counts(), [(HoldReason::Grace, 0), (HoldReason::Restart, 0)]);
        assert_eq!(what(&audit(&registry).await), [AuditedCount::Held, AuditedCount::Holds]);
        assert_eq!(registry.snapshot(&lobby()), before, "which is no news for the room");
        assert_eq!(registry.hold_counts(), [(HoldReason::Grace, 4), (HoldReason::Restart, 0)]);
        end_all_holds(&registry);
        assert_eq!((registry.totals().visitors, registry.totals().rooms), (0, 0));
    }

    #[tokio::test]
    async fn wrong_totals_are_put_right() {
        let registry = registry();
        registry.break_table(|table| {
            table.sessions += 1;
            table.break_visitors(&id("ann"), &id("nobody")); // as many as before, and others
        });
        assert_eq!(what(&audit(&registry).await), [AuditedCount::Visitors, AuditedCount::Sessions]);
        assert_eq!(
            (registry.totals().visitors, registry.totals().sessions, registry.totals().rooms),
            (3, 0, 2)
        );
        assert_eq!(audit(&registry).await, []);
        end_all_holds(&registry);
        assert_eq!((registry.totals().visitors, registry.totals().rooms), (0, 0));
    }
}
