//! The event log: all events of all clients, and the rows that the database must have at the end.
//!
//! A client keeps an event until it is acked. A watch session has many messages, in any order; the log merges them by the
//! rules of the protocol, with its own code.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

use super::START;
use super::model::{Member, Millis};
use super::random::Random;

const HOUR: Millis = 3_600_000;
const PATHS: [&str; 4] = ["/", "/sit", "/breathe", "/sit?with=others"];
const STATES: [&str; 3] = ["paused", "playing", "ended"]; // in order of precedence

/// The index of an event in the log.
pub type EventIndex = usize;

#[derive(Debug)]
pub struct Event {
    pub member: Member,
    pub id: Uuid,
    pub body: Payload,
    /// How often it was sent.
    pub sent: u32,
    /// Whether the hub has acked it.
    pub is_acked: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Payload {
    PageView { path: &'static str, at: Option<Millis> },
    Watch { state: usize, at: Millis, started_at: Millis, watched: Millis, position: Option<u64> },
}

#[derive(Debug, Default)]
pub struct EventLog {
    events: Vec<Event>,
    watches: Vec<(Member, Uuid)>,
}

impl EventLog {
    /// Makes a page view, with or without a time.
    pub fn view(&mut self, random: &mut Random, member: Member, now: Millis) -> EventIndex {
        let at = random.one_in(2).then(|| START + now - random.below(2 * HOUR));
        let body = Payload::PageView { path: random.one_of(&PATHS), at };
        let another = self.id_of_another(random, member, |body| matches!(body, Payload::PageView { .. }));
        let again = if at.is_some() { self.own_view(random, member) } else { None };
        self.add(member, again.or(another).unwrap_or_else(|| random.id()), body)
    }

    /// Makes a message of a new or a running watch session. Its claimed time is more than the hub can measure and less
    /// than the time since its start, so that the result is known to the millisecond.
    pub fn watch(&mut self, random: &mut Random, member: Member, now: Millis) -> EventIndex {
        let find_name: Vec<Uuid> =
            self.watches.iter().filter(|watch| watch.0 == member).map(|watch| watch.1).collect();
        let id = if find_name.is_empty() || (find_name.len() < 3 && random.one_in(4)) {
            let another = self.id_of_another(random, member, |body| matches!(body, Payload::Watch { .. }));
            another.unwrap_or_else(|| random.id())
        } else {
            random.one_of(&find_name)
        };
        if !find_name.contains(&id) {
            self.watches.push((member, id));
        }
        let at = START + now - random.below(60_000);
        let body = Payload::Watch {
            state: random.weighted(&[(0, 4), (1, 8), (2, 1)]),
            at,
            started_at: at - 20 * HOUR - random.below(HOUR),
            watched: HOUR + random.below(18 * HOUR),
            position: random.one_in(2).then(|| random.below(HOUR)),
        };
        self.add(member, id, body)
    }

    /// Returns now and then the id of a page view with a time: the same page view, with another path and time.
    fn own_view(&self, random: &mut Random, member: Member) -> Option<Uuid> {
        let has_time = |event: &Event| matches!(event.body, Payload::PageView { at: Some(_), .. });
        let own = self.events.iter().filter(|event| event.member == member && has_time(event));
        let own: Vec<Uuid> = own.map(|event| event.id).collect();
        (!own.is_empty() && random.one_in(8)).then(|| random.one_of(&own))
    }

    /// Returns now and then an id that another visitor uses, or the same one in another room. They do not meet.
    fn id_of_another(
        &self,
        random: &mut Random,
        member: Member,
        is_kind: impl Fn(&Payload) -> bool,
    ) -> Option<Uuid> {
        let others = self.events.iter().filter(|event| event.member != member && is_kind(&event.body));
        let mut others: Vec<Uuid> = others.map(|event| event.id).collect();
        let own = |id: &Uuid| self.events.iter().any(|event| event.member == member && event.id == *id);
        others.retain(|id| !own(id));
        (!others.is_empty() && random.one_in(6)).then(|| random.one_of(&others))
    }

    fn add(&mut self, member: Member, id: Uuid, body: Payload) -> EventIndex {
        self.events.push(Event { member, id, body, sent: 0, is_acked: false });
        self.events.len() - 1
    }

    /// Counts a sending of the event, and returns it.
    pub fn send(&mut self, number: EventIndex) -> &Event {
        self.events[number].sent += 1;
        &self.events[number]
    }

    pub fn event(&self, number: EventIndex) -> &Event {
        &self.events[number]
    }

    /// Whether no other event has its identity.
    pub fn is_alone(&self, event: &Event) -> bool {
        let same = self.events.iter().filter(|other| (other.id, other.member) == (event.id, event.member));
        same.count() == 1
    }

    pub fn acked(&mut self, number: EventIndex) {
        self.events[number].is_acked = true;
    }

    /// Returns the unacked events of a visitor in a room.
    pub fn pending_of(&self, member: Member) -> Vec<EventIndex> {
        self.of(member, |event| !event.is_acked)
    }

    /// Returns all events of a visitor in a room.
    pub fn all_of(&self, member: Member) -> Vec<EventIndex> {
        self.of(member, |_| true)
    }

    fn of(&self, member: Member, is_it: impl Fn(&Event) -> bool) -> Vec<EventIndex> {
        let numbered = self.events.iter().enumerate();
        numbered
            .filter(|(_, event)| event.member == member && is_it(event))
            .map(|(number, _)| number)
            .collect()
    }

    /// Returns the visitors with unacked events.
    pub fn waiting(&self) -> BTreeSet<Member> {
        self.events.iter().filter(|event| !event.is_acked).map(|event| event.member).collect()
    }

    /// Returns the number of events, and the number of acked ones.
    pub fn len(&self) -> (usize, usize) {
        (self.events.len(), self.events.iter().filter(|event| event.is_acked).count())
    }

    /// Returns the expected page views by identity: room, visitor, path, and the time if the client has sent one.
    /// Of those with one identity the earliest counts, and of these the one with the smallest path.
    pub fn views(&self) -> BTreeMap<String, Value> {
        let mut earliest = BTreeMap::new();
        for event in &self.events {
            let Payload::PageView { path, at } = event.body else { continue };
            let view = earliest.entry((event.id, event.member)).or_insert((at, path));
            *view = (at, path).min(*view);
        }
        let json = |((id, member), (at, path)): ((Uuid, Member), (Option<Millis>, &str))| {
            (identity(id, member), json!([member.room, member.visitor, path, at]))
        };
        earliest.into_iter().map(json).collect()
    }

    /// Returns the expected watch sessions by identity: room, visitor, state, watched time, position, start, and last update.
    pub fn watch_sessions(&self) -> BTreeMap<String, Value> {
        let session = |(member, id): &(Member, Uuid)| {
            let of_it = self.events.iter().filter(|event| event.id == *id && event.member == *member);
            (identity(*id, *member), merged(*member, &of_it.map(|event| event.body).collect::<Vec<_>>()))
        };
        self.watches.iter().map(session).collect()
    }
}

impl Event {
    /// Returns the message of a client, without its type and `ref`.
    pub fn json(&self) -> Value {
        let mut json = match self.body {
            Payload::PageView { path, at } => json!({ "path": path, "at": at }),
            Payload::Watch { state, at, started_at, watched, position } => json!({
                "content": "dawn", "state": STATES[state], "at": at, "startedAt": started_at,
                "watchedMs": watched, "positionMs": position,
            }),
        };
        json["id"] = json!(self.id);
        json
    }

    /// Returns its message type on a socket, and its HTTP path.
    pub fn kind(&self) -> (&'static str, &'static str) {
        match self.body {
            Payload::PageView { .. } => ("page-view", "/page-view"),
            Payload::Watch { .. } => ("watch", "/watch-session"),
        }
    }
}

/// What a page view or a watch session is known by, as the database's rows have it.
pub fn identity(id: Uuid, member: Member) -> String {
    format!("{id} {} {}", member.visitor, member.room)
}

fn merged(member: Member, updates: &[Payload]) -> Value {
    let (mut newest, mut ended, mut watched, mut started, mut last_position) =
        ((0, 0), false, 0, u64::MAX, None);
    for body in updates {
        let Payload::Watch { state, at, started_at, watched: claim, position } = *body else { continue };
        newest = newest.max((at, state));
        ended |= STATES[state] == "ended";
        watched = watched.max(claim);
        started = started.min(started_at);
        last_position = last_position.max(position.map(|position| (at, position)));
    }
    let state = if ended { "ended" } else { STATES[newest.1] };
    json!([
        member.room,
        member.visitor,
        state,
        watched,
        last_position.map(|(_, position)| position),
        started,
        newest.0
    ])
}
