//! The self-audit: once a minute it recounts everything that the hub stores as a count, and corrects wrong counts.
//!
//! Nothing should ever differ. If something does, the counts become right without a restart of the hub. Rooms are
//! recounted one by one, with a yield after every few visitors. The registry's totals are recounted in one pass, since
//! they change together.

use std::fmt::Debug;

use tokio::task::yield_now;
use tracing::error;

use super::metrics::AuditedCount;
use super::registry::Registry;
use super::state::Snapshot;
use super::table::TableCounts;
use crate::time::Clock;

/// Rooms and visitors that are recounted between two yields.
const CHUNK: usize = 1_024;

/// A count that was wrong and is corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which count.
    pub kind: AuditedCount,
    /// Its value before.
    pub stored: String,
    /// Its value now.
    pub recounted: String,
}

impl Difference {
    fn between<T: PartialEq + Debug>(kind: AuditedCount, stored: &T, recounted: &T) -> Option<Self> {
        let text = |value: &T| format!("{value:?}");
        (stored != recounted).then(|| Self { kind, stored: text(stored), recounted: text(recounted) })
    }

    fn of_room((stored, recounted): &(Snapshot, Snapshot)) -> [Option<Self>; 4] {
        [
            Self::between(AuditedCount::Present, &stored.present, &recounted.present),
            Self::between(AuditedCount::Held, &stored.held, &recounted.held),
            Self::between(AuditedCount::Sitting, &stored.sitting, &recounted.sitting),
            Self::between(AuditedCount::Moods, &stored.moods, &recounted.moods),
        ]
    }

    fn of_table((stored, recounted): &(TableCounts, TableCounts)) -> [Option<Self>; 6] {
        let shares = |counts: &TableCounts| (counts.union.own_rooms, counts.union.shares.clone());
        [
            Self::between(AuditedCount::Rooms, &stored.rooms, &recounted.rooms),
            Self::between(AuditedCount::Visitors, &stored.visitors, &recounted.visitors),
            Self::between(AuditedCount::Sessions, &stored.sessions, &recounted.sessions),
            Self::between(AuditedCount::Holds, &stored.holds, &recounted.holds),
            Self::between(AuditedCount::People, &stored.union.people, &recounted.union.people),
            Self::between(AuditedCount::Shares, &shares(stored), &shares(recounted)),
        ]
    }

    fn report(&self, registry: &Registry, room: Option<&str>) {
        registry.metrics().audit_difference(self.kind);
        let Self { kind, stored, recounted } = self;
        let kind: &str = kind.into();
        error!(kind, room, stored, recounted, "the self-audit corrected a wrong count: please report it");
    }
}

/// Audits the registry at the end of every minute. Never returns.
pub(crate) async fn run(registry: &Registry, clock: &Clock) {
    let mut started = clock.wall();
    loop {
        clock.minute_ends(started).await;
        started = clock.wall();
        audit(registry).await;
    }
}

/// Recounts everything once, and returns the counts that were wrong.
pub async fn audit(registry: &Registry) -> Vec<Difference> {
    let (mut differences, mut work) = (Vec::new(), 0);
    for room in (0..).map_while(|chunk| registry.room_chunk(chunk)).flatten() {
        let counts = room.recount(registry.now());
        let found = Difference::of_room(&counts).into_iter().flatten();
        differences.extend(found.inspect(|found| found.report(registry, Some(room.id().as_str()))));
        work += 1 + counts.1.present as usize;
        if work >= CHUNK {
            work = 0;
            yield_now().await;
        }
    }
    let found = Difference::of_table(&registry.recount()).into_iter().flatten();
    differences.extend(found.inspect(|found| found.report(registry, None)));
    registry.metrics().audits.increment(1);
    differences
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::Config;
    use super::super::hold::{Hold, HoldReason};
    use super::super::metrics::PresenceMetrics;
    use super::super::room::Room;
    use super::super::state::RoomState;
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

    /// Ann, Bob and Carol are in the lobby, Ann calm. Ann is in the garden too.
    fn registry() -> Arc<Registry> {
        let metrics = PresenceMetrics::register(&Panics::register());
        let registry = Registry::new(Config::default(), Clock::system(), metrics);
        let calm = registry.vocabulary().find("calm");
        let garden = RoomId::try_from("garden").unwrap();
        let hold = Hold::new(HoldReason::Grace, Instant::now(), HOUR);
        for (room, visitor, mood) in
            [(lobby(), "ann", calm), (lobby(), "bob", None), (lobby(), "carol", None), (garden, "ann", None)]
        {
            registry.add_held(&room, &id(visitor), mood, hold, None).unwrap();
        }
        registry
    }

    fn room(registry: &Registry) -> Arc<Room> {
        registry.rooms(usize::MAX).into_iter().find(|room| *room.id() == lobby()).unwrap()
    }

    async fn kinds(registry: &Registry) -> Vec<AuditedCount> {
        audit(registry).await.iter().map(|difference| difference.kind).collect()
    }

    #[tokio::test]
    async fn right_counts_are_not_changed() {
        let registry = registry();
        let before = (registry.snapshot(&lobby()), registry.totals());
        assert_eq!(audit(&registry).await, []);
        assert_eq!((registry.snapshot(&lobby()), registry.totals()), before);
    }

    #[tokio::test]
    async fn wrong_counts_of_a_room_are_corrected_and_published() {
        let registry = registry();
        let right = registry.snapshot(&lobby());
        // The same visitors, counted from a wrong start.
        let (calm, joy) = (registry.vocabulary().find("calm"), registry.vocabulary().find("joy"));
        let mut wrong_zero = registry.vocabulary().zero();
        wrong_zero.add(joy.unwrap());
        room(&registry).update(registry.now(), |state| {
            let mut wrong = RoomState::new(wrong_zero);
            for (name, mood) in [("ann", calm), ("bob", None), ("carol", None)] {
                wrong.add_held(&id(name), mood, state.hold_of(&id(name)).unwrap(), None);
            }
            *state = wrong;
        });
        assert_ne!(registry.snapshot(&lobby()), right);
        assert_eq!(kinds(&registry).await, [AuditedCount::Moods]);
        assert_eq!(registry.snapshot(&lobby()), Snapshot { seq: right.seq + 1, ..right });
        assert_eq!(audit(&registry).await, []);
    }

    #[tokio::test]
    async fn wrong_counts_of_the_registry_are_corrected_and_holds_still_end() {
        let registry = registry();
        // Carol leaves the lobby, and the registry does not see it.
        room(&registry).update(registry.now(), |state| state.release(&id("carol"), Instant::now()));
        assert_eq!((registry.snapshot(&lobby()).present, registry.totals().visitors), (2, 3));
        assert_eq!(kinds(&registry).await, [AuditedCount::Visitors, AuditedCount::Holds]);
        assert_eq!((registry.totals().visitors, registry.totals().rooms), (2, 2));
        assert_eq!(
            registry.hold_counts(),
            [
                (HoldReason::Grace, 3),
                (HoldReason::Restart, 0),
                (HoldReason::Sit, 0),
                (HoldReason::PeerLost, 0)
            ]
        );
        while registry.expire_next(Instant::now() + HOUR).is_continue() {}
        assert_eq!((registry.totals().visitors, registry.totals().rooms), (0, 0));
        assert_eq!(audit(&registry).await, []);
    }
}
