//! Holds and sits: visitors who count as present without a socket, for a reason and until a deadline.
//!
//! Plain data. A room's state has the holds and sits of its visitors, and the [`HoldIndex`] has all visitors by their
//! next deadline, so that one task of the hub can end them. A visitor who joins again or leaves has no hold any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use strum::{EnumCount, EnumString, IntoStaticStr, VariantArray};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::protocol::{RoomId, Time, VisitorId};
use crate::transport::SitPermit;

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
    /// The visitor sits, and the screen is locked: see [`Sit`].
    Sit,
    /// The node of the visitor's socket is silent.
    PeerLost,
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

/// A sit: a time over which a visitor stays present in a room if the socket is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sit {
    /// The sit is complete from this moment on.
    pub deadline: Instant,
    /// The deadline by the wall clock, as clients know it.
    pub until: Time,
    /// The latest `until` over all restarts of the hub. None before the first restart.
    pub latest: Option<Time>,
}

impl Sit {
    /// Its end by the wall clock, if that is not over.
    pub(crate) fn until_if_running(self, now: Instant) -> Option<Time> {
        (self.deadline > now).then_some(self.until)
    }
}

/// A sit with its permit, which counts it against the limits of sits.
#[derive(Debug)]
pub(crate) struct PermittedSit {
    /// The sit.
    pub sit: Sit,
    /// Released at the end of the sit. With none, a new end of a sit keeps the permit that it has.
    pub permit: Option<SitPermit>,
}

impl From<Sit> for Hold {
    fn from(sit: Sit) -> Self {
        Self { reason: HoldReason::Sit, deadline: sit.deadline }
    }
}

/// How many sits there were in a room. Both only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SitCounts {
    /// Sits that began. To set another end of a sit begins none.
    pub begun: u64,
    /// Sits that reached their end.
    pub completed: u64,
}

/// What becomes of a visitor's sit when the last session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SitOutcome {
    /// The visitor is held until its deadline.
    Holds,
    /// It goes on if the visitor joins again before the hold of the session ends.
    Waits,
    /// It ends.
    Ends,
}

/// The next deadline of a visitor in a room: of a hold or a sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// The moment.
    pub at: Instant,
    /// Why the visitor is held. None for a visitor with a socket.
    pub held: Option<HoldReason>,
}

/// All visitors of a hub who are held or sit, by their next deadline.
#[derive(Debug, Default)]
pub(super) struct HoldIndex {
    by_deadline: BTreeMap<(Instant, RoomId, VisitorId), Option<HoldReason>>,
    counts: [usize; HoldReason::COUNT],
    /// Rises with every change.
    version: u64,
    /// Notified when a new deadline is before all others.
    earlier: Arc<Notify>,
}

impl HoldIndex {
    /// The number of visitors who are held or sit, once for each room.
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

    /// Replaces a visitor's next deadline in a room.
    pub(super) fn replace(
        &mut self,
        room: &RoomId,
        visitor: &VisitorId,
        old: Option<Deadline>,
        new: Option<Deadline>,
    ) {
        let key = |deadline: Deadline| (deadline.at, room.clone(), visitor.clone());
        if let Some(deadline) = old {
            let removed = self.by_deadline.remove(&key(deadline));
            self.count(removed.flatten(), |count| *count -= 1);
        }
        if let Some(deadline) = new {
            let is_first = self.next_deadline().is_none_or(|first| deadline.at < first);
            let replaced = self.by_deadline.insert(key(deadline), deadline.held);
            self.count(replaced.flatten(), |count| *count -= 1);
            self.count(deadline.held, |count| *count += 1);
            if is_first {
                self.earlier.notify_one();
            }
        }
        self.version += 1;
    }

    /// Notes that something else has changed that is saved with the holds.
    pub(super) fn touch(&mut self) {
        self.version += 1;
    }

    /// Removes and returns the visitor with the first deadline, if that has passed.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(RoomId, VisitorId)> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        let ((_, room, visitor), reason) = self.by_deadline.pop_first()?;
        self.count(reason, |count| *count -= 1);
        self.version += 1;
        Some((room, visitor))
    }

    /// The first deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.keys().next().map(|(deadline, ..)| *deadline)
    }

    /// Whether the index has this deadline.
    pub(super) fn contains(&self, room: &RoomId, visitor: &VisitorId, deadline: Deadline) -> bool {
        let key = (deadline.at, room.clone(), visitor.clone());
        self.by_deadline.get(&key) == Some(&deadline.held)
    }

    /// The rooms in which this visitor is held or sits.
    pub(super) fn rooms_of(&self, visitor: &VisitorId) -> Vec<RoomId> {
        let theirs = self.by_deadline.keys().filter(|(_, _, held)| held == visitor);
        theirs.map(|(_, room, _)| room.clone()).collect()
    }

    /// Removes all deadlines, before the audit adds the right ones.
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
