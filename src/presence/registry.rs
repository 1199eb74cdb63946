//! The hub: all rooms, and the seats that people have in them.
//!
//! A [`Membership`] is one session's place in a room, and giving it up is its destructor, so that no way
//! of ending a session can leave a ghost behind. A lost session's membership leaves a [`Hold`], which keeps the
//! visitor present until its deadline or until the visitor is back. A bot's membership is in the subscribers
//! only: it is told everything and counts nowhere.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Config;
use super::activity::{ActivityIndex, VisitorActivity};
use super::audit::Difference;
use super::broadcast::SubscriberId;
use super::hold::{Hold, HoldReason};
use super::metrics::PresenceMetrics;
use super::room::{Room, Snapshot};
use super::state::{OccupancyChange, RoomState, Visitor};
use super::table::{Samples, Table};
use crate::protocol::{Mood, RoomId, VisitorId, Vocabulary};
use crate::sync::lock;
use crate::time::Clock;
use crate::transport::writer::SocketWriter;

/// Everything live. Shared by all sessions and by HTTP.
#[derive(Debug)]
pub struct Registry {
    config: Config,
    metrics: PresenceMetrics,
    clock: Clock,
    activity: Arc<ActivityIndex>,
    /// The hub ends: whoever is lost from now on is held for the next one.
    pub(super) is_ending: AtomicBool,
    /// Joins and leaves change rooms and people together. Every critical section is O(1), or one chunk of a pass over
    /// the rooms, but for one short pass over all of them at a take_samples, and one over the people at an audit, which for 15,000 of
    /// them takes about a millisecond; deliveries and changes of mood do not come here. Taken
    /// before a room's own lock, never after it.
    pub(super) table: Mutex<Table>,
}

/// There is no place in a room for a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JoinError {
    /// As many rooms exist as may.
    #[error("no more rooms can be opened now")]
    RoomsFull,
    /// The visitor is in as many rooms as a visitor may be.
    #[error("this visitor is in too many rooms")]
    TooManyRooms,
}

/// Somebody who is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    /// The room.
    pub room: RoomId,
    /// Who it is.
    pub visitor: VisitorId,
    /// In what mood.
    pub mood: Option<Mood>,
    /// Their hold, where they have no socket.
    pub hold: Option<Hold>,
}

/// How many there are, over all rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceTotals {
    /// Distinct visitors.
    pub visitors: usize,
    /// Open room sockets of people.
    pub sessions: usize,
    /// Rooms with somebody in them.
    pub rooms: usize,
}

impl Registry {
    /// An empty hub.
    #[must_use]
    pub(crate) fn new(config: Config, clock: Clock, metrics: PresenceMetrics) -> Arc<Self> {
        let table = Table::new(clock.elapsed(), config.moods.names().count(), config.max_rooms);
        Arc::new(Self {
            config,
            metrics,
            clock,
            activity: Arc::default(),
            is_ending: AtomicBool::new(false),
            table: Mutex::new(table),
        })
    }

    /// The moods that may be set.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.config.moods
    }

    /// Whether [`join`](Self::join) would find a place in this room.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn check_join(&self, room: &RoomId, visitor: &VisitorId) -> Result<(), JoinError> {
        self.find_room(&lock(&self.table), room, visitor)
    }

    pub(super) fn find_room(
        &self,
        table: &Table,
        room: &RoomId,
        visitor: &VisitorId,
    ) -> Result<(), JoinError> {
        let known = table.rooms.get(room);
        if known.is_none() && table.rooms.len() >= self.config.max_rooms {
            return Err(JoinError::RoomsFull);
        }
        let is_here = || known.is_some_and(|room| room.has(visitor));
        match self.config.max_rooms_per_visitor {
            Some(most) if table.rooms_of(visitor) >= most && !is_here() => Err(JoinError::TooManyRooms),
            _ => Ok(()),
        }
    }

    /// A session of `visitor` joins `room`, which is made where it does not exist. `writer` is told
    /// every state that is newer than the returned one.
    ///
    /// # Errors
    /// There is no place.
    pub(crate) fn join(
        self: &Arc<Self>,
        room: &RoomId,
        visitor: &VisitorId,
        mood: Option<Mood>,
        writer: Arc<SocketWriter>,
    ) -> Result<(Membership, Snapshot), JoinError> {
        let mut table = lock(&self.table);
        self.find_room(&table, room, visitor)?;
        // Read under the lock, so that time does not go back.
        let now = self.clock.elapsed();
        let room = table.open(room, || self.new_room(room, now));
        let place = room.enter(writer);
        let counts = table.step(&room, visitor, now, |presence| presence.join(visitor, mood));
        table.sessions += 1;
        drop(table);
        self.metrics.joins.increment(1);
        Ok((self.membership(room, visitor, place, false), counts))
    }

    /// Everybody who is in a room, in no order.
    #[must_use]
    pub(crate) fn occupants(&self) -> Vec<Occupant> {
        self.occupants_where(|_| true)
    }

    pub(super) fn occupants_where(&self, which: impl Fn(&Visitor) -> bool) -> Vec<Occupant> {
        let mut people = Vec::new();
        let chunks = (0..).map_while(|chunk| self.room_chunk(chunk));
        for room in chunks.flatten() {
            let found = room.visitors(usize::MAX, &which).into_iter();
            people.extend(found.map(|(id, visitor)| Occupant {
                room: room.id().clone(),
                visitor: id,
                mood: visitor.mood,
                hold: visitor.hold(),
            }));
        }
        people
    }

    /// A bot's session attends `room`: `writer` is told every state that is newer than the returned one, and
    /// nobody is told of the bot.
    pub(crate) fn join_as_bot(
        self: &Arc<Self>,
        room: &RoomId,
        visitor: &VisitorId,
        writer: Arc<SocketWriter>,
    ) -> (Membership, Snapshot) {
        let mut table = lock(&self.table);
        let room = table.open_for_bot(room, || self.new_room(room, self.clock.elapsed()));
        let place = room.enter(writer);
        drop(table);
        let counts = room.snapshot();
        (self.membership(room, visitor, place, true), counts)
    }

    pub(super) fn new_room(&self, id: &RoomId, now: Duration) -> Room {
        Room::new(id.clone(), self.config.moods.clone(), self.metrics.clone(), now)
    }

    fn membership(
        self: &Arc<Self>,
        room: Arc<Room>,
        visitor: &VisitorId,
        place: SubscriberId,
        is_bot: bool,
    ) -> Membership {
        Membership {
            registry: Arc::clone(self),
            room,
            visitor: visitor.clone(),
            place,
            is_bot,
            given_up: false,
        }
    }

    /// Who was where since the last take_samples. The next one begins now.
    #[must_use]
    pub(crate) fn take_samples(&self) -> Samples {
        let mut table = lock(&self.table);
        table.take_samples(self.clock.elapsed())
    }

    /// The room as it is now; a room in which nobody is counts zero.
    #[must_use]
    pub fn snapshot(&self, room: &RoomId) -> Snapshot {
        let found = lock(&self.table).rooms.get(room).cloned();
        found.map_or_else(
            || Snapshot { seq: 0, present: 0, held: 0, moods: self.config.moods.zero() },
            |room| room.snapshot(),
        )
    }

    /// How many there are, over all rooms.
    #[must_use]
    pub fn totals(&self) -> PresenceTotals {
        let table = lock(&self.table);
        PresenceTotals { visitors: table.people(), sessions: table.sessions, rooms: table.rooms.len() }
    }

    /// Open room sockets of bots, which are in none of the totals.
    #[must_use]
    pub(crate) fn bot_sessions(&self) -> usize {
        lock(&self.table).bots
    }

    /// Up to `limit` rooms, in no order.
    #[must_use]
    pub fn rooms(&self, limit: usize) -> Vec<Arc<Room>> {
        lock(&self.table).rooms.values().take(limit).cloned().collect()
    }

    /// The rooms of one chunk of a pass over all of them, in no order; none after the last chunk. Others may join and
    /// leave between two chunks.
    pub(super) fn room_chunk(&self, chunk: usize) -> Option<Vec<Arc<Room>>> {
        lock(&self.table).rooms.chunk(chunk)
    }

    pub(super) fn activity(&self) -> &ActivityIndex {
        &self.activity
    }

    /// Recounts who is where from the rooms, and returns what was wrong, which is right now.
    pub(super) fn audit_table(&self) -> Vec<Difference> {
        let mut table = lock(&self.table);
        table.audit(self.clock.elapsed())
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(super) fn metrics(&self) -> &PresenceMetrics {
        &self.metrics
    }

    /// A session's part in the live activity.
    #[must_use]
    pub(crate) fn visitor_activity(&self, visitor: &VisitorId) -> VisitorActivity {
        VisitorActivity::new(Arc::clone(&self.activity), visitor.clone())
    }

    /// Holds `visitor`, who was here before this hub began. Whoever is here is left as they are.
    ///
    /// # Errors
    /// There is no place.
    pub(crate) fn hold(
        &self,
        room: &RoomId,
        visitor: &VisitorId,
        mood: Option<Mood>,
        hold: Hold,
    ) -> Result<(), JoinError> {
        let mut table = lock(&self.table);
        self.find_room(&table, room, visitor)?;
        let now = self.now();
        let room = table.open(room, || self.new_room(room, now));
        table.step(&room, visitor, now, |presence| presence.hold(visitor, mood, hold));
        Ok(())
    }

    /// The hub ends: whoever is lost from now on is held for the next one, which knows until when.
    pub(crate) fn begin_restart(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Ends the holds of a visitor in all rooms, as when they leave.
    pub(crate) fn release(&self, visitor: &VisitorId) {
        let mut table = lock(&self.table);
        for room in table.holds.rooms_of(visitor) {
            self.step_held(&mut table, &room, visitor, |presence| presence.release(visitor, Instant::now()));
        }
    }

    /// Ends the hold whose deadline is first, where it is over by `now`; or else says when that is.
    pub(super) fn expire_next(&self, now: Instant) -> ControlFlow<Option<Instant>> {
        let mut table = lock(&self.table);
        let Some((room, visitor)) = table.holds.take_over(now) else {
            return ControlFlow::Break(table.holds.next());
        };
        self.step_held(&mut table, &room, &visitor, |presence| presence.expire(&visitor, now));
        ControlFlow::Continue(())
    }

    fn step_held(
        &self,
        table: &mut Table,
        room: &RoomId,
        visitor: &VisitorId,
        step: impl FnOnce(&mut RoomState) -> OccupancyChange,
    ) {
        if let Some(room) = table.rooms.get(room).cloned() {
            table.step(&room, visitor, self.now(), step);
        }
    }

    /// Everybody who is in a room without a socket, in no order.
    #[must_use]
    pub(crate) fn held_occupants(&self) -> Vec<Occupant> {
        self.occupants_where(|visitor| visitor.hold().is_some())
    }

    /// How many are held, by the reason: a visitor counts once for each room.
    #[must_use]
    pub(crate) fn hold_counts(&self) -> Vec<(HoldReason, usize)> {
        lock(&self.table).holds.by_reason().collect()
    }

    /// Notified when a new hold ends before all others.
    #[must_use]
    pub(super) fn earlier_deadline(&self) -> Arc<Notify> {
        lock(&self.table).holds.sooner()
    }

    /// A number that is another one whenever somebody else is held, or the same for longer.
    #[must_use]
    pub(crate) fn holds_version(&self) -> u64 {
        lock(&self.table).holds.version()
    }
}

/// One session's place in a room. Dropping it leaves the room.
#[derive(Debug)]
pub(crate) struct Membership {
    registry: Arc<Registry>,
    room: Arc<Room>,
    visitor: VisitorId,
    place: SubscriberId,
    is_bot: bool,
    given_up: bool,
}

impl Membership {
    /// In which room.
    #[must_use]
    pub(crate) fn room(&self) -> &RoomId {
        self.room.id()
    }

    /// Whose membership it is.
    #[must_use]
    pub(crate) fn visitor(&self) -> &VisitorId {
        &self.visitor
    }

    /// Whether it is a bot's, which counts nowhere.
    #[must_use]
    pub(crate) fn is_bot(&self) -> bool {
        self.is_bot
    }

    /// Sets or clears the visitor's mood in this room. Bots have none.
    pub(crate) fn set_mood(&self, mood: Option<Mood>) {
        if !self.is_bot {
            self.room.step(self.registry.clock.elapsed(), |presence| presence.set_mood(&self.visitor, mood));
        }
    }

    /// The session was lost: the visitor is held for so long, or until the restart where the hub ends.
    pub(crate) fn leave_with_hold(mut self, reason: HoldReason, length: Duration) {
        let now = Instant::now();
        let is_ending = self.registry.is_ending.load(Ordering::Relaxed);
        let (reason, length) =
            if is_ending { (HoldReason::Restart, Duration::MAX) } else { (reason, length) };
        let hold = Hold::new(reason, now, length);
        self.give_up(|presence, visitor| presence.leave_with_hold(visitor, hold, now));
    }

    fn give_up(&mut self, step: impl FnOnce(&mut RoomState, &VisitorId) -> OccupancyChange) {
        if std::mem::replace(&mut self.given_up, true) {
            return;
        }
        self.room.exit(self.place);
        if self.is_bot {
            lock(&self.registry.table).bot_left(&self.room);
            return;
        }
        let mut table = lock(&self.registry.table);
        table.sessions -= 1;
        let now = self.registry.clock.elapsed();
        table.step(&self.room, &self.visitor, now, |presence| step(presence, &self.visitor));
        drop(table);
        self.registry.metrics.leaves.increment(1);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.give_up(|presence, visitor| presence.leave(visitor, Instant::now()));
    }
}

#[cfg(test)]
impl Registry {
    /// For the tests of the audit.
    pub(super) fn break_table(&self, break_it: impl FnOnce(&mut Table)) {
        break_it(&mut lock(&self.table));
    }
}
