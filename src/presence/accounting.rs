//! Tallies: how long how many were somewhere, since the last take_samples.
//!
//! Pure: the time comes with the calls. Before people change, the time until then is counted with
//! those who were there, so that the sums are exact and not a snapshot. A tally is O(1) in memory
//! and allocates only when it is taken.

use std::time::Duration;

/// What is told of one place at a take_samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// How long each person was there, added up.
    pub present: Duration,
    /// The most who were there at once.
    pub peak: u32,
    /// How many came.
    pub joins: u32,
    /// How long each person was in each mood, added up, in the vocabulary's order.
    pub moods: Box<[Duration]>,
}

impl Sample {
    /// Whether there is nothing to tell: nobody came, and nobody was there for any time.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.joins == 0 && self.present.is_zero()
    }

    /// Adds what is told of the same place at another time.
    pub(super) fn add(&mut self, other: &Self) {
        self.present += other.present;
        self.peak = self.peak.max(other.peak);
        self.joins += other.joins;
        self.add_moods(other);
    }

    /// Adds the moods of another place.
    pub(super) fn add_moods(&mut self, other: &Self) {
        for (mine, theirs) in self.moods.iter_mut().zip(&other.moods) {
            *mine += *theirs;
        }
    }
}

/// What is counted of one place until the next take_samples.
#[derive(Debug)]
pub(super) struct Accounting {
    sample: Sample,
    /// Until when time is counted.
    until: Duration,
}

impl Accounting {
    /// Nobody is there. `moods` is how many moods are told apart.
    pub(super) fn new(now: Duration, moods: usize) -> Self {
        let sample = Sample { moods: vec![Duration::ZERO; moods].into(), ..Sample::default() };
        Self { sample, until: now }
    }

    /// Until `now`, so many were there, in these moods. Whoever comes late with an earlier time than was
    /// counted already adds nothing.
    pub(super) fn pass(&mut self, now: Duration, present: u32, moods: impl IntoIterator<Item = u32>) {
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

    /// From now on there are `after`; before, there were `before`.
    pub(super) fn change(&mut self, before: u32, after: u32) {
        self.sample.joins += after.saturating_sub(before);
        self.sample.peak = self.sample.peak.max(after);
    }

    /// Tells all until `now` and begins anew with those who are there.
    pub(super) fn take(
        &mut self,
        now: Duration,
        present: u32,
        moods: impl IntoIterator<Item = u32>,
    ) -> Sample {
        self.pass(now, present, moods);
        let zero = vec![Duration::ZERO; self.sample.moods.len()].into();
        std::mem::replace(&mut self.sample, Sample { peak: present, moods: zero, ..Sample::default() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOODS: usize = 3;

    /// What may happen next, some milliseconds after the last thing.
    #[derive(Debug, Clone)]
    enum Step {
        Arrive(Option<usize>),
        Leave(usize),
        Mood(usize, Option<usize>),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        let mood = || proptest::option::of(0..MOODS);
        prop_oneof![
            3 => mood().prop_map(Step::Arrive),
            2 => (0..9_usize).prop_map(Step::Leave),
            2 => (0..9_usize, mood()).prop_map(|(who, mood)| Step::Mood(who, mood)),
            1 => Just(Step::Take),
        ]
    }

    fn counts(people: &[Option<usize>]) -> (u32, [u32; MOODS]) {
        let mut moods = [0; MOODS];
        people.iter().flatten().for_each(|mood| moods[*mood] += 1);
        (u32::try_from(people.len()).unwrap(), moods)
    }

    /// The same, told as plainly as possible: it looks at everybody in every millisecond.
    #[derive(Default)]
    struct Model {
        present_ms: u64,
        moods_ms: [u64; MOODS],
        peak: usize,
        joins: u32,
    }

    impl Model {
        fn live(&mut self, people: &[Option<usize>], millis: u64) {
            for _ in 0..millis {
                self.present_ms += people.len() as u64;
                for mood in people.iter().flatten() {
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
        fn any_steps_give_what_a_naive_recount_gives(
            steps in proptest::collection::vec((0..40_u64, step()), 1..60),
        ) {
            let mut now = Duration::from_millis(7);
            let mut people: Vec<Option<usize>> = Vec::new();
            let (mut tally, mut model) = (Accounting::new(now, MOODS), Model::default());
            for (millis, step) in steps.into_iter().chain([(5, Step::Take)]) {
                now += Duration::from_millis(millis);
                model.live(&people, millis);
                let (before, moods) = counts(&people);
                tally.pass(now, before, moods);
                match step {
                    Step::Arrive(mood) => {
                        people.push(mood);
                        model.joins += 1;
                    }
                    Step::Leave(who) if who < people.len() => drop(people.swap_remove(who)),
                    Step::Mood(who, mood) if who < people.len() => people[who] = mood,
                    Step::Leave(_) | Step::Mood(..) => {}
                    Step::Take => {
                        let sample = tally.take(now, before, moods);
                        prop_assert_eq!(&sample, &model.sample());
                        prop_assert_eq!(sample.is_empty(), model.joins == 0 && model.present_ms == 0);
                        model = Model { peak: people.len(), ..Model::default() };
                    }
                }
                tally.change(before, counts(&people).0);
                model.peak = model.peak.max(people.len());
            }
        }
    }

    #[test]
    fn whoever_comes_late_with_an_earlier_time_counts_nothing_twice() {
        let at = Duration::from_millis;
        let mut tally = Accounting::new(at(0), 1);
        tally.change(0, 1);
        tally.pass(at(10), 1, [1]);
        tally.pass(at(4), 1, [1]);
        tally.pass(at(12), 1, [0]);
        let sample = tally.take(at(12), 1, [0]);
        assert_eq!((sample.present, &*sample.moods), (at(12), &[at(10)][..]));
    }

    #[test]
    fn samples_of_one_place_add_up() {
        let sample = |millis, peak, joins| Sample {
            present: Duration::from_millis(millis),
            peak,
            joins,
            moods: [Duration::from_millis(millis / 2)].into(),
        };
        let mut first = sample(100, 3, 4);
        first.add(&sample(60, 2, 1));
        assert_eq!(first, sample(160, 3, 5));
    }
}
