//! What the table has more where the hub is one of several nodes: the persons of all nodes, and the changes of this
//! node's share that are not published yet.
//!
//! The registry's lock guards it. Without a cluster there is none of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::own_share::Now;
use super::people::{People, RoomTotals};
use super::room::Room;
use super::share::{Change, ClusterKey, Entry, PersonKey, ShareSum, Slot};
use super::stamp::{Stamp, StampClock};
use super::state::{OccupancyChange, RoomState};
use super::union::UnionStep;
use crate::protocol::{RoomId, Time, VisitorId};
use crate::time::{Clock, millis};

/// How long a node remembers at least that a visitor is gone: longer than a message with an earlier hold may take.
const REMEMBER: Duration = Duration::from_mins(1);

/// The most memory of visitors who are gone, in bytes. Beyond it the first of them are forgotten at once: an earlier hold of
/// such a visitor on another node then goes on until its deadline.
pub(super) const GONE_LIMIT: u64 = 64 * 1024 * 1024;

/// The memory of a visitor who is gone, in bytes, with the longest ids and without their room.
pub(super) const GONE_BYTES: u64 = 1_024;

/// The memory of an entry of another node, in bytes, without that of its room.
pub(super) const ENTRY_BYTES: u64 = 120;

/// The most memory of a room without visitors of this node, in bytes, with its name and without its entries.
pub(super) const ROOM_BYTES: u64 = 2_304;

/// The table's part of a cluster.
#[derive(Debug)]
pub(super) struct Clustered {
    key: ClusterKey,
    wall: Clock,
    stamps: StampClock,
    /// In how many rooms each person counts.
    people: People,
    /// Rooms with visitors of this node, which are limited.
    pub own_rooms: usize,
    /// What this node's share adds up to.
    own: ShareSum,
    /// Entries that have changed since they were published last.
    pending: HashMap<(RoomId, PersonKey), Option<Entry>>,
    /// Notified when there are some.
    changed: Arc<Notify>,
    /// Visitors who are gone, in the order in which they may be forgotten.
    gone: VecDeque<Gone>,
    /// Their memory, in bytes.
    gone_bytes: u64,
    shares: HashMap<Slot, RemoteShare>,
    /// The most bytes of entries of other nodes.
    limit: u64,
    /// Entries of other nodes that were refused because of it.
    refused: u64,
}

/// A visitor who is gone.
#[derive(Debug)]
pub(super) struct Gone {
    due: Duration,
    pub room: RoomId,
    pub visitor: VisitorId,
    /// When they left. Who has come back and left again is remembered from then on.
    at: Stamp,
    /// Whether they were the last visitor of this node in the room, which stays in memory for them.
    was_last: bool,
}

impl Gone {
    /// The memory, in bytes.
    fn bytes(&self) -> u64 {
        if self.was_last { GONE_BYTES + ROOM_BYTES } else { GONE_BYTES }
    }
}

/// Whether a visitor who is gone is forgotten.
#[derive(Debug, Clone, Copy)]
pub(super) enum Forget {
    /// They take too much memory.
    Always,
    /// Where no other node needs to know that they are gone.
    IfUnused,
    /// It is not known what other nodes need.
    Never,
}

/// The share of another node, as far as it is applied.
#[derive(Debug, Default)]
struct RemoteShare {
    sum: ShareSum,
    is_incomplete: bool,
}

/// What a node publishes of its share.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The changes since the last time.
    pub changes: Vec<Change>,
    /// What the share adds up to after them.
    pub sum: ShareSum,
    /// A stamp later than all of them.
    pub stamp: Stamp,
    /// Distinct visitors of this node.
    pub people: usize,
    /// Their open room sockets.
    pub sockets: usize,
}

impl Clustered {
    pub(super) fn new(key: ClusterKey, wall: Clock, limit: u64) -> Self {
        Self {
            key,
            wall,
            stamps: StampClock::default(),
            people: People::default(),
            own_rooms: 0,
            own: ShareSum::default(),
            pending: HashMap::new(),
            changed: Arc::default(),
            gone: VecDeque::new(),
            gone_bytes: 0,
            shares: HashMap::new(),
            limit,
            refused: 0,
        }
    }

    /// Distinct persons over all nodes.
    pub(super) fn people(&self) -> usize {
        self.people.len()
    }

    /// Notified when this node's share has changed.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The key by which other nodes know a visitor.
    pub(super) fn person(&self, visitor: &VisitorId) -> PersonKey {
        self.key.person(visitor)
    }

    /// Makes later stamps later than this one.
    pub(super) fn observe(&mut self, stamp: Stamp) {
        self.stamps.observe(stamp, self.wall.wall());
    }

    /// The clocks of a step at `now`.
    pub(super) fn now(&mut self, now: Duration) -> Now {
        let stamp = self.stamps.tick(self.wall.since_epoch());
        Now { stamp, elapsed: millis(now), instant: Instant::now() }
    }

    /// The stamp from which on visitors of the run before are held, who were so since this wall time.
    pub(super) fn since(&self, time: Time) -> Stamp {
        Stamp::at(time.min(self.wall.wall()))
    }

    /// Follows a step of a visitor of this node, which was `change` for the visitors of this node. Returns what it is with
    /// what follows from it, and what it did to the person.
    pub(super) fn follow(
        &mut self,
        state: &mut RoomState,
        room: &RoomId,
        visitor: &VisitorId,
        since: Option<Stamp>,
        (change, now): (OccupancyChange, Duration),
    ) -> (OccupancyChange, Option<(PersonKey, UnionStep)>) {
        let (person, at) = (self.person(visitor), self.now(now));
        let mut change = change;
        let mut step = state.sync(visitor, person, since, &at);
        if state.union.as_ref().is_some_and(|union| union.is_elsewhere(person)) {
            change = then(change, state.reconcile(visitor, person, &at));
            let next = state.sync(visitor, person, None, &at);
            step = match (step, next) {
                (Some(step), Some(next)) => Some(step.then(next)),
                (step, next) => next.or(step),
            };
        }
        if step.is_some() {
            self.publish(state, room, visitor, person, now);
        }
        if let Some(step) = &step {
            self.own.replace(step.old, step.new);
        }
        self.own_rooms = match (change, state.visitors.len()) {
            (OccupancyChange::Entered, 1) => self.own_rooms + 1,
            (OccupancyChange::Left, 0) => self.own_rooms.saturating_sub(1),
            _ => self.own_rooms,
        };
        (change, step.map(|step| (person, step)))
    }

    /// Publishes the entry of a visitor of this node.
    fn publish(
        &mut self,
        state: &RoomState,
        room: &RoomId,
        visitor: &VisitorId,
        person: PersonKey,
        now: Duration,
    ) {
        let entry = state.union.as_ref().and_then(|union| union.own(person)).map(|own| own.entry.clone());
        if let Some(at) = entry.as_ref().and_then(Entry::gone) {
            self.remember(Gone {
                due: now + REMEMBER,
                room: room.clone(),
                visitor: visitor.clone(),
                at,
                was_last: state.visitors.is_empty(),
            });
        }
        self.pending.insert((room.clone(), person), entry);
        self.changed.notify_one();
    }

    /// Counts the rooms of a person. Returns whether they were in a room before, and are in one after.
    pub(super) fn count(&mut self, person: PersonKey, step: &UnionStep) {
        match (step.before.counts, step.after.counts) {
            (false, true) => self.people.enter(person),
            (true, false) => self.people.leave(person),
            _ => {}
        }
    }

    /// Whether one more entry of another node may be stored, of `rooms` rooms in all.
    pub(super) fn has_room(&self, rooms: usize) -> bool {
        self.elsewhere_bytes(rooms) < self.limit
    }

    /// The memory of the entries of other nodes, and of the rooms that are here for them.
    fn elsewhere_bytes(&self, rooms: usize) -> u64 {
        let entries: u64 = self.shares.values().map(|share| share.sum.entries).sum();
        let rooms = rooms.saturating_sub(self.own_rooms) as u64;
        entries.saturating_mul(ENTRY_BYTES).saturating_add(rooms.saturating_mul(ROOM_BYTES))
    }

    /// Counts an entry that was refused, and notes that the share lacks it.
    pub(super) fn refuse(&mut self, slot: Slot) {
        self.refused += 1;
        self.shares.entry(slot).or_default().is_incomplete = true;
    }

    /// Entries of other nodes that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Counts an entry of another node.
    pub(super) fn applied(&mut self, slot: Slot, step: &UnionStep) {
        self.shares.entry(slot).or_default().sum.replace(step.old, step.new);
    }

    /// What a share adds up to; none where entries of it were refused, until an eighth of the limit is free again.
    pub(super) fn sum(&self, slot: Slot, rooms: usize) -> Option<ShareSum> {
        let Some(share) = self.shares.get(&slot) else { return Some(ShareSum::default()) };
        let is_full = || self.elsewhere_bytes(rooms) > self.limit - self.limit / 8;
        (!(share.is_incomplete && is_full())).then_some(share.sum)
    }

    /// The share is not needed any more.
    pub(super) fn drop_share(&mut self, slot: Slot) {
        self.shares.remove(&slot);
    }

    /// The changes that are not published yet. The caller publishes them.
    pub(super) fn take(&mut self, people: usize, sockets: usize) -> Outgoing {
        let changes = std::mem::take(&mut self.pending).into_iter();
        let changes = changes.map(|((room, person), entry)| Change { room, person, entry });
        let stamp = self.stamps.tick(self.wall.since_epoch());
        Outgoing { changes: changes.collect(), sum: self.own, stamp, people, sockets }
    }

    fn remember(&mut self, gone: Gone) {
        self.gone_bytes += gone.bytes();
        self.gone.push_back(gone);
    }

    /// The next visitor who is gone for long enough, or the first one while they take too much memory.
    pub(super) fn pop_gone(&mut self, now: Duration) -> Option<Gone> {
        let is_full = self.remembers_too_many();
        let gone = self.gone.pop_front_if(|gone| is_full || gone.due <= now)?;
        self.gone_bytes -= gone.bytes();
        Some(gone)
    }

    /// Whether the visitors who are gone take too much memory.
    pub(super) fn remembers_too_many(&self) -> bool {
        self.gone_bytes > GONE_LIMIT
    }

    /// Forgets a visitor who is gone, or remembers them for as long again.
    pub(super) fn forget(&mut self, state: &mut RoomState, gone: Gone, forget: Forget, now: Duration) {
        let person = self.person(&gone.visitor);
        let Some(union) = state.union.as_deref_mut() else { return };
        if union.own(person).and_then(|own| own.entry.gone()) != Some(gone.at) {
            return; // back again
        }
        let is_forgotten = match forget {
            Forget::Always => true,
            Forget::IfUnused => union.may_forget(person, millis(now)),
            Forget::Never => false,
        };
        if is_forgotten {
            let step = union.put_own(person, &gone.visitor, None);
            self.own.replace(step.old, step.new);
            self.pending.insert((gone.room, person), None);
            self.changed.notify_one();
        } else {
            self.remember(Gone { due: now + REMEMBER, ..gone });
        }
    }
}

#[cfg(test)]
impl Clustered {
    /// Stores wrong counts of a person, who is in two rooms, and of a share.
    pub(super) fn spoil_for_test(&mut self, person: PersonKey, slot: Slot) {
        self.people.leave(person);
        self.people.leave(person);
        self.shares.entry(slot).or_default().sum.entries += 1;
    }
}

/// What is stored of all nodes, for a recount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UnionTotals {
    /// A sum of hashes: it is equal where the same persons are in the same number of rooms.
    pub people: u64,
    /// Rooms with visitors of this node.
    pub own_rooms: usize,
    /// What each share adds up to that has entries; slot 0 is this node's own.
    pub shares: BTreeMap<Slot, ShareSum>,
}

impl Clustered {
    /// What is stored.
    pub(super) fn totals(&self) -> UnionTotals {
        let others = self.shares.iter().map(|(slot, share)| (*slot, share.sum));
        let shares = others.chain([(Slot::default(), self.own)]).filter(|(_, sum)| sum.entries > 0);
        UnionTotals { people: self.people.sum(), own_rooms: self.own_rooms, shares: shares.collect() }
    }

    /// What should be stored, given the totals of all rooms, which a recount of the rooms has checked. A pass over all
    /// rooms, and not over their entries.
    pub(super) fn recount(rooms: &[Arc<Room>]) -> UnionTotals {
        let mut totals = UnionTotals::default();
        for room in rooms {
            totals.own_rooms += usize::from(room.has_own());
            room.visit_union(|union| {
                let RoomTotals { people, shares } = union.totals();
                totals.people = totals.people.wrapping_add(*people);
                for (slot, sum) in shares {
                    totals.shares.entry(*slot).or_default().add(*sum);
                }
            });
        }
        totals
    }

    /// Stores what was recounted, and counts the rooms of each person again.
    pub(super) fn correct(&mut self, totals: &UnionTotals, rooms: &[Arc<Room>]) {
        self.people.clear();
        for room in rooms {
            let people = &mut self.people;
            room.visit_union(|union| {
                union.for_each_counting(|person| people.enter(person));
            });
        }
        self.own_rooms = totals.own_rooms;
        self.own = totals.shares.get(&Slot::default()).copied().unwrap_or_default();
        for (slot, share) in &mut self.shares {
            share.sum = totals.shares.get(slot).copied().unwrap_or_default();
        }
    }
}

/// A step of the visitors of this node, and what followed.
fn then(first: OccupancyChange, second: OccupancyChange) -> OccupancyChange {
    match (first, second) {
        (OccupancyChange::Entered, OccupancyChange::Left) => OccupancyChange::Unchanged,
        (first, OccupancyChange::Unchanged) => first,
        (_, second) => second,
    }
}
