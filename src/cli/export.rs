//! `export`: facts to a file or to standard output, while a hub may go on writing.
//!
//! Facts are read a page at a time, month by month and by their ids, so that the same facts make the
//! same file. A file has its name only when it is complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::moment::moment;
use super::parse::room;
use super::{Failure, Outcome, note, progress, sheet};
use crate::history::calendar::Month;
use crate::history::record::Record;
use crate::history::{self, Store};
use crate::private;
use crate::protocol::{RoomId, Time};

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON Lines: an object to a line.
    Jsonl,
    /// A table with one header.
    Csv,
}

impl Format {
    /// As the file's name ends.
    fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("csv") => Self::Csv,
            _ => Self::Jsonl,
        }
    }
}

/// The settings of `export`. Moments are like 2026-11-20, RFC 3339, or milliseconds.
#[derive(Debug, Args)]
pub struct ExportSettings {
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// Only what happened at this moment or later
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub from: Option<Time>,
    /// Only what happened before this moment
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub to: Option<Time>,
    /// Only what happened in this room
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomId>,
    /// How it is written; by default as the file's name ends, or else jsonl
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// The file; without one, or with -, standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Writes the facts that were asked for.
///
/// # Errors
/// There is no database, or it cannot be read, or the file cannot be written.
pub(crate) async fn export(settings: ExportSettings) -> Result<Outcome, Failure> {
    let ExportSettings { database_url, from, to, room, format, out } = settings;
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Failure::NoTime);
    }
    let selection = Selection { from, to, room };
    let store = Store::open_existing(&database_url).await?;
    for month in store.archived_months().await?.into_iter().filter(|month| selection.may_have(*month)) {
        note(format_args!("the facts of {month} are in an archive and not in this export"));
    }
    match out.filter(|path| path != Path::new("-")) {
        None => {
            let (stdout, name) = (io::stdout(), Path::new("standard output"));
            let bar = if stdout.is_terminal() { ProgressBar::hidden() } else { progress::facts(0) };
            let lines = Lines::new(format.unwrap_or(Format::Jsonl), stdout);
            match write(&store, &selection, lines, name, &bar).await {
                // Whoever reads it has seen enough.
                Err(Failure::Output { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {}
                result => drop(result?),
            }
        }
        Some(path) => {
            let part = Part::create(&path).map_err(|error| Failure::output(&path, error))?;
            let lines = Lines::new(format.unwrap_or_else(|| Format::of(&path)), &part.file);
            let facts = write(&store, &selection, lines, &path, &progress::facts(0)).await?;
            part.complete().map_err(|error| Failure::output(&path, error))?;
            note(format_args!("{facts} facts are in {}", path.display()));
        }
    }
    store.close().await;
    Ok(Outcome::Clean)
}

async fn write<W: Write>(
    store: &Store,
    selection: &Selection,
    mut lines: Lines<W>,
    name: &Path,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let not_written = |error| Failure::output(name, error);
    let months = store.live_months().await?.into_iter().filter(|month| selection.may_have(*month));
    let months: Vec<Month> = months.collect();
    if !bar.is_hidden() {
        let mut total = 0;
        for month in &months {
            total += store.count(*month).await?;
        }
        bar.set_length(total);
    }
    let mut written = 0;
    lines.begin().map_err(not_written)?;
    for month in months {
        let mut facts = store.facts(month);
        while let Some(batch) = facts.next().await? {
            for record in Record::of(&batch).filter(|record| selection.has(record)) {
                lines.write(&record).map_err(not_written)?;
                written += 1;
            }
            bar.inc(batch.len() as u64);
        }
    }
    lines.flush().map_err(not_written)?;
    bar.finish_and_clear();
    Ok(written)
}

/// Which facts are asked for.
#[derive(Debug, Default)]
struct Selection {
    from: Option<Time>,
    to: Option<Time>,
    room: Option<RoomId>,
}

impl Selection {
    /// A watch session belongs to the time of its start, and a census to no room.
    fn has(&self, record: &Record) -> bool {
        let (at, room) = match record {
            Record::PageView { at, room, .. } => (at, Some(room)),
            Record::Watch { started_at, room, .. } => (started_at, Some(room)),
            Record::Census { at, .. } => (at, None),
        };
        self.from.is_none_or(|from| *at >= from)
            && self.to.is_none_or(|to| *at < to)
            && (self.room.is_none() || self.room.as_ref() == room)
    }

    fn may_have(&self, month: Month) -> bool {
        self.from.is_none_or(|from| month.next().start() > from)
            && self.to.is_none_or(|to| month.start() < to)
    }
}

/// Records as text.
pub(super) enum Lines<W: Write> {
    Jsonl(BufWriter<W>),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Lines<W> {
    pub(super) fn new(format: Format, to: W) -> Self {
        match format {
            Format::Jsonl => Self::Jsonl(BufWriter::new(to)),
            Format::Csv => Self::Csv(Box::new(csv::Writer::from_writer(to))),
        }
    }

    /// The header, where there is one.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(_) => Ok(()),
            Self::Csv(table) => Ok(table.write_record(sheet::COLUMNS)?),
        }
    }

    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        match self {
            Self::Jsonl(lines) => {
                serde_json::to_writer(&mut *lines, record)?;
                lines.write_all(b"\n")
            }
            Self::Csv(table) => Ok(table.write_record(sheet::cells(record)?)?),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(lines) => lines.flush(),
            Self::Csv(table) => table.flush(),
        }
    }
}

/// A file that is being written: under another name, which is gone if it is never completed.
struct Part {
    file: File,
    here: PathBuf,
    goal: PathBuf,
    is_complete: bool,
}

impl Part {
    fn create(path: &Path) -> io::Result<Self> {
        let mut here = OsString::from(path);
        here.push(".part");
        let here = PathBuf::from(here);
        // One that was left behind may be another's to read.
        if let Err(error) = fs::remove_file(&here)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        Ok(Self { file: private::create_new(&here)?, here, goal: path.to_path_buf(), is_complete: false })
    }

    fn complete(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.here, &self.goal)?;
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_complete {
            // Whether it can be removed or not, what went wrong has been said.
            let _ = fs::remove_file(&self.here);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::moment::moment;

    #[test]
    fn a_selection_takes_what_begins_in_it() {
        let day = |day| moment(day).unwrap();
        let record = |kind, at: Time, room: Option<&str>| {
            let (id, content, path) = (uuid::Uuid::nil(), "film", "/");
            let record = match kind {
                "page-view" => serde_json::json!({ "path": path, "visitor": "ann" }),
                "watch" => serde_json::json!({ "content": content, "visitor": "ann", "state": "ended",
                    "startedAt": at, "seenAt": at.plus(1_000_000_000), "watchedMs": 1 }),
                _ => {
                    serde_json::json!({ "hub": { "presentMs": 1, "peak": 1, "joins": 1, "moodsMs": {} }, "rooms": {} })
                }
            };
            let mut record = record;
            let at = if kind == "watch" { at.plus(1_000_000_000) } else { at };
            record["type"] = kind.into();
            record["id"] = id.to_string().into();
            record["at"] = at.millis().into();
            if let Some(room) = room {
                record["room"] = room.into();
            }
            serde_json::from_value::<Record>(record).unwrap()
        };
        let lobby = RoomId::try_from("lobby").ok();
        let selection = Selection { from: Some(day("2026-01-31")), to: Some(day("2026-02-02")), room: lobby };
        for kind in ["page-view", "watch"] {
            let has = |at, room| selection.has(&record(kind, day(at), room));
            assert!(has("2026-01-31", Some("lobby")), "{kind}");
            assert!(has("2026-02-01 23:59:59.999", Some("lobby")), "{kind}");
            assert!(!has("2026-01-30 23:59:59.999", Some("lobby")), "{kind}");
            assert!(!has("2026-02-02", Some("lobby")), "{kind}");
            assert!(!has("2026-02-01", Some("garden")), "{kind}");
        }
        let census = record("census", day("2026-02-01"), None);
        assert!(!selection.has(&census) && Selection::default().has(&census));
        let months = ["2025-12", "2026-01", "2026-02", "2026-03"].map(|month| month.parse().unwrap());
        assert_eq!(months.map(|month| selection.may_have(month)), [false, true, true, false]);
        assert!(months.into_iter().all(|month| Selection::default().may_have(month)));
    }

    #[test]
    fn a_format_is_as_the_name_ends() {
        for (name, format) in [("a.csv", Format::Csv), ("A.CSV", Format::Csv), ("a.jsonl", Format::Jsonl)] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
        assert_eq!(Format::of(Path::new("csv")), Format::Jsonl);
    }

    #[test]
    fn a_file_has_its_name_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let names = || -> Vec<OsString> {
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        drop(Part::create(&path).unwrap());
        assert_eq!(names(), Vec::<OsString>::new(), "what failed is gone");
        let part = Part::create(&path).unwrap();
        assert_eq!(names(), ["a.csv.part"]);
        part.complete().unwrap();
        assert_eq!(names(), ["a.csv"]);
    }
}
