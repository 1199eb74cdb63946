//! What is kept of one visitor: to give it out, and to erase it.
//!
//! Both flush first, so that what waits in memory is part of the answer. Both may take long, so that one is done at a time,
//! and readers of the database are left for the dashboard.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::app::App;
use super::error::ApiError;
use super::extract::{Asker, PRIVATE};
use crate::address::Address;
use crate::history::lifecycle::Unfinished;
use crate::history::store::{Erased, PersonalData};
use crate::protocol::VisitorId;
use crate::protocol::frame::json;
use crate::quota::{Permit, Quota, Sharing};
use crate::rejections::Limit;

/// How many may wait for their turn, or for their answer to be sent, at once. One address alone has three places.
const LINE: u64 = 8;

/// How long somebody waits for their turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who reads or erases what is kept of a person: one at a time.
#[derive(Debug)]
pub(crate) struct PersonalDataGate {
    line: Arc<Quota>,
    turn: Semaphore,
}

impl PersonalDataGate {
    /// Nobody is there.
    #[must_use]
    pub(crate) fn new(sharing: Sharing) -> Self {
        Self { line: Arc::new(Quota::new(LINE, sharing)), turn: Semaphore::new(1) }
    }

    /// A place in the line, and then the turn.
    async fn turn(&self, address: Address) -> Result<(Permit, SemaphorePermit<'_>), ApiError> {
        let place = self.line.try_acquire(address, 1).map_err(|_| ApiError::Busy)?;
        match timeout(PATIENCE, self.turn.acquire()).await {
            Ok(Ok(turn)) => Ok((place, turn)),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(ApiError::Busy),
        }
    }
}

async fn turn(app: &App, address: Address) -> Result<(Permit, SemaphorePermit<'_>), ApiError> {
    app.desk.turn(address).await.inspect_err(|_| app.rejections.limited(Limit::PersonalData))
}

/// An answer, which may be long: its place in the line is free when all of it has been sent.
struct Answer {
    json: Vec<u8>,
    _place: Permit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// Everything of a visitor.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VisitorData)]
pub(crate) struct Data {
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
pub(crate) struct Erasure {
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
pub(crate) async fn data(
    State(app): State<Arc<App>>,
    address: Address,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asker = Asker::of(&app, &headers, address)?;
    let visitor = visitor_id(path)?;
    asker.may_have(&visitor)?;
    let (place, turn) = turn(&app, address).await?;
    app.journal.flush().await?;
    let stored = app.store.data_of(&visitor, &app.archives).await.map_err(Unfinished::from)?;
    let pending = app.journal.pending_of(&visitor);
    drop(turn);
    let json = json(&Data { visitor, stored, pending });
    let body = Bytes::from_owner(Answer { json, _place: place });
    Ok(([(CACHE_CONTROL, PRIVATE), (CONTENT_TYPE, "application/json")], body).into_response())
}

/// `DELETE /visitors/{visitor}/data`: erases all of it, wherever it is.
pub(crate) async fn erase(
    State(app): State<Arc<App>>,
    address: Address,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Erasure>, ApiError> {
    let asker = Asker::of(&app, &headers, address)?;
    let visitor = visitor_id(path)?;
    asker.may_have(&visitor)?;
    let _turn = turn(&app, address).await?;
    // Whoever is held would be saved once more.
    app.registry.release(&visitor);
    let queued = app.journal.forget(&visitor);
    // What a flush has taken already is erased where it goes.
    app.journal.flush().await?;
    let stored = app.lifecycle.erase(visitor).await?;
    let wal_truncated = (!stored.wal_truncated).then_some(false);
    Ok(Json(Erasure { erased: Gone { stored, queued }, wal_truncated }))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::poll;
    use tokio::time::advance;

    use super::*;

    fn address(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn one_reads_at_a_time_and_one_address_has_three_places_in_the_line() {
        let desk = PersonalDataGate::new(Sharing::Fair);
        let first = desk.turn(address(1)).await.unwrap();
        let mut line = [1, 1, 2].map(|last| Box::pin(desk.turn(address(last))));
        for waiting in &mut line {
            assert!(poll!(waiting).is_pending());
        }
        assert!(matches!(desk.turn(address(1)).await, Err(ApiError::Busy)), "at once");
        drop(first);
        let [second, mut third, mut other] = line;
        let second = second.await.unwrap();
        assert!(poll!(&mut third).is_pending());
        advance(PATIENCE).await;
        assert!(matches!(third.await, Err(ApiError::Busy)), "after a while");
        assert!(matches!(poll!(&mut other), std::task::Poll::Ready(Err(ApiError::Busy))));
        drop(second);
        assert_eq!(desk.line.used(), 0);
        let (place, turn) = desk.turn(address(1)).await.unwrap();
        let body = Bytes::from_owner(Answer { json: b"{}".to_vec(), _place: place });
        drop(turn);
        assert_eq!(desk.line.used(), 1, "until it has been sent");
        drop(body);
        assert_eq!(desk.line.used(), 0);
    }
}
