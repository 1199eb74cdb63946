//! The machine room: health, metrics, and what only the admin may do.
//!
//! Health, metrics and the debug page answer from memory; only a flush, a migration or a maintenance
//! that somebody asked for waits for the database.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Access;
use super::app::App;
use super::error::ApiError;
use super::extract::{Admin, PRIVATE, admit};
use crate::address::Address;
use crate::history::Fault;
use crate::history::journal::{Flushed, Status};
use crate::history::lifecycle::Report;
use crate::history::store::Migrated;
use crate::presence::Snapshot;
use crate::presence::room::Room;
use crate::protocol::mood::NamedMoods;
use crate::protocol::{RoomId, Time, VisitorId, Vocabulary};
use crate::session::samples;
use crate::time::millis;

/// The most rooms, and visitors in each, that the debug page lists.
const DEBUG_LIMIT: usize = 100;

/// How the hub does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    status: Condition,
    /// Why it is degraded.
    #[schema(required)]
    reason: Option<Trouble>,
    /// `memory-first`: nothing here comes from the database.
    architecture: &'static str,
    /// Distinct visitors over all rooms.
    live_users: usize,
    /// Page views that are not yet in the database.
    pending_page_views: usize,
    /// States of watch sessions that are not yet in the database.
    pending_watch_sessions: usize,
    /// How long the oldest of them has waited.
    #[schema(required)]
    oldest_unflushed_ms: Option<u64>,
    /// When the last commit succeeded.
    #[schema(required)]
    last_flush: Option<Time>,
    /// The hub's wall clock.
    timestamp: Time,
}

/// Whether all is well.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Condition {
    /// It is.
    Ok,
    /// The last commit failed, no more events are taken, or they wait too long.
    Degraded,
}

/// `GET /health`: from memory only, so that it answers whatever the database does.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let status = app.journal.status();
    let reason = trouble(&status, app.overdue_ms);
    let degraded = reason.is_some();
    let body = Health {
        status: if degraded { Condition::Degraded } else { Condition::Ok },
        reason,
        architecture: "memory-first",
        live_users: app.registry.totals().visitors,
        pending_page_views: status.pending_page_views,
        pending_watch_sessions: status.pending_watch_sessions,
        oldest_unflushed_ms: status.oldest_ms,
        last_flush: status.last_flush,
        timestamp: app.clock.wall(),
    };
    let code = if degraded { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Why the hub is degraded, if it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Trouble {
    /// The last commit failed.
    Fault(Fault),
    /// None has failed.
    Delay(Delay),
}

/// What is wrong although no commit has failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Delay {
    /// No more events are taken.
    QueueFull,
    /// Events wait far longer than a flush takes.
    Overdue,
}

fn trouble(status: &Status, overdue_ms: u64) -> Option<Trouble> {
    let delay = if status.is_full {
        Some(Delay::QueueFull)
    } else {
        status.oldest_ms.filter(|age| *age > overdue_ms).map(|_| Delay::Overdue)
    };
    status.fault.map(Trouble::Fault).or(delay.map(Trouble::Delay))
}

/// `GET /metrics`: all counters, for Prometheus.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    address: Address,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    admit(app.config.metrics, &app, &headers, address)?;
    let cache = if app.config.metrics == Access::Admin { PRIVATE } else { "no-store" };
    let headers = [(CACHE_CONTROL, cache), (CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((headers, app.metrics.page(&app)).into_response())
}

/// What a flush did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FlushReport {
    flushed: Flushed,
    /// How long it took.
    took_ms: u64,
}

/// `POST /flush`: everything that is pending goes to the database now, with who was here until now.
pub(crate) async fn flush(_: Admin, State(app): State<Arc<App>>) -> Result<Json<FlushReport>, ApiError> {
    let started = Instant::now();
    samples::take(&app.room);
    let flushed = app.journal.force_flush().await?;
    Ok(Json(FlushReport { flushed, took_ms: millis(started.elapsed()) }))
}

/// `POST /init-db`: applies the migrations that have not been applied.
pub(crate) async fn init_db(_: Admin, State(app): State<Arc<App>>) -> Result<Json<Migrated>, ApiError> {
    app.store.migrate().await.map(Json).map_err(|error| ApiError::Migration(error.to_string()))
}

/// `POST /maintain`: all that is due by now, or the rest of the run that is under way.
pub(crate) async fn maintain(_: Admin, State(app): State<Arc<App>>) -> Result<Json<Report>, ApiError> {
    Ok(Json(app.lifecycle.maintain().await?))
}

/// The memory, up to a bound.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory<'a> {
    version: &'static str,
    uptime_ms: u64,
    /// Distinct visitors over all rooms.
    live_users: usize,
    /// Open room sockets of people.
    sessions: usize,
    /// Open room sockets of bots.
    bot_sessions: usize,
    /// Open sockets of any kind.
    connections: usize,
    /// How many rooms there are, which may be more than are listed.
    room_count: usize,
    /// At most 100, in no order.
    rooms: Vec<RoomMemory<'a>>,
    /// Watch sessions whose time is measured.
    watch_clocks: usize,
    journal: Status,
    /// Whether no more sockets are opened.
    stopping: bool,
    timestamp: Time,
}

/// A room, down to the people in it.
#[derive(Debug, Serialize, ToSchema)]
struct RoomMemory<'a> {
    room: &'a RoomId,
    seq: u64,
    present: u32,
    /// How many of them have no socket.
    held: u32,
    moods: NamedMoods<'a>,
    /// Open sockets, those of bots included.
    sockets: usize,
    /// At most 100, in no order.
    visitors: Vec<VisitorMemory>,
}

/// Somebody in a room.
#[derive(Debug, Serialize, ToSchema)]
struct VisitorMemory {
    visitor: VisitorId,
    sessions: u32,
}

/// `GET /debug`: the memory, down to the people in the rooms, up to a bound.
pub(crate) async fn debug(_: Admin, State(app): State<Arc<App>>) -> Response {
    let totals = app.registry.totals();
    let rooms = app.registry.rooms(DEBUG_LIMIT);
    let rooms: Vec<_> = rooms.iter().map(|room| (room, room.snapshot())).collect();
    let memory = Memory {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: millis(app.clock.elapsed()),
        live_users: totals.visitors,
        sessions: totals.sessions,
        bot_sessions: app.registry.bot_sessions(),
        connections: app.sockets.len(),
        room_count: totals.rooms,
        rooms: rooms.iter().map(|(room, counts)| remember(room, counts, app.registry.vocabulary())).collect(),
        watch_clocks: app.clocks.len(),
        journal: app.journal.status(),
        stopping: app.sockets.is_closed(),
        timestamp: app.clock.wall(),
    };
    ([(CACHE_CONTROL, PRIVATE)], Json(memory)).into_response()
}

fn remember<'a>(room: &'a Room, counts: &'a Snapshot, vocabulary: &'a Vocabulary) -> RoomMemory<'a> {
    let visitors = room.visitors(DEBUG_LIMIT, |_| true).into_iter();
    RoomMemory {
        room: room.id(),
        seq: counts.seq,
        present: counts.present,
        held: counts.held,
        moods: vocabulary.named(&counts.moods),
        sockets: room.socket_count(),
        visitors: visitors.map(|(visitor, of)| VisitorMemory { visitor, sessions: of.sessions }).collect(),
    }
}
