//! Operation: health, metrics, and what only the admin may do.
//!
//! Health, metrics and the debug page answer from memory. Only a flush, a migration and a maintenance wait for the database.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use strum::VariantArray;
use utoipa::ToSchema;

use super::access::{AccessControl, Admin, PRIVATE};
use super::error::ApiError;
use super::metrics::Reading;
use super::state::OperateState;
use crate::address::Address;
use crate::auth::Access;
use crate::cluster::{Cluster, ClusterStatus, NodeState, OwnState};
use crate::history::lifecycle::MaintenanceReport;
use crate::history::log::breaker::BreakerState;
use crate::history::log::status::{LogMonitor, LogProblem, LogReading, LogStatus};
use crate::history::status::{Flushed, JournalStatus};
use crate::history::store::{DatabaseStatus, Fault, Migrated};
use crate::presence::Snapshot;
use crate::presence::room::Room;
use crate::presence::visitor::VisitorState;
use crate::protocol::mood::NamedMoods;
use crate::protocol::{RoomId, Time, VisitorId, Vocabulary};
use crate::session::samples;
use crate::time::millis;

/// The most rooms, and visitors in each, that the debug page lists.
const DEBUG_LIMIT: usize = 100;

/// The health of the hub.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    status: HealthStatus,
    /// Why it is degraded.
    #[schema(required)]
    reason: Option<DegradedReason>,
    /// `memory-first`: nothing of this comes from the database.
    architecture: &'static str,
    /// Distinct visitors over all rooms.
    live_users: usize,
    /// Page views that are not yet in the database.
    pending_page_views: usize,
    /// States of watch sessions that are not yet in the database.
    pending_watch_sessions: usize,
    /// The age of the oldest pending event.
    #[schema(required)]
    oldest_unflushed_ms: Option<u64>,
    /// When the last commit succeeded.
    #[schema(required)]
    last_flush: Option<Time>,
    /// The hub's wall clock.
    timestamp: Time,
}

/// Whether the hub works as it should.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum HealthStatus {
    /// It does.
    Ok,
    /// The last commit failed, the database is damaged, the event queue is full, events wait too long, the write-ahead
    /// log is too large, or nodes of the cluster are not heard.
    Degraded,
}

/// `GET /health`: from memory only, so that it answers when the database does not.
pub(crate) async fn health(State(state): State<Arc<OperateState>>) -> Response {
    let journal = state.context.journal.status();
    let own = degraded_reason(&journal, state.store.status(), state.overdue_ms);
    // Elsewhere, visitors would not find more than here.
    let code = if own.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let cluster = state.context.cluster.as_ref();
    let reason = own
        .or_else(|| cluster_reason(&cluster?.status()).map(DegradedReason::Cluster))
        .or_else(|| state.log.as_ref()?.status().problem().map(DegradedReason::Log))
        .or_else(|| differences(&cluster?.status()).map(DegradedReason::Replicas));
    let is_degraded = reason.is_some();
    let body = Health {
        status: if is_degraded { HealthStatus::Degraded } else { HealthStatus::Ok },
        reason,
        architecture: "memory-first",
        live_users: state.context.registry.totals().visitors,
        pending_page_views: journal.pending_page_views,
        pending_watch_sessions: journal.pending_watch_sessions,
        oldest_unflushed_ms: journal.oldest_ms,
        last_flush: journal.last_flush,
        timestamp: state.context.clock.wall(),
    };
    (code, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Why the hub is degraded.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum DegradedReason {
    /// The last commit failed, or a check found damage.
    Fault(Fault),
    /// The database has no fault.
    Overload(Overload),
    /// The database has no fault and no overload.
    Cluster(ClusterReason),
    /// The cluster is well besides.
    Log(LogProblem),
    /// The log is well besides.
    Replicas(ReplicaProblem),
}

/// What is wrong with the files of the nodes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum ReplicaProblem {
    /// The history of another node has other records, at the same position of the log.
    ReplicasDiffer,
}

fn differences(status: &ClusterStatus) -> Option<ReplicaProblem> {
    status.has_differences().then_some(ReplicaProblem::ReplicasDiffer)
}

/// What is wrong with the cluster. The hub works, and its counts may be too small.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum ClusterReason {
    /// This node does not hear its own messages: NATS cannot be reached, or does not pass them on.
    Alone,
    /// Another node has the name of this one.
    NameTaken,
    /// Another node was not heard for 3 s, without a goodbye.
    PeerLost,
}

fn cluster_reason(status: &ClusterStatus) -> Option<ClusterReason> {
    match status.own {
        OwnState::Alone => Some(ClusterReason::Alone),
        OwnState::NameTaken => Some(ClusterReason::NameTaken),
        OwnState::Ok => (status.silent() > 0).then_some(ClusterReason::PeerLost),
    }
}

/// What is wrong although the database has no fault.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Overload {
    /// The event queue is full: the hub rejects events.
    QueueFull,
    /// Events wait far longer than a flush takes.
    Overdue,
    /// The write-ahead log cannot be truncated: a transaction of another program is long.
    WalLarge,
}

fn degraded_reason(
    journal: &JournalStatus,
    database: &DatabaseStatus,
    overdue_ms: u64,
) -> Option<DegradedReason> {
    let fault = journal.fault.or(database.is_damaged().then_some(Fault::Damaged));
    let overload = if journal.is_full {
        Some(Overload::QueueFull)
    } else if journal.oldest_ms.is_some_and(|age| age > overdue_ms) {
        Some(Overload::Overdue)
    } else {
        database.has_large_wal().then_some(Overload::WalLarge)
    };
    fault.map(DegradedReason::Fault).or(overload.map(DegradedReason::Overload))
}

/// `GET /metrics`: all metrics, for Prometheus.
pub(crate) async fn metrics(
    State(state): State<Arc<OperateState>>,
    State(access): State<Arc<AccessControl>>,
    address: Address,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let allowed = access.metrics.ok_or(ApiError::NotFound)?;
    access.admit(allowed, &headers, address)?;
    Ok(rendered(&state, if allowed == Access::Admin { PRIVATE } else { "no-store" }))
}

/// `GET /metrics` at the private address.
pub(crate) async fn private_metrics(State(state): State<Arc<OperateState>>) -> Response {
    rendered(&state, "no-store")
}

fn rendered(state: &OperateState, cache: &'static str) -> Response {
    let headers = [(CACHE_CONTROL, cache), (CONTENT_TYPE, "text/plain; version=0.0.4")];
    (headers, state.metrics.render(&readings(state))).into_response()
}

/// All gauges, read now.
fn readings(state: &OperateState) -> Vec<Reading> {
    let (totals, journal) = (state.context.registry.totals(), state.context.journal.status());
    let gauge = |name, help, value| Reading { name, help, label: None, value };
    let holds = state.context.registry.hold_counts().into_iter().map(|(reason, held)| Reading {
        name: "breathing_room_held",
        help: "Visitors who count as present without a socket, once for each room, by reason",
        label: Some(("reason", reason.into())),
        value: held as f64,
    });
    let status = state.context.cluster.as_ref().map(Cluster::status);
    let nodes = status.as_ref().map_or(&[][..], |status| &status.nodes);
    let of_cluster = NodeState::VARIANTS.iter().map(|node_state| Reading {
        name: "breathing_room_cluster_nodes",
        help: "Nodes of the cluster as this one sees them, itself included, by state",
        label: Some(("state", node_state.into())),
        value: nodes.iter().filter(|node| node.state == *node_state).count() as f64,
    });
    let skew = nodes.iter().filter(|node| !node.is_self).map(|node| node.skew_ms.unsigned_abs()).max();
    let oldest = journal.oldest_ms.unwrap_or_default() as f64 / 1000.0;
    let others = [
        gauge(
            "process_start_time_seconds",
            "When the hub was started, in seconds since the Unix epoch",
            state.started.millis() as f64 / 1000.0,
        ),
        gauge(
            "breathing_room_cluster_clock_skew_seconds",
            "The largest difference between the wall clocks of another node and this one, as far as it can be seen",
            skew.unwrap_or_default() as f64 / 1000.0,
        ),
        gauge(
            "breathing_room_cluster_alone",
            "1 if this node does not hear its own messages from NATS",
            f64::from(u8::from(status.as_ref().is_some_and(|status| status.own == OwnState::Alone))),
        ),
        gauge("breathing_room_connections", "Open sockets of all kinds", state.sockets.len() as f64),
        gauge(
            "breathing_room_connections_limit",
            "The most sockets that may be open",
            state.sockets.limit() as f64,
        ),
        gauge(
            "breathing_room_http_connections",
            "Open connections that are no sockets, this request's included",
            state.connections.len() as f64,
        ),
        gauge("breathing_room_unsent_bytes", "Unsent bytes of all sockets", state.sockets.unsent() as f64),
        gauge("breathing_room_sessions", "Open room sockets of visitors", totals.sessions as f64),
        gauge(
            "breathing_room_bot_sessions",
            "Open room sockets of known bots",
            state.context.registry.bot_sessions() as f64,
        ),
        gauge("breathing_room_visitors", "Distinct visitors over all rooms", totals.visitors as f64),
        gauge("breathing_room_rooms", "Rooms with at least one visitor", totals.rooms as f64),
        gauge(
            "breathing_room_watch_clocks",
            "Watch sessions that the hub measures",
            state.context.clocks.len() as f64,
        ),
        gauge(
            "breathing_room_live_state_bytes",
            "Bytes of live state of all sockets, besides presence",
            state.context.live_state.used() as f64,
        ),
        gauge("breathing_room_events_pending", "Events that are not committed yet", journal.pending() as f64),
        gauge(
            "breathing_room_events_pending_bytes",
            "Memory of pending events",
            journal.pending_bytes as f64,
        ),
        gauge(
            "breathing_room_events_pending_bytes_limit",
            "The most memory that pending events may take",
            journal.limit_bytes as f64,
        ),
        gauge("breathing_room_oldest_unflushed_seconds", "Age of the oldest pending event", oldest),
        gauge(
            "breathing_room_wal_bytes",
            "Size of the database's write-ahead log",
            state.store.status().wal_bytes() as f64,
        ),
        gauge(
            "breathing_room_database_damaged",
            "1 if a check of the database file found damage",
            f64::from(u8::from(state.store.status().is_damaged())),
        ),
    ];
    let log = state.log.as_ref().map(LogMonitor::status);
    holds
        .chain(of_cluster)
        .chain(others)
        .chain(log.as_ref().map(log_readings).into_iter().flatten())
        .collect()
}

/// The gauges of the log.
fn log_readings(log: &LogStatus) -> Vec<Reading> {
    let gauge = |name, help, value| Reading { name, help, label: None, value };
    let state = |name, help, state, is_it| Reading {
        name,
        help,
        label: Some(("state", state)),
        value: f64::from(u8::from(is_it)),
    };
    let breaker = BreakerState::VARIANTS.iter().map(|breaker| {
        let help = "1 for the state of the circuit breaker of the log";
        state("breathing_room_log_breaker_state", help, breaker.into(), log.breaker == *breaker)
    });
    let reading = LogReading::VARIANTS.iter().map(|reading| {
        let help = "1 for how this node reads the log";
        state("breathing_room_log_reading", help, reading.into(), log.reading == *reading)
    });
    let others = [
        gauge(
            "breathing_room_log_position",
            "The last message of the log that is in the file",
            log.position as f64,
        ),
        gauge(
            "breathing_room_log_lag_messages",
            "Messages of the log that this node has not read",
            log.lag_messages as f64,
        ),
        gauge(
            "breathing_room_log_lag_seconds",
            "Age of the oldest message of the log that this node has not read",
            log.lag_ms as f64 / 1000.0,
        ),
        gauge(
            "breathing_room_log_outbox_batches",
            "Messages that are committed here and not in the log yet",
            log.outbox as f64,
        ),
    ];
    breaker.chain(reading).chain(others).collect()
}

/// The result of a flush.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FlushReport {
    flushed: Flushed,
    /// How long it took.
    took_ms: u64,
}

/// `POST /flush`: commits all pending events now, with the presence until now. In a cluster with a log, the presence of this
/// minute comes with its end.
pub(crate) async fn flush(
    _: Admin,
    State(state): State<Arc<OperateState>>,
) -> Result<Json<FlushReport>, ApiError> {
    let started = Instant::now();
    samples::take(&state.context);
    let flushed = state.context.journal.force_flush().await?;
    Ok(Json(FlushReport { flushed, took_ms: millis(started.elapsed()) }))
}

/// `POST /init-db`: applies the migrations that have not been applied.
pub(crate) async fn init_db(
    _: Admin,
    State(state): State<Arc<OperateState>>,
) -> Result<Json<Migrated>, ApiError> {
    state.store.migrate().await.map(Json).map_err(|error| ApiError::Migration(error.to_string()))
}

/// `POST /maintain`: all maintenance that is due, or the rest of a run that is under way.
pub(crate) async fn maintain(
    _: Admin,
    State(state): State<Arc<OperateState>>,
) -> Result<Json<MaintenanceReport>, ApiError> {
    Ok(Json(state.lifecycle.maintain().await?))
}

/// The state in memory, up to a bound.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory<'a> {
    version: &'static str,
    uptime_ms: u64,
    /// Distinct visitors over all rooms.
    live_users: usize,
    /// Open room sockets of visitors.
    sessions: usize,
    /// Open room sockets of bots.
    bot_sessions: usize,
    /// Open sockets of any kind.
    connections: usize,
    /// All rooms, which may be more than are listed.
    room_count: usize,
    /// At most 100, in no order.
    rooms: Vec<RoomMemory<'a>>,
    /// Watch sessions that the hub measures.
    watch_clocks: usize,
    journal: JournalStatus,
    /// Whether the hub shuts down and opens no more sockets.
    stopping: bool,
    timestamp: Time,
}

/// A room and its visitors.
#[derive(Debug, Serialize, ToSchema)]
struct RoomMemory<'a> {
    room: &'a RoomId,
    seq: u64,
    present: u32,
    /// How many of them are held: they have no socket.
    held: u32,
    moods: NamedMoods<'a>,
    /// Open sockets, those of bots included.
    sockets: usize,
    /// At most 100, in no order.
    visitors: Vec<VisitorMemory>,
}

/// A visitor of a room.
#[derive(Debug, Serialize, ToSchema)]
struct VisitorMemory {
    visitor: VisitorId,
    sessions: u32,
}

/// `GET /debug`: the state in memory, down to the visitors of rooms, up to a bound.
pub(crate) async fn debug(_: Admin, State(state): State<Arc<OperateState>>) -> Response {
    let totals = state.context.registry.totals();
    let rooms = state.context.registry.rooms(DEBUG_LIMIT);
    let rooms: Vec<_> = rooms.iter().map(|room| (room, room.snapshot())).collect();
    let memory = Memory {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: millis(state.context.clock.elapsed()),
        live_users: totals.visitors,
        sessions: totals.sessions,
        bot_sessions: state.context.registry.bot_sessions(),
        connections: state.sockets.len(),
        room_count: totals.rooms,
        rooms: rooms
            .iter()
            .map(|(room, counts)| room_memory(room, counts, state.context.registry.vocabulary()))
            .collect(),
        watch_clocks: state.context.clocks.len(),
        journal: state.context.journal.status(),
        stopping: state.sockets.is_closed(),
        timestamp: state.context.clock.wall(),
    };
    ([(CACHE_CONTROL, PRIVATE)], Json(memory)).into_response()
}

fn room_memory<'a>(room: &'a Room, counts: &'a Snapshot, vocabulary: &'a Vocabulary) -> RoomMemory<'a> {
    let memory = |visitor: &VisitorId, of: &VisitorState| {
        Some(VisitorMemory { visitor: visitor.clone(), sessions: of.sessions })
    };
    RoomMemory {
        room: room.id(),
        seq: counts.seq,
        present: counts.present,
        held: counts.held,
        moods: vocabulary.named(&counts.moods),
        sockets: room.socket_count(),
        visitors: room.visitors(DEBUG_LIMIT, memory),
    }
}
