//! The union of one room: who counts there, over the shares of all nodes.
//!
//! Pure: no clock, no locks, no network. A person counts once, however many nodes have them. A hold counts unless another
//! node knows a later join of that person. Of two moods, or sits, the one that was set last holds. What counts is a
//! function of the entries, and of two states of an entry the newer one is stored: the order, the grouping and the
//! repetition of updates do not matter. Property tests check that, and compare the union with naive models.

use std::collections::HashMap;
use std::collections::hash_map;

use super::hold::{HoldReason, SitCounts};
use super::people::RoomTotals;
use super::share::{Away, Entry, HeldSince, PersonKey, SitRegister, SitState, Slot};
use super::stamp::Stamp;
use crate::protocol::{Mood, MoodCounts, VisitorId};

/// What one person is in a room, over all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// Whether the person counts as present.
    pub counts: bool,
    /// Whether they count without a socket on any node.
    pub is_held: bool,
    /// The mood that was set last.
    pub mood: Option<Mood>,
    /// The sit that was set last.
    pub sit: Option<SitState>,
}

impl Standing {
    fn is_sitting(&self) -> bool {
        matches!(self.sit, Some(SitState::Running { .. }))
    }
}

/// The mood and the sit that were set last, with their stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Registers {
    pub mood: Option<Mood>,
    pub mood_at: Stamp,
    pub sit: Option<SitRegister>,
}

/// What an update did to one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct UnionStep {
    /// The person before.
    pub before: Standing,
    /// The person after.
    pub after: Standing,
    /// The hash of the entry before.
    pub old: Option<u64>,
    /// The hash of the entry after.
    pub new: Option<u64>,
}

impl UnionStep {
    /// Both, one after the other.
    pub(super) fn then(self, next: Self) -> Self {
        Self { before: self.before, old: self.old, ..next }
    }
}

/// A visitor of this node, and their entry in its share.
#[derive(Debug)]
pub(super) struct Own {
    pub visitor: VisitorId,
    pub entry: Entry,
}

/// The entries of a person in the shares of other nodes. Nearly all persons are on one node.
#[derive(Debug)]
enum Elsewhere {
    One(Entry),
    Many(Vec<Entry>),
}

impl Elsewhere {
    fn entries(&self) -> &[Entry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(entries) => entries,
        }
    }

    fn entries_mut(&mut self) -> &mut [Entry] {
        match self {
            Self::One(entry) => std::slice::from_mut(entry),
            Self::Many(entries) => entries,
        }
    }

    fn push(&mut self, entry: Entry) {
        match self {
            Self::One(first) => *self = Self::Many(vec![first.clone(), entry]),
            Self::Many(entries) => entries.push(entry),
        }
    }

    /// Removes entries. Returns whether any are left.
    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) -> bool {
        match self {
            Self::One(entry) => keep(entry),
            Self::Many(entries) => {
                entries.retain(|entry| keep(entry));
                !entries.is_empty()
            }
        }
    }
}

/// What this node did to a visitor since their entry was made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hints {
    /// A session has joined.
    pub joined: bool,
    /// The mood was set.
    pub mood: bool,
    /// A register of another node was taken over.
    pub adopted: bool,
}

/// The shares of all nodes in one room, and what they add up to.
#[derive(Debug)]
pub(crate) struct RoomUnion {
    /// The room's part in the hashes of entries.
    hash: u64,
    own: HashMap<PersonKey, Own>,
    elsewhere: HashMap<PersonKey, Elsewhere>,
    counts: UnionCounts,
    totals: RoomTotals,
    sits: SitCounts,
    seq: u64,
    pub(super) hints: Hints,
}

/// What a room counts over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnionCounts {
    pub present: u32,
    pub held: u32,
    pub sitting: u32,
    pub moods: MoodCounts,
}

impl UnionCounts {
    fn new(zero: MoodCounts) -> Self {
        Self { present: 0, held: 0, sitting: 0, moods: zero }
    }

    fn remove(&mut self, person: &Standing) {
        self.present -= u32::from(person.counts);
        self.held -= u32::from(person.is_held);
        self.sitting -= u32::from(person.is_sitting());
        if let Some(mood) = person.mood {
            self.moods.remove(mood);
        }
    }

    fn add(&mut self, person: &Standing) {
        self.present += u32::from(person.counts);
        self.held += u32::from(person.is_held);
        self.sitting += u32::from(person.is_sitting());
        if let Some(mood) = person.mood {
            self.moods.add(mood);
        }
    }
}

impl RoomUnion {
    /// A room without entries. `zero` are the zero counts of the vocabulary.
    pub(crate) fn new(hash: u64, zero: MoodCounts) -> Self {
        Self {
            hash,
            own: HashMap::new(),
            elsewhere: HashMap::new(),
            counts: UnionCounts::new(zero),
            totals: RoomTotals::default(),
            sits: SitCounts::default(),
            seq: 0,
            hints: Hints::default(),
        }
    }

    /// Rises by one with every change of the persons who count, or of their moods, on this node.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn counts(&self) -> &UnionCounts {
        &self.counts
    }

    /// What the room adds to the totals of all rooms.
    pub(super) fn totals(&self) -> &RoomTotals {
        &self.totals
    }

    pub(super) fn sits(&self) -> SitCounts {
        self.sits
    }

    /// Whether no node has an entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.elsewhere.is_empty()
    }

    /// What a person is, over all nodes.
    pub(crate) fn standing(&self, person: PersonKey) -> Standing {
        standing(&self.entries(person))
    }

    /// All entries of a person.
    fn entries(&self, person: PersonKey) -> impl Iterator<Item = &Entry> + Clone {
        let others = self.elsewhere.get(&person).map(Elsewhere::entries).unwrap_or_default();
        self.own.get(&person).map(|own| &own.entry).into_iter().chain(others)
    }

    /// The visitor of this node that other nodes know by this key, if they have an entry.
    pub(super) fn own(&self, person: PersonKey) -> Option<&Own> {
        self.own.get(&person)
    }

    pub(super) fn own_mut(&mut self, person: PersonKey) -> Option<&mut Own> {
        self.own.get_mut(&person)
    }

    /// This node's share of the room.
    pub(super) fn own_entries(&self) -> impl Iterator<Item = (PersonKey, &Entry)> {
        self.own.iter().map(|(person, own)| (*person, &own.entry))
    }

    /// Whether the person has an entry of another node.
    pub(super) fn is_elsewhere(&self, person: PersonKey) -> bool {
        self.elsewhere.contains_key(&person)
    }

    /// What was set last for the person.
    pub(super) fn registers(&self, person: PersonKey) -> Registers {
        registers(&self.entries(person))
    }

    /// Whether another node knows a later join than the hold of this node's entry.
    pub(super) fn is_overridden(&self, person: PersonKey) -> bool {
        let held = self.own.get(&person).and_then(|own| own.entry.held());
        held.is_some_and(|held| !holds(self.entries(person), Slot::default(), held))
    }

    /// Whether this node may forget that a visitor is gone: no other node has a hold that it ends. While the visitor's
    /// sit would go on, nodes may have a hold for it that this node does not know, such as one of its own last run.
    pub(super) fn may_forget(&self, person: PersonKey, now: u64) -> bool {
        let Some(own) = self.own.get(&person) else { return false };
        let others = self.elsewhere.get(&person).map(Elsewhere::entries).unwrap_or_default();
        own.entry.gone().is_some()
            && own.entry.sits_until().is_none_or(|until| until <= now)
            && !others.iter().filter_map(Entry::held).any(|held| ends(&own.entry, held))
    }

    /// Stores this node's entry of a visitor; none forgets it.
    pub(super) fn put_own(
        &mut self,
        person: PersonKey,
        visitor: &VisitorId,
        entry: Option<Entry>,
    ) -> UnionStep {
        let hash = self.hash;
        self.change(person, Slot::default(), true, |union| {
            let new = entry.as_ref().map(|entry| entry.hash(hash, person));
            let old = match entry {
                Some(entry) => union.own.insert(person, Own { visitor: visitor.clone(), entry }),
                None => union.own.remove(&person),
            };
            (old.map(|own| own.entry.hash(hash, person)), new)
        })
    }

    /// Stores an entry of another node, unless a newer state of it is stored. With `is_replay` the entry is part of a
    /// whole share, and begins no sits.
    pub(crate) fn put(&mut self, person: PersonKey, entry: Entry, is_replay: bool) -> UnionStep {
        let (hash, slot) = (self.hash, entry.slot);
        self.change(person, slot, !is_replay, |union| {
            let new = Some(entry.hash(hash, person));
            let mut old = None;
            match union.elsewhere.entry(person) {
                hash_map::Entry::Vacant(vacant) => drop(vacant.insert(Elsewhere::One(entry))),
                hash_map::Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    match known.entries_mut().iter_mut().find(|known| known.slot == entry.slot) {
                        None => known.push(entry),
                        Some(known) => {
                            old = Some(known.hash(hash, person));
                            if known.changed >= entry.changed {
                                return (old, old);
                            }
                            *known = entry;
                        }
                    }
                }
            }
            (old, new)
        })
    }

    /// Removes the entry that a share has forgotten. A hold that it has ended does not begin again: it is of a node that
    /// is not heard any more, and that the node of the entry has not known.
    pub(crate) fn remove(&mut self, person: PersonKey, slot: Slot) -> UnionStep {
        let hash = self.hash;
        self.change(person, slot, true, |union| {
            union.end_holds(person, slot);
            let hash_map::Entry::Occupied(mut known) = union.elsewhere.entry(person) else {
                return (None, None);
            };
            let found = known.get().entries().iter().find(|entry| entry.slot == slot);
            let old = found.map(|entry| entry.hash(hash, person));
            if !known.get_mut().retain(|entry| entry.slot != slot) {
                known.remove();
            }
            (old, None)
        })
    }

    /// Ends the holds of others that this entry of a person ends. What a share adds up to stays as it is.
    fn end_holds(&mut self, person: PersonKey, slot: Slot) {
        let Some(entry) = self.entry_of(person, slot).filter(|entry| entry.gone().is_some()).cloned() else {
            return;
        };
        let others = self.elsewhere.get_mut(&person).map(Elsewhere::entries_mut).unwrap_or_default();
        for other in others.iter_mut().filter(|other| other.slot != slot) {
            if other.held().is_some_and(|held| ends(&entry, held)) {
                other.set_away(Some(Away::Gone(entry.last_joined())));
            }
        }
    }

    /// Until when the entry of a person who is gone is needed: it ends a hold that goes on.
    fn needed_until(&self, entry: &Entry, person: PersonKey) -> Option<u64> {
        let held = self.entries(person).filter(|other| other.slot != entry.slot).filter_map(Entry::held);
        let ended = held.filter(|held| entry.gone().is_some() && ends(entry, *held));
        ended.map(|held| held.until).max()
    }

    /// The persons with an entry of this share.
    pub(super) fn persons_of(&self, slot: Slot) -> Vec<PersonKey> {
        let has = |elsewhere: &Elsewhere| elsewhere.entries().iter().any(|entry| entry.slot == slot);
        self.elsewhere.iter().filter(|(_, elsewhere)| has(elsewhere)).map(|(person, _)| *person).collect()
    }

    /// The entry of a person in this share.
    pub(super) fn entry_of(&self, person: PersonKey, slot: Slot) -> Option<&Entry> {
        self.elsewhere.get(&person)?.entries().iter().find(|entry| entry.slot == slot)
    }

    /// Turns an entry of a node that is not heard any more into a hold, until `until`. A hold with another reason than
    /// a restart keeps its deadline, and a sit holds longer.
    pub(super) fn lose(&mut self, person: PersonKey, slot: Slot, lost: HeldSince) -> UnionStep {
        self.change(person, slot, true, |union| {
            let entries = union.elsewhere.get_mut(&person).map(Elsewhere::entries_mut).unwrap_or_default();
            if let Some(entry) = entries.iter_mut().find(|entry| entry.slot == slot) {
                let until = entry.sits_until().map_or(lost.until, |until| until.max(lost.until));
                match entry.away() {
                    None => entry.set_away(Some(Away::Held(HeldSince { until, ..lost }))),
                    Some(Away::Held(held)) if held.reason == HoldReason::Restart => {
                        let until = held.until.min(until);
                        entry.set_away(Some(Away::Held(HeldSince { until, ..held })));
                    }
                    Some(_) => {}
                }
            }
            (None, None)
        })
    }

    /// Ends the entry of a node that is not heard any more, if its hold has ended, as the node would have done. Returns
    /// when it ends otherwise.
    pub(super) fn sweep(&mut self, person: PersonKey, slot: Slot, now: u64) -> (UnionStep, Option<u64>) {
        let Some(entry) = self.entry_of(person, slot) else { return (UnionStep::default(), None) };
        let until = entry.held().map(|held| held.until).or_else(|| self.needed_until(entry, person));
        if let Some(until) = until.filter(|until| *until > now) {
            return (UnionStep::default(), Some(until));
        }
        // The hold lasted until now: what a visitor here has taken over from it was of this visit. It is set again, right
        // after it was set before: what was set later on the node that is not heard still counts.
        let (mood_at, sit, was_held) = (entry.mood_at, entry.sit(), entry.held().is_some());
        let own = self.own.get_mut(&person).filter(|own| was_held && own.entry.gone().is_none());
        if let Some(Own { entry, .. }) = own {
            if entry.mood_at == mood_at && mood_at > Stamp::NEVER && mood_at < entry.since {
                (entry.mood_at, self.hints.adopted) = (mood_at.next(), true);
            }
            if let Some(taken) = entry.sit().filter(|taken| sit == Some(*taken) && taken.at < entry.since) {
                entry.set_sit(Some(SitRegister { at: taken.at.next(), ..taken }));
                self.hints.adopted = true;
            }
        }
        let first = self.change(person, slot, true, |union| {
            let entries = union.elsewhere.get_mut(&person).map(Elsewhere::entries_mut).unwrap_or_default();
            for entry in entries.iter_mut().filter(|entry| entry.slot == slot) {
                let is_over = entry.sits_until().is_some_and(|until| until <= now);
                if let Some(sit) = entry.sit().filter(|_| is_over) {
                    entry.set_sit(Some(SitRegister { sit: SitState::Completed, ..sit }));
                }
                entry.set_away(Some(Away::Gone(Stamp::NEVER)));
            }
            (None, None)
        });
        (UnionStep { before: first.before, ..self.remove(person, slot) }, None)
    }

    /// Calls `visit` for each person who counts.
    pub(super) fn for_each_counting(&self, mut visit: impl FnMut(PersonKey)) {
        let others = self.elsewhere.iter().filter(|(person, _)| !self.own.contains_key(person));
        for (person, elsewhere) in others {
            let counts = match elsewhere {
                Elsewhere::One(entry) => entry.gone().is_none(), // nothing ends its hold
                Elsewhere::Many(_) => self.standing(*person).counts,
            };
            if counts {
                visit(*person);
            }
        }
        self.own.keys().copied().filter(|person| self.standing(*person).counts).for_each(visit);
    }

    /// Calls `visit` with each entry of any share, and its part in the sum of the share.
    pub(super) fn for_each_entry(&self, mut visit: impl FnMut(Slot, u64)) {
        for (person, Own { entry, .. }) in &self.own {
            visit(Slot::default(), entry.hash(self.hash, *person));
        }
        for (person, elsewhere) in &self.elsewhere {
            for entry in elsewhere.entries() {
                visit(entry.slot, entry.hash(self.hash, *person));
            }
        }
    }

    /// Recounts everything from the entries, and corrects the counts and the totals. Returns the counts before and after.
    pub(super) fn recount(&mut self, zero: MoodCounts) -> (UnionCounts, UnionCounts) {
        let mut counts = UnionCounts::new(zero);
        let others = self.elsewhere.keys().filter(|person| !self.own.contains_key(person));
        for person in self.own.keys().chain(others) {
            counts.add(&self.standing(*person));
        }
        let mut totals = RoomTotals::default();
        self.for_each_counting(|person| totals.count(person, false, true));
        self.for_each_entry(|slot, hash| totals.replace(slot, None, Some(hash)));
        self.totals = totals;
        self.seq += u64::from((counts.present, &counts.moods) != (self.counts.present, &self.counts.moods));
        (std::mem::replace(&mut self.counts, counts.clone()), counts)
    }

    /// Whether the sit that was set last has reached its end.
    fn has_completed(&self, person: PersonKey) -> bool {
        let sit = registers_since(&self.entries(person), Stamp::NEVER).sit;
        sit.is_some_and(|register| register.sit == SitState::Completed)
    }

    /// Applies a change of one person by a share, which returns the hashes of the entry before and after, and counts it.
    fn change(
        &mut self,
        person: PersonKey,
        slot: Slot,
        begins_sits: bool,
        apply: impl FnOnce(&mut Self) -> (Option<u64>, Option<u64>),
    ) -> UnionStep {
        let before = self.standing(person);
        let (old, new) = apply(self);
        let after = self.standing(person);
        self.totals.count(person, before.counts, after.counts);
        self.totals.replace(slot, old, new);
        if before != after {
            self.counts.remove(&before);
            self.counts.add(&after);
            self.seq += u64::from((before.counts, before.mood) != (after.counts, after.mood));
            let begins = begins_sits && after.is_sitting() && !before.is_sitting();
            self.sits.begun += u64::from(begins);
            self.sits.completed += u64::from(before.is_sitting() && self.has_completed(person));
        }
        UnionStep { before, after, old, new }
    }
}

/// Whether a hold of this share counts: no entry of another node ends it.
fn holds<'a>(mut entries: impl Iterator<Item = &'a Entry>, slot: Slot, held: HeldSince) -> bool {
    !entries.any(|other| other.slot != slot && ends(other, held))
}

/// Whether an entry ends a hold of another node: by a later join, or a hold for a sit by a later leave, as on one node.
fn ends(other: &Entry, held: HeldSince) -> bool {
    let ends_sit = || held.reason == HoldReason::Sit && other.gone().is_some_and(|gone| gone > held.began);
    other.last_joined() > held.began || ends_sit()
}

/// What a person is.
fn standing<'a>(entries: &(impl Iterator<Item = &'a Entry> + Clone)) -> Standing {
    let mut found = Standing::default();
    let mut is_present = false;
    let mut first: Option<Stamp> = None;
    for entry in entries.clone() {
        let counts = match entry.away() {
            None => true,
            Some(Away::Held(held)) => holds(entries.clone(), entry.slot, held),
            Some(Away::Gone(_)) => false,
        };
        if counts {
            found.counts = true;
            is_present |= entry.away().is_none();
            first = Some(first.map_or(entry.since, |first| first.min(entry.since)));
        }
    }
    let Some(first) = first else { return found };
    let registers = registers_since(entries, first);
    found.is_held = !is_present;
    found.mood = registers.mood;
    found.sit = registers.sit.map(|register| register.sit);
    found
}

/// What was set last for a person who counts.
fn registers<'a>(entries: &(impl Iterator<Item = &'a Entry> + Clone)) -> Registers {
    let counting = entries.clone().filter(|entry| match entry.away() {
        None => true,
        Some(Away::Held(held)) => holds(entries.clone(), entry.slot, held),
        Some(Away::Gone(_)) => false,
    });
    let first = counting.map(|entry| entry.since).min();
    first.map_or_else(Registers::default, |first| registers_since(entries, first))
}

/// What was set last since `first`. An entry that is gone has a say only if its time overlaps with that: the mood of an
/// earlier visit is over. Ties go by the value, so that all nodes choose the same.
fn registers_since<'a>(entries: &(impl Iterator<Item = &'a Entry> + Clone), first: Stamp) -> Registers {
    let mut found = Registers::default();
    for entry in entries.clone().filter(|entry| entry.gone().is_none_or(|gone| gone > first)) {
        if (entry.mood_at, entry.mood) > (found.mood_at, found.mood)
            && is_of_this_visit(entry, entries.clone(), |entry| entry.mood_at)
        {
            (found.mood_at, found.mood) = (entry.mood_at, entry.mood);
        }
        let rank = |sit: &SitRegister| match sit.sit {
            SitState::Running { shown, .. } => (sit.at, shown.millis(), 0),
            SitState::Ended => (sit.at, 0, 1),
            SitState::Completed => (sit.at, 0, 2),
        };
        if let Some(sit) = entry.sit()
            && found.sit.as_ref().is_none_or(|known| rank(&sit) > rank(known))
            && is_of_this_visit(entry, entries.clone(), sit_at)
        {
            found.sit = Some(sit);
        }
    }
    found
}

fn sit_at(entry: &Entry) -> Stamp {
    entry.sit().map_or(Stamp::NEVER, |sit| sit.at)
}

/// Whether what an entry has taken over was set in this visit. A node that takes it over may not know yet that the visit
/// was over then: the entry where it was set says so later.
fn is_of_this_visit<'a>(
    entry: &Entry,
    entries: impl Iterator<Item = &'a Entry> + Clone,
    set_at: impl Fn(&Entry) -> Stamp,
) -> bool {
    let at = set_at(entry);
    let mut others =
        entries.filter(|other| other.slot != entry.slot && at > Stamp::NEVER && set_at(other) == at);
    let overlaps = |other: &Entry| other.gone().is_none_or(|gone| gone > entry.since);
    at >= entry.since || others.clone().next().is_none() || others.any(overlaps)
}

#[cfg(test)]
mod tests;
