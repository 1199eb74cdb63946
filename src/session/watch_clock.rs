//! Watch clocks: how long each watch session has played, as the hub itself measures it.
//!
//! A clock runs while a socket is open and the newest reported state is `playing`. It belongs to the watch session of a
//! visitor in a room and not to the socket: a client that reconnects continues the same clock, two sockets that play the
//! same session count once, and another visitor who reports its id has another clock. The number of clocks has a limit, at which the address with the most clocks loses one. Pure, except for the lock
//! around the table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Mutex;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::task::yield_now;
use uuid::Uuid;

use crate::address::Address;
use crate::history::event::Actor;
use crate::protocol::{SessionId, Time, WatchState};
use crate::rejections::{Limit, Rejections};
use crate::sync::lock;

/// How long the hub keeps a stopped clock, so that its client can reconnect.
const IDLE_LIMIT: Duration = Duration::from_hours(1);

/// Clocks that one critical section checks when idle ones are removed: some 50 µs.
const CHUNK: usize = 1_024;

/// What identifies a clock: a hash of the watch session's id, visitor and room, which has a fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClockKey([u8; 16]);

impl ClockKey {
    /// The key that sorts before all others.
    const FIRST: Self = Self([0; 16]);

    /// The key of the watch session `id` of this visitor in this room.
    pub(crate) fn new(id: Uuid, actor: &Actor) -> Self {
        let hash = Sha256::new().chain_update(id.as_bytes()).chain_update(actor.visitor.as_str());
        // Names have no white space, so that no other two join to the same text.
        let hash = hash.chain_update(" ").chain_update(actor.room.as_str()).finalize();
        Self(hash.first_chunk().copied().unwrap_or_default())
    }
}

/// The clocks of all recent watch sessions. A clock has a fixed size, 160 bytes with its entry in the eviction order, and
/// takes at most twice that in the maps: 100,000 of them take about 22 MB, and at most 32 MB.
#[derive(Debug)]
pub(crate) struct WatchClocks {
    limit: usize,
    rejections: Rejections,
    /// Held for steps of O(log n), or for one chunk of [`remove_idle`](Self::remove_idle).
    table: Mutex<ClockTable>,
}

/// The clocks. Ordered maps, since a hash map that grows moves all entries at once, under the lock.
#[derive(Debug, Default)]
struct ClockTable {
    clocks: BTreeMap<ClockKey, WatchClock>,
    /// The clocks by address, in the order in which an address loses them.
    eviction_order: BTreeSet<EvictionKey>,
    /// The number of clocks of each address that has any.
    counts: BTreeMap<Address, usize>,
    /// The same, ordered by number.
    by_count: BTreeSet<(usize, Address)>,
    /// Evicted clocks since the last [`take_evicted`](WatchClocks::take_evicted).
    evicted: usize,
}

/// The eviction order of an address: stopped clocks before running ones, and the least recently updated first.
type EvictionKey = (Address, bool, Duration, ClockKey);

#[derive(Debug)]
struct WatchClock {
    /// The address of its last update.
    address: Address,
    /// The time played before it was last started.
    banked: Duration,
    /// The socket on which it plays, and when it started, by the monotonic clock.
    playing: Option<(SessionId, Duration)>,
    /// The newest reported state: whether it is final, and its time by the client's clock.
    newest: Option<(bool, Time)>,
    /// When it was last updated, by the monotonic clock.
    updated: Duration,
}

impl WatchClock {
    fn new(address: Address) -> Self {
        Self { address, banked: Duration::ZERO, playing: None, newest: None, updated: Duration::ZERO }
    }

    fn total(&self, now: Duration) -> Duration {
        let running = self.playing.map_or(Duration::ZERO, |(_, since)| now.saturating_sub(since));
        self.banked + running
    }

    fn update(&mut self, session: SessionId, state: WatchState, at: Time, now: Duration) {
        self.updated = now;
        let state_at = (state == WatchState::Ended, at);
        let was_final = self.newest.is_some_and(|(is_final, _)| is_final);
        if was_final || self.newest.is_some_and(|newest| newest > state_at) {
            return; // `ended` is final, and an older state has no effect
        }
        self.newest = Some(state_at);
        self.stop(now);
        self.playing = (state == WatchState::Playing).then_some((session, now));
    }

    fn stop(&mut self, now: Duration) {
        self.banked = self.total(now);
        self.playing = None;
    }

    fn eviction_key(&self, key: ClockKey) -> EvictionKey {
        (self.address, self.playing.is_some(), self.updated, key)
    }

    fn is_expired(&self, now: Duration) -> bool {
        self.playing.is_none() && now.saturating_sub(self.updated) >= IDLE_LIMIT
    }
}

impl ClockTable {
    fn count_of(&self, address: Address) -> usize {
        self.counts.get(&address).copied().unwrap_or_default()
    }

    fn set_count(&mut self, address: Address, count: usize) {
        let before = self.count_of(address);
        self.by_count.remove(&(before, address));
        if count == 0 {
            self.counts.remove(&address);
        } else {
            self.counts.insert(address, count);
            self.by_count.insert((count, address));
        }
    }

    fn insert(&mut self, key: ClockKey, clock: WatchClock) {
        self.eviction_order.insert(clock.eviction_key(key));
        self.set_count(clock.address, self.count_of(clock.address) + 1);
        self.clocks.insert(key, clock);
    }

    fn remove(&mut self, key: ClockKey) -> Option<WatchClock> {
        let clock = self.clocks.remove(&key)?;
        self.eviction_order.remove(&clock.eviction_key(key));
        self.set_count(clock.address, self.count_of(clock.address).saturating_sub(1));
        Some(clock)
    }

    /// Evicts a clock of the address that would have the most, which is `address` itself on a tie. Evicts none if
    /// `address` has none and no other has more than one.
    fn evict_for(&mut self, address: Address) {
        let Some((most, largest)) = self.by_count.last().copied() else { return };
        let loser = if self.count_of(address) + 1 >= most { address } else { largest };
        let first =
            self.eviction_order.range((loser, false, Duration::ZERO, ClockKey::FIRST)..).next().copied();
        if let Some((owner, _, _, key)) = first
            && owner == loser
        {
            self.remove(key);
            self.evicted += 1;
        }
    }
}

impl WatchClocks {
    /// A table without clocks, for at most `limit` of them. `rejections` counts evictions.
    pub(crate) fn new(limit: usize, rejections: Rejections) -> Self {
        Self { limit, rejections, table: Mutex::default() }
    }

    /// Returns how long the watch session has played until `now`, by the monotonic clock.
    pub(crate) fn total(&self, key: ClockKey, now: Duration) -> Duration {
        lock(&self.table).clocks.get(&key).map_or(Duration::ZERO, |clock| clock.total(now))
    }

    /// Applies a state that `session`, a socket of `address`, reported: the watch session was in `state` from `at` on, by the client's
    /// clock. Returns whether it plays on this socket now. At the limit, the address with the most clocks loses the first
    /// one of its eviction order; the history then has only the time that the client of that one measured.
    ///
    /// `paused` and `ended` of an unknown watch session create a clock too: only a clock detects that a `playing` which
    /// arrives later is older.
    pub(crate) fn update(
        &self,
        (address, session): (Address, SessionId),
        key: ClockKey,
        (state, at): (WatchState, Time),
        now: Duration,
    ) -> bool {
        let mut table = lock(&self.table);
        let known = table.remove(key);
        if known.is_none() && table.clocks.len() >= self.limit {
            self.rejections.count_limit(Limit::WatchClocks);
            table.evict_for(address);
            if table.clocks.len() >= self.limit {
                return state == WatchState::Playing;
            }
        }
        let mut clock = known.unwrap_or_else(|| WatchClock::new(address));
        clock.address = address;
        clock.update(session, state, at, now);
        let plays = clock.playing.is_some_and(|(playing_on, _)| playing_on == session);
        table.insert(key, clock);
        plays
    }

    /// Stops the clock if it plays on the socket of `session`, which has ended, and returns how long it has
    /// played. Returns none if it plays on another socket, or not at all.
    pub(crate) fn disconnect(&self, session: SessionId, key: ClockKey, now: Duration) -> Option<Duration> {
        let mut table = lock(&self.table);
        table.clocks.get(&key)?.playing.filter(|(playing_on, _)| *playing_on == session)?;
        let mut clock = table.remove(key)?;
        clock.stop(now);
        clock.updated = now;
        let banked = clock.banked;
        table.insert(key, clock);
        Some(banked)
    }

    /// Removes the clocks that have been stopped for an hour, in chunks, with yields between them.
    pub(crate) async fn remove_idle(&self, now: Duration) {
        let mut from = Bound::Unbounded;
        while let Some(last) = self.remove_idle_chunk(from, now) {
            from = Bound::Excluded(last);
            yield_now().await;
        }
    }

    /// Checks one chunk, and returns the key of its last clock.
    fn remove_idle_chunk(&self, from: Bound<ClockKey>, now: Duration) -> Option<ClockKey> {
        let mut table = lock(&self.table);
        let chunk: Vec<_> = table
            .clocks
            .range((from, Bound::Unbounded))
            .take(CHUNK)
            .map(|(key, clock)| (*key, clock.is_expired(now)))
            .collect();
        for (key, is_expired) in &chunk {
            if *is_expired {
                table.remove(*key);
            }
        }
        chunk.last().map(|(key, _)| *key)
    }

    /// Returns the number of evicted clocks since the last call.
    pub(crate) fn take_evicted(&self) -> usize {
        std::mem::take(&mut lock(&self.table).evicted)
    }

    /// The number of clocks.
    pub(crate) fn len(&self) -> usize {
        lock(&self.table).clocks.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::{any, proptest};
    use proptest::{prop_assert, prop_assert_eq};

    use super::*;
    use WatchState::{Ended, Paused, Playing};

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn state_at(state: WatchState, seconds: u64) -> (WatchState, Time) {
        (state, Time::from_millis(seconds * 1000))
    }

    fn clocks(limit: usize) -> WatchClocks {
        WatchClocks::new(limit, Rejections::register())
    }

    fn random_key() -> ClockKey {
        ClockKey(Uuid::new_v4().into_bytes())
    }

    fn address(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    /// A socket of the first address.
    fn on(session: SessionId) -> (Address, SessionId) {
        (address(1), session)
    }

    #[test]
    fn paused_time_does_not_count() {
        let (clocks, id, session) = (clocks(10), random_key(), SessionId::new());
        clocks.update(on(session), id, state_at(Playing, 0), at(0));
        clocks.update(on(session), id, state_at(Paused, 10), at(10));
        clocks.update(on(session), id, state_at(Playing, 15), at(15));
        assert_eq!(clocks.total(id, at(22)), at(17));
        clocks.update(on(session), id, state_at(Ended, 22), at(22));
        clocks.update(on(session), id, state_at(Playing, 23), at(23)); // ended is final
        assert_eq!(clocks.total(id, at(99)), at(17));
    }

    #[test]
    fn visitors_and_rooms_have_clocks_of_their_own() {
        let (clocks, session, id) = (clocks(10), SessionId::new(), Uuid::new_v4());
        let key = |room: &str, visitor: &str| {
            let (room, visitor) = (room.try_into().unwrap(), visitor.try_into().unwrap());
            ClockKey::new(id, &Actor { room, visitor, is_bot: false })
        };
        clocks.update(on(session), key("lobby", "ann"), state_at(Playing, 0), at(0));
        for other in [key("lobby", "bob"), key("garden", "ann")] {
            clocks.update(on(SessionId::new()), other, state_at(Ended, 5), at(5));
            assert_eq!(clocks.total(other, at(9)), at(0));
        }
        assert_eq!(clocks.total(key("lobby", "ann"), at(9)), at(9));
    }

    #[test]
    fn lost_socket_stops_the_clock_and_another_socket_continues_it() {
        let (clocks, id) = (clocks(10), random_key());
        let (first, second) = (SessionId::new(), SessionId::new());
        clocks.update(on(first), id, state_at(Playing, 0), at(0));
        assert_eq!(clocks.disconnect(first, id, at(10)), Some(at(10)));
        assert_eq!(clocks.disconnect(first, id, at(12)), None);
        clocks.update(on(second), id, state_at(Playing, 20), at(20));
        assert_eq!(clocks.total(id, at(25)), at(15));
    }

    #[test]
    fn two_sockets_that_play_the_same_session_count_once() {
        let (clocks, id) = (clocks(10), random_key());
        let (first, second) = (SessionId::new(), SessionId::new());
        clocks.update(on(first), id, state_at(Playing, 0), at(0));
        clocks.update(on(second), id, state_at(Playing, 5), at(5)); // the first one is half-open
        assert_eq!(clocks.disconnect(first, id, at(30)), None);
        assert_eq!(clocks.total(id, at(31)), at(31));
    }

    #[test]
    fn older_state_has_no_effect() {
        let (clocks, id, session) = (clocks(10), random_key(), SessionId::new());
        clocks.update(on(session), id, state_at(Playing, 0), at(0));
        clocks.update(on(session), id, state_at(Paused, 10), at(10));
        assert!(!clocks.update(on(session), id, state_at(Playing, 0), at(11))); // sent again
        assert_eq!(clocks.total(id, at(60)), at(10));
    }

    #[tokio::test]
    async fn idle_clocks_are_removed_and_running_ones_stay() {
        let (clocks, session) = (clocks(10), SessionId::new());
        let (playing, paused) = (random_key(), random_key());
        clocks.update(on(session), playing, state_at(Playing, 0), at(0));
        clocks.update(on(session), paused, state_at(Paused, 0), at(0));
        clocks.remove_idle(at(3_599)).await;
        assert_eq!(clocks.len(), 2);
        clocks.remove_idle(at(3_600)).await;
        assert_eq!((clocks.len(), clocks.total(playing, at(3_600))), (1, at(3_600)));
    }

    #[tokio::test]
    async fn idle_clocks_of_all_chunks_are_removed() {
        let (clocks, session) = (clocks(10_000), SessionId::new());
        for n in 0..3 * CHUNK {
            let state = if n % 2 == 0 { Paused } else { Playing };
            clocks.update(on(session), random_key(), state_at(state, 0), at(0));
        }
        clocks.remove_idle(at(3_600)).await;
        assert_eq!(clocks.len(), 3 * CHUNK / 2);
    }

    #[test]
    fn flood_of_new_ids_evicts_only_clocks_of_its_own_address() {
        let (clocks, session) = (clocks(100), SessionId::new());
        let honest: Vec<_> = (0..10).map(|_| random_key()).collect();
        for id in &honest {
            clocks.update((address(1), session), *id, state_at(Playing, 0), at(0));
        }
        for second in 1..1_000 {
            clocks.update((address(2), session), random_key(), state_at(Paused, second), at(second));
        }
        assert_eq!(clocks.len(), 100);
        assert!(honest.iter().all(|id| clocks.total(*id, at(7)) == at(7)));
        assert_eq!(clocks.take_evicted(), 999 - 90);
        assert_eq!(clocks.take_evicted(), 0);
        // A new address gets a clock, and so does an address that had some before.
        for (address, second) in [(address(3), 2_000), (address(1), 2_001)] {
            let id = random_key();
            assert!(clocks.update((address, session), id, state_at(Playing, second), at(second)));
            assert_eq!(clocks.total(id, at(second + 9)), at(9));
        }
        assert!(honest.iter().all(|id| clocks.total(*id, at(7)) == at(7)));
    }

    #[test]
    fn address_loses_the_longest_stopped_clock_first_and_running_ones_last() {
        let (clocks, session) = (clocks(3), SessionId::new());
        let ids = [(); 5].map(|()| random_key());
        for (second, (id, state)) in
            (0..).zip(ids.into_iter().zip([Playing, Paused, Paused, Paused, Playing]))
        {
            clocks.update(on(session), id, state_at(state, second), at(second));
        }
        let remaining = ids.map(|id| lock(&clocks.table).clocks.contains_key(&id));
        assert_eq!(remaining, [true, false, false, true, true]);
    }

    #[test]
    fn new_address_gets_no_clock_when_each_clock_has_its_own_address() {
        let (clocks, session) = (clocks(3), SessionId::new());
        let ids = [(); 4].map(|()| random_key());
        for (last, id) in (0..).zip(ids) {
            let plays = clocks.update((address(last), session), id, state_at(Playing, 0), at(0));
            assert!(plays, "it plays, measured or not");
        }
        assert_eq!(ids.map(|id| clocks.total(id, at(5))), [at(5), at(5), at(5), at(0)]);
    }

    #[test]
    fn clock_has_a_fixed_size() {
        assert!(size_of::<(ClockKey, WatchClock)>() <= 112, "{}", size_of::<(ClockKey, WatchClock)>());
        assert!(size_of::<EvictionKey>() <= 48, "{}", size_of::<EvictionKey>());
    }

    proptest! {
        #[test]
        fn table_is_bounded_and_its_indexes_are_consistent(
            steps in proptest::collection::vec((0..5_u8, 0..30_u128, 0..4_u8, any::<bool>()), 0..200),
        ) {
            let (clocks, session) = (clocks(8), SessionId::new());
            for (second, (of, id, step, is_now)) in (0..).zip(steps) {
                let (id, now) = (ClockKey(id.to_be_bytes()), at(second));
                let state = [Playing, Paused, Ended].get(usize::from(step)).copied();
                let at = if is_now { second } else { 0 };
                match state {
                    Some(state) => drop(clocks.update((address(of), session), id, state_at(state, at), now)),
                    None => drop(clocks.disconnect(session, id, now)),
                }
                let table = lock(&clocks.table);
                prop_assert!(table.clocks.len() <= 8);
                let keys: BTreeSet<EvictionKey> = table.clocks.iter().map(|(id, clock)| clock.eviction_key(*id)).collect();
                prop_assert_eq!(&keys, &table.eviction_order);
                let mut counts = BTreeMap::new();
                table.clocks.values().for_each(|clock| *counts.entry(clock.address).or_default() += 1);
                prop_assert_eq!(&counts, &table.counts);
                let by_count: BTreeSet<_> = counts.iter().map(|(address, count)| (*count, *address)).collect();
                prop_assert_eq!(&by_count, &table.by_count);
            }
        }
    }
}
