//! What the history side counts for `/metrics`: plain handles, so that counting is one
//! atomic addition and nothing here knows how the counters are shown.

use std::time::Instant;

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use strum::VariantArray;

use super::lifecycle::MaintenanceStep;
use crate::panics::Panics;

/// Counters of the history side. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct HistoryMetrics {
    /// Page views that were queued.
    pub page_views_queued: Counter,
    /// Watch states that were queued.
    pub watches_queued: Counter,
    /// Events of either kind that were queued and came from known bots.
    pub bot_events: Counter,
    /// Page views that were committed, resent ones included.
    pub page_views_committed: Counter,
    /// Watch states that were committed, resent ones included.
    pub watches_committed: Counter,
    /// What the hub has measured of watch sessions and the journal had no room for.
    pub measures_lost: Counter,
    /// Presence samples that the journal had no room for.
    pub samples_lost: Counter,
    /// Flushes that did not commit.
    pub flush_failures: Counter,
    /// How long flushes took, in seconds.
    pub flush_seconds: Histogram,
    /// How many events flushes committed.
    pub flush_events: Histogram,
    /// Answers about the history that were kept and still new.
    pub stats_hits: Counter,
    /// Answers that had to be made while somebody waited.
    pub stats_misses: Counter,
    /// Answers that were served while a newer one was made.
    pub stats_stale: Counter,
    /// Answers that could not be made.
    pub stats_errors: Counter,
    /// What becomes of an answer that panics.
    pub panics: Panics,
    query_seconds: [(&'static str, Histogram); 7],
    /// What the lifecycle task counts.
    pub lifecycle: LifecycleMetrics,
}

impl HistoryMetrics {
    /// Registers the counters with the recorder that is current; panics are counted by `panics`.
    #[must_use]
    pub(crate) fn register(panics: &Panics) -> Self {
        const QUEUED: &str = "breathing_room_events_queued_total";
        const BOTS: &str = "breathing_room_bot_events_total";
        const COMMITTED: &str = "breathing_room_events_committed_total";
        const FAILURES: &str = "breathing_room_flush_failures_total";
        const MEASURES: &str = "breathing_room_watch_measures_lost_total";
        const SAMPLES: &str = "breathing_room_presence_samples_lost_total";
        const STATS: &str = "breathing_room_stats_answers_total";
        const QUERY: &str = "breathing_room_stats_query_duration_seconds";
        const QUERIES: [&str; 7] = ["plan", "activity", "tops", "presence", "previous", "props", "texts"];
        describe_counter!(STATS, "Answers about the history");
        describe_histogram!(QUERY, Unit::Seconds, "Time per query of the history");
        describe_counter!(QUEUED, "Events taken into the journal");
        describe_counter!(BOTS, "Events of known bots taken into the journal, which count nowhere else");
        describe_counter!(COMMITTED, "Events committed to the database, resent ones included");
        describe_counter!(
            MEASURES,
            "The hub's own measures of watch sessions for which the journal had no room"
        );
        describe_counter!(SAMPLES, "Presence samples that the journal had no room for");
        describe_counter!(FAILURES, "Flushes that did not commit; their batch is kept");
        describe_histogram!("breathing_room_flush_duration_seconds", Unit::Seconds, "Time per flush");
        describe_histogram!("breathing_room_flush_events", "Events per flush");
        Self {
            page_views_queued: counter!(QUEUED, "kind" => "page-view"),
            watches_queued: counter!(QUEUED, "kind" => "watch"),
            bot_events: counter!(BOTS),
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

    /// A query of the stats was answered that began at `started`.
    pub(crate) fn query(&self, query: &str, started: Instant) {
        if let Some((_, seconds)) = self.query_seconds.iter().find(|(name, _)| *name == query) {
            seconds.record(started.elapsed().as_secs_f64());
        }
    }
}

/// Counters of the lifecycle task. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct LifecycleMetrics {
    /// Of each step, how long it took, in seconds, and how often it failed.
    steps: Vec<(MaintenanceStep, Histogram, Counter)>,
    /// Months that went to archives.
    pub archived_months: Counter,
    /// Pages that went back to the disk.
    pub freed_pages: Counter,
}

impl LifecycleMetrics {
    pub(in crate::history) fn register() -> Self {
        const SECONDS: &str = "breathing_room_maintenance_duration_seconds";
        const FAILURES: &str = "breathing_room_maintenance_failures_total";
        const ARCHIVED: &str = "breathing_room_archived_months_total";
        const FREED: &str = "breathing_room_freed_pages_total";
        describe_histogram!(SECONDS, Unit::Seconds, "Time per step of a maintenance run");
        describe_counter!(FAILURES, "Steps of maintenance that failed; the next run tries again");
        describe_counter!(ARCHIVED, "Months whose raw rows went to an archive");
        describe_counter!(FREED, "Pages of the database file that were given back to the disk");
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

    /// `step` took so many seconds.
    pub(crate) fn took(&self, step: MaintenanceStep, seconds: f64) {
        self.of(step).for_each(|(_, histogram, _)| histogram.record(seconds));
    }

    /// `step` failed.
    pub(crate) fn failed(&self, step: MaintenanceStep) {
        self.of(step).for_each(|(_, _, failures)| failures.increment(1));
    }

    fn of(&self, step: MaintenanceStep) -> impl Iterator<Item = &(MaintenanceStep, Histogram, Counter)> {
        self.steps.iter().filter(move |(of, ..)| *of == step)
    }
}
