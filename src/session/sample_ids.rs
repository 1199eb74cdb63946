//! The ids of presence samples, by which a sample that is stored twice merges. Pure, except for the lock around the last
//! start.

use std::collections::BTreeSet;
use std::sync::Mutex;

use uuid::Uuid;

use crate::history::event::NodeName;
use crate::protocol::Time;
use crate::sync::lock;

/// The namespace of the ids of samples (RFC 9562, section 5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x8d0f_6f5c_2a3e_4b63_9d55_0c1f_7be4_a916);

/// How far behind the last start another one is still moved, in milliseconds.
const STANDSTILL_MS: u64 = 1_000;

/// The ids of the samples of this node. Two samples that start in one millisecond would have the same id, so the second
/// one starts a millisecond later.
#[derive(Debug)]
pub(crate) struct SampleIds {
    node: String,
    /// The start of the last sample.
    last: Mutex<Time>,
}

impl SampleIds {
    /// The ids of a node's samples.
    pub(crate) fn new(node: String) -> Self {
        Self { node, last: Mutex::new(Time::from_millis(0)) }
    }

    /// The name of this node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// The start of a new sample that has the visitors of these nodes, and its id: version 5 of the start and the nodes,
    /// or the name of this node without a cluster.
    pub(super) fn next(&self, start: Time, nodes: &BTreeSet<NodeName>) -> (Time, Uuid) {
        let mut last = lock(&self.last);
        let is_taken = last.minus(STANDSTILL_MS) <= start && start <= *last;
        *last = if is_taken { last.plus(1) } else { start };
        let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
        let names = if names.is_empty() { self.node.clone() } else { names.join(",") };
        let name = format!("{} {names}", last.millis());
        (*last, Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_id_is_of_its_start_and_nodes() {
        struct Ids(SampleIds);
        impl Ids {
            fn next(&self, start: Time) -> (Time, Uuid) {
                self.0.next(start, &BTreeSet::new())
            }
        }
        let ids = |node: &str| Ids(SampleIds::new(node.to_owned()));
        let (first, second, other) = (ids("a"), ids("a"), ids("b"));
        let minute = Time::from_millis(1_700_000_040_000);
        let of = |names: &[&str]| -> Uuid {
            let names = names.iter().map(|name| (*name).to_owned().try_into().unwrap());
            SampleIds::new("a".to_owned()).next(minute, &names.collect()).1
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]), "the same nodes at the same time");
        assert_ne!(of(&["a", "b"]), of(&["a"]));
        assert_eq!(of(&["a"]), of(&[]), "a node without a cluster");
        assert_eq!(first.next(minute), second.next(minute), "sent again, it is the same sample");
        assert_ne!(first.next(minute.plus(60_000)), other.next(minute.plus(60_000)));
        assert_eq!(second.next(minute).0, minute.plus(1), "another sample in the same millisecond");
        assert_eq!(second.next(minute).0, minute.plus(2));
        assert_eq!(
            second.next(minute.minus(3_600_000)).0,
            minute.minus(3_600_000),
            "a clock that is set back"
        );
    }
}
