//! Rollups: sums of a period, for one room or the whole hub.
//!
//! Rollups merge: a day is the sum of its quarter hours, and a range the sum of the rollups that cover it. Texts are
//! dictionary ids (see `store::dictionary`). Pure.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;
use strum::VariantArray;

use super::calendar::Level;
use super::event::{Actor, Batch, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use super::normalize::properties;
use crate::protocol::{RoomId, Time, VisitorId};

/// The id of a text in the database's dictionary.
pub(crate) type DictionaryId = u32;

/// The id of the whole hub, in place of a room.
pub(crate) const ALL_ROOMS: DictionaryId = 0;

/// How often each text occurred.
pub(crate) type Counts = BTreeMap<DictionaryId, i64>;

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
    /// Page views by path.
    pub pages: Counts,
    /// Watch sessions, and milliseconds watched, by content.
    pub contents: BTreeMap<DictionaryId, (i64, i64)>,
    /// Page views by the referrer's host.
    pub referrers: Counts,
    /// Page views by property and value.
    pub props: BTreeMap<DictionaryId, Counts>,
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
}

impl ActivityRollup {
    /// Adds `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.page_views += other.page_views;
        self.watch_sessions += other.watch_sessions;
        self.watched_ms += other.watched_ms;
        self.visitors |= &other.visitors;
        add_all(&mut self.pages, &other.pages);
        add_all(&mut self.referrers, &other.referrers);
        for (key, values) in &other.props {
            let mine = self.props.entry(*key).or_default();
            add_all(mine, values);
            if mine.is_empty() {
                self.props.remove(key);
            }
        }
        for (content, (sessions, watched_ms)) in &other.contents {
            let mine = self.contents.entry(*content).or_default();
            *mine = (mine.0 + sessions, mine.1 + watched_ms);
            if *mine == (0, 0) {
                self.contents.remove(content);
            }
        }
    }

    /// Adds a page view, or subtracts it if `sign` is -1.
    fn page_view(&mut self, view: &PageViewEvent, ids: &DictionaryIds, sign: i64) {
        self.page_views += sign;
        add(&mut self.pages, ids.text(view.path.as_str()), sign);
        if let Some(host) = view.referrer.as_ref().and_then(|referrer| ids.host(referrer.as_str())) {
            add(&mut self.referrers, host, sign);
        }
        for (key, value) in properties(view) {
            let values = self.props.entry(ids.text(&key)).or_default();
            add(values, ids.text(&value), sign);
        }
    }

    /// Adds a watch session, or subtracts it if `sign` is -1.
    fn watch(&mut self, watch: &WatchEvent, ids: &DictionaryIds, sign: i64) {
        let watched_ms = sign * i64::try_from(watch.watched()).unwrap_or(i64::MAX);
        self.watch_sessions += sign;
        self.watched_ms += watched_ms;
        let content = self.contents.entry(ids.text(watch.content.as_str())).or_default();
        *content = (content.0 + sign, content.1 + watched_ms);
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
    }

    fn sample(&mut self, sample: &RoomSample, sign: i64) {
        let signed = |number: u64| sign * i64::try_from(number).unwrap_or(i64::MAX);
        self.merge(&Self {
            joins: signed(sample.joins.into()),
            peak: sample.peak,
            present_ms: signed(sample.present_ms),
            moods_ms: sample.moods_ms.iter().map(|(mood, ms)| (mood.clone(), signed(*ms))).collect(),
        });
    }
}

/// The dictionary ids of all texts of some events.
#[derive(Debug, Default)]
pub(crate) struct DictionaryIds {
    /// Ids of rooms, paths, titles, referrers, their hosts, contents, properties and values.
    pub texts: HashMap<Box<str>, DictionaryId>,
    /// Ids of visitors.
    pub visitors: HashMap<Box<str>, DictionaryId>,
    /// Ids of referrers' hosts, by referrer.
    pub hosts: HashMap<Box<str>, DictionaryId>,
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

/// The changes of events to rollups, by room and quarter hour.
#[derive(Debug, Default)]
pub(crate) struct RollupDelta {
    activity: HashMap<(DictionaryId, Time), ActivityRollup>,
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
            self.of_page_view(view, ids).page_view(view, ids, sign);
        }
        // A watch session counts at its start.
        for watch in events.watches.iter().filter(|watch| !watch.actor.is_bot) {
            self.of_watch(watch, ids).watch(watch, ids, sign);
        }
        for total in &events.samples {
            let at = Level::Quarter.floor(total.at);
            for (room, sample) in room_samples(total, ids) {
                self.presence.entry((room, at)).or_default().sample(sample, sign);
            }
        }
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

fn add(counts: &mut Counts, text: DictionaryId, by: i64) {
    *counts.entry(text).or_default() += by;
}

/// Adds `others` to `counts`, and removes counts that become 0.
pub(crate) fn add_all(counts: &mut Counts, others: &Counts) {
    for (text, by) in others {
        let count = counts.entry(*text).or_default();
        *count += by;
        if *count == 0 {
            counts.remove(text);
        }
    }
}
