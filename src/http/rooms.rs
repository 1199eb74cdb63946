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
use crate::protocol::RoomId;
use crate::protocol::mood::NamedMoods;

/// The current state of a room.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Room)]
pub(crate) struct RoomBody<'a> {
    room: &'a RoomId,
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
    let body = RoomBody { room: &room, seq: counts.seq, present: counts.present, held: counts.held, moods };
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
