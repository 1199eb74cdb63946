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
pub(crate) struct Limits {
    /// The most events. A sample of a census counts as one.
    pub events: usize,
    /// The most bytes that they may take in memory.
    pub bytes: usize,
    /// Who may have how much of both.
    pub sharing: Sharing,
}

/// The journal has no room: nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// For nobody.
    #[error("the event queue is full: send it again later")]
    Queue,
    /// For this address.
    #[error("too many events of your address wait to be written: send it again later")]
    Address,
}

impl From<Exhausted> for Full {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Total => Self::Queue,
            Exhausted::Address => Self::Address,
        }
    }
}

impl From<Full> for Limit {
    fn from(full: Full) -> Self {
        match full {
            Full::Queue => Self::Queue,
            Full::Address => Self::AddressQueue,
        }
    }
}

/// How much some events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Size {
    /// How many.
    pub events: u64,
    /// How many bytes of memory they take.
    pub bytes: u64,
}

impl Size {
    /// The size of a batch.
    #[must_use]
    pub(crate) fn of(batch: &Batch) -> Self {
        Self { events: batch.weight() as u64, bytes: batch.bytes() as u64 }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// What the events of one epoch hold of the capacity, by address; the hub's own have none.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    by_holder: HashMap<Option<Address>, Size>,
    total: Size,
}

impl Holdings {
    /// What all hold together.
    pub(super) fn total(&self) -> Size {
        self.total
    }

    fn add(&mut self, holder: Option<Address>, size: Size) {
        if size != Size::default() {
            *self.by_holder.entry(holder).or_default() += size;
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
    pub(super) fn new(limits: Limits) -> Self {
        let quota = |limit: usize| Quota::new(limit as u64, limits.sharing);
        Self { events: quota(limits.events), bytes: quota(limits.bytes) }
    }

    /// Takes room for `size`, which `holdings` keeps.
    ///
    /// # Errors
    /// There is none; nothing was taken.
    pub(super) fn take(
        &self,
        holdings: &mut Holdings,
        holder: Option<Address>,
        size: Size,
    ) -> Result<(), Full> {
        self.events.try_take(holder, size.events)?;
        if let Err(exhausted) = self.bytes.try_take(holder, size.bytes) {
            self.events.release(holder, size.events);
            return Err(exhausted.into());
        }
        holdings.add(holder, size);
        Ok(())
    }

    /// Takes room for what the hub itself has measured, even beyond the limits, up to twice as much.
    ///
    /// # Errors
    /// There is that much.
    pub(super) fn take_measured(&self, holdings: &mut Holdings, size: Size) -> Result<(), Full> {
        let is_over = |quota: &Quota, more| quota.used().saturating_add(more) > quota.limit() * MEASURED;
        if is_over(&self.events, size.events) || is_over(&self.bytes, size.bytes) {
            return Err(Full::Queue);
        }
        self.events.take_over_limit(size.events);
        self.bytes.take_over_limit(size.bytes);
        holdings.add(None, size);
        Ok(())
    }

    /// Gives back all that an epoch holds.
    pub(super) fn release(&self, holdings: &mut Holdings) {
        holdings.total = Size::default();
        for (holder, size) in holdings.by_holder.drain() {
            self.events.release(holder, size.events);
            self.bytes.release(holder, size.bytes);
        }
    }

    /// Whether `pending`, of an epoch that is open, is so much that it had better be flushed: a quarter.
    pub(super) fn is_worth_a_flush(&self, pending: Size) -> bool {
        pending.events >= self.events.limit() / 4 || pending.bytes >= self.bytes.limit() / 4
    }

    /// Whether newcomers find next to no room either.
    pub(super) fn is_full(&self) -> bool {
        self.events.is_full() || self.bytes.is_full()
    }

    pub(super) fn limits(&self) -> Size {
        Size { events: self.events.limit(), bytes: self.bytes.limit() }
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

    fn size(events: u64, bytes: u64) -> Size {
        Size { events, bytes }
    }

    fn holder(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn events_and_bytes_are_both_bounded_and_what_is_rejected_holds_nothing() {
        let capacity = Capacity::new(Limits { events: 10, bytes: 100, sharing: Sharing::FirstCome });
        let mut held = Holdings::default();
        assert_eq!(capacity.take(&mut held, Some(holder(1)), size(1, 101)), Err(Full::Queue));
        assert_eq!(capacity.take(&mut held, Some(holder(1)), size(11, 1)), Err(Full::Queue));
        assert_eq!(capacity.take(&mut held, Some(holder(1)), size(10, 50)), Ok(()), "nothing was held");
        assert_eq!(held.total(), size(10, 50));
        capacity.release(&mut held);
        assert_eq!((held.total(), capacity.bytes()), (size(0, 0), 0));
        assert_eq!(capacity.take(&mut held, Some(holder(1)), size(1, 100)), Ok(()));
        assert!(capacity.is_full());
    }

    #[test]
    fn an_address_has_a_quota_of_events_and_of_bytes_and_the_hub_none() {
        let capacity = Capacity::new(Limits { events: 800, bytes: 8_000, sharing: Sharing::Fair });
        let mut held = Holdings::default();
        assert_eq!(capacity.take(&mut held, Some(holder(1)), size(350, 1)), Ok(()));
        assert_eq!(capacity.take(&mut held, Some(holder(1)), size(1, 1)), Err(Full::Address));
        assert_eq!(capacity.take(&mut held, Some(holder(2)), size(1, 3_499)), Ok(()));
        assert_eq!(capacity.take(&mut held, Some(holder(2)), size(1, 1)), Err(Full::Address));
        assert_eq!(capacity.take(&mut held, Some(holder(3)), size(100, 1_000)), Ok(()));
        assert_eq!(capacity.take(&mut held, None, size(349, 3_500)), Ok(()));
        assert_eq!(capacity.take(&mut held, None, size(1, 1)), Err(Full::Queue));
        capacity.release(&mut held);
        assert_eq!(capacity.events.addresses() + capacity.bytes.addresses(), 0);
    }

    #[test]
    fn what_the_hub_measured_goes_beyond_the_limits_but_not_on_and_on() {
        let capacity = Capacity::new(Limits { events: 10, bytes: 100, sharing: Sharing::Fair });
        let mut held = Holdings::default();
        for _ in 0..20 {
            assert_eq!(capacity.take_measured(&mut held, size(1, 1)), Ok(()));
        }
        assert_eq!(capacity.take_measured(&mut held, size(1, 1)), Err(Full::Queue));
        capacity.release(&mut held);
        assert_eq!(capacity.take_measured(&mut held, size(1, 201)), Err(Full::Queue));
    }
}
