//! The cluster over HTTP: its nodes, and the visitors of a room with the nodes they are on. For the admin.
//!
//! The nodes are answered from memory. The visitors are asked of each node, for at most a second.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::{Admin, PRIVATE};
use super::error::ApiError;
use super::params::{Params, RoomPath};
use super::state::{LiveState, OperateState};
use crate::cluster::update::LogReport;
use crate::cluster::visitors::{self, FoundVisitors, MOST, Question, RoomVisitor};
use crate::cluster::{NodeState, NodeStatus, OwnState};
use crate::history::log::status::{LogMonitor, LogStatus};
use crate::protocol::{RoomId, Time, VisitorId};

/// The visitors of a page without a `limit`.
const PAGE: usize = 100;

/// The nodes of the cluster, as this one sees them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster)]
pub(crate) struct ClusterBody {
    /// The name of the cluster; none without a cluster.
    #[schema(required)]
    cluster: Option<String>,
    /// The name of this node.
    node: String,
    state: ClusterState,
    /// All nodes by name, this one included; none without a cluster. A node that left, or was lost, stays here for a
    /// while.
    nodes: Vec<NodeBody>,
    /// Visitors in rooms of other nodes that do not count here, since the limit of their memory is reached.
    refused: u64,
    /// The log of events as this node sees it; none without one.
    #[schema(required)]
    log: Option<LogStatus>,
    /// The hub's wall clock.
    timestamp: Time,
}

/// Whether this node is connected with the others.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum ClusterState {
    /// There is no cluster.
    Single,
    /// It hears its own messages.
    Ok,
    /// It has not heard its own messages for 3 s: it counts its own visitors only, and connects again.
    Alone,
    /// Another node has its name: the counts of both lack visitors of the other one.
    NameTaken,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Node)]
struct NodeBody {
    name: String,
    /// Whether it is the node that answers.
    is_self: bool,
    state: NodeState,
    /// The version of its program.
    version: String,
    /// When it started.
    since: Time,
    /// Distinct visitors that it counts first hand.
    people: u64,
    /// Its open room sockets.
    sockets: u64,
    /// The time since its last message, in milliseconds.
    heard_ms: u64,
    /// How much longer its last message took than its fastest one, in milliseconds.
    lag_ms: u64,
    /// How far its wall clock is ahead of this node's, in milliseconds, as far as that can be seen.
    skew_ms: i64,
    /// How far it has the log of events; none without a log.
    #[schema(required)]
    log: Option<LogReport>,
    /// Whether its history differs from that of the node that answers, at the same position of the log.
    differs: bool,
}

impl From<NodeStatus> for NodeBody {
    fn from(status: NodeStatus) -> Self {
        let NodeStatus {
            name,
            is_self,
            version,
            since,
            people,
            sockets,
            heard_ms,
            lag_ms,
            skew_ms,
            log,
            differs,
            state,
        } = status;
        Self {
            name,
            is_self,
            state,
            version,
            since,
            people,
            sockets,
            heard_ms,
            lag_ms,
            skew_ms,
            log,
            differs,
        }
    }
}

/// `GET /cluster`: the nodes, as this one sees them.
pub(crate) async fn cluster(_: Admin, State(state): State<Arc<OperateState>>) -> Response {
    let context = &state.context;
    let log = state.log.as_ref().map(LogMonitor::status);
    let timestamp = context.clock.wall();
    let body = match context.cluster.as_ref().map(crate::cluster::Cluster::status) {
        None => ClusterBody {
            cluster: None,
            node: context.sample_ids.node().to_owned(),
            state: ClusterState::Single,
            nodes: Vec::new(),
            refused: 0,
            log,
            timestamp,
        },
        Some(status) => ClusterBody {
            cluster: Some(status.cluster),
            node: status.node,
            state: match status.own {
                OwnState::Ok => ClusterState::Ok,
                OwnState::Alone => ClusterState::Alone,
                OwnState::NameTaken => ClusterState::NameTaken,
            },
            nodes: status.nodes.into_iter().map(NodeBody::from).collect(),
            refused: status.refused,
            log,
            timestamp,
        },
    };
    ([(CACHE_CONTROL, PRIVATE)], Json(body)).into_response()
}

/// The parameters of `GET /rooms/{room}/visitors`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VisitorsParams {
    /// The `next` of an earlier page.
    #[param(required = false)]
    after: Option<VisitorId>,
    /// The most visitors of the page; 100 by default.
    #[param(required = false, minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
}

/// A page of the visitors of a room, by id and node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RoomVisitors)]
pub(crate) struct VisitorsBody {
    room: RoomId,
    /// A visitor on two nodes is here twice.
    visitors: Vec<VisitorBody>,
    /// The `after` of the next page; none on the last one.
    #[schema(required)]
    next: Option<VisitorId>,
    /// The nodes that did not answer within a second: their visitors are missing.
    missing: Vec<String>,
}

/// A visitor in the room of one node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RoomVisitor)]
struct VisitorBody {
    visitor: VisitorId,
    /// The mood that was set on this node.
    #[schema(required)]
    mood: Option<String>,
    /// The node that the visitor is on.
    node: String,
    /// When the visitor entered the room there.
    since: Time,
    /// Why the visitor counts as present without a socket; none with a socket.
    #[schema(required)]
    held: Option<String>,
}

/// `GET /rooms/{room}/visitors`: who is in the room, asked of each node.
pub(crate) async fn room_visitors(
    _: Admin,
    State(live): State<Arc<LiveState>>,
    path: Result<RoomPath, ApiError>,
    params: Result<Params<VisitorsParams>, ApiError>,
) -> Result<Response, ApiError> {
    let (RoomPath(room), Params(VisitorsParams { after, limit })) = (path?, params?);
    let limit = limit.unwrap_or(PAGE);
    if !(1..=MOST).contains(&limit) {
        return Err(ApiError::BadParameter { name: "limit", rule: "must be a number from 1 to 1000" });
    }
    let (context, question) = (&live.context, Question { room, after, limit });
    let found = if let Some(cluster) = &context.cluster {
        visitors::find(cluster, &context.registry, &question, context.clock.wall()).await
    } else {
        let own = visitors::own(&context.registry, &question);
        visitors::merge(vec![(context.sample_ids.node().to_owned(), Some(own))], limit)
    };
    let FoundVisitors { visitors, has_more, missing } = found;
    let next = visitors.last().map(|(_, last)| last.visitor.clone()).filter(|_| has_more);
    let visitors = visitors.into_iter().map(|(node, RoomVisitor { visitor, mood, since, held })| {
        VisitorBody { visitor, mood, node, since, held }
    });
    let body = VisitorsBody { room: question.room, visitors: visitors.collect(), next, missing };
    Ok(([(CACHE_CONTROL, PRIVATE)], Json(body)).into_response())
}
