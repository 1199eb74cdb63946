//! The ledger: every event that a client has made, and what the database must say of it in the end.
//!
//! A client keeps an event until it is acked. Watch sessions are told in many messages, in any order; the ledger
//! merges them by the rules of the protocol, in its own words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

use super::START;
use super::model::{Millis, Who};
use super::random::Dice;

const HOUR: Millis = 3_600_000;
const PATHS: [&str; 4] = ["/", "/sit", "/breathe", "/sit?with=others"];
const STATES: [&str; 3] = ["paused", "playing", "ended"]; // the later, the stronger

/// Names an event.
pub type Number = usize;

#[derive(Debug)]
pub struct Event {
    pub who: Who,
    pub id: Uuid,
    pub body: Body,
    /// How often it was sent.
    pub sent: u32,
    /// The hub has said that it is in the database.
    pub is_acked: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Body {
    View { path: &'static str, at: Option<Millis> },
    Watch { state: usize, at: Millis, started_at: Millis, watched: Millis, position: Option<u64> },
}

#[derive(Debug, Default)]
pub struct Ledger {
    events: Vec<Event>,
    watches: Vec<(Who, Uuid)>,
}

impl Ledger {
    /// Somebody looks at a page, and tells when, or leaves that to the hub.
    pub fn view(&mut self, dice: &mut Dice, who: Who, now: Millis) -> Number {
        let at = dice.once_in(2).then(|| START + now - dice.below(2 * HOUR));
        let body = Body::View { path: dice.one_of(&PATHS), at };
        self.add(who, dice.id(), body)
    }

    /// A watch session begins or goes on. What it claims is more than the hub could measure, and less than the
    /// time since its start, so that it is known to the millisecond what must become of it.
    pub fn watch(&mut self, dice: &mut Dice, who: Who, now: Millis) -> Number {
        let known: Vec<Uuid> =
            self.watches.iter().filter(|watch| watch.0 == who).map(|watch| watch.1).collect();
        let id = if known.is_empty() || (known.len() < 3 && dice.once_in(4)) {
            dice.id()
        } else {
            dice.one_of(&known)
        };
        if !known.contains(&id) {
            self.watches.push((who, id));
        }
        let at = START + now - dice.below(60_000);
        let body = Body::Watch {
            state: dice.weighted(&[(0, 4), (1, 8), (2, 1)]),
            at,
            started_at: at - 20 * HOUR - dice.below(HOUR),
            watched: HOUR + dice.below(18 * HOUR),
            position: dice.once_in(2).then(|| dice.below(HOUR)),
        };
        self.add(who, id, body)
    }

    fn add(&mut self, who: Who, id: Uuid, body: Body) -> Number {
        self.events.push(Event { who, id, body, sent: 0, is_acked: false });
        self.events.len() - 1
    }

    /// The event, to be sent.
    pub fn send(&mut self, number: Number) -> &Event {
        self.events[number].sent += 1;
        &self.events[number]
    }

    pub fn event(&self, number: Number) -> &Event {
        &self.events[number]
    }

    pub fn acked(&mut self, number: Number) {
        self.events[number].is_acked = true;
    }

    /// What somebody has to send again.
    pub fn pending_of(&self, who: Who) -> Vec<Number> {
        self.of(who, |event| !event.is_acked)
    }

    /// Everything that somebody has made.
    pub fn all_of(&self, who: Who) -> Vec<Number> {
        self.of(who, |_| true)
    }

    fn of(&self, who: Who, is_it: impl Fn(&Event) -> bool) -> Vec<Number> {
        let numbered = self.events.iter().enumerate();
        numbered.filter(|(_, event)| event.who == who && is_it(event)).map(|(number, _)| number).collect()
    }

    /// Who has something to send again.
    pub fn waiting(&self) -> BTreeSet<Who> {
        self.events.iter().filter(|event| !event.is_acked).map(|event| event.who).collect()
    }

    /// How many there are, and how many of them are acked.
    pub fn len(&self) -> (usize, usize) {
        (self.events.len(), self.events.iter().filter(|event| event.is_acked).count())
    }

    /// Every page view as it must be stored: id, room, visitor, path, and when, where that was told.
    pub fn views(&self) -> BTreeMap<String, Value> {
        let view = |event: &Event| match event.body {
            Body::View { path, at } => {
                Some((event.id.to_string(), json!([event.who.room, event.who.visitor, path, at])))
            }
            Body::Watch { .. } => None,
        };
        self.events.iter().filter_map(view).collect()
    }

    /// Every watch session as it must be stored: id, room, visitor, state, watched, position, start, and when it
    /// was last heard of.
    pub fn watch_sessions(&self) -> BTreeMap<String, Value> {
        let session = |(who, id): &(Who, Uuid)| {
            let of_it = self.events.iter().filter(|event| event.id == *id).map(|event| event.body);
            (id.to_string(), merged(*who, &of_it.collect::<Vec<_>>()))
        };
        self.watches.iter().map(session).collect()
    }
}

impl Event {
    /// As a client sends it, but for its type and `ref`.
    pub fn json(&self) -> Value {
        let mut json = match self.body {
            Body::View { path, at } => json!({ "path": path, "at": at }),
            Body::Watch { state, at, started_at, watched, position } => json!({
                "content": "dawn", "state": STATES[state], "at": at, "startedAt": started_at,
                "watchedMs": watched, "positionMs": position,
            }),
        };
        json["id"] = json!(self.id);
        json
    }

    /// Its type on a socket, and where it is posted.
    pub fn kind(&self) -> (&'static str, &'static str) {
        match self.body {
            Body::View { .. } => ("page-view", "/page-view"),
            Body::Watch { .. } => ("watch", "/watch-session"),
        }
    }
}

fn merged(who: Who, told: &[Body]) -> Value {
    let (mut newest, mut ended, mut watched, mut started, mut place) = ((0, 0), false, 0, u64::MAX, None);
    for body in told {
        let Body::Watch { state, at, started_at, watched: claim, position } = *body else { continue };
        newest = newest.max((at, state));
        ended |= STATES[state] == "ended";
        watched = watched.max(claim);
        started = started.min(started_at);
        place = place.max(position.map(|position| (at, position)));
    }
    let state = if ended { "ended" } else { STATES[newest.1] };
    json!([who.room, who.visitor, state, watched, place.map(|(_, position)| position), started, newest.0])
}
