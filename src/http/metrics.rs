//! Counters of requests, and the page that shows the counters of all parts.
//!
//! Every hub has a recorder of its own, so that two hubs in one process do not count together.
//! Parts register what they count while it is current; gauges are read when somebody looks.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use axum::http::StatusCode;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use strum::VariantArray;

use super::app::App;
use crate::history::metrics::HistoryMetrics;
use crate::panics::Panics;
use crate::presence::HoldReason;
use crate::presence::metrics::PresenceMetrics;
use crate::rejections::Rejections;
use crate::transport::metrics::TransportMetrics;

/// Bounds of what takes time, in seconds: from one fsync to a disk in trouble, and to months put into archives.
const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0];

/// Bounds of the flush size, in events.
const FLUSH_EVENTS: [f64; 6] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

const REQUESTS: &str = "breathing_room_http_requests_total";

/// Where sockets are opened: most answers are from here, so that their counters are kept ready.
const SOCKETS: [&str; 2] = [super::websocket::ROOM, super::websocket::ACTIVITY];

const HELD: &str = "breathing_room_held";

const ACCEPT_ERRORS: &str = "breathing_room_accept_errors_total";

/// The recorder of one hub, and what HTTP counts. Cloning shares it.
#[derive(Clone)]
pub(crate) struct HttpMetrics {
    recorder: Arc<PrometheusRecorder>,
    gauges: Gauges,
    opened: [(&'static str, Counter); 2],
    accept_errors: Counter,
    panics: Panics,
}

/// What is read from the memory when somebody looks.
#[derive(Clone)]
struct Gauges {
    connections: Gauge,
    connections_limit: Gauge,
    http_connections: Gauge,
    unsent: Gauge,
    sessions: Gauge,
    bots: Gauge,
    people: Gauge,
    rooms: Gauge,
    held: HashMap<HoldReason, Gauge>,
    watch_clocks: Gauge,
    live_state: Gauge,
    pending: Gauge,
    pending_bytes: Gauge,
    pending_bytes_limit: Gauge,
    oldest: Gauge,
}

/// The counters that each part of a hub increments.
#[derive(Debug)]
pub(crate) struct Meters {
    /// HTTP's own.
    pub http: HttpMetrics,
    /// Of presence.
    pub presence: PresenceMetrics,
    /// Of the history.
    pub history: HistoryMetrics,
    /// Of connections and sockets.
    pub transport: TransportMetrics,
}

impl Meters {
    /// Makes a recorder and registers everything that the hub counts.
    ///
    /// # Errors
    /// The bounds of a histogram are empty, which they are not.
    pub(crate) fn register() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_flush_events".into()), &FLUSH_EVENTS)?
            .build_recorder();
        Ok(with_local_recorder(&recorder, || {
            let (gauges, panics) = (Gauges::register(), Panics::register());
            describe_counter!(REQUESTS, "HTTP requests by route and status");
            describe_counter!(ACCEPT_ERRORS, "Connections that could not be accepted");
            let opened = SOCKETS.map(|route| (route, requests(route, StatusCode::SWITCHING_PROTOCOLS)));
            (
                (gauges, opened, counter!(ACCEPT_ERRORS)),
                PresenceMetrics::register(&panics),
                HistoryMetrics::register(&panics),
                TransportMetrics::register(Rejections::register(), panics),
            )
        }))
        .map(|((gauges, opened, accept_errors), presence, history, transport)| Self {
            http: HttpMetrics {
                recorder: Arc::new(recorder),
                gauges,
                opened,
                accept_errors,
                panics: transport.panics.clone(),
            },
            presence,
            history,
            transport,
        })
    }
}

impl Gauges {
    fn register() -> Self {
        let describe = |name: &'static str, words: &'static str| {
            describe_gauge!(name, words);
            gauge!(name)
        };
        let held = |reason: &HoldReason| (*reason, gauge!(HELD, "reason" => <&str>::from(reason)));
        describe_gauge!(HELD, "Visitors who count as present without a socket, once for each room");
        Self {
            connections: describe("breathing_room_connections", "Open sockets of all kinds"),
            connections_limit: describe("breathing_room_connections_limit", "Sockets that may be open"),
            http_connections: describe(
                "breathing_room_http_connections",
                "Open connections that are no sockets, the one that asks included",
            ),
            unsent: describe("breathing_room_unsent_bytes", "Bytes that wait for peers to take them"),
            sessions: describe("breathing_room_sessions", "Open room sockets of people"),
            bots: describe("breathing_room_bot_sessions", "Open room sockets of known bots"),
            people: describe("breathing_room_people", "Distinct visitors over all rooms"),
            rooms: describe("breathing_room_rooms", "Rooms with somebody in them"),
            held: HoldReason::VARIANTS.iter().map(held).collect(),
            watch_clocks: describe(
                "breathing_room_watch_clocks",
                "Watch sessions that the hub measures, or has measured within the hour",
            ),
            live_state: describe(
                "breathing_room_live_state_bytes",
                "Bytes kept for the live activity and for measuring",
            ),
            pending: describe("breathing_room_events_pending", "Events not yet in the database"),
            pending_bytes: describe(
                "breathing_room_events_pending_bytes",
                "Memory that events take which are not yet in the database",
            ),
            pending_bytes_limit: describe(
                "breathing_room_events_pending_bytes_limit",
                "Memory that such events may take",
            ),
            oldest: describe("breathing_room_oldest_unflushed_seconds", "Age of the oldest such event"),
        }
    }
}

impl HttpMetrics {
    /// A request to `route` was answered.
    pub(crate) fn answered(&self, route: &str, status: StatusCode) {
        match self.opened.iter().find(|(of, _)| status == StatusCode::SWITCHING_PROTOCOLS && *of == route) {
            Some((_, opened)) => opened.increment(1),
            None => with_local_recorder(&*self.recorder, || requests(route, status).increment(1)),
        }
    }

    /// Counts connections that could not be accepted.
    pub(crate) fn accept_errors(&self) -> Counter {
        self.accept_errors.clone()
    }

    /// What becomes of a task that panics.
    #[must_use]
    pub(crate) fn panics(&self) -> &Panics {
        &self.panics
    }

    /// Sums up what was measured since the last time, which would be kept until somebody looks.
    pub(crate) fn sum_up(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// All counters in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub(crate) fn page(&self, app: &App) -> String {
        let (totals, status) = (app.registry.totals(), app.journal.status());
        let gauges = &self.gauges;
        gauges.connections.set(app.sockets.len() as f64);
        gauges.connections_limit.set(app.sockets.limit() as f64);
        gauges.http_connections.set(app.connections.len() as f64);
        gauges.unsent.set(app.sockets.unsent() as f64);
        gauges.sessions.set(totals.sessions as f64);
        gauges.bots.set(app.registry.bot_sessions() as f64);
        gauges.people.set(totals.visitors as f64);
        gauges.rooms.set(totals.rooms as f64);
        for (reason, held) in app.registry.hold_counts() {
            if let Some(gauge) = gauges.held.get(&reason) {
                gauge.set(held as f64);
            }
        }
        gauges.watch_clocks.set(app.clocks.len() as f64);
        gauges.live_state.set(app.room.live_state.used() as f64);
        gauges.pending.set(status.pending() as f64);
        gauges.pending_bytes.set(status.pending_bytes as f64);
        gauges.pending_bytes_limit.set(status.limit_bytes as f64);
        gauges.oldest.set(status.oldest_ms.unwrap_or_default() as f64 / 1000.0);
        self.recorder.handle().render()
    }
}

/// The counter of these answers, of the recorder that is current.
fn requests(route: &str, status: StatusCode) -> Counter {
    counter!(REQUESTS, "route" => route.to_owned(), "status" => status.as_str().to_owned())
}

impl fmt::Debug for HttpMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpMeter")
    }
}
