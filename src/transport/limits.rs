//! Limits of one address: how many sockets and connections it may have open, and how often it may open a socket, post
//! or send other requests.
//!
//! The defaults are far above what a class behind one router needs, and far below what slows the hub down for others.
//! The state of an address is dropped with its last socket, or seconds after its last request.

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

/// The limits of one address and of one socket. The burst of each rate is ten seconds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open sockets of one address, and as many connections that are not sockets.
    pub sockets: NonZeroU32,
    /// New sockets a second of one address.
    pub opened: NonZeroU32,
    /// Open sockets of one address for the live activity.
    pub live: NonZeroU32,
    /// HTTP posts a second of one address.
    pub posts: NonZeroU32,
    /// Other HTTP requests a second of one address.
    pub reads: NonZeroU32,
    /// Messages a second on one socket.
    pub messages: NonZeroU32,
}

impl Limits {
    /// The defaults. 300 visitors behind one router, with two tabs each, stay below them when all reconnect at once.
    pub const DEFAULT: Self = Self {
        sockets: NonZeroU32::new(1_000).unwrap(),
        opened: NonZeroU32::new(100).unwrap(),
        live: NonZeroU32::new(50).unwrap(),
        posts: NonZeroU32::new(100).unwrap(),
        reads: NonZeroU32::new(50).unwrap(),
        messages: NonZeroU32::new(20).unwrap(),
    };
}

/// Requests a second of one address without a valid admin token. Not a setting, since the right token always passes.
const ADMIN_FAILURES: NonZeroU32 = NonZeroU32::MIN;

/// A limit that an address has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitExceeded {
    /// Open sockets.
    #[error("too many sockets are open from your address")]
    OpenSockets,
    /// Open connections that are not sockets.
    #[error("too many connections are open from your address")]
    OpenConnections,
    /// New sockets a second.
    #[error("your address opens sockets too fast: wait a moment")]
    SocketRate,
    /// Open sockets for the live activity.
    #[error("too many sockets for the live activity are open from your address")]
    LiveSockets,
    /// Requests without a valid admin token.
    #[error("your address sent too many requests without a valid admin token: wait a moment")]
    AdminFailures,
    /// Posts a second.
    #[error("your address posts too fast: wait a moment")]
    PostRate,
    /// Other requests a second.
    #[error("your address sends requests too fast: wait a moment")]
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

/// The rate limiters and open counts of all addresses.
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

/// The number of open sockets or connections of each address that has any.
#[derive(Debug, Default)]
struct AddressCounts(
    /// Held for O(1), when one opens or ends.
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
    /// The limiter without any state.
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

    /// Counts a request for a socket, whether or not the socket opens later.
    pub(crate) fn check_open(&self, address: Address) -> Result<(), LimitExceeded> {
        self.opened.check_key(&address).map_err(|_| LimitExceeded::SocketRate)?;
        if self.sockets.has_room(address, self.max_open) { Ok(()) } else { Err(LimitExceeded::OpenSockets) }
    }

    /// Counts an open socket, until [`remove_socket`](Self::remove_socket).
    pub(crate) fn add_socket(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.sockets.add(address, self.max_open) { Ok(()) } else { Err(LimitExceeded::OpenSockets) }
    }

    /// Counts the end of a socket.
    pub(crate) fn remove_socket(&self, address: Address) {
        self.sockets.remove(address);
    }

    /// Counts a socket for the live activity, until [`remove_live_socket`](Self::remove_live_socket).
    pub(crate) fn add_live_socket(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.live.add(address, self.max_live) { Ok(()) } else { Err(LimitExceeded::LiveSockets) }
    }

    /// Counts the end of a socket for the live activity.
    pub(crate) fn remove_live_socket(&self, address: Address) {
        self.live.remove(address);
    }

    /// Counts an open connection, until [`remove_connection`](Self::remove_connection).
    pub(crate) fn add_connection(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.connections.add(address, self.max_open) {
            Ok(())
        } else {
            Err(LimitExceeded::OpenConnections)
        }
    }

    /// Counts the end of a connection, or that it became a socket.
    pub(crate) fn remove_connection(&self, address: Address) {
        self.connections.remove(address);
    }

    /// Counts a post.
    pub(crate) fn check_post(&self, address: Address) -> Result<(), LimitExceeded> {
        self.posts.check_key(&address).map_err(|_| LimitExceeded::PostRate)
    }

    /// Counts a request that is not a post.
    pub(crate) fn check_read(&self, address: Address) -> Result<(), LimitExceeded> {
        self.reads.check_key(&address).map_err(|_| LimitExceeded::ReadRate)
    }

    /// Counts a request that needs the admin token and lacks a valid one.
    pub(crate) fn check_admin_failure(&self, address: Address) -> Result<(), LimitExceeded> {
        self.admin_failures.check_key(&address).map_err(|_| LimitExceeded::AdminFailures)
    }

    /// Drops the rate limiters of addresses that have their whole burst again.
    pub(crate) fn remove_idle(&self) {
        for limiter in [&self.opened, &self.posts, &self.reads, &self.admin_failures] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    /// The number of addresses with state.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        let open = [&self.sockets, &self.live, &self.connections].map(AddressCounts::len);
        let limited = [&self.opened, &self.posts, &self.reads, &self.admin_failures].map(RateLimiter::len);
        open.into_iter().chain(limited).max().unwrap_or_default()
    }
}

impl AddressCounts {
    /// Whether the address has fewer than `max`.
    fn has_room(&self, address: Address, max: u32) -> bool {
        lock(&self.0).get(&address).is_none_or(|count| *count < max)
    }

    /// Adds one, if the address has fewer than `max`. Returns whether it did.
    fn add(&self, address: Address, max: u32) -> bool {
        let mut open = lock(&self.0);
        let count = open.entry(address).or_default();
        let fits = *count < max;
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
    fn open_sockets_and_new_sockets_a_second_have_limits() {
        let (addresses, clock) = addresses();
        let open = |address| addresses.check_open(address).and_then(|()| addresses.add_socket(address));
        for _ in 0..12 {
            assert_eq!(open(address(1)), Ok(()));
        }
        assert_eq!(addresses.add_socket(address(1)), Err(LimitExceeded::OpenSockets));
        assert_eq!(
            addresses.check_open(address(1)),
            Err(LimitExceeded::OpenSockets),
            "checked before the token"
        );
        addresses.remove_socket(address(1));
        assert_eq!(open(address(1)), Ok(()));
        for _ in 0..6 {
            addresses.remove_socket(address(1));
            assert_eq!(
                addresses.check_open(address(1)),
                Ok(()),
                "it counts even if the socket does not open"
            );
            assert_eq!(addresses.add_socket(address(1)), Ok(()));
        }
        addresses.remove_socket(address(1));
        assert_eq!(open(address(1)), Err(LimitExceeded::SocketRate), "a burst of 20, then 2 a second");
        assert_eq!(open(address(2)), Ok(()), "other addresses are not limited");
        clock.advance(Duration::from_millis(500));
        assert_eq!(open(address(1)), Ok(()));
    }

    #[test]
    fn posts_have_their_own_limit() {
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
    fn reads_have_their_own_limit() {
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
    fn live_activity_sockets_have_a_lower_limit() {
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
    fn connections_have_their_own_limit() {
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
    fn state_of_idle_addresses_is_dropped() {
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
