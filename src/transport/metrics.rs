//! Counters of connections and sockets for `/metrics`: rejections, panics, and what the sweep aborts.
//!
//! Plain handles: to count is one atomic addition.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};
use strum::{IntoStaticStr, VariantArray};

use crate::panics::Panics;
use crate::rejections::Rejections;

/// Why the sweep aborts a socket: the label `reason` of `breathing_room_cut_off_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum CutOff {
    /// No byte came from the peer, not even after a ping.
    Silent,
    /// The peer acknowledges nothing of what the hub sends.
    Stalled,
    /// The peer does not answer a close.
    Unclosed,
}

/// The counters of one hub. Cloning shares them.
#[derive(Debug, Clone)]
pub struct TransportMetrics {
    /// What was rejected.
    pub rejections: Rejections,
    /// What becomes of a session or a request that panics.
    pub panics: Panics,
    cut_off: Arc<HashMap<CutOff, Counter>>,
}

impl TransportMetrics {
    /// Registers the counters with the current recorder.
    #[must_use]
    pub fn register(rejections: Rejections, panics: Panics) -> Self {
        const CUT_OFF: &str = "breathing_room_cut_off_total";
        describe_counter!(CUT_OFF, "Sockets that the sweep aborted, by reason");
        let cut_off = CutOff::VARIANTS.iter();
        let cut_off = cut_off.map(|why| (*why, counter!(CUT_OFF, "reason" => <&str>::from(why))));
        Self { rejections, panics, cut_off: Arc::new(cut_off.collect()) }
    }

    /// Counts a socket that was aborted for this reason.
    pub(crate) fn cut_off(&self, reason: CutOff) {
        if let Some(counter) = self.cut_off.get(&reason) {
            counter.increment(1);
        }
    }
}
