//! How the journal does: what is pending, since when, and what a flush did.
//!
//! Plain numbers, for `/health`, `/debug` and `/metrics`.

use std::ops::{AddAssign, SubAssign};

use serde::Serialize;
use utoipa::ToSchema;

use super::event::Batch;
use super::fault::Fault;
use super::journal::Epoch;
use crate::protocol::Time;

/// What a flush brought to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Flushed {
    /// Page views.
    pub page_views: usize,
    /// States of watch sessions.
    pub watch_sessions: usize,
    /// Presence samples, which are the hub's own and which nobody asks for.
    #[serde(skip)]
    pub presence: usize,
}

impl Flushed {
    pub(super) fn of(batch: &Batch) -> Self {
        Self {
            page_views: batch.page_views.len(),
            watch_sessions: batch.watches.len(),
            presence: batch.samples(),
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

/// How the journal does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = JournalStatus)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Page views that are not yet in the database.
    pub pending_page_views: usize,
    /// States of watch sessions that are not yet in the database.
    pub pending_watch_sessions: usize,
    /// Presence samples that are not yet in the database.
    pub pending_presence: usize,
    /// The most events that may be pending.
    pub limit: u64,
    /// How many bytes of memory pending events take.
    pub pending_bytes: u64,
    /// The most that they may take.
    pub limit_bytes: u64,
    /// Whether there is next to no room, for any address.
    pub is_full: bool,
    /// The epoch that is open.
    pub epoch: Epoch,
    /// How long the oldest pending event has waited, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// When the last commit succeeded.
    pub last_flush: Option<Time>,
    /// Whether a batch is being committed.
    pub is_committing: bool,
    /// What was wrong at the last commit, until one succeeds again.
    pub fault: Option<Fault>,
    /// The same in the database's words.
    pub failing: Option<String>,
}

impl Status {
    /// Events that are not yet in the database.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending_page_views + self.pending_watch_sessions + self.pending_presence
    }
}
