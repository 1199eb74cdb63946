//! The state of the database file for `/health` and `/metrics`: damage, and the size of the write-ahead log.
//!
//! Plain values in memory; this file does not read the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The state of the database file. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseStatus(Arc<DatabaseState>);

#[derive(Debug)]
struct DatabaseState {
    is_damaged: AtomicBool,
    wal_bytes: AtomicU64,
    /// The size from which on the write-ahead log is large.
    large_wal_bytes: u64,
}

impl DatabaseStatus {
    pub(super) fn new(large_wal_bytes: u64) -> Self {
        let (is_damaged, wal_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        Self(Arc::new(DatabaseState { is_damaged, wal_bytes, large_wal_bytes }))
    }

    /// Whether a check of the file found damage.
    pub(crate) fn is_damaged(&self) -> bool {
        self.0.is_damaged.load(Ordering::Relaxed)
    }

    pub(super) fn set_damaged(&self, is_damaged: bool) {
        self.0.is_damaged.store(is_damaged, Ordering::Relaxed);
    }

    /// Size of the write-ahead log, as of the last commit.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.0.wal_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_wal_bytes(&self, bytes: u64) {
        self.0.wal_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether the write-ahead log is so large that something keeps it from being truncated.
    pub(crate) fn has_large_wal(&self) -> bool {
        self.wal_bytes() > self.0.large_wal_bytes
    }
}
