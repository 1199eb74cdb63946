//! The hub: all rooms, and the seats that people have in them.
//!
//! A [`Seat`] is one session's place in a room, and giving it up is its destructor, so that no way
//! of ending a session can leave a ghost behind. A lost session's seat becomes a [`Hold`], which
//! keeps the visitor present until it is dropped or the visitor is back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use super::Config;
use super::activity::{Activity, Attention, LiveActivity};
use super::audience::Place;
use super::meter::Meter;
use super::outlet::Outlet;
use super::presence::{HoldId, Passage, Presence};
use super::room::{Counts, Room};
use crate::sync::lock;
use crate::wire::{Mood, RoomId, VisitorId, Vocabulary};

/// Everything live. Shared by all sessions and by HTTP.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    meter: Meter,
    activity: Arc<Activity>,
    /// Joins and leaves change rooms and people together. Every critical section is O(1); deliveries
    /// and changes of mood do not come here. Taken before a room's own lock, never after it.
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    rooms: HashMap<RoomId, Arc<Room>>,
    /// In how many rooms each visitor is.
    visitors: HashMap<VisitorId, u32>,
    sessions: usize,
}

/// As many rooms exist as the configuration allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no more rooms can be opened now")]
pub struct RoomsFull;

/// How many there are, over all rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Distinct visitors.
    pub visitors: usize,
    /// Open room sockets.
    pub sessions: usize,
    /// Rooms with somebody in them.
    pub rooms: usize,
}

impl Hub {
    /// An empty hub.
    #[must_use]
    pub fn new(config: Config, meter: Meter) -> Arc<Self> {
        Arc::new(Self { config, meter, activity: Arc::default(), registry: Mutex::default() })
    }

    /// The moods that may be set.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.config.moods
    }

    /// Whether [`join`](Self::join) would find a place for this room.
    ///
    /// # Errors
    /// The room does not exist and no more rooms may.
    pub fn check_capacity(&self, room: &RoomId) -> Result<(), RoomsFull> {
        let registry = lock(&self.registry);
        if registry.rooms.len() < self.config.max_rooms || registry.rooms.contains_key(room) {
            Ok(())
        } else {
            Err(RoomsFull)
        }
    }

    /// A session of `visitor` joins `room`, which is made where it does not exist. `outlet` is told
    /// every state that is newer than the returned one.
    ///
    /// # Errors
    /// The room does not exist and no more rooms may.
    pub fn join(
        self: &Arc<Self>,
        room: &RoomId,
        visitor: &VisitorId,
        mood: Option<Mood>,
        outlet: Arc<Outlet>,
    ) -> Result<(Seat, Counts), RoomsFull> {
        let mut registry = lock(&self.registry);
        let open_rooms = registry.rooms.len();
        let room = match registry.rooms.entry(room.clone()) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(_) if open_rooms >= self.config.max_rooms => return Err(RoomsFull),
            Entry::Vacant(entry) => {
                let made = Room::new(entry.key().clone(), self.config.moods.clone(), self.meter.clone());
                Arc::clone(entry.insert(Arc::new(made)))
            }
        };
        let place = room.enter(outlet);
        let (passage, counts) = room.step(|presence| presence.join(visitor, mood));
        if passage == Passage::Arrived {
            *registry.visitors.entry(visitor.clone()).or_default() += 1;
        }
        registry.sessions += 1;
        drop(registry);
        self.meter.joins.increment(1);
        let seat = Seat { hub: Arc::clone(self), room, visitor: visitor.clone(), place, given_up: false };
        Ok((seat, counts))
    }

    /// The room as it is now; a room in which nobody is counts zero.
    #[must_use]
    pub fn counts(&self, room: &RoomId) -> Counts {
        let found = lock(&self.registry).rooms.get(room).cloned();
        found.map_or_else(
            || Counts { seq: 0, present: 0, moods: self.config.moods.zero() },
            |room| room.counts(),
        )
    }

    /// How many there are, over all rooms.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let registry = lock(&self.registry);
        Totals { visitors: registry.visitors.len(), sessions: registry.sessions, rooms: registry.rooms.len() }
    }

    /// Up to `limit` rooms, in no order.
    #[must_use]
    pub fn rooms(&self, limit: usize) -> Vec<Arc<Room>> {
        lock(&self.registry).rooms.values().take(limit).cloned().collect()
    }

    /// What is going on, over all rooms.
    #[must_use]
    pub fn live_activity(&self) -> LiveActivity {
        let totals = self.totals();
        let rooms = self.rooms(usize::MAX);
        self.activity.summary(&self.config.moods, totals, &rooms)
    }

    /// A session's part in the live activity.
    #[must_use]
    pub fn attention(&self, visitor: &VisitorId) -> Attention {
        Attention::new(Arc::clone(&self.activity), visitor.clone())
    }

    /// A step that may take somebody, and with them the room, away.
    fn step_out(
        &self,
        room: &Arc<Room>,
        visitor: &VisitorId,
        sessions: usize,
        step: impl FnOnce(&mut Presence) -> Passage,
    ) {
        let mut registry = lock(&self.registry);
        registry.sessions -= sessions;
        if room.step(step).0 != Passage::Left {
            return;
        }
        if let Entry::Occupied(mut entry) = registry.visitors.entry(visitor.clone()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        if room.is_empty() {
            registry.rooms.remove(room.id());
        }
    }
}

/// One session's place in a room. Dropping it leaves the room.
#[derive(Debug)]
pub struct Seat {
    hub: Arc<Hub>,
    room: Arc<Room>,
    visitor: VisitorId,
    place: Place,
    given_up: bool,
}

impl Seat {
    /// In which room.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        self.room.id()
    }

    /// Whose seat it is.
    #[must_use]
    pub fn visitor(&self) -> &VisitorId {
        &self.visitor
    }

    /// Sets or clears the visitor's mood in this room.
    pub fn set_mood(&self, mood: Option<Mood>) {
        self.room.step(|presence| presence.set_mood(&self.visitor, mood));
    }

    /// The session was lost: the visitor stays present until the hold is dropped, or comes back.
    #[must_use]
    pub fn lose(mut self) -> Hold {
        let mut id = None;
        self.give_up(|presence, visitor| {
            id = presence.lose(visitor);
            Passage::None
        });
        Hold { hub: Arc::clone(&self.hub), room: Arc::clone(&self.room), visitor: self.visitor.clone(), id }
    }

    fn give_up(&mut self, step: impl FnOnce(&mut Presence, &VisitorId) -> Passage) {
        if std::mem::replace(&mut self.given_up, true) {
            return;
        }
        self.room.exit(self.place);
        self.hub.step_out(&self.room, &self.visitor, 1, |presence| step(presence, &self.visitor));
        self.hub.meter.leaves.increment(1);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.give_up(Presence::leave);
    }
}

/// A place that is held for somebody whose session was lost. Dropping it gives the place up, unless
/// the visitor is back.
#[derive(Debug)]
pub struct Hold {
    hub: Arc<Hub>,
    room: Arc<Room>,
    visitor: VisitorId,
    id: Option<HoldId>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.hub.step_out(&self.room, &self.visitor, 0, |presence| presence.release(&self.visitor, id));
        }
    }
}
