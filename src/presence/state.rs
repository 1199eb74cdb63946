//! RoomState: who is in one room, and in what mood.
//!
//! Pure: no clock, no sockets, no locks. Sessions come and go; what is counted is people, of whom some are held
//! without a session until a deadline. The state is a function of the calls made on it, which the tests hold
//! against a naive model.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::audit::{AuditedCount, Difference};
use super::hold::Hold;
use crate::protocol::{Mood, MoodCounts, VisitorId};

/// The people of one room.
#[derive(Debug)]
pub(crate) struct RoomState {
    visitors: HashMap<VisitorId, Visitor>,
    moods: MoodCounts,
    /// Visitors without a session.
    held: u32,
    seq: u64,
}

/// What is known of a visitor in a room.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Visitor {
    /// Open sessions.
    pub sessions: u32,
    /// The mood in this room.
    pub mood: Option<Mood>,
    /// What is left when the last session is over.
    hold: Option<Hold>,
}

impl Visitor {
    /// The hold of a visitor who has no session.
    #[must_use]
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.hold.filter(|_| self.sessions == 0)
    }

    fn is_gone(&self) -> bool {
        self.sessions == 0 && self.hold.is_none()
    }
}

/// Whether a step took somebody out of the room or brought somebody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OccupancyChange {
    /// The same people as before.
    None,
    /// The visitor was not here and is now.
    Arrived,
    /// The visitor was here and is no longer.
    Left,
}

impl RoomState {
    /// An empty room. `moods` are the zero counts of the hub's vocabulary.
    #[must_use]
    pub(crate) fn new(moods: MoodCounts) -> Self {
        Self { visitors: HashMap::new(), moods, held: 0, seq: 0 }
    }

    /// Which state this is: rises by one with every change of `present` or `moods`.
    #[must_use]
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Distinct visitors in the room.
    #[must_use]
    pub(crate) fn present(&self) -> u32 {
        u32::try_from(self.visitors.len()).unwrap_or(u32::MAX)
    }

    /// How many of them have no session.
    #[must_use]
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// People by mood.
    #[must_use]
    pub(crate) fn moods(&self) -> &MoodCounts {
        &self.moods
    }

    /// Whether nobody is here and nobody is held.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.visitors.is_empty()
    }

    /// Whether this visitor is here.
    #[must_use]
    pub(crate) fn has(&self, id: &VisitorId) -> bool {
        self.visitors.contains_key(id)
    }

    /// The hold of this visitor, where they are here without a session.
    #[must_use]
    pub(crate) fn hold_of(&self, id: &VisitorId) -> Option<Hold> {
        self.visitors.get(id)?.hold()
    }

    /// The people here, in no order.
    pub(crate) fn visitors(&self) -> impl Iterator<Item = (&VisitorId, &Visitor)> {
        self.visitors.iter()
    }

    /// A session of `visitor` opens. Whoever is back is not held any more; a mood, where one is
    /// given, is the last one set.
    pub(crate) fn join(&mut self, id: &VisitorId, mood: Option<Mood>) -> OccupancyChange {
        let (passage, visitor) = match self.visitors.entry(id.clone()) {
            Entry::Occupied(entry) => (OccupancyChange::None, entry.into_mut()),
            Entry::Vacant(entry) => (OccupancyChange::Arrived, entry.insert(Visitor::default())),
        };
        self.held -= u32::from(visitor.hold().is_some());
        visitor.sessions += 1;
        visitor.hold = None;
        let moved = mood.is_some() && change_mood(&mut self.moods, visitor, mood);
        // Arriving in a mood is one step.
        self.seq += u64::from(moved || passage == OccupancyChange::Arrived);
        passage
    }

    /// Sets or clears the mood of a visitor who is here. One step, never a leave and a join.
    pub(crate) fn set_mood(&mut self, id: &VisitorId, mood: Option<Mood>) {
        if let Some(visitor) = self.visitors.get_mut(id) {
            self.seq += u64::from(change_mood(&mut self.moods, visitor, mood));
        }
    }

    /// A session of `visitor` ends. Nothing is held for it; what another one that was lost has left lasts until
    /// its deadline.
    pub(crate) fn leave(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        self.step(id, now, |visitor| visitor.sessions = visitor.sessions.saturating_sub(1))
    }

    /// A session of `visitor` is lost, and leaves this hold. Of two holds the one that lasts longer counts.
    pub(crate) fn leave_with_hold(&mut self, id: &VisitorId, hold: Hold, now: Instant) -> OccupancyChange {
        self.step(id, now, |visitor| {
            visitor.sessions = visitor.sessions.saturating_sub(1);
            visitor.hold = Some(hold.or_longer(visitor.hold));
        })
    }

    /// A visitor who has no session yet is held, in this mood. Whoever is here is left as they are.
    pub(crate) fn hold(&mut self, id: &VisitorId, mood: Option<Mood>, hold: Hold) -> OccupancyChange {
        let Entry::Vacant(entry) = self.visitors.entry(id.clone()) else { return OccupancyChange::None };
        entry.insert(Visitor { sessions: 0, mood, hold: Some(hold) });
        if let Some(mood) = mood {
            self.moods.add(mood);
        }
        self.held += 1;
        self.seq += 1;
        OccupancyChange::Arrived
    }

    /// Ends the hold of `visitor` where it is over by `now`.
    pub(crate) fn expire(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        self.step(id, now, |_| ())
    }

    /// Ends the hold of `visitor`, whenever its deadline is.
    pub(crate) fn release(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        self.step(id, now, |visitor| visitor.hold = None)
    }

    /// Recounts everything from the visitors, and returns what was wrong, which is right now. `zero` are the
    /// zero counts of the vocabulary.
    pub(crate) fn audit(&mut self, zero: MoodCounts) -> Vec<Difference> {
        let present = self.present();
        self.visitors.retain(|_, visitor| !visitor.is_gone());
        let mut moods = zero;
        self.visitors.values().filter_map(|visitor| visitor.mood).for_each(|mood| moods.add(mood));
        let held = self.visitors.values().filter(|visitor| visitor.hold().is_some()).count();
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let seen = [
            Difference::between(AuditedCount::Present, &present, &self.present()),
            Difference::between(AuditedCount::Moods, &self.moods, &moods),
        ];
        self.moods = moods;
        self.seq += u64::from(seen.iter().any(Option::is_some));
        let held = Difference::between(AuditedCount::Held, &std::mem::replace(&mut self.held, held), &held);
        seen.into_iter().chain([held]).flatten().collect()
    }

    /// A step of a visitor who is here, by which they may be gone.
    fn step(&mut self, id: &VisitorId, now: Instant, step: impl FnOnce(&mut Visitor)) -> OccupancyChange {
        let Some(visitor) = self.visitors.get_mut(id) else { return OccupancyChange::None };
        let was_held = visitor.hold().is_some();
        step(visitor);
        visitor.hold.take_if(|hold| hold.is_over(now));
        let (is_held, is_gone) = (visitor.hold().is_some(), visitor.is_gone());
        self.held = self.held + u32::from(is_held) - u32::from(was_held);
        if !is_gone {
            return OccupancyChange::None;
        }
        if let Some(mood) = self.visitors.remove(id).and_then(|visitor| visitor.mood) {
            self.moods.remove(mood);
        }
        self.seq += 1;
        OccupancyChange::Left
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
impl RoomState {
    pub(super) fn break_moods(&mut self, less: Mood, more: Mood) {
        self.moods.remove(less);
        self.moods.add(more);
    }

    pub(super) fn break_people(&mut self, id: &VisitorId) {
        if let Some(visitor) = self.visitors.get_mut(id) {
            (visitor.sessions, visitor.hold) = (0, None);
        }
    }

    pub(super) fn break_held(&mut self) {
        self.held += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::hold::HoldReason;
    use strum::VariantArray;

    use super::*;
    use crate::protocol::Vocabulary;

    /// What a room is, told as plainly as possible: a list of sessions and holds, recounted
    /// from scratch whenever somebody asks.
    #[derive(Default)]
    struct Model {
        places: Vec<SubscriberId>,
        moods: Vec<(VisitorId, Mood)>,
    }

    #[derive(Clone, PartialEq)]
    struct SubscriberId {
        visitor: VisitorId,
        /// None is an open session.
        hold: Option<Hold>,
    }

    impl Model {
        fn forget_the_absent(&mut self) {
            let places = &self.places;
            self.moods.retain(|(id, _)| places.iter().any(|place| place.visitor == *id));
        }

        fn set_mood(&mut self, id: &VisitorId, mood: Option<Mood>) {
            if !self.has(id) {
                return;
            }
            self.moods.retain(|(other, _)| other != id);
            self.moods.extend(mood.map(|mood| (id.clone(), mood)));
        }

        fn has(&self, id: &VisitorId) -> bool {
            self.places.iter().any(|place| place.visitor == *id)
        }

        fn sessions(&self, id: &VisitorId) -> usize {
            self.places.iter().filter(|place| place.visitor == *id && place.hold.is_none()).count()
        }

        fn take_session(&mut self, id: &VisitorId) -> bool {
            let found = self.places.iter().position(|place| place.visitor == *id && place.hold.is_none());
            found.map(|index| self.places.remove(index)).is_some()
        }

        /// Everybody without a session, with the hold that lasts longest: of those, the newest.
        fn held(&self, id: &VisitorId) -> Option<Hold> {
            let theirs = self.places.iter().filter(|place| place.visitor == *id);
            let hold = theirs.filter_map(|place| place.hold).max_by_key(|hold| hold.deadline);
            hold.filter(|_| self.sessions(id) == 0)
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
        Lose(u8, usize, u8),
        Hold(u8, Option<u8>, usize, u8),
        Pass(u8),
        Release(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = 0..6_u8;
        let mood = proptest::option::of(0..3_u8);
        let reason = 0..HoldReason::VARIANTS.len();
        // Some holds are over when they begin.
        let length = 0..10_u8;
        prop_oneof![
            3 => (who.clone(), mood.clone()).prop_map(|(who, mood)| Step::Join(who, mood)),
            1 => (who.clone(), mood.clone(), reason.clone(), 1..10_u8)
                .prop_map(|(who, mood, reason, length)| Step::Hold(who, mood, reason, length)),
            2 => (who.clone(), mood).prop_map(|(who, mood)| Step::Mood(who, mood)),
            2 => who.clone().prop_map(Step::Leave),
            2 => (who.clone(), reason, length).prop_map(|(who, reason, length)| Step::Lose(who, reason, length)),
            2 => (1..6_u8).prop_map(Step::Pass),
            1 => who.prop_map(Step::Release),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_steps_give_what_a_naive_recount_gives(steps in proptest::collection::vec(step(), 1..80)) {
            let vocabulary = Vocabulary::parse("calm,joy,hope").unwrap();
            let id = |who: u8| VisitorId::try_from(format!("v{who}")).unwrap();
            let mood = |n: u8| vocabulary.find(["calm", "joy", "hope"][usize::from(n)]).unwrap();
            let mut now = Instant::now();
            let hold = |now, reason: usize, length: u8| {
                Hold::new(HoldReason::VARIANTS[reason], now, Duration::from_secs(length.into()))
            };
            let mut presence = RoomState::new(vocabulary.zero());
            let mut model = Model::default();

            for step in steps {
                let before = (model.counts(&vocabulary), presence.seq());
                let mut passages = 1;
                let passage = match step {
                    Step::Join(who, with) => {
                        let (id, with) = (id(who), with.map(mood));
                        model.places.retain(|place| place.visitor != id || place.hold.is_none());
                        model.places.push(SubscriberId { visitor: id.clone(), hold: None });
                        if with.is_some() {
                            model.set_mood(&id, with);
                        }
                        presence.join(&id, with)
                    }
                    Step::Hold(who, with, reason, length) => {
                        let (id, with, hold) = (id(who), with.map(mood), hold(now, reason, length));
                        if !model.has(&id) {
                            model.places.push(SubscriberId { visitor: id.clone(), hold: Some(hold) });
                            model.set_mood(&id, with);
                        }
                        presence.hold(&id, with, hold)
                    }
                    Step::Mood(who, to) => {
                        model.set_mood(&id(who), to.map(mood));
                        presence.set_mood(&id(who), to.map(mood));
                        OccupancyChange::None
                    }
                    Step::Leave(who) => {
                        if !model.take_session(&id(who)) {
                            continue; // only an open session can leave
                        }
                        presence.leave(&id(who), now)
                    }
                    Step::Lose(who, reason, length) => {
                        let (id, hold) = (id(who), hold(now, reason, length));
                        if !model.take_session(&id) {
                            continue;
                        }
                        model.places.push(SubscriberId { visitor: id.clone(), hold: Some(hold) });
                        presence.leave_with_hold(&id, hold, now)
                    }
                    Step::Pass(seconds) => {
                        now += Duration::from_secs(seconds.into());
                        let ids: Vec<_> = presence.visitors().map(|(id, _)| id.clone()).collect();
                        let ended = ids.iter().filter(|id| presence.expire(id, now) == OccupancyChange::Left).count();
                        passages = ended;
                        if ended > 0 { OccupancyChange::Left } else { OccupancyChange::None }
                    }
                    Step::Release(who) => {
                        model.places.retain(|place| place.visitor != id(who) || place.hold.is_none());
                        presence.release(&id(who), now)
                    }
                };
                model.places.retain(|place| place.hold.is_none_or(|hold| hold.deadline > now));
                model.forget_the_absent();

                let after = model.counts(&vocabulary);
                prop_assert_eq!((presence.present(), presence.moods().clone()), after.clone());
                prop_assert_eq!(presence.is_empty(), after.0 == 0);
                // One step is one state at the most, and a state is new exactly when it differs.
                let states = if after == before.0 { 0 } else { passages as u64 };
                prop_assert_eq!(presence.seq() - before.1, states);
                let expected = match after.0.cmp(&before.0.0) {
                    std::cmp::Ordering::Less => OccupancyChange::Left,
                    std::cmp::Ordering::Equal => OccupancyChange::None,
                    std::cmp::Ordering::Greater => OccupancyChange::Arrived,
                };
                prop_assert_eq!(passage, expected);
                // Who is held, why, and until when.
                let mut held = 0;
                for id in (0..6).map(id) {
                    let hold = model.held(&id);
                    held += u32::from(hold.is_some());
                    prop_assert_eq!(presence.hold_of(&id), hold);
                }
                prop_assert_eq!(presence.held(), held);
                prop_assert_eq!(presence.audit(vocabulary.zero()), []);
            }
        }
    }
}
