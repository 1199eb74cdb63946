//! The write-ahead log: truncated while no reader uses it.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection};

use super::{LifecycleError, Store};

/// How long a checkpoint waits for transactions of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

impl Store {
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
        Ok(is_empty)
    }
}

/// Returns whether the checkpoint was complete.
async fn run(connection: &mut SqliteConnection, checkpoint: &'static str) -> Result<bool, sqlx::Error> {
    let (is_busy, _, _): (bool, i64, i64) = sqlx::query_as(checkpoint).fetch_one(connection).await?;
    Ok(!is_busy)
}
