//! What the flush task does with the log: publishes pending events, and commits those of all nodes.
//!
//! Every 100 ms, pending events become messages. A flush waits until most of the log's disks have all of them, and
//! commits them, and what was read of other nodes with the log's position. Without an answer in time the breaker opens:
//! messages are committed to the outbox with their events, and are sent in order when the log is back. A node skips its
//! own messages when it reads them, because they are committed before the position that covers them. Commands go the
//! same way as events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::breaker::{Breaker, BreakerState};
use super::clean::Cleaner;
use super::command::{Command, ErasedVisitor};
use super::erasure_request::{self, ErasureRequest, ErasureSender, Reply};
use super::erasures::LoggedErasure;
use super::follow::{Content, Follower, FollowerOutput, LogParts, WAITING};
use super::message::{Encoded, Encoder, Origin, PART_BYTES};
use super::own::{AppendResult, MESSAGE_BYTES, Oldest, OwnPart, Place, What, send_oldest};
use super::received::{ReadMessage, Received};
use super::resend::Resends;
use super::status::{LogMonitor, LogStatus};
use super::sums::sum_up;
use crate::history::event::Batch;
use crate::history::journal::{JournalReceiver, TRANSACTION_BYTES};
use crate::history::status::{Epoch, Flushed};
use crate::history::store::{CommitError, LogChange, ReadError};

/// The time between two looks at what is pending.
const PUBLISH: Duration = Duration::from_millis(100);

/// Messages that are sent and not answered yet. Further events wait in the journal.
const SENDING_LIMIT: usize = 8;

/// The most messages of the outbox that are sent without an answer between them. One at a time takes some 3 ms each.
const OUTBOX_RUN: u32 = 64;

/// The part of the flush task that knows the log.
pub(crate) struct Replica {
    parts: LogParts,
    status: watch::Sender<LogStatus>,
    encoder: Encoder,
    breaker: Breaker,
    /// Messages under way, of `own` and of the outbox.
    sending: FuturesUnordered<BoxFuture<'static, AppendResult>>,
    /// Own events that are not committed, by the number of their message.
    own: BTreeMap<u64, OwnPart>,
    /// Erasures to publish.
    requests: mpsc::Receiver<ErasureRequest>,
    /// Removes the events of erased visitors from the log.
    _cleaner: AbortOnDropHandle<()>,
    oldest: Oldest,
    incoming: mpsc::Receiver<FollowerOutput>,
    follower: AbortOnDropHandle<()>,
    /// Sums up what the file has.
    _summing: AbortOnDropHandle<()>,
    resends: Resends,
    /// Read messages that are not committed.
    received: Received,
    /// A transaction that failed.
    failed: Option<Slice>,
    /// The last epoch that is taken and not committed.
    closing: Option<Epoch>,
    ticks: Interval,
}

/// What one transaction commits.
#[derive(Default)]
struct Slice {
    batch: Batch,
    change: LogChange,
    /// Whether the events are of this node's journal.
    is_own: bool,
    /// Where the positions of its commands go.
    replies: Vec<(Reply, Option<u64>)>,
}

/// Something that the flush task does between two flushes.
pub(crate) enum LogStep {
    /// Looks at what is pending.
    Tick,
    /// A message was answered.
    Appended(AppendResult),
    /// A message was read.
    Read(FollowerOutput),
    /// A visitor is to be erased on all nodes.
    Erasure(ErasureRequest),
}

impl Replica {
    /// Begins to read the log, and returns what reads the state.
    /// Errors: the position in the file cannot be read.
    pub(crate) async fn open(parts: LogParts) -> Result<(Self, LogMonitor, ErasureSender), ReadError> {
        let (row, outbox) = (parts.store.log_row().await?, parts.store.outbox_len().await?);
        let is_log_known = row.is_some();
        let (position, resend_from) = row.map(|row| (row.position, row.resend_from)).unzip();
        let is_resending = resend_from.flatten().is_some();
        let at_start = LogStatus::at_start(position.unwrap_or_default(), outbox, is_resending);
        let status = watch::Sender::new(LogStatus { is_log_known, ..at_start });
        let encoder = Encoder::new(Origin::new());
        let (incoming, follower) = follow(&parts, &encoder, &status);
        let summing = AbortOnDropHandle::new(parts.panics.spawn(sum_up(parts.store.clone(), status.clone())));
        let mut ticks = interval(PUBLISH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let erasures = parts.erasures.clone();
        let monitor = LogMonitor::new(&status, erasures.clone());
        let (sender, requests) = erasure_request::open(erasures.clone());
        let cleaner = Cleaner {
            log: Arc::clone(&parts.log),
            store: parts.store.clone(),
            erasures,
            status: status.subscribe(),
        };
        let cleaner = AbortOnDropHandle::new(parts.panics.spawn(cleaner.run()));
        let replica = Self {
            parts,
            status,
            requests,
            _cleaner: cleaner,
            encoder,
            breaker: Breaker::new(),
            sending: FuturesUnordered::new(),
            own: BTreeMap::new(),
            oldest: Oldest::Waiting,
            incoming,
            follower,
            _summing: summing,
            resends: Resends::default(),
            received: Received::default(),
            failed: None,
            closing: None,
            ticks,
        };
        Ok((replica, monitor, sender))
    }

    /// Waits for the next step. It may be dropped at any time.
    pub(crate) async fn next(&mut self) -> LogStep {
        let has_room = self.received.has_room();
        tokio::select! {
            _ = self.ticks.tick() => LogStep::Tick,
            Some(answer) = self.sending.next(), if !self.sending.is_empty() => LogStep::Appended(answer),
            Some(incoming) = self.incoming.recv(), if has_room => LogStep::Read(incoming),
            Some(request) = self.requests.recv() => LogStep::Erasure(request),
        }
    }

    /// Does a step. Returns whether a flush is due: so much was read, a visitor is erased, or events are to be published
    /// again.
    pub(crate) async fn take(&mut self, step: LogStep, receiver: &JournalReceiver) -> bool {
        let mut is_due = false;
        match step {
            LogStep::Tick => {
                while self.sending.len() < SENDING_LIMIT && self.may_send() {
                    let batch = receiver.take_part(PART_BYTES);
                    if batch.is_empty() {
                        break;
                    }
                    self.add(batch);
                }
                self.drain().await;
            }
            LogStep::Appended(answer) => self.answered(answer).await,
            LogStep::Read(incoming) => is_due = self.receive(incoming),
            LogStep::Erasure(request) => {
                self.erase(request);
                is_due = true;
            }
        }
        self.show();
        is_due || !self.received.has_room() || self.resends.is_due()
    }

    /// Publishes what is pending, waits for the answers, and commits it and what was read.
    /// Errors: a transaction failed. What is not committed stays here for the next flush.
    pub(crate) async fn flush(&mut self, receiver: &JournalReceiver) -> Result<Flushed, CommitError> {
        let started = Instant::now();
        let lost = self.resends.take_due();
        if let Some((epoch, mut events)) = receiver.take_all() {
            self.closing = Some(epoch);
            while !events.is_empty() {
                while self.sending.len() >= SENDING_LIMIT {
                    self.settle().await;
                }
                self.add(events.split_front(PART_BYTES));
            }
        }
        while self.own.values().any(OwnPart::is_sending) {
            self.settle().await;
        }
        let flushed = match self.commit(receiver).await {
            Ok(flushed) => flushed,
            Err(error) => {
                self.resends.put_back(lost);
                return Err(error);
            }
        };
        // All that the lost log may have had of this node are committed: of what was sent to it, nothing is under way.
        if let Some(lost) = lost {
            self.resends.begin(lost, &self.parts, self.encoder.origin(), &self.status);
        }
        match self.closing.take() {
            Some(epoch) => receiver.committed(epoch, flushed, started.elapsed()),
            None => receiver.recovered(),
        }
        self.remove_oldest().await;
        // An import adds to the outbox too.
        if self.outbox() == 0
            && let Ok(outbox @ 1..) = self.parts.store.outbox_len().await
        {
            self.status.send_modify(|status| status.outbox = outbox);
        }
        self.drain().await;
        self.show();
        Ok(flushed)
    }

    /// The own events that are not committed.
    pub(crate) fn len(&self) -> usize {
        let failed = self.failed.as_ref().map_or(0, |slice| slice.batch.len());
        failed + self.own.values().map(|part| part.batch.len()).sum::<usize>()
    }

    /// Waits for an answer, and meanwhile reads.
    async fn settle(&mut self) {
        let has_room = self.received.has_room();
        tokio::select! {
            Some(answer) = self.sending.next() => self.answered(answer).await,
            Some(incoming) = self.incoming.recv(), if has_room => drop(self.receive(incoming)),
            else => {}
        }
    }

    /// Whether an own message may be sent now. The oldest message of the outbox tries first whether the log is back.
    fn may_send(&self) -> bool {
        match self.breaker.state() {
            _ if !self.is_log_known() => false,
            BreakerState::Closed => true,
            BreakerState::Open => self.outbox() == 0 && self.breaker.is_try_due(self.parts.clock.elapsed()),
            BreakerState::HalfOpen => false,
        }
    }

    /// Makes messages of own events, and sends them if the log is not away.
    fn add(&mut self, mut batch: Batch) {
        self.parts.erasures.drop_from(&mut batch);
        for encoded in self.encoder.encode(batch) {
            self.add_own(encoded, None);
        }
    }

    /// Makes a message of an erasure, which covers the events that follow.
    fn erase(&mut self, request: ErasureRequest) {
        let erasure = request.erasure;
        self.parts.erasures.note(erasure.visitor, erasure.until);
        let encoded = self.encoder.command(&Command::Erase { visitors: vec![erasure] });
        self.add_own(encoded, Some(request));
    }

    /// Sends a message if the log is not away.
    fn add_own(&mut self, Encoded { id, batch, message }: Encoded, request: Option<ErasureRequest>) {
        let place = if self.may_send() {
            if self.breaker.state() == BreakerState::Open {
                self.breaker.begin_try();
            }
            self.send(id.number, id.to_string(), message.clone());
            Place::Sending(message)
        } else {
            Place::Outbox(message)
        };
        self.own.insert(id.number, OwnPart { batch, request, place });
    }

    fn send(&self, number: u64, id: String, message: Bytes) {
        let (what, started) = (What::Own(number), Instant::now());
        let append = self.parts.log.append(id, message);
        let answer = append.map(move |result| AppendResult { what, result, took: started.elapsed() });
        self.sending.push(answer.boxed());
    }

    async fn answered(&mut self, AppendResult { what, result, took }: AppendResult) {
        // A message that was read before its answer came, if any came, is known to be in the log.
        let is_read =
            matches!(what, What::Own(number) if !self.own.get(&number).is_some_and(OwnPart::is_sending));
        if result.is_ok() || !is_read {
            self.status.send_modify(|status| status.answered(&result));
        }
        match &result {
            Ok(_) => {
                self.parts.metrics.publish.record(took.as_secs_f64());
                self.succeeded();
            }
            Err(_) if is_read => {}
            Err(error) => {
                if self.breaker.state() == BreakerState::Closed {
                    warn!(%error, "the log is away: events are committed here, and wait in the outbox for the other nodes");
                }
                self.breaker.failed(self.parts.clock.elapsed());
            }
        }
        match what {
            What::Own(number) => {
                if let Some(part) = self.own.get_mut(&number)
                    && let Place::Sending(message) = &part.place
                {
                    part.place = match result {
                        Ok(position) => Place::Stored(position),
                        Err(_) => Place::Outbox(message.clone()),
                    };
                }
            }
            What::Outbox(stored) => {
                self.oldest = if stored.is_empty() { Oldest::Waiting } else { Oldest::Stored(stored) };
                self.remove_oldest().await;
            }
        }
        self.drain().await;
    }

    /// The log has stored a message.
    fn succeeded(&mut self) {
        if self.breaker.state() != BreakerState::Closed {
            info!(outbox = self.outbox(), "the log is back");
        }
        self.breaker.succeeded();
    }

    /// Removes those of the oldest messages of the outbox that the log has.
    async fn remove_oldest(&mut self) {
        let Oldest::Stored(stored) = &self.oldest else { return };
        match self.parts.store.remove_from_outbox(stored).await {
            Ok(left) => {
                self.status.send_modify(|status| status.outbox = left);
                self.oldest = Oldest::Waiting;
            }
            Err(error) => {
                warn!(%error, "cannot remove messages from the outbox: the next flush tries again");
            }
        }
    }

    /// Sends the oldest messages of the outbox, if they may be sent now: one where it is a try.
    async fn drain(&mut self) {
        let is_try = self.breaker.is_try_due(self.parts.clock.elapsed());
        let may_send = self.is_log_known() && (is_try || self.breaker.state() == BreakerState::Closed);
        // The outbox of a file from a backup may have events of visitors who were erased since.
        let may_send = may_send && self.parts.erasures.is_repeated();
        if !matches!(self.oldest, Oldest::Waiting) || self.outbox() == 0 || !may_send {
            return;
        }
        match self.parts.store.oldest_in_outbox(if is_try { 1 } else { OUTBOX_RUN }).await {
            Ok(oldest) if oldest.is_empty() => self.status.send_modify(|status| status.outbox = 0),
            Ok(oldest) => {
                if is_try {
                    self.breaker.begin_try();
                }
                self.oldest = Oldest::Sending;
                self.sending.push(send_oldest(&*self.parts.log, oldest));
            }
            // The next tick tries again.
            Err(error) => warn!(%error, "cannot read the outbox"),
        }
    }

    fn is_log_known(&self) -> bool {
        self.status.borrow().is_log_known
    }

    fn outbox(&self) -> u64 {
        self.status.borrow().outbox
    }

    /// Notes what was read. Returns whether a visitor is erased.
    fn receive(&mut self, incoming: FollowerOutput) -> bool {
        let FollowerOutput::Message { position, behind, lag_ms, content } = incoming else {
            if let FollowerOutput::Begin { log, after, lost } = incoming {
                self.status.send_modify(|status| {
                    status.read = after;
                    status.is_resending |= lost.is_some();
                });
                if let Some(lost) = lost {
                    self.resends.note(&log, lost);
                }
                self.received.begin(log, after);
            }
            return false;
        };
        self.breaker.was_read(self.parts.clock.elapsed());
        let (mut batch, mut erasures) = (Batch::default(), Vec::new());
        match content {
            Content::Events(events) => batch = events,
            Content::Erasures(visitors) => erasures = visitors,
            Content::Own(number) => {
                // The answer may be late, or lost.
                if let Some(part) = self.own.get_mut(&number)
                    && !matches!(part.place, Place::Stored(_))
                {
                    part.place = Place::Stored(position);
                    self.succeeded();
                }
            }
        }
        let is_late = self.parts.erasures.drop_from(&mut batch) > 0;
        for erasure in &erasures {
            self.parts.erasures.note(erasure.visitor, erasure.until);
        }
        let sampled = batch.samples.iter().map(|sample| sample.at).max();
        self.status.send_modify(|status| {
            status.sampled = status.sampled.max(sampled);
            status.read = position;
            status.lag_ms = lag_ms;
            status.lag_messages = behind;
        });
        let is_erasure = !erasures.is_empty();
        self.received.push(ReadMessage { position, batch, erasures, is_late });
        is_erasure
    }

    /// Commits everything that is here and not under way, in transactions.
    async fn commit(&mut self, receiver: &JournalReceiver) -> Result<Flushed, CommitError> {
        let (mut flushed, mut last, mut is_away) = (Flushed::default(), None, false);
        receiver.committing();
        // Own events first: the position may cover their messages.
        while let Some(slice) = self.failed.take().or_else(|| self.own_slice()).or_else(|| self.read_slice())
        {
            let is_expected = match self.parts.store.commit_logged(&slice.batch, &slice.change).await {
                Ok(is_expected) => is_expected,
                Err(error) => {
                    self.failed = Some(slice);
                    return Err(error);
                }
            };
            let Slice { batch, change, is_own, replies } = slice;
            let LogChange { moved, outbox, own, erasures, late } = change;
            for erasure in erasures {
                self.parts.erasures.begin(erasure);
            }
            if late.is_some() {
                self.parts.erasures.clean();
            }
            for (reply, position) in replies {
                // A failed send means that the requester has left.
                let _ = reply.send(position);
            }
            last = last.max(own);
            is_away |= !outbox.is_empty();
            if is_own {
                flushed += receiver.committed_part(&batch);
            }
            self.status.send_modify(|status| {
                status.outbox += outbox.len() as u64;
                if let Some(moved) = moved.filter(|_| is_expected) {
                    status.position = moved.to;
                }
            });
            if !is_expected {
                self.follow_again();
            }
        }
        flushed.position = last.filter(|_| !is_away);
        Ok(flushed)
    }

    /// The next own events to commit, with the messages for the outbox.
    fn own_slice(&mut self) -> Option<Slice> {
        let (mut slice, mut bytes) = (Slice { is_own: true, ..Slice::default() }, 0);
        while bytes < TRANSACTION_BYTES
            && let Some(first) = self.own.first_entry()
        {
            let number = *first.key();
            let OwnPart { batch, request, place } = first.remove();
            bytes += MESSAGE_BYTES + batch.bytes();
            slice.batch.append(batch);
            if let Some(ErasureRequest { erasure: ErasedVisitor { visitor, until, .. }, reply }) = request {
                slice.change.erasures.push(LoggedErasure { visitor, until, position: None });
                let position = if let Place::Stored(position) = place { Some(position) } else { None };
                slice.replies.push((reply, position));
            }
            match place {
                Place::Outbox(message) => {
                    slice.change.outbox.push((self.encoder.id(number).to_string(), message));
                }
                Place::Stored(position) => slice.change.own = slice.change.own.max(Some(position)),
                Place::Sending(_) => {}
            }
        }
        (!slice.batch.is_empty() || !slice.change.is_empty()).then_some(slice)
    }

    /// The next events of other nodes, with the position after them.
    fn read_slice(&mut self) -> Option<Slice> {
        self.received.take_slice().map(|(batch, change)| Slice { batch, change, ..Slice::default() })
    }

    /// Reads again from the position in the file, which was replaced: also what this run published.
    fn follow_again(&mut self) {
        warn!("the file does not have the expected position in the log: reading again from its own");
        self.encoder.renew();
        self.received = Received::default();
        (self.incoming, self.follower) = follow(&self.parts, &self.encoder, &self.status);
    }

    fn show(&self) {
        let breaker = self.breaker.state();
        self.status.send_if_modified(|status| {
            let has_changed = status.breaker != breaker;
            status.breaker = breaker;
            has_changed
        });
    }
}

/// Starts the reading task.
fn follow(
    parts: &LogParts,
    encoder: &Encoder,
    status: &watch::Sender<LogStatus>,
) -> (mpsc::Receiver<FollowerOutput>, AbortOnDropHandle<()>) {
    let (sender, incoming) = mpsc::channel(WAITING);
    let follower = Follower::new(parts.clone(), encoder.origin(), status.clone(), sender);
    (incoming, AbortOnDropHandle::new(parts.panics.spawn(follower.run())))
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("breaker", &self.breaker)
            .field("own", &self.own.len())
            .field("received", &self.received.len())
            .field("follower", &self.follower)
            .finish_non_exhaustive()
    }
}
