//! The replica over HTTP: what the records of its months add up to, a copy of its database, and its archives. For the
//! admin.
//!
//! A node that joins fetches the copy and the archives. `breathing-room check --with` compares the sums.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use futures_util::stream::try_unfold;
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{Admin, PRIVATE};
use super::error::ApiError;
use super::params::MonthPath;
use super::state::ReplicaState;
use crate::history::calendar::Month;
use crate::history::lifecycle::MaintenanceError;
use crate::history::record_sum::RecordSum;
use crate::history::sent_file::SentFile;
use crate::history::store::month_sums::MonthSum;
use crate::protocol::Time;

/// The digest of a file (RFC 9530).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The media type of a database (<https://www.iana.org/assignments/media-types/application/vnd.sqlite3>).
pub(super) const SQLITE: &str = "application/vnd.sqlite3";

/// The media type of an archive.
pub(super) const GZIP: &str = "application/gzip";

/// What the records of each month add up to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replica)]
pub(crate) struct ReplicaBody {
    /// The name of this node.
    node: String,
    /// Events that are not committed yet, which no sum has.
    pending: usize,
    /// The months with records, in order.
    months: Vec<MonthBody>,
    /// The hub's wall clock.
    timestamp: Time,
}

/// A month and the sum of its records.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MonthSum)]
struct MonthBody {
    month: Month,
    /// Equal on two nodes that have the same records. None while maintenance has still to sum up the month.
    #[schema(required)]
    sum: Option<RecordSum>,
}

/// `GET /replica`: the sums of the records of all months.
pub(crate) async fn replica(_: Admin, State(state): State<Arc<ReplicaState>>) -> Result<Response, ApiError> {
    let sums = state.store.month_sums().await.map_err(Arc::new)?;
    let context = &state.context;
    let body = ReplicaBody {
        node: context.sample_ids.node().to_owned(),
        pending: context.journal.status().pending(),
        months: sums.into_iter().map(|MonthSum { month, sum }| MonthBody { month, sum }).collect(),
        timestamp: context.clock.wall(),
    };
    Ok(([(CACHE_CONTROL, PRIVATE)], Json(body)).into_response())
}

/// `GET /snapshot`: a copy of the database, with all events until now.
pub(crate) async fn snapshot(_: Admin, State(state): State<Arc<ReplicaState>>) -> Result<Response, ApiError> {
    state.context.journal.flush().await?;
    Ok(file(SQLITE, state.store.snapshot().await?))
}

/// `GET /archives/{month}`: the archive of a month.
pub(crate) async fn archive(
    _: Admin,
    State(state): State<Arc<ReplicaState>>,
    path: Result<MonthPath, ApiError>,
) -> Result<Response, ApiError> {
    let MonthPath(month) = path?;
    let archive = state.store.archive_of(month, &state.archives).await.map_err(MaintenanceError::from)?;
    archive.map(|archive| file(GZIP, archive)).ok_or(ApiError::NotFound)
}

fn file(media_type: &'static str, file: SentFile) -> Response {
    let digest = format!("sha-256=:{}:", BASE64.encode(&file.digest()));
    let headers = [
        (CACHE_CONTROL, PRIVATE.to_owned()),
        (CONTENT_TYPE, media_type.to_owned()),
        (REPR_DIGEST, digest),
        (CONTENT_LENGTH, file.bytes().to_string()),
    ];
    (headers, Body::from_stream(try_unfold(file, SentFile::next))).into_response()
}
