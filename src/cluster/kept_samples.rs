//! Which node writes the samples of presence: where all nodes have one log of events, one of them.
//!
//! It is the first one by name of those that have run for the whole minute. The others keep theirs for three
//! minutes, so that the next one can step in with what the first one has not written before it died. A sample that two of
//! them write merges. Where each node has a file of its own events only, each one writes all of them.

use std::collections::VecDeque;

use super::status::ClusterStatus;
use crate::history::log::status::{LogMonitor, LogStatus};
use crate::protocol::Time;

/// How long a sample is kept, in ms: longer than it takes until a node that died is known to be lost.
const KEEP_MS: u64 = 180_000;

/// The samples that another node should write. What a sample is does not matter here.
#[derive(Debug)]
pub(crate) struct KeptSamples<T> {
    log: Option<LogMonitor>,
    kept: VecDeque<(Time, T)>,
}

impl<T> KeptSamples<T> {
    /// No samples yet. There is no `log` where each node has its own events only.
    pub(crate) fn new(log: Option<LogMonitor>) -> Self {
        Self { log, kept: VecDeque::new() }
    }

    /// Whether this node may take a sample of a part of a minute: no other node needs the whole of it.
    pub(crate) fn may_split(&self, status: Option<&ClusterStatus>) -> bool {
        self.log.is_none() || status.is_none_or(|status| status.live() <= 1)
    }

    /// Takes a sample with its start, and returns those that this node has to write, the oldest first.
    pub(crate) fn next(&mut self, sample: (Time, T), status: Option<&ClusterStatus>) -> Vec<T> {
        let log = self.log.as_ref().map(LogMonitor::status);
        self.next_with(sample, status, log.as_ref())
    }

    fn next_with(
        &mut self,
        (start, sample): (Time, T),
        status: Option<&ClusterStatus>,
        log: Option<&LogStatus>,
    ) -> Vec<T> {
        let Some((status, log)) = status.zip(log) else { return vec![sample] };
        let is_needed = |kept: Time| log.sampled.is_none_or(|sampled| kept > sampled);
        self.kept.retain(|(kept, _)| is_needed(*kept) && kept.plus(KEEP_MS) > start);
        if is_first(status, start.minute()) {
            return self.kept.drain(..).map(|(_, sample)| sample).chain([sample]).collect();
        }
        // Of a minute that this node has a part of, another one has the whole.
        if start == start.minute() && is_needed(start) {
            self.kept.push_back((start, sample));
        }
        Vec::new()
    }
}

/// Whether this node is the first one by name of those that are heard and have run since that minute began. If there is
/// none, the one that has run longest is the first.
fn is_first(status: &ClusterStatus, minute: Time) -> bool {
    // Of a node without a digest it is not known since when it runs.
    let known = status.nodes.iter().filter(|node| node.state.is_heard() && node.since.millis() > 0);
    known.min_by_key(|node| (node.since.max(minute), &node.name)).is_none_or(|first| first.is_self)
}

#[cfg(test)]
mod tests {
    use super::super::status::{NodeState, NodeStatus};
    use super::*;

    /// The cluster as the node `own` sees it: each node with the minute of its start.
    fn seen_by(own: &str, nodes: &[(&str, NodeState, u64)]) -> ClusterStatus {
        let node = |(name, state, since): &(&str, NodeState, u64)| NodeStatus {
            name: (*name).to_owned(),
            is_self: *name == own,
            version: String::new(),
            since: minute(*since),
            people: 0,
            sockets: 0,
            heard_ms: 0,
            lag_ms: 0,
            skew_ms: 0,
            log: None,
            differs: false,
            state: *state,
        };
        let mut status = ClusterStatus::at_start("test".to_owned(), own.to_owned());
        status.nodes = nodes.iter().map(node).collect();
        status
    }

    fn minute(number: u64) -> Time {
        Time::from_millis(1_796_083_200_000 + number * 60_000)
    }

    /// A log whose newest sample starts with this minute.
    fn logged(number: u64) -> LogStatus {
        LogStatus { sampled: Some(minute(number)), ..LogStatus::at_start(0, 0, false) }
    }

    const LIVE: NodeState = NodeState::Live;

    #[test]
    fn without_a_log_or_a_cluster_each_node_writes_each_sample() {
        let mut kept = KeptSamples::new(None);
        let second = seen_by("b", &[("a", LIVE, 0), ("b", LIVE, 0)]);
        assert_eq!(kept.next_with((minute(1), 1), Some(&second), None), [1]);
        assert_eq!(kept.next_with((minute(2), 2), None, Some(&logged(1))), [2]);
        assert_eq!(kept.next_with((minute(3), 3), None, None), [3]);
    }

    #[test]
    fn first_node_by_name_that_ran_for_the_whole_minute_writes() {
        let writes = |own, nodes: &[_]| {
            !KeptSamples::new(None)
                .next_with((minute(1), ()), Some(&seen_by(own, nodes)), Some(&logged(0)))
                .is_empty()
        };
        let three = [("a", LIVE, 0), ("b", LIVE, 1), ("c", NodeState::Syncing, 0)];
        assert_eq!(["a", "b", "c"].map(|own| writes(own, &three)), [true, false, false]);
        for state in [NodeState::Silent, NodeState::Lost, NodeState::Left] {
            assert!(writes("b", &[("a", state, 0), ("b", LIVE, 1)]), "{state:?}");
        }
        assert!(writes("b", &[("b", LIVE, 9)]) && writes("b", &[]), "alone");
        // The first one has just started.
        let restarted = [("a", LIVE, 2), ("b", LIVE, 1), ("c", LIVE, 0)];
        assert_eq!(["a", "b", "c"].map(|own| writes(own, &restarted)), [false, true, false]);
        let all_new = [("a", LIVE, 4), ("b", LIVE, 3), ("c", LIVE, 2)];
        assert_eq!(["a", "b", "c"].map(|own| writes(own, &all_new)), [false, false, true]);
    }

    #[test]
    fn next_node_writes_what_the_first_one_has_not_written_before_it_died() {
        let with_a = seen_by("b", &[("a", LIVE, 0), ("b", LIVE, 0)]);
        let mut kept = KeptSamples::new(None);
        for number in 1..=4 {
            // Node a writes its first two samples, and then nothing.
            let log = logged(number.min(2));
            assert!(kept.next_with((minute(number), number), Some(&with_a), Some(&log)).is_empty());
        }
        let without_a = seen_by("b", &[("a", NodeState::Lost, 0), ("b", LIVE, 0)]);
        assert_eq!(kept.next_with((minute(5), 5), Some(&without_a), Some(&logged(2))), [3, 4, 5]);
        assert_eq!(kept.next_with((minute(6), 6), Some(&without_a), Some(&logged(2))), [6]);
    }

    #[test]
    fn part_of_a_minute_is_not_written_where_another_node_has_the_whole() {
        let started = minute(1).plus(20_000);
        let restarted = |a| seen_by("a", &[("a", LIVE, a), ("b", LIVE, 0)]);
        let mut kept = KeptSamples::new(None);
        assert!(kept.next_with((started, 1), Some(&restarted(2)), Some(&logged(0))).is_empty());
        // It is not written later either.
        assert_eq!(kept.next_with((minute(2), 2), Some(&restarted(2)), Some(&logged(1))), [2]);
    }

    #[test]
    fn samples_are_kept_for_three_minutes() {
        let with_a = seen_by("b", &[("a", LIVE, 0), ("b", LIVE, 0)]);
        let mut kept = KeptSamples::new(None);
        for number in 1..1_000 {
            assert!(kept.next_with((minute(number), number), Some(&with_a), Some(&logged(0))).is_empty());
        }
        assert_eq!(kept.kept.len(), 3);
    }
}
