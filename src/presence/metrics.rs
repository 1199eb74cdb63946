//! What the live side counts for `/metrics`: plain handles, so that counting is one
//! atomic addition and nothing here knows how the counters are shown.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};

use strum::VariantArray;

use super::audit::AuditedCount;
use crate::panics::Panics;

const DIFFERENCES: &str = "breathing_room_audit_differences_total";

/// Counters of the live side. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct PresenceMetrics {
    /// Sessions that joined a room.
    pub joins: Counter,
    /// Sessions that left a room, by their own will or by being lost.
    pub leaves: Counter,
    /// States that were published.
    pub publishes: Counter,
    /// Published states that were handed to a socket.
    pub deliveries: Counter,
    /// Audits that were done.
    pub audits: Counter,
    /// What becomes of a task that panics.
    pub panics: Panics,
    differences: Arc<HashMap<AuditedCount, Counter>>,
}

impl PresenceMetrics {
    /// Registers the counters with the recorder that is current; panics are counted by `panics`.
    #[must_use]
    pub(crate) fn register(panics: &Panics) -> Self {
        describe_counter!("breathing_room_joins_total", "Sessions that joined a room");
        describe_counter!("breathing_room_leaves_total", "Sessions that left a room or were lost");
        describe_counter!("breathing_room_publishes_total", "Room states published");
        describe_counter!("breathing_room_deliveries_total", "Room states handed to sockets");
        describe_counter!("breathing_room_audits_total", "Recounts of everything that is kept as a count");
        describe_counter!(DIFFERENCES, "Snapshot that were wrong and were put right");
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

    /// An audit found this wrong.
    pub(crate) fn audit_found(&self, what: AuditedCount) {
        if let Some(counter) = self.differences.get(&what) {
            counter.increment(1);
        }
    }
}
