//! Requests of erasures: HTTP sends them, and the flush task publishes them.
//!
//! The flush task decides in which order this node publishes, and knows whether the log is away.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::command::ErasedVisitor;
use super::erasures::Erasures;
use crate::history::journal::FlushError;

/// Requests that wait.
const WAITING: usize = 16;

/// How long a request may take. A commit that fails is tried again after that too.
const LIMIT: Duration = Duration::from_secs(10);

/// Where the position of a command goes, as soon as its erasure is in the file; none while the command waits in the
/// outbox.
pub(super) type Reply = oneshot::Sender<Option<u64>>;

/// An erasure to publish.
pub(crate) struct ErasureRequest {
    /// The visitor, and the time up to which the visitor's events are erased.
    pub(super) erasure: ErasedVisitor,
    /// Where the answer goes.
    pub(super) reply: Reply,
}

/// Publishes erasures. Clones share the channel.
#[derive(Debug, Clone)]
pub(crate) struct ErasureSender {
    requests: mpsc::Sender<ErasureRequest>,
    /// The erasures of the log.
    pub erasures: Erasures,
}

/// Opens the channel.
pub(super) fn open(erasures: Erasures) -> (ErasureSender, mpsc::Receiver<ErasureRequest>) {
    let (requests, receiver) = mpsc::channel(WAITING);
    (ErasureSender { requests, erasures }, receiver)
}

impl ErasureSender {
    /// Publishes an erasure, which is in the file afterwards. Returns the position of its command in the log; none while
    /// it waits in the outbox.
    /// Errors: the hub is stopping, or cannot write to its file.
    pub(crate) async fn publish(&self, erasure: ErasedVisitor) -> Result<Option<u64>, FlushError> {
        let (reply, position) = oneshot::channel();
        let request = ErasureRequest { erasure, reply };
        self.requests.send(request).await.map_err(|_| FlushError::Stopped)?;
        let position = timeout(LIMIT, position).await.map_err(|_| FlushError::Pending)?;
        position.map_err(|_| FlushError::Stopped)
    }
}
