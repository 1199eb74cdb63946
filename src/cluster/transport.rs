//! The interface to what carries messages between nodes: NATS, or memory in a simulation.
//!
//! It carries bytes and does not know them. A message may be lost, delayed, repeated or reordered: the peers detect that
//! and ask again. Nothing here ever waits for the network, except the answer of a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for the node task. A transport drops further ones and counts them.
pub(crate) const INCOMING_LIMIT: usize = 4_096;

/// What happened to a message that should be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way, or in a queue that is not full.
    Queued,
    /// It was dropped, because the queue is full or there is no connection. The peers notice it by the next digest.
    Dropped,
}

/// A message from a node, this one included.
#[derive(Debug)]
pub(crate) enum NodeMessage {
    /// A message that was [published](Transport::publish) to all nodes. A node gets its own too: that is how it knows
    /// that it is not alone.
    Published(Bytes),
    /// A [request](Transport::request) to this node, and where its answer goes. Dropping the sender is no answer.
    Request(Bytes, oneshot::Sender<Bytes>),
    /// The transport has connected, or has connected again: messages of before may be lost.
    Connected,
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// No node of this name listens, or there is no connection.
    #[error("the node cannot be reached")]
    Unreachable,
    /// The node did not answer in time.
    #[error("the node did not answer in time")]
    TimedOut,
}

/// What carries messages between the nodes of one cluster.
///
/// For NATS: `publish` goes to `{cluster}.presence.v1`, `request` to `{cluster}.ask.{node}`. A transport is opened with
/// the sender of an [`NodeMessage`] channel of [`INCOMING_LIMIT`]: it uses `try_send`, and ends its tasks when the receiver
/// is gone. It connects in the background and goes on trying, so that opening does not need the network.
pub(crate) trait Transport: fmt::Debug + Send + Sync {
    /// Sends a message to all nodes, this one included. Never waits.
    fn publish(&self, message: Bytes) -> Sent;

    /// Sends a request to one node and waits for its answer.
    fn request(
        &self,
        node: &str,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NoAnswer>>;

    /// Leaves the connection and makes another one, to another server where there are several. The node calls it when it
    /// has not heard its own messages for 3 s, and then at most once in 3 s. Never waits.
    fn reconnect(&self);

    /// Ready when what was published before has left this process, or the transport is closed. The node waits for it at
    /// the end of the shutdown, with a timeout.
    fn flush(&self) -> BoxFuture<'static, ()>;
}

/// Opens a transport of a node: gets the node's name and the sender of its incoming messages.
pub(crate) type Open = dyn Fn(&str, mpsc::Sender<NodeMessage>) -> Arc<dyn Transport> + Send + Sync;

/// Opens a transport instead of NATS. For tests.
#[derive(Clone)]
pub(crate) struct Connect(pub Arc<Open>);

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connect")
    }
}
