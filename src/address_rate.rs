//! The rate of each address (GCRA): how fast it may do something, with a burst.
//!
//! The state of an address is 16 bytes besides its key, and is dropped after it has its whole burst again.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::address::Address;
use crate::time::Clock;

/// A rate that each address has for itself.
#[derive(Debug)]
pub(crate) struct AddressRate(
    RateLimiter<Address, HashMapStateStore<Address>, Clock, NoOpMiddleware<Duration>>,
);

impl AddressRate {
    /// A rate of `per_second`, with a burst of as much as `burst_seconds` have.
    pub(crate) fn new(per_second: NonZeroU32, burst_seconds: NonZeroU32, clock: &Clock) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(per_second.saturating_mul(burst_seconds));
        Self(RateLimiter::new(quota, HashMapStateStore::default(), clock.clone()))
    }

    /// Counts `count` at once, and returns whether the rate allows them. If not, none counts.
    pub(crate) fn allows(&self, address: Address, count: NonZeroU32) -> bool {
        matches!(self.0.check_key_n(&address, count), Ok(Ok(())))
    }

    /// Drops the state of addresses that have their whole burst again.
    pub(crate) fn remove_idle(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }

    /// The number of addresses with state.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
