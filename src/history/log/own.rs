//! Own messages: those that are not committed yet and the oldest ones of the outbox, where each of them is, and what
//! was sent.
//!
//! Plain data of the flush task.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::erasure_request::ErasureRequest;
use super::{Log, LogError};
use crate::history::event::Batch;
use crate::history::store::OutboxMessage;

/// What a message takes in memory besides its events, in bytes.
pub(super) const MESSAGE_BYTES: usize = 64;

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

/// What happened to what was sent.
pub(crate) struct AppendResult {
    /// What was sent.
    pub(super) what: What,
    /// The position of the last message, or the first error.
    pub(super) result: Result<u64, LogError>,
    /// The time from sending it.
    pub(super) took: Duration,
}

/// What was sent.
pub(super) enum What {
    /// An own message by its number.
    Own(u64),
    /// The oldest messages of the outbox: those that the log has, with their positions.
    Outbox(Vec<(OutboxMessage, u64)>),
}

/// Where the oldest messages of the outbox are.
pub(super) enum Oldest {
    /// In the outbox only.
    Waiting,
    /// Under way to the log.
    Sending,
    /// In the log at these positions, and still in the outbox.
    Stored(Vec<(OutboxMessage, u64)>),
}

/// Sends messages of the outbox in their order, without a wait between them, and then waits for all answers.
pub(super) fn send_oldest(log: &dyn Log, messages: Vec<OutboxMessage>) -> BoxFuture<'static, AppendResult> {
    let started = Instant::now();
    let appends = messages.iter().map(|oldest| log.append(oldest.id.clone(), oldest.message.clone()));
    let answers = join_all(appends);
    let answer = answers.map(move |answers| {
        let (mut stored, mut result) = (Vec::new(), Ok(0));
        for (message, answer) in messages.into_iter().zip(answers) {
            if let Ok(position) = answer {
                stored.push((message, position));
            }
            result = result.and(answer);
        }
        AppendResult { what: What::Outbox(stored), result, took: started.elapsed() }
    });
    answer.boxed()
}

impl OwnPart {
    /// Whether its message is under way.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.place, Place::Sending(_))
    }
}
