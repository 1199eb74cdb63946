//! Coverage: which nodes of the cluster the counts are of, as answers and the live activity say it.
//!
//! Presence does not know the cluster: it gets a function that reads the status.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

/// Which nodes the counts are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// The name of this node.
    pub node: String,
    /// How many nodes count, and how many are missing.
    pub nodes: NodeCounts,
    /// Open room sockets of the other nodes.
    pub sessions_elsewhere: usize,
}

/// The nodes of the cluster whose visitors the counts have, and those that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct NodeCounts {
    /// Nodes that are heard, this one included.
    nodes: usize,
    /// Nodes that were not heard for 3 s, without a goodbye. Above 0, there may be more visitors than the counts say.
    silent: usize,
}

impl NodeCounts {
    /// The counts of nodes that are heard, and of those that are missing.
    pub(crate) fn new(nodes: usize, silent: usize) -> Self {
        Self { nodes, silent }
    }
}

/// Reads the coverage; there is none without a cluster.
#[derive(Clone, Default)]
pub(crate) struct CoverageSource(Option<Arc<dyn Fn() -> Coverage + Send + Sync>>);

impl CoverageSource {
    /// The coverage that this function reads.
    pub(crate) fn new(read: impl Fn() -> Coverage + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(read)))
    }

    /// The coverage now.
    pub(crate) fn read(&self) -> Option<Coverage> {
        self.0.as_ref().map(|read| read())
    }
}

impl fmt::Debug for CoverageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CoverageSource")
    }
}
