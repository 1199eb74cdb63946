//! Presence accounting: person-milliseconds, peaks, joins and sits since the last sample.
//!
//! Pure: the time comes with each call. Before the visitors change, the time that has passed is added with the visitors
//! of that time, so that the sums are exact. Accounting takes O(1) memory, and allocates only for a sample.

use std::time::Duration;

use super::hold::SitCounts;
use crate::protocol::RoomId;

/// What was measured in one room, or in all rooms together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The time that each visitor was present, added up.
    pub present: Duration,
    /// The most visitors at once.
    pub peak: u32,
    /// Visitors that entered.
    pub joins: u32,
    /// The time that each visitor was present without a session, added up.
    pub held: Duration,
    /// The time that each visitor sat, added up.
    pub sat: Duration,
    /// Sits that began, and sits that reached their end.
    pub sits: SitCounts,
    /// The time that each visitor was in each mood, added up, in the order of the vocabulary.
    pub moods: Box<[Duration]>,
}

/// How many visitors there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Present {
    /// All.
    pub all: u32,
    /// Those without a session.
    pub held: u32,
    /// Those who sit.
    pub sitting: u32,
}

/// What was measured over all rooms since the last samples were taken.
#[derive(Debug)]
pub(crate) struct Samples {
    /// The time that the samples cover.
    pub period: Duration,
    /// All rooms together. A visitor in two rooms counts once in `present`, `peak` and `joins`; the rest are sums.
    pub total: Sample,
    /// Each room that had a visitor.
    pub rooms: Vec<(RoomId, Sample)>,
    /// Samples of closed rooms that were dropped, because too many rooms closed.
    pub dropped: usize,
}

impl Sample {
    /// Whether there was no visitor at any time.
    pub(crate) fn is_empty(&self) -> bool {
        self.joins == 0 && self.present.is_zero()
    }

    /// Adds a later or earlier sample of the same room.
    pub(super) fn merge(&mut self, other: &Self) {
        self.present += other.present;
        self.peak = self.peak.max(other.peak);
        self.joins += other.joins;
        self.add_sums(other);
    }

    /// Adds what all rooms have together by adding the rooms.
    pub(super) fn add_sums(&mut self, other: &Self) {
        self.held += other.held;
        self.sat += other.sat;
        self.sits.begun += other.sits.begun;
        self.sits.completed += other.sits.completed;
        for (mine, theirs) in self.moods.iter_mut().zip(&other.moods) {
            *mine += *theirs;
        }
    }
}

/// Measures one room, or all rooms together, until the next sample.
#[derive(Debug)]
pub(super) struct Accounting {
    sample: Sample,
    /// The time up to which the sample is complete.
    until: Duration,
}

impl Accounting {
    /// No visitors. `moods` is the number of moods.
    pub(super) fn new(now: Duration, moods: usize) -> Self {
        let sample = Sample { moods: vec![Duration::ZERO; moods].into(), ..Sample::default() };
        Self { sample, until: now }
    }

    /// Adds the time until `now`, with the visitors and moods of that time. A time that was added before adds nothing.
    pub(super) fn advance(&mut self, now: Duration, present: Present, moods: impl IntoIterator<Item = u32>) {
        let passed = now.saturating_sub(self.until);
        if passed.is_zero() {
            return;
        }
        self.until = now;
        self.sample.present += passed * present.all;
        self.sample.held += passed * present.held;
        self.sample.sat += passed * present.sitting;
        for (time, count) in self.sample.moods.iter_mut().zip(moods) {
            *time += passed * count;
        }
    }

    /// Records a change of the number of visitors.
    pub(super) fn record_change(&mut self, before: u32, after: u32) {
        self.sample.joins += after.saturating_sub(before);
        self.sample.peak = self.sample.peak.max(after);
    }

    /// Records sits that began or reached their end: two counts that only rise, before and after.
    pub(super) fn record_sits(&mut self, before: SitCounts, after: SitCounts) {
        self.sample.sits.begun += after.begun.saturating_sub(before.begun);
        self.sample.sits.completed += after.completed.saturating_sub(before.completed);
    }

    /// Returns the sample until `now`, and starts the next one with the visitors who are present.
    pub(super) fn take_sample(
        &mut self,
        now: Duration,
        present: Present,
        moods: impl IntoIterator<Item = u32>,
    ) -> Sample {
        self.advance(now, present, moods);
        let zero = vec![Duration::ZERO; self.sample.moods.len()].into();
        std::mem::replace(&mut self.sample, Sample { peak: present.all, moods: zero, ..Sample::default() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOODS: usize = 3;

    #[derive(Debug, Clone)]
    enum Step {
        Enter(Option<usize>),
        Leave(usize),
        SetMood(usize, Option<usize>),
        SetHeld(usize, bool, bool),
        Sits(u64, u64),
        TakeSample,
    }

    fn step() -> impl Strategy<Value = Step> {
        let mood = || proptest::option::of(0..MOODS);
        prop_oneof![
            3 => mood().prop_map(Step::Enter),
            2 => (0..9_usize).prop_map(Step::Leave),
            2 => (0..9_usize, mood()).prop_map(|(visitor, mood)| Step::SetMood(visitor, mood)),
            2 => (0..9_usize, any::<bool>(), any::<bool>())
                .prop_map(|(visitor, held, sits)| Step::SetHeld(visitor, held, sits)),
            1 => (0..4_u64, 0..4_u64).prop_map(|(begun, completed)| Step::Sits(begun, completed)),
            1 => Just(Step::TakeSample),
        ]
    }

    #[derive(Default)]
    struct Visitor {
        mood: Option<usize>,
        is_held: bool,
        sits: bool,
    }

    fn counts(visitors: &[Visitor]) -> (Present, [u32; MOODS]) {
        let mut moods = [0; MOODS];
        visitors.iter().filter_map(|visitor| visitor.mood).for_each(|mood| moods[mood] += 1);
        let count = |is: fn(&&Visitor) -> bool| u32::try_from(visitors.iter().filter(is).count()).unwrap();
        let present =
            Present { all: count(|_| true), held: count(|one| one.is_held), sitting: count(|one| one.sits) };
        (present, moods)
    }

    /// Naive accounting: counts every visitor in every millisecond.
    #[derive(Default)]
    struct Model {
        present_ms: u64,
        held_ms: u64,
        sat_ms: u64,
        sits: SitCounts,
        moods_ms: [u64; MOODS],
        peak: usize,
        joins: u32,
    }

    impl Model {
        fn advance(&mut self, visitors: &[Visitor], millis: u64) {
            for _ in 0..millis {
                for visitor in visitors {
                    self.present_ms += 1;
                    self.held_ms += u64::from(visitor.is_held);
                    self.sat_ms += u64::from(visitor.sits);
                    if let Some(mood) = visitor.mood {
                        self.moods_ms[mood] += 1;
                    }
                }
            }
        }

        fn sample(&self) -> Sample {
            Sample {
                present: Duration::from_millis(self.present_ms),
                peak: u32::try_from(self.peak).unwrap(),
                joins: self.joins,
                held: Duration::from_millis(self.held_ms),
                sat: Duration::from_millis(self.sat_ms),
                sits: self.sits,
                moods: self.moods_ms.map(Duration::from_millis).into(),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn accounting_equals_naive_model(
            steps in proptest::collection::vec((0..40_u64, step()), 1..60),
        ) {
            let mut now = Duration::from_millis(7);
            let mut visitors: Vec<Visitor> = Vec::new();
            let mut sits = SitCounts::default();
            let (mut accounting, mut model) = (Accounting::new(now, MOODS), Model::default());
            for (millis, step) in steps.into_iter().chain([(5, Step::TakeSample)]) {
                now += Duration::from_millis(millis);
                model.advance(&visitors, millis);
                let (before, moods) = counts(&visitors);
                accounting.advance(now, before, moods);
                match step {
                    Step::Enter(mood) => {
                        visitors.push(Visitor { mood, ..Visitor::default() });
                        model.joins += 1;
                    }
                    Step::Leave(index) if index < visitors.len() => drop(visitors.swap_remove(index)),
                    Step::SetMood(index, mood) if index < visitors.len() => visitors[index].mood = mood,
                    Step::SetHeld(index, is_held, sits) if index < visitors.len() => {
                        (visitors[index].is_held, visitors[index].sits) = (is_held, sits);
                    }
                    Step::Sits(begun, completed) => {
                        let before = sits;
                        sits = SitCounts { begun: sits.begun + begun, completed: sits.completed + completed };
                        accounting.record_sits(before, sits);
                        model.sits.begun += begun;
                        model.sits.completed += completed;
                    }
                    Step::Leave(_) | Step::SetMood(..) | Step::SetHeld(..) => {}
                    Step::TakeSample => {
                        let sample = accounting.take_sample(now, before, moods);
                        prop_assert_eq!(&sample, &model.sample());
                        prop_assert_eq!(sample.is_empty(), model.joins == 0 && model.present_ms == 0);
                        model = Model { peak: visitors.len(), ..Model::default() };
                    }
                }
                accounting.record_change(before.all, counts(&visitors).0.all);
                model.peak = model.peak.max(visitors.len());
            }
        }
    }

    #[test]
    fn earlier_time_than_the_last_one_adds_nothing() {
        let at = Duration::from_millis;
        let mut accounting = Accounting::new(at(0), 1);
        accounting.record_change(0, 1);
        let one = Present { all: 1, ..Present::default() };
        accounting.advance(at(10), one, [1]);
        accounting.advance(at(4), one, [1]);
        accounting.advance(at(12), one, [0]);
        let sample = accounting.take_sample(at(12), one, [0]);
        assert_eq!((sample.present, &*sample.moods), (at(12), &[at(10)][..]));
    }

    #[test]
    fn merged_samples_add_up_and_keep_the_higher_peak() {
        let sample = |millis, peak, joins| Sample {
            present: Duration::from_millis(millis),
            peak,
            joins,
            held: Duration::from_millis(millis / 4),
            sat: Duration::from_millis(millis / 5),
            sits: SitCounts { begun: millis, completed: millis / 10 },
            moods: [Duration::from_millis(millis / 2)].into(),
        };
        let mut first = sample(100, 3, 4);
        first.merge(&sample(60, 2, 1));
        assert_eq!(first, sample(160, 3, 5));
    }
}
