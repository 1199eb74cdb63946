//! `export`: writes events to a file or to standard output. A hub may write meanwhile.
//!
//! Events are read page by page, by month and id, so that the same events give the same file. The file gets its name
//! when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::args::room;
use super::output::{self, Escaping, print_error};
use super::protected::{ProtectedFiles, part_of};
use super::timestamp::parse_timestamp;
use super::{CommandError, Outcome, columns};
use crate::history::archive::Archives;
use crate::history::calendar::Month;
use crate::history::record::Record;
use crate::history::store::CheckFirst;
use crate::history::store::read_only::path_of;
use crate::history::{self, Store};
use crate::private;
use crate::protocol::{RoomId, Time};

/// The name of standard output in errors.
const STDOUT: &str = "standard output";

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
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
pub(crate) struct ExportSettings {
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// The folder of archives, which the output must not replace [default: archive beside the database]
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
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
/// Errors: the database is missing, needs a migration or cannot be read, or the file cannot be written or must stay.
pub(crate) async fn export(settings: ExportSettings) -> Result<Outcome, CommandError> {
    let ExportSettings { database_url, archive_dir, from, to, room, format, out } = settings;
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(CommandError::EmptyRange);
    }
    let filter = Filter { from, to, room };
    let database = path_of(&database_url)?;
    let protected = ProtectedFiles::of(&database, &Archives::new(archive_dir, &database));
    let out = out.filter(|path| path != Path::new("-"));
    match &out {
        None => protected.check_open(io::stdout().as_fd(), Path::new(STDOUT))?,
        Some(path) => [path.clone(), part_of(path)].iter().try_for_each(|path| protected.check(path))?,
    }
    let store = Store::open_read_only(&database_url, CheckFirst::Never).await?;
    for month in store.archived_months().await?.into_iter().filter(|month| filter.may_match(*month)) {
        print_error(format_args!("the events of {month} are in an archive and not in this export"));
    }
    match out {
        None => {
            let stdout = io::stdout();
            let (stdout, bar): (Box<dyn Write>, _) = if stdout.is_terminal() {
                (Box::new(Escaping::new(stdout)), ProgressBar::hidden())
            } else {
                (Box::new(stdout), output::event_bar(0))
            };
            let writer = RecordWriter::new(format.unwrap_or(Format::Jsonl), stdout);
            match write(&store, &filter, writer, Path::new(STDOUT), &bar).await {
                // The reader of the pipe has closed it, as `head` does.
                Err(CommandError::Output { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {}
                result => drop(result?),
            }
            store.close().await?;
        }
        Some(path) => {
            let part = PartialFile::create(&path).map_err(|error| CommandError::output(&path, error))?;
            let writer = RecordWriter::new(format.unwrap_or_else(|| Format::of(&path)), &part.file);
            let events = write(&store, &filter, writer, &path, &output::event_bar(0)).await?;
            store.close().await?;
            part.complete().map_err(|error| CommandError::output(&path, error))?;
            print_error(format_args!("{events} events are in {}", path.display()));
        }
    }
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
            bar.inc(batch.len() as u64);
            for record in Record::of(batch).filter(|record| filter.matches(record)) {
                writer.write(&record).map_err(not_written)?;
                written += 1;
            }
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
    /// None for a device or a pipe, which has no name to replace, and for a complete file.
    part: Option<PathBuf>,
    path: PathBuf,
}

impl PartialFile {
    fn create(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir()) {
            let file = File::options().write(true).open(path)?;
            return Ok(Self { file, part: None, path: path.to_path_buf() });
        }
        let part = part_of(path);
        // A leftover file may be readable by others, so it is not reused.
        if let Err(error) = fs::remove_file(&part)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        Ok(Self { file: private::create_new(&part)?, part: Some(part), path: path.to_path_buf() })
    }

    fn complete(mut self) -> io::Result<()> {
        if let Some(part) = &self.part {
            self.file.sync_all()?;
            fs::rename(part, &self.path)?;
            self.part = None;
        }
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // The error that led here is reported already.
            let _ = fs::remove_file(part);
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
        let names = || -> Vec<std::ffi::OsString> {
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        drop(PartialFile::create(&path).unwrap());
        assert_eq!(names(), Vec::<std::ffi::OsString>::new(), "an incomplete file is deleted");
        let part = PartialFile::create(&path).unwrap();
        assert_eq!(names(), ["a.csv.part"]);
        part.complete().unwrap();
        assert_eq!(names(), ["a.csv"]);
    }
}
