//! The persons of all nodes who count: in how many rooms each of them does, and what one room adds to the totals.
//!
//! Pure. Nearly all persons are in one room, so that they take a key and no number.

use std::collections::{HashMap, HashSet};

use super::share::{PersonKey, ShareSum, Slot};

/// In how many rooms each person counts.
#[derive(Debug, Default)]
pub(super) struct People {
    all: HashSet<PersonKey>,
    /// In how many rooms besides one. No zeros.
    more: HashMap<PersonKey, u32>,
}

impl People {
    /// Distinct persons.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// A person counts in one more room.
    pub(super) fn enter(&mut self, person: PersonKey) {
        if !self.all.insert(person) {
            *self.more.entry(person).or_default() += 1;
        }
    }

    /// A person counts in one room less.
    pub(super) fn leave(&mut self, person: PersonKey) {
        match self.more.get_mut(&person) {
            None => drop(self.all.remove(&person)),
            Some(1) => drop(self.more.remove(&person)),
            Some(more) => *more -= 1,
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The sum over all persons and their rooms.
    pub(super) fn sum(&self) -> u64 {
        let all = self.all.iter().map(|person| person.mixed());
        let more = self.more.iter().map(|(person, more)| person.mixed().wrapping_mul((*more).into()));
        all.chain(more).fold(0, u64::wrapping_add)
    }
}

/// What one room adds to the totals of all rooms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RoomTotals {
    /// The sum over the persons who count, as [`People::sum`] adds them up.
    pub people: u64,
    /// What the entries of each share add up to, by slot; no share without entries.
    pub shares: Vec<(Slot, ShareSum)>,
}

impl RoomTotals {
    /// Counts a person who has entered or left.
    pub(super) fn count(&mut self, person: PersonKey, before: bool, after: bool) {
        match (before, after) {
            (false, true) => self.people = self.people.wrapping_add(person.mixed()),
            (true, false) => self.people = self.people.wrapping_sub(person.mixed()),
            _ => {}
        }
    }

    /// Replaces an entry of a share, given the hashes before and after.
    pub(super) fn replace(&mut self, slot: Slot, old: Option<u64>, new: Option<u64>) {
        let index = match self.shares.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(index) => index,
            Err(index) => {
                // Most rooms have one.
                self.shares.reserve_exact(1);
                self.shares.insert(index, (slot, ShareSum::default()));
                index
            }
        };
        if let Some((_, sum)) = self.shares.get_mut(index) {
            sum.replace(old, new);
            if sum.entries == 0 {
                self.shares.remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn person_counts_until_the_last_room_is_left() {
        let (ann, bob) = (PersonKey(1), PersonKey(2));
        let mut people = People::default();
        let mut sums = vec![people.sum()];
        for person in [ann, ann, bob, ann] {
            people.enter(person);
            sums.push(people.sum());
        }
        assert_eq!(people.len(), 2);
        for (person, left) in [(ann, 2), (bob, 1), (ann, 1)] {
            people.leave(person);
            assert_eq!(people.len(), left);
        }
        assert_eq!(people.sum(), sums[1]);
        people.leave(ann);
        people.leave(bob);
        assert_eq!((people.len(), people.sum()), (0, 0));
        sums.dedup();
        assert_eq!(sums.len(), 5, "each room is a part of the sum");
    }
}
