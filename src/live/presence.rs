//! Presence: who is in one room, and in what mood.
//!
//! Pure: no clock, no sockets, no locks. Sessions come and go; what is counted is people. The state
//! is a function of the calls made on it, which the tests hold against a naive model.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::audit::{Difference, Kept};
use crate::wire::{Mood, MoodCounts, VisitorId};

/// The people of one room.
#[derive(Debug)]
pub struct Presence {
    visitors: HashMap<VisitorId, Visitor>,
    moods: MoodCounts,
    seq: u64,
    holds: u64,
}

#[derive(Debug, Default)]
struct Visitor {
    sessions: u32,
    mood: Option<Mood>,
    hold: Option<HoldId>,
}

impl Visitor {
    fn is_gone(&self) -> bool {
        self.sessions == 0 && self.hold.is_none()
    }
}

/// Names the place that is held for a visitor whose session was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldId(u64);

/// Whether a step took somebody out of the room or brought somebody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// The same people as before.
    None,
    /// The visitor was not here and is now.
    Arrived,
    /// The visitor was here and is no longer.
    Left,
}

impl Presence {
    /// An empty room. `moods` are the zero counts of the hub's vocabulary.
    #[must_use]
    pub fn new(moods: MoodCounts) -> Self {
        Self { visitors: HashMap::new(), moods, seq: 0, holds: 0 }
    }

    /// Which state this is: rises by one with every change of `present` or `moods`.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Distinct visitors in the room.
    #[must_use]
    pub fn present(&self) -> u32 {
        u32::try_from(self.visitors.len()).unwrap_or(u32::MAX)
    }

    /// People by mood.
    #[must_use]
    pub fn moods(&self) -> &MoodCounts {
        &self.moods
    }

    /// Whether nobody is here and no place is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.visitors.is_empty()
    }

    /// Whether this visitor is here.
    #[must_use]
    pub fn has(&self, id: &VisitorId) -> bool {
        self.visitors.contains_key(id)
    }

    /// The people here, in no order, with their moods.
    pub fn people(&self) -> impl Iterator<Item = (&VisitorId, Option<Mood>)> {
        self.visitors.iter().map(|(id, visitor)| (id, visitor.mood))
    }

    /// The people here, in no order, with the number of their open sessions.
    pub fn visitors(&self) -> impl Iterator<Item = (&VisitorId, u32)> {
        self.visitors.iter().map(|(id, visitor)| (id, visitor.sessions))
    }

    /// A session of `visitor` opens. Whoever is back needs no held place; a mood, where one is
    /// given, is the last one set.
    pub fn join(&mut self, id: &VisitorId, mood: Option<Mood>) -> Passage {
        let (passage, visitor) = match self.visitors.entry(id.clone()) {
            Entry::Occupied(entry) => (Passage::None, entry.into_mut()),
            Entry::Vacant(entry) => (Passage::Arrived, entry.insert(Visitor::default())),
        };
        visitor.sessions += 1;
        visitor.hold = None;
        let moved = mood.is_some() && change_mood(&mut self.moods, visitor, mood);
        // Arriving in a mood is one step.
        self.seq += u64::from(moved || passage == Passage::Arrived);
        passage
    }

    /// Sets or clears the mood of a visitor who is here. One step, never a leave and a join.
    pub fn set_mood(&mut self, id: &VisitorId, mood: Option<Mood>) {
        if let Some(visitor) = self.visitors.get_mut(id) {
            self.seq += u64::from(change_mood(&mut self.moods, visitor, mood));
        }
    }

    /// A session of `visitor` ends, and nothing is held for it.
    pub fn leave(&mut self, id: &VisitorId) -> Passage {
        if let Some(visitor) = self.visitors.get_mut(id) {
            visitor.sessions = visitor.sessions.saturating_sub(1);
        }
        self.remove_if_gone(id)
    }

    /// A place is held for a visitor who has no session yet, in this mood. Whoever is here needs none.
    pub fn hold(&mut self, id: &VisitorId, mood: Option<Mood>) -> Option<HoldId> {
        let Entry::Vacant(entry) = self.visitors.entry(id.clone()) else { return None };
        self.holds += 1;
        let hold = Some(HoldId(self.holds));
        entry.insert(Visitor { sessions: 0, mood, hold });
        if let Some(mood) = mood {
            self.moods.add(mood);
        }
        self.seq += 1;
        hold
    }

    /// A session of `visitor` is lost; the visitor's place is held until [`release`](Self::release)
    /// or until they are back. A place that was already held is held anew.
    pub fn lose(&mut self, id: &VisitorId) -> Option<HoldId> {
        let visitor = self.visitors.get_mut(id)?;
        self.holds += 1;
        visitor.sessions = visitor.sessions.saturating_sub(1);
        visitor.hold = Some(HoldId(self.holds));
        visitor.hold
    }

    /// Gives up the place held for `visitor`, unless they came back or it was held anew since.
    pub fn release(&mut self, id: &VisitorId, hold: HoldId) -> Passage {
        if let Some(visitor) = self.visitors.get_mut(id) {
            visitor.hold.take_if(|held| *held == hold);
        }
        self.remove_if_gone(id)
    }

    /// Recounts everything from the visitors, and returns what was wrong, which is right now. `zero` are the
    /// zero counts of the vocabulary.
    pub fn audit(&mut self, zero: MoodCounts) -> Vec<Difference> {
        let present = self.present();
        self.visitors.retain(|_, visitor| !visitor.is_gone());
        let mut moods = zero;
        self.visitors.values().filter_map(|visitor| visitor.mood).for_each(|mood| moods.add(mood));
        let differences = [
            Difference::between(Kept::Present, &present, &self.present()),
            Difference::between(Kept::Moods, &self.moods, &moods),
        ];
        self.moods = moods;
        let differences: Vec<_> = differences.into_iter().flatten().collect();
        self.seq += u64::from(!differences.is_empty());
        differences
    }

    fn remove_if_gone(&mut self, id: &VisitorId) -> Passage {
        let Entry::Occupied(entry) = self.visitors.entry(id.clone()) else { return Passage::None };
        if !entry.get().is_gone() {
            return Passage::None;
        }
        if let Some(mood) = entry.remove().mood {
            self.moods.remove(mood);
        }
        self.seq += 1;
        Passage::Left
    }
}

fn change_mood(counts: &mut MoodCounts, visitor: &mut Visitor, mood: Option<Mood>) -> bool {
    let old = std::mem::replace(&mut visitor.mood, mood);
    if old == mood {
        return false;
    }
    if let Some(old) = old {
        counts.remove(old);
    }
    if let Some(new) = mood {
        counts.add(new);
    }
    true
}

/// What no call above does: wrong counts, for the tests of the audit.
#[cfg(test)]
impl Presence {
    pub(super) fn break_moods(&mut self, less: Mood, more: Mood) {
        self.moods.remove(less);
        self.moods.add(more);
    }

    pub(super) fn break_people(&mut self, id: &VisitorId) {
        if let Some(visitor) = self.visitors.get_mut(id) {
            (visitor.sessions, visitor.hold) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Vocabulary;

    /// What a room is, told as plainly as possible: a list of sessions and held places, recounted
    /// from scratch whenever somebody asks.
    #[derive(Default)]
    struct Model {
        places: Vec<Place>,
        moods: Vec<(VisitorId, Mood)>,
    }

    struct Place {
        visitor: VisitorId,
        hold: Option<HoldId>,
    }

    impl Model {
        fn forget_the_absent(&mut self) {
            let places = &self.places;
            self.moods.retain(|(id, _)| places.iter().any(|place| place.visitor == *id));
        }

        fn set_mood(&mut self, id: &VisitorId, mood: Option<Mood>) {
            if !self.places.iter().any(|place| place.visitor == *id) {
                return;
            }
            self.moods.retain(|(other, _)| other != id);
            self.moods.extend(mood.map(|mood| (id.clone(), mood)));
        }

        fn take_session(&mut self, id: &VisitorId) -> bool {
            let found = self.places.iter().position(|place| place.visitor == *id && place.hold.is_none());
            found.map(|index| self.places.swap_remove(index)).is_some()
        }

        fn counts(&self, vocabulary: &Vocabulary) -> (u32, MoodCounts) {
            let mut ids: Vec<_> = self.places.iter().map(|place| &place.visitor).collect();
            ids.sort();
            ids.dedup();
            let mut moods = vocabulary.zero();
            for (_, mood) in &self.moods {
                moods.add(*mood);
            }
            (u32::try_from(ids.len()).unwrap(), moods)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(u8, Option<u8>),
        Mood(u8, Option<u8>),
        Leave(u8),
        Lose(u8),
        Release(usize),
        Hold(u8, Option<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = 0..6_u8;
        let mood = proptest::option::of(0..3_u8);
        prop_oneof![
            3 => (who.clone(), mood.clone()).prop_map(|(who, mood)| Step::Join(who, mood)),
            1 => (who.clone(), mood.clone()).prop_map(|(who, mood)| Step::Hold(who, mood)),
            2 => (who.clone(), mood).prop_map(|(who, mood)| Step::Mood(who, mood)),
            2 => who.clone().prop_map(Step::Leave),
            2 => who.prop_map(Step::Lose),
            2 => (0..8_usize).prop_map(Step::Release),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_steps_give_what_a_naive_recount_gives(steps in proptest::collection::vec(step(), 1..80)) {
            let vocabulary = Vocabulary::parse("calm,joy,hope").unwrap();
            let id = |who: u8| VisitorId::try_from(format!("v{who}")).unwrap();
            let mood = |n: u8| vocabulary.find(["calm", "joy", "hope"][usize::from(n)]).unwrap();
            let mut presence = Presence::new(vocabulary.zero());
            let mut model = Model::default();
            let mut holds: Vec<(VisitorId, HoldId)> = Vec::new();

            for step in steps {
                let before = (model.counts(&vocabulary), presence.seq());
                let passage = match step {
                    Step::Join(who, with) => {
                        let (id, with) = (id(who), with.map(mood));
                        model.places.retain(|place| place.visitor != id || place.hold.is_none());
                        model.places.push(Place { visitor: id.clone(), hold: None });
                        if with.is_some() {
                            model.set_mood(&id, with);
                        }
                        presence.join(&id, with)
                    }
                    Step::Hold(who, with) => {
                        let (id, with) = (id(who), with.map(mood));
                        let hold = presence.hold(&id, with);
                        let is_new = !model.places.iter().any(|place| place.visitor == id);
                        prop_assert_eq!(hold.is_some(), is_new);
                        if is_new {
                            model.places.push(Place { visitor: id.clone(), hold });
                            model.set_mood(&id, with);
                        }
                        holds.extend(hold.map(|hold| (id, hold)));
                        if is_new { Passage::Arrived } else { Passage::None }
                    }
                    Step::Mood(who, to) => {
                        model.set_mood(&id(who), to.map(mood));
                        presence.set_mood(&id(who), to.map(mood));
                        Passage::None
                    }
                    Step::Leave(who) => {
                        if !model.take_session(&id(who)) {
                            continue; // only an open session can leave
                        }
                        presence.leave(&id(who))
                    }
                    Step::Lose(who) => {
                        let id = id(who);
                        if !model.take_session(&id) {
                            continue;
                        }
                        let hold = presence.lose(&id);
                        model.places.retain(|place| place.visitor != id || place.hold.is_none());
                        model.places.push(Place { visitor: id.clone(), hold });
                        holds.extend(hold.map(|hold| (id, hold)));
                        Passage::None
                    }
                    Step::Release(n) => {
                        if holds.is_empty() {
                            continue;
                        }
                        let (id, hold) = holds.swap_remove(n % holds.len());
                        model.places.retain(|place| place.hold != Some(hold));
                        presence.release(&id, hold)
                    }
                };
                model.forget_the_absent();

                let after = model.counts(&vocabulary);
                prop_assert_eq!((presence.present(), presence.moods().clone()), after.clone());
                prop_assert_eq!(presence.is_empty(), after.0 == 0);
                // One step is one state at the most, and a state is new exactly when it differs.
                prop_assert_eq!(presence.seq() - before.1, u64::from(after != before.0));
                let expected = match after.0.cmp(&before.0.0) {
                    std::cmp::Ordering::Less => Passage::Left,
                    std::cmp::Ordering::Equal => Passage::None,
                    std::cmp::Ordering::Greater => Passage::Arrived,
                };
                prop_assert_eq!(passage, expected);
            }
        }
    }
}
