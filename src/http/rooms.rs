//! What is asked of the memory: rooms, and the live activity.
//!
//! Nothing here waits for the database, so that presence goes on whatever that does.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::app::App;
use super::error::ApiError;
use super::extract::{PRIVATE, admit, room_id};
use crate::address::Address;
use crate::auth::Access;
use crate::protocol::RoomId;
use crate::protocol::mood::NamedMoods;

/// A room as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Room)]
pub(crate) struct RoomBody<'a> {
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
pub(crate) async fn room(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let room = room_id(path)?;
    let counts = app.registry.snapshot(&room);
    let moods = app.registry.vocabulary().named(&counts.moods);
    let body = RoomBody { room: &room, seq: counts.seq, present: counts.present, held: counts.held, moods };
    Ok(([(CACHE_CONTROL, "public, max-age=5")], Json(body)).into_response())
}

/// `GET /live-activity`: what is going on, over all rooms.
pub(crate) async fn live_activity(
    State(app): State<Arc<App>>,
    address: Address,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    admit(app.config.dashboard, &app, &headers, address)?;
    let cache = if app.config.dashboard == Access::Admin { PRIVATE } else { "no-store" };
    let newest = app.feed.newest().await;
    let headers = [(CACHE_CONTROL, cache), (CONTENT_TYPE, "application/json")];
    Ok((headers, newest.json.clone()).into_response())
}
