//! Commands: what the owner of a hub does beside it, while it runs or not.
//!
//! Each command is a function from its settings to an [`Outcome`]. The history side does the work on the
//! database; here are files, formats, and words for people.

mod check;
mod export;
mod import;
mod moment;
mod parse;
mod progress;
mod serve;
mod sheet;
mod token;

use std::future::ready;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use check::CheckSettings;
use export::ExportSettings;
use import::ImportSettings;
use serve::ServeSettings;
use token::TokenSettings;

use crate::time::Clock;

use crate::auth::BadKeys;
use crate::history::stats::ReadError;
use crate::history::store::{CommitError, LifecycleError, OpenError};

/// A self-hosted presence hub: who is here now, in what mood, and what they looked at.
///
/// Each visitor holds one WebSocket; that is what being present means. Counts are kept in memory
/// and pushed when they change. Page views and watch sessions are written to SQLite in batches.
#[derive(Debug, Parser)]
#[command(name = "breathing-room", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without a command, `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `serve`.
    #[command(flatten)]
    pub serve: ServeSettings,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the hub (the default)
    Serve(Box<ServeSettings>),
    /// Recount the history and print each figure that is wrong
    Check(CheckSettings),
    /// Write the history to a file, also while the hub runs
    Export(ExportSettings),
    /// Take in exports, archives, and tables of the old worker
    Import(ImportSettings),
    /// Make a token for a visitor and print it
    Token(TokenSettings),
}

impl Cli {
    /// What to do: `serve`, where nothing was named.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

/// The program: parses the arguments, runs the command, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.into_command(),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            error.exit()
        }
        Err(error) => {
            // clap explains at length; what stands before the first blank line names the setting and its rule.
            let text = error.to_string();
            let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
            return fail(&lines.collect::<Vec<_>>().join(" "), 2);
        }
    };
    match command {
        Command::Serve(settings) => match serve::serve(*settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => fail(&format!("error: {failure}"), 1),
        },
        Command::Check(settings) => finish(check::check(settings)),
        Command::Export(settings) => finish(export::export(settings)),
        Command::Import(settings) => finish(import::import(settings)),
        Command::Token(settings) => finish(ready(token::token(&settings, &Clock::system()))),
    }
}

/// Runs a command. 1 says that it found something wrong; 2, that it could not do its work.
#[tokio::main]
async fn finish(command: impl Future<Output = Result<Outcome, Failure>>) -> ExitCode {
    match command.await {
        Ok(outcome) => outcome.into(),
        Err(failure) => fail(&format!("error: {failure}"), 2),
    }
}

fn fail(line: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "{line}");
    ExitCode::from(code)
}

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
    let _ = writeln!(io::stdout(), "{text}");
}

/// Says something on standard error, where standard output has the data.
fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests;
