//! The erasures of the log on this node: which events are dropped, and which erasures are not finished in the file.
//!
//! The flush task notes an erasure when it reads it, so that no later event of the log is stored or published that it
//! covers, and begins it when the position is in the file. The maintenance worker finishes it. The table
//! `erased_visitors` has both over restarts.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use super::command::{ErasedVisitor, ErasureKey, VisitorHash};
use crate::history::event::Batch;
use crate::protocol::{Time, VisitorId};
use crate::sync::lock;

/// How long events are dropped after an erasure, in milliseconds: 30 days. An event may be 7 days old when it arrives, a
/// node may have been away for three, and what it published may be imported later.
pub(crate) const KEEP_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// The most erasures that are known, in about 10 MB: beyond that, the oldest ones are forgotten.
pub(crate) const MOST: usize = 200_000;

/// An erasure in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoggedErasure {
    /// Who is erased.
    pub visitor: VisitorHash,
    /// The time of the last event that is erased.
    pub until: Time,
    /// The position of the command; none if this node has asked for it.
    pub position: Option<u64>,
}

/// The erasures. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Erasures(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    key: ErasureKey,
    /// Held for one message at most.
    state: Mutex<State>,
    /// Wakes the maintenance worker.
    due: Notify,
    /// Wakes what removes events from the log.
    to_clean: Notify,
    /// Changes when an erasure is finished.
    finished: watch::Sender<()>,
    /// Whether the erasures of the ledger are repeated: a file from a backup lacks them.
    is_repeated: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// The time of the last erased event, by visitor.
    erased: HashMap<VisitorHash, Time>,
    /// What the file still has.
    unfinished: BTreeMap<VisitorHash, LoggedErasure>,
}

impl Erasures {
    /// The erasures of a file: those that are finished and those that are not.
    pub(crate) fn new(
        key: ErasureKey,
        finished: impl IntoIterator<Item = LoggedErasure>,
        unfinished: impl IntoIterator<Item = LoggedErasure>,
    ) -> Self {
        let shared = Shared {
            key,
            state: Mutex::default(),
            due: Notify::new(),
            to_clean: Notify::new(),
            finished: watch::Sender::new(()),
            is_repeated: watch::Sender::new(false),
        };
        let erasures = Self(Arc::new(shared));
        for erasure in finished {
            erasures.note(erasure.visitor, erasure.until);
        }
        for erasure in unfinished {
            erasures.note(erasure.visitor, erasure.until);
            erasures.begin(erasure);
        }
        erasures
    }

    /// The key of the hashes.
    pub(crate) fn key(&self) -> &ErasureKey {
        &self.0.key
    }

    /// Drops the visitor's events up to a time from now on.
    pub(crate) fn note(&self, visitor: VisitorHash, until: Time) {
        let mut state = lock(&self.0.state);
        let known = state.erased.entry(visitor).or_insert(until);
        *known = until.max(*known);
        if state.erased.len() > MOST {
            let oldest = state.erased.iter().min_by_key(|(_, until)| **until).map(|(visitor, _)| *visitor);
            oldest.map(|oldest| state.erased.remove(&oldest));
        }
    }

    /// Whether an event of this time is erased.
    pub(crate) fn covers(&self, visitor: &VisitorId, time: Time) -> bool {
        let state = lock(&self.0.state);
        // Most clusters have none.
        !state.erased.is_empty()
            && state.erased.get(&self.0.key.hash(visitor.as_str())).is_some_and(|until| time <= *until)
    }

    /// Removes erased events. Returns how many.
    pub(crate) fn drop_from(&self, batch: &mut Batch) -> usize {
        batch.retain(|visitor, time| !self.covers(visitor, time))
    }

    /// All erasures, for commands that repeat them.
    pub(crate) fn all(&self) -> Vec<ErasedVisitor> {
        let state = lock(&self.0.state);
        state.erased.iter().map(|(visitor, until)| self.0.key.erasure(*visitor, *until)).collect()
    }

    /// Forgets erasures of before a time.
    pub(crate) fn forget(&self, before: Time) {
        lock(&self.0.state).erased.retain(|_, until| *until >= before);
    }

    /// The table has an erasure: the maintenance worker erases the visitor.
    pub(crate) fn begin(&self, erasure: LoggedErasure) {
        {
            let mut state = lock(&self.0.state);
            let known = state.unfinished.get(&erasure.visitor).map(|known| known.until);
            if known.is_none_or(|known| known < erasure.until) {
                state.unfinished.insert(erasure.visitor, erasure);
            }
        }
        self.0.due.notify_one();
        if erasure.position.is_none() {
            self.0.to_clean.notify_one();
        }
    }

    /// What is not finished.
    pub(crate) fn unfinished(&self) -> Vec<LoggedErasure> {
        lock(&self.0.state).unfinished.values().copied().collect()
    }

    /// The file has none of the erased events any more.
    pub(crate) fn finish(&self, erasure: &LoggedErasure) {
        {
            let mut state = lock(&self.0.state);
            if state.unfinished.get(&erasure.visitor).is_some_and(|known| known.until <= erasure.until) {
                state.unfinished.remove(&erasure.visitor);
            }
        }
        self.0.finished.send_replace(());
    }

    /// The position up to which all erasures are finished, of a file with this position.
    pub(crate) fn finished_up_to(&self, position: u64) -> u64 {
        let state = lock(&self.0.state);
        let first = state.unfinished.values().filter_map(|erasure| erasure.position).min();
        first.map_or(position, |first| position.min(first.saturating_sub(1)))
    }

    /// Waits until the file has none of a visitor's events up to a time.
    pub(crate) async fn until_finished(&self, visitor: VisitorHash, until: Time) {
        let is_finished = |(): &()| {
            lock(&self.0.state).unfinished.get(&visitor).is_none_or(|unfinished| unfinished.until < until)
        };
        // The sender is in `self`.
        let _ = self.0.finished.subscribe().wait_for(is_finished).await;
    }

    /// Waits until an erasure has begun.
    pub(crate) async fn due(&self) {
        self.0.due.notified().await;
    }

    /// Messages of the log have erased events.
    pub(crate) fn clean(&self) {
        self.0.to_clean.notify_one();
    }

    /// Waits until messages of the log may have erased events.
    pub(crate) async fn to_clean(&self) {
        self.0.to_clean.notified().await;
    }

    /// The erasures of the ledger are repeated, as far as that is possible now.
    pub(crate) fn set_repeated(&self) {
        self.0.is_repeated.send_replace(true);
    }

    /// Whether the erasures of the ledger are repeated.
    pub(crate) fn is_repeated(&self) -> bool {
        *self.0.is_repeated.borrow()
    }

    /// Waits until the erasures of the ledger are repeated.
    pub(crate) async fn until_repeated(&self) {
        // The sender is in `self`.
        let _ = self.0.is_repeated.subscribe().wait_for(|is_repeated| *is_repeated).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn events_up_to_the_erasure_are_dropped_and_later_ones_are_not() {
        let erasures = Erasures::new(ErasureKey::derive("t", "c"), [], []);
        let (ann, bob) = ("ann".try_into().unwrap(), "bob".try_into().unwrap());
        let hash = erasures.key().hash("ann");
        assert!(!erasures.covers(&ann, at(5)));
        erasures.note(hash, at(5));
        erasures.note(hash, at(3));
        assert!(
            erasures.covers(&ann, at(5)) && !erasures.covers(&ann, at(6)) && !erasures.covers(&bob, at(1))
        );
        assert_eq!(erasures.all(), [erasures.key().erasure(hash, at(5))]);
        erasures.forget(at(6));
        assert!(!erasures.covers(&ann, at(5)));
    }

    #[tokio::test]
    async fn position_with_all_erasures_finished_is_before_the_first_unfinished_one() {
        let erasures = Erasures::new(ErasureKey::derive("t", "c"), [], []);
        let of = |name: &str, until, position| LoggedErasure {
            visitor: erasures.key().hash(name),
            until: at(until),
            position,
        };
        let (ann, bob, own) = (of("ann", 1, Some(7)), of("bob", 1, Some(5)), of("cid", 1, None));
        assert_eq!(erasures.finished_up_to(9), 9);
        for erasure in [ann, bob, own] {
            erasures.begin(erasure);
        }
        erasures.due().await;
        erasures.to_clean().await;
        assert_eq!((erasures.finished_up_to(9), erasures.finished_up_to(3)), (4, 3));
        erasures.finish(&bob);
        assert_eq!(erasures.finished_up_to(9), 6);
        // Ann is erased again meanwhile.
        let again = of("ann", 2, Some(9));
        erasures.begin(again);
        erasures.finish(&ann);
        assert_eq!((erasures.finished_up_to(9), erasures.unfinished().len()), (8, 2));
        erasures.finish(&again);
        erasures.until_finished(again.visitor, at(2)).await;
        assert_eq!((erasures.finished_up_to(9), erasures.unfinished()), (9, vec![own]));
    }
}
