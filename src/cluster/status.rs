//! The status of the cluster as this node sees it: what `/cluster`, `/health`, the dashboard and metrics read.
//!
//! Plain data. The node task writes it, at least once a second.

use serde::Serialize;
use strum::{EnumCount, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::update::LogReport;
use crate::protocol::Time;

/// A peer that was not heard for this long, in ms, is silent; a node that does not hear itself is alone.
pub(crate) const SILENCE_MS: u64 = 3_000;

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterStatus {
    /// The name of the cluster.
    pub cluster: String,
    /// The name of this node.
    pub node: String,
    /// Whether this node hears itself.
    pub own: OwnState,
    /// All nodes by name, this one included.
    pub nodes: Vec<NodeStatus>,
    /// Visitors in rooms of other nodes that this node does not count, since the limit of their memory is reached.
    pub refused: u64,
}

/// Whether this node is connected to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum OwnState {
    /// It hears its own messages.
    Ok,
    /// It has not heard its own messages for 3 s, or never since the start.
    Alone,
    /// Another node has its name, so that neither knows the visitors of the other one.
    NameTaken,
}

/// What a node is, as another one sees it: the label `state` of metrics.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    ToSchema,
    IntoStaticStr,
    EnumCount,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum NodeState {
    /// It is heard, and its share is complete here.
    Live,
    /// It is heard, and its share is asked for, or on its way.
    Syncing,
    /// It was not heard for 3 s, without a goodbye. Its visitors count as held, until 15 s after its last message.
    Silent,
    /// It was not heard for 15 s. Its visitors do not count any more, except for sits that go on.
    Lost,
    /// It said goodbye. Its visitors count as held for the seat hold.
    Left,
}

/// One node, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Whether it is this node.
    pub is_self: bool,
    /// The version of its program.
    pub version: String,
    /// When it started, by its own clock.
    pub since: Time,
    /// Distinct visitors with a socket or a hold on it.
    pub people: u64,
    /// Its open room sockets.
    pub sockets: u64,
    /// The time since its last message, in ms.
    pub heard_ms: u64,
    /// How long its last numbered message took to get here, beyond the fastest one, in ms.
    pub lag_ms: u64,
    /// How far its wall clock is ahead of this node's, in ms, as far as that can be seen.
    pub skew_ms: i64,
    /// How far it has the log of events; none without a log.
    pub log: Option<LogReport>,
    /// Whether the records of its file differ from those of this node's, at one position of the log.
    pub differs: bool,
    /// What it is.
    pub state: NodeState,
}

impl NodeState {
    /// Whether the node was heard lately.
    pub(crate) fn is_heard(self) -> bool {
        matches!(self, Self::Live | Self::Syncing)
    }
}

impl ClusterStatus {
    /// The status before the first message.
    pub(crate) fn at_start(cluster: String, node: String) -> Self {
        Self { cluster, node, own: OwnState::Alone, nodes: Vec::new(), refused: 0 }
    }

    /// Nodes that are missing in the counts, or may be soon: not heard, and without a goodbye, or with the name of this
    /// one.
    pub(crate) fn silent(&self) -> usize {
        let is_missing = |node: &&NodeStatus| matches!(node.state, NodeState::Silent | NodeState::Lost);
        let namesakes = usize::from(self.own == OwnState::NameTaken);
        self.nodes.iter().filter(is_missing).count() + namesakes
    }

    /// Whether the records of another node's file differ from those of this node's.
    pub(crate) fn has_differences(&self) -> bool {
        self.nodes.iter().any(|node| node.differs)
    }

    /// Nodes that count, this one included.
    pub(crate) fn live(&self) -> usize {
        self.live_names().count()
    }

    /// The names of the nodes that count, this one included.
    pub(crate) fn live_names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|node| node.state.is_heard()).map(|node| node.name.as_str())
    }
}
