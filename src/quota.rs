//! Quotas: how much of a shared resource each address may hold, so that no address can use it up for the others.
//!
//! The rule is that of dynamic thresholds in shared-memory switches (Choudhury and Hahne, 1998): an address may hold at
//! most as much as is free. So one address alone gets about half, and fifty that grow together get about 1/51 each. A
//! reserve is left for addresses that hold almost nothing, so that a new address gets something even after many others
//! took all that they could. Pure, except for its lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use crate::address::Address;
use crate::sync::lock;

/// The reserve, 1/8 of the limit: only for addresses that hold no more than the [`GUARANTEED`] part.
const RESERVE: u64 = 8;

/// The guaranteed part, 1/1,024 of the limit and at least 1: an address may hold that much until the limit is reached.
/// The reserve is enough for 128 addresses.
const GUARANTEED: u64 = 1_024;

/// How addresses share the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Each address may hold at most as much as is free.
    Fair,
    /// Only the limit applies: if rate limits are off.
    FirstCome,
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// The address has used up its quota.
    #[error("too much of your address is pending")]
    Address,
    /// All addresses together have reached the limit.
    #[error("too much is pending")]
    Total,
}

/// A resource with a limit, such as bytes or entries, that addresses share.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    sharing: Sharing,
    /// Held for O(1). No other lock is taken meanwhile.
    usage: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    /// Of all addresses and of the hub itself.
    total: u64,
    /// Only of addresses that hold something. Empty unless the sharing is fair.
    by_address: HashMap<Address, u64>,
}

impl Quota {
    /// A resource with this limit, of which nothing is used.
    pub(crate) fn new(limit: u64, sharing: Sharing) -> Self {
        Self { limit, sharing, usage: Mutex::default() }
    }

    /// The limit.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The amount in use.
    pub(crate) fn used(&self) -> u64 {
        lock(&self.usage).total
    }

    /// Whether only the reserve is left, if there is one.
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.limit - self.reserve()
    }

    /// The number of addresses that hold something.
    #[cfg(test)]
    pub(crate) fn addresses(&self) -> usize {
        lock(&self.usage).by_address.len()
    }

    /// Takes `amount` for an address, or for the hub itself, for which only the limit applies. The amount is in use until
    /// it is [released](Self::release).
    /// Errors: the quota or the limit is exceeded; nothing is taken.
    pub(crate) fn try_take(&self, holder: impl Into<Option<Address>>, amount: u64) -> Result<(), Exhausted> {
        let holder = holder.into();
        let mut usage = lock(&self.usage);
        let total = usage.total.saturating_add(amount);
        if total > self.limit {
            return Err(Exhausted::Total);
        }
        if let Some(address) = self.counted(holder).filter(|_| amount > 0) {
            let own = usage.by_address.get(&address).copied().unwrap_or_default().saturating_add(amount);
            if !self.is_fair(own, total) {
                return Err(Exhausted::Address);
            }
            usage.by_address.insert(address, own);
        }
        usage.total = total;
        Ok(())
    }

    /// Whether an address holds at most the guaranteed part.
    pub(crate) fn holds_little(&self, address: Address) -> bool {
        let held = lock(&self.usage).by_address.get(&address).copied().unwrap_or_default();
        held <= (self.limit / GUARANTEED).max(1)
    }

    /// Takes `amount` for the hub itself, even beyond the limit.
    pub(crate) fn take_over_limit(&self, amount: u64) {
        let mut usage = lock(&self.usage);
        usage.total = usage.total.saturating_add(amount);
    }

    /// Releases what was taken, or a part of it.
    pub(crate) fn release(&self, holder: impl Into<Option<Address>>, amount: u64) {
        let mut usage = lock(&self.usage);
        usage.total = usage.total.saturating_sub(amount);
        if let Some(address) = self.counted(holder.into())
            && let Entry::Occupied(mut entry) = usage.by_address.entry(address)
        {
            *entry.get_mut() = entry.get().saturating_sub(amount);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// Takes `amount` for an address until the permit is dropped.
    /// Errors: the quota or the limit is exceeded; nothing is taken.
    pub(crate) fn try_acquire(self: &Arc<Self>, address: Address, amount: u64) -> Result<Permit, Exhausted> {
        self.try_take(address, amount)?;
        Ok(Permit { quota: Arc::clone(self), address, amount })
    }

    /// Returns the address of the holder if its usage is counted.
    fn counted(&self, holder: Option<Address>) -> Option<Address> {
        holder.filter(|_| self.sharing == Sharing::Fair)
    }

    fn reserve(&self) -> u64 {
        if self.sharing == Sharing::Fair { self.limit / RESERVE } else { 0 }
    }

    /// Whether an address may hold `own` if `total` is in use.
    fn is_fair(&self, own: u64, total: u64) -> bool {
        let free = (self.limit - self.reserve()).saturating_sub(total);
        own <= free || own <= (self.limit / GUARANTEED).max(1)
    }
}

/// An amount of a [`Quota`] that an address holds. Dropping it releases the amount.
#[derive(Debug)]
pub(crate) struct Permit {
    quota: Arc<Quota>,
    address: Address,
    amount: u64,
}

impl Permit {
    /// Takes `more`.
    /// Errors: the quota or the limit is exceeded; the permit does not change.
    pub(crate) fn grow(&mut self, more: u64) -> Result<(), Exhausted> {
        self.quota.try_take(self.address, more)?;
        self.amount += more;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.quota.release(self.address, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};
    use proptest::{prop_assert, prop_assert_eq};

    use super::*;

    const LIMIT: u64 = 64 * 1024;

    fn address(number: u32) -> Address {
        Ipv4Addr::from_bits(number).into()
    }

    /// Takes one by one until an error, and returns the sum.
    fn take_all(quota: &Quota, address: Address) -> u64 {
        (0..=LIMIT).take_while(|_| quota.try_take(address, 1).is_ok()).count() as u64
    }

    #[test]
    fn one_address_alone_gets_7_16_of_the_limit() {
        let quota = Quota::new(LIMIT, Sharing::Fair);
        assert_eq!(take_all(&quota, address(1)), LIMIT * 7 / 16);
        assert_eq!(quota.try_take(address(1), 1), Err(Exhausted::Address));
        assert_eq!(quota.try_take(address(2), LIMIT / 8), Ok(()), "others may take what is free");
    }

    #[test]
    fn fifty_addresses_that_grow_together_get_equal_parts() {
        let quota = Quota::new(LIMIT, Sharing::Fair);
        let got = (0..LIMIT).fold([0_u64; 50], |mut got, _| {
            for (number, got) in (0..).zip(&mut got) {
                *got += u64::from(quota.try_take(address(number), 1).is_ok());
            }
            got
        });
        let expected = LIMIT * 7 / 8 / 51;
        assert!(got.iter().all(|got| (expected - 1..=expected + 1).contains(got)), "{got:?}");
    }

    #[test]
    fn new_address_gets_the_guaranteed_part_after_many_greedy_ones() {
        let quota = Quota::new(LIMIT, Sharing::Fair);
        for number in 0..128 {
            assert!(take_all(&quota, address(number)) >= LIMIT / GUARANTEED, "{number}");
        }
    }

    #[test]
    fn only_the_limit_applies_to_the_hub_itself() {
        let quota = Quota::new(10, Sharing::Fair);
        assert_eq!(quota.try_take(None, 10), Ok(()));
        assert_eq!(quota.try_take(None, 1), Err(Exhausted::Total));
        quota.take_over_limit(5);
        assert_eq!((quota.used(), quota.addresses()), (15, 0));
        quota.release(None, 15);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn only_the_limit_applies_without_rate_limits() {
        let quota = Quota::new(10, Sharing::FirstCome);
        assert_eq!(take_all(&quota, address(1)), 10);
        assert_eq!(quota.try_take(address(2), 1), Err(Exhausted::Total));
        quota.release(address(1), 10);
        assert_eq!((quota.used(), quota.addresses()), (0, 0));
    }

    #[test]
    fn permit_releases_all_that_it_took() {
        let quota = Arc::new(Quota::new(100, Sharing::Fair));
        let mut permit = quota.try_acquire(address(1), 10).unwrap();
        assert_eq!(permit.grow(20), Ok(()));
        assert_eq!(permit.grow(71), Err(Exhausted::Total));
        assert_eq!(permit.grow(60), Err(Exhausted::Address));
        assert_eq!(quota.used(), 30);
        drop(permit);
        assert_eq!((quota.used(), quota.addresses()), (0, 0));
    }

    proptest! {
        #[test]
        fn usage_stays_within_the_limit_and_a_new_address_gets_the_guaranteed_part(
            steps in vec((any::<bool>(), 0..20_u32, 0..LIMIT / 4), 0..300),
        ) {
            let quota = Quota::new(LIMIT, Sharing::Fair);
            let mut model = HashMap::<u32, u64>::new();
            for (takes, number, amount) in steps {
                let own = model.entry(number).or_default();
                if takes {
                    *own += quota.try_take(address(number), amount).map_or(0, |()| amount);
                } else {
                    let amount = amount.min(*own);
                    quota.release(address(number), amount);
                    *own -= amount;
                }
                prop_assert_eq!(quota.used(), model.values().sum::<u64>());
                prop_assert!(quota.used() <= LIMIT);
                prop_assert_eq!(quota.addresses(), model.values().filter(|held| **held > 0).count());
                prop_assert_eq!(quota.try_take(address(99), LIMIT / GUARANTEED), Ok(()));
                quota.release(address(99), LIMIT / GUARANTEED);
            }
            for (number, held) in model {
                quota.release(address(number), held);
            }
            prop_assert_eq!((quota.used(), quota.addresses()), (0, 0));
        }
    }
}
