//! The table: all rooms, and in how many rooms each visitor is.
//!
//! Joins and leaves change rooms and visitors together. The registry guards the table by one lock, so calls are O(1),
//! except for samples and recounts. Rooms with bots only are stored separately, so they are in no count and no list.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use super::accounting::{Accounting, Present, Sample, Samples};
use super::clustered::{Clustered, Forget, UnionTotals};
use super::hold::HoldIndex;
use super::room::Room;
use super::room_map::RoomMap;
use super::share::{Change, HeldSince, PersonKey, ShareSum, Slot};
use super::stamp::Stamp;
use super::state::{OccupancyChange, RoomState, Snapshot};
use super::union::{RoomUnion, UnionStep};
use crate::protocol::{RoomId, VisitorId};
use crate::time::millis;

/// Visitors who are forgotten under one lock of the registry.
const FORGET_CHUNK: usize = 256;

/// All rooms and all visitors.
#[derive(Debug)]
pub(super) struct Table {
    /// Rooms with visitors.
    pub rooms: RoomMap,
    /// Rooms without visitors: those of bots, and in a cluster those with visitors who are gone.
    bot_rooms: HashMap<RoomId, Arc<Room>>,
    /// The number of rooms of each visitor.
    visitors: HashMap<VisitorId, u32>,
    /// All visitors who are held or sit, by their next deadline.
    pub holds: HoldIndex,
    /// Open room sockets of visitors.
    pub sessions: usize,
    /// Open room sockets of bots.
    pub bot_sessions: usize,
    /// When samples were last taken.
    sampled: Duration,
    /// Measures all rooms together since then, except for the moods and sits, which the rooms measure.
    accounting: Accounting,
    /// Samples of rooms that have closed since then. At most `closed_limit`.
    closed: HashMap<RoomId, Sample>,
    closed_limit: usize,
    /// Samples of closed rooms beyond that.
    dropped: usize,
    /// The visitors of all nodes, where the hub is one of several.
    pub clustered: Option<Box<Clustered>>,
}

/// The counts that the table stores, for a recount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableCounts {
    pub rooms: usize,
    /// A sum of hashes: it is equal where the same visitors are in the same number of rooms, in any order.
    pub visitors: u64,
    pub sessions: usize,
    /// Deadlines of holds and sits, and how many of them the rooms have too.
    pub holds: (usize, usize),
    /// Of a cluster.
    pub union: UnionTotals,
}

impl Table {
    /// No rooms. `moods` is the number of moods. Between two samples, the table stores the samples of up to
    /// `closed_limit` rooms that have closed.
    pub(super) fn new(now: Duration, moods: usize, closed_limit: usize) -> Self {
        Self {
            rooms: RoomMap::default(),
            bot_rooms: HashMap::new(),
            visitors: HashMap::new(),
            holds: HoldIndex::default(),
            sessions: 0,
            bot_sessions: 0,
            sampled: now,
            accounting: Accounting::new(now, moods),
            closed: HashMap::new(),
            closed_limit,
            dropped: 0,
            clustered: None,
        }
    }

    /// Distinct visitors.
    pub(super) fn visitor_count(&self) -> usize {
        self.clustered.as_ref().map_or(self.visitors.len(), |clustered| clustered.people())
    }

    /// Distinct visitors of this node.
    pub(super) fn own_visitor_count(&self) -> usize {
        self.visitors.len()
    }

    /// Rooms that are limited: those with visitors of this node.
    pub(super) fn own_room_count(&self) -> usize {
        self.clustered.as_ref().map_or(self.rooms.len(), |clustered| clustered.own_rooms)
    }

    /// Whether visitors of this node are in this room.
    pub(super) fn is_own_room(&self, room: &Room) -> bool {
        self.clustered.is_none() || room.has_own()
    }

    /// The number of rooms of a visitor.
    pub(super) fn rooms_of(&self, visitor: &VisitorId) -> u32 {
        self.visitors.get(visitor).copied().unwrap_or_default()
    }

    /// Returns the room for a visitor; `create` creates it if there is none.
    pub(super) fn open_room(&mut self, id: &RoomId, create: impl FnOnce() -> Room) -> Arc<Room> {
        let Self { rooms, bot_rooms, .. } = self;
        rooms.get_or_insert_with(id, || bot_rooms.remove(id).unwrap_or_else(|| Arc::new(create())))
    }

    /// Returns the room for a new bot session; `create` creates it if there is none.
    pub(super) fn open_room_for_bot(&mut self, id: &RoomId, create: impl FnOnce() -> Room) -> Arc<Room> {
        self.bot_sessions += 1;
        let found = self.rooms.get(id).or_else(|| self.bot_rooms.get(id));
        found.cloned().unwrap_or_else(|| {
            let room = Arc::new(create());
            self.bot_rooms.insert(id.clone(), Arc::clone(&room));
            room
        })
    }

    /// Updates one visitor in a room, and the table with it. Returns the room's state after the update.
    pub(super) fn update_room(
        &mut self,
        room: &Arc<Room>,
        visitor: &VisitorId,
        now: Duration,
        update: impl FnOnce(&mut RoomState) -> OccupancyChange,
    ) -> Snapshot {
        self.update_room_since(room, visitor, now, None, update)
    }

    /// The same for a visitor who is held since `since`, as other nodes know it, and not since now.
    pub(super) fn update_room_since(
        &mut self,
        room: &Arc<Room>,
        visitor: &VisitorId,
        now: Duration,
        since: Option<Stamp>,
        update: impl FnOnce(&mut RoomState) -> OccupancyChange,
    ) -> Snapshot {
        let clustered = self.clustered.as_deref_mut();
        let mut person = None;
        let ((before, change, after), snapshot) = room.update(now, |state| {
            let before = state.deadline_of(visitor);
            let mut change = update(state);
            if let Some(clustered) = clustered {
                (change, person) = clustered.follow(state, room.id(), visitor, since, (change, now));
            }
            (before, change, state.deadline_of(visitor))
        });
        if before != after {
            self.holds.replace(room.id(), visitor, before, after);
        }
        match change {
            OccupancyChange::Unchanged => {}
            OccupancyChange::Entered => self.add_visitor(visitor, now),
            OccupancyChange::Left => self.remove_visitor(visitor, room, now),
        }
        if let Some((person, step)) = person {
            self.count_person(person, &step, false, now);
        }
        snapshot
    }

    /// The visitor is in one more room.
    fn add_visitor(&mut self, visitor: &VisitorId, now: Duration) {
        self.change_visitors(now, |visitors| *visitors.entry(visitor.clone()).or_default() += 1);
    }

    /// The visitor is in one room less. Closes the room if it is empty.
    fn remove_visitor(&mut self, visitor: &VisitorId, room: &Arc<Room>, now: Duration) {
        self.change_visitors(now, |visitors| {
            if let Entry::Occupied(mut entry) = visitors.entry(visitor.clone()) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        });
        if room.is_empty() {
            self.close_room(room, now);
        }
    }

    /// Closes a room without visitors. It may still have bots.
    fn close_room(&mut self, room: &Arc<Room>, now: Duration) {
        self.rooms.remove(room.id());
        self.store_closed(room.id(), room.take_sample(now));
        if room.has_subscribers() || room.has_entries() {
            self.bot_rooms.insert(room.id().clone(), Arc::clone(room));
        }
    }

    /// Ends a bot session in this room.
    pub(super) fn remove_bot(&mut self, room: &Arc<Room>) {
        self.bot_sessions -= 1;
        if let Entry::Occupied(entry) = self.bot_rooms.entry(room.id().clone())
            // Another bot may have left before, and a new room may have this name.
            && Arc::ptr_eq(entry.get(), room)
            && !room.has_subscribers()
            && !room.has_entries()
        {
            entry.remove();
        }
    }

    /// Returns all samples until `now`, and starts the next ones.
    pub(super) fn take_samples(&mut self, now: Duration) -> Samples {
        let mut total = self.accounting.take_sample(now, self.present(), []);
        let mut closed = std::mem::take(&mut self.closed);
        let mut rooms = Vec::with_capacity(self.rooms.len() + closed.len());
        for room in self.rooms.iter() {
            let (id, mut sample) = (room.id(), room.take_sample(now));
            if let Some(before) = closed.remove(id) {
                sample.merge(&before);
            }
            rooms.push((id.clone(), sample));
        }
        rooms.extend(closed);
        for (_, sample) in &rooms {
            total.add_sums(sample);
        }
        let period = now.saturating_sub(std::mem::replace(&mut self.sampled, now));
        Samples { period, total, rooms, dropped: std::mem::take(&mut self.dropped) }
    }

    /// Recounts everything from the rooms, closes rooms without visitors, and corrects the counts. Returns the counts
    /// before and after.
    pub(super) fn recount(&mut self, now: Duration) -> (TableCounts, TableCounts) {
        let rooms = self.rooms.len();
        let empty: Vec<_> = self.rooms.iter().filter(|room| room.is_empty()).cloned().collect();
        for room in &empty {
            self.close_room(room, now);
        }

        let hash = |visitor: &VisitorId| self.visitors.hasher().hash_one(visitor);
        let (mut visitors, mut sessions, mut held) = (0_u64, 0, Vec::new());
        for room in self.rooms.iter() {
            room.for_each_visitor(|(visitor, state)| {
                visitors = visitors.wrapping_add(hash(visitor));
                sessions += state.sessions as usize;
                held.extend(state.next_deadline().map(|deadline| (room.id(), visitor.clone(), deadline)));
            });
        }
        let hashes = self.visitors.iter().map(|(visitor, rooms)| hash(visitor).wrapping_mul((*rooms).into()));
        let known = held.iter().filter(|(room, visitor, at)| self.holds.contains(room, visitor, *at));
        let stored = TableCounts {
            rooms,
            visitors: hashes.fold(0, u64::wrapping_add),
            sessions: self.sessions,
            holds: (self.holds.len(), known.count()),
            union: self.clustered.as_ref().map(|clustered| clustered.totals()).unwrap_or_default(),
        };
        let holds = (held.len(), held.len());
        let union = self.clustered.as_ref().map(|_| Clustered::recount(&self.all_rooms()));
        let union = union.unwrap_or_default();
        let recounted = TableCounts { rooms: self.rooms.len(), visitors, sessions, holds, union };

        if stored.holds != recounted.holds {
            self.holds.clear();
            for (room, visitor, deadline) in held {
                self.holds.replace(room, &visitor, None, Some(deadline));
            }
        }
        if stored.visitors != recounted.visitors {
            let visitors = self.recount_visitors();
            self.change_visitors(now, |stored| *stored = visitors);
        }
        if stored.union != recounted.union {
            self.correct_union(&recounted.union, now);
        }
        self.sessions = sessions;
        (stored, recounted)
    }

    /// Stores what was recounted of all nodes.
    fn correct_union(&mut self, totals: &UnionTotals, now: Duration) {
        let (rooms, before) = (self.all_rooms(), self.present());
        self.accounting.advance(now, before, []);
        if let Some(clustered) = &mut self.clustered {
            clustered.correct(totals, &rooms);
        }
        self.accounting.record_change(before.all, self.present().all);
    }

    fn recount_visitors(&self) -> HashMap<VisitorId, u32> {
        let mut visitors: HashMap<VisitorId, u32> = HashMap::new();
        for room in self.rooms.iter() {
            room.for_each_visitor(|(visitor, _)| *visitors.entry(visitor.clone()).or_default() += 1);
        }
        visitors
    }

    fn change_visitors(&mut self, now: Duration, change: impl FnOnce(&mut HashMap<VisitorId, u32>)) {
        let before = self.present();
        self.accounting.advance(now, before, []);
        change(&mut self.visitors);
        self.accounting.record_change(before.all, self.present().all);
    }

    /// All visitors. How many of them are held or sit is measured by room.
    fn present(&self) -> Present {
        Present { all: u32::try_from(self.visitor_count()).unwrap_or(u32::MAX), ..Present::default() }
    }

    /// Stores the sample of a closed room for the next samples.
    fn store_closed(&mut self, id: &RoomId, sample: Sample) {
        if let Some(before) = self.closed.get_mut(id) {
            before.merge(&sample);
        } else if self.closed.len() < self.closed_limit {
            self.closed.insert(id.clone(), sample);
        } else {
            self.dropped += 1;
        }
    }
}

/// What other nodes do. Without a cluster nothing of this is called.
impl Table {
    /// Applies a change of another node's share. With `is_replay` it is a part of a whole share: a person who enters was
    /// present before, and has not joined. `create` creates a room.
    pub(super) fn apply(
        &mut self,
        slot: Slot,
        change: Change,
        is_replay: bool,
        now: Duration,
        create: impl FnOnce(&RoomId) -> Room,
    ) {
        let Change { room: id, person, entry } = change;
        let found = self.rooms.get(&id).or_else(|| self.bot_rooms.get(&id)).cloned();
        let rooms = self.rooms.len() + self.bot_rooms.len();
        let has_room = self.clustered.as_ref().is_some_and(|it| it.has_room(rooms));
        let room = match (found, &entry) {
            (Some(room), _) => room,
            (None, None) => return,
            (None, Some(_)) if !has_room => return self.refuse(slot),
            (None, Some(_)) => {
                let room = Arc::new(create(&id));
                self.bot_rooms.insert(id, Arc::clone(&room));
                room
            }
        };
        let mut is_refused = false;
        self.update_person(&room, slot, person, is_replay, now, |union| match entry {
            // A person who is known may always change, or leave.
            Some(mut entry) if has_room || union.entry_of(person, slot).is_some() => {
                entry.slot = slot;
                union.put(person, entry, is_replay)
            }
            Some(_) => {
                is_refused = true;
                UnionStep::default()
            }
            None => union.remove(person, slot),
        });
        if is_refused {
            self.refuse(slot);
        }
        self.settle(&room, now);
    }

    fn refuse(&mut self, slot: Slot) {
        if let Some(clustered) = &mut self.clustered {
            clustered.refuse(slot);
        }
    }

    /// What was applied of a share; none where some of it was refused.
    pub(super) fn sum_of(&self, slot: Slot) -> Option<ShareSum> {
        let rooms = self.rooms.len() + self.bot_rooms.len();
        self.clustered.as_ref().and_then(|clustered| clustered.sum(slot, rooms))
    }

    /// Holds a person of a share whose node is not heard any more.
    pub(super) fn lose(
        &mut self,
        room: &Arc<Room>,
        slot: Slot,
        person: PersonKey,
        lost: HeldSince,
        now: Duration,
    ) {
        self.update_person(room, slot, person, false, now, |union| union.lose(person, slot, lost));
    }

    /// Ends a person of such a share, if their hold has ended. Returns when it ends otherwise.
    pub(super) fn sweep(
        &mut self,
        room: &Arc<Room>,
        slot: Slot,
        person: PersonKey,
        now: Duration,
    ) -> Option<u64> {
        let mut next = None;
        self.update_person(room, slot, person, false, now, |union| {
            let (step, until) = union.sweep(person, slot, millis(now));
            next = until;
            step
        });
        self.settle(room, now);
        next
    }

    /// Removes a person of a share that is not needed any more.
    pub(super) fn drop_person(&mut self, room: &Arc<Room>, slot: Slot, person: PersonKey, now: Duration) {
        self.update_person(room, slot, person, true, now, |union| union.remove(person, slot));
        self.settle(room, now);
    }

    /// Forgets visitors who are gone for long enough, and the first ones while they take too much memory. While a peer is
    /// missing, it is not known what it has seen of them. Returns whether there may be more.
    pub(super) fn forget_gone(&mut self, has_missing: bool, now: Duration) -> bool {
        for _ in 0..FORGET_CHUNK {
            let Some(clustered) = self.clustered.as_deref_mut() else { return false };
            let forget = match (clustered.remembers_too_many(), has_missing) {
                (true, _) => Forget::Always,
                (false, false) => Forget::IfUnused,
                (false, true) => Forget::Never,
            };
            let Some(gone) = clustered.pop_gone(now) else { return false };
            let room = self.rooms.get(&gone.room).or_else(|| self.bot_rooms.get(&gone.room)).cloned();
            let Some(room) = room else { continue };
            room.update_elsewhere(now, false, |state| clustered.forget(state, gone, forget, now));
            self.settle(&room, now);
        }
        true
    }

    /// All rooms, those without visitors included, in no order.
    pub(super) fn all_rooms(&self) -> Vec<Arc<Room>> {
        self.rooms.iter().chain(self.bot_rooms.values()).cloned().collect()
    }

    /// Applies a change of a person in a share. A visitor of this node takes over what follows from it.
    fn update_person(
        &mut self,
        room: &Arc<Room>,
        slot: Slot,
        person: PersonKey,
        is_replay: bool,
        now: Duration,
        update: impl FnOnce(&mut RoomUnion) -> UnionStep,
    ) {
        let (step, own) = room.update_elsewhere(now, is_replay, |state| {
            let Some(union) = state.union.as_deref_mut() else { return (UnionStep::default(), None) };
            let step = update(union);
            let own = union.own(person).filter(|own| own.entry.gone().is_none());
            (step, own.map(|own| own.visitor.clone()))
        });
        if let Some(clustered) = &mut self.clustered {
            clustered.applied(slot, &step);
        }
        self.count_person(person, &step, is_replay, now);
        if let Some(visitor) = own {
            self.update_room(room, &visitor, now, |_| OccupancyChange::Unchanged);
        }
    }

    /// Counts a person who has entered or left a room.
    fn count_person(&mut self, person: PersonKey, step: &UnionStep, is_replay: bool, now: Duration) {
        if step.before.counts == step.after.counts {
            return;
        }
        let before = self.present();
        self.accounting.advance(now, before, []);
        if let Some(clustered) = &mut self.clustered {
            clustered.count(person, step);
        }
        let after = self.present().all;
        self.accounting.record_change(if is_replay { after } else { before.all }, after);
    }

    /// Puts a room where it belongs: among those with visitors, or those without, or nowhere.
    fn settle(&mut self, room: &Arc<Room>, now: Duration) {
        let is_open = self.rooms.get(room.id()).is_some();
        match (is_open, room.is_empty()) {
            (true, true) => self.close_room(room, now),
            (false, false) => {
                self.bot_rooms.remove(room.id());
                self.rooms.get_or_insert_with(room.id(), || Arc::clone(room));
            }
            (false, true) if !room.has_subscribers() && !room.has_entries() => {
                self.bot_rooms.remove(room.id());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::super::hold::{Deadline, Hold, HoldReason};
    use super::super::metrics::PresenceMetrics;
    use super::*;
    use crate::panics::Panics;
    use crate::protocol::{Features, Vocabulary};
    use crate::transport::writer::SocketWriter;

    const NOW: Duration = Duration::from_secs(1);

    fn room(name: &str) -> Room {
        let metrics = PresenceMetrics::register(&Panics::register());
        Room::new(id(name), Vocabulary::default(), metrics, NOW)
    }

    fn id(name: &str) -> RoomId {
        RoomId::try_from(name).unwrap()
    }

    fn join(table: &mut Table, name: &str, visitor: &VisitorId) -> Arc<Room> {
        let room = table.open_room(&id(name), || room(name));
        table.update_room(&room, visitor, NOW, |state| state.join(visitor, None));
        table.sessions += 1;
        room
    }

    fn leave(table: &mut Table, room: &Arc<Room>, visitor: &VisitorId) {
        table.sessions -= 1;
        table.update_room(room, visitor, NOW, |state| state.leave(visitor, Instant::now()));
    }

    async fn writer() -> Arc<SocketWriter> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Arc::new(SocketWriter::new(stream))
    }

    #[tokio::test]
    async fn room_of_a_bot_is_in_no_count_until_a_visitor_joins() {
        let mut table = Table::new(NOW, 0, 10);
        let ann = VisitorId::random();
        let lobby = table.open_room_for_bot(&id("lobby"), || room("lobby"));
        let subscriber = lobby.subscribe(writer().await, Features::default());
        assert_eq!((table.rooms.len(), table.bot_rooms.len(), table.bot_sessions), (0, 1, 1));
        assert!(Arc::ptr_eq(&join(&mut table, "lobby", &ann), &lobby));
        assert_eq!((table.rooms.len(), table.bot_rooms.len()), (1, 0));
        leave(&mut table, &lobby, &ann);
        assert_eq!((table.rooms.len(), table.bot_rooms.len()), (0, 1));
        lobby.unsubscribe(subscriber);
        table.remove_bot(&lobby);
        assert_eq!((table.rooms.len(), table.bot_rooms.len(), table.bot_sessions), (0, 0, 0));
    }

    #[tokio::test]
    async fn bot_that_leaves_late_does_not_remove_a_new_room_of_the_same_name() {
        let mut table = Table::new(NOW, 0, 10);
        let ann = VisitorId::random();
        let old = join(&mut table, "lobby", &ann);
        let subscriber = table
            .open_room_for_bot(&id("lobby"), || room("lobby"))
            .subscribe(writer().await, Features::default());
        old.unsubscribe(subscriber); // before `remove_bot`, the visitor leaves, and another bot opens a new room
        leave(&mut table, &old, &ann);
        let new = table.open_room_for_bot(&id("lobby"), || room("lobby"));
        new.subscribe(writer().await, Features::default());
        table.remove_bot(&old);
        assert!(Arc::ptr_eq(&table.bot_rooms[&id("lobby")], &new));
    }

    #[tokio::test]
    async fn samples_of_closed_rooms_beyond_the_limit_are_dropped_and_counted() {
        let mut table = Table::new(NOW, 0, 2);
        let ann = VisitorId::random();
        for name in ["a", "b", "c", "a", "d"] {
            let room = join(&mut table, name, &ann);
            leave(&mut table, &room, &ann);
        }
        let mut samples = table.take_samples(NOW);
        samples.rooms.sort_by(|(a, _), (b, _)| a.cmp(b));
        let joins: Vec<_> =
            samples.rooms.iter().map(|(room, sample)| (room.as_str(), sample.joins)).collect();
        assert_eq!((joins, samples.dropped, samples.total.joins), (vec![("a", 2), ("b", 1)], 2, 5));
        assert_eq!(table.take_samples(NOW).dropped, 0);
    }

    #[tokio::test]
    async fn recount_corrects_every_count_of_the_table() {
        let mut table = Table::new(NOW, 0, 10);
        let [ann, bob] = ["ann", "bob"].map(|name| VisitorId::try_from(name).unwrap());
        join(&mut table, "garden", &ann);
        let lobby = join(&mut table, "lobby", &ann);
        let hold = Hold::new(HoldReason::Grace, Instant::now(), Duration::from_hours(1));
        table.update_room(&lobby, &bob, NOW, |state| state.add_held(&bob, None, hold, None));
        let (stored, right) = table.recount(NOW);
        assert_eq!(stored, right);

        table.sessions += 1;
        table.visitors.remove(&ann);
        table.visitors.insert(VisitorId::random(), 2); // as many as before, and others
        table.holds.clear();
        let (stored, recounted) = table.recount(NOW);
        assert_eq!(recounted, right);
        assert_ne!(stored.visitors, right.visitors);
        assert_eq!((stored.sessions, stored.holds), (right.sessions + 1, (0, 0)));
        assert_eq!((table.rooms_of(&ann), table.rooms_of(&bob), table.visitor_count()), (2, 1, 2));
        let deadline = Deadline { at: hold.deadline, held: Some(hold.reason) };
        assert!(table.holds.contains(lobby.id(), &bob, deadline));

        // Changes of a room that the table does not see.
        for visitor in [&ann, &bob] {
            lobby.update(NOW, |state| state.leave(visitor, Instant::now()));
            lobby.update(NOW, |state| state.release(visitor, Instant::now()));
        }
        let (stored, recounted) = table.recount(NOW);
        assert_eq!((stored.rooms, recounted.rooms), (2, 1));
        assert_eq!((table.rooms_of(&ann), table.visitor_count(), table.holds.len()), (1, 1, 0));
        let (stored, recounted) = table.recount(NOW);
        assert_eq!(stored, recounted);
    }
}
