//! Rollups: what a stretch of time adds up to, in one room or in all.
//!
//! A rollup is a value that merges, so that a day is the sum of its quarter hours and a range the sum of
//! what covers it. Texts are ids here (see `store::names`). Pure.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;
use strum::VariantArray;
use url::Url;

use super::calendar::Level;
use super::event::{Actor, Batch, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use crate::protocol::{RoomId, Time, VisitorId};

/// The number of a text in the database.
pub(crate) type DictionaryId = u32;

/// The room whose rollups are those of the whole hub.
pub(crate) const ALL_ROOMS: DictionaryId = 0;

/// The most bytes of a property's value that are told apart from others.
const VALUE_LIMIT: usize = 64;

/// How the text of a longer value ends.
pub(crate) const CUT: char = '…';

/// How often each of some texts was met.
pub(crate) type Counts = BTreeMap<DictionaryId, i64>;

/// Which rollup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RollupKey {
    /// How long the stretch is.
    pub level: Level,
    /// The room, or [`ALL_ROOMS`].
    pub room: DictionaryId,
    /// When the stretch begins.
    pub at: Time,
}

/// Page views and watch sessions. What is added up may be negative where rows were taken back.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ActivityRollup {
    /// Pages seen.
    pub page_views: i64,
    /// Watch sessions that started.
    pub watch_sessions: i64,
    /// Time watched in them.
    pub watched_ms: i64,
    /// Who saw or watched something.
    pub visitors: RoaringBitmap,
    /// Page views by path.
    pub pages: Counts,
    /// Watch sessions, and the milliseconds watched in them, by content.
    pub contents: BTreeMap<DictionaryId, (i64, i64)>,
    /// Page views by the referrer's host.
    pub referrers: Counts,
    /// Page views by property and its value.
    pub props: BTreeMap<DictionaryId, Counts>,
}

/// Who was present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PresenceRollup {
    /// People who came.
    pub joins: i64,
    /// The most who were present at once.
    pub peak: u32,
    /// How long each person was present, added up.
    pub present_ms: i64,
    /// How long each person was in each mood, added up.
    pub moods_ms: BTreeMap<String, i64>,
}

impl ActivityRollup {
    /// Adds `other` to this.
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

    /// Adds one page view, or with `sign` -1 takes it back.
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

    /// Adds one watch session, or with `sign` -1 takes it back.
    fn watch(&mut self, watch: &WatchEvent, ids: &DictionaryIds, sign: i64) {
        let watched_ms = sign * i64::try_from(watch.watched()).unwrap_or(i64::MAX);
        self.watch_sessions += sign;
        self.watched_ms += watched_ms;
        let content = self.contents.entry(ids.text(watch.content.as_str())).or_default();
        *content = (content.0 + sign, content.1 + watched_ms);
    }

    /// Whether nothing is left.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.page_views == 0 && self.watch_sessions == 0 && self.watched_ms == 0 && self.visitors.is_empty()
    }
}

impl PresenceRollup {
    /// Adds `other` to this.
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

/// The ids of all texts that some events have.
#[derive(Debug, Default)]
pub(crate) struct DictionaryIds {
    /// Of rooms, paths, titles, referrers, their hosts, contents, properties and their values.
    pub texts: HashMap<Box<str>, DictionaryId>,
    /// Of visitors.
    pub visitors: HashMap<Box<str>, DictionaryId>,
    /// Of the hosts of referrers, by referrer.
    pub hosts: HashMap<Box<str>, DictionaryId>,
}

impl DictionaryIds {
    /// The number of a text, or 0 where it has none.
    #[must_use]
    pub(crate) fn text(&self, text: &str) -> DictionaryId {
        self.texts.get(text).copied().unwrap_or_default()
    }

    /// The room's number.
    #[must_use]
    pub(crate) fn room(&self, room: &RoomId) -> DictionaryId {
        self.text(room.as_str())
    }

    /// The visitor's number.
    #[must_use]
    pub(crate) fn visitor(&self, visitor: &VisitorId) -> DictionaryId {
        self.visitors.get(visitor.as_str()).copied().unwrap_or_default()
    }

    fn host(&self, referrer: &str) -> Option<DictionaryId> {
        self.hosts.get(referrer).copied()
    }
}

/// A visitor who may no longer belong to the rollups in which this place lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Appearance {
    /// Who.
    pub visitor: DictionaryId,
    /// Where.
    pub room: DictionaryId,
    /// When.
    pub at: Time,
}

/// What some events change, by room and quarter of an hour.
#[derive(Debug, Default)]
pub(crate) struct RollupDelta {
    activity: HashMap<(DictionaryId, Time), ActivityRollup>,
    presence: HashMap<(DictionaryId, Time), PresenceRollup>,
    appearances: Vec<Appearance>,
}

impl RollupDelta {
    /// Adds events, of which `ids` has all texts.
    pub(crate) fn add(&mut self, events: &Batch, ids: &DictionaryIds) {
        self.change(events, ids, 1);
        self.meet(events, ids);
    }

    /// Adds only the visitors of events that count already.
    pub(crate) fn meet(&mut self, events: &Batch, ids: &DictionaryIds) {
        for view in events.page_views.iter().filter(|view| !view.actor.is_bot) {
            self.of_page_view(view, ids).visitors.insert(ids.visitor(&view.actor.visitor));
        }
        for watch in events.watches.iter().filter(|watch| !watch.actor.is_bot) {
            self.of_watch(watch, ids).visitors.insert(ids.visitor(&watch.actor.visitor));
        }
    }

    /// Where rows of somebody were taken back, and none of theirs in the same room and quarter was added.
    pub(crate) fn appearances(&self) -> impl Iterator<Item = Appearance> {
        self.appearances.iter().copied().filter(|appearance| {
            let activity = self.activity.get(&(appearance.room, Level::Quarter.floor(appearance.at)));
            !activity.is_some_and(|activity| activity.visitors.contains(appearance.visitor))
        })
    }

    /// Takes events back. The peak of who was present stays.
    pub(crate) fn take(&mut self, events: &Batch, ids: &DictionaryIds) {
        self.change(events, ids, -1);
        let appearance = |actor: &Actor, at| {
            let (visitor, room) = (ids.visitor(&actor.visitor), ids.room(&actor.room));
            Appearance { visitor, room, at }
        };
        let views = events.page_views.iter().filter(|view| !view.actor.is_bot);
        self.appearances.extend(views.map(|view| appearance(&view.actor, view.at)));
        let watches = events.watches.iter().filter(|watch| !watch.actor.is_bot);
        self.appearances.extend(watches.map(|watch| appearance(&watch.actor, watch.started_at)));
    }

    fn change(&mut self, events: &Batch, ids: &DictionaryIds, sign: i64) {
        for view in events.page_views.iter().filter(|view| !view.actor.is_bot) {
            self.of_page_view(view, ids).page_view(view, ids, sign);
        }
        // A watch session counts to the moment of its start.
        for watch in events.watches.iter().filter(|watch| !watch.actor.is_bot) {
            self.of_watch(watch, ids).watch(watch, ids, sign);
        }
        for total in &events.samples {
            let at = Level::Quarter.floor(total.at);
            for (room, sample) in samples(total, ids) {
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

    /// What page views and watch sessions change, in every rollup that `is_retained`. A room's activity is
    /// the whole hub's too.
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

    /// What presence samples change. The whole hub has samples of its own.
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

/// The samples of a total, each with its room's number.
pub(crate) fn samples<'a>(
    total: &'a TotalSample,
    ids: &DictionaryIds,
) -> impl Iterator<Item = (DictionaryId, &'a RoomSample)> {
    let rooms = total.rooms.iter().map(|(room, sample)| (ids.room(room), sample));
    std::iter::once((ALL_ROOMS, &total.hub)).chain(rooms)
}

fn add(counts: &mut Counts, text: DictionaryId, by: i64) {
    *counts.entry(text).or_default() += by;
}

/// Adds `others` to counts, of which those that come to nothing go.
pub(crate) fn add_all(counts: &mut Counts, others: &Counts) {
    for (text, by) in others {
        let count = counts.entry(*text).or_default();
        *count += by;
        if *count == 0 {
            counts.remove(text);
        }
    }
}

/// The host of a referrer that is a URL, without `www.`.
#[must_use]
pub(crate) fn referrer_host(referrer: &str) -> Option<String> {
    let url = Url::parse(referrer).ok()?;
    let host = url.host_str()?;
    Some(host.strip_prefix("www.").unwrap_or(host).to_owned())
}

/// A page view's properties as pairs of texts. Of a long value only the beginning tells it apart.
pub(crate) fn properties(view: &PageViewEvent) -> impl Iterator<Item = (String, String)> {
    let json = view.props.as_ref().map(|props| serde_json::from_str::<serde_json::Value>(props.as_json()));
    let object = match json {
        Some(Ok(serde_json::Value::Object(object))) => object,
        _ => serde_json::Map::new(),
    };
    object.into_iter().map(|(key, value)| match value {
        serde_json::Value::String(text) if text.len() > VALUE_LIMIT => {
            (key, format!("{}{CUT}", text.get(..text.floor_char_boundary(VALUE_LIMIT)).unwrap_or_default()))
        }
        serde_json::Value::String(text) => (key, text),
        other => (key, other.to_string()),
    })
}
