//! What may go wrong with the database, as those see it who asked for something.
//!
//! Each error says what was done of what was asked for, and a failed commit which fault it is.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use super::Unfit;
use crate::history::archive::FileError;
use crate::history::calendar::Month;
use crate::history::fault::Fault;

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
    /// Another hub runs on this database.
    #[error("another hub is running on the database {}: stop that one first, or set another DATABASE_URL", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The lock that keeps other hubs from the database cannot be taken.
    #[error("cannot lock the database {}: {source}", path.display())]
    Lock {
        /// The database.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is nothing to write to.
    #[error("{0}. It was not changed. Move it away to begin anew, or put a backup in its place")]
    Unfit(Unfit),
    /// The file, its folder or its volume takes no writes.
    #[error("{0}")]
    ReadOnly(Unfit),
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

impl From<Unfit> for OpenError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            // A lock or a permission: nothing is wrong with the file.
            Unfit::Unreadable { path, source } => Self::File { path, source },
            unfit @ Unfit::ReadOnly { .. } => Self::ReadOnly(unfit),
            unfit => Self::Unfit(unfit),
        }
    }
}

impl From<CommitError> for OpenError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Database(error) => Self::Begin(error),
            CommitError::File(unfit) => unfit.into(),
        }
    }
}

/// A batch could not be committed: nothing of it is in the file at the path, and it may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// SQLite did not take it.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The file at the path is none to write to.
    #[error(transparent)]
    File(#[from] Unfit),
}

impl CommitError {
    /// Whether another process was writing all the time.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.fault() == Fault::Locked
    }

    /// What is wrong, for whoever looks after the hub.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::File(Unfit::Gone { .. } | Unfit::Moved { .. }) => Fault::FileGone,
            Self::File(Unfit::Foreign { .. }) => Fault::Foreign,
            Self::File(Unfit::Damaged { .. }) => Fault::Damaged,
            Self::File(Unfit::ReadOnly { .. }) => Fault::ReadOnly,
            Self::File(Unfit::Unreadable { source, .. }) | Self::Database(source) => match code(source) {
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

/// SQLite's primary result code (<https://www.sqlite.org/rescode.html>): the upper bits say more about it.
pub(super) fn code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?.parse::<i32>().ok()?;
    Some(code & 0xff)
}

/// Keeping the history in order stopped on the way. What was done is whole, and the next try goes on.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The database did not do it.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database's file is none to write to.
    #[error(transparent)]
    Unfit(#[from] Unfit),
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

impl From<CommitError> for LifecycleError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Database(error) => Self::Database(error),
            CommitError::File(unfit) => Self::Unfit(unfit),
        }
    }
}
