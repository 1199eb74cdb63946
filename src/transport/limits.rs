//! Limits per address: how many sockets and connections it may have open, and how often it may open a socket,
//! post or ask.
//!
//! They are far above what a class behind one router does, and far below what takes the hub from others.
//! What is remembered of an address goes with its last socket, or within seconds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::rate::BURST_SECONDS;
use crate::address::Address;
use crate::rejections::Limit;
use crate::sync::lock;
use crate::time::Clock;

/// How much one address, or one socket, may do. Ten seconds' worth of a rate may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sockets that one address may have open, and as many connections that are none yet.
    pub sockets: NonZeroU32,
    /// Sockets a second that one address may open.
    pub opened: NonZeroU32,
    /// Sockets that one address may have open for the live activity.
    pub live: NonZeroU32,
    /// HTTP posts a second of one address.
    pub posts: NonZeroU32,
    /// Other HTTP requests a second of one address.
    pub reads: NonZeroU32,
    /// Messages a second on one socket.
    pub messages: NonZeroU32,
}

impl Limits {
    /// What holds where nothing else is configured: 300 people who join through one router with two tabs
    /// each, and come back together, are below it.
    pub const DEFAULT: Self = Self {
        sockets: NonZeroU32::new(1_000).unwrap(),
        opened: NonZeroU32::new(100).unwrap(),
        live: NonZeroU32::new(50).unwrap(),
        posts: NonZeroU32::new(100).unwrap(),
        reads: NonZeroU32::new(50).unwrap(),
        messages: NonZeroU32::new(20).unwrap(),
    };
}

/// Requests a second of one address that lack a good admin token. Nobody sets it: the right token always passes.
const ADMIN_FAILURES: NonZeroU32 = NonZeroU32::MIN;

/// An address does too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitExceeded {
    /// As many sockets are open from it as may be.
    #[error("too many sockets are open from your address")]
    OpenSockets,
    /// As many connections are open from it as may be.
    #[error("too many connections are open from your address")]
    OpenConnections,
    /// It opens sockets too fast.
    #[error("your address opens sockets too fast: wait a moment")]
    SocketRate,
    /// As many sockets for the live activity are open from it as may be.
    #[error("too many sockets for the live activity are open from your address")]
    LiveSockets,
    /// It has tried too often to be the admin.
    #[error("your address has brought no good admin token too often: wait a moment")]
    AdminFailures,
    /// It posts too fast.
    #[error("your address posts too fast: wait a moment")]
    PostRate,
    /// It asks too fast.
    #[error("your address asks too fast: wait a moment")]
    ReadRate,
}

impl From<LimitExceeded> for Limit {
    fn from(limit: LimitExceeded) -> Self {
        match limit {
            LimitExceeded::OpenSockets => Self::AddressSockets,
            LimitExceeded::OpenConnections => Self::AddressConnections,
            LimitExceeded::SocketRate => Self::AddressSocketRate,
            LimitExceeded::LiveSockets => Self::AddressLiveSockets,
            LimitExceeded::PostRate => Self::AddressPostRate,
            LimitExceeded::ReadRate => Self::AddressReadRate,
            LimitExceeded::AdminFailures => Self::AdminFailures,
        }
    }
}

/// What all addresses do now.
#[derive(Debug)]
pub(crate) struct AddressLimiter {
    max_open: u32,
    max_live: u32,
    sockets: AddressCounts,
    live: AddressCounts,
    connections: AddressCounts,
    opened: KeyedLimiter,
    posts: KeyedLimiter,
    reads: KeyedLimiter,
    admin_failures: KeyedLimiter,
}

/// How many each address has open, where it has any.
#[derive(Debug, Default)]
struct AddressCounts(
    /// O(1), once when one opens and once when it ends.
    Mutex<HashMap<Address, u32>>,
);

type KeyedLimiter = RateLimiter<Address, HashMapStateStore<Address>, Clock, NoOpMiddleware<Duration>>;

impl governor::clock::Clock for Clock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.elapsed()
    }
}

impl AddressLimiter {
    /// Nobody has done anything yet.
    #[must_use]
    pub(crate) fn new(limits: &Limits, clock: &Clock) -> Self {
        let limiter = |rate: NonZeroU32| {
            let quota = Quota::per_second(rate).allow_burst(rate.saturating_mul(BURST_SECONDS));
            RateLimiter::new(quota, HashMapStateStore::default(), clock.clone())
        };
        Self {
            max_open: limits.sockets.get(),
            max_live: limits.live.get(),
            sockets: AddressCounts::default(),
            live: AddressCounts::default(),
            connections: AddressCounts::default(),
            opened: limiter(limits.opened),
            posts: limiter(limits.posts),
            reads: limiter(limits.reads),
            admin_failures: limiter(ADMIN_FAILURES),
        }
    }

    /// Somebody asks for a socket, which counts whether one is opened or not.
    ///
    /// # Errors
    /// The address asks too fast, or has as many open as may be.
    pub(crate) fn check_open(&self, address: Address) -> Result<(), LimitExceeded> {
        self.opened.check_key(&address).map_err(|_| LimitExceeded::SocketRate)?;
        if self.sockets.has_room(address, self.max_open) { Ok(()) } else { Err(LimitExceeded::OpenSockets) }
    }

    /// A socket opens. What is counted here, [`exit`](Self::exit) takes back.
    ///
    /// # Errors
    /// As many are open from the address as may be.
    pub(crate) fn add_socket(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.sockets.add(address, self.max_open) { Ok(()) } else { Err(LimitExceeded::OpenSockets) }
    }

    /// A socket has ended.
    pub(crate) fn remove_socket(&self, address: Address) {
        self.sockets.remove(address);
    }

    /// A socket is for the live activity. What is counted here, [`stop_listening`](Self::stop_listening) takes back.
    ///
    /// # Errors
    /// As many are open from the address as may be.
    pub(crate) fn add_live_socket(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.live.add(address, self.max_live) { Ok(()) } else { Err(LimitExceeded::LiveSockets) }
    }

    /// A socket for the live activity has ended.
    pub(crate) fn remove_live_socket(&self, address: Address) {
        self.live.remove(address);
    }

    /// A connection opens. What is counted here, [`disconnect`](Self::disconnect) takes back.
    ///
    /// # Errors
    /// The address does too much.
    pub(crate) fn add_connection(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.connections.add(address, self.max_open) {
            Ok(())
        } else {
            Err(LimitExceeded::OpenConnections)
        }
    }

    /// A connection has ended, or has become a socket.
    pub(crate) fn remove_connection(&self, address: Address) {
        self.connections.remove(address);
    }

    /// A post comes.
    ///
    /// # Errors
    /// The address does too much.
    pub(crate) fn check_post(&self, address: Address) -> Result<(), LimitExceeded> {
        self.posts.check_key(&address).map_err(|_| LimitExceeded::PostRate)
    }

    /// Any other request comes.
    ///
    /// # Errors
    /// The address does too much.
    pub(crate) fn check_read(&self, address: Address) -> Result<(), LimitExceeded> {
        self.reads.check_key(&address).map_err(|_| LimitExceeded::ReadRate)
    }

    /// Somebody asks for what is the admin's, without a good token.
    ///
    /// # Errors
    /// The address has done so too often.
    pub(crate) fn check_admin_failure(&self, address: Address) -> Result<(), LimitExceeded> {
        self.admin_failures.check_key(&address).map_err(|_| LimitExceeded::AdminFailures)
    }

    /// Forgets all who have been slow enough again.
    pub(crate) fn remove_idle(&self) {
        for limiter in [&self.opened, &self.posts, &self.reads, &self.admin_failures] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    /// How many addresses are remembered.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        let open = [&self.sockets, &self.live, &self.connections].map(AddressCounts::len);
        let limited = [&self.opened, &self.posts, &self.reads, &self.admin_failures].map(RateLimiter::len);
        open.into_iter().chain(limited).max().unwrap_or_default()
    }
}

impl AddressCounts {
    /// Whether there are fewer than `most`.
    fn has_room(&self, address: Address, most: u32) -> bool {
        lock(&self.0).get(&address).is_none_or(|count| *count < most)
    }

    /// One more, if there are fewer than `most`.
    fn add(&self, address: Address, most: u32) -> bool {
        let mut open = lock(&self.0);
        let count = open.entry(address).or_default();
        let fits = *count < most;
        *count += u32::from(fits);
        fits
    }

    fn remove(&self, address: Address) {
        if let Entry::Occupied(mut entry) = lock(&self.0).entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::protocol::Time;

    fn addresses() -> (AddressLimiter, Clock) {
        let clock = Clock::manual(Time::from_millis(0));
        let few = |number| NonZeroU32::new(number).unwrap();
        let limits = Limits {
            sockets: few(12),
            opened: few(2),
            live: few(3),
            posts: few(1),
            reads: few(1),
            messages: few(1),
        };
        (AddressLimiter::new(&limits, &clock), clock)
    }

    fn address(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn so_many_sockets_may_be_open_and_so_many_opened() {
        let (addresses, clock) = addresses();
        let open = |address| addresses.check_open(address).and_then(|()| addresses.add_socket(address));
        for _ in 0..12 {
            assert_eq!(open(address(1)), Ok(()));
        }
        assert_eq!(addresses.add_socket(address(1)), Err(LimitExceeded::OpenSockets));
        assert_eq!(
            addresses.check_open(address(1)),
            Err(LimitExceeded::OpenSockets),
            "which is known before the token is read"
        );
        addresses.remove_socket(address(1));
        assert_eq!(open(address(1)), Ok(()));
        for _ in 0..6 {
            addresses.remove_socket(address(1));
            assert_eq!(addresses.check_open(address(1)), Ok(()), "refused later, it counts as well");
            assert_eq!(addresses.add_socket(address(1)), Ok(()));
        }
        addresses.remove_socket(address(1));
        assert_eq!(open(address(1)), Err(LimitExceeded::SocketRate), "20 at once, and then 2 a second");
        assert_eq!(open(address(2)), Ok(()), "others are not slowed down");
        clock.advance(Duration::from_millis(500));
        assert_eq!(open(address(1)), Ok(()));
    }

    #[test]
    fn posts_are_a_count_of_their_own() {
        let (addresses, clock) = addresses();
        for _ in 0..10 {
            assert_eq!(addresses.check_post(address(1)), Ok(()));
        }
        assert_eq!(addresses.check_post(address(1)), Err(LimitExceeded::PostRate));
        assert_eq!((addresses.check_post(address(2)), addresses.add_socket(address(1))), (Ok(()), Ok(())));
        clock.advance(Duration::from_secs(1));
        assert_eq!(addresses.check_post(address(1)), Ok(()));
    }

    #[test]
    fn reads_are_a_count_of_their_own() {
        let (addresses, clock) = addresses();
        for _ in 0..10 {
            assert_eq!(addresses.check_read(address(1)), Ok(()));
        }
        assert_eq!(addresses.check_read(address(1)), Err(LimitExceeded::ReadRate));
        assert_eq!((addresses.check_read(address(2)), addresses.check_post(address(1))), (Ok(()), Ok(())));
        clock.advance(Duration::from_secs(1));
        assert_eq!(addresses.check_read(address(1)), Ok(()));
    }

    #[test]
    fn sockets_for_the_live_activity_are_fewer() {
        let (addresses, _) = addresses();
        for _ in 0..3 {
            assert_eq!(addresses.add_live_socket(address(1)), Ok(()));
        }
        assert_eq!(addresses.add_live_socket(address(1)), Err(LimitExceeded::LiveSockets));
        assert_eq!(
            (addresses.add_live_socket(address(2)), addresses.add_socket(address(1))),
            (Ok(()), Ok(()))
        );
        addresses.remove_live_socket(address(1));
        assert_eq!(addresses.add_live_socket(address(1)), Ok(()));
    }

    #[test]
    fn as_many_connections_may_be_open_besides() {
        let (addresses, _) = addresses();
        for _ in 0..12 {
            assert_eq!(addresses.add_connection(address(1)), Ok(()));
        }
        assert_eq!(addresses.add_connection(address(1)), Err(LimitExceeded::OpenConnections));
        assert_eq!(
            (addresses.add_connection(address(2)), addresses.add_socket(address(1))),
            (Ok(()), Ok(()))
        );
        addresses.remove_connection(address(1));
        assert_eq!(addresses.add_connection(address(1)), Ok(()));
    }

    #[test]
    fn who_is_idle_is_forgotten() {
        let (addresses, clock) = addresses();
        for last in 0..=255 {
            addresses.check_open(address(last)).unwrap();
            addresses.add_socket(address(last)).unwrap();
            addresses.check_post(address(last)).unwrap();
            addresses.check_read(address(last)).unwrap();
            addresses.remove_socket(address(last));
        }
        assert_eq!(addresses.len(), 256);
        clock.advance(Duration::from_secs(11));
        addresses.remove_idle();
        assert_eq!(addresses.len(), 0);
    }
}
