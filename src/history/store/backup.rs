//! Backups of the database file, and their restore.
//!
//! A backup is a copy of one snapshot (`VACUUM INTO`), taken beside a running hub. A restore needs the hub's lock. It
//! checks the backup before it changes anything, and keeps the files that it replaces.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions, Connection};

use super::database_file::{self, BUSY_TIMEOUT, CheckFirst};
use super::error::DatabaseFileError;
use super::{DatabaseLock, OpenError, parse_url, prepare};
use crate::private;

/// The files of a database: itself, the write-ahead log and its index.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// A backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
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
    let copied = async {
        let mut connection = options.read_only(true).busy_timeout(BUSY_TIMEOUT).connect().await?;
        let target = part.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO ?1").bind(target).execute(&mut connection).await?;
        connection.close().await
    };
    let finished = match copied.await {
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
    let old = with_suffix(&path, suffix);
    let had_database = path.exists();
    for end in SUFFIXES {
        let file = with_suffix(&path, end);
        if file.exists() {
            let kept = with_suffix(&old, end);
            fs::rename(&file, &kept).map_err(|source| BackupError::Write { path: kept, source })?;
        }
    }
    finish(&part, &path).map_err(error)?;
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

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
