//! The commands of the program: `serve`, `health`, `check`, `backup`, `restore`, `join`, `export`, `import` and `token`.
//!
//! Each command is a function from its settings to an [`Outcome`]. The store does the work on the database; this module
//! reads and writes files.

mod args;
mod backup;
mod check;
mod columns;
mod export;
mod health;
mod import;
mod join;
mod other_hub;
mod output;
mod protected;
mod serve;
mod timestamp;
mod token;

use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use url::Url;

use backup::{BackupSettings, RestoreSettings};
use check::CheckSettings;
use export::ExportSettings;
use health::{HealthError, HealthSettings};
use import::ImportSettings;
use join::JoinSettings;
use other_hub::OtherHubError;
use serve::ServeSettings;
use token::TokenSettings;

use crate::auth::BadKeys;
use crate::cluster::BadCluster;
use crate::history::archive::ArchiveError;
use crate::history::calendar::Month;
use crate::history::store::{BackupError, CommitError, LifecycleError, OpenError, ReadError};
use crate::time::Clock;
use output::print_error;

/// A self-hosted presence hub: which visitors are in a room now, in what mood, and what they looked at.
///
/// Each visitor holds one WebSocket; an open socket means present. The hub keeps counts in memory and publishes them when
/// they change. It writes page views and watch sessions to SQLite in batches.
#[derive(Debug, Parser)]
#[command(name = "breathing-room", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// The command; `serve` by default.
    #[command(subcommand)]
    pub command: Option<CliCommand>,
    /// The settings of `serve`.
    #[command(flatten)]
    pub serve: ServeSettings,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Run the hub (the default)
    Serve(Box<ServeSettings>),
    /// Ask a running hub for its health, for health checks of containers
    Health(HealthSettings),
    /// Recount the history and print each figure that is wrong
    Check(CheckSettings),
    /// Copy the database to a new file, also while the hub runs
    Backup(BackupSettings),
    /// Replace the database with a backup
    Restore(RestoreSettings),
    /// Fetch the history of another node, for a new one
    Join(JoinSettings),
    /// Write the history to a file, also while the hub runs
    Export(ExportSettings),
    /// Import exports, archives, and tables of the old worker
    Import(ImportSettings),
    /// Sign a token for a visitor and print it
    Token(TokenSettings),
}

impl Cli {
    /// Returns the command, `serve` by default.
    #[must_use]
    pub(crate) fn into_command(self) -> CliCommand {
        self.command.unwrap_or_else(|| CliCommand::Serve(Box::new(self.serve)))
    }
}

/// Parses the arguments, runs the command, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.into_command(),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            error.exit()
        }
        Err(error) => {
            // The part of clap's message before the first blank line names the setting and its rule.
            let text = error.to_string();
            let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
            return fail(&lines.collect::<Vec<_>>().join(" "), 2);
        }
    };
    match command {
        CliCommand::Serve(settings) => match serve::serve(*settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("error: {error}"), 1),
        },
        CliCommand::Health(settings) => finish(ready(health::health(&settings))),
        CliCommand::Check(settings) => finish(check::check(settings)),
        CliCommand::Backup(settings) => finish(backup::backup(settings)),
        CliCommand::Restore(settings) => finish(backup::restore(settings, &Clock::system())),
        CliCommand::Join(settings) => finish(join::join(settings, &Clock::system())),
        CliCommand::Export(settings) => finish(export::export(settings)),
        CliCommand::Import(settings) => finish(import::import(settings)),
        CliCommand::Token(settings) => finish(ready(token::token(&settings, &Clock::system()))),
    }
}

/// Runs a command. Exit code 1 means that it found problems; 2, that it failed.
#[tokio::main]
async fn finish(command: impl Future<Output = Result<Outcome, CommandError>>) -> ExitCode {
    match command.await {
        Ok(outcome) => outcome.into(),
        Err(error) => fail(&format!("error: {error}"), 2),
    }
}

fn fail(line: &str, code: u8) -> ExitCode {
    print_error(line);
    ExitCode::from(code)
}

/// The result of a command that finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No problems.
    Success,
    /// A wrong figure, or a rejected row.
    Problems,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::SUCCESS,
            Outcome::Problems => Self::FAILURE,
        }
    }
}

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The database is missing or cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A commit failed. Earlier commits stay.
    #[error("cannot write to the database: {0}")]
    Commit(#[from] CommitError),
    /// A month's archive cannot be restored. Earlier commits stay.
    #[error(transparent)]
    Archive(#[from] LifecycleError),
    /// A backup or a restore failed.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// An input file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An output file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An output would replace a file that must stay. Nothing was written.
    #[error("{} is {what}: choose another file for the output", path.display())]
    Protected {
        /// The output.
        path: PathBuf,
        /// What the file is.
        what: &'static str,
    },
    /// An input file cannot be read to its end. The rows before are imported.
    #[error("{} cannot be read to its end", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
    /// An input file has no row of a known kind.
    #[error("{} has no page view, no watch session and no census: see docs/history.md for the formats", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// Another hub does not answer as it should.
    #[error(transparent)]
    OtherHub(#[from] OtherHubError),
    /// An archive of another hub is not the one that its database names.
    #[error("{url}: the archive of {month} has changed meanwhile: try again")]
    OtherArchive {
        /// The month.
        month: Month,
        /// The hub.
        url: Url,
    },
    /// An archive file cannot be read or written.
    #[error(transparent)]
    ArchiveFile(#[from] ArchiveError),
    /// The other hub is asked with the admin token.
    #[error("--with needs ADMIN_TOKEN, the admin token of that hub")]
    NoAdminToken,
    /// The settings of the cluster cannot be used.
    #[error(transparent)]
    Cluster(#[from] BadCluster),
    /// A hub does not say how it is.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// The token's secret is unusable.
    #[error(transparent)]
    Token(#[from] BadKeys),
    /// `--from` is not before `--to`.
    #[error("--from must be before --to")]
    EmptyRange,
}

impl CommandError {
    fn output(path: &Path, source: io::Error) -> Self {
        Self::Output { path: path.to_path_buf(), source }
    }
}

#[cfg(test)]
mod tests;
