//! Rooms and the live activity over HTTP.
//!
//! Both answer from memory, so that presence goes on when the database does not.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{AccessControl, PRIVATE};
use super::error::ApiError;
use super::params::RoomPath;
use super::state::LiveState;
use crate::address::Address;
use crate::auth::Access;
use crate::cluster::Cluster;
use crate::presence::NodeCounts;
use crate::protocol::RoomId;
use crate::protocol::mood::NamedMoods;

/// The current state of a room.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Room)]
pub(crate) struct RoomBody<'a> {
    room: &'a RoomId,
    /// The node that answers, whose numbers of states are its own. Only in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    node: Option<String>,
    /// The nodes that the counts are of. Only in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = NodeCounts, required = false)]
    cluster: Option<NodeCounts>,
    /// The number of this state.
    seq: u64,
    /// Distinct visitors in the room.
    present: u32,
    /// How many of them are held: they have no socket now, because it was lost or the hub has restarted.
    held: u32,
    /// Visitors by mood.
    moods: NamedMoods<'a>,
}

/// `GET /rooms/{room}`: the current state of the room.
pub(crate) async fn room(State(live): State<Arc<LiveState>>, RoomPath(room): RoomPath) -> Response {
    let counts = live.context.registry.snapshot(&room);
    let moods = live.context.registry.vocabulary().named(&counts.moods);
    let coverage = live.context.cluster.as_ref().map(Cluster::coverage);
    let (node, cluster) = coverage.map(|coverage| (coverage.node, coverage.nodes)).unzip();
    let body = RoomBody {
        room: &room,
        node,
        cluster,
        seq: counts.seq,
        present: counts.present,
        held: counts.held,
        moods,
    };
    ([(CACHE_CONTROL, "public, max-age=5")], Json(body)).into_response()
}

/// `GET /live-activity`: what is going on over all rooms.
pub(crate) async fn live_activity(
    State(live): State<Arc<LiveState>>,
    State(access): State<Arc<AccessControl>>,
    address: Address,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    access.admit(access.dashboard, &headers, address)?;
    let cache = if access.dashboard == Access::Admin { PRIVATE } else { "no-store" };
    let newest = live.feed.newest().await;
    let headers = [(CACHE_CONTROL, cache), (CONTENT_TYPE, "application/json")];
    Ok((headers, newest.json.clone()).into_response())
}
