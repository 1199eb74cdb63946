//! The starts and ids of presence samples, by which a sample that is stored twice merges, and those that two nodes take of
//! one minute. Pure, except for the lock around the last start.

use std::sync::Mutex;

use uuid::Uuid;

use crate::protocol::Time;
use crate::sync::lock;

/// The namespace of the ids of samples (RFC 9562, section 5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x8d0f_6f5c_2a3e_4b63_9d55_0c1f_7be4_a916);

/// How far behind the last start another one is still moved, in milliseconds.
const STANDSTILL_MS: u64 = 1_000;

/// How far a sample's own start may be from the end of the minute before, in milliseconds: the lateness of a timer. More
/// is a clock that was set.
const LATE_MS: u64 = 30_000;

/// A minute, in milliseconds.
const MINUTE: u64 = 60_000;

/// What makes a name of a cluster's sample, which no node without a cluster has.
const CLUSTER: &str = "cluster";

/// The ids of the samples of this node. Two samples that start in one millisecond would have the same id, so the second
/// one starts a millisecond later.
#[derive(Debug)]
pub(crate) struct SampleIds {
    node: String,
    last: Mutex<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    /// The start of the last sample.
    start: Time,
    /// The end of the minute that the last sample ended with.
    minute: Option<Time>,
}

/// The time that a sample covers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Its length, in milliseconds.
    pub ms: u64,
    /// The wall clock at its end.
    pub end: Time,
    /// Whether it ends with a minute.
    pub is_minute_end: bool,
}

impl SampleIds {
    /// The ids of a node's samples.
    pub(crate) fn new(node: String) -> Self {
        Self { node, last: Mutex::new(Last { start: Time::from_millis(0), minute: None }) }
    }

    /// The name of this node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// The start of a new sample, and its id: version 5 of the start and the name of the cluster, or of this node without
    /// one. A sample that follows one that ended with a minute starts with that minute, on every node. So does the first one
    /// of a node of a cluster, which may have started later than others that sample the same minute.
    pub(super) fn next(&self, span: Span, cluster: Option<&str>) -> (Time, Uuid) {
        let mut last = lock(&self.last);
        let start = span.end.minus(span.ms);
        let is_near = |minute: &Time| minute.millis().abs_diff(start.millis()) <= LATE_MS;
        let begun = cluster
            .filter(|_| span.is_minute_end && span.ms < MINUTE)
            .map(|_| span.end.minute().minus(MINUTE));
        let start = last.minute.filter(is_near).or(begun).unwrap_or(start);
        let is_taken = last.start.minus(STANDSTILL_MS) <= start && start <= last.start;
        last.start = if is_taken { last.start.plus(1) } else { start };
        last.minute = span.is_minute_end.then(|| span.end.minute());
        let name = match cluster {
            Some(cluster) => format!("{} {CLUSTER} {cluster}", last.start.millis()),
            None => format!("{} {}", last.start.millis(), self.node),
        };
        (last.start, Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute() -> Time {
        Time::from_millis(1_700_000_040_000)
    }

    fn ids(node: &str) -> SampleIds {
        SampleIds::new(node.to_owned())
    }

    /// A sample of a second that does not end with a minute.
    fn from(start: Time) -> Span {
        Span { ms: 1_000, end: start.plus(1_000), is_minute_end: false }
    }

    fn to_minute(ms: u64, end: Time) -> Span {
        Span { ms, end, is_minute_end: true }
    }

    #[test]
    fn sample_id_is_of_its_start_and_the_cluster_or_the_node() {
        let of = |node: &str, cluster| ids(node).next(from(minute()), cluster);
        assert_eq!(of("a", Some("x")), of("b", Some("x")), "two nodes of one cluster");
        assert_ne!(of("a", Some("x")), of("a", Some("y")));
        assert_ne!(of("a", None), of("b", None));
        assert_ne!(of("a", None), of("a", Some("a")));
        let (first, second) = (ids("a"), ids("a"));
        assert_eq!(first.next(from(minute()), None), second.next(from(minute()), None), "sent again");
        assert_eq!(second.next(from(minute()), None).0, minute().plus(1), "in the same millisecond");
        assert_eq!(second.next(from(minute()), None).0, minute().plus(2));
        let before = minute().minus(3_600_000);
        assert_eq!(second.next(from(before), None).0, before, "a clock that is set back");
    }

    #[test]
    fn samples_of_one_minute_start_together_on_all_nodes() {
        for (late, next_late) in [(0, 0), (3, 1), (1, 900), (12_000, 0)] {
            let ids = ids("a");
            let first = to_minute(40_000, minute().plus(late));
            let started = minute().minus(MINUTE);
            assert_eq!(ids.next(first, Some("x")).0, started, "the first one, of a part of a minute");
            let whole =
                to_minute(60_000 + next_late - late.min(next_late), minute().plus(60_000 + next_late));
            assert_eq!(ids.next(whole, Some("x")).0, minute(), "{late} ms late");
            assert_eq!(
                ids.next(to_minute(60_000, minute().plus(120_000)), Some("x")).0,
                minute().plus(60_000)
            );
        }
        let first = to_minute(40_000, minute());
        assert_eq!(
            ids("a").next(first, None).0,
            minute().minus(40_000),
            "without others it starts with the hub"
        );
        // A sample within the minute, and the rest of the minute.
        let ids = ids("a");
        ids.next(to_minute(60_000, minute().plus(2)), None);
        assert_eq!(
            ids.next(Span { ms: 20_000, end: minute().plus(20_002), is_minute_end: false }, None).0,
            minute()
        );
        assert_eq!(ids.next(to_minute(40_000, minute().plus(60_002)), None).0, minute().plus(20_002));
        // A clock that was set.
        let later = minute().plus(7_200_000);
        assert_eq!(ids.next(to_minute(60_000, later), None).0, later.minus(60_000));
    }
}
