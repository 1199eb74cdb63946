//! A share: what one node knows first hand of its own visitors, as other nodes get it.
//!
//! Pure data. An entry is one person in one room on one node: present, held or gone, with the mood and the sit that
//! were set last. Every change of an entry has a later stamp than the one before, so that of two states of an entry the
//! newer one is known. A person is a keyed hash, so that no message between nodes has an id.

use super::hold::HoldReason;
use super::stamp::Stamp;
use crate::derived_key::{KeyedHash, Purpose};
use crate::protocol::{Mood, RoomId, Time, VisitorId};

/// A visitor, as nodes name them to each other: 64 bits of a keyed hash of the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PersonKey(pub u64);

impl PersonKey {
    /// A number of this person for sums over persons.
    pub(super) fn mixed(self) -> u64 {
        mix(self.0)
    }
}

/// The secret that all nodes of a cluster have, from which the keys of persons are made.
#[derive(Clone)]
pub(crate) struct ClusterKey(KeyedHash);

impl ClusterKey {
    /// Derives the key from the admin token, which all nodes share, and the name of the cluster.
    pub(crate) fn derive(admin_token: &str, cluster: &str) -> Self {
        Self(KeyedHash::derive(Purpose::Presence, admin_token, cluster))
    }

    /// The key of a visitor.
    pub(crate) fn person(&self, visitor: &VisitorId) -> PersonKey {
        PersonKey(u64::from_le_bytes(self.0.cut(&[visitor.as_str().as_bytes()])))
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey")
    }
}

/// Identifies one load of the share of one run of a node; 0 is this node's own share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Slot(pub u16);

/// One person in one room on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Since when the person is in the room on this node without a break: the first join.
    pub since: Stamp,
    /// When the mood was set; never, where no mood was set since the join.
    pub mood_at: Stamp,
    /// The last change, by the clock of the node: later than all before.
    pub changed: Stamp,
    /// None for most persons.
    more: Option<Box<More>>,
    /// The mood that was set last.
    pub mood: Option<Mood>,
    /// Which share it is of.
    pub slot: Slot,
}

/// What only some persons have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct More {
    /// The last join, if it is later than the first; else never.
    joined: Stamp,
    away: Option<Away>,
    sit: Option<SitRegister>,
}

/// A person without a socket on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Away {
    /// Counts, until the hold ends or a later join.
    Held(HeldSince),
    /// Left, or the hold has ended, at this moment. It does not count. It is kept since it ends holds of other nodes.
    Gone(Stamp),
}

/// A hold of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldSince {
    /// When the last socket was lost. A later join on another node ends the hold.
    pub began: Stamp,
    /// Why.
    pub reason: HoldReason,
    /// The deadline, in ms of this node's monotonic clock.
    pub until: u64,
}

/// The sit that was set last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SitRegister {
    /// When it was set.
    pub at: Stamp,
    /// What was set.
    pub sit: SitState,
}

/// What a visitor or a node did to a sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SitState {
    /// It goes on.
    Running {
        /// The deadline, in ms of this node's monotonic clock.
        until: u64,
        /// The deadline by the wall clock of the node that has set it, as clients know it.
        shown: Time,
    },
    /// It has reached its end.
    Completed,
    /// It was ended before.
    Ended,
}

impl Entry {
    /// A person who has just joined.
    pub(crate) fn joined(at: Stamp) -> Self {
        Self { since: at, mood_at: Stamp::NEVER, changed: at, more: None, mood: None, slot: Slot::default() }
    }

    /// The last join of a session on the node: it ends earlier holds of other nodes.
    pub(crate) fn last_joined(&self) -> Stamp {
        self.more.as_ref().map_or(self.since, |more| more.joined.max(self.since))
    }

    /// None for a person with a socket on the node.
    pub(crate) fn away(&self) -> Option<Away> {
        self.more.as_ref()?.away
    }

    /// The hold.
    pub(crate) fn held(&self) -> Option<HeldSince> {
        match self.away() {
            Some(Away::Held(held)) => Some(held),
            Some(Away::Gone(_)) | None => None,
        }
    }

    /// When the person left, or the hold ended.
    pub(crate) fn gone(&self) -> Option<Stamp> {
        match self.away() {
            Some(Away::Gone(at)) => Some(at),
            Some(Away::Held(_)) | None => None,
        }
    }

    /// The sit that was set last; none where none was set since the join.
    pub(crate) fn sit(&self) -> Option<SitRegister> {
        self.more.as_ref()?.sit
    }

    /// The deadline of the sit that goes on.
    pub(crate) fn sits_until(&self) -> Option<u64> {
        match self.sit()?.sit {
            SitState::Running { until, .. } => Some(until),
            SitState::Completed | SitState::Ended => None,
        }
    }

    /// Sets the last join of a session.
    pub(crate) fn set_last_joined(&mut self, at: Stamp) {
        let since = self.since;
        self.change_more(|more| more.joined = if at > since { at } else { Stamp::NEVER });
    }

    /// Sets where the person is.
    pub(crate) fn set_away(&mut self, away: Option<Away>) {
        self.change_more(|more| more.away = away);
    }

    /// Sets the sit.
    pub(crate) fn set_sit(&mut self, sit: Option<SitRegister>) {
        self.change_more(|more| more.sit = sit);
    }

    fn change_more(&mut self, change: impl FnOnce(&mut More)) {
        let mut more = self.more.as_deref().copied().unwrap_or_default();
        change(&mut more);
        match &mut self.more {
            stored if more == More::default() => *stored = None,
            Some(stored) => **stored = more,
            stored @ None => *stored = Some(Box::new(more)),
        }
    }

    /// The entry's part in the sum of a share.
    pub(crate) fn hash(&self, room: u64, person: PersonKey) -> u64 {
        mix(room ^ mix(person.0 ^ mix(self.changed.bits())))
    }
}

/// A room's part in the sum of a share. It is the same for all nodes and versions (FNV-1a).
pub(crate) fn room_hash(room: &RoomId) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    room.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Spreads the bits of a number (the finalizer of `SplitMix64`).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The number of entries of a share, and the sum of their hashes: equal where the shares are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ShareSum {
    /// Entries.
    pub entries: u64,
    /// The wrapping sum of the hashes.
    pub sum: u64,
}

impl ShareSum {
    /// Adds the entries of another sum.
    pub(super) fn add(&mut self, other: Self) {
        self.entries = self.entries.wrapping_add(other.entries);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Replaces an entry, given the hashes before and after.
    pub(crate) fn replace(&mut self, old: Option<u64>, new: Option<u64>) {
        if let Some(old) = old {
            self.entries = self.entries.wrapping_sub(1);
            self.sum = self.sum.wrapping_sub(old);
        }
        if let Some(new) = new {
            self.entries = self.entries.wrapping_add(1);
            self.sum = self.sum.wrapping_add(new);
        }
    }
}

/// A change of a share: the new state of an entry, or none where the node has forgotten it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The room.
    pub room: RoomId,
    /// The person.
    pub person: PersonKey,
    /// The entry.
    pub entry: Option<Entry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_a_person_depends_on_the_id_the_token_and_the_cluster() {
        let ann = VisitorId::try_from("ann").unwrap();
        let key = |token, cluster| ClusterKey::derive(token, cluster).person(&ann);
        assert_eq!(key("token", "a"), key("token", "a"));
        assert_ne!(key("token", "a"), key("token", "b"));
        assert_ne!(key("token", "a"), key("other", "a"));
        let bob = VisitorId::try_from("bob").unwrap();
        assert_ne!(ClusterKey::derive("token", "a").person(&bob), key("token", "a"));
    }

    #[test]
    fn key_of_a_person_is_that_of_earlier_versions() {
        let key = ClusterKey::derive("the-admins-token", "test");
        assert_eq!(key.person(&VisitorId::try_from("ann").unwrap()), PersonKey(0x2396_c6fd_8a9d_2492));
    }

    #[test]
    fn sum_of_a_share_does_not_depend_on_the_order() {
        let entry = |at| Entry::joined(Stamp::from_bits(at)).hash(7, PersonKey(at));
        let (mut first, mut second) = (ShareSum::default(), ShareSum::default());
        for at in 1..10 {
            first.replace(None, Some(entry(at)));
            second.replace(None, Some(entry(10 - at)));
        }
        assert_eq!(first, second);
        first.replace(Some(entry(3)), Some(entry(11)));
        assert_ne!(first, second);
        first.replace(Some(entry(11)), None);
        second.replace(Some(entry(3)), None);
        assert_eq!(first, second);
    }

    #[test]
    fn entry_takes_40_bytes_and_64_more_with_a_hold_or_a_sit() {
        assert!(size_of::<Entry>() <= 40, "{}", size_of::<Entry>());
        assert!(size_of::<More>() <= 64, "{}", size_of::<More>());
    }
}
