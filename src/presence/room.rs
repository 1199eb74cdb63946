//! A room: its state, its subscribers, and when to publish.
//!
//! A change publishes at once if no state was published lately. Otherwise it waits until the publish window opens, and
//! then until the room is quiet, but not longer than the window's deadline, which later changes do not extend. Changes
//! of that time are coalesced into one state. Windows grow with the room, so that a room takes a bounded share of CPU
//! at any churn. A room has a task only while it has something to publish.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::accounting::{Accounting, Present, Sample};
use super::broadcast::{SubscriberId, Subscribers};
use super::hold::{HoldReason, Sit};
use super::metrics::PresenceMetrics;
use super::share::{Entry, PersonKey, Slot, room_hash};
use super::state::{OwnChange, RoomState, Snapshot};
use super::union::RoomUnion;
use super::visitor::VisitorState;
use crate::protocol::frame::Frame;
use crate::protocol::message::ServerMessage;
use crate::protocol::{Features, Mood, RoomId, Time, VisitorId, Vocabulary};
use crate::sync::lock;
use crate::transport::writer::SocketWriter;

/// Messages with a visitor's own mood or sit between two yields.
const OWN_CHANGES_CHUNK: usize = 128;

/// A room that has visitors or bots.
#[derive(Debug)]
pub struct Room {
    id: RoomId,
    vocabulary: Vocabulary,
    metrics: PresenceMetrics,
    subscribers: Subscribers,
    /// Every update is O(1), or one pass over the moods.
    inner: Mutex<Inner>,
}

/// A visitor of a room, for a list of them.
#[derive(Debug)]
pub(crate) struct ListedVisitor {
    /// The visitor.
    pub visitor: VisitorId,
    /// The mood in this room.
    pub mood: Option<Mood>,
    /// Why the visitor counts without a socket; none with a socket.
    pub held: Option<HoldReason>,
    /// When the visitor entered, in milliseconds of the monotonic clock.
    pub entered_ms: u64,
}

#[derive(Debug)]
struct Inner {
    state: RoomState,
    accounting: Accounting,
    /// The `seq` that was published last.
    published: u64,
    /// When the newest state began.
    changed: Instant,
    /// When the next state may be published.
    window: PublishWindow,
    /// Whether the publishing task runs.
    is_publishing: bool,
}

impl Room {
    /// An empty room, created at `now`.
    pub(crate) fn new(id: RoomId, vocabulary: Vocabulary, metrics: PresenceMetrics, now: Duration) -> Self {
        let created = Instant::now();
        let inner = Inner {
            state: RoomState::new(vocabulary.zero()),
            accounting: Accounting::new(now, vocabulary.names().count()),
            published: 0,
            changed: created,
            window: PublishWindow::open(created),
            is_publishing: false,
        };
        Self { id, vocabulary, metrics, subscribers: Subscribers::default(), inner: Mutex::new(inner) }
    }

    /// The room of a hub that is one of several nodes.
    pub(super) fn in_cluster(self) -> Self {
        let union = RoomUnion::new(room_hash(&self.id), self.vocabulary.zero());
        let state = RoomState::new(self.vocabulary.zero()).in_cluster(union);
        lock(&self.inner).state = state;
        self
    }

    /// The room's name.
    pub(crate) fn id(&self) -> &RoomId {
        &self.id
    }

    /// The newest state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        lock(&self.inner).state.snapshot()
    }

    /// Whether the room has no visitors, held ones included.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.inner).state.is_empty()
    }

    /// Whether this visitor is in the room.
    pub(crate) fn contains(&self, visitor: &VisitorId) -> bool {
        lock(&self.inner).state.contains(visitor)
    }

    /// What `choose` returns for each visitor, up to `limit`.
    pub(crate) fn visitors<T>(
        &self,
        limit: usize,
        choose: impl Fn(&VisitorId, &VisitorState) -> Option<T>,
    ) -> Vec<T> {
        let inner = lock(&self.inner);
        inner.state.visitors().filter_map(|(id, visitor)| choose(id, visitor)).take(limit).collect()
    }

    /// Up to `limit` visitors by their ids, after this one.
    pub(crate) fn visitors_after(&self, after: Option<&VisitorId>, limit: usize) -> Vec<ListedVisitor> {
        let inner = lock(&self.inner);
        let mut found: Vec<_> =
            inner.state.visitors().filter(|(id, _)| after.is_none_or(|after| *id > after)).collect();
        // Linear in the room, which may be large; only the page is sorted.
        if found.len() > limit {
            found.select_nth_unstable_by_key(limit, |(id, _)| *id);
            found.truncate(limit);
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        let listed = found.into_iter().map(|(id, visitor)| ListedVisitor {
            visitor: id.clone(),
            mood: visitor.mood,
            held: visitor.hold().map(|hold| hold.reason),
            entered_ms: visitor.entered_ms,
        });
        listed.collect()
    }

    /// The number of subscribed sockets, those of bots included.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.subscribers.len()
    }

    /// Sends every state to `writer` from now on. Call it before the session joins: the writer waits for the welcome
    /// before it sends a state.
    pub(crate) fn subscribe(&self, writer: Arc<SocketWriter>, features: Features) -> SubscriberId {
        self.subscribers.subscribe(writer, features)
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&self, id: SubscriberId) {
        self.subscribers.unsubscribe(id);
    }

    /// Sends the visitor's own mood and sit to the subscriber whenever they are set, if its features have them. The
    /// subscriber knows this mood and sit already.
    pub(crate) fn follow(
        self: &Arc<Self>,
        now: Duration,
        visitor: &VisitorId,
        subscriber: SubscriberId,
        known: (Option<Mood>, Option<Time>),
    ) {
        self.update(now, |state| state.follow(visitor, subscriber, known, Instant::now()));
    }

    /// Ends that, before the subscription ends: another subscriber may get the same id afterwards.
    pub(crate) fn unfollow(&self, visitor: &VisitorId, subscriber: SubscriberId) {
        lock(&self.inner).state.unfollow(visitor, subscriber);
    }

    /// Whether any socket is subscribed. In a room without visitors these are sockets of bots.
    pub(crate) fn has_subscribers(&self) -> bool {
        !self.subscribers.is_empty()
    }

    /// Updates the state at `now`, and publishes the change if there is one. Returns the result of `update`, and the
    /// state after it.
    pub(crate) fn update<T>(
        self: &Arc<Self>,
        now: Duration,
        update: impl FnOnce(&mut RoomState) -> T,
    ) -> (T, Snapshot) {
        let mut inner = lock(&self.inner);
        let result = self.change(&mut inner, now, true, update);
        (result, inner.state.snapshot())
    }

    /// Updates what is known of other nodes. With `is_replay` visitors who enter were present before.
    pub(super) fn update_elsewhere<T>(
        self: &Arc<Self>,
        now: Duration,
        is_replay: bool,
        update: impl FnOnce(&mut RoomState) -> T,
    ) -> T {
        self.change(&mut lock(&self.inner), now, !is_replay, update)
    }

    fn change<T>(
        self: &Arc<Self>,
        inner: &mut Inner,
        now: Duration,
        counts_joins: bool,
        update: impl FnOnce(&mut RoomState) -> T,
    ) -> T {
        let (before, present, sits) = (inner.state.seq(), inner.state.present(), inner.state.sits());
        inner.advance(now);
        inner.state.set_time(now);
        let result = update(&mut inner.state);
        let sits_after = inner.state.sits();
        inner.accounting.record_sits(sits, sits_after);
        if inner.state.seq() > before {
            let after = inner.state.present();
            inner.accounting.record_change(if counts_joins { present } else { after }, after);
            inner.changed = Instant::now();
        }
        if !inner.is_publishing && inner.has_changes() {
            inner.is_publishing = true;
            let now = Instant::now();
            if inner.window.opens <= now {
                inner.window = PublishWindow::open(now);
            }
            drop(self.metrics.panics.spawn(Arc::clone(self).publish_changes()));
        }
        result
    }

    /// The mood and the sit of a visitor of this node.
    pub(super) fn own_of(&self, visitor: &VisitorId) -> (Option<Mood>, Option<Sit>) {
        let inner = lock(&self.inner);
        (inner.state.mood_of(visitor), inner.state.sit_of(visitor))
    }

    /// This node's share of the room.
    pub(super) fn own_entries(&self) -> Vec<(PersonKey, Entry)> {
        let inner = lock(&self.inner);
        let entries = inner.state.union.iter().flat_map(|union| union.own_entries());
        entries.map(|(person, entry)| (person, entry.clone())).collect()
    }

    /// The persons of this share in the room.
    pub(super) fn persons_of(&self, slot: Slot) -> Vec<PersonKey> {
        let inner = lock(&self.inner);
        inner.state.union.as_ref().map(|union| union.persons_of(slot)).unwrap_or_default()
    }

    /// Whether any node has an entry in the room, that of a visitor who is gone included.
    pub(super) fn has_entries(&self) -> bool {
        lock(&self.inner).state.union.as_ref().is_some_and(|union| !union.is_empty())
    }

    /// Whether visitors of this node are in the room.
    pub(super) fn has_own(&self) -> bool {
        !lock(&self.inner).state.visitors.is_empty()
    }

    /// Calls `visit` with the shares of all nodes in the room; not without a cluster.
    pub(super) fn visit_union(&self, visit: impl FnOnce(&RoomUnion)) {
        if let Some(union) = lock(&self.inner).state.union.as_deref() {
            visit(union);
        }
    }

    /// Recounts the room, and corrects and publishes wrong counts. Returns the counts before and after.
    pub(super) fn recount(self: &Arc<Self>, now: Duration) -> (Snapshot, Snapshot) {
        let zero = self.vocabulary.zero();
        self.update(now, |state| state.recount(zero)).0
    }

    /// Calls `visit` for every visitor.
    pub(super) fn for_each_visitor(&self, visit: impl FnMut((&VisitorId, &VisitorState))) {
        lock(&self.inner).state.visitors().for_each(visit);
    }

    /// Returns the room's sample until `now`, and starts the next one.
    pub(super) fn take_sample(&self, now: Duration) -> Sample {
        let Inner { state, accounting, .. } = &mut *lock(&self.inner);
        accounting.take_sample(now, counts(state), state.moods().iter())
    }

    async fn publish_changes(self: Arc<Self>) {
        while self.has_changes() {
            while let Some(moment) = self.wait_until() {
                sleep_until(moment).await;
            }
            let (newest, own_changes) = self.begin_publish();
            self.send_own_changes(own_changes).await;
            let Some(newest) = newest else { continue };
            let frame = Frame::json(&ServerMessage::Presence {
                seq: newest.seq,
                present: newest.present,
                moods: self.vocabulary.named(&newest.moods),
            });
            let delivered = self.subscribers.broadcast(newest.seq, &frame).await;
            self.metrics.publishes.increment(1);
            self.metrics.deliveries.increment(delivered);
        }
    }

    /// Sends what was set of visitors to the sockets that follow them.
    async fn send_own_changes(&self, own_changes: Vec<OwnChangeWriters>) {
        let mut sent = 0_usize;
        for (change, writers) in own_changes {
            let frame = Frame::json(&match change {
                OwnChange::Mood(mood) => {
                    ServerMessage::OwnMood { mood: mood.and_then(|mood| self.vocabulary.name(mood)) }
                }
                OwnChange::Sit(until) => ServerMessage::OwnSit { until },
            });
            for writer in writers {
                writer.send(&frame);
                sent += 1;
                if sent.is_multiple_of(OWN_CHANGES_CHUNK) {
                    yield_now().await;
                }
            }
        }
    }

    /// Whether there is something to publish. If not, the publishing task ends.
    fn has_changes(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.is_publishing = inner.has_changes();
        inner.is_publishing
    }

    /// When to check again, if it is too early to publish.
    fn wait_until(&self) -> Option<Instant> {
        let (inner, now) = (lock(&self.inner), Instant::now());
        let moment = match inner.window {
            PublishWindow { opens, .. } if opens > now => opens,
            PublishWindow { deadline, quiet, .. } => deadline.min(inner.changed + quiet),
        };
        (moment > now).then_some(moment)
    }

    /// Takes the newest state for publishing, if it is not published, and what was set of visitors. Sets the next
    /// window.
    fn begin_publish(&self) -> (Option<Snapshot>, Vec<OwnChangeWriters>) {
        let subscribers = self.subscribers.len();
        let mut inner = lock(&self.inner);
        let is_newer = inner.state.seq() > inner.published;
        inner.published = inner.state.seq();
        inner.window = PublishWindow::after(Instant::now(), subscribers);
        // Under the lock, so that no id belongs to another subscriber yet.
        let own_changes = inner.state.take_own_changes().into_iter().map(|(change, followers)| {
            let has = |features: Features| match change {
                OwnChange::Mood(_) => features.own_mood,
                OwnChange::Sit(_) => features.own_sit,
            };
            (change, self.subscribers.writers(&followers, has))
        });
        let own_changes = own_changes.collect();
        (is_newer.then(|| inner.state.snapshot()), own_changes)
    }
}

/// What was set of a visitor, and the sockets that get it.
type OwnChangeWriters = (OwnChange, Vec<Arc<SocketWriter>>);

impl Inner {
    /// Whether there is a newer state than the published one, or something of a visitor was set.
    fn has_changes(&self) -> bool {
        self.state.seq() > self.published || self.state.has_own_changes()
    }

    fn advance(&mut self, now: Duration) {
        self.accounting.advance(now, counts(&self.state), self.state.moods().iter());
    }
}

fn counts(state: &RoomState) -> Present {
    let (held, sitting) = state.held_and_sitting();
    Present { all: state.present(), held, sitting }
}

/// When the next state may be published, and when it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PublishWindow {
    opens: Instant,
    deadline: Instant,
    /// A room without a change for this long is quiet, and publishes before the deadline.
    quiet: Duration,
}

impl PublishWindow {
    /// The window of a room that has not published lately: publish now.
    fn open(now: Instant) -> Self {
        Self { opens: now, deadline: now, quiet: Duration::ZERO }
    }

    /// The window after a state was published to this many subscribers. One delivery costs about 5 µs of a core. So a
    /// room takes at most 10 % of a core. With changes that never pause, and up to 1,000 subscribers, it takes 0.5 %.
    /// Both hold until the windows reach their maximum. A change costs a large room more, which therefore waits for
    /// longer pauses: with 50 ms in all rooms, ten of 700 that churn published every 250 ms instead of every 700.
    fn after(published: Instant, subscribers: usize) -> Self {
        const LONGEST: Duration = Duration::from_secs(1);
        let subscribers = u32::try_from(subscribers).unwrap_or(u32::MAX);
        let per_subscriber = |micros| Duration::from_micros(micros).saturating_mul(subscribers);
        let opens = per_subscriber(50).clamp(Duration::from_millis(100), LONGEST);
        let deadline = per_subscriber(1_000).clamp(Duration::from_millis(200), LONGEST);
        let quiet = per_subscriber(250).clamp(Duration::from_millis(50), LONGEST / 4);
        Self { opens: published + opens, deadline: published + deadline, quiet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_window_grows_with_the_room_within_bounds() {
        let now = Instant::now();
        let window = |subscribers| {
            let PublishWindow { opens, deadline, quiet } = PublishWindow::after(now, subscribers);
            ((opens - now).as_millis(), quiet.as_millis(), (deadline - now).as_millis())
        };
        assert_eq!(window(1), (100, 50, 200));
        assert_eq!(window(200), (100, 50, 200));
        assert_eq!(window(500), (100, 125, 500));
        assert_eq!(window(1_000), (100, 250, 1_000));
        assert_eq!(window(4_000), (200, 250, 1_000));
        assert_eq!(window(usize::MAX), (1_000, 250, 1_000));
    }
}
