//! Rollups: what a stretch of time adds up to, in one room or in all.
//!
//! A rollup is a value that merges, so that a day is the sum of its quarter hours and a range the sum of
//! what covers it. Texts are numbers here (see `store::names`). Pure.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;
use url::Url;

use super::calendar::Level;
use super::event::{Batch, Census, PageViewFact, Sample, WatchFact, Who};
use crate::protocol::{RoomId, Time, VisitorId};

/// The number of a text in the database.
pub(crate) type Number = u32;

/// The room whose rollups are those of the whole hub.
pub(crate) const ALL_ROOMS: Number = 0;

/// The most bytes of a property's value that are told apart from others.
const VALUE_LIMIT: usize = 64;

/// How the text of a longer value ends.
pub(crate) const CUT: char = '…';

/// How often each of some texts was met.
pub(crate) type Counts = BTreeMap<Number, i64>;

/// Which rollup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// How long the stretch is.
    pub level: Level,
    /// The room, or [`ALL_ROOMS`].
    pub room: Number,
    /// When the stretch begins.
    pub at: Time,
}

/// Page views and watch sessions. What is added up may be negative where rows were taken back.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Activity {
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
    pub contents: BTreeMap<Number, (i64, i64)>,
    /// Page views by the referrer's host.
    pub referrers: Counts,
    /// Page views by property and its value.
    pub props: BTreeMap<Number, Counts>,
}

/// Who was present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// People who came.
    pub joins: i64,
    /// The most who were present at once.
    pub peak: u32,
    /// How long each person was present, added up.
    pub present_ms: i64,
    /// How long each person was in each mood, added up.
    pub moods_ms: BTreeMap<String, i64>,
}

impl Activity {
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
    fn page_view(&mut self, view: &PageViewFact, numbers: &Numbers, sign: i64) {
        self.page_views += sign;
        add(&mut self.pages, numbers.text(view.path.as_str()), sign);
        if let Some(host) = view.referrer.as_ref().and_then(|referrer| numbers.host(referrer.as_str())) {
            add(&mut self.referrers, host, sign);
        }
        for (key, value) in properties(view) {
            let values = self.props.entry(numbers.text(&key)).or_default();
            add(values, numbers.text(&value), sign);
        }
    }

    /// Adds one watch session, or with `sign` -1 takes it back.
    fn watch(&mut self, watch: &WatchFact, numbers: &Numbers, sign: i64) {
        let watched_ms = sign * i64::try_from(watch.watched()).unwrap_or(i64::MAX);
        self.watch_sessions += sign;
        self.watched_ms += watched_ms;
        let content = self.contents.entry(numbers.text(watch.content.as_str())).or_default();
        *content = (content.0 + sign, content.1 + watched_ms);
    }

    /// Whether nothing is left.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.page_views == 0 && self.watch_sessions == 0 && self.watched_ms == 0 && self.visitors.is_empty()
    }
}

impl Presence {
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

    fn sample(&mut self, sample: &Sample, sign: i64) {
        let signed = |number: u64| sign * i64::try_from(number).unwrap_or(i64::MAX);
        self.merge(&Self {
            joins: signed(sample.joins.into()),
            peak: sample.peak,
            present_ms: signed(sample.present_ms),
            moods_ms: sample.moods_ms.iter().map(|(mood, ms)| (mood.clone(), signed(*ms))).collect(),
        });
    }
}

/// The numbers of all texts that some facts have.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// Of rooms, paths, titles, referrers, their hosts, contents, properties and their values.
    pub texts: HashMap<Box<str>, Number>,
    /// Of visitors.
    pub visitors: HashMap<Box<str>, Number>,
    /// Of the hosts of referrers, by referrer.
    pub hosts: HashMap<Box<str>, Number>,
}

impl Numbers {
    /// The number of a text, or 0 where it has none.
    #[must_use]
    pub(crate) fn text(&self, text: &str) -> Number {
        self.texts.get(text).copied().unwrap_or_default()
    }

    /// The room's number.
    #[must_use]
    pub(crate) fn room(&self, room: &RoomId) -> Number {
        self.text(room.as_str())
    }

    /// The visitor's number.
    #[must_use]
    pub(crate) fn visitor(&self, visitor: &VisitorId) -> Number {
        self.visitors.get(visitor.as_str()).copied().unwrap_or_default()
    }

    fn host(&self, referrer: &str) -> Option<Number> {
        self.hosts.get(referrer).copied()
    }
}

/// A visitor who may no longer belong to the rollups in which this place lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Trace {
    /// Who.
    pub visitor: Number,
    /// Where.
    pub room: Number,
    /// When.
    pub at: Time,
}

/// What some facts change, by room and quarter of an hour.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    activity: HashMap<(Number, Time), Activity>,
    presence: HashMap<(Number, Time), Presence>,
    traces: Vec<Trace>,
}

impl Tally {
    /// Adds facts, of which `numbers` has all texts.
    pub(crate) fn add(&mut self, facts: &Batch, numbers: &Numbers) {
        self.change(facts, numbers, 1);
        self.meet(facts, numbers);
    }

    /// Adds only the visitors of facts that count already.
    pub(crate) fn meet(&mut self, facts: &Batch, numbers: &Numbers) {
        for view in facts.page_views.iter().filter(|view| !view.who.is_bot) {
            self.of_page_view(view, numbers).visitors.insert(numbers.visitor(&view.who.visitor));
        }
        for watch in facts.watches.iter().filter(|watch| !watch.who.is_bot) {
            self.of_watch(watch, numbers).visitors.insert(numbers.visitor(&watch.who.visitor));
        }
    }

    /// Where rows of somebody were taken back, and none of theirs in the same room and quarter was added.
    pub(crate) fn traces(&self) -> impl Iterator<Item = Trace> {
        self.traces.iter().copied().filter(|trace| {
            let activity = self.activity.get(&(trace.room, Level::Quarter.floor(trace.at)));
            !activity.is_some_and(|activity| activity.visitors.contains(trace.visitor))
        })
    }

    /// Takes facts back. The peak of who was present stays.
    pub(crate) fn take(&mut self, facts: &Batch, numbers: &Numbers) {
        self.change(facts, numbers, -1);
        let trace = |who: &Who, at| {
            let (visitor, room) = (numbers.visitor(&who.visitor), numbers.room(&who.room));
            Trace { visitor, room, at }
        };
        let views = facts.page_views.iter().filter(|view| !view.who.is_bot);
        self.traces.extend(views.map(|view| trace(&view.who, view.at)));
        let watches = facts.watches.iter().filter(|watch| !watch.who.is_bot);
        self.traces.extend(watches.map(|watch| trace(&watch.who, watch.started_at)));
    }

    fn change(&mut self, facts: &Batch, numbers: &Numbers, sign: i64) {
        for view in facts.page_views.iter().filter(|view| !view.who.is_bot) {
            self.of_page_view(view, numbers).page_view(view, numbers, sign);
        }
        // A watch session counts to the moment of its start.
        for watch in facts.watches.iter().filter(|watch| !watch.who.is_bot) {
            self.of_watch(watch, numbers).watch(watch, numbers, sign);
        }
        for census in &facts.censuses {
            let at = Level::Quarter.floor(census.at);
            for (room, sample) in samples(census, numbers) {
                self.presence.entry((room, at)).or_default().sample(sample, sign);
            }
        }
    }

    fn of_page_view(&mut self, view: &PageViewFact, numbers: &Numbers) -> &mut Activity {
        self.activity.entry((numbers.room(&view.who.room), Level::Quarter.floor(view.at))).or_default()
    }

    fn of_watch(&mut self, watch: &WatchFact, numbers: &Numbers) -> &mut Activity {
        self.activity
            .entry((numbers.room(&watch.who.room), Level::Quarter.floor(watch.started_at)))
            .or_default()
    }

    /// What page views and watch sessions change, in every rollup that `is_kept`. A room's activity is
    /// the whole hub's too.
    pub(crate) fn activity(&self, is_kept: impl Fn(Level, Time) -> bool) -> BTreeMap<Key, Activity> {
        let mut changes = BTreeMap::<Key, Activity>::new();
        for ((room, quarter), activity) in &self.activity {
            for level in Level::ALL {
                let at = level.floor(*quarter);
                if is_kept(level, at) {
                    for room in [*room, ALL_ROOMS] {
                        changes.entry(Key { level, room, at }).or_default().merge(activity);
                    }
                }
            }
        }
        changes
    }

    /// What presence samples change. The whole hub has samples of its own.
    pub(crate) fn presence(&self, is_kept: impl Fn(Level, Time) -> bool) -> BTreeMap<Key, Presence> {
        let mut changes = BTreeMap::<Key, Presence>::new();
        for ((room, quarter), presence) in &self.presence {
            for level in Level::ALL {
                let at = level.floor(*quarter);
                if is_kept(level, at) {
                    changes.entry(Key { level, room: *room, at }).or_default().merge(presence);
                }
            }
        }
        changes
    }
}

/// The samples of a census, each with its room's number.
pub(crate) fn samples<'a>(
    census: &'a Census,
    numbers: &Numbers,
) -> impl Iterator<Item = (Number, &'a Sample)> {
    let rooms = census.rooms.iter().map(|(room, sample)| (numbers.room(room), sample));
    std::iter::once((ALL_ROOMS, &census.hub)).chain(rooms)
}

fn add(counts: &mut Counts, text: Number, by: i64) {
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
pub(crate) fn properties(view: &PageViewFact) -> impl Iterator<Item = (String, String)> {
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
