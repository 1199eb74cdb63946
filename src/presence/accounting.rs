//! Presence accounting: person-milliseconds, peaks and joins since the last sample.
//!
//! Pure: the time comes with each call. Before the visitors change, the time that has passed is added with the visitors
//! of that time, so that the sums are exact. Accounting takes O(1) memory, and allocates only for a sample.

use std::time::Duration;

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
    /// The time that each visitor was in each mood, added up, in the order of the vocabulary.
    pub moods: Box<[Duration]>,
}

/// What was measured over all rooms since the last samples were taken.
#[derive(Debug)]
pub(crate) struct Samples {
    /// The time that the samples cover.
    pub period: Duration,
    /// All rooms together. A visitor in two rooms counts once, except in the moods.
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
        self.add_moods(other);
    }

    /// Adds the moods of another room.
    pub(super) fn add_moods(&mut self, other: &Self) {
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
    pub(super) fn advance(&mut self, now: Duration, present: u32, moods: impl IntoIterator<Item = u32>) {
        let passed = now.saturating_sub(self.until);
        if passed.is_zero() {
            return;
        }
        self.until = now;
        self.sample.present += passed * present;
        for (time, count) in self.sample.moods.iter_mut().zip(moods) {
            *time += passed * count;
        }
    }

    /// Records a change of the number of visitors.
    pub(super) fn record_change(&mut self, before: u32, after: u32) {
        self.sample.joins += after.saturating_sub(before);
        self.sample.peak = self.sample.peak.max(after);
    }

    /// Returns the sample until `now`, and starts the next one with the visitors who are present.
    pub(super) fn take_sample(
        &mut self,
        now: Duration,
        present: u32,
        moods: impl IntoIterator<Item = u32>,
    ) -> Sample {
        self.advance(now, present, moods);
        let zero = vec![Duration::ZERO; self.sample.moods.len()].into();
        std::mem::replace(&mut self.sample, Sample { peak: present, moods: zero, ..Sample::default() })
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
        TakeSample,
    }

    fn step() -> impl Strategy<Value = Step> {
        let mood = || proptest::option::of(0..MOODS);
        prop_oneof![
            3 => mood().prop_map(Step::Enter),
            2 => (0..9_usize).prop_map(Step::Leave),
            2 => (0..9_usize, mood()).prop_map(|(visitor, mood)| Step::SetMood(visitor, mood)),
            1 => Just(Step::TakeSample),
        ]
    }

    fn counts(visitors: &[Option<usize>]) -> (u32, [u32; MOODS]) {
        let mut moods = [0; MOODS];
        visitors.iter().flatten().for_each(|mood| moods[*mood] += 1);
        (u32::try_from(visitors.len()).unwrap(), moods)
    }

    /// Naive accounting: counts every visitor in every millisecond.
    #[derive(Default)]
    struct Model {
        present_ms: u64,
        moods_ms: [u64; MOODS],
        peak: usize,
        joins: u32,
    }

    impl Model {
        fn advance(&mut self, visitors: &[Option<usize>], millis: u64) {
            for _ in 0..millis {
                self.present_ms += visitors.len() as u64;
                for mood in visitors.iter().flatten() {
                    self.moods_ms[*mood] += 1;
                }
            }
        }

        fn sample(&self) -> Sample {
            Sample {
                present: Duration::from_millis(self.present_ms),
                peak: u32::try_from(self.peak).unwrap(),
                joins: self.joins,
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
            let mut visitors: Vec<Option<usize>> = Vec::new();
            let (mut accounting, mut model) = (Accounting::new(now, MOODS), Model::default());
            for (millis, step) in steps.into_iter().chain([(5, Step::TakeSample)]) {
                now += Duration::from_millis(millis);
                model.advance(&visitors, millis);
                let (before, moods) = counts(&visitors);
                accounting.advance(now, before, moods);
                match step {
                    Step::Enter(mood) => {
                        visitors.push(mood);
                        model.joins += 1;
                    }
                    Step::Leave(index) if index < visitors.len() => drop(visitors.swap_remove(index)),
                    Step::SetMood(index, mood) if index < visitors.len() => visitors[index] = mood,
                    Step::Leave(_) | Step::SetMood(..) => {}
                    Step::TakeSample => {
                        let sample = accounting.take_sample(now, before, moods);
                        prop_assert_eq!(&sample, &model.sample());
                        prop_assert_eq!(sample.is_empty(), model.joins == 0 && model.present_ms == 0);
                        model = Model { peak: visitors.len(), ..Model::default() };
                    }
                }
                accounting.record_change(before, counts(&visitors).0);
                model.peak = model.peak.max(visitors.len());
            }
        }
    }

    #[test]
    fn earlier_time_than_the_last_one_adds_nothing() {
        let at = Duration::from_millis;
        let mut accounting = Accounting::new(at(0), 1);
        accounting.record_change(0, 1);
        accounting.advance(at(10), 1, [1]);
        accounting.advance(at(4), 1, [1]);
        accounting.advance(at(12), 1, [0]);
        let sample = accounting.take_sample(at(12), 1, [0]);
        assert_eq!((sample.present, &*sample.moods), (at(12), &[at(10)][..]));
    }

    #[test]
    fn merged_samples_add_up_and_keep_the_higher_peak() {
        let sample = |millis, peak, joins| Sample {
            present: Duration::from_millis(millis),
            peak,
            joins,
            moods: [Duration::from_millis(millis / 2)].into(),
        };
        let mut first = sample(100, 3, 4);
        first.merge(&sample(60, 2, 1));
        assert_eq!(first, sample(160, 3, 5));
    }
}
