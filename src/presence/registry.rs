//! The registry: all rooms, and the memberships of sessions in them.
//!
//! A [`Membership`] is one session in one room. Its destructor leaves the room, so that no end of a session can leave a
//! visitor behind. A session that was lost leaves a [`Hold`], by which the visitor stays present until the deadline or
//! until the next join. A bot only subscribes: it gets every state and is in no count.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Config;
use super::accounting::Samples;
use super::activity::{ActivityIndex, VisitorActivity};
use super::broadcast::SubscriberId;
use super::clustered::Clustered;
use super::hold::{Hold, HoldReason, PermittedSit, Sit, SitOutcome};
use super::metrics::PresenceMetrics;
use super::room::{ListedVisitor, Room};
use super::share::ClusterKey;
use super::state::{OccupancyChange, RoomState, Snapshot};
use super::table::{Table, TableCounts};
use super::visitor::VisitorState;
use crate::protocol::{Features, Mood, RoomId, Time, VisitorId, Vocabulary};
use crate::sync::lock;
use crate::time::{Clock, millis};
use crate::transport::writer::SocketWriter;
use crate::transport::{SitLimit, SitPermit};

/// All presence of a hub. Sessions and HTTP share it.
#[derive(Debug)]
pub struct Registry {
    config: Config,
    metrics: PresenceMetrics,
    clock: Clock,
    activity: Arc<ActivityIndex>,
    /// Whether the hub is one of several nodes.
    is_clustered: bool,
    /// The hub shuts down: sessions that are lost from now on are held for the next start.
    is_restarting: AtomicBool,
    /// Joins and leaves change rooms and visitors together. A critical section is O(1), or one chunk of rooms. Samples
    /// take one short pass over all rooms, and an audit one over all visitors of this node, about 1 ms for 15,000 of them,
    /// over all rooms, and over the keys of all visitors. Broadcasts
    /// and changes of mood do not need it. Taken before a room's own lock, never after it.
    pub(super) table: Mutex<Table>,
}

/// A visitor cannot join a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JoinError {
    /// The hub has the most rooms that it may have.
    #[error("no more rooms can be opened now")]
    RoomsFull,
    /// The visitor is in the most rooms that a visitor may be in.
    #[error("this visitor is in too many rooms")]
    TooManyRooms,
}

/// A visitor cannot sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SitRefused {
    /// The visitor is a bot.
    #[error("a bot has no sit")]
    Bot,
    /// The longest sit has a length of zero.
    #[error("this hub has no sits: SIT_LIMIT is 0s")]
    Off,
    /// A limit of sits is reached.
    #[error(transparent)]
    Limit(#[from] SitLimit),
}

/// A visitor in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    /// The room.
    pub room: RoomId,
    /// The visitor.
    pub visitor: VisitorId,
    /// The mood in this room.
    pub mood: Option<Mood>,
    /// Whether the visitor has a socket.
    pub has_socket: bool,
    /// The hold that the last socket has left, apart from the sit.
    pub hold: Option<Hold>,
    /// The visitor's sit.
    pub sit: Option<Sit>,
    /// Whether the sit holds a visitor who has no socket, now or after the hub was away.
    pub sit_holds: bool,
}

/// A session that has joined: what its welcome has.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The session in the room.
    pub membership: Membership,
    /// The room's state.
    pub snapshot: Snapshot,
    /// The visitor's mood.
    pub mood: Option<Mood>,
    /// The end of the visitor's sit.
    pub sit: Option<Time>,
}

/// Counts over all rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceTotals {
    /// Distinct visitors.
    pub visitors: usize,
    /// Open room sockets of visitors.
    pub sessions: usize,
    /// Rooms with visitors.
    pub rooms: usize,
}

impl Registry {
    /// A registry without rooms and without a cluster.
    #[cfg(test)]
    pub(crate) fn new(config: Config, clock: Clock, metrics: PresenceMetrics) -> Arc<Self> {
        Self::open(config, clock, metrics, None)
    }

    /// A registry without rooms. With a key, the hub is one of several nodes that have this key.
    pub(crate) fn open(
        config: Config,
        clock: Clock,
        metrics: PresenceMetrics,
        key: Option<ClusterKey>,
    ) -> Arc<Self> {
        let mut table = Table::new(clock.elapsed(), config.moods.names().count(), config.max_rooms);
        let is_clustered = key.is_some();
        table.clustered = key.map(|key| Box::new(Clustered::new(key, clock.clone(), config.elsewhere_bytes)));
        Arc::new(Self {
            config,
            metrics,
            clock,
            is_clustered,
            activity: Arc::default(),
            is_restarting: AtomicBool::new(false),
            table: Mutex::new(table),
        })
    }

    /// The moods that visitors may set.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.config.moods
    }

    /// Checks whether [`join`](Self::join) would succeed now.
    pub(crate) fn check_join(&self, room: &RoomId, visitor: &VisitorId) -> Result<(), JoinError> {
        self.check_limits(&lock(&self.table), room, visitor)
    }

    fn check_limits(&self, table: &Table, room: &RoomId, visitor: &VisitorId) -> Result<(), JoinError> {
        let found = table.rooms.get(room).filter(|room| table.is_own_room(room));
        if found.is_none() && table.own_room_count() >= self.config.max_rooms {
            return Err(JoinError::RoomsFull);
        }
        let is_in_room = || found.is_some_and(|room| room.contains(visitor));
        match self.config.max_rooms_per_visitor {
            Some(most) if table.rooms_of(visitor) >= most && !is_in_room() => Err(JoinError::TooManyRooms),
            _ => Ok(()),
        }
    }

    /// Adds a session of `visitor` to `room`, which is created if it does not exist. `writer` gets every state that is
    /// newer than the returned one, and what else its `features` say.
    pub(crate) fn join(
        self: &Arc<Self>,
        room: &RoomId,
        visitor: &VisitorId,
        mood: Option<Mood>,
        writer: Arc<SocketWriter>,
        features: Features,
    ) -> Result<Joined, JoinError> {
        let mut table = lock(&self.table);
        self.check_limits(&table, room, visitor)?;
        // Read under the lock, so that time does not go back.
        let now = self.clock.elapsed();
        let room = table.open_room(room, || self.new_room(room, now));
        let subscriber = room.subscribe(writer, features);
        let mut own = (None, None);
        let snapshot = table.update_room(&room, visitor, now, |state| {
            let change = state.join(visitor, mood);
            own = (state.mood_of(visitor), state.sit_of(visitor));
            change
        });
        if table.clustered.is_some() {
            own = room.own_of(visitor); // what was set on another node holds here too
        }
        table.sessions += 1;
        drop(table);
        self.metrics.joins.increment(1);
        let (mood, sit) = own;
        let sit = sit.and_then(|sit| sit.until_if_running(Instant::now()));
        let mut membership = self.membership(room, visitor, subscriber, false);
        membership.features = features;
        Ok(Joined { membership, snapshot, mood, sit })
    }

    /// Adds a bot's session to `room`. It is in no count. `writer` gets every state that is newer than the returned one.
    pub(crate) fn join_as_bot(
        self: &Arc<Self>,
        room: &RoomId,
        visitor: &VisitorId,
        writer: Arc<SocketWriter>,
    ) -> Joined {
        let mut table = lock(&self.table);
        let room = table.open_room_for_bot(room, || self.new_room(room, self.clock.elapsed()));
        let subscriber = room.subscribe(writer, Features::default());
        drop(table);
        let snapshot = room.snapshot();
        Joined {
            membership: self.membership(room, visitor, subscriber, true),
            snapshot,
            mood: None,
            sit: None,
        }
    }

    /// Adds a visitor without a session.
    #[cfg(test)]
    pub(crate) fn add_held(
        &self,
        room: &RoomId,
        visitor: &VisitorId,
        mood: Option<Mood>,
        hold: Hold,
        sit: Option<PermittedSit>,
    ) -> Result<(), JoinError> {
        self.restore(room, visitor, mood, (hold, sit), None)
    }

    /// Adds a visitor without a session, from before this start of the hub, held since this moment. A hold with the
    /// reason `sit` is the sit itself. Does nothing if the visitor is in the room.
    pub(crate) fn restore(
        &self,
        room: &RoomId,
        visitor: &VisitorId,
        mood: Option<Mood>,
        (hold, sit): (Hold, Option<PermittedSit>),
        since: Option<Time>,
    ) -> Result<(), JoinError> {
        let mut table = lock(&self.table);
        self.check_limits(&table, room, visitor)?;
        let now = self.now();
        let room = table.open_room(room, || self.new_room(room, now));
        let since = table.clustered.as_ref().zip(since).map(|(clustered, since)| clustered.since(since));
        table.update_room_since(&room, visitor, now, since, |state| state.add_held(visitor, mood, hold, sit));
        Ok(())
    }

    /// From now on, holds of lost sessions last until the restart. The next start sets their deadlines.
    pub(crate) fn begin_restart(&self) {
        self.is_restarting.store(true, Ordering::Relaxed);
    }

    /// Ends the holds and sits of a visitor in all rooms, as a leave would.
    pub(crate) fn release(&self, visitor: &VisitorId) {
        let mut table = lock(&self.table);
        for room in table.holds.rooms_of(visitor) {
            let release = |state: &mut RoomState| state.release(visitor, Instant::now());
            self.update_held(&mut table, &room, visitor, release);
        }
    }

    /// Ends the hold or sit with the first deadline if that has passed, and returns the next deadline otherwise.
    pub(super) fn expire_next(&self, now: Instant) -> ControlFlow<Option<Instant>> {
        let mut table = lock(&self.table);
        let Some((room, visitor)) = table.holds.pop_expired(now) else {
            return ControlFlow::Break(table.holds.next_deadline());
        };
        self.update_held(&mut table, &room, &visitor, |state| state.expire(&visitor, now));
        ControlFlow::Continue(())
    }

    fn update_held(
        &self,
        table: &mut Table,
        room: &RoomId,
        visitor: &VisitorId,
        update: impl FnOnce(&mut RoomState) -> OccupancyChange,
    ) {
        if let Some(room) = table.rooms.get(room).cloned() {
            table.update_room(&room, visitor, self.now(), update);
        }
    }

    /// Notified when a new deadline is before all others.
    pub(super) fn earlier_deadline(&self) -> Arc<Notify> {
        lock(&self.table).holds.earlier()
    }

    /// The number of holds by reason. A visitor counts once for each room.
    pub(crate) fn hold_counts(&self) -> Vec<(HoldReason, usize)> {
        lock(&self.table).holds.counts().collect()
    }

    /// A number that rises with every change of the holds and sits.
    pub(crate) fn holds_version(&self) -> u64 {
        lock(&self.table).holds.version()
    }

    /// All visitors in rooms, in no order.
    pub(crate) fn occupants(&self) -> Vec<Occupant> {
        self.occupants_where(|_| true)
    }

    /// All visitors in rooms who have no socket or sit, in no order.
    pub(crate) fn lasting_occupants(&self) -> Vec<Occupant> {
        self.occupants_where(|visitor| visitor.next_deadline().is_some())
    }

    fn occupants_where(&self, filter: impl Fn(&VisitorState) -> bool) -> Vec<Occupant> {
        let mut occupants = Vec::new();
        let chunks = (0..).map_while(|chunk| self.room_chunk(chunk));
        for room in chunks.flatten() {
            occupants.extend(room.visitors(usize::MAX, |id, visitor| {
                filter(visitor).then(|| Occupant {
                    room: room.id().clone(),
                    visitor: id.clone(),
                    mood: visitor.mood,
                    has_socket: visitor.sessions > 0,
                    hold: visitor.session_hold(),
                    sit: visitor.sit(),
                    sit_holds: visitor.sit_holds(),
                })
            }));
        }
        occupants
    }

    pub(super) fn new_room(&self, id: &RoomId, now: Duration) -> Room {
        let room = Room::new(id.clone(), self.config.moods.clone(), self.metrics.clone(), now);
        if self.is_clustered { room.in_cluster() } else { room }
    }

    fn membership(
        self: &Arc<Self>,
        room: Arc<Room>,
        visitor: &VisitorId,
        subscriber: SubscriberId,
        is_bot: bool,
    ) -> Membership {
        let (registry, visitor) = (Arc::clone(self), visitor.clone());
        let features = Features::default();
        Membership { registry, room, visitor, subscriber, is_bot, features, has_ended: false }
    }

    /// Returns all samples until now, and starts the next ones.
    pub(crate) fn take_samples(&self) -> Samples {
        let mut table = lock(&self.table);
        table.take_samples(self.clock.elapsed())
    }

    /// The newest state of a room; all zero if it has no visitors.
    #[must_use]
    pub fn snapshot(&self, room: &RoomId) -> Snapshot {
        let found = lock(&self.table).rooms.get(room).cloned();
        found.map_or_else(
            || Snapshot { seq: 0, present: 0, held: 0, sitting: 0, moods: self.config.moods.zero() },
            |room| room.snapshot(),
        )
    }

    /// Up to `limit` visitors of this node in a room, by their ids, after this one, each with when they entered.
    pub(crate) fn visitors_of(
        &self,
        room: &RoomId,
        after: Option<&VisitorId>,
        limit: usize,
    ) -> Vec<(ListedVisitor, Time)> {
        let Some(room) = lock(&self.table).rooms.get(room).cloned() else { return Vec::new() };
        let (wall, now) = (self.clock.wall(), millis(self.clock.elapsed()));
        let listed = room.visitors_after(after, limit).into_iter();
        listed
            .map(|visitor| {
                let entered = wall.minus(now.saturating_sub(visitor.entered_ms));
                (visitor, entered)
            })
            .collect()
    }

    /// Counts over all rooms.
    #[must_use]
    pub fn totals(&self) -> PresenceTotals {
        let table = lock(&self.table);
        PresenceTotals { visitors: table.visitor_count(), sessions: table.sessions, rooms: table.rooms.len() }
    }

    /// Open room sockets of bots, which are not in the totals.
    pub(crate) fn bot_sessions(&self) -> usize {
        lock(&self.table).bot_sessions
    }

    /// Up to `limit` rooms, in no order.
    #[must_use]
    pub fn rooms(&self, limit: usize) -> Vec<Arc<Room>> {
        lock(&self.table).rooms.iter().take(limit).cloned().collect()
    }

    /// The rooms of this chunk, in no order; `None` after the last chunk. Joins and leaves can run between two chunks.
    pub(super) fn room_chunk(&self, chunk: usize) -> Option<Vec<Arc<Room>>> {
        lock(&self.table).rooms.chunk(chunk)
    }

    /// Whether the hub is one of several nodes.
    pub(crate) fn is_clustered(&self) -> bool {
        self.is_clustered
    }

    /// Recounts the table from the rooms, and corrects wrong counts. Returns the counts before and after.
    pub(super) fn recount(&self) -> (TableCounts, TableCounts) {
        let mut table = lock(&self.table);
        table.recount(self.clock.elapsed())
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(super) fn metrics(&self) -> &PresenceMetrics {
        &self.metrics
    }

    pub(super) fn activity(&self) -> &ActivityIndex {
        &self.activity
    }

    /// The activity of a new session of this visitor.
    pub(crate) fn visitor_activity(&self, visitor: &VisitorId) -> VisitorActivity {
        VisitorActivity::new(Arc::clone(&self.activity), visitor.clone())
    }
}

/// One session in a room. Its destructor leaves the room.
#[derive(Debug)]
pub(crate) struct Membership {
    registry: Arc<Registry>,
    room: Arc<Room>,
    visitor: VisitorId,
    subscriber: SubscriberId,
    is_bot: bool,
    features: Features,
    has_ended: bool,
}

impl Membership {
    /// The room.
    pub(crate) fn room(&self) -> &RoomId {
        self.room.id()
    }

    /// The visitor.
    pub(crate) fn visitor(&self) -> &VisitorId {
        &self.visitor
    }

    /// Whether this is a bot's session, which is in no count.
    pub(crate) fn is_bot(&self) -> bool {
        self.is_bot
    }

    /// Sets or clears the visitor's mood in this room. Bots have no mood.
    pub(crate) fn set_mood(&self, mood: Option<Mood>) {
        if self.is_bot {
            return;
        }
        let now = self.registry.clock.elapsed();
        if self.registry.is_clustered {
            let mut table = lock(&self.registry.table);
            table.holds.touch();
            table.update_room(&self.room, &self.visitor, now, |state| {
                state.set_mood(&self.visitor, mood);
                OccupancyChange::Unchanged
            });
            return;
        }
        let (sits, _) = self.room.update(now, |state| {
            state.set_mood(&self.visitor, mood);
            state.sit_of(&self.visitor).is_some()
        });
        if sits {
            lock(&self.registry.table).holds.touch(); // the mood is saved with the sit
        }
    }

    /// What this session's socket gets besides the messages of every socket. A bot gets nothing more.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// Sends the visitor's own mood and sit to this session's socket whenever they are set, as far as its features say,
    /// from the welcome on, which had this mood and sit.
    pub(crate) fn follow(&self, mood: Option<Mood>, sit: Option<Time>) {
        if self.features.follows_visitor() {
            let now = self.registry.clock.elapsed();
            self.room.follow(now, &self.visitor, self.subscriber, (mood, sit));
        }
    }

    /// Begins a sit of this length, or sets another end of the one that runs, and returns its end. The length is cut to
    /// the limit. Ends the sit if it is zero. `admit` takes the permit of the sit that runs, and returns
    /// another one if that does not count for the socket's address.
    /// Errors: bots have no sits, the hub may have none, and a limit may be reached. A sit that runs does not change.
    pub(crate) fn sit(
        &self,
        length: Duration,
        admit: impl FnOnce(Option<&SitPermit>) -> Result<Option<SitPermit>, SitLimit>,
    ) -> Result<Option<Time>, SitRefused> {
        let limit = self.registry.config.sit_limit;
        if self.is_bot {
            return Err(SitRefused::Bot);
        }
        if limit.is_zero() && !length.is_zero() {
            return Err(SitRefused::Off);
        }
        let length = length.min(limit);
        let mut table = lock(&self.registry.table);
        let now = Instant::now();
        let sit = (!length.is_zero()).then(|| Sit {
            deadline: now + length,
            until: self.registry.clock.wall().plus(millis(length)),
            latest: None,
        });
        let (elapsed, mut refused) = (self.registry.clock.elapsed(), None);
        table.update_room(&self.room, &self.visitor, elapsed, |state| {
            // A sit that is over, but not removed yet, has no permit to give.
            state.expire(&self.visitor, now);
            let permit = sit.map_or(Ok(None), |_| admit(state.sit_permit_of(&self.visitor)));
            match permit {
                Ok(permit) => state.set_sit(&self.visitor, sit.map(|sit| PermittedSit { sit, permit }), now),
                Err(limit) => {
                    refused = Some(limit);
                    OccupancyChange::Unchanged
                }
            }
        });
        refused.map_or(Ok(sit.map(|sit| sit.until)), |limit| Err(limit.into()))
    }

    /// Ends the session with a hold of this length; `sit` is what becomes of the visitor's sit if it was the last session.
    /// During a shutdown the hold lasts until the restart.
    pub(crate) fn leave_with_hold(mut self, reason: HoldReason, length: Duration, sit: SitOutcome) {
        let now = Instant::now();
        let is_restarting = self.registry.is_restarting.load(Ordering::Relaxed);
        let (reason, length) =
            if is_restarting { (HoldReason::Restart, Duration::MAX) } else { (reason, length) };
        let hold = Hold::new(reason, now, length);
        self.end(|state, visitor| state.leave_with_hold(visitor, hold, sit, now));
    }

    fn end(&mut self, leave: impl FnOnce(&mut RoomState, &VisitorId) -> OccupancyChange) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        if self.features.follows_visitor() {
            self.room.unfollow(&self.visitor, self.subscriber);
        }
        self.room.unsubscribe(self.subscriber);
        if self.is_bot {
            lock(&self.registry.table).remove_bot(&self.room);
            return;
        }
        let mut table = lock(&self.registry.table);
        table.sessions -= 1;
        let now = self.registry.clock.elapsed();
        table.update_room(&self.room, &self.visitor, now, |state| leave(state, &self.visitor));
        drop(table);
        self.registry.metrics.leaves.increment(1);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.end(|state, visitor| state.leave(visitor, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::panics::Panics;
    use crate::rejections::Rejections;
    use crate::transport::metrics::TransportMetrics;
    use crate::transport::{self, Sockets};

    #[tokio::test(start_paused = true)]
    async fn sit_that_is_over_has_no_permit_for_the_next_one() {
        let (clock, panics) = (Clock::system(), Panics::register());
        let registry = Registry::new(Config::default(), clock.clone(), PresenceMetrics::register(&panics));
        let metrics = TransportMetrics::register(Rejections::register(), panics);
        let sockets = Sockets::new(&transport::Config::default(), clock, metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (room, ann) = (RoomId::try_from("lobby").unwrap(), VisitorId::try_from("ann").unwrap());
        let joined = registry
            .join(&room, &ann, None, Arc::new(SocketWriter::new(stream)), Features::default())
            .unwrap();
        let ann = joined.membership;
        let sit = |length, expected: bool| {
            let admit = |current: Option<&SitPermit>| {
                assert_eq!(current.is_some(), expected);
                Ok(current.is_none().then(|| sockets.admit_sit(None, None).unwrap()))
            };
            ann.sit(length, admit).unwrap()
        };
        sit(Duration::from_millis(1), false);
        sit(Duration::from_millis(2), true);
        // The task that ends sits at their deadlines does not run here.
        tokio::time::advance(Duration::from_millis(2)).await;
        sit(Duration::from_hours(1), false);
        sit(Duration::from_hours(1), true);
    }
}
