//! What the hub is put through. Each scenario checks that the result is right before it says a figure.

pub(crate) mod churn;
pub(crate) mod events;
pub(crate) mod fan_out;
pub(crate) mod idle;
pub(crate) mod other_rooms;
pub(crate) mod stats;
pub(crate) mod storm;

use crate::Outcome;
use crate::figure::Sample;
use crate::process::Subject;

/// How much of a scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// The full measure.
    Full,
    /// A shorter time, for developers; never fewer sockets, which would be another figure.
    Quick,
}

impl Scale {
    pub(crate) fn of<T>(self, full: T, quick: T) -> T {
        if self == Self::Full { full } else { quick }
    }
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether the floor runs it too.
    pub(crate) has_floor: bool,
    /// How often it runs, full and quick.
    pub(crate) rounds: (usize, usize),
    pub(crate) run: fn(&Subject, Scale) -> Outcome<Vec<Sample>>,
}

/// In the order of the table.
pub(crate) const ALL: [&Scenario; 7] = [
    &fan_out::SCENARIO,
    &idle::SCENARIO,
    &churn::SCENARIO,
    &storm::SCENARIO,
    &events::SCENARIO,
    &stats::SCENARIO,
    &other_rooms::SCENARIO,
];
