//! The journal's capacity: limits of pending events and bytes, with a quota of both for each address, and a rate.
//!
//! The quota keeps one address from filling the journal (see [`Quota`]), and the rate from keeping the writer busy. An
//! epoch's reservations are released when it is committed. Pure, except for the locks of quotas and rates.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::AddAssign;

use super::event::Batch;
use crate::address::Address;
use crate::address_rate::AddressRate;
use crate::quota::{Exhausted, Quota, Sharing};
use crate::rejections::Limit;
use crate::time::Clock;

/// The hub's own measures may use this many times the limits.
const MEASURED: u64 = 2;

/// The burst of events of one address, in seconds of the rate: with the default, a class of 300 may send sixteen events
/// each at once.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(25).unwrap();

/// The smallest rate: its burst has room for two posts of 100 events.
pub(crate) const RATE_MIN: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Limits of pending events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JournalLimits {
    /// Limit of events. A room sample counts as one.
    pub events: usize,
    /// Limit of their memory, in bytes.
    pub bytes: usize,
    /// How addresses share both limits.
    pub sharing: Sharing,
    /// Events a second of one address; none if rate limits are off. At least [`RATE_MIN`].
    pub rate: Option<NonZeroU32>,
}

/// The journal has no room; nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalFull {
    /// The whole journal is full.
    #[error("the event queue is full: send it again later")]
    Queue,
    /// The address's quota is full.
    #[error("too many events of your address wait to be written: send it again later")]
    Address,
    /// The address sends events faster than its rate.
    #[error("your address sends too many events: send it again later")]
    Rate,
}

impl From<Exhausted> for JournalFull {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Total => Self::Queue,
            Exhausted::Address => Self::Address,
        }
    }
}

impl From<JournalFull> for Limit {
    fn from(full: JournalFull) -> Self {
        match full {
            JournalFull::Queue => Self::Queue,
            JournalFull::Address => Self::AddressQueue,
            JournalFull::Rate => Self::AddressEventRate,
        }
    }
}

/// The size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchSize {
    /// Number of events.
    pub events: u64,
    /// Their memory, in bytes.
    pub bytes: u64,
}

impl BatchSize {
    /// The size of a batch.
    pub(crate) fn of(batch: &Batch) -> Self {
        Self { events: batch.weight() as u64, bytes: batch.bytes() as u64 }
    }
}

impl AddAssign for BatchSize {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// What the events of one epoch reserve of the capacity, by address; the hub's own have none.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    by_address: HashMap<Option<Address>, BatchSize>,
    total: BatchSize,
}

impl Reservations {
    /// The sum of all reservations.
    pub(super) fn total(&self) -> BatchSize {
        self.total
    }

    /// Takes over the reservations of another epoch.
    pub(super) fn absorb(&mut self, other: Self) {
        for (address, size) in other.by_address {
            self.add(address, size);
        }
    }

    fn add(&mut self, address: Option<Address>, size: BatchSize) {
        if size != BatchSize::default() {
            *self.by_address.entry(address).or_default() += size;
            self.total += size;
        }
    }
}

/// Used and total capacity.
#[derive(Debug)]
pub(super) struct Capacity {
    events: Quota,
    bytes: Quota,
    rate: Option<AddressRate>,
}

impl Capacity {
    pub(super) fn new(limits: JournalLimits, clock: &Clock) -> Self {
        let quota = |limit: usize| Quota::new(limit as u64, limits.sharing);
        let rate = limits.rate.map(|rate| AddressRate::new(rate.max(RATE_MIN), BURST_SECONDS, clock));
        Self { events: quota(limits.events), bytes: quota(limits.bytes), rate }
    }

    /// Reserves `size` and adds it to `reservations`.
    /// Errors: a limit, or the address's rate or quota is exceeded; nothing is reserved.
    pub(super) fn reserve(
        &self,
        reservations: &mut Reservations,
        address: Option<Address>,
        size: BatchSize,
    ) -> Result<(), JournalFull> {
        self.check_rate(address, size.events)?;
        self.events.try_take(address, size.events)?;
        if let Err(exhausted) = self.bytes.try_take(address, size.bytes) {
            self.events.release(address, size.events);
            return Err(exhausted.into());
        }
        reservations.add(address, size);
        Ok(())
    }

    /// Counts events of an address. The hub's own have no rate.
    fn check_rate(&self, address: Option<Address>, events: u64) -> Result<(), JournalFull> {
        let (Some(rate), Some(address)) = (&self.rate, address) else { return Ok(()) };
        let Some(events) = u32::try_from(events).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        if rate.allows(address, events) { Ok(()) } else { Err(JournalFull::Rate) }
    }

    /// Drops the rates of addresses that have their whole burst again.
    pub(super) fn remove_idle(&self) {
        if let Some(rate) = &self.rate {
            rate.remove_idle();
        }
    }

    /// Whether an address holds no more than every address may hold, whatever the others do.
    pub(super) fn holds_little(&self, address: Address) -> bool {
        self.events.holds_little(address) && self.bytes.holds_little(address)
    }

    /// Reserves `size` for a measure of the hub itself, up to twice the limits.
    /// Errors: twice the limit is used.
    pub(super) fn reserve_measured(
        &self,
        reservations: &mut Reservations,
        size: BatchSize,
    ) -> Result<(), JournalFull> {
        let is_over = |quota: &Quota, more| quota.used().saturating_add(more) > quota.limit() * MEASURED;
        if is_over(&self.events, size.events) || is_over(&self.bytes, size.bytes) {
            return Err(JournalFull::Queue);
        }
        self.events.take_over_limit(size.events);
        self.bytes.take_over_limit(size.bytes);
        reservations.add(None, size);
        Ok(())
    }

    /// Releases all reservations of an epoch.
    pub(super) fn release(&self, reservations: &mut Reservations) {
        reservations.total = BatchSize::default();
        for (address, size) in reservations.by_address.drain() {
            self.events.release(address, size.events);
            self.bytes.release(address, size.bytes);
        }
    }

    /// Returns whether the open epoch has a quarter of a limit, so that a flush is due.
    pub(super) fn is_flush_due(&self, pending: BatchSize) -> bool {
        pending.events >= self.events.limit() / 4 || pending.bytes >= self.bytes.limit() / 4
    }

    /// Returns whether a new address finds almost no room.
    pub(super) fn is_full(&self) -> bool {
        self.events.is_full() || self.bytes.is_full()
    }

    pub(super) fn limits(&self) -> BatchSize {
        BatchSize { events: self.events.limit(), bytes: self.bytes.limit() }
    }

    /// Pending bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.used()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::protocol::Time;

    fn size(events: u64, bytes: u64) -> BatchSize {
        BatchSize { events, bytes }
    }

    fn address(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn events_and_bytes_are_bounded_and_rejected_batches_reserve_nothing() {
        let capacity = Capacity::new(
            JournalLimits { events: 10, bytes: 100, sharing: Sharing::FirstCome, rate: None },
            &Clock::system(),
        );
        let mut reserved = Reservations::default();
        assert_eq!(capacity.reserve(&mut reserved, Some(address(1)), size(1, 101)), Err(JournalFull::Queue));
        assert_eq!(capacity.reserve(&mut reserved, Some(address(1)), size(11, 1)), Err(JournalFull::Queue));
        assert_eq!(
            capacity.reserve(&mut reserved, Some(address(1)), size(10, 50)),
            Ok(()),
            "nothing was reserved"
        );
        assert_eq!(reserved.total(), size(10, 50));
        capacity.release(&mut reserved);
        assert_eq!((reserved.total(), capacity.bytes()), (size(0, 0), 0));
        assert_eq!(capacity.reserve(&mut reserved, Some(address(1)), size(1, 100)), Ok(()));
        assert!(capacity.is_full());
    }

    #[test]
    fn addresses_have_a_quota_of_events_and_bytes_and_the_hub_has_none() {
        let capacity = Capacity::new(
            JournalLimits { events: 800, bytes: 8_000, sharing: Sharing::Fair, rate: None },
            &Clock::system(),
        );
        let mut reserved = Reservations::default();
        assert_eq!(capacity.reserve(&mut reserved, Some(address(1)), size(350, 1)), Ok(()));
        assert_eq!(capacity.reserve(&mut reserved, Some(address(1)), size(1, 1)), Err(JournalFull::Address));
        assert_eq!(capacity.reserve(&mut reserved, Some(address(2)), size(1, 3_499)), Ok(()));
        assert_eq!(capacity.reserve(&mut reserved, Some(address(2)), size(1, 1)), Err(JournalFull::Address));
        assert_eq!(capacity.reserve(&mut reserved, Some(address(3)), size(100, 1_000)), Ok(()));
        assert_eq!(capacity.reserve(&mut reserved, None, size(349, 3_500)), Ok(()));
        assert_eq!(capacity.reserve(&mut reserved, None, size(1, 1)), Err(JournalFull::Queue));
        capacity.release(&mut reserved);
        assert_eq!(capacity.events.addresses() + capacity.bytes.addresses(), 0);
    }

    #[test]
    fn measures_of_the_hub_may_use_twice_the_limits() {
        let capacity = Capacity::new(
            JournalLimits { events: 10, bytes: 100, sharing: Sharing::Fair, rate: None },
            &Clock::system(),
        );
        let mut reserved = Reservations::default();
        for _ in 0..20 {
            assert_eq!(capacity.reserve_measured(&mut reserved, size(1, 1)), Ok(()));
        }
        assert_eq!(capacity.reserve_measured(&mut reserved, size(1, 1)), Err(JournalFull::Queue));
        capacity.release(&mut reserved);
        assert_eq!(capacity.reserve_measured(&mut reserved, size(1, 201)), Err(JournalFull::Queue));
    }

    #[test]
    fn address_has_a_rate_of_events_with_a_burst_of_25_seconds() {
        let clock = Clock::manual(Time::from_millis(0));
        let rate = NonZeroU32::new(20);
        let limits = JournalLimits { events: 10_000, bytes: 10_000, sharing: Sharing::Fair, rate };
        let (capacity, mut reserved) = (Capacity::new(limits, &clock), Reservations::default());
        let mut reserve = |holder, events| capacity.reserve(&mut reserved, holder, size(events, 1));
        assert_eq!(reserve(Some(address(1)), 400), Ok(()));
        assert_eq!(reserve(Some(address(1)), 100), Ok(()));
        assert_eq!(reserve(Some(address(1)), 1), Err(JournalFull::Rate));
        assert_eq!(reserve(Some(address(2)), 1), Ok(()), "another address");
        assert_eq!(reserve(None, 300), Ok(()), "the hub");
        clock.advance(Duration::from_millis(500));
        assert_eq!(reserve(Some(address(1)), 11), Err(JournalFull::Rate));
        assert_eq!(reserve(Some(address(1)), 10), Ok(()));
        let addresses = || capacity.rate.as_ref().map(AddressRate::len);
        assert_eq!(addresses(), Some(2));
        clock.advance(Duration::from_secs(26));
        capacity.remove_idle();
        assert_eq!(addresses(), Some(0));
    }
}
