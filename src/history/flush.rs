//! The flush task: the one that writes what happened.
//!
//! It wakes at every interval, when the journal is a quarter full, and when somebody asks; it closes
//! the open epoch and commits it in one transaction. A batch that fails stays, in order, in front of
//! everything newer, and is tried again after growing waits. When nobody can append any more, it
//! flushes what is left and ends.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::event::Batch;
use super::journal::{Drain, Epoch, FlushError, Flushed, Request};
use super::store::{CommitError, Store};

/// The first wait after a failure; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(250);

/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Why the task woke up.
enum Wake {
    /// The interval, or the wait after a failure, is over.
    Due,
    /// A request came.
    Asked(Request),
    /// Nothing can come any more.
    Closed,
}

/// Drains the journal into the store until nobody can append any more and all is committed.
pub async fn run(drain: Drain, store: Store, interval: Duration) {
    Flusher { drain, store, kept: None, failures: 0 }.run(interval).await;
}

struct Flusher {
    drain: Drain,
    store: Store,
    /// The batch that could not be committed yet.
    kept: Option<(Epoch, Batch)>,
    /// How often in a row it could not.
    failures: u32,
}

impl Flusher {
    async fn run(mut self, interval: Duration) {
        let mut due = Instant::now() + interval;
        loop {
            match self.next(due).await {
                Wake::Due => drop(self.flush().await),
                // The wait after a failure is for the database's sake: only people cut it short.
                Wake::Asked(Request::Soon) if self.failures > 0 => continue,
                Wake::Asked(request) => self.serve(request).await,
                Wake::Closed => break,
            }
            due = Instant::now() + self.wait_after_failure().unwrap_or(interval);
        }
        while self.flush().await.is_err() {
            sleep_until(Instant::now() + self.wait_after_failure().unwrap_or(RETRY_MIN)).await;
        }
    }

    async fn next(&mut self, due: Instant) -> Wake {
        tokio::select! {
            request = self.drain.request() => request.map_or(Wake::Closed, Wake::Asked),
            () = sleep_until(due) => Wake::Due,
        }
    }

    /// One flush serves all who ask before it begins.
    async fn serve(&mut self, first: Request) {
        let mut waiting = Vec::new();
        let mut request = Some(first);
        while let Some(asked) = request {
            if let Request::Now(reply) = asked {
                waiting.push(reply);
            }
            request = self.drain.try_request();
        }
        let result = self.flush().await.map_err(|error| FlushError::NotCommitted(error.to_string()));
        for reply in waiting {
            // Whoever hung up does not want to know.
            let _ = reply.send(result.clone());
        }
    }

    /// Commits the kept batch, where there is one, and then everything that is pending.
    async fn flush(&mut self) -> Result<Flushed, CommitError> {
        let mut total = Flushed::default();
        if let Some((epoch, batch)) = self.kept.take() {
            total += self.commit(epoch, batch).await?;
        }
        if let Some((epoch, batch)) = self.drain.take() {
            total += self.commit(epoch, batch).await?;
        }
        Ok(total)
    }

    async fn commit(&mut self, epoch: Epoch, batch: Batch) -> Result<Flushed, CommitError> {
        let started = Instant::now();
        self.drain.committing();
        if let Err(error) = self.store.commit(&batch).await {
            self.failures += 1;
            let (events, tries) = (batch.len(), self.failures);
            warn!(%error, fault = ?error.fault(), events, tries, "the database did not take a batch: kept, and tried again");
            self.drain.failed(error.fault(), error.to_string());
            self.kept = Some((epoch, batch));
            return Err(error);
        }
        if self.failures > 0 {
            info!(events = batch.len(), tries = self.failures, "the database takes batches again");
        }
        self.failures = 0;
        Ok(self.drain.committed(epoch, started.elapsed()))
    }

    fn wait_after_failure(&self) -> Option<Duration> {
        let doublings = self.failures.checked_sub(1)?;
        Some(RETRY_MIN.saturating_mul(2_u32.saturating_pow(doublings)).min(RETRY_MAX))
    }
}
