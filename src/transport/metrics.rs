//! Counters of connections and sockets for `/metrics`: rejections, panics, and what the sweep aborts.
//!
//! Counting is one atomic addition.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};
use strum::{IntoStaticStr, VariantArray};

use crate::panics::Panics;
use crate::rejections::Rejections;

/// Why the sweep aborts a socket: the label `reason` of `breathing_room_sockets_aborted_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum AbortReason {
    /// The peer's idle timeout: no byte arrived, not even after a ping.
    Silent,
    /// The peer accepts no byte of the unsent ones.
    Stalled,
    /// The peer does not answer a close.
    Unclosed,
}

/// The counters of one hub. Cloning shares them.
#[derive(Debug, Clone)]
pub struct TransportMetrics {
    /// Counters of rejections.
    pub rejections: Rejections,
    /// Counters of panics.
    pub panics: Panics,
    aborted: Arc<HashMap<AbortReason, Counter>>,
}

impl TransportMetrics {
    /// Registers the counters with the current recorder.
    #[must_use]
    pub fn register(rejections: Rejections, panics: Panics) -> Self {
        const ABORTED: &str = "breathing_room_sockets_aborted_total";
        describe_counter!(ABORTED, "Sockets that the sweep aborted, by reason");
        let aborted = AbortReason::VARIANTS.iter();
        let aborted = aborted.map(|why| (*why, counter!(ABORTED, "reason" => <&str>::from(why))));
        Self { rejections, panics, aborted: Arc::new(aborted.collect()) }
    }

    /// Counts a socket that was aborted for this reason.
    pub(crate) fn count_abort(&self, reason: AbortReason) {
        if let Some(counter) = self.aborted.get(&reason) {
            counter.increment(1);
        }
    }
}
