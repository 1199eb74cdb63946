//! Holds: visitors who count as present without a socket, each for a reason and until a deadline.
//!
//! A hold is data: the room's presence has it, and the index here has all of them by deadline, so that one task
//! per hub ends them. Whoever is back, or leaves, has no hold any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use strum::{EnumCount, EnumString, IntoStaticStr, VariantArray};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::protocol::{RoomId, VisitorId};

/// The length of a hold whose deadline the clock cannot represent: 30 years.
pub(super) const FAR: Duration = Duration::from_hours(24 * 365 * 30);

/// Why a visitor without a socket counts as present.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    EnumCount,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum HoldReason {
    /// The socket was lost a moment ago: a reload or a change of network is not seen by the others.
    Grace,
    /// The hub stopped: a restart is not seen either.
    Restart,
}

/// Why, and until when, a visitor without a socket counts as present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Until when: from this moment on the visitor is gone.
    pub deadline: Instant,
}

impl Hold {
    /// A hold that begins at `now` and is so long.
    #[must_use]
    pub(crate) fn new(reason: HoldReason, now: Instant, length: Duration) -> Self {
        Self { reason, deadline: now.checked_add(length).unwrap_or(now + FAR) }
    }

    /// Whether it has ended by `now`.
    #[must_use]
    pub(crate) fn is_over(self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// Of two holds of one visitor the one that lasts longer; of two that last as long, `self`.
    #[must_use]
    pub(crate) fn or_longer(self, other: Option<Self>) -> Self {
        other.filter(|other| other.deadline > self.deadline).unwrap_or(self)
    }
}

/// All holds of a hub by their deadlines.
#[derive(Debug, Default)]
pub(super) struct Holds {
    by_deadline: BTreeMap<(Instant, RoomId, VisitorId), HoldReason>,
    counts: [usize; HoldReason::COUNT],
    /// Rises with every change.
    version: u64,
    /// Told where a new hold ends before all others.
    sooner: Arc<Notify>,
}

impl Holds {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_deadline.len()
    }

    /// How many there are for each reason.
    pub(super) fn by_reason(&self) -> impl Iterator<Item = (HoldReason, usize)> {
        HoldReason::VARIANTS.iter().copied().zip(self.counts)
    }

    /// A number that is another one after each change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Is notified when the first deadline is sooner than it was.
    pub(super) fn sooner(&self) -> Arc<Notify> {
        Arc::clone(&self.sooner)
    }

    /// A visitor's hold in a room is another one than before.
    pub(super) fn change(
        &mut self,
        room: &RoomId,
        visitor: &VisitorId,
        before: Option<Hold>,
        after: Option<Hold>,
    ) {
        let key = |hold: Hold| (hold.deadline, room.clone(), visitor.clone());
        if let Some(hold) = before {
            let known = self.by_deadline.remove(&key(hold));
            self.count(known, |count| *count -= 1);
        }
        if let Some(hold) = after {
            let is_first = self.next().is_none_or(|first| hold.deadline < first);
            let known = self.by_deadline.insert(key(hold), hold.reason);
            self.count(known, |count| *count -= 1);
            self.count(Some(hold.reason), |count| *count += 1);
            if is_first {
                self.sooner.notify_one();
            }
        }
        self.version += 1;
    }

    /// Takes out the hold that ends first, where it is over by `now`.
    pub(super) fn take_over(&mut self, now: Instant) -> Option<(RoomId, VisitorId)> {
        self.next().filter(|deadline| *deadline <= now)?;
        let ((_, room, visitor), reason) = self.by_deadline.pop_first()?;
        self.count(Some(reason), |count| *count -= 1);
        self.version += 1;
        Some((room, visitor))
    }

    /// When the next one is over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_deadline.keys().next().map(|(deadline, ..)| *deadline)
    }

    /// Whether this hold is one of them.
    pub(super) fn has(&self, room: &RoomId, visitor: &VisitorId, hold: Hold) -> bool {
        let key = (hold.deadline, room.clone(), visitor.clone());
        self.by_deadline.get(&key) == Some(&hold.reason)
    }

    /// In which rooms this visitor is held.
    pub(super) fn rooms_of(&self, visitor: &VisitorId) -> Vec<RoomId> {
        let theirs = self.by_deadline.keys().filter(|(_, _, held)| held == visitor);
        theirs.map(|(_, room, _)| room.clone()).collect()
    }

    /// Forgets all of them: the audit tells them again.
    pub(super) fn clear(&mut self) {
        self.by_deadline.clear();
        self.counts = Default::default();
        self.version += 1;
    }

    fn count(&mut self, reason: Option<HoldReason>, change: impl FnOnce(&mut usize)) {
        let counts = HoldReason::VARIANTS.iter().copied().zip(&mut self.counts);
        if let Some((_, count)) = counts.into_iter().find(|(of, _)| reason == Some(*of)) {
            change(count);
        }
    }
}
