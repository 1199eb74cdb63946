//! The database file: whether it is a hub's database, intact, and still the one at its path.
//!
//! SQLite continues to write to a file that was moved, deleted or replaced, and those commits are lost. So the file's
//! device and inode are compared before and after each transaction. The hub checks a file before its first write.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::{DatabaseFileError, result_code};
use super::last_run;
use crate::sync::lock;

/// `application_id` in the header of each file that the hub creates: "room". Files of older versions have 0.
pub(super) const APPLICATION_ID: i32 = 0x726f_6f6d;

/// How long a connection waits for a lock that another process holds.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the whole file is checked before it is used, which reads all of it. Its header and schema always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckFirst {
    /// No.
    Never,
    /// If the machine stopped while a hub was running.
    AfterCrash,
    /// Yes.
    Always,
}

/// A file's device and inode, which identify it under any name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// The database's path, and which file is open. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct DatabaseFile(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Held to read or write two words.
    open: Mutex<OpenFile>,
    /// Notified when the file was replaced.
    replaced: Notify,
}

#[derive(Debug, Default)]
struct OpenFile {
    id: Option<FileId>,
    /// When the file was replaced last. Older connections have the old file.
    replaced: Option<Instant>,
}

impl DatabaseFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Shared { path, open: Mutex::default(), replaced: Notify::new() }))
    }

    /// Records the file at the path as the open one, after it was opened.
    pub(super) async fn opened(&self) -> Result<(), DatabaseFileError> {
        let found = self.find().await?;
        lock(&self.0.open).id = Some(found);
        Ok(())
    }

    /// Returns whether the file at the path is the open one.
    pub(super) async fn is_same(&self) -> Result<bool, DatabaseFileError> {
        let found = self.find().await?;
        Ok(self.id() == Some(found))
    }

    /// Switches to the file that is now at the path, if it is a hub's.
    pub(super) async fn switch(&self) -> Result<(), DatabaseFileError> {
        let found = self.find().await?;
        check(&self.0.path, false, CheckFirst::Never).await?;
        *lock(&self.0.open) = OpenFile { id: Some(found), replaced: Some(Instant::now()) };
        self.0.replaced.notify_one();
        Ok(())
    }

    /// Waits until the file was replaced. For one task.
    pub(super) async fn replaced(&self) {
        self.0.replaced.notified().await;
    }

    /// Returns whether a connection of this age has the current file.
    pub(super) fn is_current(&self, age: Duration) -> bool {
        lock(&self.0.open).replaced.is_none_or(|replaced| age < replaced.elapsed())
    }

    /// The open file.
    pub(super) fn id(&self) -> Option<FileId> {
        lock(&self.0.open).id
    }

    /// Checks after a commit to the file `id` that it is still the one at the path.
    pub(super) async fn confirm(&self, id: Option<FileId>) -> Result<(), DatabaseFileError> {
        let found = self.find().await?;
        if id == Some(found) { Ok(()) } else { Err(DatabaseFileError::Moved { path: self.0.path.clone() }) }
    }

    /// Returns an error if the file or its folder is read-only.
    pub(super) async fn write_error(&self) -> Option<DatabaseFileError> {
        write_error(self.0.path.clone()).await
    }

    async fn find(&self) -> Result<FileId, DatabaseFileError> {
        let shared = Arc::clone(&self.0);
        // A volume that hangs must not block a worker thread.
        let found = tokio::task::spawn_blocking(move || std::fs::metadata(&shared.path)).await;
        let found = found.map_err(io::Error::other).flatten();
        let found = found.map_err(|source| DatabaseFileError::Gone { path: self.0.path.clone(), source })?;
        Ok(FileId { device: found.dev(), inode: found.ino() })
    }
}

/// Returns an error if a file or its folder is read-only. SQLite reports a volume that turned read-only as an I/O error
/// or as a file that it cannot open.
pub(super) async fn write_error(path: PathBuf) -> Option<DatabaseFileError> {
    let test = move || {
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        // By access(2): closing a descriptor of the file would release SQLite's POSIX locks on it.
        let is_read_only = |error: &Errno| matches!(*error, Errno::ROFS | Errno::ACCESS | Errno::PERM);
        let denied = |path| access(path, Access::WRITE_OK).err().filter(is_read_only);
        let source = denied(path.as_path()).or_else(|| denied(folder))?.into();
        Some(DatabaseFileError::ReadOnly { path, source })
    };
    tokio::task::spawn_blocking(test).await.ok()?
}

/// Checks, read-only, that a file is a hub's database, and as far as `whole` says that it is intact. A new file may be
/// empty.
pub(super) async fn check(path: &Path, may_be_new: bool, whole: CheckFirst) -> Result<(), DatabaseFileError> {
    if may_be_new && std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
        return Ok(());
    }
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    // Without a write-ahead log there is no writer: the file needs no lock, and SQLite creates no files beside it.
    let options =
        SqliteConnectOptions::new().filename(path).read_only(true).immutable(!Path::new(&wal).exists());
    let checked = async {
        let mut connection = options.busy_timeout(BUSY_TIMEOUT).connect().await?;
        let mut found = find_foreign(&mut connection, may_be_new).await?;
        if found.is_none() && is_checked_first(&mut connection, whole).await? {
            found = find_damage(&mut connection).await?;
        }
        connection.close().await?;
        Ok::<_, sqlx::Error>(found)
    };
    let defect = checked.await.unwrap_or_else(|error| Some(Defect::Unreadable(error)));
    let path = path.to_path_buf();
    match defect {
        None => Ok(()),
        Some(Defect::Foreign(what)) => Err(DatabaseFileError::Foreign { path, what }),
        Some(Defect::Damage(what)) => Err(DatabaseFileError::Damaged { path, what }),
        Some(Defect::Unreadable(source)) => Err(match result_code(&source) {
            Some(11) => DatabaseFileError::Damaged { path, what: source.to_string() },
            Some(26) => DatabaseFileError::Foreign { path, what: "it is not SQLite's" },
            _ => DatabaseFileError::Unreadable { path, source },
        }),
    }
}

/// What is wrong with a file.
enum Defect {
    Foreign(&'static str),
    Damage(String),
    Unreadable(sqlx::Error),
}

/// Reads the header and the schema only.
async fn find_foreign(
    connection: &mut SqliteConnection,
    may_be_new: bool,
) -> Result<Option<Defect>, sqlx::Error> {
    const TABLES: &str =
        "SELECT count(*), count(*) FILTER (WHERE name = '_sqlx_migrations') FROM sqlite_schema";
    let application: i32 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let (tables, migrations): (i64, i64) = sqlx::query_as(TABLES).fetch_one(&mut *connection).await?;
    if tables == 0 && !may_be_new {
        return Ok(Some(Defect::Foreign("it is empty")));
    }
    if ![0, APPLICATION_ID].contains(&application) || (tables > 0 && migrations == 0) {
        return Ok(Some(Defect::Foreign("it is another program's")));
    }
    Ok(None)
}

async fn is_checked_first(connection: &mut SqliteConnection, whole: CheckFirst) -> Result<bool, sqlx::Error> {
    Ok(match whole {
        CheckFirst::Never => false,
        CheckFirst::Always => true,
        CheckFirst::AfterCrash => {
            let has_crashed = last_run::machine_has_crashed(connection).await?;
            if has_crashed {
                warn!("the machine stopped while a hub was running: checking the database before serving");
            }
            has_crashed
        }
    })
}

/// Reads the whole file.
async fn find_damage(connection: &mut SqliteConnection) -> Result<Option<Defect>, sqlx::Error> {
    let started = Instant::now();
    let result: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
    info!(took = ?started.elapsed(), "checked the database file");
    Ok((result != "ok").then(|| Defect::Damage(result.replace('\n', " "))))
}
