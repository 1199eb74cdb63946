//! What sessions and requests count for `/metrics`: what was refused, and why.
//!
//! One counter for each error code, made at start.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, counter, describe_counter};

use crate::wire::ErrorCode;

/// Counters of refusals. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Meter(Arc<HashMap<ErrorCode, Counter>>);

impl Meter {
    /// Registers the counters with the recorder that is current.
    #[must_use]
    pub fn register() -> Self {
        const REFUSED: &str = "breathing_room_refused_total";
        describe_counter!(REFUSED, "Messages and events refused, by the error code of the answer");
        let counters = ErrorCode::ALL.map(|code| (code, counter!(REFUSED, "reason" => code.as_str())));
        Self(Arc::new(HashMap::from(counters)))
    }

    /// Something was refused for this reason.
    pub fn refused(&self, reason: ErrorCode) {
        if let Some(counter) = self.0.get(&reason) {
            counter.increment(1);
        }
    }
}
