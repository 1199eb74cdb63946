//! The subscribers: those who are told every new state of one thing.
//!
//! A delivery goes over all members in chunks, one of which is written at once. Between two, everybody else has a
//! turn, and a large subscribers is shared by as many tasks as there are workers. They are tasks like all others: none
//! that waits for a lock or holds one is ever kept from going on by others that are more important. Members may come
//! and go during a delivery: whoever comes was told a state at least as new by their first message.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use slab::Slab;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet, yield_now};

use crate::protocol::frame::Frame;
use crate::sync::lock;
use crate::transport::writer::SocketWriter;

/// Members per chunk: about a millisecond of writing, which a worker may take from its other tasks.
const CHUNK: usize = 256;

/// The members.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Arc<Members>);

/// Joins, leaves and deliveries hold it for a chunk's length at most; writes happen outside. Keys are stable.
type Members = Mutex<Slab<Arc<SocketWriter>>>;

/// A member's place, to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriberId(usize);

/// One state on its way to all members.
#[derive(Debug)]
struct Delivery {
    members: Arc<Members>,
    /// The first member that nobody has taken over yet.
    next: AtomicUsize,
    seq: u64,
    state: Frame,
}

impl Subscribers {
    /// Takes a new member in. It must come before the member's first state is read, so that no
    /// newer one can pass unseen.
    pub(crate) fn enter(&self, writer: Arc<SocketWriter>) -> SubscriberId {
        SubscriberId(lock(&self.0).insert(writer))
    }

    /// Lets a member go.
    pub(crate) fn exit(&self, place: SubscriberId) {
        lock(&self.0).try_remove(place.0);
    }

    /// How many are told.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether nobody is told.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells every member the state `seq` and returns for how many it was news. One delivery at a
    /// time: its owner waits for the end of the last one.
    pub(crate) async fn deliver(&self, seq: u64, state: &Frame) -> u64 {
        let (members, next) = (Arc::clone(&self.0), AtomicUsize::new(0));
        let delivery = Arc::new(Delivery { members, next, seq, state: state.clone() });
        let chunks = self.len().div_ceil(CHUNK);
        let mut others = JoinSet::new();
        for _ in 1..chunks.min(Handle::current().metrics().num_workers()) {
            others.spawn(Arc::clone(&delivery).run());
        }
        let mut told = delivery.run().await;
        while let Some(ended) = others.join_next().await {
            match ended.map_err(JoinError::try_into_panic) {
                Ok(more) => told += more,
                Err(Ok(panic)) => resume_unwind(panic), // as if it were this task's own
                Err(Err(_)) => {}                       // the runtime ends
            }
        }
        told
    }
}

impl Delivery {
    /// Writes one chunk after another that no other task has taken over. Returns for how many it was news.
    async fn run(self: Arc<Self>) -> u64 {
        let mut told = 0;
        while let Some(chunk) = self.next_chunk() {
            told += chunk
                .into_iter()
                .map(|writer| u64::from(writer.send_state(self.seq, &self.state)))
                .sum::<u64>();
            if self.has_more() {
                yield_now().await;
            }
        }
        told
    }

    fn next_chunk(&self) -> Option<Vec<Arc<SocketWriter>>> {
        let from = self.next.fetch_add(CHUNK, Ordering::Relaxed);
        let members = lock(&self.members);
        let keys = from..members.capacity().min(from + CHUNK);
        (!keys.is_empty()).then(|| keys.filter_map(|key| members.get(key).cloned()).collect())
    }

    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < lock(&self.members).capacity()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LARGE: usize = 4_096;

    /// As large an subscribers as it takes, with few sockets.
    async fn large() -> (Subscribers, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (subscribers, mut peers) = (Subscribers::default(), Vec::new());
        for _ in 0..64 {
            peers.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let writer = Arc::new(SocketWriter::new(listener.accept().await.unwrap().0));
            writer.open(0, &Frame::json(&"welcome"));
            for _ in 0..LARGE / 64 {
                subscribers.enter(Arc::clone(&writer));
            }
        }
        (subscribers, peers)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_member_of_a_large_audience_is_told_once() {
        let (subscribers, peers) = large().await;
        let state = Frame::json(&"state");
        assert_eq!(tokio::spawn(async move { subscribers.deliver(1, &state).await }).await.unwrap(), 64);
        for mut peer in peers {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, [Frame::json(&"welcome").bytes(), Frame::json(&"state").bytes()].concat());
        }
    }

    #[tokio::test]
    async fn others_have_their_turns_during_a_delivery_to_a_large_audience() {
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
        assert_eq!(subscribers.deliver(1, &Frame::json(&"state")).await, 64);
        others.abort();
        assert!(turns.load(Ordering::Relaxed) >= LARGE / CHUNK - 1, "one after each chunk");
    }

    #[tokio::test]
    async fn member_who_is_told_already_is_no_news_and_one_who_left_is_not_told() {
        let (subscribers, _peers) = large().await;
        let state = Frame::json(&"state");
        assert_eq!((subscribers.deliver(2, &state).await, subscribers.deliver(2, &state).await), (64, 0));
        (0..LARGE - 64).for_each(|key| subscribers.exit(SubscriberId(key)));
        assert_eq!(subscribers.len(), 64);
        assert_eq!(subscribers.deliver(3, &state).await, 1, "all of them are of the last socket");
    }
}
