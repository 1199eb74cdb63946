//! The registry's face for a cluster: what to publish of this node's share, and what other nodes publish of theirs.
//!
//! It knows shares and no messages. Passes over all rooms run in chunks, with a yield after each, so that joins and
//! leaves can run in between. Without a cluster nothing of this is called.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::yield_now;

use super::clustered::Outgoing;
use super::registry::Registry;
use super::room::Room;
use super::share::{Change, HeldSince, PersonKey, ShareSum, Slot};
use super::stamp::Stamp;
use super::table::Table;
use crate::sync::lock;

/// Changes that are applied under one lock of the registry: about half a millisecond.
const CHUNK: usize = 256;

impl Registry {
    /// Notified when this node's share has changed.
    pub(crate) fn share_changed(&self) -> Arc<Notify> {
        lock(&self.table).clustered.as_ref().map(|clustered| clustered.changed()).unwrap_or_default()
    }

    /// Takes the changes of this node's share since the last time. The caller publishes them.
    pub(crate) fn take_outgoing(&self) -> Option<Outgoing> {
        let mut table = lock(&self.table);
        let (people, sockets) = (table.own_visitor_count(), table.sessions);
        table.clustered.as_mut().map(|clustered| clustered.take(people, sockets))
    }

    /// Calls `publish` for each part of this node's share, with up to `most` entries or those of one room.
    pub(crate) async fn publish_share(&self, most: usize, mut publish: impl FnMut(Vec<Change>)) {
        let mut part = Vec::new();
        let rooms = lock(&self.table).all_rooms();
        for room in rooms {
            let entries = room.own_entries().into_iter();
            part.extend(entries.map(|(person, entry)| Change {
                room: room.id().clone(),
                person,
                entry: Some(entry),
            }));
            while part.len() >= most {
                let rest = part.split_off(most);
                publish(std::mem::replace(&mut part, rest));
                yield_now().await;
            }
        }
        publish(part);
    }

    /// Makes this node's later stamps later than one of another node.
    pub(crate) fn observe(&self, stamp: Stamp) {
        if let Some(clustered) = &mut lock(&self.table).clustered {
            clustered.observe(stamp);
        }
    }

    /// What was applied of a share; none where some of it was refused.
    pub(crate) fn sum_of(&self, slot: Slot) -> Option<ShareSum> {
        lock(&self.table).sum_of(slot)
    }

    /// Entries of other nodes that were refused, since their memory is limited.
    pub(crate) fn refused_entries(&self) -> u64 {
        lock(&self.table).clustered.as_ref().map_or(0, |clustered| clustered.refused())
    }

    /// Applies changes of another node's share. With `is_replay` they are a part of a whole share.
    pub(crate) async fn apply_changes(&self, slot: Slot, changes: Vec<Change>, is_replay: bool) {
        let mut changes = changes.into_iter();
        loop {
            self.apply_some(slot, changes.by_ref().take(CHUNK), is_replay);
            if changes.len() == 0 {
                return;
            }
            yield_now().await;
        }
    }

    fn apply_some(&self, slot: Slot, changes: impl Iterator<Item = Change>, is_replay: bool) {
        let mut table = lock(&self.table);
        let now = self.now();
        for change in changes {
            table.apply(slot, change, is_replay, now, |id| self.new_room(id, now));
        }
    }

    /// Holds the visitors of a share whose node is not heard any more.
    pub(crate) async fn lose_share(&self, slot: Slot, lost: HeldSince) {
        self.for_share(slot, |table, room, person| table.lose(room, slot, person, lost, self.now())).await;
    }

    /// Removes the entries of such a share whose hold has ended, and returns when the next one ends.
    pub(crate) async fn sweep_share(&self, slot: Slot) -> Option<u64> {
        let mut next: Option<u64> = None;
        self.for_share(slot, |table, room, person| {
            let until = table.sweep(room, slot, person, self.now());
            next = next.into_iter().chain(until).min();
        })
        .await;
        if next.is_none() {
            self.drop_empty(slot);
        }
        next
    }

    /// Removes a share.
    pub(crate) async fn drop_share(&self, slot: Slot) {
        self.for_share(slot, |table, room, person| table.drop_person(room, slot, person, self.now())).await;
        self.drop_empty(slot);
    }

    /// Forgets visitors who are gone for long enough, and the first ones while they take too much memory. While a peer is
    /// missing, it is not known what it has seen of them.
    pub(crate) async fn forget_gone(&self, has_missing: bool) {
        while lock(&self.table).forget_gone(has_missing, self.now()) {
            yield_now().await;
        }
    }

    fn drop_empty(&self, slot: Slot) {
        if let Some(clustered) = &mut lock(&self.table).clustered {
            clustered.drop_share(slot);
        }
    }

    /// Calls `visit` for each person of a share. No changes of the share are applied meanwhile.
    async fn for_share(&self, slot: Slot, mut visit: impl FnMut(&mut Table, &Arc<Room>, PersonKey)) {
        let rooms = lock(&self.table).all_rooms();
        for (number, room) in rooms.iter().enumerate() {
            for persons in room.persons_of(slot).chunks(CHUNK) {
                self.for_some(persons, |table, person| visit(table, room, person));
                yield_now().await;
            }
            if number % CHUNK == CHUNK - 1 {
                yield_now().await;
            }
        }
    }

    fn for_some(&self, persons: &[PersonKey], mut visit: impl FnMut(&mut Table, PersonKey)) {
        let mut table = lock(&self.table);
        for person in persons {
            visit(&mut table, *person);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::super::Config;
    use super::super::audit::audit;
    use super::super::clustered::{ENTRY_BYTES, GONE_BYTES, GONE_LIMIT, ROOM_BYTES};
    use super::super::hold::{Hold, HoldReason};
    use super::super::metrics::{AuditedCount, PresenceMetrics};
    use super::super::share::{Away, ClusterKey, Entry};
    use super::*;
    use crate::panics::Panics;
    use crate::protocol::{RoomId, Time, VisitorId};
    use crate::time::Clock;

    fn registry(config: Config, clock: Clock) -> Arc<Registry> {
        let key = ClusterKey::derive("the-admins-token", "test");
        let metrics = PresenceMetrics::register(&Panics::register());
        Registry::open(config, clock, metrics, Some(key))
    }

    fn joined(room: usize, person: u64, at: u64) -> Change {
        let entry = Some(Entry::joined(Stamp::from_bits(at)));
        Change { room: RoomId::try_from(format!("room-{room}")).unwrap(), person: PersonKey(person), entry }
    }

    fn resident_bytes() -> u64 {
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
    }

    #[tokio::test]
    async fn entries_beyond_the_limit_of_memory_are_refused_and_counted() {
        let config = Config { elsewhere_bytes: 1_200 + ROOM_BYTES, ..Config::default() };
        let registry = registry(config, Clock::system());
        let changes = (0..30).map(|person| joined(1, person, 1)).collect();
        registry.apply_changes(Slot(1), changes, false).await;
        assert_eq!((registry.totals().visitors, registry.refused_entries()), (10, 20));
        registry.apply_changes(Slot(1), vec![joined(2, 1, 1)], false).await;
        assert_eq!((rooms_in_memory(&registry), registry.refused_entries()), (1, 21), "and no room for it");
        assert_eq!(registry.sum_of(Slot(1)), None, "it is not compared with a digest");
        registry.drop_share(Slot(1)).await;
        assert_eq!((registry.totals().visitors, registry.totals().rooms), (0, 0));
    }

    fn rooms_in_memory(registry: &Registry) -> usize {
        lock(&registry.table).all_rooms().len()
    }

    #[tokio::test]
    async fn rooms_of_other_nodes_count_toward_the_limit_of_memory_and_go_with_their_visitors() {
        let config = Config { elsewhere_bytes: 10 * (ROOM_BYTES + ENTRY_BYTES), ..Config::default() };
        let registry = registry(config, Clock::system());
        registry.apply_changes(Slot(1), (0..30).map(|room| joined(room, 7, 1)).collect(), false).await;
        assert_eq!((registry.totals().rooms, registry.refused_entries()), (10, 20));
        // Their visitors leave, and are forgotten.
        let gone = (0..10).map(|room| {
            let Change { room, person, entry } = joined(room, 7, 2);
            let mut entry = entry.unwrap();
            entry.set_away(Some(Away::Gone(Stamp::from_bits(2))));
            Change { room, person, entry: Some(entry) }
        });
        registry.apply_changes(Slot(1), gone.collect(), false).await;
        assert_eq!((registry.totals().rooms, rooms_in_memory(&registry)), (0, 10), "while they are known");
        let forgotten = (0..10).map(|room| Change { entry: None, ..joined(room, 7, 3) });
        registry.apply_changes(Slot(1), forgotten.collect(), false).await;
        assert_eq!(rooms_in_memory(&registry), 0);
        registry.apply_changes(Slot(1), vec![joined(99, 7, 1)], false).await;
        assert_eq!(registry.totals().rooms, 1);
    }

    #[tokio::test]
    async fn visitors_who_are_gone_are_forgotten_at_once_beyond_the_limit_of_memory() {
        let registry = registry(Config::default(), Clock::manual(Time::from_millis(1_800_000_000_000)));
        let hold = Hold::new(HoldReason::Grace, tokio::time::Instant::now(), Duration::from_hours(1));
        let most = usize::try_from(GONE_LIMIT / (GONE_BYTES + ROOM_BYTES)).unwrap();
        let visitor = VisitorId::try_from("ann").unwrap();
        for room in 0..most + 100 {
            let room = RoomId::try_from(format!("room-{room}").as_str()).unwrap();
            registry.add_held(&room, &visitor, None, hold, None).unwrap();
            assert!(registry.expire_next(hold.deadline).is_continue());
        }
        assert_eq!(rooms_in_memory(&registry), most + 100);
        registry.forget_gone(true).await;
        assert_eq!(rooms_in_memory(&registry), most, "also while a peer is missing");
        assert!(
            !lock(&registry.table).all_rooms().iter().any(|room| room.id().as_str() == "room-99"),
            "the first ones"
        );
    }

    #[tokio::test]
    async fn visitor_who_came_back_and_left_is_forgotten_a_minute_after_the_last_leave() {
        let clock = Clock::manual(Time::from_millis(1_800_000_000_000));
        let registry = registry(Config::default(), clock.clone());
        let hold = Hold::new(HoldReason::Grace, tokio::time::Instant::now(), Duration::from_hours(1));
        let [lobby, hall] = ["lobby", "hall"].map(|room| RoomId::try_from(room).unwrap());
        let ann = VisitorId::try_from("ann").unwrap();
        let visit = |room| {
            registry.add_held(room, &ann, None, hold, None).unwrap();
            assert!(registry.expire_next(hold.deadline).is_continue());
        };
        let remembered = async || {
            registry.forget_gone(false).await;
            let totals = lock(&registry.table).clustered.as_ref().unwrap().totals();
            totals.shares.get(&Slot::default()).map_or(0, |share| share.entries)
        };
        visit(&lobby);
        visit(&hall);
        clock.advance(Duration::from_secs(40));
        visit(&lobby);
        assert_eq!(remembered().await, 2);
        clock.advance(Duration::from_secs(20));
        assert_eq!(remembered().await, 1, "the lobby");
        clock.advance(Duration::from_secs(39));
        assert_eq!(remembered().await, 1);
        clock.advance(Duration::from_secs(1));
        assert_eq!(remembered().await, 0);
    }

    #[tokio::test]
    async fn audit_corrects_what_is_stored_of_other_nodes() {
        let registry = registry(Config::default(), Clock::system());
        let (ann, lobby) = ("ann".to_owned(), RoomId::try_from("lobby").unwrap());
        let hold = Hold::new(HoldReason::Grace, tokio::time::Instant::now(), Duration::from_hours(1));
        registry.add_held(&lobby, &VisitorId::try_from(ann).unwrap(), None, hold, None).unwrap();
        registry.apply_changes(Slot(1), (0..9).map(|person| joined(1, person, 1)).collect(), false).await;
        registry.apply_changes(Slot(2), (5..12).map(|person| joined(2, person, 1)).collect(), false).await;
        let right = lock(&registry.table).clustered.as_ref().unwrap().totals();
        assert_eq!((audit(&registry).await, registry.totals().visitors), (Vec::new(), 13));

        lock(&registry.table).clustered.as_mut().unwrap().spoil_for_test(PersonKey(5), Slot(2));
        assert_eq!(registry.totals().visitors, 12);
        let kinds: Vec<_> = audit(&registry).await.iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [AuditedCount::People, AuditedCount::Shares]);
        assert_eq!(lock(&registry.table).clustered.as_ref().unwrap().totals(), right);
        assert_eq!((audit(&registry).await, registry.totals().visitors), (Vec::new(), 13));
    }

    /// `cargo test --release --lib -- --ignored --nocapture remote` prints the figures.
    #[tokio::test]
    #[ignore = "a measurement"]
    #[expect(clippy::print_stderr, reason = "it prints the figures")]
    async fn memory_and_time_of_remote_visitors() {
        const PERSONS: u64 = 300_000;
        const ROOMS: usize = 50_000;
        let registry = registry(Config::default(), Clock::system());
        // The rooms first: 1,500 of 200.
        let rooms: Vec<_> = (0..1_500).map(|room| joined(room, 0, 1)).collect();
        registry.apply_changes(Slot(1), rooms, false).await;
        let before = resident_bytes();
        let mut elapsed = Duration::ZERO;
        for first in (1..=PERSONS).step_by(1_000) {
            let changes: Vec<_> = (first..first + 1_000)
                .map(|person| joined(usize::try_from(person % 1_500).unwrap(), person, 2))
                .collect();
            let began = Instant::now();
            registry.apply_changes(Slot(1), changes, false).await;
            elapsed += began.elapsed();
        }
        let bytes = (resident_bytes() - before) / PERSONS;
        let nanos = elapsed.as_nanos() / u128::from(PERSONS);
        eprintln!("{bytes} B and {nanos} ns for each remote visitor");
        assert_eq!(registry.totals().visitors as u64, PERSONS + 1);

        let began = Instant::now();
        assert_eq!(lock(&registry.table).recount(Duration::ZERO).1.rooms, 1_500);
        eprintln!("{} ms for a recount of all of them", began.elapsed().as_millis());

        // Rooms with the longest names, and one visitor each.
        let long = "r".repeat(100);
        let before = resident_bytes();
        for first in (0..ROOMS).step_by(1_000) {
            let changes = (first..first + 1_000).map(|room| {
                let id = RoomId::try_from(format!("{room}{long}").get(..64).unwrap()).unwrap();
                Change { room: id, ..joined(0, room as u64, 3) }
            });
            registry.apply_changes(Slot(1), changes.collect(), false).await;
        }
        eprintln!("{} B for each remote room", (resident_bytes() - before) / ROOMS as u64);
    }

    /// `cargo test --release --lib -- --ignored --nocapture gone` prints the figure.
    #[tokio::test]
    #[ignore = "a measurement"]
    #[expect(clippy::print_stderr, reason = "it prints the figure")]
    async fn memory_of_visitors_who_are_gone() {
        const VISITORS: u64 = 50_000;
        let registry = registry(Config::default(), Clock::system());
        let hold = Hold::new(HoldReason::Grace, Instant::now().into(), Duration::from_hours(1));
        let [lobby, long] = ["r", "v"].map(|letter| letter.repeat(100));
        let lobby = RoomId::try_from(lobby.get(..64).unwrap()).unwrap();
        let before = resident_bytes();
        for number in 0..VISITORS {
            let visitor = VisitorId::try_from(format!("{number}{long}").get(..64).unwrap()).unwrap();
            registry.add_held(&lobby, &visitor, None, hold, None).unwrap();
            assert!(registry.expire_next(hold.deadline).is_continue());
            registry.take_outgoing().unwrap();
        }
        eprintln!("{} B for each visitor who is gone", (resident_bytes() - before) / VISITORS);
    }
}
