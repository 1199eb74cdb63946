//! The result of an import: row counts, and the rejected rows with their reasons.
//!
//! The first rejected rows go to standard error. All of them may go to a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::fields::RowError;
use crate::cli::output::{escaped, print, print_error};
use crate::cli::{CommandError, Outcome};
use crate::private;

/// How many rejected rows are printed.
const PRINTED: usize = 20;

pub(super) struct ImportReport {
    read: u64,
    /// Valid rows, whether they were committed or not (dry run).
    valid: u64,
    /// Valid rows that changed the database.
    new: u64,
    rejected: u64,
    first: Vec<String>,
    /// The first file that could not be used as a whole.
    failed: Option<CommandError>,
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl ImportReport {
    /// Opens a report; with `path`, all rejected rows go to that file.
    pub(super) fn new(path: Option<&Path>) -> Result<Self, CommandError> {
        let create = |path: &Path| match private::create(path) {
            Ok(file) => Ok((path.to_path_buf(), BufWriter::new(file))),
            Err(error) => Err(CommandError::output(path, error)),
        };
        let file = path.map(create).transpose()?;
        Ok(Self { read: 0, valid: 0, new: 0, rejected: 0, first: Vec::new(), failed: None, file })
    }

    /// Counts a row that was read.
    pub(super) fn add_read(&mut self) {
        self.read += 1;
    }

    /// Counts a rejected row.
    pub(super) fn add_rejected(
        &mut self,
        file: &Path,
        line: u64,
        error: &RowError,
    ) -> Result<(), CommandError> {
        self.rejected += 1;
        let text = escaped(&format!("{}:{line}: {error}", file.display()));
        if error.is_last {
            self.fail(CommandError::Incomplete { path: file.to_path_buf() });
        }
        if let Some((path, report)) = &mut self.file {
            writeln!(report, "{text}").map_err(|error| CommandError::output(path, error))?;
        }
        if self.first.len() < PRINTED {
            self.first.push(text);
        }
        Ok(())
    }

    /// Records that a file could not be used as a whole.
    pub(super) fn fail(&mut self, error: CommandError) {
        self.failed.get_or_insert(error);
    }

    /// Counts valid rows, of which `new` changed the database.
    pub(super) fn add_valid(&mut self, rows: usize, new: usize) {
        self.valid += rows as u64;
        self.new += new as u64;
    }

    /// Prints the report.
    /// Errors: a file could not be used as a whole, or the report's file cannot be written.
    pub(super) fn finish(&mut self, is_dry_run: bool) -> Result<Outcome, CommandError> {
        let Self { read, valid, new, rejected, first, failed, file } = self;
        for line in first.iter() {
            print_error(line);
        }
        match *rejected - first.len() as u64 {
            0 => {}
            more if file.is_some() => print_error(format_args!("and {more} more")),
            more => print_error(format_args!("and {more} more: --report FILE writes all of them to a file")),
        }
        if is_dry_run {
            print(format_args!(
                "{read} rows read: {valid} are right, {rejected} refused; nothing was changed"
            ));
        } else {
            let old = *valid - *new;
            print(format_args!("{read} rows read: {new} taken, {old} already there, {rejected} refused"));
        }
        if let Some((path, report)) = file {
            report.flush().map_err(|error| CommandError::output(path, error))?;
        }
        if let Some(failed) = failed.take() {
            return Err(failed);
        }
        Ok(if *rejected == 0 { Outcome::Success } else { Outcome::Problems })
    }
}
