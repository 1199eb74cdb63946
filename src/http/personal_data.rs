//! Personal data: gives out and erases all that is stored of one visitor.
//!
//! Both flush first, so that pending events are part of the answer; the first page of data at most once in some seconds.
//! Both may take long: see [`super::gate`]. In a cluster with a log, an erasure is done on all nodes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use utoipa::{IntoParams, ToSchema};

use super::access::{AccessControl, PRIVATE};
use super::error::ApiError;
use super::gate;
use super::params::{Params, VisitorPath};
use super::state::PersonalDataState;
use crate::address::Address;
use crate::cluster::Cluster;
use crate::history::lifecycle::MaintenanceError;
use crate::history::log::command::ErasedVisitor;
use crate::history::log::erasures::Erasures;
use crate::history::store::{DataCursor, Erased, Erasure, PersonalData};
use crate::protocol::VisitorId;
use crate::protocol::frame::to_json;
use crate::quota::Permit;
use crate::rejections::Limit;

/// A page of the data that is stored of a visitor.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VisitorData)]
pub(crate) struct Data {
    visitor: VisitorId,
    #[serde(flatten)]
    stored: PersonalData,
    /// Events that are not committed yet.
    pending: usize,
}

/// How much was erased of a visitor.
#[derive(Debug, Serialize, ToSchema)]
struct ErasedCounts {
    #[serde(flatten)]
    stored: Erased,
    /// Events that were still pending.
    queued: usize,
}

/// The result of an erasure.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Erasure)]
pub(crate) struct ErasureBody {
    erased: ErasedCounts,
    /// Present, and false, where copies may be left in the database's files: it was overwritten lately for other erasures,
    /// or a reader kept the write-ahead log open. The hub overwrites them later.
    #[serde(skip_serializing_if = "Option::is_none")]
    wal_truncated: Option<bool>,
    /// In a cluster with a log: the nodes that have erased the visitor.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<ErasureNodes>,
}

/// Where a visitor is erased, by the names of the nodes.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErasureNodes {
    /// Their files have nothing of the visitor any more.
    done: Vec<String>,
    /// They erase the visitor as soon as they have read the log. They are listed for an hour after they were lost.
    pending: Vec<String>,
}

/// How long an answer waits for the other nodes.
const NODES_PATIENCE: Duration = Duration::from_secs(3);

/// The time between two looks at what other nodes report.
const NODES_POLL: Duration = Duration::from_millis(100);

/// The parameters of `GET /visitors/{visitor}/data`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DataParams {
    /// The `next` of an earlier page.
    #[param(inline, required = false)]
    cursor: Option<DataCursor>,
}

/// `GET /visitors/{visitor}/data`: a page of the visitor's data, archives included.
pub(crate) async fn data(
    State(state): State<Arc<PersonalDataState>>,
    State(access): State<Arc<AccessControl>>,
    address: Address,
    path: Result<VisitorPath, ApiError>,
    params: Result<Params<DataParams>, ApiError>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (visitor, place, turn) = admit(&state, &access, address, path, &headers).await?;
    let Params(DataParams { cursor }) = params?;
    if cursor.is_none() && state.gate.may_flush() {
        state.context.journal.flush().await?;
    }
    let stored = state.store.visitor_data(&visitor, &state.archives, cursor).await;
    let stored = stored.map_err(MaintenanceError::from)?;
    let pending = state.context.journal.pending_events(&visitor);
    drop(turn);
    let body = gate::body(to_json(&Data { visitor, stored, pending }), place);
    Ok(([(CACHE_CONTROL, PRIVATE), (CONTENT_TYPE, "application/json")], body).into_response())
}

/// `DELETE /visitors/{visitor}/data`: erases all data of the visitor.
pub(crate) async fn erase(
    State(state): State<Arc<PersonalDataState>>,
    State(access): State<Arc<AccessControl>>,
    address: Address,
    path: Result<VisitorPath, ApiError>,
    headers: HeaderMap,
) -> Result<Json<ErasureBody>, ApiError> {
    let (visitor, _place, _turn) = admit(&state, &access, address, path, &headers).await?;
    // A hold would be saved once more.
    state.context.registry.release(&visitor);
    let queued = state.context.journal.discard(&visitor);
    // Erases from the database what a running flush commits.
    state.context.journal.flush().await?;
    let at = state.context.clock.wall();
    let (stored, nodes) = match &state.erasures {
        None => (state.lifecycle.erase(visitor, Erasure::of_all(at)).await?, None),
        Some(sender) => {
            let key = sender.erasures.key();
            let erasure = key.erasure(key.hash(visitor.as_str()), at);
            // If this fails, for instance since an archive is missing, no node erases anything.
            let own = Erasure { id: erasure.seal, at, until: Some(at) };
            let stored = state.lifecycle.erase(visitor, own).await?;
            let position = sender.publish(erasure).await?;
            (stored, Some(nodes(&state, &sender.erasures, erasure, position).await))
        }
    };
    let wal_truncated = (!stored.wal_truncated).then_some(false);
    Ok(Json(ErasureBody { erased: ErasedCounts { stored, queued }, wal_truncated, nodes }))
}

/// Waits until all nodes have erased a visitor by the command at a position, but not for long. Without a position the
/// command is not in the log yet.
async fn nodes(
    state: &PersonalDataState,
    erasures: &Erasures,
    erasure: ErasedVisitor,
    position: Option<u64>,
) -> ErasureNodes {
    let deadline = Instant::now() + NODES_PATIENCE;
    // What the log had of the visitor meanwhile is erased too.
    let is_done =
        timeout(NODES_PATIENCE, erasures.until_finished(erasure.visitor, erasure.until)).await.is_ok();
    loop {
        let mut found = ErasureNodes::default();
        let status = state.context.cluster.as_ref().map(Cluster::status);
        for node in status.into_iter().flat_map(|status| status.nodes) {
            let has_it = |erased: u64| position.is_some_and(|position| erased >= position);
            let is_done = if node.is_self { is_done } else { node.log.is_some_and(|log| has_it(log.erased)) };
            if is_done { &mut found.done } else { &mut found.pending }.push(node.name);
        }
        if found.pending.is_empty() || position.is_none() || Instant::now() > deadline {
            return found;
        }
        sleep(NODES_POLL).await;
    }
}

/// Checks who requests the data, and waits for the turn of the request.
async fn admit<'a>(
    state: &'a PersonalDataState,
    access: &AccessControl,
    address: Address,
    path: Result<VisitorPath, ApiError>,
    headers: &HeaderMap,
) -> Result<(VisitorId, Permit, gate::Turn<'a>), ApiError> {
    let requester = access.requester(headers, address)?;
    let VisitorPath(visitor) = path?;
    requester.may_access(&visitor)?;
    let passed = state.gate.pass(address).await;
    let (place, turn) = passed.inspect_err(|_| state.context.rejections.count_limit(Limit::PersonalData))?;
    Ok((visitor, place, turn))
}
