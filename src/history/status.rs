//! The journal's state for `/health`, `/debug` and `/metrics`: what is pending, since when, and what flushes did.
//!
//! Plain values; this file does not read the journal.

use std::ops::{AddAssign, SubAssign};

use serde::Serialize;
use utoipa::ToSchema;

use super::event::Batch;
use super::store::Fault;
use crate::protocol::Time;

/// The number of a batch. Each batch that a flush takes has the next number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, ToSchema)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// The next epoch.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// How many events a flush committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Flushed {
    /// Page views.
    pub page_views: usize,
    /// States of watch sessions.
    pub watch_sessions: usize,
    /// Presence samples. The hub makes them, so answers to clients leave them out.
    #[serde(skip)]
    pub presence: usize,
    /// The position in the log that has all of them. None without a log, or while it is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub position: Option<u64>,
}

impl Flushed {
    pub(super) fn of(batch: &Batch) -> Self {
        Self {
            page_views: batch.page_views.len(),
            watch_sessions: batch.watches.len(),
            presence: batch.sample_count(),
            position: None,
        }
    }

    pub(super) fn len(self) -> usize {
        self.page_views + self.watch_sessions + self.presence
    }
}

impl SubAssign for Flushed {
    fn sub_assign(&mut self, other: Self) {
        self.page_views -= other.page_views;
        self.watch_sessions -= other.watch_sessions;
        self.presence -= other.presence;
    }
}

impl AddAssign for Flushed {
    fn add_assign(&mut self, other: Self) {
        self.page_views += other.page_views;
        self.watch_sessions += other.watch_sessions;
        self.presence += other.presence;
    }
}

/// The state of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalStatus {
    /// Page views that are not committed.
    pub pending_page_views: usize,
    /// States of watch sessions that are not committed.
    pub pending_watch_sessions: usize,
    /// Presence samples that are not committed.
    pub pending_presence: usize,
    /// Limit of pending events.
    pub limit: u64,
    /// Memory that pending events take, in bytes.
    pub pending_bytes: u64,
    /// Limit of that memory, in bytes.
    pub limit_bytes: u64,
    /// Whether a new address finds almost no room.
    pub is_full: bool,
    /// The open epoch.
    pub epoch: Epoch,
    /// Age of the oldest pending event, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// Time of the last successful commit.
    pub last_flush: Option<Time>,
    /// Whether a commit is in progress.
    pub is_committing: bool,
    /// The fault of the last commit, if it failed.
    pub fault: Option<Fault>,
    /// The database's error message of the last commit, if it failed.
    pub failing: Option<String>,
}

impl JournalStatus {
    /// All events that are not committed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending_page_views + self.pending_watch_sessions + self.pending_presence
    }
}
