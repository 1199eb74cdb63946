//! The audience: those who are told every new state of one thing.
//!
//! A delivery goes over all members in chunks. One chunk is written at once. For a crowd, the thread
//! leaves its worker's other tasks to another one, so that the system shares the cores between them. A
//! large crowd is told by threads of its own on all cores, which give way to everybody else. Members
//! may come and go during a delivery: whoever comes was told a state at least as new by their first
//! message.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Builder};

use slab::Slab;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use super::outlet::Outlet;
use crate::sync::lock;
use crate::wire::frame::Frame;

/// Members per chunk: about a millisecond of writing, which a worker may take from its other tasks.
const CHUNK: usize = 256;

/// A crowd of at least two such shares is large. Each gets a thread, as long as there are cores. A share
/// is some ten milliseconds of writing; to make a thread takes a two hundredth of it.
const SHARE: usize = 2_048;

/// How nice (`sched(7)`) those threads are: whoever else wants a core gets it at once, and nine tenths of it.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// The members.
#[derive(Debug, Default)]
pub struct Audience(
    /// Joins, leaves and deliveries touch it for a chunk's length at most; writes happen outside.
    Mutex<Members>,
);

#[derive(Debug, Default)]
struct Members {
    outlets: Slab<Arc<Outlet>>,
    /// Where the running delivery goes on. Keys are stable, so it passes every member once.
    cursor: usize,
}

/// A member's place, to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

impl Audience {
    /// Takes a new member in. It must come before the member's first state is read, so that no
    /// newer one can pass unseen.
    pub fn enter(&self, outlet: Arc<Outlet>) -> Place {
        Place(lock(&self.0).outlets.insert(outlet))
    }

    /// Lets a member go.
    pub fn exit(&self, place: Place) {
        lock(&self.0).outlets.try_remove(place.0);
    }

    /// How many are told.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0).outlets.len()
    }

    /// Whether nobody is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells every member the state `seq` and returns for how many it was news. One delivery at a
    /// time: its owner waits for the end of the last one.
    pub fn deliver(&self, seq: u64, state: &Frame) -> u64 {
        lock(&self.0).cursor = 0;
        match self.len() {
            ..=CHUNK => self.deliver_chunks(seq, state),
            // Not a task that yields between chunks: it moves from core to core, which costs more than a thread.
            crowd => aside(|| match crowd / SHARE {
                ..=1 => self.deliver_chunks(seq, state),
                shares => self.deliver_by_threads(shares, seq, state),
            }),
        }
    }

    fn deliver_by_threads(&self, shares: usize, seq: u64, state: &Frame) -> u64 {
        let (cores, told) = (Handle::current().metrics().num_workers(), AtomicU64::new(0));
        let share = || {
            give_way();
            told.fetch_add(self.deliver_chunks(seq, state), Ordering::Relaxed);
        };
        thread::scope(|scope| {
            let spawn = |_| Builder::new().name("crowd".to_owned()).spawn_scoped(scope, share);
            (0..cores.min(shares)).map(spawn).take_while(Result::is_ok).for_each(drop);
        });
        // Nothing is left to do, unless the system had no thread to give.
        told.into_inner() + self.deliver_chunks(seq, state)
    }

    fn deliver_chunks(&self, seq: u64, state: &Frame) -> u64 {
        let mut told = 0;
        while let Some(chunk) = self.next_chunk() {
            told += chunk.into_iter().map(|outlet| u64::from(outlet.publish(seq, state))).sum::<u64>();
        }
        told
    }

    fn next_chunk(&self) -> Option<Vec<Arc<Outlet>>> {
        let mut members = lock(&self.0);
        let end = members.outlets.capacity();
        if members.cursor >= end {
            return None;
        }
        let keys = Range { start: members.cursor, end: end.min(members.cursor + CHUNK) };
        members.cursor = keys.end;
        Some(keys.filter_map(|key| members.outlets.get(key).cloned()).collect())
    }
}

/// Does long work on this thread, while another one looks after the worker's other tasks. Where tokio has but
/// one thread, as in tests, they wait.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => block_in_place(work),
    }
}

/// Makes this thread a nice one, for as long as it lives.
fn give_way() {
    // By thread on Linux only. It fails where the process is nicer already, which is as good.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_member_of_a_large_crowd_is_told_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (audience, mut peers) = (Audience::default(), Vec::new());
        for _ in 0..64 {
            peers.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let outlet = Arc::new(Outlet::new(listener.accept().await.unwrap().0, BytesMut::new()));
            outlet.open(0, &Frame::text(&"welcome"));
            // As large a crowd as it takes, with few sockets.
            for _ in 0..2 * SHARE / 64 {
                audience.enter(Arc::clone(&outlet));
            }
        }
        let state = Frame::text(&"state");
        assert_eq!(tokio::spawn(async move { audience.deliver(1, &state) }).await.unwrap(), 64);
        for mut peer in peers {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, [Frame::text(&"welcome").bytes(), Frame::text(&"state").bytes()].concat());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_gives_way_is_nicer_than_others() {
        use rustix::process::getpriority_process;
        let others = getpriority_process(None).unwrap();
        let nicer = thread::spawn(|| {
            give_way();
            getpriority_process(Some(rustix::thread::gettid())).unwrap()
        });
        assert_eq!(nicer.join().unwrap(), others.max(NICENESS));
        assert_eq!(getpriority_process(None).unwrap(), others);
    }
}
