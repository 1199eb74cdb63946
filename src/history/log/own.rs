//! Own messages that are not committed yet, and where each of them is.
//!
//! Plain data of the flush task.

use bytes::Bytes;

use super::order::Order;
use crate::history::event::Batch;

/// The events of one own message, or its erasure.
pub(super) struct OwnPart {
    /// The events.
    pub(super) batch: Batch,
    /// The erasure.
    pub(super) order: Option<Order>,
    /// Where its message is.
    pub(super) place: Place,
}

/// Where an own message is.
pub(super) enum Place {
    /// Under way to the log.
    Sending(Bytes),
    /// In the log, at this position.
    Stored(u64),
    /// Not in the log, as far as this node knows.
    Outbox(Bytes),
}

impl OwnPart {
    /// Whether its message is under way.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.place, Place::Sending(_))
    }
}
