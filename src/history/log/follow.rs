//! The task that reads the log: decodes its messages for the flush task, and begins again after an interruption.
//!
//! It decides at each beginning where to go on. What it passes on is bounded: a message waits until the flush task takes
//! it, and the log sends no more than a few of them ahead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use super::command::{Command, ErasedVisitor};
use super::erasures::Erasures;
use super::message::{BadMessage, Body, Origin, decode, id_of, replaced};
use super::metrics::LogMetrics;
use super::start::{Start, StoredPosition, start};
use super::status::{Lag, LogReading, LogStatus};
use super::{Log, LogEntry, LogError};
use crate::history::event::Batch;
use crate::history::store::{CommitError, LogRow, ReadError, Store};
use crate::panics::Panics;
use crate::protocol::Time;
use crate::time::Clock;

/// Messages that wait for the flush task: each has at most two megabytes of records.
pub(super) const WAITING: usize = 8;

/// The pause after the first failure, which doubles up to the longest.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long a log that has lost messages must look so. A server that has just started may not know all of them yet.
const CONFIRM: Duration = Duration::from_secs(2);

/// The time between two looks at a log that does not reach back.
const GONE_CHECK: Duration = Duration::from_secs(30);

/// The most messages at the beginning of the log that erasures may have deleted before a node reads them.
const MOST_CLEANED: u64 = 1_000_000;

/// How long the next message of the log may take.
pub(super) const NEXT_LIMIT: Duration = Duration::from_secs(5);

/// The time between two log lines about failures.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// How far back a node publishes again: as old as an event may be when it arrives, and a day.
const RESEND_MS: u64 = 8 * 24 * 60 * 60 * 1_000;

/// What the reading task passes on.
#[derive(Debug)]
pub(crate) enum FollowerOutput {
    /// The next messages follow this position.
    Begin {
        /// The name of the log.
        log: Arc<str>,
        /// The position.
        after: u64,
        /// What is to be published again.
        lost: Option<Lost>,
    },
    /// A message.
    Message {
        /// Its position.
        position: u64,
        /// How many messages followed it.
        behind: u64,
        /// The lag in milliseconds.
        lag_ms: u64,
        /// What it says.
        content: Content,
    },
}

/// Events that a log may have lost: this node publishes its own again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The time of the first one.
    pub since: Time,
    /// Whether the loss was noticed now, and not at an earlier beginning.
    pub is_new: bool,
}

/// What a message says.
#[derive(Debug)]
pub(crate) enum Content {
    /// It is a message of this run, with this number.
    Own(u64),
    /// The events of another run. None of them where the message cannot be read.
    Events(Batch),
    /// The erasures of another run.
    Erasures(Vec<ErasedVisitor>),
}

/// Why the reading was interrupted.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the position cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the position cannot be written: {0}")]
    Commit(#[from] CommitError),
    #[error("the flush task has ended")]
    Ended,
}

/// What the tasks of the log are made of.
#[derive(Debug, Clone)]
pub(crate) struct LogParts {
    /// What stores it.
    pub log: Arc<dyn Log>,
    /// The file.
    pub store: Store,
    /// The clock.
    pub clock: Clock,
    /// Counts panics.
    pub panics: Panics,
    /// Counters.
    pub metrics: LogMetrics,
    /// The erasures of the log.
    pub erasures: Erasures,
}

/// The reading task.
#[derive(Debug)]
pub(super) struct Follower {
    parts: LogParts,
    origin: Origin,
    status: watch::Sender<LogStatus>,
    sender: mpsc::Sender<FollowerOutput>,
    /// The last message that was passed on, and its log.
    last: Option<StoredPosition>,
    lag: Lag,
    logged: Option<Instant>,
    retry: Duration,
    /// The position to which the log does not reach back, although it was looked at whether only erasures have moved its
    /// beginning.
    gone: Option<u64>,
}

impl Follower {
    /// A task that has read nothing yet, of a run with this origin.
    pub(super) fn new(
        parts: LogParts,
        origin: Origin,
        status: watch::Sender<LogStatus>,
        sender: mpsc::Sender<FollowerOutput>,
    ) -> Self {
        let (last, lag, logged, gone) = (None, Lag::default(), None, None);
        Self { parts, origin, status, sender, last, lag, logged, retry: RETRY_MIN, gone }
    }

    /// Reads until the flush task has ended.
    pub(super) async fn run(mut self) {
        loop {
            let Err(error) = self.follow().await else { continue };
            if matches!(error, Interrupted::Ended) {
                return;
            }
            let reason = if let Interrupted::Log(error) = &error { Some(error.clone()) } else { None };
            // The first interruption may be a server that stopped, while the others go on.
            let is_away = self.retry > RETRY_MIN;
            self.status.send_modify(|status| status.interrupted(reason, is_away));
            if self.is_log_due() {
                warn!(%error, "cannot read the log: trying again");
            }
            sleep(self.retry).await;
            self.retry = (self.retry * 2).min(RETRY_MAX);
        }
    }

    /// Reads until an error, or looks at a log that does not reach back.
    async fn follow(&mut self) -> Result<(), Interrupted> {
        let mut log = self.parts.log.state().await?;
        let row = self.parts.store.log_row().await?;
        let stored = row.as_ref().map(|row| StoredPosition { log: row.log.clone(), position: row.position });
        // What was passed on is committed later.
        let last = self.last.clone().filter(|last| stored.as_ref().is_some_and(|row| row.log == last.log));
        let stored = last.or(stored);
        let mut decision = start(stored.as_ref(), &log);
        if decision == Start::Reset {
            sleep(CONFIRM).await;
            log = self.parts.log.state().await?;
            decision = start(stored.as_ref(), &log);
        }
        if let Start::Gone(after) = decision
            && self.is_cleaned(after, log.first).await?
        {
            decision = Start::After(after);
        }
        if row.is_none() {
            self.parts.store.set_log_row(&at_start(&log.name, None)).await?;
        }
        self.status.send_modify(|status| status.is_log_known = true);
        match decision {
            Start::After(after) => {
                let missing = row.and_then(|row| row.resend_from).map(|since| Lost { since, is_new: false });
                self.read(&log.name, after, missing).await
            }
            Start::Reset => {
                warn!(
                    "the log has lost messages: this node publishes the events of its last 8 days again, and reads the log from the beginning"
                );
                let since = self.parts.clock.wall().minus(RESEND_MS);
                self.parts.store.set_log_row(&at_start(&log.name, Some(since))).await?;
                self.read(&log.name, 0, Some(Lost { since, is_new: true })).await
            }
            Start::Gone(_) => {
                if self.status.borrow().reading != LogReading::Gone {
                    error!(
                        first = log.first,
                        "the log does not reach back to this node's position: the file lacks events of other nodes. Replace it by a copy of another node's file"
                    );
                }
                self.set_reading(LogReading::Gone);
                sleep(GONE_CHECK).await;
                Ok(())
            }
        }
    }

    /// Whether all messages between a position and the first one of the log were deleted by erasures: later messages stand
    /// for them.
    async fn is_cleaned(&mut self, after: u64, first: u64) -> Result<bool, Interrupted> {
        let missing = after + 1..first;
        if self.gone == Some(after) || first.saturating_sub(after) > MOST_CLEANED {
            return Ok(false);
        }
        let mut found = BTreeSet::new();
        let mut reader = self.parts.log.read(first.saturating_sub(1)).await?;
        let mut has_more = self.parts.log.state().await?.last >= first;
        while has_more {
            // If the last messages are deleted, the next one may never come.
            let Ok(entry) = timeout(NEXT_LIMIT, reader.next()).await else { break };
            let LogEntry { behind, message, .. } = entry?;
            found.extend(replaced(&message).into_iter().filter(|position| missing.contains(position)));
            has_more = behind > 0;
        }
        let is_cleaned = found.len() as u64 == first - after - 1;
        self.gone = (!is_cleaned).then_some(after);
        Ok(is_cleaned)
    }

    /// Reads after a position, until an error.
    async fn read(&mut self, name: &str, after: u64, missing: Option<Lost>) -> Result<(), Interrupted> {
        // Before the log is asked: that may fail, and what is new is known only now.
        self.pass_on(FollowerOutput::Begin { log: name.into(), after, lost: missing }).await?;
        let mut reader = self.parts.log.read(after).await?;
        // A log that was made again since it was looked at has other messages at these positions.
        if self.parts.log.state().await?.name != name {
            return Err(LogError::Interrupted.into());
        }
        self.set_reading(LogReading::Following);
        info!(after, "reading the log");
        (self.retry, self.logged) = (RETRY_MIN, None);
        let mut last = StoredPosition { log: name.to_owned(), position: after };
        self.last = Some(last.clone());
        loop {
            let LogEntry { position, behind, stored, message } = reader.next().await?;
            let lag_ms = self.lag.read(stored, behind, self.parts.clock.wall());
            let content = self.content(&message, position);
            self.pass_on(FollowerOutput::Message { position, behind, lag_ms, content }).await?;
            last.position = position;
            self.last = Some(last.clone());
        }
    }

    /// Decodes a message. One that cannot be read is skipped.
    fn content(&mut self, message: &[u8], position: u64) -> Content {
        let read = |origin| -> Result<Content, BadMessage> {
            let id = id_of(message)?;
            if id.origin == origin {
                return Ok(Content::Own(id.number));
            }
            Ok(match decode(message)? {
                Body::Events(batch) => Content::Events(batch),
                Body::Command(Command::Erase { visitors }) => {
                    Content::Erasures(self.checked(visitors, position))
                }
            })
        };
        read(self.origin).unwrap_or_else(|error| {
            self.parts.metrics.unreadable.increment(1);
            if self.is_log_due() {
                warn!(%error, position, "a message of the log cannot be read and is skipped: do all nodes have the same version?");
            }
            Content::Events(Batch::default())
        })
    }

    /// Leaves out the erasures that no node with the admin token of this one has made.
    fn checked(&self, mut visitors: Vec<ErasedVisitor>, position: u64) -> Vec<ErasedVisitor> {
        let before = visitors.len();
        visitors.retain(|erasure| self.parts.erasures.key().has_made(erasure));
        if visitors.len() < before {
            self.parts.metrics.unreadable.increment(1);
            error!(
                position,
                "erasures of the log are not done here, since another ADMIN_TOKEN has made them: erase these visitors \
                 once more, with one token on all nodes"
            );
        }
        visitors
    }

    async fn pass_on(&self, incoming: FollowerOutput) -> Result<(), Interrupted> {
        self.sender.send(incoming).await.map_err(|_| Interrupted::Ended)
    }

    fn set_reading(&self, reading: LogReading) {
        self.status.send_modify(|status| status.reached(reading));
    }

    fn is_log_due(&mut self) -> bool {
        let is_due = self.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
        if is_due {
            self.logged = Some(Instant::now());
        }
        is_due
    }
}

/// The row of a log of which nothing is in the file.
fn at_start(name: &str, resend_from: Option<Time>) -> LogRow {
    LogRow { log: name.to_owned(), position: 0, resend_from }
}
