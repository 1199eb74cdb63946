//! The flush task: commits the journal to the store.
//!
//! It wakes at each interval, when the journal is a quarter full, and on request. It closes the open epoch and commits
//! it in one transaction, or in several if it is large. A batch that fails stays in front of newer ones and is retried
//! with exponential backoff. When all senders are dropped, it commits the rest and ends.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::event::Batch;
use super::journal::{FlushError, FlushRequest, JournalReceiver, Reply};
use super::status::{Epoch, Flushed};
use super::store::{CommitError, Store};

/// Delay of the first retry; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(250);

/// Maximum delay of a retry.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Bytes of events per transaction. It bounds the memory that a commit copies; most flushes are one transaction.
const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;

/// Why the task woke up.
enum Wake {
    /// The interval or the retry delay is over.
    Due,
    /// A request came.
    Asked(FlushRequest),
    /// All senders are dropped.
    Closed,
}

/// Commits the journal to the store until all senders are dropped and all events are committed.
pub(crate) async fn run(receiver: JournalReceiver, store: Store, interval: Duration) {
    Flusher { receiver, store, uncommitted: None, failures: 0, waiting: Vec::new() }.run(interval).await;
}

struct Flusher {
    receiver: JournalReceiver,
    store: Store,
    /// The epoch whose commit failed.
    uncommitted: Option<PendingEpoch>,
    /// Failed commits in a row.
    failures: u32,
    /// Requests that wait for the next flush. Bounded: each comes from an append or from a rate-limited read of
    /// personal data.
    waiting: Vec<Reply>,
}

/// An epoch to commit: the events of the next transaction, and the rest.
struct PendingEpoch {
    epoch: Epoch,
    slice: Batch,
    rest: Batch,
}

impl PendingEpoch {
    fn len(&self) -> usize {
        self.slice.len() + self.rest.len()
    }
}

impl Flusher {
    async fn run(mut self, interval: Duration) {
        let mut due = Instant::now() + interval;
        loop {
            let mut is_due = match self.next(due).await {
                Wake::Due => true,
                Wake::Asked(request) => self.note(request),
                Wake::Closed => break,
            };
            // One flush serves all requests that came before it.
            while let Some(request) = self.receiver.try_request() {
                is_due |= self.note(request);
            }
            if is_due {
                self.serve().await;
                due = Instant::now() + self.wait_after_failure().unwrap_or(interval);
            }
        }
        while self.flush().await.is_err() {
            sleep_until(Instant::now() + self.wait_after_failure().unwrap_or(RETRY_MIN)).await;
        }
    }

    async fn next(&mut self, due: Instant) -> Wake {
        tokio::select! {
            request = self.receiver.request() => request.map_or(Wake::Closed, Wake::Asked),
            () = sleep_until(due) => Wake::Due,
        }
    }

    /// Returns whether a request is served now. Only the admin's request skips the retry delay, which protects the
    /// database.
    fn note(&mut self, request: FlushRequest) -> bool {
        match request {
            FlushRequest::Soon => self.failures == 0,
            FlushRequest::Join(reply) => {
                self.waiting.push(reply);
                self.failures == 0
            }
            FlushRequest::Force(reply) => {
                self.waiting.push(reply);
                true
            }
        }
    }

    /// Flushes, and replies to all waiting requests.
    async fn serve(&mut self) {
        let result = self.flush().await.map_err(|error| FlushError::NotCommitted(error.to_string()));
        for reply in self.waiting.drain(..) {
            // A failed send means that the requester has left.
            let _ = reply.send(result.clone());
        }
    }

    /// Commits the epoch that failed before, if any, and then all pending events.
    async fn flush(&mut self) -> Result<Flushed, CommitError> {
        let mut total = Flushed::default();
        if let Some(pending) = self.uncommitted.take() {
            total += self.commit(pending).await?;
        }
        if let Some((epoch, rest)) = self.receiver.take() {
            total += self.commit(PendingEpoch { epoch, slice: Batch::default(), rest }).await?;
        }
        Ok(total)
    }

    /// Commits an epoch in slices, one transaction for each.
    async fn commit(&mut self, mut pending: PendingEpoch) -> Result<Flushed, CommitError> {
        let started = Instant::now();
        let mut flushed = Flushed::default();
        self.receiver.committing();
        loop {
            if pending.slice.is_empty() {
                pending.slice = pending.rest.split_front(TRANSACTION_BYTES);
            }
            if let Err(error) = self.store.commit(&pending.slice).await {
                self.failures += 1;
                let (events, tries) = (pending.len(), self.failures);
                warn!(%error, fault = ?error.fault(), events, tries, "cannot commit a batch: it stays queued and is retried");
                self.receiver.failed(error.fault(), error.to_string());
                self.uncommitted = Some(pending);
                return Err(error);
            }
            if self.failures > 0 {
                info!(
                    events = pending.slice.len(),
                    tries = self.failures,
                    "committed a batch after failures"
                );
            }
            self.failures = 0;
            flushed += self.receiver.committed_part(&std::mem::take(&mut pending.slice));
            if pending.rest.is_empty() {
                break;
            }
        }
        self.receiver.committed(pending.epoch, flushed, started.elapsed());
        Ok(flushed)
    }

    fn wait_after_failure(&self) -> Option<Duration> {
        let doublings = self.failures.checked_sub(1)?;
        Some(RETRY_MIN.saturating_mul(2_u32.saturating_pow(doublings)).min(RETRY_MAX))
    }
}
