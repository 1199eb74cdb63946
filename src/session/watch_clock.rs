//! The watch clock: how long each watch session has played, as the hub itself measures it.
//!
//! Time runs while a socket is open and the newest state told is `playing`. A clock belongs to the
//! watch session, not to the socket: a client that lost its socket and comes back goes on where it was,
//! and two sockets that play the same session count once. Pure but for the lock around the table.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use uuid::Uuid;

use crate::sync::lock;
use crate::wire::{SessionId, Time, WatchState};

/// How long a clock that stands still is kept for its client to come back.
const KEPT_IDLE: Duration = Duration::from_hours(1);

/// The most clocks there are. A watch session beyond them is stored with its client's time alone.
const CLOCKS_LIMIT: usize = 100_000;

/// The clocks of all watch sessions that were heard of lately.
#[derive(Debug, Default)]
pub struct WatchClocks(
    /// O(1) steps, and one pass a minute over what is bounded by [`CLOCKS_LIMIT`].
    Mutex<HashMap<Uuid, WatchClock>>,
);

#[derive(Debug, Default)]
struct WatchClock {
    /// Time played until `since`.
    banked: Duration,
    /// The socket on which it plays, and since when.
    playing: Option<(SessionId, Duration)>,
    /// The newest state that was told: final or not, and when it was so by the client.
    newest: Option<(bool, Time)>,
    /// When it was last heard of.
    heard: Duration,
}

impl WatchClock {
    fn total(&self, now: Duration) -> Duration {
        let running = self.playing.map_or(Duration::ZERO, |(_, since)| now.saturating_sub(since));
        self.banked + running
    }

    fn tell(&mut self, session: SessionId, state: WatchState, at: Time, now: Duration) {
        self.heard = now;
        let told = (state == WatchState::Ended, at);
        let was_final = self.newest.is_some_and(|(is_final, _)| is_final);
        if was_final || self.newest.is_some_and(|newest| newest > told) {
            return; // `ended` is final, and what came late is old news
        }
        self.newest = Some(told);
        self.stop(now);
        self.playing = (state == WatchState::Playing).then_some((session, now));
    }

    fn stop(&mut self, now: Duration) {
        self.banked = self.total(now);
        self.playing = None;
    }
}

impl WatchClocks {
    /// How long `id` has played until `now`, a time of the monotonic clock.
    #[must_use]
    pub fn total(&self, id: Uuid, now: Duration) -> Duration {
        lock(&self.0).get(&id).map_or(Duration::ZERO, |clock| clock.total(now))
    }

    /// A message on `session` told that `id` was in `state` from `at` on. Says whether it plays on
    /// this socket now.
    pub fn tell(&self, session: SessionId, id: Uuid, (state, at): (WatchState, Time), now: Duration) -> bool {
        let mut clocks = lock(&self.0);
        if clocks.len() >= CLOCKS_LIMIT && !clocks.contains_key(&id) {
            return state == WatchState::Playing;
        }
        let clock = clocks.entry(id).or_default();
        clock.tell(session, state, at, now);
        clock.playing.is_some_and(|(playing_on, _)| playing_on == session)
    }

    /// The socket of `session` is gone: if `id` played on it, it no longer does. Returns how long it
    /// has played, in this case.
    pub fn lose(&self, session: SessionId, id: Uuid, now: Duration) -> Option<Duration> {
        let mut clocks = lock(&self.0);
        let clock = clocks.get_mut(&id)?;
        clock.playing.filter(|(playing_on, _)| *playing_on == session)?;
        clock.stop(now);
        clock.heard = now;
        Some(clock.banked)
    }

    /// Drops the clocks that have stood still for an hour.
    pub fn forget_idle(&self, now: Duration) {
        let mut clocks = lock(&self.0);
        clocks.retain(|_, clock| clock.playing.is_some() || now.saturating_sub(clock.heard) < KEPT_IDLE);
        clocks.shrink_to_fit();
    }

    /// How many clocks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WatchState::{Ended, Paused, Playing};

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn told(state: WatchState, seconds: u64) -> (WatchState, Time) {
        (state, Time::from_millis(seconds * 1000))
    }

    #[test]
    fn pauses_do_not_count() {
        let (clocks, id, session) = (WatchClocks::default(), Uuid::new_v4(), SessionId::new());
        clocks.tell(session, id, told(Playing, 0), at(0));
        clocks.tell(session, id, told(Paused, 10), at(10));
        clocks.tell(session, id, told(Playing, 15), at(15));
        assert_eq!(clocks.total(id, at(22)), at(17));
        clocks.tell(session, id, told(Ended, 22), at(22));
        clocks.tell(session, id, told(Playing, 23), at(23)); // ended is final
        assert_eq!(clocks.total(id, at(99)), at(17));
    }

    #[test]
    fn a_lost_socket_stops_the_time_and_another_goes_on() {
        let (clocks, id) = (WatchClocks::default(), Uuid::new_v4());
        let (first, second) = (SessionId::new(), SessionId::new());
        clocks.tell(first, id, told(Playing, 0), at(0));
        assert_eq!(clocks.lose(first, id, at(10)), Some(at(10)));
        assert_eq!(clocks.lose(first, id, at(12)), None);
        clocks.tell(second, id, told(Playing, 20), at(20));
        assert_eq!(clocks.total(id, at(25)), at(15));
    }

    #[test]
    fn two_sockets_that_play_the_same_count_once() {
        let (clocks, id) = (WatchClocks::default(), Uuid::new_v4());
        let (first, second) = (SessionId::new(), SessionId::new());
        clocks.tell(first, id, told(Playing, 0), at(0));
        clocks.tell(second, id, told(Playing, 5), at(5)); // the first is half dead and not yet found out
        assert_eq!(clocks.lose(first, id, at(30)), None);
        assert_eq!(clocks.total(id, at(31)), at(31));
    }

    #[test]
    fn old_news_changes_nothing() {
        let (clocks, id, session) = (WatchClocks::default(), Uuid::new_v4(), SessionId::new());
        clocks.tell(session, id, told(Playing, 0), at(0));
        clocks.tell(session, id, told(Paused, 10), at(10));
        assert!(!clocks.tell(session, id, told(Playing, 0), at(11))); // sent again
        assert_eq!(clocks.total(id, at(60)), at(10));
    }

    #[test]
    fn idle_clocks_are_forgotten_and_playing_ones_kept() {
        let (clocks, session) = (WatchClocks::default(), SessionId::new());
        let (playing, paused) = (Uuid::new_v4(), Uuid::new_v4());
        clocks.tell(session, playing, told(Playing, 0), at(0));
        clocks.tell(session, paused, told(Paused, 0), at(0));
        clocks.forget_idle(at(3_599));
        assert_eq!(clocks.len(), 2);
        clocks.forget_idle(at(3_600));
        assert_eq!((clocks.len(), clocks.total(playing, at(3_600))), (1, at(3_600)));
    }
}
