//! The cluster: what the nodes publish to each other, so that visitors of all nodes are in the same rooms.
//!
//! Presence knows "elsewhere" (`presence::union`), and this part brings it there. [`transport`] is the
//! interface to what carries messages, [`status`] what HTTP and metrics read. A hub without a transport has no cluster,
//! and nothing of this runs.

pub(crate) mod config;
pub(crate) mod status;
pub(crate) mod transport;
pub(crate) mod visitors;

pub use config::Config;
pub(crate) use status::{ClusterStatus, NodeState, NodeStatus, OwnState};

use std::sync::{Arc, Mutex};

use crate::sync::lock;
use transport::Transport;

/// A handle of this node's part in the cluster. Clones share it. HTTP has `Option<Cluster>`: none without a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    transport: Arc<dyn Transport>,
    /// Written by the node task after each change, and at least once a second.
    status: Arc<Mutex<ClusterStatus>>,
}

impl Cluster {
    /// A handle, with the status at the start.
    pub(crate) fn new(transport: Arc<dyn Transport>, status: ClusterStatus) -> Self {
        Self { transport, status: Arc::new(Mutex::new(status)) }
    }

    /// The newest status, at most a second old.
    pub(crate) fn status(&self) -> ClusterStatus {
        lock(&self.status).clone()
    }

    /// What carries messages to the other nodes.
    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    fn set_status(&self, status: ClusterStatus) {
        *lock(&self.status) = status;
    }
}
