//! Saving and restoring holds and sits, so that a restart of the hub does not change the counts.
//!
//! Holds are saved with the flush and at shutdown. At the next start, visitors who were present are held until they are
//! back or their deadline passes. The time between a stop in order and the next start does not count, up to a limit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::history::Store;
use crate::history::store::SavedHold;
use crate::presence::{Hold, HoldReason, Occupant, PermittedSit, Registry, Sit, expiry};
use crate::protocol::Time;
use crate::sync::lock;
use crate::time::{Clock, millis};
use crate::transport::Sockets;

/// How much later than by its first deadline a hold may end because the hub was away, over all restarts.
const AWAY_LIMIT: Duration = Duration::from_mins(5);

/// Saves the holds of a registry in the database, and restores them.
#[derive(Debug)]
pub(crate) struct HoldStore {
    /// The registry with the holds.
    pub registry: Arc<Registry>,
    /// The limits of sits.
    pub sockets: Arc<Sockets>,
    /// The database.
    pub store: Store,
    /// The clock: saved deadlines are wall time.
    pub clock: Clock,
    /// How long visitors are held after a stop. If it is zero, nothing is saved or restored.
    pub seat_hold: Duration,
    /// How long visitors are held after their connection was lost.
    pub leave_grace: Duration,
    /// The longest sit.
    pub sit_limit: Duration,
    /// The latest deadlines of the restored holds, by their deadlines. Held for short scans.
    pub latest: Mutex<BTreeMap<Instant, Time>>,
}

impl HoldStore {
    /// Restores the saved holds with the time that they have left. Call it right before the first session. Returns the
    /// registry's version of the holds if the database has that version, else none.
    pub(crate) async fn restore(&self) -> Option<u64> {
        let saved = match self.store.saved_holds().await {
            Ok(saved) => saved,
            Err(error) => {
                warn!(%error, "cannot restore holds: counts start at 0");
                return None;
            }
        };
        let (now, wall) = (Instant::now(), self.clock.wall());
        let restored = saved.iter().flatten().filter(|saved| self.restore_one(saved, now, wall));
        let restored = restored.count();
        if restored > 0 {
            info!(holds = restored, "restored holds: visitors of the last run count as present");
        }
        // From now on the time counts.
        saved.is_empty().then(|| self.registry.holds_version())
    }

    /// Restores a visitor with the time that is left. Returns false if there is none, or no room for the visitor.
    fn restore_one(&self, saved: &SavedHold, now: Instant, wall: Time) -> bool {
        let Ok(reason) = saved.reason.parse::<HoldReason>() else { return false };
        // If the wall clock was set back, the saved deadline is too late.
        let left = |until: Time, latest: Time, reason| {
            // In a cluster the time counts: other nodes have ended these holds when it was over.
            let stopped = saved.stopped_at.filter(|_| !self.registry.is_clustered()).unwrap_or(wall);
            between(stopped, until).min(between(wall, latest)).min(self.max_length(reason))
        };
        let sit = saved.sit_until.map(|until| {
            let latest = saved.sit_latest.unwrap_or(until);
            let left = left(until, latest, HoldReason::Sit);
            Sit { deadline: now + left, until: wall.plus(millis(left)), latest: Some(latest) }
        });
        // Its address is not known any more.
        let permitted =
            |sit| Some(PermittedSit { sit, permit: Some(self.sockets.admit_sit(None, None).ok()?) });
        let sit = sit.filter(|sit| sit.deadline > now).and_then(permitted);
        let hold = Hold::new(reason, now, left(saved.held_until, saved.latest, reason));
        if reason == HoldReason::Sit && sit.is_none() {
            return false;
        }
        if reason != HoldReason::Sit {
            lock(&self.latest)
                .entry(hold.deadline)
                .and_modify(|latest| *latest = saved.latest.min(*latest))
                .or_insert(saved.latest);
        }
        let mood = saved.mood.as_ref().and_then(|name| self.registry.vocabulary().find(name));
        // A join on another node since then has ended the hold. After a crash the earliest moment is taken.
        let begun = || saved.held_until.minus(millis(self.max_length(reason)));
        let since = Some(saved.stopped_at.unwrap_or_else(begun));
        let restore = || self.registry.restore(&saved.room, &saved.visitor, mood, (hold, sit), since);
        !hold.has_expired(now) && restore().is_ok()
    }

    /// Ends expired holds and saves the others, now and at each interval, if they have changed since version `saved`. Runs
    /// until it is dropped.
    pub(crate) async fn keep_saved(&self, mut saved: Option<u64>, flush_interval: Duration) {
        let mut ticks = interval(flush_interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await; // the first tick is immediate
            expiry::expire_due(&self.registry).await;
            saved = self.save_changes(saved).await;
        }
    }

    /// Saves the holds unless the database has this version already. Returns the version in the database.
    async fn save_changes(&self, saved: Option<u64>) -> Option<u64> {
        // Read before the holds: a change in between is saved the next time.
        let version = self.registry.holds_version();
        if saved == Some(version) {
            return saved;
        }
        let now = Instant::now();
        lock(&self.latest).retain(|deadline, _| *deadline > now);
        match self.store.save_holds(|| self.to_saved(self.registry.lasting_occupants(), None)).await {
            Ok(()) => Some(version),
            Err(error) => {
                warn!(%error, "cannot save holds: the next try is after the flush interval");
                saved
            }
        }
    }

    /// Returns a hold for every visitor who is present when the hub stops. Those who are held already keep the time that
    /// they have left.
    pub(crate) fn at_stop(&self) -> Vec<SavedHold> {
        self.to_saved(self.registry.occupants(), Some(self.clock.wall()))
    }

    /// Replaces the saved holds with these.
    pub(crate) async fn save(&self, holds: Vec<SavedHold>) {
        let count = holds.len();
        match self.store.save_holds(|| holds).await {
            Ok(()) if count == 0 => {}
            Ok(()) => info!(holds = count, "saved holds for the next start"),
            Err(error) => warn!(%error, "cannot save holds: after the next start, counts start at 0"),
        }
    }

    fn to_saved(&self, occupants: Vec<Occupant>, stopped_at: Option<Time>) -> Vec<SavedHold> {
        if self.seat_hold.is_zero() {
            return Vec::new();
        }
        let (now, wall) = (Instant::now(), stopped_at.unwrap_or_else(|| self.clock.wall()));
        let restored = lock(&self.latest).clone();
        let to_saved = |occupant: Occupant| {
            let Occupant { room, visitor, mood, has_socket, hold, sit, sit_holds } = occupant;
            // What is over may not have been ended yet: the database may have kept this waiting.
            let hold = hold.filter(|hold| !hold.has_expired(now));
            let sit = sit.filter(|sit| sit.deadline > now);
            let mood = mood.and_then(|mood| self.registry.vocabulary().name(mood)).map(str::to_owned);
            let first_stop = hold.and_then(|hold| restored.get(&hold.deadline).copied());
            // A visitor with a socket gets the whole seat hold when the hub stops. After a crash, only a sit holds them.
            let at_stop = Hold::new(HoldReason::Restart, now, Duration::MAX);
            let hold = hold.or_else(|| stopped_at.filter(|_| has_socket).map(|_| at_stop));
            let until = |hold: Hold| {
                let left = hold.deadline.saturating_duration_since(now);
                wall.plus(millis(left.min(self.max_length(hold.reason))))
            };
            let away = |until: Time| until.plus(millis(AWAY_LIMIT));
            let sit_until = sit.map(|sit| until(sit.into()));
            let sit_latest = sit.and_then(|sit| sit.latest).or(sit_until.map(away));
            let by_hold = hold.map(|hold| (until(hold), hold.reason, first_stop));
            let by_sit = sit_until.filter(|_| sit_holds).map(|until| (until, HoldReason::Sit, sit_latest));
            // Of two the later one applies.
            let (held_until, reason, latest) =
                by_sit.into_iter().chain(by_hold).max_by_key(|(until, ..)| *until)?;
            let (latest, reason) =
                (latest.unwrap_or_else(|| away(held_until)), <&str>::from(reason).to_owned());
            Some(SavedHold {
                room,
                visitor,
                mood,
                reason,
                held_until,
                stopped_at,
                latest,
                sit_until,
                sit_latest,
            })
        };
        occupants.into_iter().filter_map(to_saved).collect()
    }

    /// Returns the maximum length of a hold.
    fn max_length(&self, reason: HoldReason) -> Duration {
        if self.seat_hold.is_zero() {
            return Duration::ZERO;
        }
        match reason {
            HoldReason::Grace => self.leave_grace,
            HoldReason::Restart => self.seat_hold,
            HoldReason::Sit => self.sit_limit,
            HoldReason::PeerLost => Duration::ZERO, // only of visitors of other nodes, which are not saved
        }
    }
}

/// The time from one moment to another; zero if the other is not later.
fn between(from: Time, to: Time) -> Duration {
    Duration::from_millis(to.millis().saturating_sub(from.millis()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::panics::Panics;
    use crate::protocol::{RoomId, VisitorId};
    use crate::rejections::Rejections;
    use crate::transport::metrics::TransportMetrics;
    use crate::{presence, transport};

    #[tokio::test]
    async fn unchanged_holds_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hub.db");
        let store = Store::open(&format!("sqlite://{}", file.display())).await.unwrap();
        let clock = Clock::system();
        let metrics = presence::metrics::PresenceMetrics::register(&Panics::register());
        let registry = Registry::new(presence::Config::default(), clock.clone(), metrics);
        let metrics = TransportMetrics::register(Rejections::register(), Panics::register());
        let sockets = Sockets::new(&transport::Config::default(), clock.clone(), metrics);
        let (seat_hold, leave_grace) = (Duration::from_mins(1), Duration::from_mins(1));
        let holds = HoldStore {
            registry: Arc::clone(&registry),
            sockets,
            store,
            clock,
            seat_hold,
            leave_grace,
            sit_limit: Duration::ZERO,
            latest: Mutex::default(),
        };
        // Every commit appends to the write-ahead log.
        let log = || fs::read(folder.path().join("hub.db-wal")).unwrap();
        let (room, ann) = (RoomId::try_from("lobby").unwrap(), VisitorId::try_from("ann").unwrap());
        let hold = |reason| Hold::new(reason, Instant::now(), Duration::from_mins(1));

        let before = log();
        let mut saved = holds.restore().await;
        saved = holds.save_changes(saved).await;
        // A hold that ends before it is saved is not written.
        registry.add_held(&room, &ann, None, hold(HoldReason::Grace), None).unwrap();
        registry.release(&ann);
        saved = holds.save_changes(saved).await;
        assert!(log() == before);

        registry.add_held(&room, &ann, None, hold(HoldReason::Grace), None).unwrap();
        saved = holds.save_changes(saved).await;
        let with_ann = log();
        assert!(with_ann != before);
        saved = holds.save_changes(saved).await;
        assert!(log() == with_ann, "the same version is not written again");
        registry.release(&ann);
        saved = holds.save_changes(saved).await;
        let without = log();
        assert!(without != with_ann);
        holds.save_changes(saved).await;
        assert!(log() == without);
        assert_eq!(holds.store.saved_holds().await.unwrap(), []);
    }
}
