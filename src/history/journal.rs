//! The journal: pending events, grouped in epochs.
//!
//! An event belongs to the epoch that is open when it arrives. An epoch closes when it is large or when a flush takes it,
//! and is committed as a whole, so one number acknowledges all its events. Urgent events are in no epoch: they go into
//! the next transaction, so that a client who waits for the commit does not wait for the events of others. The journal is
//! bounded in events and bytes, with a quota of both for each address, and rejects events beyond them.

use std::collections::VecDeque;
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

/// An epoch closes at this many bytes of events, so that a flush and the acks do not wait for a full journal.
const EPOCH_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of events per transaction. It bounds the memory that a commit copies, and how long urgent events wait; most
/// flushes are one transaction.
pub(super) const TRANSACTION_BYTES: usize = 1024 * 1024;

/// Limit of flush requests that the flush task has not read yet.
const REQUESTS: usize = 64;

/// How long [`Journal::flush`] waits. The events stay queued after that.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a flush failed or is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlushError {
    /// The commit failed with the database's message. The events stay queued, and the flush task retries.
    #[error("the events are queued, but not committed yet; the hub will retry: {0}")]
    NotCommitted(String),
    /// The commit failed or took too long. For clients, without the database's message.
    #[error("the events are queued, but not in the database yet; the hub will retry")]
    Pending,
    /// The flush task has ended.
    #[error("the hub has stopped")]
    Stopped,
}

/// The sending end of the journal. Clones share it. When the last one is dropped, the flush task commits the rest and
/// ends.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    requests: mpsc::Sender<FlushRequest>,
    urgent: mpsc::Sender<Reply>,
}

/// Reads the journal's state without keeping it open. From `Journal::monitor`.
#[derive(Debug, Clone)]
pub struct JournalMonitor(Arc<Shared>);

/// The flush task's end of the journal.
#[derive(Debug)]
pub(crate) struct JournalReceiver {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<FlushRequest>,
    urgent: mpsc::Receiver<Reply>,
}

/// Wakes the flush task before its interval is over.
#[derive(Debug)]
pub(crate) enum FlushRequest {
    /// An epoch is closed, the journal is a quarter full, or there are urgent events.
    Soon,
    /// A client waits for all events that are pending now. After a failed commit, it waits for the next retry.
    Join(Reply),
    /// As `Join`, but retries at once.
    Force(Reply),
}

/// Where the result of a flush goes.
pub(crate) type Reply = oneshot::Sender<Result<Flushed, FlushError>>;

#[derive(Debug)]
struct Shared {
    capacity: Capacity,
    clock: Clock,
    metrics: HistoryMetrics,
    /// Held for O(1), for one append of at most a request's events, or for one scan of the pending events of a visitor.
    queue: Mutex<Queue>,
    committed: watch::Sender<Epoch>,
}

/// Which events a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Urgent ones.
    Urgent,
    /// All that are pending.
    Normal,
}

/// An epoch that takes no more events.
#[derive(Debug)]
struct ClosedEpoch {
    epoch: Epoch,
    events: Batch,
    reservations: Reservations,
    since: Option<Duration>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order of their numbers.
    closed: VecDeque<ClosedEpoch>,
    /// Urgent events. Their reservations are those of the open epoch.
    urgent: Batch,
    epoch: Epoch,
    open: Batch,
    /// What the events of the open epoch reserve of the capacity, including discarded events.
    open_reservations: Reservations,
    /// Arrival of the oldest event of the open epoch, by the monotonic clock.
    open_since: Option<Duration>,
    /// Counts and age of the batch that the flush task has taken and not committed yet.
    taken: Flushed,
    taken_reservations: Reservations,
    taken_since: Option<Duration>,
    last_flush: Option<Time>,
    is_committing: bool,
    failing: Option<(Fault, String)>,
}

impl Queue {
    /// All batches that the flush task has not taken.
    fn waiting(&mut self) -> impl Iterator<Item = &mut Batch> {
        let closed = self.closed.iter_mut().map(|closed| &mut closed.events);
        closed.chain([&mut self.open, &mut self.urgent])
    }

    /// Closes the open epoch.
    fn close(&mut self) {
        let epoch = self.epoch;
        self.epoch = epoch.next();
        self.closed.push_back(ClosedEpoch {
            epoch,
            events: std::mem::take(&mut self.open),
            reservations: std::mem::take(&mut self.open_reservations),
            since: self.open_since.take(),
        });
    }
}

/// Opens a journal with these limits, and returns its two ends.
pub(crate) fn open(
    limits: JournalLimits,
    clock: Clock,
    metrics: HistoryMetrics,
) -> (Journal, JournalReceiver) {
    let (requests, receiver) = mpsc::channel(REQUESTS);
    let (urgent, urgent_receiver) = mpsc::channel(REQUESTS);
    // Epoch 0 is before the first event, and committed.
    let queue = Queue { epoch: Epoch::default().next(), ..Queue::default() };
    let (committed, _) = watch::channel(Epoch::default());
    let shared = Arc::new(Shared {
        capacity: Capacity::new(limits, &clock),
        clock,
        metrics,
        queue: Mutex::new(queue),
        committed,
    });
    let journal = Journal { shared: Arc::clone(&shared), requests, urgent };
    (journal, JournalReceiver { shared, requests: receiver, urgent: urgent_receiver })
}

impl Journal {
    /// Counts presence samples that are lost because the journal was full.
    pub(crate) fn count_lost_samples(&self, count: usize) {
        self.shared.metrics.samples_lost.increment(count as u64);
    }

    /// Counts events whose time was ahead of the hub's clock.
    pub(crate) fn count_ahead(&self, count: u64) {
        self.shared.metrics.times_ahead.increment(count);
    }

    /// Appends an event and returns its epoch.
    /// Errors: the journal or the address's quota is full; nothing was appended.
    pub(crate) fn append(&self, from: Address, event: Event) -> Result<Epoch, JournalFull> {
        self.append_all(from, Batch::from_iter([event]))
    }

    /// Appends all events of an address, or of the hub itself, and returns their epoch.
    /// Errors: the journal or the address's quota has no room for all of them; nothing was appended.
    pub(crate) fn append_all(
        &self,
        from: impl Into<Option<Address>>,
        batch: Batch,
    ) -> Result<Epoch, JournalFull> {
        let (capacity, size) = (&self.shared.capacity, BatchSize::of(&batch));
        let (epoch, is_due) = {
            let mut queue = lock(&self.shared.queue);
            capacity.reserve(&mut queue.open_reservations, from.into(), size)?;
            self.count(&mut queue, &batch);
            queue.open.append(batch);
            let (epoch, pending) = (queue.epoch, queue.open_reservations.total());
            let is_large = pending.bytes >= EPOCH_BYTES;
            if is_large {
                queue.close();
            }
            (epoch, is_large || capacity.is_flush_due(pending))
        };
        if is_due {
            self.wake();
        }
        Ok(epoch)
    }

    /// Appends events whose client waits for their commit. They are urgent if their address holds little besides.
    /// Errors: the journal or the address's quota has no room for all of them; nothing was appended.
    pub(crate) fn append_urgent(&self, from: Address, batch: Batch) -> Result<Urgency, JournalFull> {
        if !self.shared.capacity.holds_little(from) {
            return self.append_all(from, batch).map(|_| Urgency::Normal);
        }
        let size = BatchSize::of(&batch);
        let mut queue = lock(&self.shared.queue);
        self.shared.capacity.reserve(&mut queue.open_reservations, from.into(), size)?;
        self.count(&mut queue, &batch);
        queue.urgent.append(batch);
        Ok(Urgency::Urgent)
    }

    /// Wakes the flush task.
    fn wake(&self) {
        // If the channel is full, the flush task wakes up anyway.
        let _ = self.requests.try_send(FlushRequest::Soon);
    }

    /// Appends a measure of the hub itself, up to twice the limits, since many sockets may close at once. Beyond that
    /// it is counted as lost.
    pub(crate) fn append_measured(&self, event: Event) {
        let batch = Batch::from_iter([event]);
        let mut queue = lock(&self.shared.queue);
        match self.shared.capacity.reserve_measured(&mut queue.open_reservations, BatchSize::of(&batch)) {
            Ok(()) => {
                self.count(&mut queue, &batch);
                queue.open.append(batch);
            }
            Err(_) => self.shared.metrics.measures_lost.increment(1),
        }
    }

    /// Counts a batch that is appended.
    fn count(&self, queue: &mut Queue, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        let metrics = &self.shared.metrics;
        metrics.page_views_queued.increment(batch.page_views.len() as u64);
        metrics.watches_queued.increment(batch.watches.len() as u64);
        let views = batch.page_views.iter().map(|view| &view.actor);
        let senders = views.chain(batch.watches.iter().map(|watch| &watch.actor));
        metrics.bot_events.increment(senders.filter(|sender| sender.is_bot).count() as u64);
        queue.open_since.get_or_insert_with(|| self.shared.clock.elapsed());
    }

    /// Removes a visitor's pending events that are not being committed, and returns how many. Their acks follow with
    /// those of the epoch.
    pub(crate) fn discard(&self, visitor: &VisitorId) -> usize {
        let mut queue = lock(&self.shared.queue);
        queue.waiting().map(|batch| batch.retain(|other, _| other != visitor)).sum()
    }

    /// Returns how many events of a visitor are pending and not being committed.
    pub(crate) fn pending_events(&self, visitor: &VisitorId) -> usize {
        let mut queue = lock(&self.shared.queue);
        let pending = |batch: &mut Batch| {
            let views = batch.page_views.iter().filter(|view| view.actor.visitor == *visitor);
            views.count() + batch.watches.iter().filter(|watch| watch.actor.visitor == *visitor).count()
        };
        queue.waiting().map(pending).sum()
    }

    /// Flushes all pending events, together with concurrent requests. After a failed commit it waits for the next
    /// retry, in all for at most 10 s.
    /// Errors: the commit failed or took longer. The events stay queued, and the flush task retries.
    pub(crate) async fn flush(&self) -> Result<Flushed, FlushError> {
        self.flush_by(Urgency::Normal).await
    }

    /// As [`flush`](Self::flush). For urgent events, it waits for the next transaction only.
    pub(crate) async fn flush_by(&self, urgency: Urgency) -> Result<Flushed, FlushError> {
        let flushed = async {
            match urgency {
                Urgency::Normal => self.request(FlushRequest::Join).await,
                Urgency::Urgent => {
                    let (reply, answer) = oneshot::channel();
                    self.urgent.send(reply).await.map_err(|_| FlushError::Stopped)?;
                    self.wake();
                    answer.await.map_err(|_| FlushError::Stopped)?
                }
            }
        };
        match timeout(FLUSH_TIMEOUT, flushed).await {
            Err(_) | Ok(Err(FlushError::NotCommitted(_))) => Err(FlushError::Pending),
            Ok(result) => result,
        }
    }

    /// Flushes all pending events at once, also after failed commits. For the admin.
    /// Errors: the commit failed. The events stay queued, and the flush task retries.
    pub(crate) async fn force_flush(&self) -> Result<Flushed, FlushError> {
        self.request(FlushRequest::Force).await
    }

    async fn request(&self, request: impl FnOnce(Reply) -> FlushRequest) -> Result<Flushed, FlushError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| FlushError::Stopped)?;
        answer.await.map_err(|_| FlushError::Stopped)?
    }

    /// Subscribes to the newest committed epoch.
    pub(crate) fn committed(&self) -> watch::Receiver<Epoch> {
        self.shared.committed.subscribe()
    }

    /// The state of the journal.
    pub(crate) fn status(&self) -> JournalStatus {
        self.shared.status()
    }

    /// Returns a handle that reads the state and does not keep the journal open.
    pub(crate) fn monitor(&self) -> JournalMonitor {
        JournalMonitor(Arc::clone(&self.shared))
    }
}

impl JournalMonitor {
    /// The state of the journal.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        self.0.status()
    }
}

impl Shared {
    fn status(&self) -> JournalStatus {
        let mut queue = lock(&self.queue);
        let mut pending = queue.taken;
        queue.waiting().for_each(|batch| pending += Flushed::of(batch));
        let closed_since = queue.closed.iter().find_map(|closed| closed.since);
        let oldest = queue.taken_since.or(closed_since).or(queue.open_since);
        let age = |since| millis(self.clock.elapsed().saturating_sub(since));
        JournalStatus {
            pending_page_views: pending.page_views,
            pending_watch_sessions: pending.watch_sessions,
            pending_presence: pending.presence,
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
    /// The next request, or `None` when all senders are dropped.
    pub(crate) async fn request(&mut self) -> Option<FlushRequest> {
        self.requests.recv().await
    }

    /// A request that is already queued.
    pub(crate) fn try_request(&mut self) -> Option<FlushRequest> {
        self.requests.try_recv().ok()
    }

    /// An urgent request that is already queued. The events that it waits for are pending, or committed.
    pub(crate) fn try_urgent(&mut self) -> Option<Reply> {
        self.urgent.try_recv().ok()
    }

    /// The open epoch.
    pub(crate) fn open_epoch(&self) -> Epoch {
        lock(&self.shared.queue).epoch
    }

    /// Takes the events of the oldest epoch, and closes it if it is open. They stay pending until
    /// [`committed`](Self::committed). Returns `None` if nothing is pending.
    pub(crate) fn take(&self) -> Option<(Epoch, Batch)> {
        self.shared.capacity.remove_idle();
        let mut queue = lock(&self.shared.queue);
        if queue.closed.is_empty() {
            // Sessions also wait for an epoch of which all events were discarded.
            if queue.open.is_empty() && queue.urgent.is_empty() && queue.open_since.is_none() {
                return None;
            }
            queue.close();
        }
        let ClosedEpoch { epoch, events, reservations, since } = queue.closed.pop_front()?;
        queue.taken = Flushed::of(&events);
        queue.taken_reservations = reservations;
        queue.taken_since = since;
        Some((epoch, events))
    }

    /// Takes the urgent events, to be committed together with the taken ones.
    pub(crate) fn take_urgent(&self) -> Batch {
        let mut queue = lock(&self.shared.queue);
        let urgent = std::mem::take(&mut queue.urgent);
        queue.taken += Flushed::of(&urgent);
        urgent
    }

    /// Takes up to `bytes` of the oldest pending events, and leaves their epochs as they are. They stay pending until
    /// [`committed_part`](Self::committed_part).
    pub(crate) fn take_part(&self, bytes: usize) -> Batch {
        let mut queue = lock(&self.shared.queue);
        let part = match queue.waiting().find(|batch| !batch.is_empty()) {
            Some(oldest) => oldest.split_front(bytes),
            None => Batch::default(),
        };
        queue.taken += Flushed::of(&part);
        part
    }

    /// Closes the open epoch, if anything is pending, and takes over all closed ones with their events that are not
    /// taken yet, and the urgent ones. [`committed`](Self::committed) with the returned epoch ends all of them.
    pub(crate) fn take_all(&self) -> Option<(Epoch, Batch)> {
        self.shared.capacity.remove_idle();
        let mut queue = lock(&self.shared.queue);
        if queue.open_since.is_some() {
            queue.close();
        }
        let last = queue.closed.back()?.epoch;
        let mut events = std::mem::take(&mut queue.urgent);
        for ClosedEpoch { events: rest, reservations, since, .. } in std::mem::take(&mut queue.closed) {
            events.append(rest);
            queue.taken_reservations.absorb(reservations);
            queue.taken_since = queue.taken_since.or(since);
        }
        queue.taken += Flushed::of(&events);
        Some((last, events))
    }

    /// Commits work again, although nothing that was taken is committed.
    pub(crate) fn recovered(&self) {
        let mut queue = lock(&self.shared.queue);
        queue.is_committing = false;
        queue.failing = None;
    }

    /// A commit of the taken batch begins.
    pub(crate) fn committing(&self) {
        lock(&self.shared.queue).is_committing = true;
    }

    /// A part of the taken batch is committed.
    pub(crate) fn committed_part(&self, part: &Batch) -> Flushed {
        let flushed = Flushed::of(part);
        lock(&self.shared.queue).taken -= flushed;
        let metrics = &self.shared.metrics;
        metrics.page_views_committed.increment(flushed.page_views as u64);
        metrics.watches_committed.increment(flushed.watch_sessions as u64);
        flushed
    }

    /// The taken batch is committed: `flushed` events in `took`. Notifies all waiting sessions.
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

    /// A commit of the taken batch failed.
    pub(crate) fn failed(&self, fault: Fault, words: String) {
        let mut queue = lock(&self.shared.queue);
        queue.is_committing = false;
        queue.failing = Some((fault, words));
        drop(queue);
        self.shared.metrics.flush_failures.increment(1);
    }
}
