//! The model of the presence: a list of sockets, holds and sits, which each query counts from scratch.
//!
//! It is pure and not optimized. It follows the protocol and shares no code with the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Milliseconds since the start of the scenario.
pub type Millis = u64;

/// The longest delay before a room's last state is published: the publish window of a small room.
const WINDOW: Millis = 200;

/// A visitor in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub room: &'static str,
    pub visitor: &'static str,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the {}", self.visitor, self.room)
    }
}

/// The published state of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub present: u64,
    pub moods: BTreeMap<String, u64>,
}

/// The totals over all rooms.
#[derive(Debug, PartialEq, Eq)]
pub struct Totals {
    pub visitors: usize,
    pub sessions: usize,
    pub rooms: usize,
}

/// A hold in the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SavedHold {
    pub member: Member,
    pub mood: Option<String>,
    pub reason: String,
    pub until: Millis,
    /// The end of the visitor's sit.
    pub sit_until: Option<Millis>,
    /// When the hub stopped that saved it. None while it runs.
    pub stopped_at: Option<Millis>,
}

/// A socket, or a hold without one.
#[derive(Debug)]
struct Occupant {
    member: Member,
    /// None while a socket is open.
    hold: Option<Hold>,
}

/// The reason and the deadline for which a visitor without a socket is present.
#[derive(Debug, Clone)]
struct Hold {
    reason: String,
    until: Millis,
}

/// A visitor's sit in a room.
#[derive(Debug, Clone, Copy)]
struct Sit {
    until: Millis,
    /// Whether it holds the visitor without a socket.
    holds: bool,
}

/// All sockets, holds and sits of all rooms.
#[derive(Debug, Default)]
pub struct Model {
    now: Millis,
    occupants: Vec<Occupant>,
    moods: BTreeMap<Member, String>,
    sits: BTreeMap<Member, Sit>,
    /// The last change of each room.
    changed: BTreeMap<&'static str, Millis>,
}

impl Model {
    /// Opens a socket. It removes the visitor's holds.
    pub fn join(&mut self, member: Member, mood: Option<&str>) {
        self.change(|model| {
            model.occupants.retain(|occupant| occupant.member != member || occupant.hold.is_none());
            model.occupants.push(Occupant { member, hold: None });
            model.moods.extend(mood.map(|mood| (member, mood.to_owned())));
        });
    }

    /// Closes a socket with 1000. The visitor's sit ends with the last one.
    pub fn leave(&mut self, member: Member) {
        self.change(|model| {
            model.close(member);
            if !model.has_socket(member) {
                model.sits.remove(&member);
            }
        });
    }

    /// Loses a socket: the visitor is held until `until`, or longer if an earlier hold or the sit lasts longer. A closed
    /// page is held by no sit.
    pub fn lose(&mut self, member: Member, until: Millis, is_closed: bool) {
        self.change(|model| {
            model.close(member);
            model.occupants.push(Occupant { member, hold: Some(Hold { reason: "grace".to_owned(), until }) });
            if let Some(sit) = model.sits.get_mut(&member) {
                sit.holds = !is_closed;
            }
        });
    }

    /// Begins a sit until this time, or ends the one that runs.
    pub fn sit(&mut self, member: Member, until: Option<Millis>) {
        self.sits.remove(&member);
        self.sits.extend(until.map(|until| (member, Sit { until, holds: false })));
    }

    pub fn set_mood(&mut self, member: Member, mood: Option<&str>) {
        self.change(|model| {
            model.moods.remove(&member);
            model.moods.extend(mood.map(|mood| (member, mood.to_owned())));
        });
    }

    /// Advances the time, and removes expired holds.
    pub fn pass(&mut self, millis: Millis) {
        self.now += millis;
        let now = self.now;
        self.change(|model| {
            model.occupants.retain(|occupant| occupant.hold.as_ref().is_none_or(|hold| hold.until > now));
            model.sits.retain(|_, sit| sit.until > now);
        });
    }

    /// Starts the next hub after this delay, with the saved holds. The time since a stop does not count: the delays of all
    /// restarts are far below the limit for that.
    pub fn restart(&mut self, saved_holds: Vec<SavedHold>, later: Millis) {
        *self = Self { now: self.now + later, ..Self::default() };
        let now = self.now;
        for SavedHold { member, mood, reason, until, sit_until, stopped_at } in saved_holds {
            let away = now - stopped_at.unwrap_or(now);
            let (until, holds) = (until + away, reason == "sit");
            if until <= now {
                continue;
            }
            let sit_until = sit_until.map(|until| until + away).filter(|until| *until > now);
            self.sits.extend(sit_until.map(|until| (member, Sit { until, holds })));
            if !holds {
                self.occupants.push(Occupant { member, hold: Some(Hold { reason, until }) });
            }
            self.moods.extend(mood.map(|mood| (member, mood)));
        }
    }

    pub fn now(&self) -> Millis {
        self.now
    }

    /// Returns the state of a room that should be published.
    pub fn state(&self, room: &str) -> State {
        let mut state = State::default();
        for member in self.present().into_iter().filter(|member| member.room == room) {
            state.present += 1;
            if let Some(mood) = self.moods.get(&member) {
                *state.moods.entry(mood.clone()).or_default() += 1;
            }
        }
        state
    }

    pub fn totals(&self) -> Totals {
        let present = self.present();
        Totals {
            visitors: present.iter().map(|member| member.visitor).collect::<BTreeSet<_>>().len(),
            sessions: self.occupants.iter().filter(|occupant| occupant.hold.is_none()).count(),
            rooms: present.iter().map(|member| member.room).collect::<BTreeSet<_>>().len(),
        }
    }

    /// Returns the holds of visitors without a socket.
    pub fn held(&self) -> Vec<SavedHold> {
        let without = self.present().into_iter().filter(|member| !self.has_socket(*member));
        without.filter_map(|member| self.saved_hold(member)).collect()
    }

    /// Returns what a running hub must save: also the sits of visitors with a socket.
    pub fn saved(&self) -> Vec<SavedHold> {
        self.present().into_iter().filter_map(|member| self.saved_hold(member)).collect()
    }

    /// Returns the end of the visitor's sit.
    pub fn sit_until(&self, member: Member) -> Option<Millis> {
        self.sits.get(&member).map(|sit| sit.until)
    }

    /// Returns the last end of all sits.
    pub fn last_sit(&self) -> Millis {
        self.sits.values().map(|sit| sit.until).max().unwrap_or_default()
    }

    /// Returns the visitors with a socket.
    pub fn connected(&self) -> Vec<Member> {
        self.present().into_iter().filter(|member| self.has_socket(*member)).collect()
    }

    pub fn mood(&self, member: Member) -> Option<String> {
        self.moods.get(&member).cloned()
    }

    fn has_socket(&self, member: Member) -> bool {
        self.occupants.iter().any(|occupant| occupant.member == member && occupant.hold.is_none())
    }

    /// Returns the visitor's hold with the latest deadline. A sit counts if it holds the visitor, or would after a crash.
    fn saved_hold(&self, member: Member) -> Option<SavedHold> {
        let holds = self
            .occupants
            .iter()
            .filter(|occupant| occupant.member == member)
            .filter_map(|occupant| occupant.hold.clone());
        let has_socket = self.has_socket(member);
        let sit = self.sits.get(&member).filter(|sit| sit.holds || has_socket);
        let sit = sit.map(|sit| Hold { reason: "sit".to_owned(), until: sit.until });
        let holds = sit.into_iter().chain(holds.filter(|_| !has_socket));
        let Hold { reason, until } = holds.max_by_key(|hold| hold.until)?;
        let (mood, sit_until) = (self.mood(member), self.sit_until(member));
        Some(SavedHold { member, mood, reason, until, sit_until, stopped_at: None })
    }

    /// Returns whether the publish window after the room's last change is over.
    pub fn is_published(&self, room: &str) -> bool {
        self.changed.get(room).is_none_or(|changed| self.now >= changed + WINDOW)
    }

    fn present(&self) -> BTreeSet<Member> {
        let sits = self.sits.iter().filter(|(_, sit)| sit.holds).map(|(member, _)| *member);
        self.occupants.iter().map(|occupant| occupant.member).chain(sits).collect()
    }

    fn close(&mut self, member: Member) {
        let open =
            self.occupants.iter().position(|occupant| occupant.member == member && occupant.hold.is_none());
        self.occupants.swap_remove(open.expect("an open socket"));
    }

    /// Applies a change, removes the moods of visitors who are not present, and records which rooms have changed.
    fn change(&mut self, step: impl FnOnce(&mut Self)) {
        let states = |model: &Self| super::ROOMS.map(|room| model.state(room));
        let before = states(self);
        step(self);
        let present = self.present();
        self.moods.retain(|member, _| present.contains(member));
        self.sits.retain(|member, _| present.contains(member));
        for (room, (before, after)) in super::ROOMS.iter().zip(before.iter().zip(&states(self))) {
            if before != after {
                self.changed.insert(room, self.now);
            }
        }
    }
}
