//! The store: one SQLite file, one writer, many readers.
//!
//! The writer commits one batch per transaction, facts and their rollups together, so that history
//! cannot disagree with itself. Readers are read-only and see only what is committed. Together with
//! `stats` this is the only place where sqlx appears.

mod adopt;
mod archive;
pub(crate) mod commit;
pub(super) mod dictionary;
mod erase;
mod error;
mod facts;
mod file;
mod holds;
mod insert;
mod lock;
mod maintain;
mod mentions;
mod migrations;
pub(crate) mod months;
mod partition;
mod person;
mod read;
mod recount;
mod restore;
pub(super) mod rollups;
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
use utoipa::ToSchema;

pub(crate) use commit::Changes;
pub(crate) use erase::Erased;
pub(crate) use error::{CommitError, LifecycleError, OpenError};
pub(crate) use file::Unfit;
pub(crate) use holds::SavedHold;
pub(crate) use lock::Lock;
pub(crate) use months::{MonthRows, MonthState};
pub(crate) use person::PersonalData;

use file::{APPLICATION_ID, Identity, Place};
use versions::Versions;

use super::event::Batch;
use crate::private;
use crate::protocol::RoomId;

/// How long the writer waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The most connections that read at once.
const READERS: u32 = 4;

/// The most bytes that a checkpointed write-ahead log keeps on disk.
const JOURNAL_SIZE_LIMIT: &str = "67108864";

/// The migrations that a call applied, and the newest there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Migrated {
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
    place: Place,
}

impl Store {
    /// Opens the file, makes it (and its folder) if it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// What stands in the way, in words for whoever starts the hub.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let (options, path) = prepare(url).await?;
        file::examine(&path, true).await?;
        let mut writer = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
            // What is deleted or overwritten leaves no copy in the page.
            .pragma("secure_delete", "FAST")
            .busy_timeout(BUSY_TIMEOUT);
        // From now on a file that is missing is gone, and none is made in its place.
        let reopen = writer.clone().create_if_missing(false);
        if std::fs::metadata(&path).map_or(true, |file| file.len() == 0) {
            // A file keeps this from its beginning. Told again, it would be a write, which a lock holds up.
            writer = writer
                .auto_vacuum(SqliteAutoVacuum::Incremental)
                .pragma("application_id", APPLICATION_ID.to_string());
        }
        // SQLite gives its log the mode of the file. What keeps a file from being made, SQLite says better.
        drop(private::create_new(&path));
        let not_opened = |source| OpenError::File { path: path.clone(), source };
        let place = Place::new(path.clone());
        let writer = pool(1, &place).connect_with(writer).await.map_err(not_opened)?;
        writer.set_connect_options(reopen);
        place.opened().await?;
        let readers = options.read_only(true).busy_timeout(BUSY_TIMEOUT);
        let readers = pool(READERS, &place).connect_lazy_with(readers);
        let store = Self { writer, readers, versions: Arc::default(), place };
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
    /// One failed, or the file has migrations that this version does not know, or is none to write to.
    pub(crate) async fn migrate(&self) -> Result<Migrated, OpenError> {
        drop(self.connection().await?);
        let before = applied(&self.writer).await?;
        Migrator::with_migrations(migrations::all()).run(&self.writer).await?;
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
        match self.try_commit(batch).await {
            Err(error @ (CommitError::Database(_) | CommitError::File(Unfit::Unreadable { .. }))) => {
                Err(self.place.refusal().await.map_or(error, CommitError::File))
            }
            result => result,
        }
    }

    async fn try_commit(&self, batch: &Batch) -> Result<Changes, CommitError> {
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
    pub(crate) fn version(&self, room: Option<&RoomId>) -> u64 {
        self.versions.of(room)
    }

    /// The writer's connection, to the file that is at the path.
    async fn connection(&self) -> Result<PoolConnection<Sqlite>, CommitError> {
        if !self.place.is_same().await? {
            self.place.adopt().await?;
            self.versions.change_all();
        }
        Ok(self.writer.acquire().await?)
    }

    /// Begins a transaction on the writer.
    async fn begin(&self) -> Result<Transaction, CommitError> {
        let connection = self.connection().await?;
        let file = self.place.file();
        // It is one before it has begun: whoever is dropped meanwhile must not leave it open to who comes next. Nor
        // is a connection kept that could not begin: one that was opened while the volume was read-only would stay so.
        let mut transaction = Transaction { connection, place: self.place.clone(), file, is_over: false };
        // A transaction that reads first and then writes may fail for good; this one locks at once.
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *transaction).await?;
        Ok(transaction)
    }

    /// The database's file.
    #[must_use]
    pub(crate) fn file(&self) -> PathBuf {
        self.readers.connect_options().get_filename().to_path_buf()
    }

    /// Closes all connections, which folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A transaction on the writer, or one that is about to begin. Dropped before its commit, it changes nothing.
struct Transaction {
    connection: PoolConnection<Sqlite>,
    place: Place,
    /// Which file was at the place when it began.
    file: Option<Identity>,
    is_over: bool,
}

impl Transaction {
    async fn commit(mut self) -> Result<(), CommitError> {
        sqlx::query("COMMIT").execute(&mut *self.connection).await?;
        self.is_over = true;
        Ok(self.place.confirm(self.file).await?)
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

/// The file that a URL names, in a folder that is made where it is missing, and which takes writes.
async fn prepare(url: &str) -> Result<(SqliteConnectOptions, PathBuf), OpenError> {
    let (options, path) = file(url)?;
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        private::create_folder(folder)
            .map_err(|source| OpenError::Folder { path: folder.to_path_buf(), source })?;
    }
    match file::refusal(path.clone()).await {
        Some(refusal) => Err(refusal.into()),
        None => Ok((options, path)),
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

fn pool(connections: u32, place: &Place) -> SqlitePoolOptions {
    let place = place.clone();
    // Connections to a file do not wear out: one is replaced only where the file is another.
    SqlitePoolOptions::new()
        .before_acquire(move |_, connection| {
            let is_current = place.is_current(connection.age);
            Box::pin(async move { Ok(is_current) })
        })
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(5))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

#[cfg(test)]
mod tests;
