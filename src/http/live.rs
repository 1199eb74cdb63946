//! What is asked of the memory: rooms, and the live activity.
//!
//! Nothing here waits for the database, so that presence goes on whatever that does.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Audience;
use super::app::App;
use super::error::ApiError;
use crate::address::Address;
use crate::wire::RoomId;
use crate::wire::mood::NamedMoods;

/// What is for the admin only, no cache may keep.
pub(super) const PRIVATE: &str = "private, no-store";

/// A room's name from an address. A wrong one is refused with its rule.
pub(super) fn room_id(path: Result<Path<String>, PathRejection>) -> Result<RoomId, ApiError> {
    // What does not even decode is a wrong name like any other.
    let name = path.map(|Path(name)| name).unwrap_or_default();
    RoomId::try_from(name).map_err(ApiError::BadRoom)
}

/// A query's parameters.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|rejection| ApiError::BadQuery(rejection.body_text()))
}

/// A room as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Room)]
pub struct RoomState<'a> {
    room: &'a RoomId,
    /// Which state of the room this is.
    seq: u64,
    /// Distinct visitors in the room.
    present: u32,
    /// How many of them have no socket now: they were lost a moment ago, or the hub has restarted.
    held: u32,
    /// People by mood.
    moods: NamedMoods<'a>,
}

/// `GET /rooms/{room}`: the room as it is now.
pub async fn room(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let room = room_id(path)?;
    let counts = app.hub.counts(&room);
    let moods = app.hub.vocabulary().named(&counts.moods);
    let body = RoomState { room: &room, seq: counts.seq, present: counts.present, held: counts.held, moods };
    Ok(([(CACHE_CONTROL, "public, max-age=5")], Json(body)).into_response())
}

/// `GET /live-activity`: what is going on, over all rooms.
pub async fn live_activity(
    State(app): State<Arc<App>>,
    address: Address,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    app.config.dashboard.admit(&app, &headers, address)?;
    let cache = if app.config.dashboard == Audience::Admin { PRIVATE } else { "no-store" };
    let newest = app.feed.newest().await;
    let headers = [(CACHE_CONTROL, cache), (CONTENT_TYPE, "application/json")];
    Ok((headers, newest.json.clone()).into_response())
}
