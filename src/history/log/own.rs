//! Own messages: those that are not committed yet and the oldest one of the outbox, where each of them is, and what was
//! sent.
//!
//! Plain data of the flush task.

use std::time::Duration;

use bytes::Bytes;

use super::LogError;
use super::erasure_request::ErasureRequest;
use crate::history::event::Batch;
use crate::history::store::OutboxMessage;

/// The events of one own message, or its erasure.
pub(super) struct OwnPart {
    /// The events.
    pub(super) batch: Batch,
    /// The request of the erasure.
    pub(super) request: Option<ErasureRequest>,
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

/// What happened to a message that was sent.
pub(crate) struct AppendResult {
    /// The message.
    pub(super) what: What,
    /// Its position.
    pub(super) result: Result<u64, LogError>,
    /// The time from sending it.
    pub(super) took: Duration,
}

/// A message that was sent.
pub(super) enum What {
    /// An own message by its number.
    Own(u64),
    /// The oldest message of the outbox.
    Outbox(OutboxMessage),
}

/// Where the oldest message of the outbox is.
pub(super) enum Oldest {
    /// In the outbox only.
    Waiting,
    /// Under way to the log.
    Sending,
    /// In the log at this position, and still in the outbox.
    Stored(OutboxMessage, u64),
}

impl OwnPart {
    /// Whether its message is under way.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.place, Place::Sending(_))
    }
}
