//! Metrics of the history for `/metrics`.
//!
//! The handles are created once, so that counting is one atomic addition.

use std::time::Instant;

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use strum::VariantArray;

use super::lifecycle::steps::MaintenanceStep;
use crate::panics::Panics;

/// Metrics of the history. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct HistoryMetrics {
    /// Queued page views.
    pub page_views_queued: Counter,
    /// Queued watch states.
    pub watches_queued: Counter,
    /// Queued events of known bots, of both kinds.
    pub bot_events: Counter,
    /// Queued events whose time was ahead of the hub's clock.
    pub times_ahead: Counter,
    /// Committed page views, repeated ones included.
    pub page_views_committed: Counter,
    /// Committed watch states, repeated ones included.
    pub watches_committed: Counter,
    /// The hub's measures of watch sessions that the full journal rejected.
    pub measures_lost: Counter,
    /// Presence samples that the full journal rejected.
    pub samples_lost: Counter,
    /// Failed flushes.
    pub flush_failures: Counter,
    /// Duration of flushes, in seconds.
    pub flush_seconds: Histogram,
    /// Events per flush.
    pub flush_events: Histogram,
    /// Stats requests answered from a fresh cache entry.
    pub stats_hits: Counter,
    /// Stats requests that waited for a computation.
    pub stats_misses: Counter,
    /// Stats requests answered from a stale entry while a newer one is computed.
    pub stats_stale: Counter,
    /// Computations of stats that failed.
    pub stats_errors: Counter,
    /// Counts panics of computations.
    pub panics: Panics,
    query_seconds: [(&'static str, Histogram); 7],
    /// Metrics of the maintenance worker.
    pub lifecycle: LifecycleMetrics,
}

impl HistoryMetrics {
    /// Registers the metrics with the current recorder.
    pub(crate) fn register(panics: &Panics) -> Self {
        const QUEUED: &str = "breathing_room_events_queued_total";
        const BOTS: &str = "breathing_room_bot_events_total";
        const AHEAD: &str = "breathing_room_event_times_ahead_total";
        const COMMITTED: &str = "breathing_room_events_committed_total";
        const FAILURES: &str = "breathing_room_flush_failures_total";
        const MEASURES: &str = "breathing_room_watch_measures_lost_total";
        const SAMPLES: &str = "breathing_room_presence_samples_lost_total";
        const STATS: &str = "breathing_room_stats_answers_total";
        const QUERY: &str = "breathing_room_stats_query_duration_seconds";
        const QUERIES: [&str; 7] = ["plan", "activity", "tops", "presence", "previous", "props", "texts"];
        describe_counter!(STATS, "Stats requests by state of their cache entry, and failed computations");
        describe_histogram!(QUERY, Unit::Seconds, "Duration of a query of the history");
        describe_counter!(QUEUED, "Events appended to the journal");
        describe_counter!(BOTS, "Events of known bots appended to the journal, which count nowhere else");
        describe_counter!(AHEAD, "Events whose time was ahead of the hub's clock, and was set to it");
        describe_counter!(COMMITTED, "Events committed to the database, repeated ones included");
        describe_counter!(
            MEASURES,
            "The hub's own measures of watch sessions for which the journal had no room"
        );
        describe_counter!(SAMPLES, "Presence samples lost because the journal was full");
        describe_counter!(FAILURES, "Failed flushes; their batch is retried");
        describe_histogram!("breathing_room_flush_duration_seconds", Unit::Seconds, "Duration of a flush");
        describe_histogram!("breathing_room_flush_events", "Events per flush");
        Self {
            page_views_queued: counter!(QUEUED, "kind" => "page-view"),
            watches_queued: counter!(QUEUED, "kind" => "watch"),
            bot_events: counter!(BOTS),
            times_ahead: counter!(AHEAD),
            page_views_committed: counter!(COMMITTED, "kind" => "page-view"),
            watches_committed: counter!(COMMITTED, "kind" => "watch"),
            measures_lost: counter!(MEASURES),
            samples_lost: counter!(SAMPLES),
            flush_failures: counter!(FAILURES),
            flush_seconds: histogram!("breathing_room_flush_duration_seconds"),
            flush_events: histogram!("breathing_room_flush_events"),
            stats_hits: counter!(STATS, "state" => "hit"),
            stats_misses: counter!(STATS, "state" => "miss"),
            stats_stale: counter!(STATS, "state" => "stale"),
            stats_errors: counter!(STATS, "state" => "error"),
            lifecycle: LifecycleMetrics::register(),
            panics: panics.clone(),
            query_seconds: QUERIES.map(|query| (query, histogram!(QUERY, "query" => query))),
        }
    }

    /// Records the duration of a query since `started`.
    pub(crate) fn query(&self, query: &str, started: Instant) {
        if let Some((_, seconds)) = self.query_seconds.iter().find(|(name, _)| *name == query) {
            seconds.record(started.elapsed().as_secs_f64());
        }
    }
}

/// Metrics of the maintenance worker. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct LifecycleMetrics {
    /// Duration in seconds and failures of each step.
    steps: Vec<(MaintenanceStep, Histogram, Counter)>,
    /// Archived months.
    pub archived_months: Counter,
    /// Pages returned to the disk.
    pub freed_pages: Counter,
}

impl LifecycleMetrics {
    pub(in crate::history) fn register() -> Self {
        const SECONDS: &str = "breathing_room_maintenance_duration_seconds";
        const FAILURES: &str = "breathing_room_maintenance_failures_total";
        const ARCHIVED: &str = "breathing_room_archived_months_total";
        const FREED: &str = "breathing_room_freed_pages_total";
        describe_histogram!(SECONDS, Unit::Seconds, "Duration of a maintenance step");
        describe_counter!(FAILURES, "Failed maintenance steps; the next run retries");
        describe_counter!(ARCHIVED, "Archived months");
        describe_counter!(FREED, "Pages of the database file returned to the disk");
        Self {
            steps: MaintenanceStep::VARIANTS
                .iter()
                .map(|step| {
                    let name: &str = step.into();
                    (*step, histogram!(SECONDS, "step" => name), counter!(FAILURES, "step" => name))
                })
                .collect(),
            archived_months: counter!(ARCHIVED),
            freed_pages: counter!(FREED),
        }
    }

    /// Records the duration of a step.
    pub(crate) fn took(&self, step: MaintenanceStep, seconds: f64) {
        self.of(step).for_each(|(_, histogram, _)| histogram.record(seconds));
    }

    /// Counts a failed step.
    pub(crate) fn failed(&self, step: MaintenanceStep) {
        self.of(step).for_each(|(_, _, failures)| failures.increment(1));
    }

    fn of(&self, step: MaintenanceStep) -> impl Iterator<Item = &(MaintenanceStep, Histogram, Counter)> {
        self.steps.iter().filter(move |(of, ..)| *of == step)
    }
}
