//! The live activity of all rooms, as `GET /live-activity` and `/live` send it.
//!
//! A cache entry serves all requests of 100 ms. It is collected in chunks, so that joins and page views do not wait for
//! long, and encoded once. Its lists are bounded in entries and in bytes, whatever the names of rooms and pages are.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::activity::{LIST_LIMIT, RankedText};
use super::coverage::{Coverage, CoverageSource, NodeCounts};
use super::registry::{PresenceTotals, Registry};
use super::room::Room;
use crate::protocol::frame::{Frame, to_json};
use crate::protocol::mood::NamedMoods;
use crate::protocol::{MoodCounts, RoomId, Time, Vocabulary};
use crate::sync::lock;
use crate::time::Clock;

/// The age at which a cache entry expires.
const LIFETIME: Duration = Duration::from_millis(100);

/// The most bytes of one list, as JSON. With three lists and at most 64 moods, a message has at most 32 KiB.
const LIST_BYTES: usize = 9 * 1024;

/// What is collected over all rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CollectedActivity {
    vocabulary: Vocabulary,
    coverage: Option<Coverage>,
    totals: PresenceTotals,
    rooms: Vec<RankedRoom>,
    moods: MoodCounts,
    watching: Vec<RankedText>,
    pages: Vec<RankedText>,
}

/// A room, with the visitors who are present and those of them who are held.
type RankedRoom = (RoomId, (u32, u32), MoodCounts);

impl CollectedActivity {
    /// Reads all rooms in chunks, with a yield after each.
    async fn collect(registry: &Registry, coverage: &CoverageSource) -> Self {
        let (vocabulary, coverage) = (registry.vocabulary().clone(), coverage.read());
        let (totals, mut moods, mut rooms) = (registry.totals(), vocabulary.zero(), Vec::new());
        let mut chunk = 0;
        while let Some(found) = registry.room_chunk(chunk) {
            rooms.extend(found.iter().map(|room| Self::read(room, &mut moods)));
            rooms.sort_by(|a: &RankedRoom, b| (Reverse(a.1.0), &a.0).cmp(&(Reverse(b.1.0), &b.0)));
            rooms.truncate(LIST_LIMIT);
            chunk += 1;
            yield_now().await;
        }
        let watching = registry.activity().top_watched();
        let pages = registry.activity().top_pages();
        let mut collected = Self { vocabulary, coverage, totals, rooms, moods, watching, pages };
        collected.truncate();
        collected
    }

    fn read(room: &Room, moods: &mut MoodCounts) -> RankedRoom {
        let snapshot = room.snapshot();
        moods.merge(&snapshot.moods);
        (room.id().clone(), (snapshot.present, snapshot.held), snapshot.moods)
    }

    /// Truncates each list that has too many bytes.
    fn truncate(&mut self) {
        let Self { vocabulary, rooms, watching, pages, .. } = self;
        truncate(rooms, |room| to_json(&RoomActivity::new(room, vocabulary)).len());
        truncate(watching, |text| to_json(&ContentActivity::new(text)).len());
        truncate(pages, |text| to_json(&PageActivity::new(text)).len());
    }

    /// `kind` is the message's `type` on a socket.
    fn message(&self, kind: Option<LiveActivityType>, timestamp: Time) -> LiveActivity<'_> {
        LiveActivity {
            kind,
            node: self.coverage.as_ref().map(|coverage| coverage.node.as_str()),
            cluster: self.coverage.as_ref().map(|coverage| coverage.nodes),
            live_users: self.totals.visitors,
            sessions: self.totals.sessions
                + self.coverage.as_ref().map_or(0, |coverage| coverage.sessions_elsewhere),
            rooms: self.rooms.iter().map(|room| RoomActivity::new(room, &self.vocabulary)).collect(),
            moods: self.vocabulary.named(&self.moods),
            watching: self.watching.iter().map(ContentActivity::new).collect(),
            pages: self.pages.iter().map(PageActivity::new).collect(),
            timestamp,
        }
    }
}

fn truncate<T>(list: &mut Vec<T>, length: impl Fn(&T) -> usize) {
    let mut bytes = 0;
    let fits = list.iter().take_while(|entry| {
        bytes += length(entry) + 1;
        bytes <= LIST_BYTES
    });
    let fits = fits.count();
    list.truncate(fits);
}

/// A cache entry: the live activity, encoded.
#[derive(Debug)]
pub(crate) struct CachedActivity {
    /// Begins at 1, and rises by one with every entry that differs from the one before.
    pub seq: u64,
    /// The body for HTTP.
    pub json: Bytes,
    /// The message for sockets.
    pub frame: Frame,
    collected: CollectedActivity,
    created: Instant,
}

/// The newest cache entry. A request that finds it expired replaces it, as a single flight for all requests.
#[derive(Debug)]
pub(crate) struct LiveActivityCache {
    registry: Arc<Registry>,
    coverage: CoverageSource,
    clock: Clock,
    /// Serializes collecting: one at a time.
    turn: Semaphore,
    /// Held for O(1).
    newest: Mutex<Option<Arc<CachedActivity>>>,
}

impl LiveActivityCache {
    /// An empty cache.
    pub(crate) fn new(registry: Arc<Registry>, coverage: CoverageSource, clock: Clock) -> Self {
        Self { registry, coverage, clock, turn: Semaphore::new(1), newest: Mutex::default() }
    }

    /// Returns an entry that is at most 100 ms old.
    pub(crate) async fn newest(&self) -> Arc<CachedActivity> {
        if let Some(cached) = self.fresh() {
            return cached;
        }
        // It is never closed.
        let _turn = self.turn.acquire().await;
        match self.fresh() {
            Some(cached) => cached, // another request has replaced it
            None => self.collect().await,
        }
    }

    fn fresh(&self) -> Option<Arc<CachedActivity>> {
        lock(&self.newest).clone().filter(|cached| cached.created.elapsed() < LIFETIME)
    }

    async fn collect(&self) -> Arc<CachedActivity> {
        // An entry is as old as its oldest part.
        let (created, now) = (Instant::now(), self.clock.wall());
        let collected = CollectedActivity::collect(&self.registry, &self.coverage).await;
        let json = to_json(&collected.message(None, now)).into();
        let frame = Frame::json(&collected.message(Some(LiveActivityType::LiveActivity), now));
        let mut newest = lock(&self.newest);
        let seq = newest.as_ref().map_or(1, |before| before.seq + u64::from(before.collected != collected));
        let cached = Arc::new(CachedActivity { seq, json, frame, collected, created });
        *newest = Some(Arc::clone(&cached));
        cached
    }
}

/// What visitors do now, over all rooms.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LiveActivity<'a> {
    /// Only on a socket.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = LiveActivityType, required = false)]
    kind: Option<LiveActivityType>,
    /// The node that answers. Only in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    node: Option<&'a str>,
    /// The nodes that the counts are of. Only in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = NodeCounts, required = false)]
    cluster: Option<NodeCounts>,
    /// Distinct visitors over all rooms.
    live_users: usize,
    /// Open room sockets of visitors, on all nodes.
    sessions: usize,
    /// The rooms with the most visitors first, at most 100 rooms and 9 KiB; the same holds for the lists below.
    rooms: Vec<RoomActivity<'a>>,
    /// Visitors by mood, over all rooms.
    moods: NamedMoods<'a>,
    /// The contents that visitors of this node watch now.
    watching: Vec<ContentActivity<'a>>,
    /// The pages that visitors of this node are on.
    pages: Vec<PageActivity<'a>>,
    /// The hub's wall clock when this was collected.
    timestamp: Time,
}

/// The `type` of the message on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LiveActivityType {
    /// The only type.
    LiveActivity,
}

/// The visitors of a room.
#[derive(Debug, Serialize, ToSchema)]
struct RoomActivity<'a> {
    room: &'a RoomId,
    present: u32,
    /// Visitors of them without a socket now.
    held: u32,
    moods: NamedMoods<'a>,
}

impl<'a> RoomActivity<'a> {
    fn new((room, (present, held), moods): &'a RankedRoom, vocabulary: &'a Vocabulary) -> Self {
        Self { room, present: *present, held: *held, moods: vocabulary.named(moods) }
    }
}

/// The visitors who watch a content.
#[derive(Debug, Serialize, ToSchema)]
struct ContentActivity<'a> {
    content: &'a str,
    count: usize,
}

impl<'a> ContentActivity<'a> {
    fn new((content, count): &'a RankedText) -> Self {
        Self { content, count: *count }
    }
}

/// The visitors who are on a page.
#[derive(Debug, Serialize, ToSchema)]
struct PageActivity<'a> {
    path: &'a str,
    count: usize,
}

impl<'a> PageActivity<'a> {
    fn new((path, count): &'a RankedText) -> Self {
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

    fn activity(registry: &Registry, visitor: usize, text: &str) -> VisitorActivity {
        let mut activity = registry.visitor_activity(&VisitorId::try_from(format!("v{visitor}")).unwrap());
        activity.set_page(&text.into());
        activity.start_watching(uuid::Uuid::new_v4(), &text.into());
        activity
    }

    #[tokio::test]
    async fn message_has_at_most_32_kib_with_the_longest_texts_and_rooms() {
        let moods: Vec<String> = (0..64).map(|n| format!("m{n:031}")).collect();
        let moods = Vocabulary::parse(&moods.join(",")).unwrap();
        let all: Vec<_> = moods.names().map(|name| moods.find(name)).collect();
        let registry = registry(Config { moods, ..Config::default() });
        let mut sessions = Vec::new();
        for n in 0..200 {
            // Each control character is six bytes of JSON.
            sessions.push(activity(&registry, n, &format!("{}{n:03}", "\u{1}".repeat(509))));
            let room = RoomId::try_from(format!("{n:064}")).unwrap();
            let visitor = |mood| VisitorId::try_from(format!("{n}-{mood}")).unwrap();
            for (number, mood) in all.iter().enumerate().take(64) {
                registry.add_held(&room, &visitor(number), *mood, hold(), None).unwrap();
            }
        }
        let cache = LiveActivityCache::new(registry, CoverageSource::default(), Clock::system());
        let newest = cache.newest().await;
        let length = newest.frame.bytes().len();
        assert!((16 * 1024..32 * 1024).contains(&length), "{length}");
        let lists =
            [newest.collected.rooms.len(), newest.collected.pages.len(), newest.collected.watching.len()];
        assert_eq!(lists, [3, 2, 2], "the largest are still listed");
    }

    #[tokio::test]
    async fn rooms_of_all_chunks_are_counted_and_the_largest_are_listed() {
        let registry = registry(Config::default());
        let calm = registry.vocabulary().find("calm");
        let visitor = |n| VisitorId::try_from(format!("v{n}")).unwrap();
        for n in 0..1_500 {
            let room = RoomId::try_from(format!("r{n}")).unwrap();
            for of_three in 0..=n % 3 {
                registry.add_held(&room, &visitor(3 * n + of_three), calm, hold(), None).unwrap();
            }
        }
        let collected = CollectedActivity::collect(&registry, &CoverageSource::default()).await;
        assert_eq!((collected.totals.visitors, collected.totals.rooms), (3_000, 1_500));
        assert_eq!(collected.moods.iter().sum::<u32>(), 3_000);
        assert_eq!(collected.rooms.len(), LIST_LIMIT);
        assert!(collected.rooms.iter().all(|(_, counts, _)| *counts == (3, 3)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_cache_entry_serves_all_requests_of_its_lifetime() {
        let registry = registry(Config::default());
        let cache = LiveActivityCache::new(Arc::clone(&registry), CoverageSource::default(), Clock::system());
        let (first, second) = tokio::join!(cache.newest(), cache.newest());
        assert!(Arc::ptr_eq(&first, &second), "a single flight");
        let session = activity(&registry, 1, "/a");
        assert!(Arc::ptr_eq(&cache.newest().await, &first));
        tokio::time::advance(LIFETIME).await;
        let changed = cache.newest().await;
        assert_eq!((first.seq, changed.seq), (1, 2));
        tokio::time::advance(LIFETIME).await;
        let same = cache.newest().await;
        assert!(!Arc::ptr_eq(&same, &changed));
        assert_eq!(same.seq, 2, "no change, no new number");
        drop(session);
    }
}
