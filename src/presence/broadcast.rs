//! Broadcast: sends every new state of a room, or of the live activity, to all subscribers.
//!
//! A broadcast writes to its subscribers in portions. Other tasks run between some of them, and a large broadcast is shared
//! by as many tasks as there are workers; where a broadcast of another room is recent, by half as many, so that the
//! others have time for other rooms. These are normal tasks without a priority, so that they cannot starve a task that
//! holds a lock or waits for one. Subscribers may come and go during a broadcast: the first message of a new one has a
//! state that is at least as new.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slab::Slab;
use tokio::runtime::Handle;
use tokio::task::{self, JoinSet, yield_now};
use tokio::time::Instant;

use crate::protocol::Features;
use crate::protocol::frame::Frame;
use crate::sync::lock;
use crate::transport::writer::SocketWriter;

/// Subscribers between two yields of a task of a broadcast that is the only one: some four milliseconds of writing, in which
/// the worker runs no other task. Each yield wakes an idle worker: with 256, a broadcast to 2,000 takes 1.03 times the CPU, with
/// 32 1.15 times.
const CHUNK: usize = 512;

/// Subscribers before a task's first yield. The runtime leaves a new task to the worker that created it, so that all tasks
/// begin on one worker, one after the other, and other workers take them over at these yields. With 512, the last of 2,000
/// members waits 1.26 times as long, for the same CPU.
const FIRST_CHUNK: usize = 256;

/// Subscribers that a task takes at a time: few, so that all tasks end at about the same time.
///
/// Where a broadcast of another room is recent, a task yields after each portion. Then no worker is idle, and small rooms wait
/// for large ones: beside a room of 10,000 that churns, a change in a room of ten takes 0.4 ms, p99, instead of 1.2 with `CHUNK`.
const PORTION: usize = 64;

/// A broadcast is recent for this long after it began.
const RECENT: Duration = Duration::from_millis(50);

/// The last broadcasts of this process, which share its workers. Held for O(1).
static LAST_TWO: Mutex<LastTwo> = Mutex::new(LastTwo([None, None]));

/// The rooms of the last broadcasts, two different ones, and when each began. A room is the address of its subscribers.
#[derive(Debug, Clone, Copy)]
struct LastTwo([Option<(usize, Instant)>; 2]);

impl LastTwo {
    /// Notes a broadcast of this room, and returns whether it is alone.
    fn note(&mut self, room: usize, now: Instant) -> bool {
        let [earlier, latest] = self.0;
        let is_same = latest.is_some_and(|(latest, _)| latest == room);
        self.0 = [if is_same { earlier } else { latest }, Some((room, now))];
        self.is_alone(room, now)
    }

    /// Whether no broadcast of another room is recent.
    fn is_alone(self, room: usize, now: Instant) -> bool {
        let mut others = self.0.into_iter().flatten().filter(|(other, _)| *other != room);
        others.all(|(_, began)| now.saturating_duration_since(began) >= RECENT)
    }
}

/// The sockets that get every new state.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Arc<Writers>);

/// Held for one portion at most; writes happen outside. Keys are stable.
type Writers = Mutex<Slab<Subscriber>>;

/// A socket, and the features that it asked for.
#[derive(Debug)]
struct Subscriber {
    writer: Arc<SocketWriter>,
    features: Features,
}

/// Identifies a subscription, to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriberId(usize);

/// One state on its way to all subscribers.
#[derive(Debug)]
struct Broadcast {
    writers: Arc<Writers>,
    /// The first key that no task has taken.
    next: AtomicUsize,
    seq: u64,
    state: Frame,
}

impl Subscribers {
    /// Adds a subscriber. Call it before its first state is read, so that it misses no newer one.
    pub(crate) fn subscribe(&self, writer: Arc<SocketWriter>, features: Features) -> SubscriberId {
        SubscriberId(lock(&self.0).insert(Subscriber { writer, features }))
    }

    /// Removes a subscriber.
    pub(crate) fn unsubscribe(&self, id: SubscriberId) {
        lock(&self.0).try_remove(id.0);
    }

    /// The sockets of these subscribers with such features.
    pub(super) fn writers(
        &self,
        ids: &[SubscriberId],
        has: impl Fn(Features) -> bool,
    ) -> Vec<Arc<SocketWriter>> {
        let subscribers = lock(&self.0);
        let found = ids.iter().filter_map(|id| subscribers.get(id.0));
        found.filter(|found| has(found.features)).map(|found| Arc::clone(&found.writer)).collect()
    }

    /// The number of subscribers.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether there are no subscribers.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends the state `seq` to every subscriber that has no newer one, and returns their number. The caller runs one
    /// broadcast at a time.
    pub(crate) async fn broadcast(&self, seq: u64, state: &Frame) -> u64 {
        let is_alone = lock(&LAST_TWO).note(Arc::as_ptr(&self.0).addr(), Instant::now());
        let (writers, next) = (Arc::clone(&self.0), AtomicUsize::new(0));
        let broadcast = Arc::new(Broadcast { writers, next, seq, state: state.clone() });
        // Rounded down: a second task in a room of 1,000 costs churn 1.05 times the CPU.
        let chunks = self.len() / CHUNK;
        let workers = Handle::current().metrics().num_workers();
        // On two cores, all workers would cost other rooms 1.6 times their p99, and half of them this one 1.25 times its own.
        let tasks = if is_alone { workers } else { workers / 2 };
        let mut others = JoinSet::new();
        for _ in 1..chunks.min(tasks) {
            others.spawn(Arc::clone(&broadcast).run());
        }
        let mut delivered = broadcast.run().await;
        while let Some(ended) = others.join_next().await {
            match ended.map_err(task::JoinError::try_into_panic) {
                Ok(more) => delivered += more,
                Err(Ok(panic)) => resume_unwind(panic), // as if this task had panicked
                Err(Err(_)) => {}                       // the runtime shuts down
            }
        }
        delivered
    }
}

impl Broadcast {
    /// Writes portion after portion until there are no more. Returns the number of deliveries.
    async fn run(self: Arc<Self>) -> u64 {
        let (mut delivered, mut until_yield) = (0, FIRST_CHUNK);
        while let Some(portion) = self.next_portion() {
            delivered += portion
                .into_iter()
                .map(|writer| u64::from(writer.send_state(self.seq, &self.state)))
                .sum::<u64>();
            until_yield = until_yield.saturating_sub(PORTION);
            if (until_yield == 0 || !self.is_alone()) && self.has_more() {
                yield_now().await;
                until_yield = CHUNK;
            }
        }
        delivered
    }

    fn next_portion(&self) -> Option<Vec<Arc<SocketWriter>>> {
        let from = self.next.fetch_add(PORTION, Ordering::Relaxed);
        let writers = lock(&self.writers);
        let keys = from..writers.capacity().min(from + PORTION);
        (!keys.is_empty())
            .then(|| keys.filter_map(|key| Some(Arc::clone(&writers.get(key)?.writer))).collect())
    }

    fn is_alone(&self) -> bool {
        lock(&LAST_TWO).is_alone(Arc::as_ptr(&self.writers).addr(), Instant::now())
    }

    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < lock(&self.writers).capacity()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LARGE: usize = 4_096;

    /// Many subscriptions of 64 sockets.
    async fn large() -> (Subscribers, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (subscribers, mut peers) = (Subscribers::default(), Vec::new());
        for _ in 0..64 {
            peers.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let writer = Arc::new(SocketWriter::new(listener.accept().await.unwrap().0));
            writer.open(0, &Frame::json(&"welcome"));
            for _ in 0..LARGE / 64 {
                subscribers.subscribe(Arc::clone(&writer), Features::default());
            }
        }
        (subscribers, peers)
    }

    #[test]
    fn room_is_alone_until_another_one_has_a_broadcast_and_again_50_ms_later() {
        let (mut last_two, start) = (LastTwo([None, None]), Instant::now());
        let is_alone = |last_two: LastTwo, room, after| last_two.is_alone(room, start + after);
        last_two.note(1, start);
        last_two.note(1, start);
        assert!(is_alone(last_two, 1, Duration::ZERO), "beside its own broadcasts");
        assert!(!is_alone(last_two, 2, Duration::ZERO));
        last_two.note(2, start);
        last_two.note(1, start + RECENT / 2);
        last_two.note(1, start + RECENT / 2);
        assert!(!is_alone(last_two, 1, RECENT / 2), "the other one is not forgotten");
        assert!(is_alone(last_two, 1, RECENT));
        assert!(!is_alone(last_two, 2, RECENT));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn large_broadcast_reaches_every_socket_once() {
        let (subscribers, peers) = large().await;
        let state = Frame::json(&"state");
        assert_eq!(tokio::spawn(async move { subscribers.broadcast(1, &state).await }).await.unwrap(), 64);
        for mut peer in peers {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, [Frame::json(&"welcome").bytes(), Frame::json(&"state").bytes()].concat());
        }
    }

    #[tokio::test]
    async fn other_tasks_run_during_a_large_broadcast() {
        let (subscribers, _peers) = large().await;
        let turns = Arc::new(AtomicUsize::new(0));
        let others = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
            }
        });
        assert_eq!(subscribers.broadcast(1, &Frame::json(&"state")).await, 64);
        others.abort();
        assert!(turns.load(Ordering::Relaxed) >= LARGE / CHUNK - 1, "one after each chunk");
    }

    #[tokio::test]
    async fn broadcast_skips_known_states_and_ended_subscriptions() {
        let (subscribers, _peers) = large().await;
        let state = Frame::json(&"state");
        assert_eq!((subscribers.broadcast(2, &state).await, subscribers.broadcast(2, &state).await), (64, 0));
        (0..LARGE - 64).for_each(|key| subscribers.unsubscribe(SubscriberId(key)));
        assert_eq!(subscribers.len(), 64);
        assert_eq!(subscribers.broadcast(3, &state).await, 1, "all that are left belong to the last socket");
    }
}
