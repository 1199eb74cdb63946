//! Metrics of the cluster: handles, so that counting is one atomic operation.
//!
//! How they are exported is not known here. A hub without a cluster registers none.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use strum::VariantArray;

use super::status::{ClusterStatus, NodeState};

/// Counters, gauges and a histogram. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ClusterMetrics {
    nodes: Vec<(NodeState, Gauge)>,
    skew: Gauge,
    /// Deltas of other nodes that were missed.
    pub gaps: Counter,
    /// Messages that cannot be read.
    pub unreadable: Counter,
    /// Own messages that were dropped, since the transport took no more.
    pub dropped: Counter,
    /// Comparisons with the histories of other nodes.
    pub comparisons: Counter,
    /// Comparisons that say that another node's file has other records than this one's.
    pub differences: Counter,
    /// From the change on another node to this one.
    pub agreement: Histogram,
}

impl ClusterMetrics {
    /// Registers the metrics with the current recorder.
    pub(crate) fn register() -> Self {
        const NODES: &str = "breathing_room_cluster_nodes";
        const GAPS: &str = "breathing_room_cluster_update_gaps_total";
        const UNREADABLE: &str = "breathing_room_cluster_unreadable_updates_total";
        const DROPPED: &str = "breathing_room_cluster_dropped_updates_total";
        const SKEW: &str = "breathing_room_cluster_clock_skew_seconds";
        const COMPARISONS: &str = "breathing_room_replica_comparisons_total";
        const DIFFERENCES: &str = "breathing_room_replica_differences_total";
        const AGREEMENT: &str = "breathing_room_cluster_agreement_seconds";
        describe_gauge!(NODES, "Nodes of the cluster, this one included, by state");
        describe_counter!(
            GAPS,
            "Deltas of other nodes that were missed, so that a whole share was asked for"
        );
        describe_counter!(UNREADABLE, "Messages of other nodes that could not be read");
        describe_counter!(DROPPED, "Messages to other nodes that were dropped before they were sent");
        describe_counter!(COMPARISONS, "Comparisons with another node's history at one position of the log");
        describe_counter!(
            DIFFERENCES,
            "Comparisons with another node's history that found other records at one position of the log"
        );
        describe_gauge!(SKEW, "The largest difference of another node's wall clock to this one");
        describe_histogram!(
            AGREEMENT,
            "From a change on another node until this node has applied it, clock skew left out"
        );
        let nodes = NodeState::VARIANTS.iter();
        Self {
            nodes: nodes.map(|state| (*state, gauge!(NODES, "state" => <&str>::from(state)))).collect(),
            skew: gauge!(SKEW),
            gaps: counter!(GAPS),
            unreadable: counter!(UNREADABLE),
            dropped: counter!(DROPPED),
            comparisons: counter!(COMPARISONS),
            differences: counter!(DIFFERENCES),
            agreement: histogram!(AGREEMENT),
        }
    }

    /// Sets the gauges.
    pub(super) fn show(&self, status: &ClusterStatus) {
        for (state, gauge) in &self.nodes {
            gauge.set(status.nodes.iter().filter(|node| node.state == *state).count() as f64);
        }
        let skew = status.nodes.iter().map(|node| node.skew_ms.unsigned_abs()).max();
        self.skew.set(skew.unwrap_or_default() as f64 / 1_000.0);
    }
}
