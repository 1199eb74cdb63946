//! Holds: visitors who count as present without a socket, each for a reason and until a deadline.
//!
//! A hold is data: the room's presence has it, and the index here has all of them by deadline, so that one task
//! per hub ends them. Whoever is back, or leaves, has no hold any more.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use strum::{EnumCount, EnumString, IntoStaticStr, VariantArray};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::registry::{JoinError, Person, Registry};
use super::state::{OccupancyChange, RoomState};
use super::table::Table;
use crate::protocol::{Mood, RoomId, VisitorId};
use crate::sync::lock;

/// Holds that are ended between two yields.
const CHUNK: usize = 64;

/// Where a hold is to last for longer than the clock can count.
const FAR: Duration = Duration::from_hours(24 * 365 * 30);

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
pub enum Reason {
    /// The socket was lost a moment ago: a reload or a change of network is not seen by the others.
    Grace,
    /// The hub stopped: a restart is not seen either.
    Restart,
}

/// Why, and until when, a visitor without a socket counts as present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    /// Why.
    pub reason: Reason,
    /// Until when: from this moment on the visitor is gone.
    pub deadline: Instant,
}

impl Hold {
    /// A hold that begins at `now` and is so long.
    #[must_use]
    pub(crate) fn new(reason: Reason, now: Instant, length: Duration) -> Self {
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
    by_deadline: BTreeMap<(Instant, RoomId, VisitorId), Reason>,
    counts: [usize; Reason::COUNT],
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
    pub(super) fn by_reason(&self) -> impl Iterator<Item = (Reason, usize)> {
        Reason::VARIANTS.iter().copied().zip(self.counts)
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

    fn count(&mut self, reason: Option<Reason>, change: impl FnOnce(&mut usize)) {
        let counts = Reason::VARIANTS.iter().copied().zip(&mut self.counts);
        if let Some((_, count)) = counts.into_iter().find(|(of, _)| reason == Some(*of)) {
            change(count);
        }
    }
}

impl Registry {
    /// Holds `visitor`, who was here before this hub began. Whoever is here is left as they are.
    ///
    /// # Errors
    /// There is no place.
    pub(crate) fn hold(
        &self,
        room: &RoomId,
        visitor: &VisitorId,
        mood: Option<Mood>,
        hold: Hold,
    ) -> Result<(), JoinError> {
        let mut table = lock(&self.table);
        self.find_room(&table, room, visitor)?;
        let now = self.now();
        let room = table.open(room, || self.new_room(room, now));
        table.step(&room, visitor, now, |presence| presence.hold(visitor, mood, hold));
        Ok(())
    }

    /// The hub ends: whoever is lost from now on is held for the next one, which knows until when.
    pub(crate) fn begin_restart(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Ends the holds of a visitor in all rooms, as when they leave.
    pub(crate) fn release(&self, visitor: &VisitorId) {
        let mut table = lock(&self.table);
        for room in table.holds.rooms_of(visitor) {
            self.step_held(&mut table, &room, visitor, |presence| presence.release(visitor, Instant::now()));
        }
    }

    /// Ends the hold whose deadline is first, where it is over by `now`; or else says when that is.
    pub(super) fn end_hold(&self, now: Instant) -> ControlFlow<Option<Instant>> {
        let mut table = lock(&self.table);
        let Some((room, visitor)) = table.holds.take_over(now) else {
            return ControlFlow::Break(table.holds.next());
        };
        self.step_held(&mut table, &room, &visitor, |presence| presence.expire(&visitor, now));
        ControlFlow::Continue(())
    }

    fn step_held(
        &self,
        table: &mut Table,
        room: &RoomId,
        visitor: &VisitorId,
        step: impl FnOnce(&mut RoomState) -> OccupancyChange,
    ) {
        if let Some(room) = table.rooms.get(room).cloned() {
            table.step(&room, visitor, self.now(), step);
        }
    }

    /// Everybody who is in a room without a socket, in no order.
    #[must_use]
    pub(crate) fn held(&self) -> Vec<Person> {
        self.people_who(|visitor| visitor.hold().is_some())
    }

    /// How many are held, by the reason: a visitor counts once for each room.
    #[must_use]
    pub(crate) fn holds(&self) -> Vec<(Reason, usize)> {
        lock(&self.table).holds.by_reason().collect()
    }

    /// A number that is another one whenever somebody else is held, or the same for longer.
    #[must_use]
    pub(crate) fn holds_version(&self) -> u64 {
        lock(&self.table).holds.version()
    }
}

/// Ends each hold at its deadline, for as long as it is polled.
pub(crate) async fn run(registry: &Registry) {
    let sooner = lock(&registry.table).holds.sooner();
    loop {
        let next = end_all_over(registry).await.unwrap_or_else(|| Instant::now() + FAR);
        tokio::select! {
            () = sleep_until(next) => {}
            () = sooner.notified() => {}
        }
    }
}

/// Ends the holds that are over by now, and says when the next one is.
pub(crate) async fn end_all_over(registry: &Registry) -> Option<Instant> {
    let mut ended = 0;
    loop {
        match registry.end_hold(Instant::now()) {
            ControlFlow::Continue(()) => ended += 1,
            ControlFlow::Break(next) => return next,
        }
        if ended % CHUNK == 0 {
            yield_now().await;
        }
    }
}
