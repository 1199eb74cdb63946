//! StatsCache that are entry: for 30 seconds, or until a commit changes them.
//!
//! One query serves all who ask the same meanwhile. An old answer is served while a newer one is made; only
//! where a commit has changed it, whoever asks waits a moment for the newer one. StatsCache that somebody
//! has asked for are made anew after a commit, one after the other, so that few have to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moka::future::Cache;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;
use utoipa::ToSchema;

use super::{Range, StatsQuery, StatsResult};
use crate::history::metrics::HistoryMetrics;
use crate::history::status::Epoch;
use crate::history::store::{ReadError, Store};
use crate::panics::Scope;
use crate::protocol::Time;
use crate::time::Clock;

/// How long an answer is new, and up to [`JITTER`] more.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// By how much lifetimes differ, so that answers do not grow old together.
const JITTER: Duration = Duration::from_secs(5);

/// The oldest answer that is served while a newer one is made.
const STALE_LIMIT: Duration = Duration::from_mins(5);

/// How long somebody waits for a newer answer where a commit has changed it.
const CHANGED_WAIT: Duration = Duration::from_millis(250);

/// The most answers that are entry; one has some ten thousand bytes.
const ENTRIES_LIMIT: u64 = 1_000;

/// The stats' front desk. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct StatsCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Clock,
    metrics: HistoryMetrics,
    entry: Cache<StatsQuery, Arc<CacheEntry>>,
}

/// An answer, ready to be sent.
#[derive(Debug)]
struct CacheEntry {
    served: CachedResponse,
    /// When it was made, by the monotonic clock.
    made: Duration,
    fresh_for: Duration,
    /// The version of its figures.
    version: u64,
    /// Whether somebody has asked for it since it was made.
    was_requested: AtomicBool,
    /// Whether a newer one is being made, and by whom the others are told that it is there.
    is_refreshing: AtomicBool,
    refreshed: watch::Sender<bool>,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct CachedResponse {
    /// The answer as JSON.
    pub body: Bytes,
    /// Names what the answer says: the same for two answers that differ only in when they were made
    /// (RFC 9110, section 8.8.3: a weak one).
    pub etag: String,
}

/// The answer as it is sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsResponse<'a> {
    #[serde(flatten)]
    answer: &'a StatsResult,
    /// When it was made.
    generated_at: Time,
    /// Whether it was there already.
    cached: bool,
}

impl StatsCache {
    /// No answers yet.
    #[must_use]
    pub(crate) fn new(store: Store, clock: Clock, metrics: HistoryMetrics) -> Self {
        let entry = Cache::builder().max_capacity(ENTRIES_LIMIT).time_to_idle(2 * STALE_LIMIT).build();
        Self(Arc::new(Shared { store, clock, metrics, entry }))
    }

    /// The answer to a query.
    ///
    /// # Errors
    /// There was none, and the database did not answer.
    pub(crate) async fn get(&self, query: &StatsQuery) -> Result<CachedResponse, Arc<ReadError>> {
        let metrics = &self.0.metrics;
        let Some(entry) = self.0.entry.get(query).await.filter(|entry| self.age(entry) < STALE_LIMIT) else {
            metrics.stats_misses.increment(1);
            return self.compute_first(query).await;
        };
        entry.was_requested.store(true, Ordering::Relaxed);
        let is_changed = self.is_changed(query, &entry);
        if !is_changed && self.age(&entry) < entry.fresh_for {
            metrics.stats_hits.increment(1);
            return Ok(entry.served.clone());
        }
        self.spawn_refresh(query, &entry);
        if is_changed
            && let Some(newer) = timeout(CHANGED_WAIT, self.newer(query, &entry)).await.ok().flatten()
        {
            metrics.stats_misses.increment(1);
            return Ok(newer.served.clone());
        }
        metrics.stats_stale.increment(1);
        Ok(entry.served.clone())
    }

    /// Makes the answers that a dashboard asks for first, and then, until the journal ends, those anew
    /// that a commit has changed and that somebody wants.
    pub(crate) async fn refresh_on_commit(self, mut committed: watch::Receiver<Epoch>) {
        for range in Range::NAMED {
            // What cannot be made now is made when somebody asks.
            drop(self.compute_first(&StatsQuery::new(range)).await);
        }
        while committed.changed().await.is_ok() {
            let wanted = self.0.entry.iter().filter(|(_, entry)| entry.was_requested.load(Ordering::Relaxed));
            let wanted: Vec<_> = wanted.collect();
            for (query, entry) in wanted {
                if self.is_changed(&query, &entry) && !entry.is_refreshing.swap(true, Ordering::AcqRel) {
                    let panics = &self.0.metrics.panics;
                    panics.catch(Scope::Request, self.refresh(&query, &entry)).await;
                }
            }
        }
    }

    /// Makes an answer that there is not. All who ask meanwhile get the same.
    async fn compute_first(&self, query: &StatsQuery) -> Result<CachedResponse, Arc<ReadError>> {
        // An answer that is too old to be served is replaced.
        let is_old = |entry: &Arc<CacheEntry>| self.age(entry) >= STALE_LIMIT;
        if self.0.entry.get(query).await.is_some_and(|entry| is_old(&entry)) {
            self.0.entry.invalidate(query).await;
        }
        let mut body = None;
        let entry = self.0.entry.try_get_with(query.clone(), async {
            let (entry, first) = self.compute(query).await?;
            body = Some(first);
            Ok(entry)
        });
        let entry = entry.await.inspect_err(|_: &Arc<ReadError>| self.0.metrics.stats_errors.increment(1))?;
        // Whoever made it is told that it is new; all others get what is entry.
        Ok(CachedResponse {
            body: body.unwrap_or_else(|| entry.served.body.clone()),
            etag: entry.served.etag.clone(),
        })
    }

    /// Makes a newer answer, unless somebody does.
    fn spawn_refresh(&self, query: &StatsQuery, entry: &Arc<CacheEntry>) {
        if !entry.is_refreshing.swap(true, Ordering::AcqRel) {
            let (this, query, entry) = (self.clone(), query.clone(), Arc::clone(entry));
            tokio::spawn(async move {
                let panics = &this.0.metrics.panics;
                panics.catch(Scope::Request, this.refresh(&query, &entry)).await
            });
        }
    }

    /// Waits for the newer answer that is being made.
    async fn newer(&self, query: &StatsQuery, entry: &CacheEntry) -> Option<Arc<CacheEntry>> {
        let mut refreshed = entry.refreshed.subscribe();
        while !*refreshed.borrow_and_update() {
            refreshed.changed().await.ok()?;
        }
        self.0.entry.get(query).await
    }

    async fn refresh(&self, query: &StatsQuery, entry: &CacheEntry) {
        match self.compute(query).await {
            Ok((newer, _)) => {
                self.0.entry.insert(query.clone(), newer).await;
                entry.refreshed.send_replace(true);
            }
            Err(error) => {
                self.0.metrics.stats_errors.increment(1);
                warn!(%error, "an answer about the history could not be refreshed: the old one is entry");
                entry.is_refreshing.store(false, Ordering::Release);
            }
        }
    }

    async fn compute(&self, query: &StatsQuery) -> Result<(Arc<CacheEntry>, Bytes), ReadError> {
        let Shared { store, clock, metrics, .. } = &*self.0;
        let (now, made) = (clock.wall(), clock.elapsed());
        let version = store.version(query.room.as_ref());
        let answer = store.stats(query, now, metrics).await?;
        let body = |cached| {
            let body = StatsResponse { answer: &answer, generated_at: now, cached };
            Bytes::from(serde_json::to_vec(&body).unwrap_or_default())
        };
        let digest = Sha256::digest(serde_json::to_vec(&answer).unwrap_or_default());
        let hash = u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default());
        let jitter = JITTER.mul_f64(rand::random::<f64>());
        let entry = CacheEntry {
            served: CachedResponse { body: body(true), etag: format!("W/\"{hash:016x}\"") },
            made,
            fresh_for: FRESH_FOR + jitter,
            version,
            was_requested: AtomicBool::new(false),
            is_refreshing: AtomicBool::new(false),
            refreshed: watch::Sender::new(false),
        };
        Ok((Arc::new(entry), body(false)))
    }

    fn age(&self, entry: &CacheEntry) -> Duration {
        self.0.clock.elapsed().saturating_sub(entry.made)
    }

    fn is_changed(&self, query: &StatsQuery, entry: &CacheEntry) -> bool {
        self.0.store.version(query.room.as_ref()) > entry.version
    }
}
