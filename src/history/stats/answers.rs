//! Answers that are kept: for 30 seconds, or until a commit changes them.
//!
//! One query serves all who ask the same meanwhile. An old answer is served while a newer one is made; only
//! where a commit has changed it, whoever asks waits a moment for the newer one. Answers that somebody
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

use super::{Answer, Question, Range, ReadError};
use crate::history::journal::Epoch;
use crate::history::metrics::HistoryMetrics;
use crate::history::store::Store;
use crate::panics::Scope;
use crate::protocol::Time;
use crate::time::Clock;

/// How long an answer is new, and up to [`STAGGER`] more.
const LIFETIME: Duration = Duration::from_secs(30);

/// By how much lifetimes differ, so that answers do not grow old together.
const STAGGER: Duration = Duration::from_secs(5);

/// The oldest answer that is served while a newer one is made.
const STALE_LIMIT: Duration = Duration::from_mins(5);

/// How long somebody waits for a newer answer where a commit has changed it.
const PATIENCE: Duration = Duration::from_millis(250);

/// The most answers that are kept; one has some ten thousand bytes.
const ANSWERS_LIMIT: u64 = 1_000;

/// The stats' front desk. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Answers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Clock,
    metrics: HistoryMetrics,
    kept: Cache<Question, Arc<Kept>>,
}

/// An answer, ready to be sent.
#[derive(Debug)]
struct Kept {
    served: Served,
    /// When it was made, by the monotonic clock.
    made: Duration,
    lifetime: Duration,
    /// The version of its figures.
    version: u64,
    /// Whether somebody has asked for it since it was made.
    was_asked: AtomicBool,
    /// Whether a newer one is being made, and by whom the others are told that it is there.
    is_renewed: AtomicBool,
    renewed: watch::Sender<bool>,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// The answer as JSON.
    pub body: Bytes,
    /// Names what the answer says: the same for two answers that differ only in when they were made
    /// (RFC 9110, section 8.8.3: a weak one).
    pub etag: String,
}

/// The answer as it is sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    /// When it was made.
    generated_at: Time,
    /// Whether it was there already.
    cached: bool,
}

impl Answers {
    /// No answers yet.
    #[must_use]
    pub(crate) fn new(store: Store, clock: Clock, metrics: HistoryMetrics) -> Self {
        let kept = Cache::builder().max_capacity(ANSWERS_LIMIT).time_to_idle(2 * STALE_LIMIT).build();
        Self(Arc::new(Shared { store, clock, metrics, kept }))
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// There was none, and the database did not answer.
    pub(crate) async fn get(&self, question: &Question) -> Result<Served, Arc<ReadError>> {
        let metrics = &self.0.metrics;
        let Some(kept) = self.0.kept.get(question).await.filter(|kept| self.age(kept) < STALE_LIMIT) else {
            metrics.stats_misses.increment(1);
            return self.first(question).await;
        };
        kept.was_asked.store(true, Ordering::Relaxed);
        let is_changed = self.is_changed(question, &kept);
        if !is_changed && self.age(&kept) < kept.lifetime {
            metrics.stats_hits.increment(1);
            return Ok(kept.served.clone());
        }
        self.renew(question, &kept);
        if is_changed && let Some(newer) = timeout(PATIENCE, self.newer(question, &kept)).await.ok().flatten()
        {
            metrics.stats_misses.increment(1);
            return Ok(newer.served.clone());
        }
        metrics.stats_stale.increment(1);
        Ok(kept.served.clone())
    }

    /// Makes the answers that a dashboard asks for first, and then, until the journal ends, those anew
    /// that a commit has changed and that somebody wants.
    pub(crate) async fn keep_new(self, mut committed: watch::Receiver<Epoch>) {
        for range in Range::NAMED {
            // What cannot be made now is made when somebody asks.
            drop(self.first(&Question::about(range)).await);
        }
        while committed.changed().await.is_ok() {
            let wanted = self.0.kept.iter().filter(|(_, kept)| kept.was_asked.load(Ordering::Relaxed));
            let wanted: Vec<_> = wanted.collect();
            for (question, kept) in wanted {
                if self.is_changed(&question, &kept) && !kept.is_renewed.swap(true, Ordering::AcqRel) {
                    let panics = &self.0.metrics.panics;
                    panics.catch(Scope::Request, self.make_anew(&question, &kept)).await;
                }
            }
        }
    }

    /// Makes an answer that there is not. All who ask meanwhile get the same.
    async fn first(&self, question: &Question) -> Result<Served, Arc<ReadError>> {
        // An answer that is too old to be served is replaced.
        let is_old = |kept: &Arc<Kept>| self.age(kept) >= STALE_LIMIT;
        if self.0.kept.get(question).await.is_some_and(|kept| is_old(&kept)) {
            self.0.kept.invalidate(question).await;
        }
        let mut body = None;
        let kept = self.0.kept.try_get_with(question.clone(), async {
            let (kept, first) = self.make(question).await?;
            body = Some(first);
            Ok(kept)
        });
        let kept = kept.await.inspect_err(|_: &Arc<ReadError>| self.0.metrics.stats_errors.increment(1))?;
        // Whoever made it is told that it is new; all others get what is kept.
        Ok(Served { body: body.unwrap_or_else(|| kept.served.body.clone()), etag: kept.served.etag.clone() })
    }

    /// Makes a newer answer, unless somebody does.
    fn renew(&self, question: &Question, kept: &Arc<Kept>) {
        if !kept.is_renewed.swap(true, Ordering::AcqRel) {
            let (this, question, kept) = (self.clone(), question.clone(), Arc::clone(kept));
            tokio::spawn(async move {
                let panics = &this.0.metrics.panics;
                panics.catch(Scope::Request, this.make_anew(&question, &kept)).await
            });
        }
    }

    /// Waits for the newer answer that is being made.
    async fn newer(&self, question: &Question, kept: &Kept) -> Option<Arc<Kept>> {
        let mut renewed = kept.renewed.subscribe();
        while !*renewed.borrow_and_update() {
            renewed.changed().await.ok()?;
        }
        self.0.kept.get(question).await
    }

    async fn make_anew(&self, question: &Question, kept: &Kept) {
        match self.make(question).await {
            Ok((newer, _)) => {
                self.0.kept.insert(question.clone(), newer).await;
                kept.renewed.send_replace(true);
            }
            Err(error) => {
                self.0.metrics.stats_errors.increment(1);
                warn!(%error, "an answer about the history could not be renewed: the old one is kept");
                kept.is_renewed.store(false, Ordering::Release);
            }
        }
    }

    async fn make(&self, question: &Question) -> Result<(Arc<Kept>, Bytes), ReadError> {
        let Shared { store, clock, metrics, .. } = &*self.0;
        let (now, made) = (clock.wall(), clock.elapsed());
        let version = store.version(question.room.as_ref());
        let answer = store.ask(question, now, metrics).await?;
        let body = |cached| {
            let body = Stats { answer: &answer, generated_at: now, cached };
            Bytes::from(serde_json::to_vec(&body).unwrap_or_default())
        };
        let digest = Sha256::digest(serde_json::to_vec(&answer).unwrap_or_default());
        let hash = u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default());
        let stagger = STAGGER.mul_f64(rand::random::<f64>());
        let kept = Kept {
            served: Served { body: body(true), etag: format!("W/\"{hash:016x}\"") },
            made,
            lifetime: LIFETIME + stagger,
            version,
            was_asked: AtomicBool::new(false),
            is_renewed: AtomicBool::new(false),
            renewed: watch::Sender::new(false),
        };
        Ok((Arc::new(kept), body(false)))
    }

    fn age(&self, kept: &Kept) -> Duration {
        self.0.clock.elapsed().saturating_sub(kept.made)
    }

    fn is_changed(&self, question: &Question, kept: &Kept) -> bool {
        self.0.store.version(question.room.as_ref()) > kept.version
    }
}
