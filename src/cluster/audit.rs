//! Whether the files of two nodes have the same records.
//!
//! Pure. Each node publishes what the records of its file add up to at a position of the log. Two files that have read the
//! log to the same position, and have nothing that is not in the log, have the same records. One comparison may see a
//! file while it changes, such as during an erasure, so that two in a row must be unequal.

use std::collections::{BTreeMap, VecDeque};

use crate::history::log::status::RecordsAt;

/// Own sums that are compared. The nodes do not commit at the same moments.
const OWN_LIMIT: usize = 16;

/// Unequal comparisons in a row from which on two files differ.
const UNEQUAL: u32 = 2;

/// What the comparisons with each peer gave.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    own: VecDeque<RecordsAt>,
    /// Unequal comparisons in a row, of the peers that are compared.
    unequal: BTreeMap<String, u32>,
}

/// What one look gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditResult {
    /// Sums of one position that were compared.
    pub comparisons: u64,
    /// Those of them that say that the files differ.
    pub differences: u64,
    /// The peers whose files differ now and did not before, with the position.
    pub new: Vec<(String, u64)>,
}

impl Audit {
    /// Compares the newest sum of this node's file and of the files of all peers that are heard.
    pub(crate) fn look<'a>(
        &mut self,
        own: Option<&RecordsAt>,
        peers: impl Iterator<Item = (&'a str, Option<&'a RecordsAt>)>,
    ) -> AuditResult {
        if let Some(own) = own {
            self.own.retain(|known| !known.is_at(own));
            self.own.truncate(OWN_LIMIT - 1);
            self.own.push_front(own.clone());
        }
        let (mut found, before) = (AuditResult::default(), std::mem::take(&mut self.unequal));
        for (peer, records) in peers {
            let same = records.and_then(|records| self.own.iter().find(|own| own.is_at(records)));
            let mut unequal = before.get(peer).copied().unwrap_or_default();
            if let Some((own, records)) = same.zip(records) {
                found.comparisons += 1;
                unequal = if own.sum == records.sum { 0 } else { unequal.saturating_add(1) };
                if unequal >= UNEQUAL {
                    found.differences += 1;
                }
                if unequal == UNEQUAL {
                    found.new.push((peer.to_owned(), records.position));
                }
            }
            self.unequal.insert(peer.to_owned(), unequal);
        }
        found
    }

    /// Whether the file of a peer differs from that of this node.
    pub(crate) fn differs(&self, peer: &str) -> bool {
        self.unequal.get(peer).is_some_and(|unequal| *unequal >= UNEQUAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::record_sum::RecordSum;

    fn at(log: &str, position: u64, sum: u128) -> RecordsAt {
        let sum = RecordSum::from_bytes(&sum.to_be_bytes()).unwrap();
        RecordsAt { log: log.into(), position, sum }
    }

    /// Looks at this node and at the peer b. Returns the comparisons, the differences, what is new, and whether b differs.
    fn look(audit: &mut Audit, own: &RecordsAt, peer: &RecordsAt) -> (u64, u64, usize, bool) {
        let found = audit.look(Some(own), [("b", Some(peer))].into_iter());
        assert!(found.new.iter().all(|(peer, position)| peer == "b" && *position == own.position));
        (found.comparisons, found.differences, found.new.len(), audit.differs("b"))
    }

    #[test]
    fn unequal_sums_at_one_position_differ_from_the_second_look_on() {
        let mut audit = Audit::default();
        let unequal = (at("x", 5, 1), at("x", 5, 2));
        assert_eq!(look(&mut audit, &unequal.0, &unequal.1), (1, 0, 0, false));
        assert_eq!(look(&mut audit, &unequal.0, &unequal.1), (1, 1, 1, true));
        assert_eq!(look(&mut audit, &unequal.0, &unequal.1), (1, 1, 0, true));
        // Positions that are not equal say nothing.
        assert_eq!(look(&mut audit, &at("x", 7, 3), &at("x", 6, 2)), (0, 0, 0, true));
        assert_eq!(look(&mut audit, &at("x", 7, 3), &at("x", 7, 3)), (1, 0, 0, false));
        assert_eq!(look(&mut audit, &at("x", 7, 3), &at("x", 7, 4)), (1, 0, 0, false), "one");
        assert_eq!(look(&mut audit, &at("x", 7, 4), &at("x", 7, 4)), (1, 0, 0, false), "it was changing");
        assert_eq!(look(&mut audit, &at("x", 7, 3), &at("x", 7, 4)), (1, 0, 0, false));
    }

    #[test]
    fn equal_positions_of_two_logs_are_not_compared() {
        let mut audit = Audit::default();
        for _ in 0..5 {
            assert_eq!(look(&mut audit, &at("x", 5, 1), &at("y", 5, 2)), (0, 0, 0, false));
        }
    }

    #[test]
    fn node_that_commits_at_other_moments_is_compared_at_earlier_positions() {
        let mut audit = Audit::default();
        for position in 10..40 {
            let peer = at("x", position - 10, 1);
            audit.look(Some(&at("x", position, 0)), [("b", Some(&peer))].into_iter());
        }
        assert!(audit.differs("b"));
        assert_eq!(audit.own.len(), OWN_LIMIT);
    }

    #[test]
    fn peer_that_is_not_heard_or_has_no_sum_does_not_differ() {
        let mut audit = Audit::default();
        for _ in 0..3 {
            look(&mut audit, &at("x", 5, 1), &at("x", 5, 2));
        }
        assert!(audit.differs("b"));
        audit.look(Some(&at("x", 5, 1)), std::iter::empty());
        assert!(!audit.differs("b"));
        audit.look(None, [("b", None)].into_iter());
        assert!(!audit.differs("b"));
    }
}
