//! The cluster: what the nodes publish to each other, so that visitors of all nodes are in the same rooms.
//!
//! Presence knows "elsewhere" (`presence::union`), and this part brings it there: [`update`] is the bytes, [`outgoing`]
//! the numbered messages of this node, [`peers`] what is known of the others, [`audit`] whether files are equal, [`transport`] the interface to what
//! carries messages, [`node`] the task that joins them, and [`status`] what HTTP reads. A hub without a transport has no
//! cluster, and nothing of this runs.

mod audit;
pub(crate) mod config;
pub(crate) mod kept_samples;
#[cfg(feature = "internals")]
pub(crate) mod memory;
pub(crate) mod metrics;
mod namesake;
#[cfg(feature = "cluster")]
mod nats;
pub(crate) mod node;
mod outgoing;
pub(crate) mod peers;
pub(crate) mod sealed;
#[cfg(test)]
mod simulation;
pub(crate) mod status;
pub(crate) mod transport;
pub(crate) mod update;
pub(crate) mod visitors;

pub use config::{BadCluster, Config};
pub(crate) use status::{ClusterStatus, NodeState, NodeStatus, OwnState};

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::history::log::Log;
use crate::panics::Panics;
use crate::presence::{Coverage, NodeCounts};
use crate::sync::lock;
use sealed::SealingKey;
use transport::{NodeMessage, Transport};

/// What connects a node with the others.
#[derive(Debug)]
pub(crate) struct Connection {
    /// What carries messages.
    pub transport: Arc<dyn Transport>,
    /// What stores the events of all nodes; none in simulations.
    pub log: Option<Arc<dyn Log>>,
}

/// Opens the connection that the configuration names. Does not wait for the network.
/// Errors: the settings of NATS cannot be used, or the program cannot connect to NATS.
pub(crate) async fn connect(
    config: &Config,
    node: &str,
    incoming: mpsc::Sender<NodeMessage>,
    panics: &Panics,
) -> Result<Connection, BadCluster> {
    match &config.connect {
        Some(connect) => Ok(Connection { transport: connect.0(node, incoming), log: None }),
        None => connect_to_nats(config, node, incoming, panics).await,
    }
}

#[cfg(feature = "cluster")]
async fn connect_to_nats(
    config: &Config,
    node: &str,
    incoming: mpsc::Sender<NodeMessage>,
    panics: &Panics,
) -> Result<Connection, BadCluster> {
    let nats = nats::Nats::open(config, node, incoming, panics).await?;
    let log = nats.log(&config.name);
    Ok(Connection { transport: nats, log: Some(log) })
}

#[cfg(not(feature = "cluster"))]
async fn connect_to_nats(
    _: &Config,
    _: &str,
    _: mpsc::Sender<NodeMessage>,
    _: &Panics,
) -> Result<Connection, BadCluster> {
    std::future::ready(Err(BadCluster::NoFeature)).await
}

/// A handle of this node's part in the cluster. Clones share it. HTTP has `Option<Cluster>`: none without a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    transport: Arc<dyn Transport>,
    key: SealingKey,
    /// Written by the node task after each change, and at least once a second.
    status: Arc<Mutex<ClusterStatus>>,
}

impl Cluster {
    /// A handle, with the status at the start.
    pub(crate) fn new(transport: Arc<dyn Transport>, key: SealingKey, status: ClusterStatus) -> Self {
        Self { transport, key, status: Arc::new(Mutex::new(status)) }
    }

    /// The newest status, at most a second old.
    pub(crate) fn status(&self) -> ClusterStatus {
        lock(&self.status).clone()
    }

    /// Which nodes the counts are of.
    pub(crate) fn coverage(&self) -> Coverage {
        let status = lock(&self.status);
        let others = status.nodes.iter().filter(|node| !node.is_self && node.state.is_heard());
        let sockets: u64 = others.map(|node| node.sockets).sum();
        Coverage {
            node: status.node.clone(),
            nodes: NodeCounts::new(status.live(), status.silent()),
            sessions_elsewhere: usize::try_from(sockets).unwrap_or(usize::MAX),
        }
    }

    /// What carries messages to the other nodes.
    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// By which nodes seal questions to each other, and their answers.
    pub(crate) fn sealing_key(&self) -> &SealingKey {
        &self.key
    }

    fn set_status(&self, status: ClusterStatus) {
        *lock(&self.status) = status;
    }
}
