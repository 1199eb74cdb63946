//! The model: what rooms full of people are, told as plainly as possible.
//!
//! A list of places, recounted from scratch whenever somebody asks. Pure, with no thought for speed; it
//! knows the words of the protocol and nothing of how the hub does it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Milliseconds since the simulation began.
pub type Millis = u64;

/// How late the last state of a room may be told: the end of the window of a small room.
const WINDOW: Millis = 200;

/// A visitor in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    pub room: &'static str,
    pub visitor: &'static str,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the {}", self.visitor, self.room)
    }
}

/// What is told of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub present: u64,
    pub moods: BTreeMap<String, u64>,
}

/// What is told of all rooms together.
#[derive(Debug, PartialEq, Eq)]
pub struct Totals {
    pub people: usize,
    pub sessions: usize,
    pub rooms: usize,
}

/// A hold that is in the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    pub who: Who,
    pub mood: Option<String>,
    pub reason: String,
    pub until: Millis,
}

#[derive(Debug)]
struct Place {
    who: Who,
    /// None while a socket is open.
    hold: Option<Hold>,
}

/// Why somebody without a socket is present, and until when.
#[derive(Debug, Clone)]
struct Hold {
    reason: String,
    until: Millis,
}

/// Everybody.
#[derive(Debug, Default)]
pub struct Model {
    now: Millis,
    places: Vec<Place>,
    moods: BTreeMap<Who, String>,
    /// When a room was last another than before.
    changed: BTreeMap<&'static str, Millis>,
}

impl Model {
    /// A socket opens. Whoever is back is not held.
    pub fn join(&mut self, who: Who, mood: Option<&str>) {
        self.change(|model| {
            model.places.retain(|place| place.who != who || place.hold.is_none());
            model.places.push(Place { who, hold: None });
            model.moods.extend(mood.map(|mood| (who, mood.to_owned())));
        });
    }

    /// A socket is closed with 1000.
    pub fn leave(&mut self, who: Who) {
        self.change(|model| model.close(who));
    }

    /// A socket is lost; the visitor is held, until the later moment where they were held already.
    pub fn lose(&mut self, who: Who, until: Millis) {
        self.change(|model| {
            model.close(who);
            model.places.push(Place { who, hold: Some(Hold { reason: "grace".to_owned(), until }) });
        });
    }

    pub fn set_mood(&mut self, who: Who, mood: Option<&str>) {
        self.change(|model| {
            model.moods.remove(&who);
            model.moods.extend(mood.map(|mood| (who, mood.to_owned())));
        });
    }

    /// Time goes on.
    pub fn pass(&mut self, millis: Millis) {
        self.now += millis;
        let now = self.now;
        self.change(|model| {
            model.places.retain(|place| place.hold.as_ref().is_none_or(|hold| hold.until > now));
        });
    }

    /// Another hub begins, with these holds of the one before, so much later.
    pub fn begin_again(&mut self, seats: Vec<Seat>, later: Millis) {
        *self = Self { now: self.now + later, ..Self::default() };
        let now = self.now;
        for Seat { who, mood, reason, until } in seats.into_iter().filter(|seat| seat.until > now) {
            self.places.push(Place { who, hold: Some(Hold { reason, until }) });
            self.moods.extend(mood.map(|mood| (who, mood)));
        }
    }

    pub fn now(&self) -> Millis {
        self.now
    }

    /// The room as everybody should be told it is.
    pub fn state(&self, room: &str) -> State {
        let mut state = State::default();
        for who in self.present().into_iter().filter(|who| who.room == room) {
            state.present += 1;
            if let Some(mood) = self.moods.get(&who) {
                *state.moods.entry(mood.clone()).or_default() += 1;
            }
        }
        state
    }

    pub fn totals(&self) -> Totals {
        let present = self.present();
        Totals {
            people: present.iter().map(|who| who.visitor).collect::<BTreeSet<_>>().len(),
            sessions: self.places.iter().filter(|place| place.hold.is_none()).count(),
            rooms: present.iter().map(|who| who.room).collect::<BTreeSet<_>>().len(),
        }
    }

    /// Who is where without a socket, why, and until when.
    pub fn held(&self) -> Vec<Seat> {
        let without = self.present().into_iter().filter(|who| !self.has_socket(*who));
        without.filter_map(|who| self.seat(who)).collect()
    }

    /// Who is where on a socket.
    pub fn connected(&self) -> Vec<Who> {
        self.present().into_iter().filter(|who| self.has_socket(*who)).collect()
    }

    pub fn mood(&self, who: Who) -> Option<String> {
        self.moods.get(&who).cloned()
    }

    fn has_socket(&self, who: Who) -> bool {
        self.places.iter().any(|place| place.who == who && place.hold.is_none())
    }

    /// Of all holds of a visitor the one that lasts longest.
    fn seat(&self, who: Who) -> Option<Seat> {
        let holds =
            self.places.iter().filter(|place| place.who == who).filter_map(|place| place.hold.clone());
        let Hold { reason, until } = holds.max_by_key(|hold| hold.until)?;
        Some(Seat { who, mood: self.mood(who), reason, until })
    }

    /// Whether the last state of the room must have been told by now.
    pub fn is_told(&self, room: &str) -> bool {
        self.changed.get(room).is_none_or(|changed| self.now >= changed + WINDOW)
    }

    fn present(&self) -> BTreeSet<Who> {
        self.places.iter().map(|place| place.who).collect()
    }

    fn close(&mut self, who: Who) {
        let open = self.places.iter().position(|place| place.who == who && place.hold.is_none());
        self.places.swap_remove(open.expect("an open socket"));
    }

    /// Takes a step, forgets the moods of those who are gone, and notes what rooms are others now.
    fn change(&mut self, step: impl FnOnce(&mut Self)) {
        let states = |model: &Self| super::ROOMS.map(|room| model.state(room));
        let before = states(self);
        step(self);
        let present = self.present();
        self.moods.retain(|who, _| present.contains(who));
        for (room, (before, after)) in super::ROOMS.iter().zip(before.iter().zip(&states(self))) {
            if before != after {
                self.changed.insert(room, self.now);
            }
        }
    }
}
