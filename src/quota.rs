//! Quotas: how much of a shared resource each address may hold, so that no address can fill it for the others.
//!
//! The rule is that of dynamic thresholds in shared-memory switches (Choudhury and Hahne, 1998): an address may hold
//! at most as much as is still free. So one address alone gets about half, fifty that grow together get about 1/51
//! each, and those who hold the most are rejected first. A part is kept back for those who hold next to nothing, so
//! that a newcomer gets something even where many addresses took, one after the other, all that they could. Pure, but
//! for its lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use crate::address::Address;
use crate::sync::lock;

/// The part of the limit, 1/8, that only addresses which hold no more than the [`GUARANTEED`] may take.
const RESERVE: u64 = 8;

/// The part of the limit, 1/1,024 and at least 1, that an address may hold whatever the others hold, as long as
/// the limit is not reached. The reserve is enough for 128 of them.
const GUARANTEED: u64 = 1_024;

/// Who may hold how much of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Each address at most as much as is still free.
    Fair,
    /// Whoever comes first, up to the limit: where rate limits are off.
    FirstCome,
}

/// Nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// The address holds as much as it may.
    #[error("too much of your address is pending")]
    Address,
    /// All addresses together hold as much as there is.
    #[error("too much is pending")]
    Total,
}

/// A resource with a limit, such as bytes or entries, that addresses share.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    sharing: Sharing,
    /// Usage for O(1). No other lock is taken while it is held.
    usage: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    /// By all addresses, and by the hub itself.
    total: u64,
    /// Only addresses that hold something. Empty where the sharing is not fair.
    by_address: HashMap<Address, u64>,
}

impl Quota {
    /// A resource of which so much may be held, and nothing is.
    #[must_use]
    pub(crate) fn new(limit: u64, sharing: Sharing) -> Self {
        Self { limit, sharing, usage: Mutex::default() }
    }

    /// The most that may be held, by all together.
    #[must_use]
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// How much is held, by all together.
    #[must_use]
    pub(crate) fn used(&self) -> u64 {
        lock(&self.usage).total
    }

    /// Whether nothing is left but the reserve, if there is one: newcomers find next to nothing.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.limit - self.reserve()
    }

    /// How many addresses hold something: how many are remembered.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn addresses(&self) -> usize {
        lock(&self.usage).by_address.len()
    }

    /// Takes `amount` for an address, or for the hub itself, which has no quota but the limit. It is held until it is
    /// [released](Self::release).
    ///
    /// # Errors
    /// There is not so much for it; nothing was taken.
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

    /// Takes `amount` for the hub itself, even beyond the limit.
    pub(crate) fn take_over_limit(&self, amount: u64) {
        let mut usage = lock(&self.usage);
        usage.total = usage.total.saturating_add(amount);
    }

    /// Gives back what was taken, or a part of it.
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
    ///
    /// # Errors
    /// There is not so much for it; nothing was taken.
    pub(crate) fn try_acquire(self: &Arc<Self>, address: Address, amount: u64) -> Result<Permit, Exhausted> {
        self.try_take(address, amount)?;
        Ok(Permit { quota: Arc::clone(self), address, amount })
    }

    fn counted(&self, holder: Option<Address>) -> Option<Address> {
        holder.filter(|_| self.sharing == Sharing::Fair)
    }

    fn reserve(&self) -> u64 {
        if self.sharing == Sharing::Fair { self.limit / RESERVE } else { 0 }
    }

    /// Whether an address may hold `own` where all together would hold `total`.
    fn is_fair(&self, own: u64, total: u64) -> bool {
        let free = (self.limit - self.reserve()).saturating_sub(total);
        own <= free || own <= (self.limit / GUARANTEED).max(1)
    }
}

/// What an address holds of a [`Quota`]. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit {
    quota: Arc<Quota>,
    address: Address,
    amount: u64,
}

impl Permit {
    /// Takes so much more.
    ///
    /// # Errors
    /// There is not so much for the address; what it holds stays as it is.
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

    /// Takes one by one until it is refused, and says how much that was.
    fn take_all(quota: &Quota, address: Address) -> u64 {
        (0..=LIMIT).take_while(|_| quota.try_take(address, 1).is_ok()).count() as u64
    }

    #[test]
    fn one_address_alone_gets_less_than_half() {
        let quota = Quota::new(LIMIT, Sharing::Fair);
        assert_eq!(take_all(&quota, address(1)), LIMIT * 7 / 16);
        assert_eq!(quota.try_take(address(1), 1), Err(Exhausted::Address));
        assert_eq!(quota.try_take(address(2), LIMIT / 8), Ok(()), "the others have what is free");
    }

    #[test]
    fn fifty_addresses_that_grow_together_get_the_same() {
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
    fn newcomer_gets_something_after_many_greedy_addresses() {
        let quota = Quota::new(LIMIT, Sharing::Fair);
        for number in 0..128 {
            assert!(take_all(&quota, address(number)) >= LIMIT / GUARANTEED, "{number}");
        }
    }

    #[test]
    fn the_hub_itself_has_no_quota_but_the_limit() {
        let quota = Quota::new(10, Sharing::Fair);
        assert_eq!(quota.try_take(None, 10), Ok(()));
        assert_eq!(quota.try_take(None, 1), Err(Exhausted::Total));
        quota.take_over_limit(5);
        assert_eq!((quota.used(), quota.addresses()), (15, 0));
        quota.release(None, 15);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn without_rate_limits_only_the_limit_holds() {
        let quota = Quota::new(10, Sharing::FirstCome);
        assert_eq!(take_all(&quota, address(1)), 10);
        assert_eq!(quota.try_take(address(2), 1), Err(Exhausted::Total));
        quota.release(address(1), 10);
        assert_eq!((quota.used(), quota.addresses()), (0, 0));
    }

    #[test]
    fn a_permit_gives_back_all_that_it_took() {
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
        fn what_is_held_is_within_the_limit_and_a_newcomer_gets_its_floor(
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
