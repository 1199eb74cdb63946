//! The audience: those who are told every new state of one thing.
//!
//! A delivery goes over all members in chunks. One chunk is written at once. A crowd is told by
//! threads of its own, so that the system shares the cores between them and everybody else; a large
//! crowd by one for each core but one, which is left to the others. Members may come and go during a
//! delivery: whoever comes was told a state at least as new by their first message.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use slab::Slab;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::outlet::Outlet;
use crate::sync::lock;
use crate::wire::frame::Frame;

/// Members per chunk: about a millisecond of writing, which a worker may take from its other tasks.
const CHUNK: usize = 256;

/// From so many members on, each so many get a thread: about ten milliseconds of writing.
const SHARE: usize = 2_048;

/// The members. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Audience(
    /// Joins, leaves and deliveries touch it for a chunk's length at most; writes happen outside.
    Arc<Mutex<Members>>,
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
    pub async fn deliver(&self, seq: u64, state: &Frame) -> u64 {
        lock(&self.0).cursor = 0;
        let crowd = self.len();
        if crowd <= CHUNK {
            return self.deliver_chunks(seq, state);
        }
        // Not tasks: to yield between chunks moves a task from core to core, which costs more than a thread.
        let cores = Handle::current().metrics().num_workers();
        let mut threads = JoinSet::new();
        for _ in 0..(crowd / SHARE).min(cores - 1).max(1) {
            let (audience, state) = (self.clone(), state.clone());
            threads.spawn_blocking(move || audience.deliver_chunks(seq, &state));
        }
        threads.join_all().await.into_iter().sum()
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
