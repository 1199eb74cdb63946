//! HoldStore: holds go into the database with the flush and at the end, and come back at the next start.
//!
//! So a deploy is not seen in the counts: whoever was here is still here when the new hub opens, and is
//! counted out at the deadline that they had before. Here both wings meet, and know nothing of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::history::Store;
use crate::history::store::SavedHold;
use crate::presence::{Hold, HoldReason, Occupant, Registry, expiry};
use crate::time::{Clock, millis};

/// What brings holds to disk and back.
#[derive(Debug)]
pub(crate) struct HoldStore {
    /// Who is held.
    pub registry: Arc<Registry>,
    /// Where it is kept.
    pub store: Store,
    /// Deadlines are kept in wall time.
    pub clock: Clock,
    /// How long whoever was here at a stop is held; nothing is kept where it is zero.
    pub seat_hold: Duration,
    /// How long whoever was lost is held.
    pub leave_grace: Duration,
}

impl HoldStore {
    /// Holds those whom the last hub has saved, each until their deadline. Nobody has come yet. Returns which
    /// version of the holds is in the database now, where it is the right one.
    pub(crate) async fn restore(&self) -> Option<u64> {
        let seats = match self.store.saved_holds().await {
            Ok(seats) => seats,
            Err(error) => {
                warn!(%error, "cannot read who was here before: everybody is counted anew");
                return None;
            }
        };
        let (now, wall) = (Instant::now(), self.clock.wall());
        let held = seats.iter().flatten().filter(|seat| {
            let Ok(reason) = seat.reason.parse::<HoldReason>() else { return false };
            let left = Duration::from_millis(seat.held_until.millis().saturating_sub(wall.millis()));
            let mood = seat.mood.as_ref().and_then(|name| self.registry.vocabulary().find(name));
            // Where the wall clock was set back, nobody is held for longer than they should be.
            let left = left.min(self.longest(reason));
            let hold = Hold::new(reason, now, left);
            !left.is_zero() && self.registry.hold(&seat.room, &seat.visitor, mood, hold).is_ok()
        });
        let held = held.count();
        if held > 0 {
            info!(seats = held, "holding those who were here before");
        }
        if held == seats.len() {
            return Some(self.registry.holds_version());
        }
        self.save_changes(None).await
    }

    /// Saves at each interval who is held, where that has changed since `saved`, for as long as it is polled.
    pub(crate) async fn keep_saved(&self, mut saved: Option<u64>, flush_interval: Duration) {
        let mut ticks = interval(flush_interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await; // the first is now
        loop {
            ticks.tick().await;
            expiry::expire_due(&self.registry).await;
            saved = self.save_changes(saved).await;
        }
    }

    /// Saves who is held, unless this version is saved already, and returns the version that is.
    async fn save_changes(&self, saved: Option<u64>) -> Option<u64> {
        // Read before the holds are: a change in between is saved the next time.
        let version = self.registry.holds_version();
        if saved == Some(version) {
            return saved;
        }
        let held =
            || self.seats(if self.seat_hold.is_zero() { Vec::new() } else { self.registry.held_occupants() });
        match self.store.save_holds(held).await {
            Ok(()) => Some(version),
            Err(error) => {
                warn!(%error, "cannot save who is held: tried again after the flush interval");
                saved
            }
        }
    }

    /// Everybody who is here when the hub stops: whoever has no socket until the deadline that they have already.
    #[must_use]
    pub(crate) fn at_stop(&self) -> Vec<SavedHold> {
        self.seats(if self.seat_hold.is_zero() { Vec::new() } else { self.registry.occupants() })
    }

    /// Saves these for the next start, and no others.
    pub(crate) async fn save(&self, seats: Vec<SavedHold>) {
        let count = seats.len();
        match self.store.save_holds(|| seats).await {
            Ok(()) if count == 0 => {}
            Ok(()) => info!(seats = count, "saved who was here, for the next start"),
            Err(error) => warn!(%error, "cannot save who was here: the next start counts everybody anew"),
        }
    }

    fn seats(&self, people: Vec<Occupant>) -> Vec<SavedHold> {
        let (now, wall) = (Instant::now(), self.clock.wall());
        let seat = |Occupant { room, visitor, mood, hold }| {
            let mood = mood.and_then(|mood| self.registry.vocabulary().name(mood)).map(str::to_owned);
            let (reason, left) = match hold {
                None => (HoldReason::Restart, Duration::MAX),
                Some(Hold { reason, deadline }) => (reason, deadline.saturating_duration_since(now)),
            };
            // Whoever had a socket when the hub stopped has all of it; whoever was held already, what is left.
            let held_until = wall.plus(millis(left.min(self.longest(reason))));
            SavedHold { room, visitor, mood, reason: <&str>::from(reason).to_owned(), held_until }
        };
        people.into_iter().map(seat).collect()
    }

    fn longest(&self, reason: HoldReason) -> Duration {
        if self.seat_hold.is_zero() {
            return Duration::ZERO;
        }
        match reason {
            HoldReason::Grace => self.leave_grace,
            HoldReason::Restart => self.seat_hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::panics::Panics;
    use crate::presence;
    use crate::protocol::{RoomId, VisitorId};

    #[tokio::test]
    async fn hub_in_which_nobody_is_held_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hub.db");
        let store = Store::open(&format!("sqlite://{}", file.display())).await.unwrap();
        let clock = Clock::system();
        let metrics = presence::metrics::PresenceMetrics::register(&Panics::register());
        let registry = Registry::new(presence::Config::default(), clock.clone(), metrics);
        let (seat_hold, leave_grace) = (Duration::from_mins(1), Duration::from_mins(1));
        let seats = HoldStore { registry: Arc::clone(&registry), store, clock, seat_hold, leave_grace };
        // Every commit adds to the write-ahead log.
        let log = || fs::read(folder.path().join("hub.db-wal")).unwrap();
        let (room, ann) = (RoomId::try_from("lobby").unwrap(), VisitorId::try_from("ann").unwrap());
        let hold = |reason| Hold::new(reason, Instant::now(), Duration::from_mins(1));

        let before = log();
        let mut saved = seats.restore().await;
        saved = seats.save_changes(saved).await;
        // Somebody who is back before anything is saved costs nothing either.
        registry.hold(&room, &ann, None, hold(HoldReason::Grace)).unwrap();
        registry.release(&ann);
        saved = seats.save_changes(saved).await;
        assert!(log() == before);

        registry.hold(&room, &ann, None, hold(HoldReason::Grace)).unwrap();
        saved = seats.save_changes(saved).await;
        let with_ann = log();
        assert!(with_ann != before);
        saved = seats.save_changes(saved).await;
        assert!(log() == with_ann, "what is saved is not saved again");
        registry.release(&ann);
        saved = seats.save_changes(saved).await;
        let without = log();
        assert!(without != with_ann);
        seats.save_changes(saved).await;
        assert!(log() == without);
        assert_eq!(seats.store.saved_holds().await.unwrap(), []);
    }
}
