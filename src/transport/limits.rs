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
    Open,
    /// As many connections are open from it as may be.
    #[error("too many connections are open from your address")]
    Connected,
    /// It opens sockets too fast.
    #[error("your address opens sockets too fast: wait a moment")]
    Opened,
    /// As many sockets for the live activity are open from it as may be.
    #[error("too many sockets for the live activity are open from your address")]
    Live,
    /// It has tried too often to be the admin.
    #[error("your address has brought no good admin token too often: wait a moment")]
    AdminFailures,
    /// It posts too fast.
    #[error("your address posts too fast: wait a moment")]
    Posts,
    /// It asks too fast.
    #[error("your address asks too fast: wait a moment")]
    Reads,
}

impl From<LimitExceeded> for Limit {
    fn from(limit: LimitExceeded) -> Self {
        match limit {
            LimitExceeded::Open => Self::AddressSockets,
            LimitExceeded::Connected => Self::AddressConnections,
            LimitExceeded::Opened => Self::AddressSocketRate,
            LimitExceeded::Live => Self::AddressLiveSockets,
            LimitExceeded::Posts => Self::AddressPostRate,
            LimitExceeded::Reads => Self::AddressReadRate,
            LimitExceeded::AdminFailures => Self::AdminFailures,
        }
    }
}

/// What all addresses do now.
#[derive(Debug)]
pub(crate) struct AddressLimiter {
    most: u32,
    most_live: u32,
    sockets: Open,
    live: Open,
    connections: Open,
    opened: Limiter,
    posts: Limiter,
    reads: Limiter,
    admin_failures: Limiter,
}

/// How many each address has open, where it has any.
#[derive(Debug, Default)]
struct Open(
    /// O(1), once when one opens and once when it ends.
    Mutex<HashMap<Address, u32>>,
);

type Limiter = RateLimiter<Address, HashMapStateStore<Address>, Clock, NoOpMiddleware<Duration>>;

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
            most: limits.sockets.get(),
            most_live: limits.live.get(),
            sockets: Open::default(),
            live: Open::default(),
            connections: Open::default(),
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
    pub(crate) fn ask(&self, address: Address) -> Result<(), LimitExceeded> {
        self.opened.check_key(&address).map_err(|_| LimitExceeded::Opened)?;
        if self.sockets.has_room(address, self.most) { Ok(()) } else { Err(LimitExceeded::Open) }
    }

    /// A socket opens. What is counted here, [`exit`](Self::exit) takes back.
    ///
    /// # Errors
    /// As many are open from the address as may be.
    pub(crate) fn enter(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.sockets.add(address, self.most) { Ok(()) } else { Err(LimitExceeded::Open) }
    }

    /// A socket has ended.
    pub(crate) fn exit(&self, address: Address) {
        self.sockets.remove(address);
    }

    /// A socket is for the live activity. What is counted here, [`stop_listening`](Self::stop_listening) takes back.
    ///
    /// # Errors
    /// As many are open from the address as may be.
    pub(crate) fn listen(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.live.add(address, self.most_live) { Ok(()) } else { Err(LimitExceeded::Live) }
    }

    /// A socket for the live activity has ended.
    pub(crate) fn stop_listening(&self, address: Address) {
        self.live.remove(address);
    }

    /// A connection opens. What is counted here, [`disconnect`](Self::disconnect) takes back.
    ///
    /// # Errors
    /// The address does too much.
    pub(crate) fn connect(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.connections.add(address, self.most) { Ok(()) } else { Err(LimitExceeded::Connected) }
    }

    /// A connection has ended, or has become a socket.
    pub(crate) fn disconnect(&self, address: Address) {
        self.connections.remove(address);
    }

    /// A post comes.
    ///
    /// # Errors
    /// The address does too much.
    pub(crate) fn post(&self, address: Address) -> Result<(), LimitExceeded> {
        self.posts.check_key(&address).map_err(|_| LimitExceeded::Posts)
    }

    /// Any other request comes.
    ///
    /// # Errors
    /// The address does too much.
    pub(crate) fn read(&self, address: Address) -> Result<(), LimitExceeded> {
        self.reads.check_key(&address).map_err(|_| LimitExceeded::Reads)
    }

    /// Somebody asks for what is the admin's, without a good token.
    ///
    /// # Errors
    /// The address has done so too often.
    pub(crate) fn fail_as_admin(&self, address: Address) -> Result<(), LimitExceeded> {
        self.admin_failures.check_key(&address).map_err(|_| LimitExceeded::AdminFailures)
    }

    /// Forgets all who have been slow enough again.
    pub(crate) fn forget_idle(&self) {
        for limiter in [&self.opened, &self.posts, &self.reads, &self.admin_failures] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    /// How many addresses are remembered.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        let open = [&self.sockets, &self.live, &self.connections].map(Open::len);
        let paced = [&self.opened, &self.posts, &self.reads, &self.admin_failures].map(RateLimiter::len);
        open.into_iter().chain(paced).max().unwrap_or_default()
    }
}

impl Open {
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
        let open = |address| addresses.ask(address).and_then(|()| addresses.enter(address));
        for _ in 0..12 {
            assert_eq!(open(address(1)), Ok(()));
        }
        assert_eq!(addresses.enter(address(1)), Err(LimitExceeded::Open));
        assert_eq!(
            addresses.ask(address(1)),
            Err(LimitExceeded::Open),
            "which is known before the token is read"
        );
        addresses.exit(address(1));
        assert_eq!(open(address(1)), Ok(()));
        for _ in 0..6 {
            addresses.exit(address(1));
            assert_eq!(addresses.ask(address(1)), Ok(()), "refused later, it counts as well");
            assert_eq!(addresses.enter(address(1)), Ok(()));
        }
        addresses.exit(address(1));
        assert_eq!(open(address(1)), Err(LimitExceeded::Opened), "20 at once, and then 2 a second");
        assert_eq!(open(address(2)), Ok(()), "others are not slowed down");
        clock.advance(Duration::from_millis(500));
        assert_eq!(open(address(1)), Ok(()));
    }

    #[test]
    fn posts_are_a_count_of_their_own() {
        let (addresses, clock) = addresses();
        for _ in 0..10 {
            assert_eq!(addresses.post(address(1)), Ok(()));
        }
        assert_eq!(addresses.post(address(1)), Err(LimitExceeded::Posts));
        assert_eq!((addresses.post(address(2)), addresses.enter(address(1))), (Ok(()), Ok(())));
        clock.advance(Duration::from_secs(1));
        assert_eq!(addresses.post(address(1)), Ok(()));
    }

    #[test]
    fn reads_are_a_count_of_their_own() {
        let (addresses, clock) = addresses();
        for _ in 0..10 {
            assert_eq!(addresses.read(address(1)), Ok(()));
        }
        assert_eq!(addresses.read(address(1)), Err(LimitExceeded::Reads));
        assert_eq!((addresses.read(address(2)), addresses.post(address(1))), (Ok(()), Ok(())));
        clock.advance(Duration::from_secs(1));
        assert_eq!(addresses.read(address(1)), Ok(()));
    }

    #[test]
    fn sockets_for_the_live_activity_are_fewer() {
        let (addresses, _) = addresses();
        for _ in 0..3 {
            assert_eq!(addresses.listen(address(1)), Ok(()));
        }
        assert_eq!(addresses.listen(address(1)), Err(LimitExceeded::Live));
        assert_eq!((addresses.listen(address(2)), addresses.enter(address(1))), (Ok(()), Ok(())));
        addresses.stop_listening(address(1));
        assert_eq!(addresses.listen(address(1)), Ok(()));
    }

    #[test]
    fn as_many_connections_may_be_open_besides() {
        let (addresses, _) = addresses();
        for _ in 0..12 {
            assert_eq!(addresses.connect(address(1)), Ok(()));
        }
        assert_eq!(addresses.connect(address(1)), Err(LimitExceeded::Connected));
        assert_eq!((addresses.connect(address(2)), addresses.enter(address(1))), (Ok(()), Ok(())));
        addresses.disconnect(address(1));
        assert_eq!(addresses.connect(address(1)), Ok(()));
    }

    #[test]
    fn who_is_idle_is_forgotten() {
        let (addresses, clock) = addresses();
        for last in 0..=255 {
            addresses.ask(address(last)).unwrap();
            addresses.enter(address(last)).unwrap();
            addresses.post(address(last)).unwrap();
            addresses.read(address(last)).unwrap();
            addresses.exit(address(last));
        }
        assert_eq!(addresses.len(), 256);
        clock.advance(Duration::from_secs(11));
        addresses.forget_idle();
        assert_eq!(addresses.len(), 0);
    }
}
