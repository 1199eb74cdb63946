//! The registry: which rooms there are, and how many people are in them.
//!
//! What joins and leaves change together, and nothing else: the hub holds it behind one lock, so every
//! call is O(1), but for a take_samples. Rooms in which only bots are stand apart, so that whoever
//! counts or lists rooms does not meet them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use super::accounting::{Accounting, Sample};
use super::audit::{AuditedCount, Difference};
use super::hold::Holds;
use super::room::{Room, Snapshot};
use super::room_map::RoomMap;
use super::state::{OccupancyChange, RoomState};
use crate::protocol::{RoomId, VisitorId};

/// All rooms and all people.
#[derive(Debug)]
pub(super) struct Table {
    /// Rooms with somebody in them.
    pub rooms: RoomMap,
    /// Rooms in which only bots are.
    bot_rooms: HashMap<RoomId, Arc<Room>>,
    /// In how many rooms each visitor is.
    visitors: HashMap<VisitorId, u32>,
    /// Visitors without a socket, by the deadline of their hold.
    pub holds: Holds,
    /// Open room sockets of people.
    pub sessions: usize,
    /// Open room sockets of bots.
    pub bots: usize,
    /// When the last take_samples was.
    since: Duration,
    /// What was counted since then over all rooms, but for the moods, which rooms count.
    tally: Accounting,
    /// What was counted since then in rooms that have closed. At most `closed_limit`.
    closed: HashMap<RoomId, Sample>,
    closed_limit: usize,
    /// Closed rooms beyond that.
    untold: usize,
}

/// What is told at a take_samples: who was where since the last one.
#[derive(Debug)]
pub(crate) struct Samples {
    /// How much time it is about.
    pub length: Duration,
    /// All rooms together: whoever was in two of them at once counts once, but for the moods.
    pub whole: Sample,
    /// Each room in which somebody was.
    pub rooms: Vec<(RoomId, Sample)>,
    /// How many rooms came and went and were too many to be remembered.
    pub untold: usize,
}

impl Table {
    /// Nobody is here. `moods` is how many moods are told apart; between two censuses, up to
    /// `closed_limit` rooms that closed are remembered.
    pub(super) fn new(now: Duration, moods: usize, closed_limit: usize) -> Self {
        Self {
            rooms: RoomMap::default(),
            bot_rooms: HashMap::new(),
            visitors: HashMap::new(),
            holds: Holds::default(),
            sessions: 0,
            bots: 0,
            since: now,
            tally: Accounting::new(now, moods),
            closed: HashMap::new(),
            closed_limit,
            untold: 0,
        }
    }

    /// Distinct visitors.
    pub(super) fn people(&self) -> usize {
        self.visitors.len()
    }

    /// In how many rooms a visitor is.
    pub(super) fn rooms_of(&self, visitor: &VisitorId) -> u32 {
        self.visitors.get(visitor).copied().unwrap_or_default()
    }

    /// The room for somebody who comes; `make` makes it where there is none.
    pub(super) fn open(&mut self, id: &RoomId, make: impl FnOnce() -> Room) -> Arc<Room> {
        let Self { rooms, bot_rooms, .. } = self;
        rooms.get_or_insert_with(id, || {
            let known = bot_rooms.remove(id);
            known.unwrap_or_else(|| Arc::new(make()))
        })
    }

    /// The room for a bot; `make` makes it where there is none.
    pub(super) fn open_for_bot(&mut self, id: &RoomId, make: impl FnOnce() -> Room) -> Arc<Room> {
        self.bots += 1;
        let known = self.rooms.get(id).or_else(|| self.bot_rooms.get(id));
        known.cloned().unwrap_or_else(|| {
            let room = Arc::new(make());
            self.bot_rooms.insert(id.clone(), Arc::clone(&room));
            room
        })
    }

    /// Takes a step on a room's presence that is about one visitor, and keeps in line what is known of all rooms.
    /// Returns the room's state after it.
    pub(super) fn step(
        &mut self,
        room: &Arc<Room>,
        visitor: &VisitorId,
        now: Duration,
        step: impl FnOnce(&mut RoomState) -> OccupancyChange,
    ) -> Snapshot {
        let ((before, passage, after), counts) = room.step(now, |presence| {
            let before = presence.hold_of(visitor);
            let passage = step(presence);
            (before, passage, presence.hold_of(visitor))
        });
        if before != after {
            self.holds.change(room.id(), visitor, before, after);
        }
        match passage {
            OccupancyChange::None => {}
            OccupancyChange::Arrived => self.arrived(visitor, now),
            OccupancyChange::Left => self.left(visitor, room, now),
        }
        counts
    }

    /// A visitor is in one room more.
    fn arrived(&mut self, visitor: &VisitorId, now: Duration) {
        self.change(now, |visitors| *visitors.entry(visitor.clone()).or_default() += 1);
    }

    /// A visitor is in one room less, which may have been its last one.
    fn left(&mut self, visitor: &VisitorId, room: &Arc<Room>, now: Duration) {
        self.change(now, |visitors| {
            if let Entry::Occupied(mut entry) = visitors.entry(visitor.clone()) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        });
        if room.is_empty() {
            self.close(room, now);
        }
    }

    /// Nobody is in the room any more, but perhaps bots.
    fn close(&mut self, room: &Arc<Room>, now: Duration) {
        self.rooms.remove(room.id());
        self.remember(room.id(), room.take_sample(now));
        if room.has_audience() {
            self.bot_rooms.insert(room.id().clone(), Arc::clone(room));
        }
    }

    /// A bot that was in this room has left it.
    pub(super) fn bot_left(&mut self, room: &Arc<Room>) {
        self.bots -= 1;
        if let Entry::Occupied(entry) = self.bot_rooms.entry(room.id().clone())
            // Another bot may have left before, and the room of this name be a new one.
            && Arc::ptr_eq(entry.get(), room)
            && !room.has_audience()
        {
            entry.remove();
        }
    }

    /// Tells all until `now` and begins anew.
    pub(super) fn take_samples(&mut self, now: Duration) -> Samples {
        let mut whole = self.tally.take(now, count(&self.visitors), []);
        let mut closed = std::mem::take(&mut self.closed);
        let mut rooms = Vec::with_capacity(self.rooms.len() + closed.len());
        for room in self.rooms.values() {
            let (id, mut sample) = (room.id(), room.take_sample(now));
            if let Some(before) = closed.remove(id) {
                sample.add(&before);
            }
            rooms.push((id.clone(), sample));
        }
        rooms.extend(closed);
        for (_, sample) in &rooms {
            whole.add_moods(sample);
        }
        let length = now.saturating_sub(std::mem::replace(&mut self.since, now));
        Samples { length, whole, rooms, untold: std::mem::take(&mut self.untold) }
    }

    /// Recounts all from the rooms, and returns what was wrong, which is right now.
    pub(super) fn audit(&mut self, now: Duration) -> Vec<Difference> {
        let before = self.rooms.len();
        let empty: Vec<_> = self.rooms.values().filter(|room| room.is_empty()).cloned().collect();
        for room in &empty {
            self.close(room, now);
        }

        // Sums of hashes are equal where, in any order, the same visitors are in as many rooms.
        let hash = |visitor: &VisitorId| self.visitors.hasher().hash_one(visitor);
        let (mut sum, mut sessions, mut held) = (0_u64, 0, Vec::new());
        for room in self.rooms.values() {
            room.for_each_visitor(|(visitor, here)| {
                sum = sum.wrapping_add(hash(visitor));
                sessions += here.sessions as usize;
                held.extend(here.hold().map(|hold| (room.id(), visitor.clone(), hold)));
            });
        }
        let known = held.iter().filter(|(room, visitor, hold)| self.holds.has(room, visitor, *hold)).count();
        let holds = (self.holds.len(), known);
        let kept = self.visitors.iter().map(|(visitor, rooms)| hash(visitor).wrapping_mul((*rooms).into()));
        let kept = kept.fold(0, u64::wrapping_add);

        let differences = [
            Difference::between(AuditedCount::Rooms, &before, &self.rooms.len()),
            Difference::between(AuditedCount::Visitors, &kept, &sum),
            Difference::between(AuditedCount::Sessions, &self.sessions, &sessions),
            Difference::between(AuditedCount::Holds, &holds, &(held.len(), held.len())),
        ];
        if holds != (held.len(), held.len()) {
            self.holds.clear();
            for (room, visitor, hold) in held {
                self.holds.change(room, &visitor, None, Some(hold));
            }
        }
        if kept != sum {
            let visitors = self.recount();
            self.change(now, |kept| *kept = visitors);
        }
        self.sessions = sessions;
        differences.into_iter().flatten().collect()
    }

    /// In how many rooms each visitor is, from the rooms.
    fn recount(&self) -> HashMap<VisitorId, u32> {
        let mut visitors: HashMap<VisitorId, u32> = HashMap::new();
        for room in self.rooms.values() {
            room.for_each_visitor(|(visitor, _)| *visitors.entry(visitor.clone()).or_default() += 1);
        }
        visitors
    }

    fn change(&mut self, now: Duration, step: impl FnOnce(&mut HashMap<VisitorId, u32>)) {
        let before = count(&self.visitors);
        self.tally.pass(now, before, []);
        step(&mut self.visitors);
        self.tally.change(before, count(&self.visitors));
    }

    /// A room closes: what was counted in it is told at the next take_samples.
    fn remember(&mut self, id: &RoomId, sample: Sample) {
        if let Some(before) = self.closed.get_mut(id) {
            before.add(&sample);
        } else if self.closed.len() < self.closed_limit {
            self.closed.insert(id.clone(), sample);
        } else {
            self.untold += 1;
        }
    }
}

fn count(visitors: &HashMap<VisitorId, u32>) -> u32 {
    u32::try_from(visitors.len()).unwrap_or(u32::MAX)
}

/// What no call above does: wrong counts, for the tests of the audit.
#[cfg(test)]
impl Table {
    pub(super) fn break_visitors(&mut self, less: &VisitorId, more: &VisitorId) {
        self.visitors.remove(less);
        self.visitors.insert(more.clone(), 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::super::metrics::PresenceMetrics;
    use super::*;
    use crate::panics::Panics;
    use crate::protocol::Vocabulary;
    use crate::transport::writer::SocketWriter;

    const NOW: Duration = Duration::from_secs(1);

    fn room(name: &str) -> Room {
        Room::new(
            RoomId::try_from(name).unwrap(),
            Vocabulary::default(),
            PresenceMetrics::register(&Panics::register()),
            NOW,
        )
    }

    fn id(name: &str) -> RoomId {
        RoomId::try_from(name).unwrap()
    }

    fn come(table: &mut Table, name: &str, visitor: &VisitorId) -> Arc<Room> {
        let room = table.open(&id(name), || room(name));
        table.step(&room, visitor, NOW, |presence| presence.join(visitor, None));
        room
    }

    fn go(table: &mut Table, room: &Arc<Room>, visitor: &VisitorId) {
        table.step(room, visitor, NOW, |presence| presence.leave(visitor, Instant::now()));
    }

    async fn writer() -> Arc<SocketWriter> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Arc::new(SocketWriter::new(stream))
    }

    #[tokio::test]
    async fn a_room_is_kept_for_a_bot_and_for_nobody_else() {
        let mut table = Table::new(NOW, 0, 10);
        let ann = VisitorId::random();
        let lobby = table.open_for_bot(&id("lobby"), || room("lobby"));
        let place = lobby.enter(writer().await);
        assert_eq!((table.rooms.len(), table.bot_rooms.len(), table.bots), (0, 1, 1));
        assert!(Arc::ptr_eq(&come(&mut table, "lobby", &ann), &lobby));
        assert_eq!((table.rooms.len(), table.bot_rooms.len()), (1, 0));
        go(&mut table, &lobby, &ann);
        assert_eq!((table.rooms.len(), table.bot_rooms.len()), (0, 1));
        lobby.exit(place);
        table.bot_left(&lobby);
        assert_eq!((table.rooms.len(), table.bot_rooms.len(), table.bots), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_bot_that_leaves_late_takes_no_other_room_away() {
        let mut table = Table::new(NOW, 0, 10);
        let ann = VisitorId::random();
        let old = come(&mut table, "lobby", &ann);
        let place = table.open_for_bot(&id("lobby"), || room("lobby")).enter(writer().await);
        old.exit(place); // and before the registry is told, Ann goes, and another bot opens the room anew
        go(&mut table, &old, &ann);
        let new = table.open_for_bot(&id("lobby"), || room("lobby"));
        new.enter(writer().await);
        table.bot_left(&old);
        assert!(Arc::ptr_eq(&table.bot_rooms[&id("lobby")], &new));
    }

    #[tokio::test]
    async fn so_many_closed_rooms_are_remembered_and_the_others_counted() {
        let mut table = Table::new(NOW, 0, 2);
        let ann = VisitorId::random();
        for name in ["a", "b", "c", "a", "d"] {
            let room = come(&mut table, name, &ann);
            go(&mut table, &room, &ann);
        }
        let mut take_samples = table.take_samples(NOW);
        take_samples.rooms.sort_by(|(a, _), (b, _)| a.cmp(b));
        let told: Vec<_> =
            take_samples.rooms.iter().map(|(room, sample)| (room.as_str(), sample.joins)).collect();
        assert_eq!((told, take_samples.untold, take_samples.whole.joins), (vec![("a", 2), ("b", 1)], 2, 5));
        assert_eq!(table.take_samples(NOW).untold, 0);
    }
}
