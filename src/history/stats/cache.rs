//! The cache of stats: an entry is fresh for 30 seconds, or for an hour if its period is over, or until a commit changes
//! its figures.
//!
//! Concurrent requests of one query share a computation (single flight). A stale entry is served while a newer one is
//! computed (stale-while-revalidate); after a commit, requests wait a moment for the newer one, or longer if they ask for
//! what was committed. Entries that were requested since their computation are refreshed after each commit, one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{UnitWeighter, Weighter};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;
use utoipa::ToSchema;

use super::{Range, StatsQuery, StatsResult};
use crate::history::metrics::HistoryMetrics;
use crate::history::scope::Scope;
use crate::history::status::Epoch;
use crate::history::store::{ReadError, Store};
use crate::panics::PanicScope;
use crate::protocol::Time;
use crate::time::Clock;

/// How long an entry is fresh, plus up to [`JITTER`].
const FRESH_FOR: Duration = Duration::from_secs(30);

/// How long an entry of a period that is over is fresh, plus up to [`JITTER`].
const PAST_FRESH_FOR: Duration = Duration::from_hours(1);

/// Random part of the time that an entry is fresh, so that entries do not expire together.
const JITTER: Duration = Duration::from_secs(5);

/// Maximum age of an entry that is served while a newer one is computed.
const STALE_LIMIT: Duration = Duration::from_mins(5);

/// How long a request waits for a newer entry after a commit changed the figures, if it does not ask for that commit.
pub(crate) const CHANGED_WAIT: Duration = Duration::from_millis(250);

/// Limit of the entries' memory, in bytes. An entry has about 10 KB; those of long series have more. Small in tests.
const BYTES_LIMIT: u64 = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };

/// How old an entry becomes.
const AGE_LIMIT: Duration = PAST_FRESH_FOR.saturating_add(STALE_LIMIT);

/// The estimate of entries, from which the library makes one shard. One of several shards holds no entry that is larger
/// than its part of the limit.
const ENTRIES: usize = 32;

/// The cache of stats. Clones share it.
///
/// The library gives single flight and eviction, but serves no stale value while it computes a new one. So entries have
/// an age, and computations in progress are a second cache.
#[derive(Debug, Clone)]
pub(crate) struct StatsCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Clock,
    metrics: HistoryMetrics,
    /// The hosts of the hub's own pages, which are no referrers.
    own_hosts: Vec<String>,
    entries: Cache<StatsQuery, Arc<CacheEntry>, EntryBytes>,
    /// Computations in progress, by query and version of the figures. It has room for no value: requests only join a
    /// computation here.
    in_flight: Cache<(StatsQuery, u64), Result<Arc<CacheEntry>, Arc<ReadError>>>,
}

/// The memory of an entry, in bytes.
#[derive(Debug, Clone)]
struct EntryBytes;

impl Weighter<StatsQuery, Arc<CacheEntry>> for EntryBytes {
    fn weight(&self, _: &StatsQuery, entry: &Arc<CacheEntry>) -> u64 {
        const BESIDES_THE_BODY: usize = 512;
        (entry.response.body.len() + BESIDES_THE_BODY) as u64
    }
}

#[derive(Debug)]
struct CacheEntry {
    response: CachedResponse,
    /// Start of the computation, by the monotonic clock.
    computed: Duration,
    fresh_for: Duration,
    /// The time whose events the figures count, with the previous period.
    period: (Time, Time),
    /// The version of the figures.
    version: u64,
    /// Whether the entry was requested since its computation.
    was_requested: AtomicBool,
}

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct CachedResponse {
    /// The body, a [`StatsResponse`] as JSON.
    pub body: Bytes,
    /// A weak entity tag (RFC 9110, section 8.8.3) of the figures, without the time of computation.
    pub etag: String,
}

/// The body of a response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsResponse<'a> {
    #[serde(flatten)]
    result: &'a StatsResult,
    /// Time of the computation.
    generated_at: Time,
    /// Whether the response comes from the cache.
    cached: bool,
    /// How far this node is behind the other ones of its cluster, in milliseconds, if that is more than 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    lag_ms: Option<u64>,
}

impl StatsCache {
    /// An empty cache.
    pub(crate) fn new(store: Store, clock: Clock, metrics: HistoryMetrics, own_hosts: Vec<String>) -> Self {
        let entries = Cache::with_weighter(ENTRIES, BYTES_LIMIT, EntryBytes);
        let in_flight = Cache::with_weighter(0, 0, UnitWeighter);
        Self(Arc::new(Shared { store, clock, metrics, own_hosts, entries, in_flight }))
    }

    /// Returns the response to a query. After a commit changed the figures, it waits this long for a newer entry.
    /// Errors: there is no entry, and the computation failed.
    pub(crate) async fn get(
        &self,
        query: &StatsQuery,
        wait: Duration,
    ) -> Result<CachedResponse, Arc<ReadError>> {
        let metrics = &self.0.metrics;
        let entry =
            self.0.entries.get(query).filter(|entry| self.age(entry) < STALE_LIMIT.max(entry.fresh_for));
        let Some(entry) = entry else {
            metrics.stats_misses.increment(1);
            return self.refresh(query).await;
        };
        entry.was_requested.store(true, Ordering::Relaxed);
        if self.is_fresh(query, &entry) {
            metrics.stats_hits.increment(1);
            return Ok(entry.response.clone());
        }
        let refresh = self.spawn_refresh(query);
        if self.is_changed(query, &entry)
            && let Ok(Ok(Some(Ok(newer)))) = timeout(wait, refresh).await
        {
            metrics.stats_misses.increment(1);
            return Ok(newer);
        }
        metrics.stats_stale.increment(1);
        Ok(entry.response.clone())
    }

    /// Computes the queries of a dashboard's first page, and then, until the journal closes, refreshes the requested
    /// entries that a commit changed.
    pub(crate) async fn refresh_on_commit(self, mut committed: watch::Receiver<Epoch>) {
        for range in Range::NAMED {
            // After an error, the first request computes the entry.
            drop(self.refresh(&StatsQuery::new(Scope::Hub, range)).await);
        }
        while committed.changed().await.is_ok() {
            self.0.entries.retain(|_, entry| self.age(entry) < AGE_LIMIT);
            let requested =
                self.0.entries.iter().filter(|(_, entry)| entry.was_requested.load(Ordering::Relaxed));
            let requested: Vec<_> = requested.collect();
            for (query, entry) in requested {
                if self.is_changed(&query, &entry) {
                    self.0.metrics.panics.catch(PanicScope::Request, self.refresh(&query)).await;
                }
            }
        }
    }

    /// Refreshes an entry on a task of its own, which continues after a timeout of the request.
    fn spawn_refresh(
        &self,
        query: &StatsQuery,
    ) -> JoinHandle<Option<Result<CachedResponse, Arc<ReadError>>>> {
        let (this, query) = (self.clone(), query.clone());
        tokio::spawn(
            async move { this.0.metrics.panics.catch(PanicScope::Request, this.refresh(&query)).await },
        )
    }

    /// Computes an entry, or joins the computation that is in progress. The request that computes it gets the uncached
    /// body, and those that join the cached one.
    async fn refresh(&self, query: &StatsQuery) -> Result<CachedResponse, Arc<ReadError>> {
        let key = (query.clone(), self.0.store.version());
        let computation = match self.0.in_flight.get_value_or_guard_async(&key).await {
            Ok(joined) => return joined.map(|entry| entry.response.clone()),
            Err(computation) => computation,
        };
        let computed = self.compute_unless_fresh(query).await.map_err(Arc::new);
        let (shared, response) = match computed {
            Ok((entry, body)) => {
                let etag = entry.response.etag.clone();
                (Ok(entry), Ok(CachedResponse { body, etag }))
            }
            Err(error) => (Err(Arc::clone(&error)), Err(error)),
        };
        // It reaches those that wait for it, and is not kept.
        let _ = computation.insert(shared);
        response
    }

    /// Computes an entry and keeps it. Another computation may have ended since the caller looked: then it has that one.
    async fn compute_unless_fresh(&self, query: &StatsQuery) -> Result<(Arc<CacheEntry>, Bytes), ReadError> {
        if let Some(entry) = self.0.entries.get(query).filter(|entry| self.is_fresh(query, entry)) {
            let body = entry.response.body.clone();
            return Ok((entry, body));
        }
        let (entry, uncached) = self.compute(query).await.inspect_err(|error| {
            if !matches!(error, ReadError::Archived { .. }) {
                self.0.metrics.stats_errors.increment(1);
                warn!(%error, "cannot compute stats: an entry that is in the cache stays");
            }
        })?;
        self.0.entries.insert(query.clone(), Arc::clone(&entry));
        Ok((entry, uncached))
    }

    /// Computes an entry, and the uncached body of its response.
    async fn compute(&self, query: &StatsQuery) -> Result<(Arc<CacheEntry>, Bytes), ReadError> {
        let Shared { store, clock, metrics, own_hosts, .. } = &*self.0;
        let (now, computed) = (clock.wall(), clock.elapsed());
        let version = store.version();
        let result = store.stats(query, now, own_hosts, metrics).await?;
        let body = |cached| {
            // The lag is added to what is sent.
            let body = StatsResponse { result: &result, generated_at: now, cached, lag_ms: None };
            // Without the vector's spare capacity.
            Bytes::from(serde_json::to_vec(&body).unwrap_or_default().into_boxed_slice())
        };
        let digest = Sha256::digest(serde_json::to_vec(&result).unwrap_or_default());
        let hash = u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default());
        let entry = CacheEntry {
            response: CachedResponse { body: body(true), etag: format!("W/\"{hash:016x}\"") },
            computed,
            fresh_for: if result.to <= now { PAST_FRESH_FOR } else { FRESH_FOR }
                + JITTER.mul_f64(rand::random::<f64>()),
            period: (result.previous.from, result.to),
            version,
            was_requested: AtomicBool::new(false),
        };
        Ok((Arc::new(entry), body(false)))
    }

    fn age(&self, entry: &CacheEntry) -> Duration {
        self.0.clock.elapsed().saturating_sub(entry.computed)
    }

    fn is_fresh(&self, query: &StatsQuery, entry: &CacheEntry) -> bool {
        !self.is_changed(query, entry) && self.age(entry) < entry.fresh_for
    }

    fn is_changed(&self, query: &StatsQuery, entry: &CacheEntry) -> bool {
        self.0.store.version_of(&query.scope, entry.period) > entry.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Actor, Batch, PageViewEvent};
    use crate::panics::Panics;

    fn views(response: &CachedResponse) -> serde_json::Value {
        serde_json::from_slice::<serde_json::Value>(&response.body).unwrap()["totals"]["pageViews"].take()
    }

    #[tokio::test]
    async fn request_that_waits_for_a_commit_gets_no_older_figures() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let (clock, metrics) = (Clock::system(), HistoryMetrics::register(&Panics::register()));
        let cache = StatsCache::new(store.clone(), clock.clone(), metrics, Vec::new());
        let query = StatsQuery::new(Scope::Hub, Range::Day);
        assert_eq!(views(&cache.get(&query, CHANGED_WAIT).await.unwrap()), 0);
        let view = PageViewEvent {
            actor: Actor { room: "r".try_into().unwrap(), visitor: "v".try_into().unwrap(), is_bot: false },
            id: uuid::Uuid::now_v7(),
            path: "/".to_owned().try_into().unwrap(),
            title: None,
            referrer: None,
            at: clock.wall(),
            props: None,
        };
        store.commit(&Batch { page_views: vec![view], ..Batch::default() }).await.unwrap();

        // Figures take longer than a request waits that does not ask for the commit.
        let paused = store.pause_reads().await;
        let (waiting, asked) = (cache.clone(), query.clone());
        let waiting = tokio::spawn(async move { waiting.get(&asked, Duration::from_secs(20)).await });
        assert_eq!(views(&cache.get(&query, CHANGED_WAIT).await.unwrap()), 0);
        assert!(!waiting.is_finished());
        drop(paused);
        assert_eq!(views(&waiting.await.unwrap().unwrap()), 1);
    }

    #[tokio::test]
    async fn requests_at_once_share_one_computation_and_nothing_of_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let metrics = HistoryMetrics::register(&Panics::register());
        let cache = StatsCache::new(store.clone(), Clock::system(), metrics, Vec::new());
        let query = StatsQuery::new(Scope::Hub, Range::Day);
        let paused = store.pause_reads().await;
        let mut cancelled = Box::pin(cache.get(&query, CHANGED_WAIT));
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(cache.get(&query, CHANGED_WAIT))).collect();
        assert!(futures_util::poll!(cancelled.as_mut()).is_pending());
        for request in &mut waiting {
            assert!(futures_util::poll!(request.as_mut()).is_pending());
        }
        drop((cancelled, paused));
        let responses = futures_util::future::try_join_all(waiting).await.unwrap();
        let is_cached =
            |response: &CachedResponse| response.body.windows(13).any(|part| part == b"\"cached\":true");
        let cached = responses.iter().filter(|response| is_cached(response)).count();
        assert_eq!(cached, 9, "one of those that wait computes it after the first one has left");
        assert_eq!((cache.0.in_flight.len(), cache.0.entries.len()), (0, 1));
    }

    #[tokio::test]
    async fn entries_are_bounded_in_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let metrics = HistoryMetrics::register(&Panics::register());
        let cache = StatsCache::new(store, Clock::system(), metrics, Vec::new());
        let mut largest = 0;
        for number in 0..40 {
            let room = Scope::Room(format!("room-{number}").try_into().unwrap());
            let response = cache.get(&StatsQuery::new(room, Range::Week), CHANGED_WAIT).await.unwrap();
            largest = largest.max(response.body.len());
            assert!(cache.0.entries.weight() <= BYTES_LIMIT);
        }
        let count = cache.0.entries.len();
        assert!((1..40).contains(&count), "{count} entries of {largest} bytes");
    }
}
