//! What sessions and requests count for `/metrics`: what was refused, and why, and what of the presence
//! history was lost.
//!
//! One counter for each error code, made at start.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};

use crate::wire::ErrorCode;

/// Counters of what went wrong. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Meter(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    refused: HashMap<ErrorCode, Counter>,
    samples_lost: Counter,
}

impl Meter {
    /// Registers the counters with the recorder that is current.
    #[must_use]
    pub fn register() -> Self {
        const REFUSED: &str = "breathing_room_refused_total";
        const SAMPLES_LOST: &str = "breathing_room_presence_samples_lost_total";
        describe_counter!(REFUSED, "Messages and events refused, by the error code of the answer");
        describe_counter!(SAMPLES_LOST, "Presence samples for which the journal had no room");
        let refused = ErrorCode::ALL.map(|code| (code, counter!(REFUSED, "reason" => code.as_str())));
        Self(Arc::new(Counters { refused: HashMap::from(refused), samples_lost: counter!(SAMPLES_LOST) }))
    }

    /// Something was refused for this reason.
    pub fn refused(&self, reason: ErrorCode) {
        if let Some(counter) = self.0.refused.get(&reason) {
            counter.increment(1);
        }
    }

    /// So many presence samples will not be in the history.
    pub fn samples_lost(&self, count: usize) {
        self.0.samples_lost.increment(count as u64);
    }
}
