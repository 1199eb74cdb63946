//! What is kept of one visitor: to give it out, and to erase it.
//!
//! Both flush first, so that what waits in memory is part of the answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::admission::Asker;
use super::app::App;
use super::error::ApiError;
use crate::address::Address;
use crate::history::lifecycle::Unfinished;
use crate::history::store::{Erased, PersonalData};
use crate::wire::VisitorId;

/// Everything of a visitor.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VisitorData)]
pub struct Data {
    visitor: VisitorId,
    #[serde(flatten)]
    stored: PersonalData,
    /// Events that came since the flush.
    pending: usize,
}

/// What was erased of a visitor.
#[derive(Debug, Serialize, ToSchema)]
struct Gone {
    #[serde(flatten)]
    stored: Erased,
    /// Events that were not in the database yet.
    queued: usize,
}

/// An erasure is done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    erased: Gone,
    /// There, and false, where somebody has read for seconds: the next maintenance empties the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    wal_truncated: Option<bool>,
}

/// A visitor's id from an address. A wrong one is refused with its rule.
fn visitor_id(path: Result<Path<String>, PathRejection>) -> Result<VisitorId, ApiError> {
    // What does not even decode is a wrong id like any other.
    let id = path.map(|Path(id)| id).unwrap_or_default();
    VisitorId::try_from(id).map_err(ApiError::BadVisitor)
}

/// `GET /visitors/{visitor}/data`: everything that is kept of them, archives included.
pub async fn data(
    State(app): State<Arc<App>>,
    address: Address,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let asker = Asker::of(&app, &headers, address)?;
    let visitor = visitor_id(path)?;
    asker.may_have(&visitor)?;
    app.journal.flush().await?;
    let stored = app.store.data_of(&visitor, &app.archives).await.map_err(Unfinished::from)?;
    let pending = app.journal.pending_of(&visitor);
    Ok(([(CACHE_CONTROL, "no-store")], Json(Data { visitor, stored, pending })))
}

/// `DELETE /visitors/{visitor}/data`: erases all of it, wherever it is.
pub async fn erase(
    State(app): State<Arc<App>>,
    address: Address,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Erasure>, ApiError> {
    let asker = Asker::of(&app, &headers, address)?;
    let visitor = visitor_id(path)?;
    asker.may_have(&visitor)?;
    // Whoever is held would be saved once more.
    app.hub.release(&visitor);
    let queued = app.journal.forget(&visitor);
    // What a flush has taken already is erased where it goes.
    app.journal.flush().await?;
    let stored = app.lifecycle.erase(visitor).await?;
    let wal_truncated = (!stored.wal_truncated).then_some(false);
    Ok(Json(Erasure { erased: Gone { stored, queued }, wal_truncated }))
}
