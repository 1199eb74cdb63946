//! The write-ahead log: its size, and its truncation while no reader uses it.
//!
//! SQLite copies the log into the file after each commit, but begins it again from the start only when no transaction
//! reads from it. Above a limit, a task closes the gate of the readers for a moment and truncates the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Notify;
use tokio::time::{interval, sleep};
use tracing::warn;

use super::status::DatabaseStatus;
use super::{LifecycleError, Store};

/// How long a checkpoint waits for transactions of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// Time between two looks at the size, besides those after each commit: other processes write too.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Delay after a checkpoint that was blocked.
const RETRY: Duration = Duration::from_secs(5);

/// The write-ahead log of a database. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct WriteAheadLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// The size above which it is truncated, in bytes.
    limit: u64,
    /// Notified when it is above the limit.
    over: Notify,
    status: DatabaseStatus,
}

impl WriteAheadLog {
    pub(super) fn new(database: &Path, limit: u64, status: DatabaseStatus) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self(Arc::new(Shared { path: path.into(), limit, over: Notify::new(), status }))
    }

    /// Measures the size. Returns whether it is above the limit, and wakes the task that truncates it.
    pub(super) async fn measure(&self) -> bool {
        let shared = Arc::clone(&self.0);
        // A volume that hangs must not block a worker thread.
        let found = tokio::task::spawn_blocking(move || std::fs::metadata(&shared.path)).await;
        // Without writers there is no log.
        let bytes = found.ok().and_then(Result::ok).map_or(0, |file| file.len());
        self.0.status.set_wal_bytes(bytes);
        let is_over = bytes > self.0.limit;
        if is_over {
            self.0.over.notify_one();
        }
        is_over
    }
}

impl Store {
    /// Truncates the write-ahead log whenever it is above its limit. Runs until it is dropped.
    pub(crate) async fn bound_wal(&self) {
        let mut look = interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = self.wal.0.over.notified() => {}
                _ = look.tick() => {}
            }
            if !self.wal.measure().await || matches!(self.checkpoint().await, Ok(true)) {
                continue;
            }
            if self.status.has_large_wal() {
                let bytes = self.status.wal_bytes();
                warn!(bytes, "cannot truncate the write-ahead log: a transaction of another program is long");
            }
            sleep(RETRY).await;
        }
    }

    /// Copies the write-ahead log into the file and truncates it. Reads pause meanwhile; the writer waits only while the
    /// newest frames are copied. Returns whether the log is empty, which a long transaction prevents.
    /// Errors: the database failed.
    pub(crate) async fn checkpoint(&self) -> Result<bool, LifecycleError> {
        // Checks that the file at the path is the hub's.
        drop(self.connection().await?);
        // On a separate connection, so that copying does not block the writer.
        let options = self.writer.connect_options().as_ref().clone().create_if_missing(false);
        let mut connection = options.busy_timeout(BUSY_TIMEOUT).connect().await?;
        // Most of the log is copied before the pause.
        run(&mut connection, "PRAGMA wal_checkpoint(PASSIVE)").await?;
        let mut is_empty = false;
        if let Some(_pause) = self.readers.gate().pause().await {
            let _writer = self.connection().await?;
            is_empty = run(&mut connection, "PRAGMA wal_checkpoint(TRUNCATE)").await?;
        }
        connection.close().await?;
        self.wal.measure().await;
        Ok(is_empty)
    }
}

/// Returns whether the checkpoint was complete.
async fn run(connection: &mut SqliteConnection, checkpoint: &'static str) -> Result<bool, sqlx::Error> {
    let (is_busy, _, _): (bool, i64, i64) = sqlx::query_as(checkpoint).fetch_one(connection).await?;
    Ok(!is_busy)
}
