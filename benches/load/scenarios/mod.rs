//! The scenarios. Each one checks that the result is right before it returns a figure.

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

/// How long a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// The full time.
    Full,
    /// A shorter time, for developers. The number of sockets is the same, since it changes the figures.
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
    /// Whether the hubs of `--peers` run it too.
    pub(crate) has_peers: bool,
    /// Rounds, full and quick.
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
