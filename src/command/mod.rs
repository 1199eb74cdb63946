//! Commands: what the owner of a hub does beside it, while it runs or not.
//!
//! Each command is a function from its settings to an [`Outcome`]. The history side does the work on the
//! database; here are files, formats, and words for people.

mod check;
mod export;
mod import;
pub mod moment;
mod progress;
mod sheet;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use check::check;
pub use export::{Format, export};
pub use import::import;
pub use import::mapping::{BadRenaming, Column, Kind, Renamed};
pub use token::token;

use crate::history::stats::ReadError;
use crate::history::store::{CommitError, LifecycleError, OpenError};
use crate::token::BadKeys;

/// What a command that did its work found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Clean,
    /// Something is not as it should be: a wrong figure, or a row that was refused.
    Faulty,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Clean => Self::SUCCESS,
            Outcome::Faulty => Self::FAILURE,
        }
    }
}

/// A command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no database, or it cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The database takes nothing more. What it took before stays.
    #[error("the database does not take more: {0}")]
    Commit(#[from] CommitError),
    /// A month's archive cannot be brought back. What was taken before stays.
    #[error(transparent)]
    Archive(#[from] LifecycleError),
    /// A file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A token cannot be made.
    #[error(transparent)]
    Token(#[from] BadKeys),
    /// A stretch of time that ends before it begins.
    #[error("--from must be before --to")]
    NoTime,
}

impl Failure {
    fn output(path: &Path, source: io::Error) -> Self {
        Self::Output { path: path.to_path_buf(), source }
    }
}

/// Says something on standard output. Where nobody listens, that is no reason to stop.
fn say(text: impl std::fmt::Display) {
    let _ = io::Write::write_fmt(&mut io::stdout(), format_args!("{text}\n"));
}

/// Says something on standard error, where standard output has the data.
fn note(text: impl std::fmt::Display) {
    let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("{text}\n"));
}

#[cfg(test)]
mod tests;
