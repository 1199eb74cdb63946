//! Errors of the store: opening, committing, reading and maintenance.
//!
//! Each error says how much of the work is done. A failed commit has a [`Fault`] for `/health`.

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use sqlx::migrate::MigrateError;
use utoipa::ToSchema;

use crate::history::archive::ArchiveError;
use crate::history::calendar::Month;

/// Why the database takes no commits, as `/health` reports it. docs/operations.md has the remedy for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Another process holds the database's lock.
    Locked,
    /// The disk is full.
    DiskFull,
    /// The volume or the file is read-only.
    ReadOnly,
    /// An I/O error on the file.
    DiskError,
    /// The file is damaged.
    Damaged,
    /// No file at its path.
    FileGone,
    /// The file at the path is not a hub's database.
    Foreign,
    /// Anything else; the log has the details.
    DatabaseError,
}

/// The database file cannot be used. The hub did not change it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseFileError {
    /// The file does not exist or cannot be reached.
    #[error("there is no database at {}: {source}", path.display())]
    Gone {
        /// The database's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file at the path changed during a commit.
    #[error("the database {} was moved or replaced while it was written", path.display())]
    Moved {
        /// The database's path.
        path: PathBuf,
    },
    /// The file, its folder or its volume is read-only.
    #[error("the database {} cannot be written: {source}", path.display())]
    ReadOnly {
        /// The database's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is corrupt.
    #[error("the database {} is damaged ({what})", path.display())]
    Damaged {
        /// The database's path.
        path: PathBuf,
        /// SQLite's first finding.
        what: String,
    },
    /// The file belongs to another program.
    #[error("the file {} is no database of a hub: {what}", path.display())]
    Foreign {
        /// The database's path.
        path: PathBuf,
        /// How the file differs from a hub's database.
        what: &'static str,
    },
    /// SQLite cannot read the file.
    #[error("cannot read the database {}: {source}", path.display())]
    Unreadable {
        /// The database's path.
        path: PathBuf,
        /// SQLite's error.
        source: sqlx::Error,
    },
}

/// The database cannot be opened or migrated.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no SQLite file.
    #[error("DATABASE_URL {url:?} must look like sqlite://path/to/file.db")]
    Url {
        /// The configured URL.
        url: String,
    },
    /// A command needs an existing database, and there is none.
    #[error("there is no database at {}", path.display())]
    Missing {
        /// The database's path.
        path: PathBuf,
    },
    /// The database has an older schema, and a command that only reads does not migrate it.
    #[error(
        "the database {} needs a migration (its schema is {found}, that of this version {expected}): start the hub of \
         this version, which migrates it, or use the version that wrote it",
        path.display()
    )]
    NeedsMigration {
        /// The database's path.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The version of the schema that the program knows.
        expected: i64,
    },
    /// The database has a newer schema than the program knows.
    #[error(
        "the database {} was written by a newer version (its schema is {found}, that of this version {expected}): use \
         that version",
        path.display()
    )]
    Newer {
        /// The database's path.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The version of the schema that the program knows.
        expected: i64,
    },
    /// The write-ahead log has no index that a command without write permission could read.
    #[error(
        "the database {} has a write-ahead log without an index, which needs write permission for its folder: copy the \
         database and its -wal to a folder of your own, or start and stop the hub, which removes the log",
        path.display()
    )]
    NoIndex {
        /// The database's path.
        path: PathBuf,
    },
    /// A hub was started on a database that was read without locks.
    #[error("the database {} has changed while it was read: a hub was started. Try again", path.display())]
    Changed {
        /// The database's path.
        path: PathBuf,
    },
    /// The database's folder cannot be created.
    #[error("cannot make the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another hub holds the lock of this database.
    #[error("another hub is running on the database {}: stop that one first, or set another DATABASE_URL", path.display())]
    InUse {
        /// The database's path.
        path: PathBuf,
    },
    /// The lock file cannot be created or locked.
    #[error("cannot lock the database {}: {source}", path.display())]
    Lock {
        /// The database's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is damaged, foreign or gone.
    #[error("{0}. It was not changed. Move it away to start with an empty history, or restore a backup")]
    Unusable(DatabaseFileError),
    /// The file, its folder or its volume is read-only.
    #[error("{0}")]
    ReadOnly(DatabaseFileError),
    /// SQLite cannot open or write the file.
    #[error("cannot open the database {}: {source}", path.display())]
    File {
        /// The database's path.
        path: PathBuf,
        /// SQLite's error.
        source: sqlx::Error,
    },
    /// A migration failed. Those before it are applied.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] MigrateError),
    /// The first write failed.
    #[error("cannot write the database: {0}")]
    Write(sqlx::Error),
    /// The backfill from an older version's tables failed. The next start continues it.
    #[error("cannot move the events of an older version: {0}")]
    Backfill(CommitError),
}

impl From<DatabaseFileError> for OpenError {
    fn from(error: DatabaseFileError) -> Self {
        match error {
            // A lock or a permission: the file itself is fine.
            DatabaseFileError::Unreadable { path, source } => Self::File { path, source },
            error @ DatabaseFileError::ReadOnly { .. } => Self::ReadOnly(error),
            error => Self::Unusable(error),
        }
    }
}

impl From<CommitError> for OpenError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Database(error) => Self::Write(error),
            CommitError::File(error) => error.into(),
        }
    }
}

/// A batch is not committed: the file at the path has nothing of it. The commit may be retried.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// SQLite failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The file at the path cannot be used.
    #[error(transparent)]
    File(#[from] DatabaseFileError),
}

impl CommitError {
    /// Whether another process held the lock for longer than the busy timeout.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.fault() == Fault::Locked
    }

    /// The fault for `/health`.
    #[must_use]
    pub fn fault(&self) -> Fault {
        use DatabaseFileError::{Damaged, Foreign, Gone, Moved, ReadOnly, Unreadable};
        match self {
            Self::File(Gone { .. } | Moved { .. }) => Fault::FileGone,
            Self::File(Foreign { .. }) => Fault::Foreign,
            Self::File(Damaged { .. }) => Fault::Damaged,
            Self::File(ReadOnly { .. }) => Fault::ReadOnly,
            Self::File(Unreadable { source, .. }) | Self::Database(source) => match result_code(source) {
                Some(5 | 6) => Fault::Locked,
                Some(8) => Fault::ReadOnly,
                Some(10) => Fault::DiskError,
                Some(11 | 26) => Fault::Damaged,
                Some(13) => Fault::DiskFull,
                Some(14) => Fault::FileGone,
                _ => Fault::DatabaseError,
            },
        }
    }
}

/// Returns SQLite's primary result code (<https://www.sqlite.org/rescode.html>), without the upper bits of the extended
/// one.
pub(super) fn result_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?.parse::<i32>().ok()?;
    Some(code & 0xff)
}

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It exceeded its time, or the time in which a checkpoint needs a pause.
    #[error("reading the history took too long and was interrupted: try again later, or ask for less")]
    Interrupted,
    /// SQLite failed.
    #[error("the history cannot be read now: {0}")]
    Database(sqlx::Error),
    /// Raw rows of the period are archived.
    #[error(
        "page views before {first}-01 are in archives: this property can be broken down from that day on"
    )]
    Archived {
        /// The first month from which on no rows are archived.
        first: Month,
    },
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        if result_code(&error) == Some(9) { Self::Interrupted } else { Self::Database(error) }
    }
}

/// Maintenance, an erasure or a restore stopped early. All finished steps are consistent; a retry continues.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifecycleError {
    /// SQLite failed.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database file cannot be used.
    #[error(transparent)]
    DatabaseFile(#[from] DatabaseFileError),
    /// An archive is missing, damaged or cannot be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The month has no archive to restore.
    #[error("the month {0} is not archived")]
    NotArchived(Month),
    /// Another process changed the archive meanwhile.
    #[error("the archive of {0} has changed meanwhile: try again")]
    Changed(Month),
}

impl From<CommitError> for LifecycleError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Database(error) => Self::Database(error),
            CommitError::File(error) => Self::DatabaseFile(error),
        }
    }
}
