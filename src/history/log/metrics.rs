//! Metrics of the log: handles, so that counting is one atomic operation.
//!
//! The gauges are read from the status. A hub without a log registers none.

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

/// A counter and a histogram. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct LogMetrics {
    /// From a message's sending until most of the log's disks have it, in seconds.
    pub publish: Histogram,
    /// Messages that this version cannot read, or whose erasures another admin token has made.
    pub unreadable: Counter,
}

impl LogMetrics {
    /// Registers the metrics with the current recorder.
    pub(crate) fn register() -> Self {
        const PUBLISH: &str = "breathing_room_log_publish_seconds";
        const UNREADABLE: &str = "breathing_room_log_unreadable_messages_total";
        describe_histogram!(
            PUBLISH,
            Unit::Seconds,
            "From sending a message to the log until most of its disks have it"
        );
        describe_counter!(
            UNREADABLE,
            "Messages of the log that were skipped, since this version cannot read them"
        );
        Self { publish: histogram!(PUBLISH), unreadable: counter!(UNREADABLE) }
    }
}
