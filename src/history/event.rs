//! Events: events about what happened, normalized for the store.
//!
//! A message becomes a event when the hub adds who sent it, where, and when it came. Events merge: a page
//! view is a set element, a watch session takes the larger of its measures, a total is told
//! once. So all of them may be told again at any time and in any order. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::calendar::Month;
use crate::protocol::parse::ParseError;
use crate::protocol::{
    BoundedText, PageView, Props, RoomId, SafeInteger, Time, VisitorId, Watch, WatchState,
};
use crate::time::millis;

/// How far before a message's own time a watch session may have started, in milliseconds: 24 hours.
const START_LIMIT_MS: u64 = 24 * 60 * 60 * 1000;

/// How old an event may be when it comes, in milliseconds: 7 days.
const AGE_LIMIT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How far a client's clock may be ahead of the hub's, in milliseconds: 5 minutes.
pub(crate) const AHEAD_LIMIT_MS: u64 = 5 * 60 * 1000;

/// What a text takes in memory besides its bytes: two counters or a length, and what the allocator rounds up.
const TEXT_BYTES: usize = 32;

/// What a room's sample of a total takes in memory: two maps have room for more than they hold.
const SAMPLE_BYTES: usize = 768;

/// Where something happened, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The room.
    pub room: RoomId,
    /// The visitor.
    pub visitor: VisitorId,
    /// Whether the visitor is a known bot, which is kept and counts nowhere.
    pub is_bot: bool,
}

impl Actor {
    fn texts(&self) -> usize {
        text(self.room.as_str()) + text(self.visitor.as_str())
    }
}

/// What a text takes in memory.
fn text(text: &str) -> usize {
    TEXT_BYTES + text.len()
}

/// What a event takes in memory in a list that grows, half of whose room may be empty.
fn entry<T>() -> usize {
    2 * size_of::<T>()
}

/// One event of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A page was seen.
    PageView(PageViewEvent),
    /// The state of a watch session.
    Watch(WatchEvent),
}

/// That a page was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageViewEvent {
    pub(in crate::history) actor: Actor,
    pub(in crate::history) id: Uuid,
    pub(in crate::history) path: BoundedText<1, 512>,
    pub(in crate::history) title: Option<BoundedText<0, 1024>>,
    pub(in crate::history) referrer: Option<BoundedText<0, 1024>>,
    pub(in crate::history) at: Time,
    pub(in crate::history) props: Option<Props>,
}

impl PageViewEvent {
    /// The event that `view`, which came at `arrived`, tells.
    ///
    /// # Errors
    /// `at` is more than 7 days old, or more than 5 minutes ahead.
    pub fn new(actor: Actor, view: PageView, arrived: Time) -> Result<Self, ParseError> {
        let PageView { id, path, title, referrer, at, props } = view;
        Ok(Self { actor, id, path, title, referrer, at: within_limits(at, arrived)?, props })
    }

    fn bytes(&self) -> usize {
        let optional = [&self.title, &self.referrer].into_iter().flatten();
        let optional: usize = optional.map(|label| text(label.as_str())).sum();
        let props = self.props.as_ref().map_or(0, |props| text(props.as_json()));
        entry::<Self>() + self.actor.texts() + text(self.path.as_str()) + optional + props
    }
}

/// How far a watch session was, at some moment, or after all that was told of it so far.
///
/// Each part merges by a rule that does not care for order or repetition; see [`merge`](Self::merge).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    pub(in crate::history) actor: Actor,
    pub(in crate::history) id: Uuid,
    pub(in crate::history) content: BoundedText<1, 512>,
    pub(in crate::history) state: WatchState,
    /// The latest `at` of a message.
    pub(in crate::history) at: Time,
    /// The most that was claimed or measured.
    pub(in crate::history) watched_ms: u64,
    pub(in crate::history) started_at: Time,
    /// The latest moment at which it was known to go on.
    pub(in crate::history) seen_at: Time,
    /// With the `at` of the message that told it.
    pub(in crate::history) position_ms: Option<(Time, SafeInteger)>,
    pub(in crate::history) duration_ms: Option<SafeInteger>,
    /// With the `at` of the message that told them.
    pub(in crate::history) props: Option<(Time, Props)>,
}

impl WatchEvent {
    /// The event that `watch`, which came at `arrived`, tells.
    ///
    /// The start and the moment it was seen are of one clock, the client's where it told its start
    /// and else the hub's, so that a wrong clock does not make time.
    ///
    /// # Errors
    /// `at` is more than 7 days old, or more than 5 minutes ahead.
    pub fn new(actor: Actor, watch: Watch, arrived: Time) -> Result<Self, ParseError> {
        let Watch { id, content, state, watched_ms, started_at, position_ms, duration_ms, at, props } = watch;
        let at = within_limits(at, arrived)?;
        let (started_at, seen_at) = match started_at {
            Some(started) => (started.clamp(at.minus(START_LIMIT_MS), at), at),
            None => (arrived, arrived),
        };
        Ok(Self {
            actor,
            id,
            content,
            state,
            at,
            watched_ms: watched_ms.get(),
            started_at,
            seen_at,
            position_ms: position_ms.map(|position| (at, position)),
            duration_ms,
            props: props.map(|props| (at, props)),
        })
    }

    /// The same, where the hub itself has measured `total` by now, `since` after the message came.
    #[must_use]
    pub(crate) fn measured(mut self, total: Duration, since: Duration) -> Self {
        self.watched_ms = self.watched_ms.max(millis(total));
        self.seen_at = self.seen_at.plus(millis(since));
        self
    }

    /// Only what the hub can go on measuring: what else was told of the watch session is queued already.
    #[must_use]
    pub(crate) fn measurable(self) -> Self {
        Self { position_ms: None, duration_ms: None, props: None, ..self }
    }

    fn bytes(&self) -> usize {
        let props = self.props.as_ref().map_or(0, |(_, props)| text(props.as_json()));
        entry::<Self>() + self.actor.texts() + text(self.content.as_str()) + props
    }

    /// What both tell of the same watch session: a join of semilattices, part by part. Where two
    /// messages have the same `at`, the larger values win, so that order never matters.
    #[must_use]
    pub(crate) fn merge(self, other: Self) -> Self {
        let told = |event: &Self| {
            (event.at, event.actor.room.clone(), event.actor.visitor.clone(), event.content.clone())
        };
        let state = match (self.state, other.state) {
            (WatchState::Ended, _) | (_, WatchState::Ended) => WatchState::Ended,
            _ if (other.at, other.state) > (self.at, self.state) => other.state,
            _ => self.state,
        };
        let is_bot = self.actor.is_bot || other.actor.is_bot;
        let at = self.at.max(other.at);
        let (newer, older) = if told(&other) > told(&self) { (other, self) } else { (self, other) };
        Self {
            actor: Actor { is_bot, ..newer.actor },
            id: newer.id,
            content: newer.content,
            state,
            at,
            watched_ms: newer.watched_ms.max(older.watched_ms),
            started_at: newer.started_at.min(older.started_at),
            seen_at: newer.seen_at.max(older.seen_at),
            position_ms: newer.position_ms.max(older.position_ms),
            duration_ms: newer.duration_ms.max(older.duration_ms),
            props: newer.props.max(older.props),
        }
    }

    /// Time watched, which is never more than what has passed since the start, in milliseconds.
    #[must_use]
    pub(crate) fn watched(&self) -> u64 {
        self.watched_ms.min(self.seen_at.millis().saturating_sub(self.started_at.millis()))
    }

    /// The watch session.
    #[must_use]
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// Its state, and since when: what decides between two messages.
    #[must_use]
    pub(crate) fn state_at(&self) -> (WatchState, Time) {
        (self.state, self.at)
    }
}

/// Who was present for a while, at most a minute: in every room where somebody was, and over all.
///
/// A hub that starts or stops within a minute takes two samples of it; they add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalSample {
    /// Makes it idempotent.
    pub id: Uuid,
    /// When it begins.
    pub at: Time,
    /// The whole hub, where a person in two rooms counts once.
    pub hub: RoomSample,
    /// The rooms in which somebody was.
    pub rooms: BTreeMap<RoomId, RoomSample>,
}

impl TotalSample {
    fn bytes(&self) -> usize {
        let rooms: usize = self.rooms.keys().map(|room| SAMPLE_BYTES + text(room.as_str())).sum();
        entry::<Self>() + SAMPLE_BYTES + rooms
    }
}

/// Who was present in one room, or over all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoomSample {
    /// How long each person was present, added up, in milliseconds.
    #[serde(deserialize_with = "whole")]
    pub present_ms: u64,
    /// The most who were present at once.
    pub peak: u32,
    /// People who came.
    pub joins: u32,
    /// How long each person was in each mood, added up, in milliseconds.
    #[serde(deserialize_with = "wholes")]
    pub moods_ms: BTreeMap<String, u64>,
}

// What comes from a file is bounded as what comes over the network is.

fn whole<'de, D: Deserializer<'de>>(number: D) -> Result<u64, D::Error> {
    SafeInteger::deserialize(number).map(SafeInteger::get)
}

fn wholes<'de, D: Deserializer<'de>>(map: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let map = BTreeMap::<String, SafeInteger>::deserialize(map)?;
    Ok(map.into_iter().map(|(key, number)| (key, number.get())).collect())
}

fn within_limits(at: Option<Time>, arrived: Time) -> Result<Time, ParseError> {
    match at.unwrap_or(arrived) {
        at if at < arrived.minus(AGE_LIMIT_MS) => {
            Err(ParseError::field("at", "must not be more than 7 days ago"))
        }
        at if at > arrived.plus(AHEAD_LIMIT_MS) => {
            Err(ParseError::field("at", "must not be more than 5 minutes in the future"))
        }
        at => Ok(at),
    }
}

/// Events of all kinds, each in the order in which they came: what one transaction commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The page views.
    pub page_views: Vec<PageViewEvent>,
    /// The watch sessions' states.
    pub watches: Vec<WatchEvent>,
    /// The samples.
    pub samples: Vec<TotalSample>,
}

impl Batch {
    /// Events of all kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.page_views.len() + self.watches.len() + self.samples.len()
    }

    /// What they take of a queue's limit: a total takes as much as it has samples.
    #[must_use]
    pub(crate) fn weight(&self) -> usize {
        self.page_views.len() + self.watches.len() + self.sample_count()
    }

    /// About how many bytes of memory they take: their texts, their fixed size and what each of both costs
    /// beside that. What events share counts for each of them.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        let views = self.page_views.iter().map(PageViewEvent::bytes);
        let watches = self.watches.iter().map(WatchEvent::bytes);
        views.chain(watches).chain(self.samples.iter().map(TotalSample::bytes)).sum()
    }

    /// Takes events from the front, of each kind in their order, until they are so many bytes.
    #[must_use]
    pub(crate) fn split_front(&mut self, bytes: usize) -> Self {
        let mut left = bytes;
        Self {
            page_views: front(&mut self.page_views, &mut left, PageViewEvent::bytes),
            watches: front(&mut self.watches, &mut left, WatchEvent::bytes),
            samples: front(&mut self.samples, &mut left, TotalSample::bytes),
        }
    }

    /// Samples of all samples.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.samples.iter().map(|total| 1 + total.rooms.len()).sum()
    }

    /// Whether there is no event.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The months of the tables that they belong to.
    #[must_use]
    pub fn months(&self) -> BTreeSet<Month> {
        let views = self.page_views.iter().map(|view| view.at);
        let watches = self.watches.iter().map(|watch| watch.started_at);
        views.chain(watches).chain(self.samples.iter().map(|total| total.at)).map(Month::of).collect()
    }

    /// Adds an event behind the others.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::PageView(event) => self.page_views.push(event),
            Event::Watch(event) => self.watches.push(event),
        }
    }

    /// Keeps only the events of one visitor. Presence samples are nobody's.
    pub(crate) fn keep_only(&mut self, visitor: &VisitorId) {
        self.page_views.retain(|view| view.actor.visitor == *visitor);
        self.watches.retain(|watch| watch.actor.visitor == *visitor);
        self.samples.clear();
    }

    /// Adds another batch behind this one.
    pub fn append(&mut self, mut other: Self) {
        self.page_views.append(&mut other.page_views);
        self.watches.append(&mut other.watches);
        self.samples.append(&mut other.samples);
    }
}

fn front<T>(events: &mut Vec<T>, left: &mut usize, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut is_taken = |event: &T| {
        let is_taken = *left > 0;
        *left = left.saturating_sub(bytes(event));
        is_taken
    };
    let count = events.iter().take_while(|event| is_taken(event)).count();
    events.drain(..count).collect()
}

impl FromIterator<Self> for Batch {
    fn from_iter<I: IntoIterator<Item = Self>>(batches: I) -> Self {
        let mut all = Self::default();
        batches.into_iter().for_each(|batch| all.append(batch));
        all
    }
}

impl FromIterator<Event> for Batch {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        let mut batch = Self::default();
        events.into_iter().for_each(|event| batch.push(event));
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(number: u128, path: usize) -> PageViewEvent {
        let actor = Actor { room: "r".try_into().unwrap(), visitor: "v".try_into().unwrap(), is_bot: false };
        let (path, at) = ("x".repeat(path).try_into().unwrap(), Time::from_millis(1));
        let id = Uuid::from_u128(number);
        PageViewEvent { actor, id, path, title: None, referrer: None, at, props: None }
    }

    #[test]
    fn an_event_weighs_its_texts_and_its_fixed_size() {
        let fixed = 2 * size_of::<PageViewEvent>() + 3 * TEXT_BYTES + 2;
        assert_eq!(view(1, 100).bytes(), fixed + 100);
        let title = view(1, 100).title.insert("ü".repeat(10).try_into().unwrap()).clone();
        assert_eq!(
            PageViewEvent { title: Some(title), ..view(1, 100) }.bytes(),
            fixed + 100 + TEXT_BYTES + 20
        );
        let batch = Batch { page_views: vec![view(1, 1), view(2, 2)], ..Batch::default() };
        assert_eq!(batch.bytes(), 2 * fixed + 3);
    }

    #[test]
    fn a_batch_is_split_in_its_order_into_slices_of_so_many_bytes_and_one_event_at_least() {
        let views: Vec<_> = (0..10).map(|number| view(number, 500)).collect();
        let each = views[0].bytes();
        let whole = Batch { page_views: views, ..Batch::default() };
        for (bytes, sizes) in [(1, vec![1; 10]), (3 * each, vec![3, 3, 3, 1]), (usize::MAX, vec![10])] {
            let (mut rest, mut parts) = (whole.clone(), Vec::new());
            while !rest.is_empty() {
                parts.push(rest.split_front(bytes));
            }
            assert_eq!(parts.iter().map(Batch::len).collect::<Vec<_>>(), sizes);
            assert_eq!(Batch::from_iter(parts), whole);
        }
    }
}
