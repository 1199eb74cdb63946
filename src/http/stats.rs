//! What is asked of the history: the only requests that read the database.
//!
//! A query is checked here; what it means is the history's business.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;

use super::app::App;
use super::error::ApiError;
use super::live::query;
use crate::history::stats::Range;
use crate::wire::RoomId;

/// The query of the stats.
#[derive(Debug, Deserialize)]
pub struct Asking {
    range: Option<String>,
    room: Option<String>,
}

/// `GET /unified-stats`: totals of the range, straight from the database.
pub async fn unified_stats(
    State(app): State<Arc<App>>,
    asking: Result<Query<Asking>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let asking = query(asking)?;
    let range = match asking.range.as_deref() {
        None => Range::Day,
        Some(name) => Range::find(name)
            .ok_or(ApiError::BadParameter { name: "range", rule: "must be 24h, 7d, 30d or 12mo" })?,
    };
    let room = asking.room.map(RoomId::try_from).transpose().map_err(ApiError::BadRoom)?;
    let now = app.clock.wall();
    let totals = app.store.totals(now.minus(range.millis()), room.as_ref()).await?;
    Ok(Json(json!({ "range": range, "totals": totals, "generatedAt": now, "cached": false })))
}
