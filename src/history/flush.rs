//! The flush task: the one that writes what happened.
//!
//! It wakes at every interval, when the journal is a quarter full, and when somebody asks; it closes
//! the open epoch and commits it, in one transaction, or, where it is large, in several. What fails stays, in
//! order, in front of everything newer, and is tried again after growing waits. When nobody can append any more,
//! it flushes what is left and ends.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::event::Batch;
use super::journal::{FlushError, FlushRequest, JournalReceiver, Reply};
use super::status::{Epoch, Flushed};
use super::store::{CommitError, Store};

/// The first wait after a failure; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(250);

/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// How many bytes of events a transaction commits: as many as bound what it copies of them, and enough that most
/// flushes are one transaction.
const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;

/// Why the task woke up.
enum Wake {
    /// The interval, or the wait after a failure, is over.
    Due,
    /// A request came.
    Asked(FlushRequest),
    /// Nothing can come any more.
    Closed,
}

/// Drains the journal into the store until nobody can append any more and all is committed.
pub(crate) async fn run(receiver: JournalReceiver, store: Store, interval: Duration) {
    Flusher { receiver, store, uncommitted: None, failures: 0, waiting: Vec::new() }.run(interval).await;
}

struct Flusher {
    receiver: JournalReceiver,
    store: Store,
    /// The epoch that could not be committed yet.
    uncommitted: Option<PendingEpoch>,
    /// How often in a row it could not.
    failures: u32,
    /// Who waits for the next flush. Each has appended something, or reads what is uncommitted of one visitor, which is paced.
    waiting: Vec<Reply>,
}

/// An epoch that is to be committed: the transaction that is next, and what comes after it.
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
            // One flush serves all who ask before it begins.
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

    /// Whether a request is served now. The wait after a failure is for the database's sake: only the admin cuts it
    /// short.
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

    /// Flushes, and tells all who wait.
    async fn serve(&mut self) {
        let result = self.flush().await.map_err(|error| FlushError::NotCommitted(error.to_string()));
        for reply in self.waiting.drain(..) {
            // Whoever hung up does not want to know.
            let _ = reply.send(result.clone());
        }
    }

    /// Commits the uncommitted epoch, where there is one, and then everything that is pending.
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

    /// Commits an epoch in slices, a transaction for each. What a commit copies goes with the slice.
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
                warn!(%error, fault = ?error.fault(), events, tries, "the database did not take a batch: uncommitted, and tried again");
                self.receiver.failed(error.fault(), error.to_string());
                self.uncommitted = Some(pending);
                return Err(error);
            }
            if self.failures > 0 {
                info!(
                    events = pending.slice.len(),
                    tries = self.failures,
                    "the database takes batches again"
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
