//! Rollups: sums of a period, for one room or the whole hub.
//!
//! Rollups merge: a day is the sum of its quarter hours, and a range the sum of the rollups that cover it. Counts by
//! path, content, host or property are rollups of a dimension, one for each value. Texts are dictionary ids (see
//! `store::dictionary`). Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;
use strum::VariantArray;
use uuid::Uuid;

use super::calendar::{Level, Month};
use super::event::{Actor, Batch, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use super::normalize::properties;
use crate::protocol::{RoomId, Time, VisitorId};

/// The id of a text in the database's dictionary.
pub(crate) type DictionaryId = u32;

/// The id of the whole hub, in place of a room.
pub(crate) const ALL_ROOMS: DictionaryId = 0;

/// The id of `(other)`, in place of a value: the sum of all values that have no row of their own.
pub(crate) const OTHER: DictionaryId = 0;

/// The key of a rollup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RollupKey {
    /// The length of the period.
    pub level: Level,
    /// The room, or [`ALL_ROOMS`].
    pub room: DictionaryId,
    /// The start of the period.
    pub at: Time,
}

/// What values are counted by: paths, contents, hosts of referrers, or a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Dimension(pub u32);

impl Dimension {
    /// Page views by path.
    pub(crate) const PATH: Self = Self(1);
    /// Watch sessions and time watched by content.
    pub(crate) const CONTENT: Self = Self(2);
    /// Page views by the referrer's host.
    pub(crate) const HOST: Self = Self(3);

    /// The name, for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PATH => "pages",
            Self::CONTENT => "contents",
            Self::HOST => "referrers",
            _ => "props",
        }
    }
}

/// The key of a dimension's rollup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DimensionKey {
    /// The length of the period.
    pub level: Level,
    /// The start of the period.
    pub at: Time,
    /// The room, or [`ALL_ROOMS`].
    pub room: DictionaryId,
    /// The dimension.
    pub dimension: Dimension,
    /// The value, or [`OTHER`].
    pub value: DictionaryId,
}

/// Counts of one value. In a delta they may be negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Page views, or of contents watch sessions.
    pub count: i64,
    /// Time watched.
    pub watched_ms: i64,
}

impl Count {
    /// Adds `other`.
    pub(crate) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.watched_ms += other.watched_ms;
    }

    /// Whether both are zero.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// A property of page views with rollups of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RollupProp {
    /// Its dimension.
    pub dimension: Dimension,
    /// Its name.
    pub name: String,
    /// Earlier page views are not counted.
    pub from: Time,
}

/// Which rows of a month the rollups of dimensions count, where they do not count all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// None: the month has an `(other)`, or its rollups are about to be rebuilt.
    Nothing,
    /// Page views with a smaller id, during a rebuild.
    PageViewsBefore(Uuid),
    /// All page views, and watch sessions with a smaller id, during a rebuild.
    WatchesBefore(Uuid),
}

/// Which rows the rollups of dimensions count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DimensionRules {
    /// The properties with rollups.
    pub props: Vec<RollupProp>,
    /// The months of which not all rows are counted.
    pub months: BTreeMap<Month, Counted>,
}

impl DimensionRules {
    fn counted(&self, at: Time) -> Option<Counted> {
        if self.months.is_empty() { None } else { self.months.get(&Month::of(at)).copied() }
    }

    fn has_page_view(&self, view: &PageViewEvent) -> bool {
        match self.counted(view.at) {
            None | Some(Counted::WatchesBefore(_)) => true,
            Some(Counted::Nothing) => false,
            Some(Counted::PageViewsBefore(id)) => view.id < id,
        }
    }

    fn has_watch(&self, watch: &WatchEvent) -> bool {
        match self.counted(watch.started_at) {
            None => true,
            Some(Counted::Nothing | Counted::PageViewsBefore(_)) => false,
            Some(Counted::WatchesBefore(id)) => watch.id < id,
        }
    }

    /// Returns the values of a page view's properties that have rollups, with their dimensions.
    pub(crate) fn values<'a>(
        &'a self,
        view: &'a PageViewEvent,
    ) -> impl Iterator<Item = (Dimension, String)> + 'a {
        let is_any = view.props.is_some() && self.props.iter().any(|prop| prop.from <= view.at);
        let pairs = is_any.then(|| properties(view)).into_iter().flatten();
        pairs.filter_map(|(name, value)| {
            let prop = self.props.iter().find(|prop| prop.name == name && prop.from <= view.at)?;
            Some((prop.dimension, value))
        })
    }
}

/// Sums of page views and watch sessions. In a delta they may be negative.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ActivityRollup {
    /// Page views.
    pub page_views: i64,
    /// Watch sessions that started.
    pub watch_sessions: i64,
    /// Time watched in them.
    pub watched_ms: i64,
    /// Visitors with a page view or a watch session.
    pub visitors: RoaringBitmap,
}

/// Sums of presence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PresenceRollup {
    /// How many visitors joined.
    pub joins: i64,
    /// The maximum of visitors present at once.
    pub peak: u32,
    /// Sum of the visitors' presence times.
    pub present_ms: i64,
    /// Sum of the visitors' presence times by mood.
    pub moods_ms: BTreeMap<String, i64>,
    /// Sum of the times that visitors were present without a socket.
    pub held_ms: i64,
    /// How many sits began.
    pub sits_begun: i64,
    /// How many sits reached their end.
    pub sits_completed: i64,
    /// Sum of the times that visitors sat.
    pub sat_ms: i64,
}

impl ActivityRollup {
    /// Adds `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.page_views += other.page_views;
        self.watch_sessions += other.watch_sessions;
        self.watched_ms += other.watched_ms;
        self.visitors |= &other.visitors;
    }

    /// Whether all sums are zero.
    pub(crate) fn is_empty(&self) -> bool {
        self.page_views == 0 && self.watch_sessions == 0 && self.watched_ms == 0 && self.visitors.is_empty()
    }
}

impl PresenceRollup {
    /// Adds `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.joins += other.joins;
        self.peak = self.peak.max(other.peak);
        self.present_ms += other.present_ms;
        for (mood, present_ms) in &other.moods_ms {
            match self.moods_ms.get_mut(mood) {
                Some(mine) => *mine += present_ms,
                None => drop(self.moods_ms.insert(mood.clone(), *present_ms)),
            }
        }
        // A sample that another one replaces may have had the only time of a mood.
        self.moods_ms.retain(|_, present_ms| *present_ms != 0);
        self.held_ms += other.held_ms;
        self.sits_begun += other.sits_begun;
        self.sits_completed += other.sits_completed;
        self.sat_ms += other.sat_ms;
    }

    fn sample(&mut self, sample: &RoomSample, sign: i64) {
        let signed = |number: u64| sign * i64::try_from(number).unwrap_or(i64::MAX);
        self.merge(&Self {
            joins: signed(sample.joins.into()),
            peak: sample.peak,
            present_ms: signed(sample.present_ms),
            moods_ms: sample.moods_ms.iter().map(|(mood, ms)| (mood.clone(), signed(*ms))).collect(),
            held_ms: signed(sample.held_ms),
            sits_begun: signed(sample.sits_begun),
            sits_completed: signed(sample.sits_completed),
            sat_ms: signed(sample.sat_ms),
        });
    }
}

/// The dictionary ids of all texts of some events.
#[derive(Debug, Default)]
pub(crate) struct DictionaryIds {
    /// Ids of rooms, paths, titles, referrers, their hosts, contents and values of properties with rollups.
    pub texts: HashMap<Box<str>, DictionaryId>,
    /// Ids of visitors.
    pub visitors: HashMap<Box<str>, DictionaryId>,
    /// Ids of referrers' hosts, by referrer.
    pub hosts: HashMap<Box<str>, DictionaryId>,
    /// Which events the rollups of dimensions count.
    pub rules: DimensionRules,
}

impl DictionaryIds {
    /// The id of a text, or 0 if it has none.
    pub(crate) fn text(&self, text: &str) -> DictionaryId {
        self.texts.get(text).copied().unwrap_or_default()
    }

    /// The id of a room.
    pub(crate) fn room(&self, room: &RoomId) -> DictionaryId {
        self.text(room.as_str())
    }

    /// The id of a visitor.
    pub(crate) fn visitor(&self, visitor: &VisitorId) -> DictionaryId {
        self.visitors.get(visitor.as_str()).copied().unwrap_or_default()
    }

    fn host(&self, referrer: &str) -> Option<DictionaryId> {
        self.hosts.get(referrer).copied()
    }
}

/// A visitor's appearance in a room. After its row is deleted, the visitor may no longer belong to the rollups there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Appearance {
    /// The visitor.
    pub visitor: DictionaryId,
    /// The room.
    pub room: DictionaryId,
    /// The time.
    pub at: Time,
}

/// A room, the start of a quarter hour, a dimension and a value.
type ValueKey = (DictionaryId, Time, Dimension, DictionaryId);

/// The changes of events to rollups, by room and quarter hour.
#[derive(Debug, Default)]
pub(crate) struct RollupDelta {
    activity: HashMap<(DictionaryId, Time), ActivityRollup>,
    dimensions: HashMap<ValueKey, Count>,
    presence: HashMap<(DictionaryId, Time), PresenceRollup>,
    appearances: Vec<Appearance>,
}

impl RollupDelta {
    /// Adds events. `ids` must have all their texts.
    pub(crate) fn add(&mut self, events: &Batch, ids: &DictionaryIds) {
        self.apply(events, ids, 1);
        self.add_visitors(events, ids);
    }

    /// Adds only the visitors of events whose sums are counted already.
    pub(crate) fn add_visitors(&mut self, events: &Batch, ids: &DictionaryIds) {
        for view in events.page_views.iter().filter(|view| !view.actor.is_bot) {
            self.of_page_view(view, ids).visitors.insert(ids.visitor(&view.actor.visitor));
        }
        for watch in events.watches.iter().filter(|watch| !watch.actor.is_bot) {
            self.of_watch(watch, ids).visitors.insert(ids.visitor(&watch.actor.visitor));
        }
    }

    /// Appearances of subtracted events without an added event of the same visitor in the same room and quarter hour.
    pub(crate) fn removed(&self) -> impl Iterator<Item = Appearance> {
        self.appearances.iter().copied().filter(|appearance| {
            let activity = self.activity.get(&(appearance.room, Level::Quarter.floor(appearance.at)));
            !activity.is_some_and(|activity| activity.visitors.contains(appearance.visitor))
        })
    }

    /// Subtracts events. The peak of presence stays.
    pub(crate) fn subtract(&mut self, events: &Batch, ids: &DictionaryIds) {
        self.apply(events, ids, -1);
        let appearance = |actor: &Actor, at| {
            let (visitor, room) = (ids.visitor(&actor.visitor), ids.room(&actor.room));
            Appearance { visitor, room, at }
        };
        let views = events.page_views.iter().filter(|view| !view.actor.is_bot);
        self.appearances.extend(views.map(|view| appearance(&view.actor, view.at)));
        let watches = events.watches.iter().filter(|watch| !watch.actor.is_bot);
        self.appearances.extend(watches.map(|watch| appearance(&watch.actor, watch.started_at)));
    }

    fn apply(&mut self, events: &Batch, ids: &DictionaryIds, sign: i64) {
        for view in events.page_views.iter().filter(|view| !view.actor.is_bot) {
            self.page_view(view, ids, sign);
        }
        for watch in events.watches.iter().filter(|watch| !watch.actor.is_bot) {
            self.watch(watch, ids, sign);
        }
        for total in &events.samples {
            let at = Level::Quarter.floor(total.at);
            for (room, sample) in room_samples(total, ids) {
                self.presence.entry((room, at)).or_default().sample(sample, sign);
            }
        }
    }

    fn page_view(&mut self, view: &PageViewEvent, ids: &DictionaryIds, sign: i64) {
        self.of_page_view(view, ids).page_views += sign;
        if !ids.rules.has_page_view(view) {
            return;
        }
        let (room, at) = (ids.room(&view.actor.room), Level::Quarter.floor(view.at));
        let count = Count { count: sign, watched_ms: 0 };
        self.value((room, at, Dimension::PATH, ids.text(view.path.as_str())), count);
        if let Some(host) = view.referrer.as_ref().and_then(|referrer| ids.host(referrer.as_str())) {
            self.value((room, at, Dimension::HOST, host), count);
        }
        for (dimension, value) in ids.rules.values(view) {
            self.value((room, at, dimension, ids.text(&value)), count);
        }
    }

    /// A watch session counts at its start.
    fn watch(&mut self, watch: &WatchEvent, ids: &DictionaryIds, sign: i64) {
        let watched_ms = sign * i64::try_from(watch.watched()).unwrap_or(i64::MAX);
        let rollup = self.of_watch(watch, ids);
        rollup.watch_sessions += sign;
        rollup.watched_ms += watched_ms;
        if ids.rules.has_watch(watch) {
            let (room, at) = (ids.room(&watch.actor.room), Level::Quarter.floor(watch.started_at));
            let content = ids.text(watch.content.as_str());
            self.value((room, at, Dimension::CONTENT, content), Count { count: sign, watched_ms });
        }
    }

    fn value(&mut self, key: ValueKey, by: Count) {
        self.dimensions.entry(key).or_default().add(by);
    }

    fn of_page_view(&mut self, view: &PageViewEvent, ids: &DictionaryIds) -> &mut ActivityRollup {
        self.activity.entry((ids.room(&view.actor.room), Level::Quarter.floor(view.at))).or_default()
    }

    fn of_watch(&mut self, watch: &WatchEvent, ids: &DictionaryIds) -> &mut ActivityRollup {
        self.activity
            .entry((ids.room(&watch.actor.room), Level::Quarter.floor(watch.started_at)))
            .or_default()
    }

    /// Returns the changes of page views and watch sessions to each rollup that `is_retained`. Each room's activity
    /// counts for the whole hub too.
    pub(crate) fn activity(
        &self,
        is_retained: impl Fn(Level, Time) -> bool,
    ) -> BTreeMap<RollupKey, ActivityRollup> {
        let mut changes = BTreeMap::<RollupKey, ActivityRollup>::new();
        for ((room, quarter), activity) in &self.activity {
            for level in Level::VARIANTS.iter().copied() {
                let at = level.floor(*quarter);
                if is_retained(level, at) {
                    for room in [*room, ALL_ROOMS] {
                        changes.entry(RollupKey { level, room, at }).or_default().merge(activity);
                    }
                }
            }
        }
        changes
    }

    /// Returns the changes to the rollups of dimensions whose level and time are retained, in the order of keys.
    pub(crate) fn dimensions(&self, is_retained: impl Fn(Level, Time) -> bool) -> Vec<(DimensionKey, Count)> {
        let mut periods = HashMap::<Time, Vec<(Level, Time)>>::new();
        let mut changes = Vec::with_capacity(self.dimensions.len() * 6);
        let counts = self.dimensions.iter().filter(|(key, count)| !count.is_empty() && key.3 != OTHER);
        for ((room, quarter, dimension, value), count) in counts {
            let periods = periods.entry(*quarter).or_insert_with(|| {
                let periods = Level::VARIANTS.iter().map(|level| (*level, level.floor(*quarter)));
                periods.filter(|(level, at)| is_retained(*level, *at)).collect()
            });
            for (level, at) in periods.iter().copied() {
                let key = |room| DimensionKey { level, at, room, dimension: *dimension, value: *value };
                changes.extend([(key(*room), *count), (key(ALL_ROOMS), *count)]);
            }
        }
        changes.sort_unstable_by_key(|(key, _)| *key);
        changes.dedup_by(|(next, more), (key, count)| {
            let is_same = next == key;
            if is_same {
                count.add(*more);
            }
            is_same
        });
        changes.retain(|(_, count)| !count.is_empty());
        changes
    }

    /// Forgets the changes to the rollups of dimensions.
    pub(crate) fn clear_dimensions(&mut self) {
        self.dimensions.clear();
    }

    /// Returns the starts of the days of UTC whose figures change.
    pub(crate) fn days(&self) -> BTreeSet<Time> {
        let activity = self.activity.keys().map(|(_, at)| *at);
        activity.chain(self.presence.keys().map(|(_, at)| *at)).map(|at| Level::Day.floor(at)).collect()
    }

    /// Returns the changes of presence samples. The whole hub has samples of its own.
    pub(crate) fn presence(
        &self,
        is_retained: impl Fn(Level, Time) -> bool,
    ) -> BTreeMap<RollupKey, PresenceRollup> {
        let mut changes = BTreeMap::<RollupKey, PresenceRollup>::new();
        for ((room, quarter), presence) in &self.presence {
            for level in Level::VARIANTS.iter().copied() {
                let at = level.floor(*quarter);
                if is_retained(level, at) {
                    changes.entry(RollupKey { level, room: *room, at }).or_default().merge(presence);
                }
            }
        }
        changes
    }
}

/// Returns the room samples of a presence sample, each with its room's id.
pub(crate) fn room_samples<'a>(
    total: &'a TotalSample,
    ids: &DictionaryIds,
) -> impl Iterator<Item = (DictionaryId, &'a RoomSample)> {
    let rooms = total.rooms.iter().map(|(room, sample)| (ids.room(room), sample));
    std::iter::once((ALL_ROOMS, &total.hub)).chain(rooms)
}
