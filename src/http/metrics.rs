//! The metrics of one hub: its recorder, the counters of HTTP, and the page in Prometheus' text format.
//!
//! Every hub has its own recorder, so that two hubs in one process do not count together. Parts register their counters while it
//! is the current one; gauges are read when the page is rendered.

use std::fmt;
use std::sync::Arc;

use axum::http::StatusCode;
use metrics::{Counter, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::history::metrics::HistoryMetrics;
use crate::panics::Panics;
use crate::presence::metrics::PresenceMetrics;
use crate::rejections::Rejections;
use crate::transport::metrics::TransportMetrics;

/// Bounds of histograms of durations, in seconds: from one fsync to the archiving of months.
const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0];

/// Bounds of the flush size, in events.
const FLUSH_EVENTS: [f64; 6] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

const REQUESTS: &str = "breathing_room_http_requests_total";

const ACCEPT_ERRORS: &str = "breathing_room_accept_errors_total";

/// The recorder of one hub, and the counters of HTTP. Cloning shares them.
#[derive(Clone)]
pub(crate) struct HttpMetrics {
    recorder: Arc<PrometheusRecorder>,
    accept_errors: Counter,
    panics: Panics,
}

/// A gauge as it is read for one page.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The metric's name.
    pub name: &'static str,
    /// The metric's help text.
    pub help: &'static str,
    /// The name and the value of the metric's label, where it has one.
    pub label: Option<(&'static str, &'static str)>,
    /// The value now.
    pub value: f64,
}

/// The counters that each part of a hub increments.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Of HTTP.
    pub http: HttpMetrics,
    /// Of presence.
    pub presence: PresenceMetrics,
    /// Of the history.
    pub history: HistoryMetrics,
    /// Of connections and sockets.
    pub transport: TransportMetrics,
}

impl Metrics {
    /// Makes a recorder and registers all counters and histograms of a hub.
    #[expect(clippy::expect_used, reason = "building fails only for empty bounds")]
    pub(crate) fn register() -> Self {
        let buckets = |builder: PrometheusBuilder, suffix: &str, bounds: &[f64]| {
            let matcher = Matcher::Suffix(suffix.to_owned());
            builder.set_buckets_for_metric(matcher, bounds).expect("the bounds are constants")
        };
        let builder = buckets(PrometheusBuilder::new(), "_duration_seconds", &SECONDS);
        let recorder = Arc::new(buckets(builder, "_flush_events", &FLUSH_EVENTS).build_recorder());
        with_local_recorder(&*recorder, || {
            let panics = Panics::register();
            describe_counter!(REQUESTS, "HTTP requests by route and status");
            describe_counter!(ACCEPT_ERRORS, "Connections that could not be accepted");
            Self {
                http: HttpMetrics {
                    recorder: Arc::clone(&recorder),
                    accept_errors: counter!(ACCEPT_ERRORS),
                    panics: panics.clone(),
                },
                presence: PresenceMetrics::register(&panics),
                history: HistoryMetrics::register(&panics),
                transport: TransportMetrics::register(Rejections::register(), panics),
            }
        })
    }
}

impl HttpMetrics {
    /// Counts an answer of `route`.
    pub(crate) fn answered(&self, route: &str, status: StatusCode) {
        let labels = [("route", route.to_owned()), ("status", status.as_str().to_owned())];
        with_local_recorder(&*self.recorder, || counter!(REQUESTS, &labels).increment(1));
    }

    /// The counter of connections that could not be accepted.
    pub(crate) fn accept_errors(&self) -> Counter {
        self.accept_errors.clone()
    }

    /// Calls `register` with the recorder of these metrics.
    pub(crate) fn register_more<T>(&self, register: impl FnOnce() -> T) -> T {
        with_local_recorder(&*self.recorder, register)
    }

    /// Catches and counts panics.
    pub(crate) fn panics(&self) -> &Panics {
        &self.panics
    }

    /// Moves recorded durations into their histograms; until then, the recorder keeps each one.
    pub(crate) fn run_upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// All metrics in Prometheus' text format, version 0.0.4, with gauges as they were read.
    pub(crate) fn render(&self, readings: &[Reading]) -> String {
        with_local_recorder(&*self.recorder, || {
            for Reading { name, help, label, value } in readings {
                describe_gauge!(*name, *help);
                match label {
                    Some((label, of)) => gauge!(*name, *label => *of).set(*value),
                    None => gauge!(*name).set(*value),
                }
            }
        });
        self.recorder.handle().render()
    }
}

impl fmt::Debug for HttpMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpMetrics")
    }
}
