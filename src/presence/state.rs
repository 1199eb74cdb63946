//! The state of one room: its visitors, their sessions, holds, sits and moods.
//!
//! Pure: no clock, no sockets, no locks. Visitors are counted, not sessions. A visitor without a session counts until
//! the deadline of their hold. A property test compares the state with a naive model.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::broadcast::SubscriberId;
use super::hold::{Deadline, Hold, PermittedSit, Sit, SitCounts, SitOutcome};
use super::union::RoomUnion;
use super::visitor::VisitorState;
use crate::protocol::{Mood, MoodCounts, Time, VisitorId};
use crate::time::millis;
use crate::transport::SitPermit;

/// The visitors of one room.
#[derive(Debug)]
pub(crate) struct RoomState {
    pub(super) visitors: HashMap<VisitorId, VisitorState>,
    moods: MoodCounts,
    /// Visitors without a session.
    held: u32,
    /// Visitors who sit.
    sitting: u32,
    sits: SitCounts,
    /// Visitors with followers whose mood was set, and whose followers do not know it yet.
    moods_set: HashSet<VisitorId>,
    /// The same for their sits.
    sits_set: HashSet<VisitorId>,
    seq: u64,
    /// The time of the next update, in milliseconds of the monotonic clock.
    now_ms: u64,
    /// The visitors of all nodes, where the hub is one of several; what the room counts is theirs then.
    pub(super) union: Option<Box<RoomUnion>>,
}

/// What was set of a visitor on one of their sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnChange {
    /// The mood.
    Mood(Option<Mood>),
    /// The end of the sit.
    Sit(Option<Time>),
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
    /// Visitors who sit. It may change while `seq` does not.
    pub sitting: u32,
    /// Visitors by mood.
    pub moods: MoodCounts,
}

impl RoomState {
    /// An empty room. `moods` are the zero counts of the vocabulary.
    pub(crate) fn new(moods: MoodCounts) -> Self {
        Self {
            visitors: HashMap::new(),
            moods,
            held: 0,
            sitting: 0,
            sits: SitCounts::default(),
            moods_set: HashSet::new(),
            sits_set: HashSet::new(),
            seq: 0,
            now_ms: 0,
            union: None,
        }
    }

    /// Sets the time of the next update.
    pub(super) fn set_time(&mut self, now: Duration) {
        self.now_ms = millis(now);
    }

    /// The room counts the visitors of all nodes.
    pub(crate) fn in_cluster(self, union: RoomUnion) -> Self {
        Self { union: Some(Box::new(union)), ..self }
    }

    /// Rises by one with every change of `present` or `moods`.
    pub(crate) fn seq(&self) -> u64 {
        self.union.as_ref().map_or(self.seq, |union| union.seq())
    }

    /// Distinct visitors in the room.
    pub(crate) fn present(&self) -> u32 {
        let own = || u32::try_from(self.visitors.len()).unwrap_or(u32::MAX);
        self.union.as_ref().map_or_else(own, |union| union.counts().present)
    }

    /// Visitors by mood.
    pub(crate) fn moods(&self) -> &MoodCounts {
        self.union.as_ref().map_or(&self.moods, |union| &union.counts().moods)
    }

    /// All counts, with their `seq`.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (held, sitting) = self.held_and_sitting();
        Snapshot { seq: self.seq(), present: self.present(), held, sitting, moods: self.moods().clone() }
    }

    /// Visitors without a session, and visitors who sit.
    pub(super) fn held_and_sitting(&self) -> (u32, u32) {
        let counts = self.union.as_ref().map(|union| union.counts());
        counts.map_or((self.held, self.sitting), |counts| (counts.held, counts.sitting))
    }

    /// How many sits there were.
    pub(crate) fn sits(&self) -> SitCounts {
        self.union.as_ref().map_or(self.sits, |union| union.sits())
    }

    /// Whether the room has no visitors, held ones included.
    pub(crate) fn is_empty(&self) -> bool {
        self.visitors.is_empty() && self.present() == 0
    }

    /// Whether this visitor is in the room.
    pub(crate) fn contains(&self, id: &VisitorId) -> bool {
        self.visitors.contains_key(id)
    }

    /// The hold of this visitor, if they are in the room without a session.
    #[cfg(test)]
    pub(crate) fn hold_of(&self, id: &VisitorId) -> Option<Hold> {
        self.visitors.get(id)?.hold()
    }

    /// The sit of this visitor.
    pub(crate) fn sit_of(&self, id: &VisitorId) -> Option<Sit> {
        self.visitors.get(id)?.sit()
    }

    /// The mood of this visitor.
    pub(crate) fn mood_of(&self, id: &VisitorId) -> Option<Mood> {
        self.visitors.get(id)?.mood
    }

    /// When a hold or a sit of this visitor ends next.
    pub(crate) fn deadline_of(&self, id: &VisitorId) -> Option<Deadline> {
        self.visitors.get(id)?.next_deadline()
    }

    /// All visitors, in no order.
    pub(crate) fn visitors(&self) -> impl Iterator<Item = (&VisitorId, &VisitorState)> {
        self.visitors.iter()
    }

    /// Opens a session. It ends the visitor's hold, and sets the mood if there is one.
    pub(crate) fn join(&mut self, id: &VisitorId, mood: Option<Mood>) -> OccupancyChange {
        let (change, visitor) = match self.visitors.entry(id.clone()) {
            Entry::Occupied(entry) => (OccupancyChange::Unchanged, entry.into_mut()),
            Entry::Vacant(entry) => {
                (OccupancyChange::Entered, entry.insert(VisitorState::default().entered_at(self.now_ms)))
            }
        };
        self.held -= u32::from(visitor.hold().is_some());
        visitor.begin_session();
        if let Some(union) = &mut self.union {
            (union.hints.joined, union.hints.mood) = (true, mood.is_some());
        }
        let has_moved = mood.is_some() && change_mood(&mut self.moods, visitor, mood);
        if has_moved && !visitor.followers().is_empty() {
            self.moods_set.insert(id.clone());
        }
        // Entering with a mood is one change.
        self.seq += u64::from(has_moved || change == OccupancyChange::Entered);
        change
    }

    /// Sets or clears the mood of a visitor in the room. It is one change, never a leave and a join.
    pub(crate) fn set_mood(&mut self, id: &VisitorId, mood: Option<Mood>) {
        if let Some(visitor) = self.visitors.get_mut(id) {
            if let Some(union) = &mut self.union {
                union.hints.mood = true;
            }
            self.seq += u64::from(change_mood(&mut self.moods, visitor, mood));
            if !visitor.followers().is_empty() {
                self.moods_set.insert(id.clone());
            }
        }
    }

    /// From now on the socket follows the visitor: it gets the mood and the sit whenever they are set. It knows this
    /// mood, and this sit that goes on at `now`.
    pub(crate) fn follow(
        &mut self,
        id: &VisitorId,
        socket: SubscriberId,
        known: (Option<Mood>, Option<Time>),
        now: Instant,
    ) {
        if let Some(visitor) = self.visitors.get_mut(id) {
            visitor.follow(socket);
            if visitor.mood != known.0 {
                self.moods_set.insert(id.clone());
            }
            if visitor.sit().and_then(|sit| sit.until_if_running(now)) != known.1 {
                self.sits_set.insert(id.clone());
            }
        }
    }

    /// The socket does not follow the visitor any more.
    pub(crate) fn unfollow(&mut self, id: &VisitorId, socket: SubscriberId) {
        if let Some(visitor) = self.visitors.get_mut(id) {
            visitor.unfollow(socket);
        }
    }

    /// Whether followers do not know yet what was set.
    pub(crate) fn has_own_changes(&self) -> bool {
        !self.moods_set.is_empty() || !self.sits_set.is_empty()
    }

    /// Takes what was set, with the sockets that follow the visitor.
    pub(crate) fn take_own_changes(&mut self) -> Vec<(OwnChange, Vec<SubscriberId>)> {
        let of = |set: &mut HashSet<VisitorId>, change: fn(&VisitorState) -> OwnChange| {
            let set = std::mem::take(set).into_iter();
            let found = set.filter_map(|id| self.visitors.get(&id));
            found.map(|visitor| (change(visitor), visitor.followers().to_vec())).collect::<Vec<_>>()
        };
        let mut changes = of(&mut self.moods_set, |visitor| OwnChange::Mood(visitor.mood));
        changes.extend(of(&mut self.sits_set, |visitor| OwnChange::Sit(visitor.sit().map(|sit| sit.until))));
        changes
    }

    /// Notes that the visitor's sit was set or ended.
    fn note_sit(&mut self, id: &VisitorId) {
        if self.visitors.get(id).is_some_and(|visitor| !visitor.followers().is_empty()) {
            self.sits_set.insert(id.clone());
        }
    }

    /// The permit of this visitor's sit.
    pub(crate) fn sit_permit_of(&self, id: &VisitorId) -> Option<&SitPermit> {
        self.visitors.get(id)?.sit_permit()
    }

    /// Sets the sit of a visitor in the room, or ends it with `None`. The last one that is set applies.
    pub(crate) fn set_sit(
        &mut self,
        id: &VisitorId,
        sit: Option<PermittedSit>,
        now: Instant,
    ) -> OccupancyChange {
        let mut begins = false;
        let change = self.update(id, now, |visitor| {
            begins = visitor.sit().is_none() && sit.is_some();
            visitor.set_sit(sit);
        });
        self.sits.begun += u64::from(begins);
        self.note_sit(id);
        change
    }

    /// Ends a session without a hold. A hold that another session has left stays until its deadline. The visitor's sit
    /// ends with the last session.
    pub(crate) fn leave(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        self.update(id, now, |visitor| visitor.end_session(None, SitOutcome::Ends))
    }

    /// Ends a session that leaves this hold. Of two holds of a visitor the later one applies. `sit` is what becomes of
    /// the visitor's sit if it was the last session.
    pub(crate) fn leave_with_hold(
        &mut self,
        id: &VisitorId,
        hold: Hold,
        sit: SitOutcome,
        now: Instant,
    ) -> OccupancyChange {
        self.update(id, now, |visitor| visitor.end_session(Some(hold), sit))
    }

    /// Adds a visitor who has no session, with this mood and sit. A hold with the reason `sit` is the sit itself. Does
    /// nothing if the visitor is in the room.
    pub(crate) fn add_held(
        &mut self,
        id: &VisitorId,
        mood: Option<Mood>,
        hold: Hold,
        sit: Option<PermittedSit>,
    ) -> OccupancyChange {
        let Entry::Vacant(entry) = self.visitors.entry(id.clone()) else { return OccupancyChange::Unchanged };
        self.sitting += u32::from(sit.is_some());
        entry.insert(VisitorState::held(mood, hold, sit).entered_at(self.now_ms));
        if let Some(mood) = mood {
            self.moods.add(mood);
        }
        self.held += 1;
        self.seq += 1;
        OccupancyChange::Entered
    }

    /// Ends the visitor's hold and sit if their deadlines have passed.
    pub(crate) fn expire(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        self.update(id, now, |_| ())
    }

    /// Ends the visitor's hold and sit before their deadlines.
    pub(crate) fn release(&mut self, id: &VisitorId, now: Instant) -> OccupancyChange {
        if self.sit_of(id).is_some() {
            self.note_sit(id);
        }
        self.update(id, now, VisitorState::release)
    }

    /// Recounts everything from the visitors, removes those who have neither a session nor a hold, and corrects the
    /// counts. `zero` are the zero counts of the vocabulary. Returns the counts before and after.
    pub(crate) fn recount(&mut self, zero: MoodCounts) -> (Snapshot, Snapshot) {
        let stored = self.snapshot();
        self.visitors.retain(|_, visitor| !visitor.is_gone());
        self.moods = zero.clone();
        self.visitors.values().filter_map(|visitor| visitor.mood).for_each(|mood| self.moods.add(mood));
        let held = self.visitors.values().filter(|visitor| visitor.hold().is_some()).count();
        self.held = u32::try_from(held).unwrap_or(u32::MAX);
        let sitting = self.visitors.values().filter(|visitor| visitor.sit().is_some()).count();
        self.sitting = u32::try_from(sitting).unwrap_or(u32::MAX);
        if let Some(union) = &mut self.union {
            union.recount(zero);
        }
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
        let (was_held, was_sitting) = (visitor.hold().is_some(), visitor.sit().is_some());
        self.sits.completed += u64::from(visitor.complete_sit(now));
        change(visitor);
        visitor.expire_hold(now);
        let is_gone = visitor.is_gone();
        let (is_held, is_sitting) = (visitor.hold().is_some(), visitor.sit().is_some() && !is_gone);
        self.held = self.held + u32::from(is_held) - u32::from(was_held);
        self.sitting = self.sitting + u32::from(is_sitting) - u32::from(was_sitting);
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
        /// With whether the sit holds the visitor without a session.
        sits: Vec<(VisitorId, Sit, bool)>,
        counts: SitCounts,
    }

    #[derive(Clone, PartialEq)]
    struct ModelEntry {
        visitor: VisitorId,
        /// None is an open session.
        hold: Option<Hold>,
    }

    impl Model {
        /// Ends what is over, and forgets what absent visitors had.
        fn pass(&mut self, now: Instant) {
            self.counts.completed +=
                self.sits.extract_if(.., |(_, sit, _)| sit.deadline <= now).count() as u64;
            self.entries.retain(|entry| entry.hold.is_none_or(|hold| hold.deadline > now));
            let present = self.present();
            self.moods.retain(|(id, _)| present.contains(id));
            self.sits.retain(|(id, ..)| present.contains(id));
        }

        fn sit_of(&self, id: &VisitorId) -> Option<Sit> {
            self.sits.iter().find(|(other, ..)| other == id).map(|(_, sit, _)| *sit)
        }

        fn set_sit(&mut self, id: &VisitorId, sit: Option<Sit>) {
            let had = self.sits.extract_if(.., |(other, ..)| other == id).count();
            self.counts.begun += u64::from(had == 0 && sit.is_some());
            self.sits.extend(sit.map(|sit| (id.clone(), sit, false)));
        }

        /// After a session has ended.
        fn end_sit(&mut self, id: &VisitorId, outcome: SitOutcome) {
            if self.sessions(id) == 0 {
                self.sits.retain(|(other, ..)| other != id || outcome != SitOutcome::Ends);
                let theirs = self.sits.iter_mut().filter(|(other, ..)| other == id);
                theirs.for_each(|(.., holds)| *holds = outcome == SitOutcome::Holds);
            }
        }

        fn present(&self) -> Vec<VisitorId> {
            let by_entry = self.entries.iter().map(|entry| &entry.visitor);
            let by_sit = self.sits.iter().filter(|(id, _, holds)| *holds && self.sessions(id) == 0);
            let mut ids: Vec<_> = by_entry.chain(by_sit.map(|(id, ..)| id)).cloned().collect();
            ids.sort();
            ids.dedup();
            ids
        }

        fn set_mood(&mut self, id: &VisitorId, mood: Option<Mood>) {
            if !self.contains(id) {
                return;
            }
            self.moods.retain(|(other, _)| other != id);
            self.moods.extend(mood.map(|mood| (id.clone(), mood)));
        }

        fn contains(&self, id: &VisitorId) -> bool {
            self.present().contains(id)
        }

        fn sessions(&self, id: &VisitorId) -> usize {
            self.entries.iter().filter(|entry| entry.visitor == *id && entry.hold.is_none()).count()
        }

        fn take_session(&mut self, id: &VisitorId) -> bool {
            let found = self.entries.iter().position(|entry| entry.visitor == *id && entry.hold.is_none());
            found.map(|index| self.entries.remove(index)).is_some()
        }

        /// Of a visitor without a session, the hold with the latest deadline: of those, the newest. A sit is the oldest.
        fn hold_of(&self, id: &VisitorId) -> Option<Hold> {
            let sit = self.sits.iter().find(|(other, _, holds)| other == id && *holds);
            let theirs = self.entries.iter().filter(|entry| entry.visitor == *id);
            let holds = theirs.filter_map(|entry| entry.hold);
            let hold = sit.map(|(_, sit, _)| Hold::from(*sit)).into_iter().chain(holds);
            hold.max_by_key(|hold| hold.deadline).filter(|_| self.sessions(id) == 0)
        }

        fn counts(&self, vocabulary: &Vocabulary) -> (u32, MoodCounts) {
            let mut moods = vocabulary.zero();
            for (_, mood) in &self.moods {
                moods.add(*mood);
            }
            (u32::try_from(self.present().len()).unwrap(), moods)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(u8, Option<u8>),
        SetMood(u8, Option<u8>),
        Leave(u8),
        LeaveWithHold(u8, usize, u8, SitOutcome),
        AddHeld(u8, Option<u8>, usize, u8),
        SetSit(u8, u8),
        Wait(u8),
        Release(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let visitor = 0..6_u8;
        let mood = proptest::option::of(0..3_u8);
        let reason = 0..HoldReason::VARIANTS.len();
        // Some holds have expired when they begin.
        let length = 0..10_u8;
        let outcome = prop_oneof![Just(SitOutcome::Holds), Just(SitOutcome::Waits), Just(SitOutcome::Ends)];
        prop_oneof![
            3 => (visitor.clone(), mood.clone()).prop_map(|(visitor, mood)| Step::Join(visitor, mood)),
            1 => (visitor.clone(), mood.clone(), reason.clone(), 1..10_u8)
                .prop_map(|(visitor, mood, reason, length)| Step::AddHeld(visitor, mood, reason, length)),
            2 => (visitor.clone(), mood).prop_map(|(visitor, mood)| Step::SetMood(visitor, mood)),
            2 => visitor.clone().prop_map(Step::Leave),
            3 => (visitor.clone(), reason, length.clone(), outcome)
                .prop_map(|(visitor, reason, length, sit)| Step::LeaveWithHold(visitor, reason, length, sit)),
            2 => (visitor.clone(), length).prop_map(|(visitor, length)| Step::SetSit(visitor, length)),
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
            let sit = |now, length: u8| Sit {
                deadline: now + Duration::from_secs(length.into()),
                until: Time::from_millis(length.into()),
                latest: None,
            };
            let permitted = |sit| PermittedSit { sit, permit: None };
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
                        let (id, with, mut hold) = (id(visitor), with.map(mood), hold(now, reason, length));
                        let sit = (hold.reason == HoldReason::Sit).then(|| sit(now, length));
                        if !model.contains(&id) {
                            if let Some(sit) = sit {
                                hold = sit.into();
                                model.sits.push((id.clone(), sit, true));
                            } else {
                                model.entries.push(ModelEntry { visitor: id.clone(), hold: Some(hold) });
                            }
                            model.set_mood(&id, with);
                        }
                        state.add_held(&id, with, hold, sit.map(permitted))
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
                        model.end_sit(&id(visitor), SitOutcome::Ends);
                        state.leave(&id(visitor), now)
                    }
                    Step::SetSit(visitor, length) => {
                        let (id, sit) = (id(visitor), Some(sit(now, length)).filter(|_| length > 0));
                        if model.sessions(&id) == 0 {
                            continue; // only a session can sit
                        }
                        model.set_sit(&id, sit);
                        state.set_sit(&id, sit.map(permitted), now)
                    }
                    Step::LeaveWithHold(visitor, reason, length, sit) => {
                        let (id, hold) = (id(visitor), hold(now, reason, length));
                        if !model.take_session(&id) {
                            continue;
                        }
                        model.entries.push(ModelEntry { visitor: id.clone(), hold: Some(hold) });
                        model.end_sit(&id, sit);
                        state.leave_with_hold(&id, hold, sit, now)
                    }
                    Step::Wait(seconds) => {
                        now += Duration::from_secs(seconds.into());
                        let ids: Vec<_> = state.visitors().map(|(id, _)| id.clone()).collect();
                        changes = ids.iter().filter(|id| state.expire(id, now) == OccupancyChange::Left).count();
                        if changes > 0 { OccupancyChange::Left } else { OccupancyChange::Unchanged }
                    }
                    Step::Release(visitor) => {
                        model.entries.retain(|entry| entry.visitor != id(visitor) || entry.hold.is_none());
                        model.sits.retain(|(other, ..)| *other != id(visitor));
                        state.release(&id(visitor), now)
                    }
                };
                model.pass(now);

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
                    prop_assert_eq!(state.sit_of(&id), model.sit_of(&id));
                    let next = [hold.map(|hold| hold.deadline), model.sit_of(&id).map(|sit| sit.deadline)];
                    let expected = next.into_iter().flatten().min();
                    prop_assert_eq!(state.deadline_of(&id).map(|deadline| deadline.at), expected);
                }
                let sitting = u32::try_from(model.sits.len()).unwrap();
                prop_assert_eq!((state.snapshot().held, state.snapshot().sitting), (held, sitting));
                prop_assert_eq!(state.sits(), model.counts);
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
        state.add_held(&bob, None, hold(), None);
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
            room.update(registry.now(), |state| state.visitors.get_mut(id).unwrap().release());
        };
        for id in [&ann, &bob] {
            registry.add_held(&lobby, id, None, hold(), None).unwrap();
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
