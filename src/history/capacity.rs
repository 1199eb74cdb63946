//! The journal's capacity: how much may wait to be written, in events and in bytes, and who holds how much of it.
//!
//! One address may not fill the journal for the others (see [`Quota`]). What an epoch holds is given back when it
//! is committed. Pure, but for the quotas' locks.

use std::collections::HashMap;
use std::ops::AddAssign;

use super::event::Batch;
use crate::address::Address;
use crate::quota::{Exhausted, Quota, Sharing};
use crate::rejections::Limit;

/// How far the hub's own measures may go beyond the limits: to this many times as much.
const MEASURED: u64 = 2;

/// How much may be pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JournalLimits {
    /// The most events. A sample of a total counts as one.
    pub events: usize,
    /// The most bytes that they may take in memory.
    pub bytes: usize,
    /// Who may have how much of both.
    pub sharing: Sharing,
}

/// The journal has no room: nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalFull {
    /// For nobody.
    #[error("the event queue is full: send it again later")]
    Queue,
    /// For this address.
    #[error("too many events of your address wait to be written: send it again later")]
    Address,
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
        }
    }
}

/// How much some events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchSize {
    /// How many.
    pub events: u64,
    /// How many bytes of memory they take.
    pub bytes: u64,
}

impl BatchSize {
    /// The size of a batch.
    #[must_use]
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

/// What the events of one epoch hold of the capacity, by address; the hub's own have none.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    by_address: HashMap<Option<Address>, BatchSize>,
    total: BatchSize,
}

impl Reservations {
    /// What all hold together.
    pub(super) fn total(&self) -> BatchSize {
        self.total
    }

    fn add(&mut self, address: Option<Address>, size: BatchSize) {
        if size != BatchSize::default() {
            *self.by_address.entry(address).or_default() += size;
            self.total += size;
        }
    }
}

/// How much is pending and how much may be.
#[derive(Debug)]
pub(super) struct Capacity {
    events: Quota,
    bytes: Quota,
}

impl Capacity {
    pub(super) fn new(limits: JournalLimits) -> Self {
        let quota = |limit: usize| Quota::new(limit as u64, limits.sharing);
        Self { events: quota(limits.events), bytes: quota(limits.bytes) }
    }

    /// Takes room for `size`, which `reservations` keeps.
    ///
    /// # Errors
    /// There is none; nothing was taken.
    pub(super) fn reserve(
        &self,
        reservations: &mut Reservations,
        address: Option<Address>,
        size: BatchSize,
    ) -> Result<(), JournalFull> {
        self.events.try_take(address, size.events)?;
        if let Err(exhausted) = self.bytes.try_take(address, size.bytes) {
            self.events.release(address, size.events);
            return Err(exhausted.into());
        }
        reservations.add(address, size);
        Ok(())
    }

    /// Takes room for what the hub itself has measured, even beyond the limits, up to twice as much.
    ///
    /// # Errors
    /// There is that much.
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

    /// Gives back all that an epoch holds.
    pub(super) fn release(&self, reservations: &mut Reservations) {
        reservations.total = BatchSize::default();
        for (address, size) in reservations.by_address.drain() {
            self.events.release(address, size.events);
            self.bytes.release(address, size.bytes);
        }
    }

    /// Whether `pending`, of an epoch that is open, is so much that it had better be flushed: a quarter.
    pub(super) fn is_flush_due(&self, pending: BatchSize) -> bool {
        pending.events >= self.events.limit() / 4 || pending.bytes >= self.bytes.limit() / 4
    }

    /// Whether newcomers find next to no room either.
    pub(super) fn is_full(&self) -> bool {
        self.events.is_full() || self.bytes.is_full()
    }

    pub(super) fn limits(&self) -> BatchSize {
        BatchSize { events: self.events.limit(), bytes: self.bytes.limit() }
    }

    /// Bytes that are pending.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.used()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn size(events: u64, bytes: u64) -> BatchSize {
        BatchSize { events, bytes }
    }

    fn address(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn events_and_bytes_are_both_bounded_and_what_is_rejected_holds_nothing() {
        let capacity = Capacity::new(JournalLimits { events: 10, bytes: 100, sharing: Sharing::FirstCome });
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
    fn an_address_has_a_quota_of_events_and_of_bytes_and_the_hub_none() {
        let capacity = Capacity::new(JournalLimits { events: 800, bytes: 8_000, sharing: Sharing::Fair });
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
    fn what_the_hub_measured_goes_beyond_the_limits_but_not_on_and_on() {
        let capacity = Capacity::new(JournalLimits { events: 10, bytes: 100, sharing: Sharing::Fair });
        let mut reserved = Reservations::default();
        for _ in 0..20 {
            assert_eq!(capacity.reserve_measured(&mut reserved, size(1, 1)), Ok(()));
        }
        assert_eq!(capacity.reserve_measured(&mut reserved, size(1, 1)), Err(JournalFull::Queue));
        capacity.release(&mut reserved);
        assert_eq!(capacity.reserve_measured(&mut reserved, size(1, 201)), Err(JournalFull::Queue));
    }
}
