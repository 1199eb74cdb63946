//! `export`: writes events to a file or to standard output. A hub may write meanwhile.
//!
//! Events are read page by page, by month and id, so that the same events give the same file. The file gets its name
//! when it is complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::args::room;
use super::output::{self, print_error};
use super::timestamp::parse_timestamp;
use super::{CommandError, Outcome, columns};
use crate::history::calendar::Month;
use crate::history::record::Record;
use crate::history::{self, Store};
use crate::private;
use crate::protocol::{RoomId, Time};

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON Lines: one object per line.
    Jsonl,
    /// CSV with a header.
    Csv,
}

impl Format {
    /// The format that a file's extension suggests.
    fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("csv") => Self::Csv,
            _ => Self::Jsonl,
        }
    }
}

/// The settings of `export`. Times are like 2026-11-20, RFC 3339, or milliseconds.
#[derive(Debug, Args)]
pub struct ExportSettings {
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// Only events at this time or later
    #[arg(long, value_name = "TIME", value_parser = parse_timestamp)]
    pub from: Option<Time>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = parse_timestamp)]
    pub to: Option<Time>,
    /// Only events in this room
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomId>,
    /// The format; by default that of the file's extension, else jsonl
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// The file; standard output by default, or with -
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Writes the selected events.
/// Errors: the database is missing or cannot be read, or the file cannot be written.
pub(crate) async fn export(settings: ExportSettings) -> Result<Outcome, CommandError> {
    let ExportSettings { database_url, from, to, room, format, out } = settings;
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(CommandError::EmptyRange);
    }
    let filter = Filter { from, to, room };
    let store = Store::open_existing(&database_url).await?;
    for month in store.archived_months().await?.into_iter().filter(|month| filter.may_match(*month)) {
        print_error(format_args!("the events of {month} are in an archive and not in this export"));
    }
    match out.filter(|path| path != Path::new("-")) {
        None => {
            let (stdout, name) = (io::stdout(), Path::new("standard output"));
            let bar = if stdout.is_terminal() { ProgressBar::hidden() } else { output::event_bar(0) };
            let writer = RecordWriter::new(format.unwrap_or(Format::Jsonl), stdout);
            match write(&store, &filter, writer, name, &bar).await {
                // The reader of the pipe has closed it, as `head` does.
                Err(CommandError::Output { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {}
                result => drop(result?),
            }
        }
        Some(path) => {
            let part = PartialFile::create(&path).map_err(|error| CommandError::output(&path, error))?;
            let writer = RecordWriter::new(format.unwrap_or_else(|| Format::of(&path)), &part.file);
            let events = write(&store, &filter, writer, &path, &output::event_bar(0)).await?;
            part.complete().map_err(|error| CommandError::output(&path, error))?;
            print_error(format_args!("{events} events are in {}", path.display()));
        }
    }
    store.close().await;
    Ok(Outcome::Success)
}

async fn write<W: Write>(
    store: &Store,
    filter: &Filter,
    mut writer: RecordWriter<W>,
    name: &Path,
    bar: &ProgressBar,
) -> Result<u64, CommandError> {
    let not_written = |error| CommandError::output(name, error);
    let months = store.live_months().await?.into_iter().filter(|month| filter.may_match(*month));
    let months: Vec<Month> = months.collect();
    if !bar.is_hidden() {
        let mut total = 0;
        for month in &months {
            total += store.count(*month).await?;
        }
        bar.set_length(total);
    }
    let mut written = 0;
    writer.begin().map_err(not_written)?;
    for month in months {
        let mut events = store.events(month);
        while let Some(batch) = events.next().await? {
            for record in Record::of(&batch).filter(|record| filter.matches(record)) {
                writer.write(&record).map_err(not_written)?;
                written += 1;
            }
            bar.inc(batch.len() as u64);
        }
    }
    writer.flush().map_err(not_written)?;
    bar.finish_and_clear();
    Ok(written)
}

/// The selection of events.
#[derive(Debug, Default)]
struct Filter {
    from: Option<Time>,
    to: Option<Time>,
    room: Option<RoomId>,
}

impl Filter {
    /// Returns whether a record is selected. A watch session counts by its start; presence samples have no room.
    fn matches(&self, record: &Record) -> bool {
        let (at, room) = match record {
            Record::PageView { at, room, .. } => (at, Some(room)),
            Record::Watch { started_at, room, .. } => (started_at, Some(room)),
            Record::Census { at, .. } => (at, None),
        };
        self.from.is_none_or(|from| *at >= from)
            && self.to.is_none_or(|to| *at < to)
            && (self.room.is_none() || self.room.as_ref() == room)
    }

    fn may_match(&self, month: Month) -> bool {
        self.from.is_none_or(|from| month.next().start() > from)
            && self.to.is_none_or(|to| month.start() < to)
    }
}

/// Writes records as text.
pub(super) enum RecordWriter<W: Write> {
    Jsonl(BufWriter<W>),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> RecordWriter<W> {
    pub(super) fn new(format: Format, to: W) -> Self {
        match format {
            Format::Jsonl => Self::Jsonl(BufWriter::new(to)),
            Format::Csv => Self::Csv(Box::new(csv::Writer::from_writer(to))),
        }
    }

    /// Writes the header of CSV.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(_) => Ok(()),
            Self::Csv(table) => Ok(table.write_record(columns::COLUMNS)?),
        }
    }

    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        match self {
            Self::Jsonl(writer) => {
                serde_json::to_writer(&mut *writer, record)?;
                writer.write_all(b"\n")
            }
            Self::Csv(table) => Ok(table.write_record(columns::cells(record)?)?),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(writer) => writer.flush(),
            Self::Csv(table) => table.flush(),
        }
    }
}

/// A file under a temporary name, which is deleted on drop unless the file is complete.
struct PartialFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
    is_complete: bool,
}

impl PartialFile {
    fn create(path: &Path) -> io::Result<Self> {
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        // A leftover file may be readable by others, so it is not reused.
        if let Err(error) = fs::remove_file(&part)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        Ok(Self { file: private::create_new(&part)?, part, path: path.to_path_buf(), is_complete: false })
    }

    fn complete(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.part, &self.path)?;
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_complete {
            // The error that led here is reported already.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::timestamp::parse_timestamp;

    #[test]
    fn filter_selects_by_start_and_room() {
        let day = |day| parse_timestamp(day).unwrap();
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
        let filter = Filter { from: Some(day("2026-01-31")), to: Some(day("2026-02-02")), room: lobby };
        for kind in ["page-view", "watch"] {
            let has = |at, room| filter.matches(&record(kind, day(at), room));
            assert!(has("2026-01-31", Some("lobby")), "{kind}");
            assert!(has("2026-02-01 23:59:59.999", Some("lobby")), "{kind}");
            assert!(!has("2026-01-30 23:59:59.999", Some("lobby")), "{kind}");
            assert!(!has("2026-02-02", Some("lobby")), "{kind}");
            assert!(!has("2026-02-01", Some("garden")), "{kind}");
        }
        let sample = record("census", day("2026-02-01"), None);
        assert!(!filter.matches(&sample) && Filter::default().matches(&sample));
        let months = ["2025-12", "2026-01", "2026-02", "2026-03"].map(|month| month.parse().unwrap());
        assert_eq!(months.map(|month| filter.may_match(month)), [false, true, true, false]);
        assert!(months.into_iter().all(|month| Filter::default().may_match(month)));
    }

    #[test]
    fn format_follows_the_extension() {
        for (name, format) in [("a.csv", Format::Csv), ("A.CSV", Format::Csv), ("a.jsonl", Format::Jsonl)] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
        assert_eq!(Format::of(Path::new("csv")), Format::Jsonl);
    }

    #[test]
    fn file_gets_its_name_when_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let names = || -> Vec<OsString> {
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        drop(PartialFile::create(&path).unwrap());
        assert_eq!(names(), Vec::<OsString>::new(), "an incomplete file is deleted");
        let part = PartialFile::create(&path).unwrap();
        assert_eq!(names(), ["a.csv.part"]);
        part.complete().unwrap();
        assert_eq!(names(), ["a.csv"]);
    }
}
