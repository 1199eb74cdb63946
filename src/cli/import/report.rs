//! What an import did: how many rows, and which ones it refused, and why.
//!
//! The first refused rows are for people, on standard error; all of them may go to a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::fields::Refusal;
use crate::cli::{Failure, Outcome, note, say};
use crate::private;

/// Refused rows that are printed.
const PRINTED: usize = 20;

pub(super) struct Report {
    read: u64,
    /// Rows that are right and were looked at by the database, or would have been.
    right: u64,
    /// Of these, rows that changed something.
    new: u64,
    refused: u64,
    first: Vec<String>,
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Report {
    /// With a file for all refused rows, where one is named.
    pub(super) fn new(path: Option<&Path>) -> Result<Self, Failure> {
        let create = |path: &Path| match private::create(path) {
            Ok(file) => Ok((path.to_path_buf(), BufWriter::new(file))),
            Err(error) => Err(Failure::output(path, error)),
        };
        let file = path.map(create).transpose()?;
        Ok(Self { read: 0, right: 0, new: 0, refused: 0, first: Vec::new(), file })
    }

    /// A row was read.
    pub(super) fn read(&mut self) {
        self.read += 1;
    }

    /// It was refused.
    pub(super) fn refuse(&mut self, file: &Path, line: u64, refusal: &Refusal) -> Result<(), Failure> {
        self.refused += 1;
        let text = format!("{}:{line}: {refusal}", file.display());
        if let Some((path, report)) = &mut self.file {
            writeln!(report, "{text}").map_err(|error| Failure::output(path, error))?;
        }
        if self.first.len() < PRINTED {
            self.first.push(text);
        }
        Ok(())
    }

    /// So many rows were right, of which so many changed something.
    pub(super) fn right(&mut self, rows: usize, new: usize) {
        self.right += rows as u64;
        self.new += new as u64;
    }

    /// Says what was done.
    pub(super) fn finish(&mut self, is_dry_run: bool) -> Result<Outcome, Failure> {
        let Self { read, right, new, refused, first, file } = self;
        for line in first.iter() {
            note(line);
        }
        match *refused - first.len() as u64 {
            0 => {}
            more if file.is_some() => note(format_args!("and {more} more")),
            more => note(format_args!("and {more} more, which --report FILE would tell")),
        }
        if is_dry_run {
            say(format_args!("{read} rows read: {right} are right, {refused} refused; nothing was changed"));
        } else {
            let old = *right - *new;
            say(format_args!("{read} rows read: {new} taken, {old} already there, {refused} refused"));
        }
        if let Some((path, report)) = file {
            report.flush().map_err(|error| Failure::output(path, error))?;
        }
        Ok(if *refused == 0 { Outcome::Clean } else { Outcome::Faulty })
    }
}
