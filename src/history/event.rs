//! Events as the store keeps them: page views, watch sessions and presence samples.
//!
//! A message becomes an event when the hub adds its sender, room and time. Events of one identity merge into one, in any
//! order and however often each arrives. Pure.

use std::cmp::Ordering;
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

/// How long before a message's own time its watch session may have started, in milliseconds: 24 hours.
const START_LIMIT_MS: u64 = 24 * 60 * 60 * 1000;

/// Maximum age of an event, in milliseconds: 7 days.
const AGE_LIMIT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// From how far ahead on an event's time is rejected, in milliseconds: 24 hours.
const AHEAD_LIMIT_MS: u64 = 24 * 60 * 60 * 1000;

/// Memory of a text besides its bytes: two counters or a length, and the allocator's rounding.
const TEXT_BYTES: usize = 32;

/// Memory of a room's sample: two maps with spare capacity.
const SAMPLE_BYTES: usize = 768;

/// The most rooms of a sample that is made, so that it fits into a message of the log.
const ROOMS_PER_SAMPLE: usize = 500;

/// The visitor that an event is of, and the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The room.
    pub room: RoomId,
    /// The visitor.
    pub visitor: VisitorId,
    /// Whether the visitor is a known bot. Events of bots are stored, but count nowhere.
    pub is_bot: bool,
}

impl Actor {
    fn texts(&self) -> usize {
        text(self.room.as_str()) + text(self.visitor.as_str())
    }
}

/// Memory of a text, in bytes.
fn text(text: &str) -> usize {
    TEXT_BYTES + text.len()
}

/// Memory of an event in a growing vector, up to half of which may be spare capacity.
fn entry<T>() -> usize {
    2 * size_of::<T>()
}

/// An event that merges with the others of its identity. The merge is commutative, associative and idempotent, so that
/// neither order nor repetition has an effect.
pub(crate) trait Mergeable: Clone + PartialEq + Send + Sync {
    /// What distinguishes the event from others of its kind. Lists of raw rows have its order.
    type Identity<'a>: Ord
    where
        Self: 'a;

    /// The id, which events of other identities may have too.
    fn id(&self) -> Uuid;

    /// The identity.
    fn identity(&self) -> Self::Identity<'_>;

    /// The time at which it counts, and by which it belongs to a month.
    fn time(&self) -> Time;

    /// Merges two events of one identity.
    #[must_use]
    fn merge(self, other: Self) -> Self;
}

/// Merges the events of each identity, and sorts them by it.
pub(crate) fn merged<T: Mergeable>(mut events: Vec<T>) -> Vec<T> {
    events.sort_by(|one, other| one.identity().cmp(&other.identity()));
    let mut merged = Vec::<T>::with_capacity(events.len());
    for event in events {
        let event = match merged.pop_if(|last| last.identity() == event.identity()) {
            Some(last) => last.merge(event),
            None => event,
        };
        merged.push(event);
    }
    merged
}

/// An event of a visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A page view.
    PageView(PageViewEvent),
    /// A state of a watch session.
    Watch(WatchEvent),
}

/// A page view.
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
    /// Builds the event of a message that came at `arrived`.
    ///
    /// # Errors
    /// `at` is more than 7 days old, or a day or more ahead.
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

    /// All fields besides the identity, in the order by which one of two page views is the smaller record.
    fn fields(&self) -> impl Ord + '_ {
        (self.at, &self.path, &self.title, &self.referrer, &self.props, self.actor.is_bot)
    }
}

impl Mergeable for PageViewEvent {
    type Identity<'a> = (Uuid, &'a VisitorId, &'a RoomId);

    fn id(&self) -> Uuid {
        self.id
    }

    fn identity(&self) -> Self::Identity<'_> {
        (self.id, &self.actor.visitor, &self.actor.room)
    }

    fn time(&self) -> Time {
        self.at
    }

    /// The earlier one remains; of two at the same time, the smaller record.
    fn merge(self, other: Self) -> Self {
        if other.fields() < self.fields() { other } else { self }
    }
}

/// The state of a watch session, of one message or merged from several.
///
/// Each field merges independently of order and repetition; see `merge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    pub(in crate::history) actor: Actor,
    pub(in crate::history) id: Uuid,
    pub(in crate::history) content: BoundedText<1, 512>,
    pub(in crate::history) state: WatchState,
    /// The latest `at` of all messages.
    pub(in crate::history) at: Time,
    /// The maximum that a client claimed or the hub measured.
    pub(in crate::history) watched_ms: u64,
    pub(in crate::history) started_at: Time,
    /// The latest time at which the session was known to run.
    pub(in crate::history) seen_at: Time,
    /// With the `at` of its message.
    pub(in crate::history) position_ms: Option<(Time, SafeInteger)>,
    pub(in crate::history) duration_ms: Option<SafeInteger>,
    /// With the `at` of their message.
    pub(in crate::history) props: Option<(Time, Props)>,
}

impl WatchEvent {
    /// Builds the event of a message that came at `arrived`.
    ///
    /// `started_at` and `seen_at` are of the same clock, so that a wrong clock adds no time: the client's if the
    /// message has a start, else the hub's.
    ///
    /// # Errors
    /// `at` is more than 7 days old, or a day or more ahead.
    pub fn new(actor: Actor, watch: Watch, arrived: Time) -> Result<Self, ParseError> {
        let Watch { id, content, state, watched_ms, started_at, position_ms, duration_ms, at, props } = watch;
        let ahead_ms = ahead_ms(at, arrived);
        let at = within_limits(at, arrived)?;
        let (started_at, seen_at) = match started_at {
            // A clock that is ahead is so at the start too.
            Some(started) => (started.minus(ahead_ms).clamp(at.minus(START_LIMIT_MS), at), at),
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

    /// Returns the event with the hub's own measure: `total` watched, `since` after the message.
    pub(crate) fn measured(mut self, total: Duration, since: Duration) -> Self {
        self.watched_ms = self.watched_ms.max(millis(total));
        self.seen_at = self.seen_at.plus(millis(since));
        self
    }

    /// Returns only the fields that the hub measures further. The others are already queued.
    pub(crate) fn measurable(self) -> Self {
        Self { position_ms: None, duration_ms: None, props: None, ..self }
    }

    fn bytes(&self) -> usize {
        let props = self.props.as_ref().map_or(0, |(_, props)| text(props.as_json()));
        entry::<Self>() + self.actor.texts() + text(self.content.as_str()) + props
    }

    /// Time watched in milliseconds, at most the time since the start.
    pub(crate) fn watched(&self) -> u64 {
        self.watched_ms.min(self.seen_at.millis().saturating_sub(self.started_at.millis()))
    }

    /// The state and its time, which decide between two messages.
    pub(crate) fn state_at(&self) -> (WatchState, Time) {
        (self.state, self.at)
    }
}

impl Mergeable for WatchEvent {
    type Identity<'a> = (Uuid, &'a VisitorId, &'a RoomId);

    fn id(&self) -> Uuid {
        self.id
    }

    fn identity(&self) -> Self::Identity<'_> {
        (self.id, &self.actor.visitor, &self.actor.room)
    }

    /// A watch session counts at its start.
    fn time(&self) -> Time {
        self.started_at
    }

    /// Merges two states of one session, field by field: a join of semilattices. Of two messages with the same `at` the
    /// larger values win, so the order has no effect.
    fn merge(self, other: Self) -> Self {
        let state = match (self.state, other.state) {
            (WatchState::Ended, _) | (_, WatchState::Ended) => WatchState::Ended,
            _ if (other.at, other.state) > (self.at, self.state) => other.state,
            _ => self.state,
        };
        let is_bot = self.actor.is_bot || other.actor.is_bot;
        let is_newer = (other.at, &other.content) > (self.at, &self.content);
        let (newer, older) = if is_newer { (other, self) } else { (self, other) };
        Self {
            actor: Actor { is_bot, ..newer.actor },
            id: newer.id,
            content: newer.content,
            state,
            at: newer.at,
            watched_ms: newer.watched_ms.max(older.watched_ms),
            started_at: newer.started_at.min(older.started_at),
            seen_at: newer.seen_at.max(older.seen_at),
            position_ms: newer.position_ms.max(older.position_ms),
            duration_ms: newer.duration_ms.max(older.duration_ms),
            props: newer.props.max(older.props),
        }
    }
}

/// The name of a node of a cluster.
pub(crate) type NodeName = BoundedText<1, 64>;

/// Presence over at most one minute, in the whole hub and in each room that was not empty.
///
/// A hub that starts or stops within a minute takes two samples of it; they add up. Two nodes of a cluster that take one
/// of the same minute give both the same id: they merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalSample {
    /// The id, which is made from the start, and from the name of the cluster, or of the node without one.
    pub id: Uuid,
    /// Start of the sample.
    pub at: Time,
    /// The nodes whose visitors it has; none without a cluster.
    pub nodes: BTreeSet<NodeName>,
    /// The whole hub, where a visitor in two rooms counts once.
    pub hub: RoomSample,
    /// The rooms that were not empty.
    pub rooms: BTreeMap<RoomId, RoomSample>,
}

impl TotalSample {
    /// Splits the sample into some with 500 rooms at most, which merge into it again.
    pub(crate) fn split(mut self) -> Vec<Self> {
        let mut rooms = std::mem::take(&mut self.rooms).into_iter().peekable();
        let mut parts = Vec::new();
        while parts.is_empty() || rooms.peek().is_some() {
            let rooms = rooms.by_ref().take(ROOMS_PER_SAMPLE).collect();
            parts.push(Self { rooms, ..self.clone() });
        }
        parts
    }

    /// What decides which of two samples counts: that of more nodes, then the larger record. Neither peaks nor rooms
    /// belong to it, because a merge keeps the peaks, and a part of a sample has some of its rooms.
    fn rank(&self) -> impl Ord + '_ {
        (self.nodes.len(), self.hub.sums(), &self.nodes)
    }

    fn bytes(&self) -> usize {
        let rooms: usize = self.rooms.keys().map(|room| SAMPLE_BYTES + text(room.as_str())).sum();
        let nodes: usize = self.nodes.iter().map(|node| text(node.as_str())).sum();
        entry::<Self>() + SAMPLE_BYTES + rooms + nodes
    }
}

impl Mergeable for TotalSample {
    /// The start too: two samples of different times never merge, so that a stored peak never falls.
    type Identity<'a> = (Uuid, Time);

    fn id(&self) -> Uuid {
        self.id
    }

    fn identity(&self) -> Self::Identity<'_> {
        (self.id, self.at)
    }

    fn time(&self) -> Time {
        self.at
    }

    /// Keeps the sample of more nodes, then the larger one. Peaks are the highest of both, so that a stored peak never
    /// falls. Of two parts of one sample it keeps all rooms.
    fn merge(mut self, mut other: Self) -> Self {
        let order = self.rank().cmp(&other.rank());
        if order == Ordering::Less {
            std::mem::swap(&mut self, &mut other);
        }
        self.hub.peak = self.hub.peak.max(other.hub.peak);
        for (room, sample) in other.rooms {
            let mine = self.rooms.entry(room).or_default();
            match order {
                Ordering::Equal => mine.merge(sample),
                _ => mine.peak = mine.peak.max(sample.peak),
            }
        }
        self
    }
}

/// Presence in one room or in the whole hub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoomSample {
    /// Sum of the visitors' presence times, in milliseconds.
    #[serde(deserialize_with = "integer")]
    pub present_ms: u64,
    /// The maximum of visitors present at once.
    pub peak: u32,
    /// How many visitors joined.
    pub joins: u32,
    /// Sum of the visitors' presence times by mood, in milliseconds.
    #[serde(deserialize_with = "integers")]
    pub moods_ms: BTreeMap<String, u64>,
    // Older versions do not write the next ones.
    /// Sum of the times that visitors were present without a socket, in milliseconds.
    #[serde(default, deserialize_with = "integer", skip_serializing_if = "is_zero")]
    pub held_ms: u64,
    /// How many sits began.
    #[serde(default, deserialize_with = "integer", skip_serializing_if = "is_zero")]
    pub sits_begun: u64,
    /// How many sits reached their end.
    #[serde(default, deserialize_with = "integer", skip_serializing_if = "is_zero")]
    pub sits_completed: u64,
    /// Sum of the times that visitors sat, in milliseconds.
    #[serde(default, deserialize_with = "integer", skip_serializing_if = "is_zero")]
    pub sat_ms: u64,
}

impl RoomSample {
    /// All figures but the peak.
    fn sums(&self) -> impl Ord + '_ {
        let Self { present_ms, joins, moods_ms, held_ms, sits_begun, sits_completed, sat_ms, peak: _ } = self;
        (present_ms, joins, moods_ms, held_ms, sits_begun, sits_completed, sat_ms)
    }

    /// Keeps the maximum of each number.
    fn merge(&mut self, other: Self) {
        self.present_ms = self.present_ms.max(other.present_ms);
        self.peak = self.peak.max(other.peak);
        self.joins = self.joins.max(other.joins);
        for (mood, present_ms) in other.moods_ms {
            let mine = self.moods_ms.entry(mood).or_default();
            *mine = present_ms.max(*mine);
        }
        self.held_ms = self.held_ms.max(other.held_ms);
        self.sits_begun = self.sits_begun.max(other.sits_begun);
        self.sits_completed = self.sits_completed.max(other.sits_completed);
        self.sat_ms = self.sat_ms.max(other.sat_ms);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

// Numbers from files have the same bounds as numbers from the network.

fn integer<'de, D: Deserializer<'de>>(number: D) -> Result<u64, D::Error> {
    SafeInteger::deserialize(number).map(SafeInteger::get)
}

fn integers<'de, D: Deserializer<'de>>(map: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let map = BTreeMap::<String, SafeInteger>::deserialize(map)?;
    Ok(map.into_iter().map(|(key, number)| (key, number.get())).collect())
}

/// Returns the time of an event that came at `arrived`: a time ahead becomes `arrived`.
fn within_limits(at: Option<Time>, arrived: Time) -> Result<Time, ParseError> {
    match at.unwrap_or(arrived) {
        at if at < arrived.minus(AGE_LIMIT_MS) => {
            Err(ParseError::field("at", "must not be more than 7 days ago"))
        }
        at if at >= arrived.plus(AHEAD_LIMIT_MS) => {
            Err(ParseError::field("at", "must not be a day or more in the future"))
        }
        at => Ok(at.min(arrived)),
    }
}

/// How far the `at` of a message that came at `arrived` is ahead, in milliseconds.
pub(crate) fn ahead_ms(at: Option<Time>, arrived: Time) -> u64 {
    at.map_or(0, |at| at.millis().saturating_sub(arrived.millis()))
}

/// Events of all kinds, each in arrival order. One transaction commits a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Page views.
    pub page_views: Vec<PageViewEvent>,
    /// States of watch sessions.
    pub watches: Vec<WatchEvent>,
    /// Presence samples.
    pub samples: Vec<TotalSample>,
}

impl Batch {
    /// The number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.page_views.len() + self.watches.len() + self.samples.len()
    }

    /// The number that counts toward the queue limit: a presence sample counts once for each of its room samples.
    pub(crate) fn weight(&self) -> usize {
        self.page_views.len() + self.watches.len() + self.sample_count()
    }

    /// Estimated memory in bytes: texts, fixed sizes, and the overhead of both. A text that several events share counts
    /// for each of them.
    pub(crate) fn bytes(&self) -> usize {
        let views = self.page_views.iter().map(PageViewEvent::bytes);
        let watches = self.watches.iter().map(WatchEvent::bytes);
        views.chain(watches).chain(self.samples.iter().map(TotalSample::bytes)).sum()
    }

    /// Removes events from the front, in order of each kind, until they reach `bytes`.
    pub(crate) fn split_front(&mut self, bytes: usize) -> Self {
        let mut left = bytes;
        Self {
            page_views: front(&mut self.page_views, &mut left, PageViewEvent::bytes),
            watches: front(&mut self.watches, &mut left, WatchEvent::bytes),
            samples: front(&mut self.samples, &mut left, TotalSample::bytes),
        }
    }

    /// The number of room samples.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.samples.iter().map(|total| 1 + total.rooms.len()).sum()
    }

    /// Whether the batch has no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The months of the partitions that the events belong to.
    #[must_use]
    pub fn months(&self) -> BTreeSet<Month> {
        let views = self.page_views.iter().map(Mergeable::time);
        let watches = self.watches.iter().map(Mergeable::time);
        views.chain(watches).chain(self.samples.iter().map(Mergeable::time)).map(Month::of).collect()
    }

    /// Appends an event.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::PageView(event) => self.page_views.push(event),
            Event::Watch(event) => self.watches.push(event),
        }
    }

    /// Removes events of other visitors, and presence samples.
    pub(crate) fn keep_only(&mut self, visitor: &VisitorId) {
        self.page_views.retain(|view| view.actor.visitor == *visitor);
        self.watches.retain(|watch| watch.actor.visitor == *visitor);
        self.samples.clear();
    }

    /// Keeps the events of visitors of which `is_kept` returns true, and all presence samples. Returns how many it removed.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&VisitorId, Time) -> bool) -> usize {
        let before = self.len();
        self.page_views.retain(|view| is_kept(&view.actor.visitor, view.time()));
        self.watches.retain(|watch| is_kept(&watch.actor.visitor, watch.time()));
        before - self.len()
    }

    /// Gives visitors other names, where `name` has one.
    pub(crate) fn rename_visitors(&mut self, name: impl Fn(&VisitorId) -> Option<VisitorId>) {
        let views = self.page_views.iter_mut().map(|view| &mut view.actor);
        for actor in views.chain(self.watches.iter_mut().map(|watch| &mut watch.actor)) {
            if let Some(name) = name(&actor.visitor) {
                actor.visitor = name;
            }
        }
    }

    /// Appends another batch.
    pub fn append(&mut self, mut other: Self) {
        self.page_views.append(&mut other.page_views);
        self.watches.append(&mut other.watches);
        self.samples.append(&mut other.samples);
    }
}

fn front<T>(events: &mut Vec<T>, left: &mut usize, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut fits = |event: &T| {
        let fits = *left > 0;
        *left = left.saturating_sub(bytes(event));
        fits
    };
    let count = events.iter().take_while(|event| fits(event)).count();
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
    fn event_memory_is_texts_plus_fixed_size() {
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
    fn batch_splits_in_order_into_slices_of_at_least_one_event() {
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
