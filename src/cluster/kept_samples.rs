//! Which node writes the samples of presence: where all nodes have one log of events, the first live one by name.
//!
//! Pure. The others keep theirs for three minutes, so that the next one can step in with what the first one has not
//! written before it died. Where each node has a file of its own events only, each one writes all of them.

use std::collections::VecDeque;

use super::status::ClusterStatus;
use crate::protocol::Time;

/// How long a sample is kept, in ms: longer than it takes until a node that died is known to be lost.
const KEEP_MS: u64 = 180_000;

/// The samples that another node should write. What a sample is does not matter here.
#[derive(Debug)]
pub(crate) struct KeptSamples<T>(VecDeque<(Time, T)>);

impl<T> Default for KeptSamples<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> KeptSamples<T> {
    /// Takes a sample with its start, and returns those that this node has to write, the oldest first. `logged` is the
    /// start of the newest sample that is in the log of all nodes; none where there is no such log.
    pub(crate) fn next(
        &mut self,
        (start, sample): (Time, T),
        status: Option<&ClusterStatus>,
        logged: Option<Time>,
    ) -> Vec<T> {
        let Some((status, logged)) = status.zip(logged) else {
            self.0.clear();
            return vec![sample];
        };
        self.0.push_back((start, sample));
        self.0.retain(|(kept, _)| *kept > logged && kept.plus(KEEP_MS) > start);
        if is_first(status) { self.0.drain(..).map(|(_, sample)| sample).collect() } else { Vec::new() }
    }
}

/// Whether this node is the first one by name of those that are heard.
fn is_first(status: &ClusterStatus) -> bool {
    let live = status.nodes.iter().filter(|node| node.state.is_heard());
    live.min_by(|a, b| a.name.cmp(&b.name)).is_none_or(|first| first.is_self)
}

#[cfg(test)]
mod tests {
    use super::super::status::{NodeState, NodeStatus};
    use super::*;

    /// The cluster as the node `own` sees it.
    fn seen_by(own: &str, others: &[(&str, NodeState)]) -> ClusterStatus {
        let node = |name: &str, state| NodeStatus {
            name: name.to_owned(),
            is_self: name == own,
            version: String::new(),
            since: minute(0),
            people: 0,
            sockets: 0,
            heard_ms: 0,
            lag_ms: 0,
            skew_ms: 0,
            log: None,
            state,
        };
        let mut status = ClusterStatus::at_start("test".to_owned(), own.to_owned());
        let others = others.iter().map(|(name, state)| node(name, *state));
        status.nodes = others.chain([node(own, NodeState::Live)]).collect();
        status
    }

    fn minute(number: u64) -> Time {
        Time::from_millis(1_796_083_200_000 + number * 60_000)
    }

    #[test]
    fn without_a_log_or_a_cluster_each_node_writes_each_sample() {
        let mut kept = KeptSamples::default();
        let second = seen_by("b", &[("a", NodeState::Live)]);
        assert_eq!(kept.next((minute(1), 1), Some(&second), None), [1]);
        assert_eq!(kept.next((minute(2), 2), None, Some(minute(1))), [2]);
        assert_eq!(kept.next((minute(3), 3), None, None), [3]);
    }

    #[test]
    fn first_live_node_by_name_writes() {
        let writes = |own, others: &[_]| {
            !KeptSamples::default()
                .next((minute(1), ()), Some(&seen_by(own, others)), Some(minute(0)))
                .is_empty()
        };
        assert!(writes("a", &[("b", NodeState::Live), ("c", NodeState::Syncing)]));
        assert!(!writes("b", &[("a", NodeState::Live), ("c", NodeState::Live)]));
        assert!(!writes("b", &[("a", NodeState::Syncing)]));
        for state in [NodeState::Silent, NodeState::Lost, NodeState::Left] {
            assert!(writes("b", &[("a", state), ("c", NodeState::Live)]), "{state:?}");
        }
        assert!(writes("b", &[]), "alone");
    }

    #[test]
    fn next_node_writes_what_the_first_one_has_not_written_before_it_died() {
        let (mut kept, with_a) = (KeptSamples::default(), seen_by("b", &[("a", NodeState::Live)]));
        for number in 1..=4 {
            // Node a writes its first two samples, and then nothing.
            let logged = minute(number.min(2));
            assert!(kept.next((minute(number), number), Some(&with_a), Some(logged)).is_empty());
        }
        let without_a = seen_by("b", &[("a", NodeState::Lost)]);
        assert_eq!(kept.next((minute(5), 5), Some(&without_a), Some(minute(2))), [3, 4, 5]);
        assert_eq!(kept.next((minute(6), 6), Some(&without_a), Some(minute(5))), [6]);
    }

    #[test]
    fn samples_are_kept_for_three_minutes() {
        let (mut kept, with_a) = (KeptSamples::default(), seen_by("b", &[("a", NodeState::Live)]));
        for number in 1..1_000 {
            assert!(kept.next((minute(number), number), Some(&with_a), Some(minute(0))).is_empty());
        }
        assert_eq!(kept.0.len(), 3);
    }
}
