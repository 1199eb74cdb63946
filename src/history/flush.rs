//! The flush task: commits the journal to the store.
//!
//! It wakes at each interval, when the journal is a quarter full, and on request. It commits each epoch in one transaction,
//! or in several if it is large; urgent events are in the next transaction. A batch that fails stays in front of newer
//! ones and is retried with exponential backoff. When all senders are dropped, it commits the rest and ends.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::event::Batch;
use super::journal::{FlushError, FlushRequest, JournalReceiver, Reply, TRANSACTION_BYTES};
use super::log::replica::{LogStep, Replica};
use super::status::{Epoch, Flushed};
use super::store::{CommitError, Store};

/// Delay of the first retry; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(250);

/// Maximum delay of a retry.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Why the task woke up.
enum Wake {
    /// The interval or the retry delay is over.
    Due,
    /// A request came.
    Asked(FlushRequest),
    /// Something happened in the log.
    Logged(LogStep),
    /// All senders are dropped.
    Closed,
}

/// Commits the journal to the store until all senders are dropped and all events are committed.
/// With a replica, events go through the log.
pub(crate) async fn run(
    receiver: JournalReceiver,
    store: Store,
    interval: Duration,
    replica: Option<Replica>,
) {
    let (waiting, urgent) = (Vec::new(), Vec::new());
    Flusher { receiver, store, replica, uncommitted: None, failures: 0, waiting, urgent }.run(interval).await;
}

struct Flusher {
    receiver: JournalReceiver,
    store: Store,
    /// None without a log.
    replica: Option<Replica>,
    /// The epoch whose commit failed.
    uncommitted: Option<PendingEpoch>,
    /// Failed commits in a row.
    failures: u32,
    /// Requests that wait for the next flush. Bounded: each comes from an append or from a rate-limited read of
    /// personal data.
    waiting: Vec<Reply>,
    /// Requests that wait for the next transaction. Bounded as `waiting`.
    urgent: Vec<Reply>,
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
                Wake::Logged(step) => self.log(step).await,
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
            step = next_step(self.replica.as_mut()) => Wake::Logged(step),
        }
    }

    /// Does a step of the log. Returns whether a flush is due.
    async fn log(&mut self, step: LogStep) -> bool {
        match &mut self.replica {
            Some(replica) => replica.take(step, &self.receiver).await && self.failures == 0,
            None => false,
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
        if let Some(replica) = self.replica.take() {
            return self.flush_logged(replica).await;
        }
        let mut total = Flushed::default();
        if let Some(pending) = self.uncommitted.take() {
            total += self.commit(pending).await?;
        }
        let last = self.receiver.open_epoch();
        self.read_urgent();
        while let Some((epoch, rest)) = self.receiver.take() {
            total += self.commit(PendingEpoch { epoch, slice: Batch::default(), rest }).await?;
            if epoch >= last {
                return Ok(total);
            }
        }
        // Nothing is pending, so another flush has committed what they wait for.
        self.answer_urgent(&Ok(Flushed::default()));
        Ok(total)
    }

    /// Flushes through the log.
    async fn flush_logged(&mut self, mut replica: Replica) -> Result<Flushed, CommitError> {
        self.read_urgent();
        let result = replica.flush(&self.receiver).await;
        match &result {
            Ok(flushed) => {
                self.failures = 0;
                self.answer_urgent(&Ok(*flushed));
            }
            Err(error) => self.failed(error, replica.len()),
        }
        self.replica = Some(replica);
        result
    }

    /// Notes a failed commit of this many events, and answers the urgent requests.
    fn failed(&mut self, error: &CommitError, events: usize) {
        self.failures += 1;
        let tries = self.failures;
        warn!(%error, fault = ?error.fault(), events, tries, "cannot commit a batch: it stays queued and is retried");
        self.receiver.failed(error.fault(), error.to_string());
        self.read_urgent();
        self.answer_urgent(&Err(FlushError::NotCommitted(error.to_string())));
    }

    /// Reads the urgent requests. The events that they wait for are taken or committed afterwards.
    fn read_urgent(&mut self) {
        while let Some(reply) = self.receiver.try_urgent() {
            self.urgent.push(reply);
        }
    }

    fn answer_urgent(&mut self, result: &Result<Flushed, FlushError>) {
        for reply in self.urgent.drain(..) {
            // A failed send means that the requester has left.
            let _ = reply.send(result.clone());
        }
    }

    /// Commits an epoch in slices, one transaction for each.
    async fn commit(&mut self, mut pending: PendingEpoch) -> Result<Flushed, CommitError> {
        let started = Instant::now();
        let mut flushed = Flushed::default();
        self.receiver.committing();
        loop {
            if pending.slice.is_empty() {
                self.read_urgent();
                pending.slice = self.receiver.take_urgent();
                pending.slice.append(pending.rest.split_front(TRANSACTION_BYTES));
            }
            if let Err(error) = self.store.commit(&pending.slice).await {
                self.failed(&error, pending.len());
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
            let part = self.receiver.committed_part(&std::mem::take(&mut pending.slice));
            self.answer_urgent(&Ok(part));
            flushed += part;
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

/// The next step of the log, if there is one.
async fn next_step(replica: Option<&mut Replica>) -> LogStep {
    match replica {
        Some(replica) => replica.next().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use uuid::Uuid;

    use super::*;
    use crate::address::Address;
    use crate::history::capacity::JournalLimits;
    use crate::history::event::{Actor, PageViewEvent};
    use crate::history::journal::{self, Urgency};
    use crate::history::metrics::HistoryMetrics;
    use crate::panics::Panics;
    use crate::protocol::Time;
    use crate::quota::Sharing;
    use crate::time::Clock;

    /// Page views of about a kilobyte each.
    fn views(count: usize) -> Batch {
        let actor = Actor { room: "r".try_into().unwrap(), visitor: "v".try_into().unwrap(), is_bot: false };
        let view = |_| PageViewEvent {
            actor: actor.clone(),
            id: Uuid::now_v7(),
            path: "x".repeat(500).try_into().unwrap(),
            title: None,
            referrer: None,
            at: Time::from_millis(1_700_000_000_000),
            props: None,
        };
        Batch { page_views: (0..count).map(view).collect(), ..Batch::default() }
    }

    fn address(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[tokio::test]
    async fn urgent_events_are_committed_before_large_epochs_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let limits =
            JournalLimits { events: 50_000, bytes: 64 * 1024 * 1024, sharing: Sharing::Fair, rate: None };
        let metrics = HistoryMetrics::register(&Panics::register());
        let (journal, receiver) = journal::open(limits, Clock::system(), metrics);
        // Several epochs, each of several transactions.
        let mut large = Vec::new();
        for _ in 0..120 {
            large.push(journal.append_all(address(1), views(100)).unwrap());
        }
        let (first, last) = (large[0], large[119]);
        assert!(last > first.next());
        assert_eq!(journal.append_urgent(address(1), views(1)), Ok(Urgency::Normal), "it holds much already");
        assert_eq!(journal.append_urgent(address(2), views(1)), Ok(Urgency::Urgent));
        assert_eq!(journal.status().pending(), 12_002);

        let committed = journal.committed();
        let flushing = tokio::spawn(run(receiver, store.clone(), Duration::from_hours(1), None));
        let part = journal.flush_by(Urgency::Urgent).await.unwrap();
        assert!(part.page_views > 1 && part.page_views < 12_000, "{part:?}");
        assert!(*committed.borrow() < first, "the first epoch is not committed yet");
        journal.flush().await.unwrap();
        assert!(*committed.borrow() >= last);
        assert_eq!(
            journal.append_urgent(address(1), views(1)),
            Ok(Urgency::Urgent),
            "it holds nothing any more"
        );
        journal.flush_by(Urgency::Urgent).await.unwrap();
        assert_eq!((journal.status().pending(), journal.status().pending_bytes), (0, 0));
        drop(journal);
        flushing.await.unwrap();
        assert_eq!(store.live_months().await.unwrap().len(), 1);
    }
}
