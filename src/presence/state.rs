//! The state of one room: its visitors, their sessions, holds and moods.
//!
//! Pure: no clock, no sockets, no locks. Visitors are counted, not sessions. A visitor without a session counts until
//! the deadline of their hold. A property test compares the state with a naive model.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::hold::Hold;
use crate::protocol::{Mood, MoodCounts, VisitorId};

/// The visitors of one room.
#[derive(Debug)]
pub(crate) struct RoomState {
    visitors: HashMap<VisitorId, VisitorState>,
    moods: MoodCounts,
    /// Visitors without a session.
    held: u32,
    seq: u64,
}

/// One visitor in one room.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VisitorState {
    /// Open sessions.
    pub sessions: u32,
    /// The mood in this room.
    pub mood: Option<Mood>,
    /// Applies after the last session has ended.
    hold: Option<Hold>,
}

impl VisitorState {
    /// The hold of a visitor without a session.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.hold.filter(|_| self.sessions == 0)
    }

    fn is_gone(&self) -> bool {
        self.sessions == 0 && self.hold.is_none()
    }
}

/// What an update did to the set of visitors in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OccupancyChange {
    /// The same visitors as before.
    Unchanged,
    /// The visitor was not in the room before.
    Entered,
    /// The visitor is not in the room any more.
    Left,
}

/// One state of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The state's number: rises from 1 while the room exists; 0 where there is no room.
    pub seq: u64,
    /// Distinct visitors.
    pub present: u32,
    /// Visitors without a session. It may change while `seq` does not.
    pub held: u32,
    /// Visitors by mood.
    pub moods: MoodCounts,
}

impl RoomState {
    /// An empty room. `moods` are the zero counts of the vocabulary.
    pub(crate) fn new(moods: MoodCounts) -> Self {
        Self { visitors: HashMap::new(), moods, held: 0, seq: 0 }
    }

    /// Rises by one with every change of `present` or `moods`.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Distinct visitors in the room.
    pub(crate) fn present(&self) -> u32 {
        u32::try_from(self.visitors.len()).unwrap_or(u32::MAX)
    }

    /// Visitors by mood.
    pub(crate) fn moods(&self) -> &MoodCounts {
        &self.moods
    }

    /// All counts, with their `seq`.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { seq: self.seq, present: self.present(), held: self.held, moods: self.moods.clone() }
    }

    /// Whether the room has no visitors, held ones included.
    pub(crate) fn is_empty(&self) -> bool {
        self.visitors.is_empty()
    }

    /// Whether this visitor is in the room.
    pub(crate) fn contains(&self, id: &VisitorId) -> bool {
        self.visitors.contains_key(id)
    }

    /// The hold of this visitor, if they are in the room without a session.
    pub(crate) fn hold_of(&self, id: &VisitorId) -> Option<Hold> {
        self.visitors.get(id)?.hold()
    }

    /// All visitors, in no order.
    pub(crate) fn visitors(&self) -> impl Iterator<Item = (&VisitorId, &VisitorState)> {
        self.visitors.iter()
    }

    /// Opens a session. It ends the visitor's hold, and sets the mood if there is one.
    pub(crate) fn join(&mut self, id: &VisitorId, mood: Option<Mood>) -> OccupancyChange {
        let (change, visitor) = match self.visitors.entry(id.clone()) {
            Entry::Occupied(entry) => (OccupancyChange::Unchanged, entry.into_mut()),
            Entry::Vacant(entry) => (OccupancyChange::Entered, entry.insert(VisitorState::default())),
        };
        self.held -= u32::from(visitor.hold().is_some());
        visitor.sessions += 1;
        visitor.hold = None;
        let has_moved = mood.is_some() && change_mood(&mut self.moods, visitor, mood);
        // Entering with a mood is one change.
        self.seq += u64::from(has_moved || change == OccupancyChange::Entered);
        change
    }

    /// Sets or clears the mood of a visitor in the room. It is one change, never a leave and a join.
    pub(crate) fn set_mood(&mut self, id: &VisitorId, mood: Option<Mood>) {
        if let Some(visitor) = self.visitors.get_mut(id) {
            self.seq += u64::from(change_mood(&mut self.moods, visitor, mood));
        }
    }

    /// Ends a session without a hold. A hold that another session has left stays until its deadline.
    pub(crate) fn leave(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        self.update(id, now, |visitor| visitor.sessions = visitor.sessions.saturating_sub(1))
    }

    /// Ends a session that was lost, and leaves this hold. Of two holds of a visitor the later one applies.
    pub(crate) fn leave_with_hold(&mut self, id: &VisitorId, hold: Hold, now: Instant) -> OccupancyChange {
        self.update(id, now, |visitor| {
            visitor.sessions = visitor.sessions.saturating_sub(1);
            visitor.hold = Some(hold.or_later(visitor.hold));
        })
    }

    /// Adds a visitor who has no session, with this mood. Does nothing if the visitor is in the room.
    pub(crate) fn add_held(&mut self, id: &VisitorId, mood: Option<Mood>, hold: Hold) -> OccupancyChange {
        let Entry::Vacant(entry) = self.visitors.entry(id.clone()) else { return OccupancyChange::Unchanged };
        entry.insert(VisitorState { sessions: 0, mood, hold: Some(hold) });
        if let Some(mood) = mood {
            self.moods.add(mood);
        }
        self.held += 1;
        self.seq += 1;
        OccupancyChange::Entered
    }

    /// Ends the visitor's hold if its deadline has passed.
    pub(crate) fn expire(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        self.update(id, now, |_| ())
    }

    /// Ends the visitor's hold before its deadline.
    pub(crate) fn release(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        self.update(id, now, |visitor| visitor.hold = None)
    }

    /// Recounts everything from the visitors, removes those who have neither a session nor a hold, and corrects the
    /// counts. `zero` are the zero counts of the vocabulary. Returns the counts before and after.
    pub(crate) fn recount(&mut self, zero: MoodCounts) -> (Snapshot, Snapshot) {
        let stored = self.snapshot();
        self.visitors.retain(|_, visitor| !visitor.is_gone());
        self.moods = zero;
        self.visitors.values().filter_map(|visitor| visitor.mood).for_each(|mood| self.moods.add(mood));
        let held = self.visitors.values().filter(|visitor| visitor.hold().is_some()).count();
        self.held = u32::try_from(held).unwrap_or(u32::MAX);
        self.seq += u64::from((self.present(), &self.moods) != (stored.present, &stored.moods));
        (stored, self.snapshot())
    }

    /// Changes a visitor in the room, and removes them if they have neither a session nor a hold afterwards.
    fn update(
        &mut self,
        id: &VisitorId,
        now: Instant,
        change: impl FnOnce(&mut VisitorState),
    ) -> OccupancyChange {
        let Some(visitor) = self.visitors.get_mut(id) else { return OccupancyChange::Unchanged };
        let was_held = visitor.hold().is_some();
        change(visitor);
        visitor.hold.take_if(|hold| hold.has_expired(now));
        let (is_held, is_gone) = (visitor.hold().is_some(), visitor.is_gone());
        self.held = self.held + u32::from(is_held) - u32::from(was_held);
        if !is_gone {
            return OccupancyChange::Unchanged;
        }
        if let Some(mood) = self.visitors.remove(id).and_then(|visitor| visitor.mood) {
            self.moods.remove(mood);
        }
        self.seq += 1;
        OccupancyChange::Left
    }
}

/// Returns whether the mood is another one than before.
fn change_mood(counts: &mut MoodCounts, visitor: &mut VisitorState, mood: Option<Mood>) -> bool {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use strum::VariantArray;

    use super::super::Config;
    use super::super::audit::audit;
    use super::super::hold::HoldReason;
    use super::super::metrics::PresenceMetrics;
    use super::super::registry::Registry;
    use super::*;
    use crate::panics::Panics;
    use crate::protocol::{RoomId, Vocabulary};
    use crate::time::Clock;

    /// A naive room: a list of sessions and holds, recounted from scratch each time.
    #[derive(Default)]
    struct Model {
        entries: Vec<ModelEntry>,
        moods: Vec<(VisitorId, Mood)>,
    }

    #[derive(Clone, PartialEq)]
    struct ModelEntry {
        visitor: VisitorId,
        /// None is an open session.
        hold: Option<Hold>,
    }

    impl Model {
        fn forget_absent_moods(&mut self) {
            let entries = &self.entries;
            self.moods.retain(|(id, _)| entries.iter().any(|entry| entry.visitor == *id));
        }

        fn set_mood(&mut self, id: &VisitorId, mood: Option<Mood>) {
            if !self.contains(id) {
                return;
            }
            self.moods.retain(|(other, _)| other != id);
            self.moods.extend(mood.map(|mood| (id.clone(), mood)));
        }

        fn contains(&self, id: &VisitorId) -> bool {
            self.entries.iter().any(|entry| entry.visitor == *id)
        }

        fn sessions(&self, id: &VisitorId) -> usize {
            self.entries.iter().filter(|entry| entry.visitor == *id && entry.hold.is_none()).count()
        }

        fn take_session(&mut self, id: &VisitorId) -> bool {
            let found = self.entries.iter().position(|entry| entry.visitor == *id && entry.hold.is_none());
            found.map(|index| self.entries.remove(index)).is_some()
        }

        /// Of a visitor without a session, the hold with the latest deadline: of those, the newest.
        fn hold_of(&self, id: &VisitorId) -> Option<Hold> {
            let theirs = self.entries.iter().filter(|entry| entry.visitor == *id);
            let hold = theirs.filter_map(|entry| entry.hold).max_by_key(|hold| hold.deadline);
            hold.filter(|_| self.sessions(id) == 0)
        }

        fn counts(&self, vocabulary: &Vocabulary) -> (u32, MoodCounts) {
            let mut ids: Vec<_> = self.entries.iter().map(|entry| &entry.visitor).collect();
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
        SetMood(u8, Option<u8>),
        Leave(u8),
        LeaveWithHold(u8, usize, u8),
        AddHeld(u8, Option<u8>, usize, u8),
        Wait(u8),
        Release(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let visitor = 0..6_u8;
        let mood = proptest::option::of(0..3_u8);
        let reason = 0..HoldReason::VARIANTS.len();
        // Some holds have expired when they begin.
        let length = 0..10_u8;
        prop_oneof![
            3 => (visitor.clone(), mood.clone()).prop_map(|(visitor, mood)| Step::Join(visitor, mood)),
            1 => (visitor.clone(), mood.clone(), reason.clone(), 1..10_u8)
                .prop_map(|(visitor, mood, reason, length)| Step::AddHeld(visitor, mood, reason, length)),
            2 => (visitor.clone(), mood).prop_map(|(visitor, mood)| Step::SetMood(visitor, mood)),
            2 => visitor.clone().prop_map(Step::Leave),
            2 => (visitor.clone(), reason, length)
                .prop_map(|(visitor, reason, length)| Step::LeaveWithHold(visitor, reason, length)),
            2 => (1..6_u8).prop_map(Step::Wait),
            1 => visitor.prop_map(Step::Release),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn room_state_equals_naive_model(steps in proptest::collection::vec(step(), 1..80)) {
            let vocabulary = Vocabulary::parse("calm,joy,hope").unwrap();
            let id = |visitor: u8| VisitorId::try_from(format!("v{visitor}")).unwrap();
            let mood = |n: u8| vocabulary.find(["calm", "joy", "hope"][usize::from(n)]).unwrap();
            let mut now = Instant::now();
            let hold = |now, reason: usize, length: u8| {
                Hold::new(HoldReason::VARIANTS[reason], now, Duration::from_secs(length.into()))
            };
            let mut state = RoomState::new(vocabulary.zero());
            let mut model = Model::default();

            for step in steps {
                let before = (model.counts(&vocabulary), state.seq());
                let mut changes = 1;
                let change = match step {
                    Step::Join(visitor, with) => {
                        let (id, with) = (id(visitor), with.map(mood));
                        model.entries.retain(|entry| entry.visitor != id || entry.hold.is_none());
                        model.entries.push(ModelEntry { visitor: id.clone(), hold: None });
                        if with.is_some() {
                            model.set_mood(&id, with);
                        }
                        state.join(&id, with)
                    }
                    Step::AddHeld(visitor, with, reason, length) => {
                        let (id, with, hold) = (id(visitor), with.map(mood), hold(now, reason, length));
                        if !model.contains(&id) {
                            model.entries.push(ModelEntry { visitor: id.clone(), hold: Some(hold) });
                            model.set_mood(&id, with);
                        }
                        state.add_held(&id, with, hold)
                    }
                    Step::SetMood(visitor, to) => {
                        model.set_mood(&id(visitor), to.map(mood));
                        state.set_mood(&id(visitor), to.map(mood));
                        OccupancyChange::Unchanged
                    }
                    Step::Leave(visitor) => {
                        if !model.take_session(&id(visitor)) {
                            continue; // only an open session can leave
                        }
                        state.leave(&id(visitor), now)
                    }
                    Step::LeaveWithHold(visitor, reason, length) => {
                        let (id, hold) = (id(visitor), hold(now, reason, length));
                        if !model.take_session(&id) {
                            continue;
                        }
                        model.entries.push(ModelEntry { visitor: id.clone(), hold: Some(hold) });
                        state.leave_with_hold(&id, hold, now)
                    }
                    Step::Wait(seconds) => {
                        now += Duration::from_secs(seconds.into());
                        let ids: Vec<_> = state.visitors().map(|(id, _)| id.clone()).collect();
                        changes = ids.iter().filter(|id| state.expire(id, now) == OccupancyChange::Left).count();
                        if changes > 0 { OccupancyChange::Left } else { OccupancyChange::Unchanged }
                    }
                    Step::Release(visitor) => {
                        model.entries.retain(|entry| entry.visitor != id(visitor) || entry.hold.is_none());
                        state.release(&id(visitor), now)
                    }
                };
                model.entries.retain(|entry| entry.hold.is_none_or(|hold| hold.deadline > now));
                model.forget_absent_moods();

                let after = model.counts(&vocabulary);
                prop_assert_eq!((state.present(), state.moods().clone()), after.clone());
                prop_assert_eq!(state.is_empty(), after.0 == 0);
                // `seq` rises by one with a change, and only with a change.
                let states = if after == before.0 { 0 } else { changes as u64 };
                prop_assert_eq!(state.seq() - before.1, states);
                let expected = match after.0.cmp(&before.0.0) {
                    std::cmp::Ordering::Less => OccupancyChange::Left,
                    std::cmp::Ordering::Equal => OccupancyChange::Unchanged,
                    std::cmp::Ordering::Greater => OccupancyChange::Entered,
                };
                prop_assert_eq!(change, expected);
                let mut held = 0;
                for id in (0..6).map(id) {
                    let hold = model.hold_of(&id);
                    held += u32::from(hold.is_some());
                    prop_assert_eq!(state.hold_of(&id), hold);
                }
                prop_assert_eq!(state.snapshot().held, held);
                let (stored, recounted) = state.recount(vocabulary.zero());
                prop_assert_eq!(stored, recounted);
            }
        }
    }

    fn hold() -> Hold {
        Hold::new(HoldReason::Grace, Instant::now(), Duration::from_hours(1))
    }

    #[test]
    fn recount_corrects_every_count_of_a_room() {
        let vocabulary = Vocabulary::parse("calm,joy").unwrap();
        let (calm, joy) = (vocabulary.find("calm").unwrap(), vocabulary.find("joy").unwrap());
        let [ann, bob] = ["ann", "bob"].map(|name| VisitorId::try_from(name).unwrap());
        let mut state = RoomState::new(vocabulary.zero());
        state.join(&ann, Some(calm));
        state.add_held(&bob, None, hold());
        let right = state.snapshot();
        assert_eq!(state.recount(vocabulary.zero()), (right.clone(), right.clone()));

        state.held += 1;
        let (stored, recounted) = state.recount(vocabulary.zero());
        assert_eq!(
            (stored.held, &recounted),
            (2, &right),
            "`held` is no part of the state that is published"
        );

        state.moods.add(joy);
        let (stored, recounted) = state.recount(vocabulary.zero());
        assert_ne!(stored.moods, right.moods);
        assert_eq!(recounted, Snapshot { seq: right.seq + 1, ..right });

        state.visitors.get_mut(&ann).unwrap().sessions = 0;
        let (stored, recounted) = state.recount(vocabulary.zero());
        assert_eq!((stored.present, recounted.present, recounted.seq), (2, 1, stored.seq + 1));
        assert_eq!(recounted.moods, vocabulary.zero());
    }

    #[tokio::test]
    async fn audit_removes_visitors_without_session_and_hold_from_every_count() {
        let metrics = PresenceMetrics::register(&Panics::register());
        let registry = Registry::new(Config::default(), Clock::system(), metrics);
        let lobby = RoomId::try_from("lobby").unwrap();
        let [ann, bob] = ["ann", "bob"].map(|name| VisitorId::try_from(name).unwrap());
        let corrupt = |id: &VisitorId| {
            let [room] = &registry.rooms(2)[..] else { panic!("one room") };
            room.update(registry.now(), |state| state.visitors.get_mut(id).unwrap().hold = None);
        };
        for id in [&ann, &bob] {
            registry.add_held(&lobby, id, None, hold()).unwrap();
        }
        let kinds = async || -> Vec<&str> {
            audit(&registry).await.iter().map(|found| <&str>::from(found.kind)).collect()
        };
        corrupt(&bob);
        assert_eq!(registry.snapshot(&lobby).present, 2);
        assert_eq!(kinds().await, ["present", "held", "visitors", "holds"]);
        assert_eq!((registry.snapshot(&lobby).present, registry.totals().visitors), (1, 1));

        corrupt(&ann);
        assert_eq!(kinds().await, ["present", "held", "rooms", "visitors", "holds"]);
        assert_eq!((registry.totals().visitors, registry.totals().rooms), (0, 0));
        assert_eq!(registry.expire_next(Instant::now() + Duration::from_hours(2)).break_value(), Some(None));
        assert_eq!(audit(&registry).await, []);
    }
}
