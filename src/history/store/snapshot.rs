//! Snapshots: a consistent copy of the database, for a node that joins.
//!
//! SQLite copies one state to a file beside the database (`VACUUM INTO`), while commits go on. What belongs to this node
//! alone is deleted from the copy. The file loses its name before it is sent, so that nothing is left of it however that
//! ends. As with a backup, the write-ahead log cannot be truncated while SQLite copies.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::statvfs;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Semaphore;

use super::backup::{vacuum_into, with_suffix};
use super::{Store, WAL_LIMIT};
use crate::history::sent_file::{SentFile, blocking};
use crate::private;

/// What the name of a copy adds to that of the database.
const SUFFIX: &str = ".snapshot";

/// What stays free on the volume besides a copy, in bytes: commits go on.
const MARGIN: u64 = WAL_LIMIT;

/// What belongs to this node: the holds of its visitors, its last run, and what it has still to publish to the log. Another node
/// begins without it, at the position that this one has.
const OF_NODE: [&str; 5] = [
    "DELETE FROM seats",
    "DELETE FROM last_run",
    "DELETE FROM outbox",
    "UPDATE log SET resend_from = NULL",
    // An erasure of the node that was asked has no position.
    "UPDATE erased_visitors SET clean_after = NULL, cleaning = NULL, position = ifnull(position, 0)",
];

/// There is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another snapshot is being made or sent.
    #[error("another snapshot is being made or sent: try again later")]
    Busy,
    /// The volume of the database has no room for a copy.
    #[error("the volume has no room for a copy of the database: it needs {needed} free bytes and has {free}")]
    NoRoom {
        /// The bytes of a copy, and those that stay free.
        needed: u64,
        /// The free bytes.
        free: u64,
    },
    /// SQLite cannot copy the database.
    #[error("cannot copy the database: {0}")]
    Copy(#[from] sqlx::Error),
    /// The copy cannot be written or read.
    #[error("cannot write a copy of the database: {0}")]
    File(#[from] io::Error),
}

/// The turn of a snapshot, of which there is one at a time.
#[derive(Debug, Clone)]
pub(super) struct SnapshotTurn(Arc<Semaphore>);

impl Default for SnapshotTurn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// The name of a copy that is being made. The file is deleted when this is dropped.
struct Named(PathBuf);

impl Drop for Named {
    fn drop(&mut self) {
        // Its name may be gone already. A copy that stays is overwritten by the next one.
        let _ = fs::remove_file(&self.0);
    }
}

impl Store {
    /// Copies the database as it is now.
    /// Errors: another copy is being made or sent, the volume has no room for one, or SQLite or the system failed.
    pub(crate) async fn snapshot(&self) -> Result<SentFile, SnapshotError> {
        let turn = Arc::clone(&self.snapshots.0).try_acquire_owned().map_err(|_| SnapshotError::Busy)?;
        let database = self.path();
        let needed = self.size().await?.saturating_add(MARGIN);
        let copy = Named(with_suffix(&database, SUFFIX));
        let free = blocking(move || free_bytes(&database)).await?;
        if free < needed {
            return Err(SnapshotError::NoRoom { needed, free });
        }
        drop(private::create(&copy.0)?);
        let options = self.readers.pool().connect_options().as_ref().clone();
        vacuum_into(options, &copy.0).await?;
        delete_of_node(&copy.0).await?;
        // `copy` is dropped as soon as the file is open.
        Ok(SentFile::open(move || File::open(&copy.0), Some(turn)).await?)
    }

    /// Deletes a copy that a crash has left. For the hub that holds the database's lock.
    pub(crate) fn delete_old_snapshot(&self) {
        drop(Named(with_suffix(&self.path(), SUFFIX)));
    }

    /// The bytes of the pages that a copy has.
    async fn size(&self) -> Result<u64, sqlx::Error> {
        const SIZE: &str = "
            SELECT (page_count - freelist_count) * page_size
            FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        sqlx::query_scalar(SIZE).fetch_one(&mut *self.read().await?).await
    }
}

/// Deletes what belongs to this node alone.
async fn delete_of_node(copy: &Path) -> Result<(), sqlx::Error> {
    // Only this connection uses the copy, which is useless after a crash.
    let options = SqliteConnectOptions::new().filename(copy).journal_mode(SqliteJournalMode::Off);
    let mut connection = options.pragma("secure_delete", "ON").connect().await?;
    for statement in OF_NODE {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    connection.close().await
}

/// The bytes that the hub may still write to the volume of a file.
fn free_bytes(path: &Path) -> io::Result<u64> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let volume = statvfs(folder)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}
