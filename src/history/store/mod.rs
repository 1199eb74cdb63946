//! The store: one SQLite file, one writer, many readers.
//!
//! The writer commits one batch per transaction, facts and their rollups together, so that history
//! cannot disagree with itself. Readers are read-only and see only what is committed. Together with
//! `stats` this is the only place where sqlx appears.

mod adopt;
mod archive;
mod commit;
mod erase;
mod facts;
mod insert;
mod maintain;
mod mentions;
mod months;
pub(super) mod names;
mod partition;
mod person;
mod read;
mod recount;
mod restore;
pub(super) mod rollups;
mod seats;
mod versions;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::Sqlite;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};

pub use commit::Changes;
pub use erase::Erased;
pub use facts::Facts;
pub use maintain::Freed;
pub use months::{Archive, MonthRows, MonthState};
pub use person::PersonalData;
pub use recount::{Difference, Recount};
pub use seats::Seat;

use versions::Versions;

use super::archive::FileError;
use super::calendar::Month;
use super::event::Batch;
use crate::wire::RoomId;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// How long the writer waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The most connections that read at once.
const READERS: u32 = 4;

/// The most bytes that a checkpointed write-ahead log keeps on disk.
const JOURNAL_SIZE_LIMIT: &str = "67108864";

/// The database could not be opened or brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one of SQLite's.
    #[error("DATABASE_URL {url:?} must look like sqlite://path/to/file.db")]
    Url {
        /// As configured.
        url: String,
    },
    /// There is no file, and none is to be made.
    #[error("there is no database at {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The folder for the file could not be made.
    #[error("cannot make the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// SQLite cannot open or write the file.
    #[error("cannot open the database {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: sqlx::Error,
    },
    /// A migration failed; the ones before it have been applied.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] MigrateError),
    /// The new database could not be written.
    #[error("cannot write the database: {0}")]
    Begin(sqlx::Error),
    /// The facts of an older version could not be moved; those that were not are where they were.
    #[error("cannot move the facts of an older version: {0}")]
    Adopt(CommitError),
}

/// A batch could not be committed. Nothing of it was; the same batch may be tried again.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CommitError(#[from] sqlx::Error);

impl CommitError {
    /// Whether another process was writing all the time.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        // SQLITE_BUSY, also where the upper bits say more about it.
        let code = self.0.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
        code.is_some_and(|code| code & 0xff == 5)
    }
}

/// Keeping the history in order stopped on the way. What was done is whole, and the next try goes on.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The database did not do it.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// An archive is not as it must be.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no archive to restore.
    #[error("the month {0} is not archived")]
    NotArchived(Month),
    /// Somebody else is at work on the same archive.
    #[error("the archive of {0} has changed meanwhile: try again")]
    Changed(Month),
}

/// The migrations that a call applied, and the newest there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// Versions that were applied just now.
    pub applied: Vec<i64>,
    /// The version of the schema.
    pub current: i64,
}

/// The open database. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    pub(in crate::history) readers: SqlitePool,
    versions: Arc<Versions>,
}

impl Store {
    /// Opens the file, makes it (and its folder) if it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// What stands in the way, in words for whoever starts the hub.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let (options, path) = file(url)?;
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            std::fs::create_dir_all(folder)
                .map_err(|source| OpenError::Folder { path: folder.to_path_buf(), source })?;
        }
        let mut writer = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
            // What is deleted or overwritten leaves no copy in the page.
            .pragma("secure_delete", "FAST")
            .busy_timeout(BUSY_TIMEOUT);
        if std::fs::metadata(&path).map_or(true, |file| file.len() == 0) {
            // A file keeps this from its beginning. Told again, it would be a write, which a lock holds up.
            writer = writer.auto_vacuum(SqliteAutoVacuum::Incremental);
        }
        let readers = options.read_only(true).busy_timeout(BUSY_TIMEOUT);
        let not_opened = |source| OpenError::File { path: path.clone(), source };
        let writer = pool(1).connect_with(writer).await.map_err(not_opened)?;
        let store =
            Self { writer, readers: pool(READERS).connect_lazy_with(readers), versions: Arc::default() };
        store.migrate().await?;
        store.adopt().await.map_err(OpenError::Adopt)?;
        Ok(store)
    }

    /// Opens the file like [`open`](Self::open), but only where there is one.
    ///
    /// # Errors
    /// As above, and where there is none.
    pub async fn open_existing(url: &str) -> Result<Self, OpenError> {
        let (_, path) = file(url)?;
        if path.exists() { Self::open(url).await } else { Err(OpenError::Missing { path }) }
    }

    /// Applies the migrations that have not been applied.
    ///
    /// # Errors
    /// One failed, or the file has migrations that this version does not know.
    pub async fn migrate(&self) -> Result<Migrated, MigrateError> {
        let before = applied(&self.writer).await?;
        MIGRATIONS.run(&self.writer).await?;
        let mut after = applied(&self.writer).await?;
        let current = after.last().copied().unwrap_or_default();
        after.retain(|version| !before.contains(version));
        Ok(Migrated { applied: after, current })
    }

    /// Commits a batch: all of it, or nothing.
    ///
    /// # Errors
    /// The database is locked, full, gone or broken. Nothing has changed.
    pub async fn commit(&self, batch: &Batch) -> Result<Changes, CommitError> {
        let mut transaction = self.begin().await?;
        let changes = commit::store(&mut transaction, batch).await?;
        transaction.commit().await?;
        if !changes.is_empty() {
            self.versions.change(&changes.rooms);
        }
        Ok(changes)
    }

    /// The version of a room's figures, or of the whole hub's: rises whenever they change.
    #[must_use]
    pub fn version(&self, room: Option<&RoomId>) -> u64 {
        self.versions.of(room)
    }

    /// Begins a transaction on the writer.
    async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        // A transaction that reads first and then writes may fail for good; this one locks at once.
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        Ok(Transaction { connection, is_over: false })
    }

    /// The database's file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.readers.connect_options().get_filename().to_path_buf()
    }

    /// Closes all connections, which folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A transaction on the writer. Dropped before its commit, it changes nothing.
struct Transaction {
    connection: PoolConnection<Sqlite>,
    is_over: bool,
}

impl Transaction {
    async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(&mut *self.connection).await?;
        self.is_over = true;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // Closing rolls back. And after a full disk or an I/O error SQLite has rolled back by itself, which
        // sqlx does not see: only a new connection starts clean.
        if !self.is_over {
            self.connection.close_on_drop();
        }
    }
}

/// The file that a URL names.
fn file(url: &str) -> Result<(SqliteConnectOptions, PathBuf), OpenError> {
    let bad_url = || OpenError::Url { url: url.to_owned() };
    let options = SqliteConnectOptions::from_str(url).map_err(|_| bad_url())?;
    let path = options.get_filename().to_path_buf();
    if !url.starts_with("sqlite:") || path.as_os_str().is_empty() || url.contains(":memory:") {
        return Err(bad_url());
    }
    Ok((options, path))
}

async fn applied(writer: &SqlitePool) -> Result<Vec<i64>, MigrateError> {
    const TABLE: &str = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    const VERSIONS: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    let exists: i64 = sqlx::query_scalar(TABLE).fetch_one(writer).await?;
    if exists == 0 {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_scalar(VERSIONS).fetch_all(writer).await?)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    // Connections to a file do not wear out: none is ever replaced for its age.
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(5))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

#[cfg(test)]
mod tests;
