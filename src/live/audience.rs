//! The audience: those who are told every new state of one thing.
//!
//! A delivery goes over all members in chunks. It yields between chunks, and where there are many
//! members, several tasks take chunks side by side: one for each core but one, which is left to
//! everybody else. Members may come and go during a delivery: whoever comes was told a state at least as
//! new by their first message.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use slab::Slab;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::outlet::Outlet;
use crate::sync::lock;
use crate::wire::frame::Frame;

/// Members per chunk: about a millisecond of writing between two yields.
const CHUNK: usize = 256;

/// A crowd from which on a delivery is worth more than one task.
const CROWD: usize = 4 * CHUNK;

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
        let workers = Handle::current().metrics().num_workers();
        let hands = if self.len() < CROWD { 1 } else { workers.saturating_sub(1) };
        let mut others = JoinSet::new();
        for _ in 1..hands {
            let (audience, state) = (self.clone(), state.clone());
            others.spawn(async move { audience.deliver_chunks(seq, &state).await });
        }
        let mut told = self.deliver_chunks(seq, state).await;
        while let Some(count) = others.join_next().await {
            told += count.unwrap_or_default();
        }
        told
    }

    async fn deliver_chunks(&self, seq: u64, state: &Frame) -> u64 {
        let mut told = 0;
        while let Some(chunk) = self.next_chunk() {
            told += chunk.iter().map(|outlet| u64::from(outlet.publish(seq, state))).sum::<u64>();
            tokio::task::yield_now().await;
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
