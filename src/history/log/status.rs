//! The state of the log as this node sees it: what `/health`, `/cluster`, the statistics and metrics read.
//!
//! Plain data, and the rule for the lag. The flush task and the reading task write it.

use std::sync::Arc;

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::LogError;
use super::breaker::BreakerState;
use super::erasures::Erasures;
use crate::history::record_sum::RecordSum;
use crate::protocol::Time;

/// The lag from which on a node is degraded, and its statistics say so, in milliseconds.
const LAGGING_MS: u64 = 5_000;

/// How this node reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum LogReading {
    /// It does not: the log cannot be reached, or interrupted the reading.
    Away,
    /// It reads all messages.
    Following,
    /// It reads nothing: the log does not reach back to the position of this node.
    Gone,
}

/// The state of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Log)]
pub(crate) struct LogStatus {
    /// How it is read.
    pub reading: LogReading,
    /// Whether messages go to it.
    pub breaker: BreakerState,
    /// The last message that is in the file.
    pub position: u64,
    /// The last message up to which all erasures of visitors are finished in this file.
    pub erased: u64,
    /// The last message that was read.
    pub read: u64,
    /// Messages of the log that are not read.
    pub lag_messages: u64,
    /// How old the last message that was read is, in milliseconds; 0 if all are read.
    pub lag_ms: u64,
    /// Messages that wait in the outbox.
    pub outbox: u64,
    /// Whether this node publishes its last days again, since the log lost them.
    pub is_resending: bool,
    /// Why it cannot be read, or does not store messages; none while both work.
    #[schema(value_type = Option<String>, required)]
    pub error: Option<LogError>,
    /// Whether the file has the name of a log. Before that nothing is published: if that log were deleted, the next one would
    /// be taken for the first.
    #[serde(skip)]
    pub is_log_known: bool,
    /// The start of the newest presence sample of another node that was read.
    #[serde(skip)]
    pub sampled: Option<Time>,
    /// What the records of the file added up to when it last had exactly what the log has.
    #[serde(skip)]
    pub records: Option<RecordsAt>,
}

/// What the records of a file add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordsAt {
    /// The name of the log.
    pub log: Arc<str>,
    /// The position up to which the file has exactly what the log has.
    pub position: u64,
    /// The sum of the records of all months.
    pub sum: RecordSum,
}

impl RecordsAt {
    /// Whether both are at one position of one log.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (&self.log, self.position) == (&other.log, other.position)
    }
}

/// What is wrong with the log. The hub works, and its statistics may lack the newest events of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogProblem {
    /// The log does not reach back to this node's position: the file lacks events of other nodes.
    LogGone,
    /// No NATS server has JetStream: there is no log, and events wait in the outbox as below.
    #[serde(rename = "no-jetstream")]
    NoJetStream,
    /// The log cannot be reached: events are committed here, and wait in the outbox for the other nodes.
    LogAway,
    /// The log has lost messages: the nodes publish their last days again.
    LogReset,
    /// Messages of other nodes wait for more than 5 s.
    Lagging,
}

impl LogStatus {
    /// The state before the first answer of the log.
    pub(crate) fn at_start(position: u64, outbox: u64, is_resending: bool) -> Self {
        Self {
            reading: LogReading::Away,
            breaker: BreakerState::Closed,
            position,
            erased: 0,
            read: position,
            lag_messages: 0,
            lag_ms: 0,
            outbox,
            is_resending,
            error: None,
            is_log_known: false,
            sampled: None,
            records: None,
        }
    }

    /// The worst problem.
    pub(crate) fn problem(&self) -> Option<LogProblem> {
        match self.reading {
            LogReading::Gone => Some(LogProblem::LogGone),
            LogReading::Away if self.error == Some(LogError::NoJetStream) => Some(LogProblem::NoJetStream),
            LogReading::Away => Some(LogProblem::LogAway),
            LogReading::Following if self.breaker != BreakerState::Closed => Some(LogProblem::LogAway),
            LogReading::Following if self.is_resending => Some(LogProblem::LogReset),
            LogReading::Following => self.lagging().map(|_| LogProblem::Lagging),
        }
    }

    /// It is read, or known not to reach back.
    pub(super) fn reached(&mut self, reading: LogReading) {
        (self.reading, self.error) = (reading, None);
    }

    /// Reading was interrupted, by the log or by the file.
    pub(super) fn interrupted(&mut self, error: Option<LogError>, is_away: bool) {
        if is_away {
            self.reading = LogReading::Away;
        }
        if self.reading == LogReading::Away {
            self.error = error;
        }
    }

    /// It stored a message, or did not. What interrupts the reading is the better reason.
    pub(super) fn answered<T>(&mut self, result: &Result<T, LogError>) {
        if self.reading == LogReading::Following {
            self.error = result.as_ref().err().cloned();
        }
    }

    /// The lag in milliseconds, if it is so large that answers say so.
    pub(crate) fn lagging(&self) -> Option<u64> {
        Some(self.lag_ms).filter(|lag| *lag > LAGGING_MS)
    }
}

/// A handle that reads the state. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LogMonitor(watch::Receiver<LogStatus>, Erasures);

impl LogMonitor {
    /// Reads what the sender writes.
    pub(super) fn new(status: &watch::Sender<LogStatus>, erasures: Erasures) -> Self {
        Self(status.subscribe(), erasures)
    }

    /// The state now.
    pub(crate) fn status(&self) -> LogStatus {
        let status = self.0.borrow().clone();
        LogStatus { erased: self.1.finished_up_to(status.position), ..status }
    }

    /// Waits until a message was read.
    pub(crate) async fn until_read(&self, position: u64) {
        // It ends with the hub.
        let _ = self.0.clone().wait_for(|status| status.read >= position).await;
    }

    /// Waits for a state.
    #[cfg(test)]
    pub(super) async fn until(&self, is_it: impl FnMut(&LogStatus) -> bool) {
        let mut status = self.0.clone();
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), status.wait_for(is_it)).await;
        assert!(found.is_ok(), "{:?}", self.status());
    }
}

/// The lag of a reader, in time. Clocks of this node and of the log may differ, so a message that was read at once has
/// the difference.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// How far this node's clock is ahead of that of the log, in milliseconds, by the fastest message.
    ahead_ms: Option<u64>,
}

impl Lag {
    /// Returns the lag in milliseconds after a message was read that was stored at `stored`, while `behind` others
    /// followed it.
    pub(super) fn read(&mut self, stored: Time, behind: u64, now: Time) -> u64 {
        let age = now.millis().saturating_sub(stored.millis());
        if behind > 0 {
            return age.saturating_sub(self.ahead_ms.unwrap_or_default());
        }
        self.ahead_ms = Some(self.ahead_ms.map_or(age, |ahead| ahead.min(age)));
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_what_is_read_while_more_follows() {
        let mut lag = Lag::default();
        let at = |seconds: u64| Time::from_millis(seconds * 1_000);
        assert_eq!(lag.read(at(10), 3, at(3_610)), 3_600_000, "after an hour away");
        assert_eq!(lag.read(at(3_610), 0, at(3_611)), 0);
        assert_eq!(lag.read(at(3_620), 5, at(3_627)), 6_000, "the fastest message took a second");
        // A clock that is 30 s ahead is no lag.
        let mut skewed = Lag::default();
        assert_eq!(skewed.read(at(10), 0, at(40)), 0);
        assert_eq!(skewed.read(at(11), 1, at(42)), 1_000);
        assert_eq!(skewed.read(at(50), 1, at(20)), 0, "a clock that was set back");
    }

    #[test]
    fn worst_problem_is_reported() {
        let healthy = LogStatus { reading: LogReading::Following, ..LogStatus::at_start(0, 0, false) };
        assert_eq!(healthy.problem(), None);
        let lagging = LogStatus { lag_ms: LAGGING_MS + 1, ..healthy.clone() };
        assert_eq!(lagging.problem(), Some(LogProblem::Lagging));
        let reset = LogStatus { is_resending: true, ..lagging };
        assert_eq!(reset.problem(), Some(LogProblem::LogReset));
        let open = LogStatus { breaker: BreakerState::Open, ..reset };
        assert_eq!(open.problem(), Some(LogProblem::LogAway));
        let gone = LogStatus { reading: LogReading::Gone, ..open };
        assert_eq!(gone.problem(), Some(LogProblem::LogGone));
        assert_eq!(LogStatus::at_start(0, 0, false).problem(), Some(LogProblem::LogAway));
    }

    #[test]
    fn error_is_that_of_the_reading_and_then_that_of_the_last_message() {
        let (failed, stored) = (Err::<u64, _>(LogError::TimedOut), Ok(7));
        let mut status = LogStatus::at_start(0, 0, false);
        status.answered(&failed);
        assert_eq!(status.error, None, "not read yet");
        status.interrupted(Some(LogError::NoJetStream), false);
        status.answered(&failed);
        assert_eq!(
            (&status.error, status.problem()),
            (&Some(LogError::NoJetStream), Some(LogProblem::NoJetStream))
        );
        status.reached(LogReading::Following);
        assert_eq!(status.error, None);
        status.answered(&failed);
        assert_eq!(status.error, Some(LogError::TimedOut));
        status.answered(&stored);
        assert_eq!(status.error, None);
        // A short interruption is none that an operator should see.
        status.interrupted(Some(LogError::Interrupted), false);
        assert_eq!((&status.error, status.reading), (&None, LogReading::Following));
        status.interrupted(Some(LogError::Unreachable), true);
        status.answered(&stored);
        assert_eq!((&status.error, status.reading), (&Some(LogError::Unreachable), LogReading::Away));
        status.reached(LogReading::Gone);
        assert_eq!(status.error, None);
        let text = serde_json::to_value(LogError::Refused("no".to_owned())).unwrap();
        assert_eq!(text, "the log refused: no");
    }
}
