//! Events: facts about what happened, normalized for the store.
//!
//! A message becomes a fact when the hub adds who sent it, where, and when it came. Facts merge (see
//! the first migration), so all of them may be told again at any time and in any order.

use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeTuple, Serializer};
use uuid::Uuid;

use crate::clock::millis;
use crate::wire::{Label, PageView, Props, RoomId, Time, VisitorId, Watch, WatchState, Whole};

/// How far before a message's own time a watch session may have started, in milliseconds: 24 hours.
const START_LIMIT_MS: u64 = 24 * 60 * 60 * 1000;

/// Where something happened, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The room.
    pub room: RoomId,
    /// The visitor.
    pub visitor: VisitorId,
}

/// One event of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A page was seen.
    PageView(PageViewFact),
    /// The state of a watch session.
    Watch(WatchFact),
}

/// That a page was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageViewFact {
    who: Who,
    id: Uuid,
    path: Label<1, 512>,
    title: Option<Label<0, 1024>>,
    referrer: Option<Label<0, 1024>>,
    at: Time,
    props: Option<Props>,
}

impl PageViewFact {
    /// The fact that `view`, which came at `arrived`, tells.
    #[must_use]
    pub fn new(who: Who, view: PageView, arrived: Time) -> Self {
        let PageView { id, path, title, referrer, at, props } = view;
        Self { who, id, path, title, referrer, at: at.unwrap_or(arrived), props }
    }
}

/// How far a watch session was, at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchFact {
    who: Who,
    id: Uuid,
    content: Label<1, 512>,
    state: WatchState,
    at: Time,
    watched_ms: u64,
    started_at: Time,
    seen_at: Time,
    position_ms: Option<Whole>,
    duration_ms: Option<Whole>,
    props: Option<Props>,
}

impl WatchFact {
    /// The fact that `watch`, which came at `arrived`, tells.
    ///
    /// The start and the moment it was seen are of one clock, the client's where it told its start
    /// and else the hub's, so that a wrong clock does not make time.
    #[must_use]
    pub fn new(who: Who, watch: Watch, arrived: Time) -> Self {
        let Watch { id, content, state, watched_ms, started_at, position_ms, duration_ms, at, props } = watch;
        let at = at.unwrap_or(arrived);
        let (started_at, seen_at) = match started_at {
            Some(started) => (started.clamp(at.minus(START_LIMIT_MS), at), at),
            None => (arrived, arrived),
        };
        Self {
            who,
            id,
            content,
            state,
            at,
            watched_ms: watched_ms.get(),
            started_at,
            seen_at,
            position_ms,
            duration_ms,
            props,
        }
    }

    /// The same, where the hub itself has measured `total` by now, `since` after the message came.
    #[must_use]
    pub fn measured(mut self, total: Duration, since: Duration) -> Self {
        self.watched_ms = self.watched_ms.max(millis(total));
        self.seen_at = self.seen_at.plus(millis(since));
        self
    }

    /// The watch session.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Its state, and since when: what decides between two messages.
    #[must_use]
    pub fn state_at(&self) -> (WatchState, Time) {
        (self.state, self.at)
    }
}

/// Events of both kinds, each in the order in which they came: what one transaction commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The page views.
    pub page_views: Vec<PageViewFact>,
    /// The watch sessions' states.
    pub watches: Vec<WatchFact>,
}

impl Batch {
    /// Events of both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.page_views.len() + self.watches.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an event behind the others.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::PageView(fact) => self.page_views.push(fact),
            Event::Watch(fact) => self.watches.push(fact),
        }
    }

    /// Adds another batch behind this one.
    pub fn append(&mut self, mut other: Self) {
        self.page_views.append(&mut other.page_views);
        self.watches.append(&mut other.watches);
    }
}

impl FromIterator<Event> for Batch {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        let mut batch = Self::default();
        events.into_iter().for_each(|event| batch.push(event));
        batch
    }
}

// Facts go to SQLite as JSON arrays, whose order the statements in `store` name.

impl Serialize for PageViewFact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_tuple(8)?;
        row.serialize_element(&self.id.simple())?;
        row.serialize_element(&self.who.room)?;
        row.serialize_element(&self.who.visitor)?;
        row.serialize_element(&self.path)?;
        row.serialize_element(&self.title)?;
        row.serialize_element(&self.referrer)?;
        row.serialize_element(&self.at)?;
        row.serialize_element(&self.props)?;
        row.end()
    }
}

impl Serialize for WatchFact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_tuple(12)?;
        row.serialize_element(&self.id.simple())?;
        row.serialize_element(&self.who.room)?;
        row.serialize_element(&self.who.visitor)?;
        row.serialize_element(&self.content)?;
        row.serialize_element(&self.state)?;
        row.serialize_element(&self.watched_ms)?;
        row.serialize_element(&self.started_at)?;
        row.serialize_element(&self.seen_at)?;
        row.serialize_element(&self.at)?;
        row.serialize_element(&self.position_ms)?;
        row.serialize_element(&self.duration_ms)?;
        row.serialize_element(&self.props)?;
        row.end()
    }
}
