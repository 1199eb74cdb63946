//! Holds: visitors who count as present without a socket, for a reason and until a deadline.
//!
//! Plain data. A room's state has the holds of its visitors, and the [`HoldIndex`] has all holds by deadline, so that
//! one task of the hub can end them. A visitor who joins again or leaves has no hold any more.

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
    /// The socket was lost a moment ago. A reload or a change of network does not change the counts.
    Grace,
    /// The hub stopped. A restart does not change the counts either.
    Restart,
}

/// Why, and until when, a visitor without a socket counts as present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// The visitor is gone from this moment on.
    pub deadline: Instant,
}

impl Hold {
    /// A hold of this length that begins at `now`.
    pub(crate) fn new(reason: HoldReason, now: Instant, length: Duration) -> Self {
        Self { reason, deadline: now.checked_add(length).unwrap_or(now + FAR) }
    }

    /// Whether the deadline has passed.
    pub(crate) fn has_expired(self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// Of two holds of one visitor the one with the later deadline; `self` where they are equal.
    pub(crate) fn or_later(self, other: Option<Self>) -> Self {
        other.filter(|other| other.deadline > self.deadline).unwrap_or(self)
    }
}

/// All holds of a hub by deadline.
#[derive(Debug, Default)]
pub(super) struct HoldIndex {
    by_deadline: BTreeMap<(Instant, RoomId, VisitorId), HoldReason>,
    counts: [usize; HoldReason::COUNT],
    /// Rises with every change.
    version: u64,
    /// Notified when a new hold ends before all others.
    earlier: Arc<Notify>,
}

impl HoldIndex {
    /// The number of holds.
    pub(super) fn len(&self) -> usize {
        self.by_deadline.len()
    }

    /// The number of holds for each reason.
    pub(super) fn counts(&self) -> impl Iterator<Item = (HoldReason, usize)> {
        HoldReason::VARIANTS.iter().copied().zip(self.counts)
    }

    /// Rises with every change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Notified when the first deadline is earlier than it was.
    pub(super) fn earlier(&self) -> Arc<Notify> {
        Arc::clone(&self.earlier)
    }

    /// Replaces a visitor's hold in a room.
    pub(super) fn replace(
        &mut self,
        room: &RoomId,
        visitor: &VisitorId,
        old: Option<Hold>,
        new: Option<Hold>,
    ) {
        let key = |hold: Hold| (hold.deadline, room.clone(), visitor.clone());
        if let Some(hold) = old {
            let removed = self.by_deadline.remove(&key(hold));
            self.count(removed, |count| *count -= 1);
        }
        if let Some(hold) = new {
            let is_first = self.next_deadline().is_none_or(|first| hold.deadline < first);
            let replaced = self.by_deadline.insert(key(hold), hold.reason);
            self.count(replaced, |count| *count -= 1);
            self.count(Some(hold.reason), |count| *count += 1);
            if is_first {
                self.earlier.notify_one();
            }
        }
        self.version += 1;
    }

    /// Removes and returns the hold with the first deadline, if that has passed.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(RoomId, VisitorId)> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        let ((_, room, visitor), reason) = self.by_deadline.pop_first()?;
        self.count(Some(reason), |count| *count -= 1);
        self.version += 1;
        Some((room, visitor))
    }

    /// The first deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.keys().next().map(|(deadline, ..)| *deadline)
    }

    /// Whether the index has this hold.
    pub(super) fn contains(&self, room: &RoomId, visitor: &VisitorId, hold: Hold) -> bool {
        let key = (hold.deadline, room.clone(), visitor.clone());
        self.by_deadline.get(&key) == Some(&hold.reason)
    }

    /// The rooms in which this visitor has a hold.
    pub(super) fn rooms_of(&self, visitor: &VisitorId) -> Vec<RoomId> {
        let theirs = self.by_deadline.keys().filter(|(_, _, held)| held == visitor);
        theirs.map(|(_, room, _)| room.clone()).collect()
    }

    /// Removes all holds, before the audit adds the right ones.
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
