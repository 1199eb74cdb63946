//! The journal: events that are not yet in the database, in epochs.
//!
//! An event belongs to the epoch that is open when it comes. A flush closes that epoch and commits
//! it whole, so that "this event is on disk" is "its epoch is committed": one number for
//! everybody, and no bookkeeping per event. The journal is bounded in events and in bytes, and an address has a
//! quota of both; where there is no room, it says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::capacity::{BatchSize, Capacity, JournalFull, JournalLimits, Reservations};
use super::event::{Batch, Event};
use super::metrics::HistoryMetrics;
use super::status::{Epoch, Flushed, JournalStatus};
use super::store::Fault;
use crate::address::Address;
use crate::protocol::{Time, VisitorId};
use crate::sync::lock;
use crate::time::{Clock, millis};

/// Flushes that may be asked for before the flush task has looked.
const REQUESTS: usize = 64;

/// How long a flush is waited for by whoever does not force one. What is queued is written later all the same.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a flush that somebody waits for did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlushError {
    /// The commit failed, for the reason that the database gave. The events are kept and will be tried again.
    #[error("the events are queued, but the database did not take them yet; they will be tried again: {0}")]
    NotCommitted(String),
    /// The commit failed or was not done in time. For those who need not know the database's reasons.
    #[error("the events are queued, but not in the database yet; they will be tried again")]
    Pending,
    /// The hub is past its last flush.
    #[error("the hub has stopped")]
    Stopped,
}

/// The way into the journal. Cloning shares it; when the last one is dropped, the flush task flushes
/// what is left and ends.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    requests: mpsc::Sender<FlushRequest>,
}

/// A look at the journal from outside. Made by [`Journal::monitor`].
#[derive(Debug, Clone)]
pub struct JournalMonitor(Arc<Shared>);

/// The flush task's end of the journal.
#[derive(Debug)]
pub(crate) struct JournalReceiver {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<FlushRequest>,
}

/// What makes the flush task look before its time.
#[derive(Debug)]
pub(crate) enum FlushRequest {
    /// The journal is a quarter full.
    Soon,
    /// Somebody waits for everything that is pending now. While the database takes nothing, they wait for the next
    /// try.
    Join(Reply),
    /// The same, but the next try is at once.
    Force(Reply),
}

/// Where the result of a flush goes.
pub(crate) type Reply = oneshot::Sender<Result<Flushed, FlushError>>;

#[derive(Debug)]
struct Shared {
    capacity: Capacity,
    clock: Clock,
    metrics: HistoryMetrics,
    /// Held for O(1), for one append of at most a request's events, or, when somebody asks for a visitor's,
    /// for one pass over the pending ones.
    queue: Mutex<Queue>,
    committed: watch::Sender<Epoch>,
}

#[derive(Debug, Default)]
struct Queue {
    epoch: Epoch,
    open: Batch,
    /// What the events of the open epoch hold of the capacity, those that were forgotten included.
    open_reservations: Reservations,
    /// When the oldest event of the open epoch came, by the monotonic clock.
    open_since: Option<Duration>,
    /// Counts and age of the batch that a flush has taken and not yet committed.
    taken: Flushed,
    taken_reservations: Reservations,
    taken_since: Option<Duration>,
    last_flush: Option<Time>,
    is_committing: bool,
    failing: Option<(Fault, String)>,
}

/// A journal for at most so many pending events and bytes, and the end that drains it.
#[must_use]
pub(crate) fn open(
    limits: JournalLimits,
    clock: Clock,
    metrics: HistoryMetrics,
) -> (Journal, JournalReceiver) {
    let (requests, receiver) = mpsc::channel(REQUESTS);
    // Epoch 0 is the empty time before the first event, and committed.
    let queue = Queue { epoch: Epoch::default().next(), ..Queue::default() };
    let (committed, _) = watch::channel(Epoch::default());
    let shared = Arc::new(Shared {
        capacity: Capacity::new(limits),
        clock,
        metrics,
        queue: Mutex::new(queue),
        committed,
    });
    (Journal { shared: Arc::clone(&shared), requests }, JournalReceiver { shared, requests: receiver })
}

impl Journal {
    /// Counts presence samples that are not in the history because the journal had no room.
    pub(crate) fn count_lost_samples(&self, count: usize) {
        self.shared.metrics.samples_lost.increment(count as u64);
    }

    /// Takes one event from an address and says in which epoch it is.
    ///
    /// # Errors
    /// There is no room for it; nothing was taken.
    pub(crate) fn append(&self, from: Address, event: Event) -> Result<Epoch, JournalFull> {
        self.append_all(from, Batch::from_iter([event]))
    }

    /// Takes all events of an address, or of the hub itself, or none, and says in which epoch they are.
    ///
    /// # Errors
    /// There is no room for all of them; nothing was taken.
    pub(crate) fn append_all(
        &self,
        from: impl Into<Option<Address>>,
        batch: Batch,
    ) -> Result<Epoch, JournalFull> {
        let (capacity, size) = (&self.shared.capacity, BatchSize::of(&batch));
        let (epoch, pending) = {
            let mut queue = lock(&self.shared.queue);
            capacity.reserve(&mut queue.open_reservations, from.into(), size)?;
            self.push(&mut queue, batch);
            (queue.epoch, queue.open_reservations.total())
        };
        if capacity.is_flush_due(pending) {
            // A channel full of requests is request enough.
            let _ = self.requests.try_send(FlushRequest::Soon);
        }
        Ok(epoch)
    }

    /// Takes what the hub itself has measured, full or not, as long as no more than twice the limits is pending:
    /// many sockets may end at once. What is not taken is counted.
    pub(crate) fn append_measured(&self, event: Event) {
        let batch = Batch::from_iter([event]);
        let mut queue = lock(&self.shared.queue);
        match self.shared.capacity.reserve_measured(&mut queue.open_reservations, BatchSize::of(&batch)) {
            Ok(()) => self.push(&mut queue, batch),
            Err(_) => self.shared.metrics.measures_lost.increment(1),
        }
    }

    fn push(&self, queue: &mut Queue, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let metrics = &self.shared.metrics;
        metrics.page_views_queued.increment(batch.page_views.len() as u64);
        metrics.watches_queued.increment(batch.watches.len() as u64);
        let views = batch.page_views.iter().map(|view| &view.actor);
        let senders = views.chain(batch.watches.iter().map(|watch| &watch.actor));
        metrics.bot_events.increment(senders.filter(|who| who.is_bot).count() as u64);
        queue.open_since.get_or_insert_with(|| self.shared.clock.elapsed());
        queue.open.append(batch);
    }

    /// Drops what is pending of a visitor and not being committed already, and says how much that was.
    /// Whoever waits for an ack of it gets it with the epoch's others.
    #[must_use]
    pub(crate) fn discard(&self, visitor: &VisitorId) -> usize {
        let mut queue = lock(&self.shared.queue);
        let before = queue.open.len();
        queue.open.page_views.retain(|view| view.actor.visitor != *visitor);
        queue.open.watches.retain(|watch| watch.actor.visitor != *visitor);
        before - queue.open.len()
    }

    /// How many events of a visitor are pending and not being committed already.
    #[must_use]
    pub(crate) fn pending_events(&self, visitor: &VisitorId) -> usize {
        let queue = lock(&self.shared.queue);
        let views = queue.open.page_views.iter().filter(|view| view.actor.visitor == *visitor);
        views.count() + queue.open.watches.iter().filter(|watch| watch.actor.visitor == *visitor).count()
    }

    /// Flushes everything that is pending now, together with all others who ask meanwhile. Where the database takes
    /// nothing, waits for its next try, for at most 10 s.
    ///
    /// # Errors
    /// The commit failed, or took longer; the events are kept and will be tried again.
    pub(crate) async fn flush(&self) -> Result<Flushed, FlushError> {
        match timeout(FLUSH_TIMEOUT, self.request(FlushRequest::Join)).await {
            Err(_) | Ok(Err(FlushError::NotCommitted(_))) => Err(FlushError::Pending),
            Ok(result) => result,
        }
    }

    /// Flushes everything that is pending now, however often the database did not take it. For the admin.
    ///
    /// # Errors
    /// The commit failed; the events are kept and will be tried again.
    pub(crate) async fn force_flush(&self) -> Result<Flushed, FlushError> {
        self.request(FlushRequest::Force).await
    }

    async fn request(&self, request: impl FnOnce(Reply) -> FlushRequest) -> Result<Flushed, FlushError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| FlushError::Stopped)?;
        answer.await.map_err(|_| FlushError::Stopped)?
    }

    /// Tells the newest committed epoch.
    #[must_use]
    pub(crate) fn committed(&self) -> watch::Receiver<Epoch> {
        self.shared.committed.subscribe()
    }

    /// How the journal does.
    #[must_use]
    pub(crate) fn status(&self) -> JournalStatus {
        self.shared.status()
    }

    /// Tells how the journal does, and does not keep it open.
    #[must_use]
    pub(crate) fn monitor(&self) -> JournalMonitor {
        JournalMonitor(Arc::clone(&self.shared))
    }
}

impl JournalMonitor {
    /// How the journal does.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        self.0.status()
    }
}

impl Shared {
    fn status(&self) -> JournalStatus {
        let queue = lock(&self.queue);
        let oldest = queue.taken_since.or(queue.open_since);
        let age = |since| millis(self.clock.elapsed().saturating_sub(since));
        JournalStatus {
            pending_page_views: queue.open.page_views.len() + queue.taken.page_views,
            pending_watch_sessions: queue.open.watches.len() + queue.taken.watch_sessions,
            pending_presence: queue.open.sample_count() + queue.taken.presence,
            limit: self.capacity.limits().events,
            pending_bytes: self.capacity.bytes(),
            limit_bytes: self.capacity.limits().bytes,
            is_full: self.capacity.is_full(),
            epoch: queue.epoch,
            oldest_ms: oldest.map(age),
            last_flush: queue.last_flush,
            is_committing: queue.is_committing,
            fault: queue.failing.as_ref().map(|(fault, _)| *fault),
            failing: queue.failing.as_ref().map(|(_, words)| words.clone()),
        }
    }
}

impl JournalReceiver {
    /// The next request, or `None` when nothing can come any more.
    pub(crate) async fn request(&mut self) -> Option<FlushRequest> {
        self.requests.recv().await
    }

    /// A request that is already there.
    pub(crate) fn try_request(&mut self) -> Option<FlushRequest> {
        self.requests.try_recv().ok()
    }

    /// Closes the open epoch and takes its events, if it has any. They stay pending until
    /// [`committed`](Self::committed).
    #[must_use]
    pub(crate) fn take(&self) -> Option<(Epoch, Batch)> {
        let mut queue = lock(&self.shared.queue);
        // An epoch whose events were all forgotten is waited for too.
        if queue.open.is_empty() && queue.open_since.is_none() {
            return None;
        }
        let (epoch, batch) = (queue.epoch, std::mem::take(&mut queue.open));
        queue.epoch = epoch.next();
        queue.taken = Flushed::of(&batch);
        queue.taken_reservations = std::mem::take(&mut queue.open_reservations);
        queue.taken_since = queue.open_since.take();
        Some((epoch, batch))
    }

    /// The taken batch is on its way to the disk, for the first time or once more.
    pub(crate) fn committing(&self) {
        lock(&self.shared.queue).is_committing = true;
    }

    /// A part of the taken batch is on disk.
    #[must_use]
    pub(crate) fn committed_part(&self, part: &Batch) -> Flushed {
        let flushed = Flushed::of(part);
        lock(&self.shared.queue).taken -= flushed;
        let metrics = &self.shared.metrics;
        metrics.page_views_committed.increment(flushed.page_views as u64);
        metrics.watches_committed.increment(flushed.watch_sessions as u64);
        flushed
    }

    /// All parts of the taken batch are on disk, and `took` was the time of a flush in which so much was committed.
    /// Tells everybody who waits.
    pub(crate) fn committed(&self, epoch: Epoch, flushed: Flushed, took: Duration) {
        {
            let mut queue = lock(&self.shared.queue);
            self.shared.capacity.release(&mut queue.taken_reservations);
            queue.taken_since = None;
            queue.is_committing = false;
            queue.last_flush = Some(self.shared.clock.wall());
            queue.failing = None;
        }
        self.shared.metrics.flush_seconds.record(took.as_secs_f64());
        self.shared.metrics.flush_events.record(flushed.len() as f64);
        self.shared.committed.send_replace(epoch);
    }

    /// The taken batch is not on disk, and why.
    pub(crate) fn failed(&self, fault: Fault, words: String) {
        let mut queue = lock(&self.shared.queue);
        queue.is_committing = false;
        queue.failing = Some((fault, words));
        drop(queue);
        self.shared.metrics.flush_failures.increment(1);
    }
}
