//! Limits of one address: how many sockets and connections it may have open, and how often it may open a socket, post
//! or send other requests.
//!
//! The defaults are far above what a class behind one router needs, and far below what slows the hub down for others.
//! The state of an address is dropped with its last socket, or seconds after its last request.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::Mutex;

use super::rate::BURST_SECONDS;
use crate::address::Address;
use crate::address_rate::AddressRate;
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
    /// Events a second of one address, over sockets and posts together: at least ten.
    pub events: NonZeroU32,
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
        events: NonZeroU32::new(200).unwrap(),
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

/// The open counts and rates of all addresses, one of each for each limit.
#[derive(Debug)]
pub(crate) struct AddressLimiter {
    pub(super) sockets: OpenCounts,
    /// Sits of visitors, as many as sockets.
    pub(super) sits: OpenCounts,
    pub(super) live_sockets: OpenCounts,
    pub(super) connections: OpenCounts,
    pub(super) socket_requests: Rates,
    pub(super) posts: Rates,
    pub(super) reads: Rates,
    pub(super) admin_failures: Rates,
}

impl AddressLimiter {
    /// The limiter without any state.
    pub(crate) fn new(limits: &Limits, clock: &Clock) -> Self {
        let rates = |rate, exceeded| Rates::new(rate, clock, exceeded);
        Self {
            sockets: OpenCounts::new(limits.sockets, LimitExceeded::OpenSockets),
            sits: OpenCounts::new(limits.sockets, LimitExceeded::OpenSockets),
            live_sockets: OpenCounts::new(limits.live, LimitExceeded::LiveSockets),
            connections: OpenCounts::new(limits.sockets, LimitExceeded::OpenConnections),
            socket_requests: rates(limits.opened, LimitExceeded::SocketRate),
            posts: rates(limits.posts, LimitExceeded::PostRate),
            reads: rates(limits.reads, LimitExceeded::ReadRate),
            admin_failures: rates(ADMIN_FAILURES, LimitExceeded::AdminFailures),
        }
    }

    /// Drops the rates of addresses that have their whole burst again.
    pub(crate) fn remove_idle(&self) {
        for rates in [&self.socket_requests, &self.posts, &self.reads, &self.admin_failures] {
            rates.rate.remove_idle();
        }
    }

    /// The number of addresses with state.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let open =
            [&self.sockets, &self.sits, &self.live_sockets, &self.connections].map(OpenCounts::addresses);
        let rates = [&self.socket_requests, &self.posts, &self.reads, &self.admin_failures];
        open.into_iter().chain(rates.map(|rates| rates.rate.len())).max().unwrap_or_default()
    }
}

/// How many sockets or connections each address has open.
#[derive(Debug)]
pub(crate) struct OpenCounts {
    max: u32,
    exceeded: LimitExceeded,
    /// Only addresses that have any. Held for O(1), when one opens or ends.
    counts: Mutex<HashMap<Address, u32>>,
}

impl OpenCounts {
    fn new(max: NonZeroU32, exceeded: LimitExceeded) -> Self {
        Self { max: max.get(), exceeded, counts: Mutex::default() }
    }

    /// Whether the address may open one more.
    pub(crate) fn check(&self, address: Address) -> Result<(), LimitExceeded> {
        let has_room = lock(&self.counts).get(&address).is_none_or(|count| *count < self.max);
        if has_room { Ok(()) } else { Err(self.exceeded) }
    }

    /// Counts one that opens, until [`remove`](Self::remove).
    pub(crate) fn add(&self, address: Address) -> Result<(), LimitExceeded> {
        let mut counts = lock(&self.counts);
        let count = counts.entry(address).or_default();
        if *count >= self.max {
            return Err(self.exceeded);
        }
        *count += 1;
        Ok(())
    }

    /// The number of addresses that have any.
    #[cfg(test)]
    pub(crate) fn addresses(&self) -> usize {
        lock(&self.counts).len()
    }

    /// Counts the end of one.
    pub(crate) fn remove(&self, address: Address) {
        if let Entry::Occupied(mut entry) = lock(&self.counts).entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// How fast each address sends requests of one kind (GCRA).
#[derive(Debug)]
pub(crate) struct Rates {
    rate: AddressRate,
    exceeded: LimitExceeded,
}

impl Rates {
    fn new(rate: NonZeroU32, clock: &Clock, exceeded: LimitExceeded) -> Self {
        Self { rate: AddressRate::new(rate, BURST_SECONDS, clock), exceeded }
    }

    /// Counts a request.
    pub(crate) fn check(&self, address: Address) -> Result<(), LimitExceeded> {
        if self.rate.allows(address, NonZeroU32::MIN) { Ok(()) } else { Err(self.exceeded) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

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
            events: few(10),
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
        let ask = |address| {
            addresses.socket_requests.check(address).and_then(|()| addresses.sockets.check(address))
        };
        let open = |address| ask(address).and_then(|()| addresses.sockets.add(address));
        for _ in 0..12 {
            assert_eq!(open(address(1)), Ok(()));
        }
        assert_eq!(addresses.sockets.add(address(1)), Err(LimitExceeded::OpenSockets));
        assert_eq!(ask(address(1)), Err(LimitExceeded::OpenSockets), "checked before the token");
        addresses.sockets.remove(address(1));
        assert_eq!(open(address(1)), Ok(()));
        for _ in 0..6 {
            addresses.sockets.remove(address(1));
            assert_eq!(ask(address(1)), Ok(()), "it counts even if the socket does not open");
            assert_eq!(addresses.sockets.add(address(1)), Ok(()));
        }
        addresses.sockets.remove(address(1));
        assert_eq!(open(address(1)), Err(LimitExceeded::SocketRate), "a burst of 20, then 2 a second");
        assert_eq!(open(address(2)), Ok(()), "other addresses are not limited");
        clock.advance(Duration::from_millis(500));
        assert_eq!(open(address(1)), Ok(()));
    }

    #[test]
    fn each_rate_has_its_own_limit() {
        let (addresses, clock) = addresses();
        for rates in [&addresses.posts, &addresses.reads] {
            for _ in 0..10 {
                assert_eq!(rates.check(address(1)), Ok(()));
            }
            assert_eq!((rates.check(address(1)), rates.check(address(2))), (Err(rates.exceeded), Ok(())));
        }
        assert_eq!(addresses.socket_requests.check(address(1)), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!((addresses.posts.check(address(1)), addresses.reads.check(address(1))), (Ok(()), Ok(())));
    }

    #[test]
    fn each_open_count_has_its_own_limit() {
        let (addresses, _) = addresses();
        for (open, max) in [(&addresses.live_sockets, 3), (&addresses.connections, 12)] {
            for _ in 0..max {
                assert_eq!(open.add(address(1)), Ok(()));
            }
            assert_eq!((open.add(address(1)), open.add(address(2))), (Err(open.exceeded), Ok(())));
            open.remove(address(1));
            assert_eq!(open.add(address(1)), Ok(()));
        }
        assert_eq!(addresses.sockets.add(address(1)), Ok(()));
    }

    #[test]
    fn state_of_idle_addresses_is_dropped() {
        let (addresses, clock) = addresses();
        for last in 0..=255 {
            addresses.socket_requests.check(address(last)).unwrap();
            addresses.sockets.add(address(last)).unwrap();
            addresses.posts.check(address(last)).unwrap();
            addresses.reads.check(address(last)).unwrap();
            addresses.sockets.remove(address(last));
        }
        assert_eq!(addresses.len(), 256);
        clock.advance(Duration::from_secs(11));
        addresses.remove_idle();
        assert_eq!(addresses.len(), 0);
    }
}
