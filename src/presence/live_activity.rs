//! The summary of everything live, as `GET /live-activity` and `/live` tell it.
//!
//! It is made once for all who ask within a tenth of a second, outside of all locks that joins and page views need, and
//! encoded once. Its lists are bounded in entries and in bytes, whatever people call their rooms and pages.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::activity::{Attended, LIST_LIMIT};
use super::registry::{PresenceTotals, Registry};
use super::room::Room;
use crate::protocol::frame::{Frame, json};
use crate::protocol::mood::NamedMoods;
use crate::protocol::{MoodCounts, RoomId, Time, Vocabulary};
use crate::sync::lock;
use crate::time::Clock;

/// How old a summary is at most that somebody gets.
const LIFETIME: Duration = Duration::from_millis(100);

/// The most bytes of one list, as JSON: with three lists, and at most 64 moods, a summary has at most 32 KiB.
const LIST_BYTES: usize = 9 * 1024;

/// What is going on, over all rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ActivitySnapshot {
    vocabulary: Vocabulary,
    totals: PresenceTotals,
    rooms: Vec<Listed>,
    moods: MoodCounts,
    watching: Vec<Attended>,
    pages: Vec<Attended>,
}

/// With how many are present, and how many of them are held.
type Listed = (RoomId, (u32, u32), MoodCounts);

impl ActivitySnapshot {
    /// Passes all rooms, in chunks, and lets others work in between.
    async fn collect(registry: &Registry) -> Self {
        let vocabulary = registry.vocabulary().clone();
        let (totals, mut moods, mut rooms) = (registry.totals(), vocabulary.zero(), Vec::new());
        let mut chunk = 0;
        while let Some(passed) = registry.room_chunk(chunk) {
            rooms.extend(passed.iter().map(|room| Self::look_at(room, &mut moods)));
            rooms.sort_by(|a: &Listed, b| (Reverse(a.1.0), &a.0).cmp(&(Reverse(b.1.0), &b.0)));
            rooms.truncate(LIST_LIMIT);
            chunk += 1;
            yield_now().await;
        }
        let mut activity = Self {
            totals,
            rooms,
            moods,
            watching: registry.activity().top_watched(),
            pages: registry.activity().top_pages(),
            vocabulary,
        };
        activity.cut();
        activity
    }

    fn look_at(room: &Room, moods: &mut MoodCounts) -> Listed {
        let counts = room.snapshot();
        moods.merge(&counts.moods);
        (room.id().clone(), (counts.present, counts.held), counts.moods)
    }

    /// Cuts each list where it has too many bytes.
    fn cut(&mut self) {
        let Self { vocabulary, rooms, watching, pages, .. } = self;
        cut(rooms, |listed| json(&RoomActivity::new(listed, vocabulary)).len());
        cut(watching, |attended| json(&ContentActivity::new(attended)).len());
        cut(pages, |attended| json(&PageActivity::new(attended)).len());
    }

    /// The summary as a message; `kind` is its `type` on a socket.
    fn message(&self, kind: Option<LiveActivityType>, timestamp: Time) -> LiveActivity<'_> {
        LiveActivity {
            kind,
            live_users: self.totals.visitors,
            sessions: self.totals.sessions,
            rooms: self.rooms.iter().map(|listed| RoomActivity::new(listed, &self.vocabulary)).collect(),
            moods: self.vocabulary.named(&self.moods),
            watching: self.watching.iter().map(ContentActivity::new).collect(),
            pages: self.pages.iter().map(PageActivity::new).collect(),
            timestamp,
        }
    }
}

fn cut<T>(list: &mut Vec<T>, length: impl Fn(&T) -> usize) {
    let mut bytes = 0;
    let fits = list.iter().take_while(|entry| {
        bytes += length(entry) + 1;
        bytes <= LIST_BYTES
    });
    let fits = fits.count();
    list.truncate(fits);
}

/// A summary that is kept, encoded for all who ask.
#[derive(Debug)]
pub(crate) struct CachedActivity {
    /// Rises by one with every summary that says something else than the one before; it begins at 1.
    pub seq: u64,
    /// As HTTP tells it.
    pub json: Bytes,
    /// As sockets are told.
    pub frame: Frame,
    activity: ActivitySnapshot,
    made: Instant,
}

/// The newest summary, made by whoever asks when it is too old, for all who ask meanwhile.
#[derive(Debug)]
pub(crate) struct LiveActivityCache {
    registry: Arc<Registry>,
    clock: Clock,
    /// One makes a summary at a time; the others wait for it.
    turn: Semaphore,
    /// Held for O(1).
    newest: Mutex<Option<Arc<CachedActivity>>>,
}

impl LiveActivityCache {
    /// None was made yet.
    #[must_use]
    pub(crate) fn new(registry: Arc<Registry>, clock: Clock) -> Self {
        Self { registry, clock, turn: Semaphore::new(1), newest: Mutex::default() }
    }

    /// A summary that is at most a tenth of a second old.
    pub(crate) async fn newest(&self) -> Arc<CachedActivity> {
        if let Some(kept) = self.fresh() {
            return kept;
        }
        // It is never closed.
        let _turn = self.turn.acquire().await;
        match self.fresh() {
            Some(kept) => kept, // somebody else has made it meanwhile
            None => self.make().await,
        }
    }

    fn fresh(&self) -> Option<Arc<CachedActivity>> {
        lock(&self.newest).clone().filter(|kept| kept.made.elapsed() < LIFETIME)
    }

    async fn make(&self) -> Arc<CachedActivity> {
        // As old as its oldest part.
        let (made, now) = (Instant::now(), self.clock.wall());
        let activity = ActivitySnapshot::collect(&self.registry).await;
        let json = json(&activity.message(None, now)).into();
        let frame = Frame::json(&activity.message(Some(LiveActivityType::LiveActivity), now));
        let mut newest = lock(&self.newest);
        let seq = newest.as_ref().map_or(1, |before| before.seq + u64::from(before.activity != activity));
        let kept = Arc::new(CachedActivity { seq, json, frame, activity, made });
        *newest = Some(Arc::clone(&kept));
        kept
    }
}

/// What is going on, over all rooms.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LiveActivity<'a> {
    /// Only on a socket.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = LiveActivityType, required = false)]
    kind: Option<LiveActivityType>,
    /// Distinct visitors over all rooms.
    live_users: usize,
    /// Open room sockets of people.
    sessions: usize,
    /// The largest first, at most 100 of them and 9 KiB; so are the lists below.
    rooms: Vec<RoomActivity<'a>>,
    /// People by mood, over all rooms.
    moods: NamedMoods<'a>,
    /// What people watch now.
    watching: Vec<ContentActivity<'a>>,
    /// The pages that people are on.
    pages: Vec<PageActivity<'a>>,
    /// The hub's wall clock when this was made.
    timestamp: Time,
}

/// The `type` of a summary on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LiveActivityType {
    /// The only one there is.
    LiveActivity,
}

/// How many are in a room.
#[derive(Debug, Serialize, ToSchema)]
struct RoomActivity<'a> {
    room: &'a RoomId,
    present: u32,
    /// How many of them have no socket now.
    held: u32,
    moods: NamedMoods<'a>,
}

impl<'a> RoomActivity<'a> {
    fn new((room, (present, held), moods): &'a Listed, vocabulary: &'a Vocabulary) -> Self {
        Self { room, present: *present, held: *held, moods: vocabulary.named(moods) }
    }
}

/// How many watch something.
#[derive(Debug, Serialize, ToSchema)]
struct ContentActivity<'a> {
    content: &'a str,
    count: usize,
}

impl<'a> ContentActivity<'a> {
    fn new((content, count): &'a Attended) -> Self {
        Self { content, count: *count }
    }
}

/// How many are on a page.
#[derive(Debug, Serialize, ToSchema)]
struct PageActivity<'a> {
    path: &'a str,
    count: usize,
}

impl<'a> PageActivity<'a> {
    fn new((path, count): &'a Attended) -> Self {
        Self { path, count: *count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panics::Panics;
    use crate::presence::metrics::PresenceMetrics;
    use crate::presence::{Config, Hold, HoldReason, VisitorActivity};
    use crate::protocol::VisitorId;

    fn registry(config: Config) -> Arc<Registry> {
        Registry::new(config, Clock::system(), PresenceMetrics::register(&Panics::register()))
    }

    fn hold() -> Hold {
        Hold::new(HoldReason::Grace, Instant::now(), Duration::from_hours(1))
    }

    fn attend(registry: &Registry, visitor: usize, text: &str) -> VisitorActivity {
        let mut attention = registry.visitor_activity(&VisitorId::try_from(format!("v{visitor}")).unwrap());
        attention.set_page(&text.into());
        attention.start_watching(uuid::Uuid::new_v4(), &text.into());
        attention
    }

    #[tokio::test]
    async fn summary_has_at_most_32_kib_whatever_texts_and_rooms_there_are() {
        let moods: Vec<String> = (0..64).map(|n| format!("m{n:031}")).collect();
        let moods = Vocabulary::parse(&moods.join(",")).unwrap();
        let all: Vec<_> = moods.names().map(|name| moods.find(name)).collect();
        let registry = registry(Config { moods, ..Config::default() });
        let mut kept = Vec::new();
        for n in 0..200 {
            // Each control character is six bytes of JSON.
            kept.push(attend(&registry, n, &format!("{}{n:03}", "\u{1}".repeat(509))));
            let room = RoomId::try_from(format!("{n:064}")).unwrap();
            let visitor = |mood| VisitorId::try_from(format!("{n}-{mood}")).unwrap();
            for (number, mood) in all.iter().enumerate().take(64) {
                registry.hold(&room, &visitor(number), *mood, hold()).unwrap();
            }
        }
        let summaries = LiveActivityCache::new(registry, Clock::system());
        let newest = summaries.newest().await;
        let length = newest.frame.bytes().len();
        assert!((16 * 1024..32 * 1024).contains(&length), "{length}");
        let lists =
            [newest.activity.rooms.len(), newest.activity.pages.len(), newest.activity.watching.len()];
        assert_eq!(lists, [3, 2, 2], "the largest are still there");
    }

    #[tokio::test]
    async fn rooms_are_counted_over_all_chunks_and_the_largest_are_listed() {
        let registry = registry(Config::default());
        let calm = registry.vocabulary().find("calm");
        let visitor = |n| VisitorId::try_from(format!("v{n}")).unwrap();
        for n in 0..1_500 {
            let room = RoomId::try_from(format!("r{n}")).unwrap();
            for of_three in 0..=n % 3 {
                registry.hold(&room, &visitor(3 * n + of_three), calm, hold()).unwrap();
            }
        }
        let activity = ActivitySnapshot::collect(&registry).await;
        assert_eq!((activity.totals.visitors, activity.totals.rooms), (3_000, 1_500));
        assert_eq!(activity.moods.iter().sum::<u32>(), 3_000);
        assert_eq!(activity.rooms.len(), LIST_LIMIT);
        assert!(activity.rooms.iter().all(|(_, counted, _)| *counted == (3, 3)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_summary_serves_all_who_ask_within_its_lifetime() {
        let registry = registry(Config::default());
        let summaries = LiveActivityCache::new(Arc::clone(&registry), Clock::system());
        let (first, second) = tokio::join!(summaries.newest(), summaries.newest());
        assert!(Arc::ptr_eq(&first, &second), "who waits gets the same");
        let ann = attend(&registry, 1, "/a");
        assert!(Arc::ptr_eq(&summaries.newest().await, &first));
        tokio::time::advance(LIFETIME).await;
        let changed = summaries.newest().await;
        assert_eq!((first.seq, changed.seq), (1, 2));
        tokio::time::advance(LIFETIME).await;
        let same = summaries.newest().await;
        assert!(!Arc::ptr_eq(&same, &changed));
        assert_eq!(same.seq, 2, "it says the same");
        drop(ann);
    }
}
