//! Metrics of presence: handles of counters, so that counting is one atomic addition.
//!
//! How they are exported is not known here.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};
use strum::{IntoStaticStr, VariantArray};

use crate::panics::Panics;

const DIFFERENCES: &str = "breathing_room_audit_differences_total";

/// A count that the self-audit checks: the label `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum AuditedCount {
    /// The visitors of a room.
    Present,
    /// The visitors of a room without a session.
    Held,
    /// The visitors of a room who sit.
    Sitting,
    /// The visitors of a room by mood.
    Moods,
    /// The number of rooms of each visitor.
    Visitors,
    /// Open room sockets of visitors.
    Sessions,
    /// Rooms with visitors.
    Rooms,
    /// The index of holds by deadline.
    Holds,
    /// In a cluster: the number of rooms of each person, over all nodes.
    People,
    /// In a cluster: what the share of each node adds up to, and the rooms with visitors of this one.
    Shares,
}

/// Counters of presence. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct PresenceMetrics {
    /// Sessions that joined a room.
    pub joins: Counter,
    /// Sessions that left a room or were lost.
    pub leaves: Counter,
    /// Room states that were published.
    pub publishes: Counter,
    /// Published states that were handed to a socket.
    pub deliveries: Counter,
    /// Completed self-audits.
    pub audits: Counter,
    /// Spawns tasks and counts their panics.
    pub panics: Panics,
    differences: Arc<HashMap<AuditedCount, Counter>>,
}

impl PresenceMetrics {
    /// Registers the counters with the current recorder.
    pub(crate) fn register(panics: &Panics) -> Self {
        describe_counter!("breathing_room_joins_total", "Sessions that joined a room");
        describe_counter!("breathing_room_leaves_total", "Sessions that left a room or were lost");
        describe_counter!("breathing_room_publishes_total", "Room states published");
        describe_counter!("breathing_room_deliveries_total", "Room states handed to sockets");
        describe_counter!("breathing_room_audits_total", "Self-audits, which recount every stored count");
        describe_counter!(DIFFERENCES, "Wrong counts that the self-audit corrected");
        let differences = AuditedCount::VARIANTS.iter();
        let differences =
            differences.map(|kind| (*kind, counter!(DIFFERENCES, "kind" => <&str>::from(kind))));
        Self {
            joins: counter!("breathing_room_joins_total"),
            leaves: counter!("breathing_room_leaves_total"),
            publishes: counter!("breathing_room_publishes_total"),
            deliveries: counter!("breathing_room_deliveries_total"),
            audits: counter!("breathing_room_audits_total"),
            panics: panics.clone(),
            differences: Arc::new(differences.collect()),
        }
    }

    /// Counts a count that the self-audit corrected.
    pub(crate) fn audit_difference(&self, kind: AuditedCount) {
        if let Some(counter) = self.differences.get(&kind) {
            counter.increment(1);
        }
    }
}
