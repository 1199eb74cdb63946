//! Backups of the database file, and their restore.
//!
//! A backup is a copy of one snapshot (`VACUUM INTO`), taken beside a running hub. A restore, and a node that joins, need
//! the hub's lock. They check the new file before they change anything, and keep the files that they replace.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::codec::decode_error;
use super::database_file::{self, BUSY_TIMEOUT, CheckFirst};
use super::error::DatabaseFileError;
use super::readers::{Over, STEPS};
use super::{DatabaseLock, OpenError, migrations, parse_url, prepare};
use crate::history::calendar::Month;
use crate::private;

/// The files of a database: itself, the write-ahead log and its index.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// A backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// The database cannot be opened, or a hub is running on it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file is not an intact database of a hub.
    #[error(transparent)]
    File(#[from] DatabaseFileError),
    /// The backup would replace a file.
    #[error("{} exists: name a new file", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The backup is the database itself.
    #[error("{} is the database itself", path.display())]
    Same {
        /// The file.
        path: PathBuf,
    },
    /// The database would be replaced, and has events.
    #[error("the database {} has events: --replace keeps it under another name", path.display())]
    HasEvents {
        /// The file.
        path: PathBuf,
    },
    /// SQLite cannot copy the database.
    #[error("cannot copy the database: {0}")]
    Copy(#[from] sqlx::Error),
    /// A file cannot be written, renamed or synced.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Copies the database of a URL to the new file `to`. A hub may run meanwhile. Returns the size in bytes.
/// Errors: the database is missing, `to` exists, or the copy failed. Nothing is left at `to` then.
pub(crate) async fn backup(url: &str, to: &Path) -> Result<u64, BackupError> {
    let (options, path) = parse_url(url)?;
    if !path.exists() {
        return Err(OpenError::Missing { path }.into());
    }
    if to.exists() {
        return Err(BackupError::Exists { path: to.to_path_buf() });
    }
    let part = with_suffix(to, ".part");
    let error = |source| BackupError::Write { path: part.clone(), source };
    // SQLite fills an empty file. This one is private.
    private::create(&part).map_err(error)?;
    let finished = match vacuum_into(options, &part).await {
        Ok(()) => finish(&part, to).map_err(error),
        Err(error) => Err(error.into()),
    };
    if finished.is_err() {
        let _ = fs::remove_file(&part);
    }
    finished
}

/// Replaces the database of a URL with a copy of the backup `from`. Returns the name that the replaced database has now,
/// if there was one; its files have `suffix`.
/// Errors: a hub is running on the database, the backup is not an intact database of a hub, or a file operation failed.
pub(crate) async fn restore(url: &str, from: &Path, suffix: &str) -> Result<Option<PathBuf>, BackupError> {
    let (_, path) = prepare(url).await?;
    let _lock = DatabaseLock::acquire(url).await?;
    if path.canonicalize().is_ok_and(|path| from.canonicalize().is_ok_and(|from| from == path)) {
        return Err(BackupError::Same { path: from.to_path_buf() });
    }
    database_file::check(from, false, CheckFirst::Always).await?;
    let part = with_suffix(&path, ".part");
    let error = |source| BackupError::Write { path: part.clone(), source };
    copy(from, &part).map_err(error)?;
    replace(&path, &part, suffix)
}

/// Copies a database to the empty file `to`. A copy whose future is dropped is interrupted.
pub(super) async fn vacuum_into(options: SqliteConnectOptions, to: &Path) -> Result<(), sqlx::Error> {
    let mut connection = options.read_only(true).busy_timeout(BUSY_TIMEOUT).connect().await?;
    let over = Over::default();
    let is_over = Arc::clone(&over.0);
    let may_go_on = move || !is_over.load(Ordering::Relaxed);
    connection.lock_handle().await?.set_progress_handler(STEPS, may_go_on);
    let target = to.to_string_lossy().into_owned();
    sqlx::query("VACUUM INTO ?1").bind(target).execute(&mut connection).await?;
    connection.close().await
}

/// A database that arrives from another node. No hub runs on the one that it will replace.
#[derive(Debug)]
pub(crate) struct NewDatabase {
    path: PathBuf,
    part: PathBuf,
    file: File,
    _lock: DatabaseLock,
}

impl NewDatabase {
    /// Begins to receive the database of a URL.
    /// Errors: a hub is running on it, or it has events and `may_replace` is false.
    pub(crate) async fn begin(url: &str, may_replace: bool) -> Result<Self, BackupError> {
        let (_, path) = prepare(url).await?;
        let lock = DatabaseLock::acquire(url).await?;
        if !may_replace && has_events(&path).await {
            return Err(BackupError::HasEvents { path });
        }
        let part = with_suffix(&path, ".part");
        let file =
            private::create(&part).map_err(|source| BackupError::Write { path: part.clone(), source })?;
        Ok(Self { path, part, file, _lock: lock })
    }

    /// The path that the database will have.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes.
    /// Errors: the system cannot write them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(bytes).map_err(|source| BackupError::Write { path: self.part.clone(), source })
    }

    /// Checks the whole database. Returns its archived months, with the checksums of the archives.
    /// Errors: it is damaged, not a hub's, or of a newer version.
    pub(crate) async fn check(&self) -> Result<Vec<(Month, String)>, BackupError> {
        const VERSION: &str = "SELECT ifnull(max(version), 0) FROM _sqlx_migrations WHERE success";
        const ARCHIVED: &str = "SELECT month, checksum FROM months WHERE archive IS NOT NULL ORDER BY month";
        database_file::check(&self.part, false, CheckFirst::Always).await?;
        let options = SqliteConnectOptions::new().filename(&self.part).read_only(true).immutable(true);
        let mut connection = options.connect().await?;
        let found: i64 = sqlx::query_scalar(VERSION).fetch_one(&mut connection).await?;
        let expected = migrations::all().last().map_or(0, |migration| migration.version);
        if found > expected {
            return Err(OpenError::Newer { path: self.part.clone(), found, expected }.into());
        }
        let months: Vec<(String, String)> = sqlx::query_as(ARCHIVED).fetch_all(&mut connection).await?;
        connection.close().await?;
        let parse =
            |(month, checksum): (String, String)| Ok((month.parse().map_err(decode_error)?, checksum));
        Ok(months.into_iter().map(parse).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Gives the database its name. Returns the name that the one before has now, if there was one; its files have
    /// `suffix`.
    /// Errors: a file operation failed.
    pub(crate) fn install(self, suffix: &str) -> Result<Option<PathBuf>, BackupError> {
        replace(&self.path, &self.part, suffix)
    }
}

impl Drop for NewDatabase {
    fn drop(&mut self) {
        // After `install` there is no such file.
        let _ = fs::remove_file(&self.part);
    }
}

/// Whether there is a database with events. One that cannot be read may have some.
async fn has_events(path: &Path) -> bool {
    if fs::metadata(path).map_or(true, |file| file.len() == 0) {
        return false;
    }
    let count = async {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
        let mut connection = options.connect().await?;
        let months: i64 =
            sqlx::query_scalar("SELECT count(*) FROM months").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(months)
    };
    count.await.map_or(true, |months| months > 0)
}

/// Replaces the files of the database at `path` with the complete file `part`, which gets their owner. The files before get
/// `suffix`.
fn replace(path: &Path, part: &Path, suffix: &str) -> Result<Option<PathBuf>, BackupError> {
    let old = with_suffix(path, suffix);
    let had_database = path.exists();
    if had_database {
        // Without one, the file has the owner of its folder.
        let owner = File::open(part).and_then(|file| private::take_owner(&file, path));
        owner.map_err(|source| BackupError::Write { path: part.to_path_buf(), source })?;
    }
    for end in SUFFIXES {
        let file = with_suffix(path, end);
        if file.exists() {
            let kept = with_suffix(&old, end);
            fs::rename(&file, &kept).map_err(|source| BackupError::Write { path: kept, source })?;
        }
    }
    finish(part, path).map_err(|source| BackupError::Write { path: part.to_path_buf(), source })?;
    Ok(had_database.then_some(old))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    io::copy(&mut File::open(from)?, &mut private::create(to)?)?;
    Ok(())
}

/// Syncs a complete file and gives it its name. Returns its size in bytes.
fn finish(part: &Path, name: &Path) -> io::Result<u64> {
    let file = File::open(part)?;
    file.sync_all()?;
    fs::rename(part, name)?;
    let folder = name.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(file.metadata()?.len())
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
