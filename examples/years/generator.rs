//! The generator: rooms, pages and visitors, and their events of each hour.
//!
//! Each day has the same distribution, with peaks in the morning and in the evening.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use breathing_room::config::Time;
use breathing_room::internals::{
    Actor, Batch, Event, PageView, PageViewEvent, RoomId, RoomSample, TotalSample, VisitorId, Watch,
    WatchEvent,
};
use serde_json::json;
use uuid::{Builder, Uuid};

use super::Settings;
use super::random::Random;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The share of each hour of the day, per mille.
const RHYTHM: [u64; 24] =
    [12, 8, 6, 8, 18, 45, 80, 85, 60, 40, 32, 30, 36, 34, 28, 28, 32, 42, 56, 76, 88, 78, 50, 28];

const MOODS: [&str; 5] = ["calm", "gratitude", "presence", "joy", "tired"];

/// Generates events, hour by hour.
pub(crate) struct Generator {
    random: Random,
    hours: u64,
    hour: u64,
    start: Time,
    page_views: u64,
    generated: u64,
    /// The sum of the shares of all hours, and of the generated ones.
    shares: u64,
    passed: u64,
    rooms: Vec<RoomId>,
    visitors: u32,
    paths: u32,
    only_page_views: bool,
}

impl Generator {
    /// Creates a generator for a history up to `now`.
    pub(crate) fn new(settings: &Settings, now: Time) -> Self {
        let hours = if settings.day_of_paths.is_some() { 24 } else { settings.months * 365 * 24 / 12 };
        let names = ["morning-sit", "lobby", "evening", "sangha", "garden", "silence", "mountain", "river"];
        let name = |n: u32| match n / 8 {
            0 => names[n as usize % 8].to_owned(),
            more => format!("{}-{}", names[n as usize % 8], more + 1),
        };
        let start = now.minus(now.millis() % HOUR_MS).minus(hours * HOUR_MS);
        Self {
            random: Random::new(settings.seed),
            hours,
            hour: 0,
            start,
            page_views: settings.page_views,
            generated: 0,
            shares: (0..hours).map(|hour| share(start.plus(hour * HOUR_MS))).sum(),
            passed: 0,
            rooms: (0..settings.rooms).filter_map(|n| RoomId::try_from(name(n)).ok()).collect(),
            visitors: settings.visitors,
            paths: settings.paths,
            only_page_views: settings.only_page_views,
        }
    }

    /// Returns the events of the next hour, or none after the last one.
    pub(crate) fn next_hour(&mut self) -> Result<Option<Batch>, Box<dyn Error>> {
        if self.hour == self.hours {
            return Ok(None);
        }
        let start = self.start.plus(self.hour * HOUR_MS);
        self.hour += 1;
        self.passed += share(start);
        let views = (self.page_views * self.passed / self.shares).saturating_sub(self.generated);
        self.generated += views;
        let mut batch = Batch::default();
        for n in 0..views {
            let at = start.plus(n * HOUR_MS / views);
            batch.push(Event::PageView(self.page_view(at)?));
            if !self.only_page_views && self.random.chance(0.1) {
                batch.push(Event::Watch(self.watch(at)?));
            }
        }
        if !self.only_page_views {
            self.presence(start, views, &mut batch);
        }
        Ok(Some(batch))
    }

    /// Returns page view `n` of the `page_views` of the last day.
    pub(crate) fn view_of_day(
        &mut self,
        n: u64,
        page_views: u64,
        paths: u32,
    ) -> Result<Batch, Box<dyn Error>> {
        let at = self.start.plus(n * DAY_MS / page_views.max(1));
        let path = n % u64::from(paths.max(1));
        let message = json!({
            "id": self.id(at), "path": format!("/practice/{path}"), "title": "Practice", "at": at,
        });
        let view =
            PageViewEvent::new(self.random_actor()?, serde_json::from_value::<PageView>(message)?, at)?;
        Ok([Event::PageView(view)].into_iter().collect())
    }

    fn page_view(&mut self, at: Time) -> Result<PageViewEvent, Box<dyn Error>> {
        let path = self.random.popular(self.paths);
        let referrer = self.random.chance(0.3).then(|| {
            let site = self.random.popular(300);
            format!("https://www.site-{site}.example/{}", self.random.below(3))
        });
        let props = self.random.chance(0.2).then(|| {
            let plan = self.random.one_of(&["free", "free", "plus", "family"]);
            json!({ "plan": plan, "app": self.random.chance(0.4) })
        });
        let message = json!({
            "id": self.id(at), "path": format!("/practice/{path}"),
            "title": format!("Practice {path}"), "referrer": referrer, "props": props, "at": at,
        });
        Ok(PageViewEvent::new(self.random_actor()?, serde_json::from_value::<PageView>(message)?, at)?)
    }

    fn watch(&mut self, started: Time) -> Result<WatchEvent, Box<dyn Error>> {
        let content = self.random.popular(150);
        let watched = u64::from(1 + self.random.below(30)) * MINUTE_MS;
        let at = started.plus(watched + u64::from(self.random.below(5)) * MINUTE_MS);
        let message = json!({
            "id": self.id(started), "content": format!("meditation-{content}"), "state": "ended",
            "watchedMs": watched, "startedAt": started, "at": at, "durationMs": 30 * MINUTE_MS,
        });
        Ok(WatchEvent::new(self.random_actor()?, serde_json::from_value::<Watch>(message)?, at)?)
    }

    /// Adds presence samples for each minute with visitors.
    fn presence(&mut self, start: Time, views: u64, batch: &mut Batch) {
        // A page view keeps its visitor present for two minutes.
        let present_visitors = u32::try_from(views / 30).unwrap_or(u32::MAX);
        for minute in 0..60 {
            let at = start.plus(minute * MINUTE_MS);
            let mut sample = TotalSample {
                id: self.id(at),
                at,
                nodes: BTreeSet::new(),
                hub: RoomSample::default(),
                rooms: BTreeMap::new(),
            };
            for (rank, room) in (1_u32..).zip(self.rooms.clone()) {
                let present = (present_visitors / rank).saturating_sub(self.random.below(3));
                if present == 0 {
                    continue;
                }
                let (present_ms, in_mood) = (u64::from(present) * MINUTE_MS, present / 2);
                let mut moods_ms = BTreeMap::new();
                if in_mood > 0 {
                    let mood = self.random.one_of(&MOODS).to_owned();
                    let in_mood_ms = u64::from(in_mood) * MINUTE_MS;
                    *sample.hub.moods_ms.entry(mood.clone()).or_default() += in_mood_ms;
                    moods_ms.insert(mood, in_mood_ms);
                }
                sample.hub.peak += present;
                sample.hub.joins += present / 8;
                sample.hub.present_ms += present_ms;
                sample.rooms.insert(
                    room,
                    RoomSample {
                        present_ms,
                        peak: present,
                        joins: present / 8,
                        moods_ms,
                        ..RoomSample::default()
                    },
                );
            }
            if sample.hub.peak > 0 {
                batch.samples.push(sample);
            }
        }
    }

    fn random_actor(&mut self) -> Result<Actor, Box<dyn Error>> {
        // Half of the events are of frequent visitors.
        let visitor = if self.random.chance(0.5) {
            self.random.popular(self.visitors)
        } else {
            self.random.below(self.visitors)
        };
        let rooms = u32::try_from(self.rooms.len())?;
        let room = self.rooms[self.random.popular(rooms) as usize].clone();
        // Has the length of the ids that browsers generate.
        let visitor =
            Uuid::from_u128(u128::from(visitor).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        Ok(Actor { room, visitor: VisitorId::try_from(visitor.to_string())?, is_bot: false })
    }

    fn id(&mut self, at: Time) -> Uuid {
        Builder::from_unix_timestamp_millis(at.millis(), &self.random.bytes()).into_uuid()
    }
}

/// Returns the share of the day's page views in the hour that starts then, per mille.
fn share(hour: Time) -> u64 {
    RHYTHM[(hour.millis() % DAY_MS / HOUR_MS) as usize]
}
