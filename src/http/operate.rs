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
use serde_json::{Value, json};

use super::admission::Admin;
use super::app::App;
use super::error::ApiError;
use crate::clock::millis;
use crate::history::Fault;
use crate::history::journal::Status;
use crate::history::lifecycle::Report;
use crate::session::census;

/// The most rooms, and visitors in each, that the debug page lists.
const DEBUG_LIMIT: usize = 100;

/// `GET /health`: from memory only, so that it answers whatever the database does.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let status = app.journal.status();
    let reason = trouble(&status, app.overdue_ms);
    let degraded = reason.is_some();
    let body = json!({
        "status": if degraded { "degraded" } else { "ok" },
        "reason": reason,
        "architecture": "memory-first",
        "liveUsers": app.hub.totals().visitors,
        "pendingPageViews": status.pending_page_views,
        "pendingWatchSessions": status.pending_watch_sessions,
        "oldestUnflushedMs": status.oldest_ms,
        "lastFlush": status.last_flush,
        "timestamp": app.clock.wall(),
    });
    let code = if degraded { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Why the hub is degraded, if it is.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Trouble {
    /// The last commit failed.
    Fault(Fault),
    Delay(Delay),
}

/// What is wrong although no commit has failed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Delay {
    /// No more events are taken.
    QueueFull,
    /// Events wait far longer than a flush takes.
    Overdue,
}

fn trouble(status: &Status, overdue_ms: u64) -> Option<Trouble> {
    let delay = if status.pending() >= status.limit {
        Some(Delay::QueueFull)
    } else {
        status.oldest_ms.filter(|age| *age > overdue_ms).map(|_| Delay::Overdue)
    };
    status.fault.map(Trouble::Fault).or(delay.map(Trouble::Delay))
}

/// `GET /metrics`: all counters, for Prometheus.
pub async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    app.config.metrics.admit(&app, &headers)?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], app.meter.page(&app)).into_response())
}

/// `POST /flush`: everything that is pending goes to the database now, with who was here until now.
pub async fn flush(_: Admin, State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let started = Instant::now();
    census::take(&app.room);
    let flushed = app.journal.flush().await?;
    Ok(Json(json!({ "flushed": flushed, "tookMs": millis(started.elapsed()) })))
}

/// `POST /init-db`: applies the migrations that have not been applied.
pub async fn init_db(_: Admin, State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    app.store.migrate().await.map(Json).map_err(|error| ApiError::Migration(error.to_string()))
}

/// `POST /maintain`: all that is due by now, or the rest of the run that is under way.
pub async fn maintain(_: Admin, State(app): State<Arc<App>>) -> Result<Json<Report>, ApiError> {
    Ok(Json(app.lifecycle.maintain().await?))
}

/// `GET /debug`: the memory, down to the people in the rooms, up to a bound.
pub async fn debug(_: Admin, State(app): State<Arc<App>>) -> Json<Value> {
    let totals = app.hub.totals();
    let vocabulary = app.hub.vocabulary();
    let rooms: Vec<Value> = app
        .hub
        .rooms(DEBUG_LIMIT)
        .iter()
        .map(|room| {
            let counts = room.counts();
            let visitors: Vec<Value> = room
                .visitors(DEBUG_LIMIT)
                .into_iter()
                .map(|(visitor, sessions)| json!({ "visitor": visitor, "sessions": sessions }))
                .collect();
            json!({
                "room": room.id(),
                "seq": counts.seq,
                "present": counts.present,
                "moods": vocabulary.named(&counts.moods),
                "sockets": room.sessions(),
                "visitors": visitors,
            })
        })
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeMs": millis(app.clock.elapsed()),
        "liveUsers": totals.visitors,
        "sessions": totals.sessions,
        "botSessions": app.hub.bots(),
        "connections": app.sockets.len(),
        "roomCount": totals.rooms,
        "rooms": rooms,
        "watchClocks": app.clocks.len(),
        "journal": app.journal.status(),
        "stopping": app.sockets.is_closed(),
        "timestamp": app.clock.wall(),
    }))
}
