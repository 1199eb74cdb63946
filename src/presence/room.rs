//! A room: its presence, its subscribers, and when to publish.
//!
//! A change publishes at once where none was published lately. Otherwise it waits for a window to open,
//! and then until the room is quiet, but never longer than to the window's end, which is not
//! re-armed. Windows grow with the room, so that a room costs a bounded share of the CPU whatever
//! the churn. A room has a task only while it has something to publish.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::accounting::{Accounting, Sample};
use super::audit::Difference;
use super::broadcast::{SubscriberId, Subscribers};
use super::metrics::PresenceMetrics;
use super::state::{RoomState, Visitor};
use crate::protocol::frame::Frame;
use crate::protocol::message::ServerMessage;
use crate::protocol::{MoodCounts, RoomId, VisitorId, Vocabulary};
use crate::sync::lock;
use crate::transport::writer::SocketWriter;

/// A room in which nothing has changed for so long is quiet.
const QUIET: Duration = Duration::from_millis(50);

/// One state of a room's aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which state it is; rises from 1 while the room exists, and is 0 where it does not.
    pub seq: u64,
    /// Distinct visitors.
    pub present: u32,
    /// How many of them have no socket. It may change while the state is the same.
    pub held: u32,
    /// People by mood.
    pub moods: MoodCounts,
}

/// A room in which somebody is.
#[derive(Debug)]
pub struct Room {
    id: RoomId,
    vocabulary: Vocabulary,
    metrics: PresenceMetrics,
    subscribers: Subscribers,
    /// Every step on it is O(1), or one pass over the moods.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    presence: RoomState,
    /// What is told at the next take_samples.
    tally: Accounting,
    /// The last state that was handed to the subscribers.
    published: u64,
    /// When the newest state began.
    changed: Instant,
    /// When the next state may be published.
    window: Window,
    /// Whether the task runs that publishes what is new.
    is_publishing: bool,
}

impl Room {
    /// An empty room, made at `now`.
    #[must_use]
    pub(crate) fn new(id: RoomId, vocabulary: Vocabulary, metrics: PresenceMetrics, now: Duration) -> Self {
        let began = Instant::now();
        let state = State {
            presence: RoomState::new(vocabulary.zero()),
            tally: Accounting::new(now, vocabulary.names().count()),
            published: 0,
            changed: began,
            window: Window::at_once(began),
            is_publishing: false,
        };
        Self { id, vocabulary, metrics, subscribers: Subscribers::default(), state: Mutex::new(state) }
    }

    /// The room's name.
    #[must_use]
    pub(crate) fn id(&self) -> &RoomId {
        &self.id
    }

    /// The room as it is now.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Snapshot {
        lock(&self.state).snapshot()
    }

    /// Whether nobody is here and nobody is held.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.state).presence.is_empty()
    }

    /// Whether this visitor is here.
    #[must_use]
    pub(crate) fn has(&self, visitor: &VisitorId) -> bool {
        lock(&self.state).presence.has(visitor)
    }

    /// Up to `limit` of the people here who are asked for.
    #[must_use]
    pub(crate) fn visitors(
        &self,
        limit: usize,
        which: impl Fn(&Visitor) -> bool,
    ) -> Vec<(VisitorId, Visitor)> {
        let state = lock(&self.state);
        let found = state.presence.visitors().filter(|(_, visitor)| which(visitor)).take(limit);
        found.map(|(id, visitor)| (id.clone(), *visitor)).collect()
    }

    /// Sockets that are told what happens here.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.subscribers.len()
    }

    /// Tells `writer` every state from now on. Before the session joins the presence: the writer
    /// holds back what comes before its welcome.
    pub(crate) fn enter(&self, writer: Arc<SocketWriter>) -> SubscriberId {
        self.subscribers.enter(writer)
    }

    /// Tells the socket nothing more.
    pub(crate) fn exit(&self, place: SubscriberId) {
        self.subscribers.exit(place);
    }

    /// Whether any socket is told what happens here: a bot's, where the room is empty.
    #[must_use]
    pub(crate) fn has_audience(&self) -> bool {
        !self.subscribers.is_empty()
    }

    /// Takes one step on the presence at `now`, publishes what it changed, and returns what the step
    /// returned together with the state after it.
    pub(crate) fn step<T>(
        self: &Arc<Self>,
        now: Duration,
        step: impl FnOnce(&mut RoomState) -> T,
    ) -> (T, Snapshot) {
        let mut state = lock(&self.state);
        let (before, present) = (state.presence.seq(), state.presence.present());
        state.pass(now);
        let result = step(&mut state.presence);
        if state.presence.seq() > before {
            let after = state.presence.present();
            state.tally.change(present, after);
            let now = Instant::now();
            state.changed = now;
            if !state.is_publishing {
                state.is_publishing = true;
                if state.window.opens <= now {
                    state.window = Window::at_once(now);
                }
                drop(self.metrics.panics.spawn(Arc::clone(self).publish_news()));
            }
        }
        (result, state.snapshot())
    }

    /// Recounts the people here and their moods, puts right and publishes what is wrong, and returns it
    /// with how many people there are.
    pub(super) fn audit(self: &Arc<Self>, now: Duration) -> (Vec<Difference>, u32) {
        let zero = self.vocabulary.zero();
        let (differences, counts) = self.step(now, |presence| presence.audit(zero));
        (differences, counts.present)
    }

    /// Passes everybody here.
    pub(super) fn for_each_visitor(&self, visit: impl FnMut((&VisitorId, &Visitor))) {
        lock(&self.state).presence.visitors().for_each(visit);
    }

    /// What is told of the room at a take_samples; the tally begins anew.
    pub(super) fn take_sample(&self, now: Duration) -> Sample {
        let State { presence, tally, .. } = &mut *lock(&self.state);
        tally.take(now, presence.present(), presence.moods().iter())
    }

    async fn publish_news(self: Arc<Self>) {
        while self.has_news() {
            while let Some(moment) = self.not_before() {
                sleep_until(moment).await;
            }
            let counts = self.next_to_publish();
            let state = Frame::json(&ServerMessage::Presence {
                seq: counts.seq,
                present: counts.present,
                moods: self.vocabulary.named(&counts.moods),
            });
            let told = self.subscribers.deliver(counts.seq, &state).await;
            self.metrics.publishes.increment(1);
            self.metrics.deliveries.increment(told);
        }
    }

    /// Whether there is something to publish. If not, nobody is publishing any more.
    fn has_news(&self) -> bool {
        let mut state = lock(&self.state);
        state.is_publishing = state.presence.seq() > state.published;
        state.is_publishing
    }

    /// When to look again, if it is too early to publish.
    fn not_before(&self) -> Option<Instant> {
        let (state, now) = (lock(&self.state), Instant::now());
        let moment = match state.window {
            Window { opens, .. } if opens > now => opens,
            Window { closes, .. } => closes.min(state.changed + QUIET),
        };
        (moment > now).then_some(moment)
    }

    /// The newest state, which is published from now on.
    fn next_to_publish(&self) -> Snapshot {
        let members = self.subscribers.len();
        let mut state = lock(&self.state);
        state.published = state.presence.seq();
        state.window = Window::after(Instant::now(), members);
        state.snapshot()
    }
}

impl State {
    fn pass(&mut self, now: Duration) {
        self.tally.pass(now, self.presence.present(), self.presence.moods().iter());
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            seq: self.presence.seq(),
            present: self.presence.present(),
            held: self.presence.held(),
            moods: self.presence.moods().clone(),
        }
    }
}

/// When the next state may be published, and when it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    opens: Instant,
    closes: Instant,
}

impl Window {
    /// The window of a room in which nothing was published lately.
    fn at_once(now: Instant) -> Self {
        Self { opens: now, closes: now }
    }

    /// The window after a state that went to so many members. A delivery to one costs about 5 µs of one
    /// core, so that a room takes a tenth of it at most, and one that never rests half a hundredth while
    /// it has no more than a thousand members; both up to where windows are longest.
    fn after(published: Instant, members: usize) -> Self {
        const LONGEST: Duration = Duration::from_secs(1);
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        let per_member = |micros| Duration::from_micros(micros).saturating_mul(members);
        let opens = per_member(50).clamp(Duration::from_millis(100), LONGEST);
        let closes = per_member(1_000).clamp(Duration::from_millis(200), LONGEST);
        Self { opens: published + opens, closes: published + closes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_with_the_room_between_their_bounds() {
        let now = Instant::now();
        let window = |members| {
            let Window { opens, closes } = Window::after(now, members);
            ((opens - now).as_millis(), (closes - now).as_millis())
        };
        assert_eq!(window(1), (100, 200));
        assert_eq!(window(500), (100, 500));
        assert_eq!(window(1_000), (100, 1_000));
        assert_eq!(window(4_000), (200, 1_000));
        assert_eq!(window(usize::MAX), (1_000, 1_000));
    }
}
