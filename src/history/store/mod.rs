//! The store: one SQLite file, one writer connection, several reader connections.
//!
//! The writer commits a batch in one transaction, events and their rollups together, so that both always agree.
//! Readers are read-only and see committed data only. sqlx is used here and in `stats` only.

mod archiving;
mod backfill;
pub(crate) mod backup;
pub(in crate::history) mod codec;
pub(crate) mod commit;
mod convert;
mod correct;
mod database_file;
pub(super) mod dictionary;
pub(in crate::history) mod dimensions;
mod erase;
mod erased_visitors;
mod error;
mod hidden_names;
mod insert;
mod integrity;
mod last_run;
mod lock;
mod log;
mod maintain;
mod migrations;
pub(crate) mod month_sums;
pub(crate) mod months;
mod partition;
pub(in crate::history) mod prop_values;
pub(in crate::history) mod props;
mod read;
pub(crate) mod read_only;
mod readers;
mod recount;
mod rewrite;
mod roll_up;
pub(super) mod rollups;
mod saved_holds;
mod settle;
mod slices;
mod snapshot;
mod status;
mod sweep;
mod used_texts;
mod versions;
mod visitor_data;
mod wal;

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
use tokio::sync::Semaphore;
use utoipa::ToSchema;

pub(crate) use backup::BackupError;
pub(crate) use commit::Changes;
pub(crate) use erase::{Erased, Erasure};
pub(crate) use error::{CommitError, DatabaseFileError, Fault, LifecycleError, OpenError, ReadError};
pub(crate) use lock::DatabaseLock;
pub(crate) use log::{LogChange, LogRow, Moved, OutboxMessage};
pub(crate) use months::{MonthRows, MonthState};
pub(crate) use saved_holds::SavedHold;
pub(crate) use snapshot::SnapshotError;
pub(crate) use status::DatabaseStatus;
pub(crate) use visitor_data::{DataCursor, PersonalData};

use commit::OldKey;
pub(crate) use database_file::CheckFirst;
use database_file::{APPLICATION_ID, BUSY_TIMEOUT, DatabaseFile, FileId};
use readers::{ACQUIRE_TIMEOUT, READERS, ReadConnection, Readers};
use snapshot::SnapshotTurn;
use versions::Versions;
use wal::WriteAheadLog;

use super::event::Batch;
use super::scope::Scope;
use crate::private;
use crate::protocol::Time;

/// The default of [`StoreOptions::wal_limit`]: 64 MiB.
pub(super) const WAL_LIMIT: u64 = 64 * 1024 * 1024;

/// The write-ahead log is large from this many times its limit on.
const LARGE_WAL: u64 = 4;

/// How a database is opened. The default is for commands.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    /// Whether the whole file is checked first.
    pub check_first: CheckFirst,
    /// The longest time of a read.
    pub read_limit: Option<Duration>,
    /// The size above which the write-ahead log is truncated, in bytes.
    pub wal_limit: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { check_first: CheckFirst::Never, read_limit: None, wal_limit: WAL_LIMIT }
    }
}

/// Limit of the writer's page cache, in KiB as SQLite has it: 16 MiB. A commit of many new texts changes pages of large
/// indexes; with SQLite's default of 2 MiB it writes and reads them several times.
const WRITER_CACHE: &str = "-16384";

/// The page size of a new database, in bytes. A row of a table without rowids that is larger than about a quarter of a page
/// takes another page of its own (<https://www.sqlite.org/fileformat2.html>, section 1.6). The largest page view takes
/// 1.1 KB.
const PAGE_BYTES: u32 = 8_192;

/// The migrations that a call applied, and the schema's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Migrated {
    /// Versions that this call applied.
    pub applied: Vec<i64>,
    /// The version of the schema.
    pub current: i64,
}

/// The open database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    readers: Readers,
    versions: Arc<Versions>,
    file: DatabaseFile,
    /// Held while page views are counted by a property without rollups.
    prop_counts: Arc<Semaphore>,
    wal: WriteAheadLog,
    status: DatabaseStatus,
    /// One permit, which is taken while the tables of a month are converted.
    conversion: Arc<Semaphore>,
    snapshots: SnapshotTurn,
}

impl Store {
    /// Opens the database and migrates it. Creates the file and its folder if they are missing.
    ///
    /// # Errors
    /// The file cannot be opened, used or migrated. The message is for the operator.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Self::open_with(url, StoreOptions::default()).await
    }

    /// Opens the database with these options, as [`open`](Self::open) does.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub(crate) async fn open_with(url: &str, with: StoreOptions) -> Result<Self, OpenError> {
        let (options, path) = prepare(url).await?;
        database_file::check(&path, true, with.check_first).await?;
        let mut writer = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", with.wal_limit.to_string())
            // Deleted and overwritten data leaves no copy in the page.
            .pragma("secure_delete", "FAST")
            .pragma("cache_size", WRITER_CACHE)
            .busy_timeout(BUSY_TIMEOUT);
        // A later reconnect must not create a new file.
        let reopen = writer.clone().create_if_missing(false);
        if std::fs::metadata(&path).map_or(true, |file| file.len() == 0) {
            // Only for a new file: on an existing one these pragmas are writes, which another process's lock blocks.
            writer = writer
                .page_size(PAGE_BYTES)
                .auto_vacuum(SqliteAutoVacuum::Incremental)
                .pragma("application_id", APPLICATION_ID.to_string());
        }
        // SQLite gives the write-ahead log the mode of the file. If this fails, SQLite reports the better error.
        drop(private::create_new(&path));
        let not_opened = |source| OpenError::File { path: path.clone(), source };
        let file = DatabaseFile::new(path.clone());
        let writer = pool(1, &file).connect_with(writer).await.map_err(not_opened)?;
        writer.set_connect_options(reopen);
        file.opened().await?;
        let readers = options.read_only(true).busy_timeout(BUSY_TIMEOUT);
        let readers = Readers::new(pool(READERS, &file).connect_lazy_with(readers), with.read_limit);
        let store = Self::of(writer, readers, file, &path, with.wal_limit);
        store.migrate().await?;
        store.backfill().await.map_err(OpenError::Backfill)?;
        Ok(store)
    }

    fn of(writer: SqlitePool, readers: Readers, file: DatabaseFile, path: &Path, wal_limit: u64) -> Self {
        let status = DatabaseStatus::new(wal_limit.saturating_mul(LARGE_WAL));
        let wal = WriteAheadLog::new(path, wal_limit, status.clone());
        let (prop_counts, conversion) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let (versions, snapshots) = (Arc::default(), SnapshotTurn::default());
        Self { writer, readers, versions, file, prop_counts, wal, status, conversion, snapshots }
    }

    /// The state of the database file.
    pub(crate) fn status(&self) -> &DatabaseStatus {
        &self.status
    }

    /// Applies the migrations that are missing.
    /// Errors: a migration failed, the file has migrations of a newer version, or the file cannot be used.
    pub(crate) async fn migrate(&self) -> Result<Migrated, OpenError> {
        drop(self.connection().await?);
        let before = applied(&self.writer).await?;
        Migrator::with_migrations(migrations::all()).run(&self.writer).await?;
        let mut after = applied(&self.writer).await?;
        let current = after.last().copied().unwrap_or_default();
        after.retain(|version| !before.contains(version));
        Ok(Migrated { applied: after, current })
    }

    /// Commits a batch in one transaction.
    ///
    /// # Errors
    /// The database is locked, full, gone or damaged. It is unchanged.
    pub async fn commit(&self, batch: &Batch) -> Result<Changes, CommitError> {
        Ok(self.commit_with(batch, None).await?.0)
    }

    /// Commits a batch and what changes with it in the log's tables, in one transaction. Returns whether the file had
    /// the position that the change expects; if not, the position stays.
    /// Errors: those of [`commit`](Self::commit).
    pub(crate) async fn commit_logged(&self, batch: &Batch, log: &LogChange) -> Result<bool, CommitError> {
        Ok(self.commit_with(batch, Some(log)).await?.1)
    }

    /// As [`commit_logged`](Self::commit_logged), and returns the changes.
    /// Errors: those of [`commit`](Self::commit).
    pub(crate) async fn commit_with_log(
        &self,
        batch: &Batch,
        log: &LogChange,
    ) -> Result<Changes, CommitError> {
        Ok(self.commit_with(batch, Some(log)).await?.0)
    }

    async fn commit_with(
        &self,
        batch: &Batch,
        log: Option<&LogChange>,
    ) -> Result<(Changes, bool), CommitError> {
        match self.try_commit(batch, log).await {
            Err(
                error @ (CommitError::Database(_) | CommitError::File(DatabaseFileError::Unreadable { .. })),
            ) => Err(self.file.write_error().await.map_or(error, CommitError::File)),
            result => result,
        }
    }

    async fn try_commit(
        &self,
        batch: &Batch,
        log: Option<&LogChange>,
    ) -> Result<(Changes, bool), CommitError> {
        loop {
            let mut transaction = self.begin().await?;
            let stored = commit::store(&mut transaction, batch).await?;
            let is_expected = match log {
                Some(log) if stored.is_ok() => log.write(&mut transaction).await?,
                _ => true,
            };
            transaction.commit().await?;
            match stored {
                Ok(changes) => {
                    if !changes.is_empty() {
                        self.versions.change(&changes.rooms, &changes.days);
                    }
                    return Ok((changes, is_expected));
                }
                Err(OldKey(months)) => self.convert(&months).await?,
            }
        }
    }

    /// Returns the version of all figures. It rises with each change.
    pub(crate) fn version(&self) -> u64 {
        self.versions.newest()
    }

    /// Returns the version since which the figures of a scope have not changed in a period.
    pub(crate) fn version_of(&self, scope: &Scope, period: (Time, Time)) -> u64 {
        self.versions.of(scope.room(), period)
    }

    /// Returns a reader's connection, for one short transaction.
    /// Errors: all connections are in use for too long, or the file cannot be opened.
    pub(in crate::history) async fn read(&self) -> Result<ReadConnection, sqlx::Error> {
        self.readers.read().await
    }

    /// No read begins until the result is dropped.
    #[cfg(test)]
    pub(in crate::history) async fn pause_reads(&self) -> impl Sized + use<> {
        self.readers.gate().pause().await
    }

    /// Returns the writer's connection to the file that is at the path now.
    async fn connection(&self) -> Result<PoolConnection<Sqlite>, CommitError> {
        if !self.file.is_same().await? {
            self.file.switch().await?;
            self.versions.change_all();
        }
        Ok(self.writer.acquire().await?)
    }

    /// Begins a transaction on the writer.
    async fn begin(&self) -> Result<Transaction, CommitError> {
        let connection = self.connection().await?;
        let file_id = self.file.id();
        // Built before BEGIN, so that a future dropped meanwhile closes the connection and leaves no open transaction to
        // the next user. A connection whose BEGIN failed is closed too: opened on a read-only volume, it stays read-only.
        let (file, wal) = (self.file.clone(), self.wal.clone());
        let mut transaction = Transaction { connection, file, file_id, wal, is_over: false };
        // IMMEDIATE takes the write lock now. A transaction that upgrades from read to write later may fail for good.
        if let Err(error) = sqlx::query("BEGIN IMMEDIATE").execute(&mut *transaction).await {
            if error::result_code(&error) == Some(8) {
                self.readers.close_idle().await;
            }
            return Err(error.into());
        }
        Ok(transaction)
    }

    /// The database's path.
    pub(crate) fn path(&self) -> PathBuf {
        self.readers.pool().connect_options().get_filename().to_path_buf()
    }

    /// Whether no connection is in use.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let is_idle = |pool: &SqlitePool| pool.num_idle() == pool.size() as usize;
        is_idle(&self.writer) && is_idle(self.readers.pool())
    }

    /// Makes commits of events fail from now on, or no more.
    #[cfg(test)]
    pub(crate) async fn fail_commits(&self, is_failing: bool) {
        let statement = if is_failing {
            "CREATE TRIGGER IF NOT EXISTS failing BEFORE INSERT ON activity_rollups BEGIN SELECT RAISE(FAIL, 'failing'); END"
        } else {
            "DROP TRIGGER IF EXISTS failing"
        };
        sqlx::query(statement).execute(&self.writer).await.unwrap();
    }

    /// Closes all connections. SQLite then copies the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.pool().close().await;
        self.writer.close().await;
    }
}

/// A transaction on the writer, or one that is about to begin. Rolls back when dropped before its commit.
struct Transaction {
    connection: PoolConnection<Sqlite>,
    file: DatabaseFile,
    /// The open file when the transaction began.
    file_id: Option<FileId>,
    wal: WriteAheadLog,
    is_over: bool,
}

impl Transaction {
    async fn commit(mut self) -> Result<(), CommitError> {
        sqlx::query("COMMIT").execute(&mut *self.connection).await?;
        self.is_over = true;
        self.file.confirm(self.file_id).await?;
        self.wal.measure().await;
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
        // Closing the connection rolls back. After a full disk or an I/O error SQLite has already rolled back by itself,
        // unknown to sqlx, so only a new connection is in a defined state.
        if !self.is_over {
            self.connection.close_on_drop();
        }
    }
}

/// Parses a URL, creates the file's folder if it is missing, and checks that both are writable.
async fn prepare(url: &str) -> Result<(SqliteConnectOptions, PathBuf), OpenError> {
    let (options, path) = parse_url(url)?;
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        private::create_folder(folder)
            .map_err(|source| OpenError::Folder { path: folder.to_path_buf(), source })?;
    }
    match database_file::write_error(path.clone()).await {
        Some(error) => Err(error.into()),
        None => Ok((options, path)),
    }
}

/// Returns the options and the path of a `sqlite://` URL.
fn parse_url(url: &str) -> Result<(SqliteConnectOptions, PathBuf), OpenError> {
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

fn pool(connections: u32, file: &DatabaseFile) -> SqlitePoolOptions {
    let file = file.clone();
    // Connections have no maximum age: one is replaced only after the file at the path changed.
    SqlitePoolOptions::new()
        .before_acquire(move |_, connection| {
            let is_current = file.is_current(connection.age);
            Box::pin(async move { Ok(is_current) })
        })
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

#[cfg(test)]
mod tests;
