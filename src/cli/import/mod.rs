//! `import`: facts from files, through the same commit as a hub's own.
//!
//! Files are read a row at a time, so that memory does not grow with them. Facts merge: what is there
//! already changes nothing, and an import that was cut short is simply done again.

pub(super) mod fields;
pub(super) mod mapping;
pub(super) mod record;
mod report;
pub(super) mod rows;

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep, sleep_until};

use super::parse::room;
use super::{Failure, Outcome, note, progress};
use crate::history::archive::Archives;
use crate::history::event::{AHEAD_LIMIT_MS, Batch};
use crate::history::lifecycle;
use crate::history::{self, Store};
use crate::protocol::{RoomId, Time};
use crate::time::Clock;
use fields::{Fields, Refusal};
use mapping::{Kind, Mapping, Renamed};
use report::Report;
use rows::Row;

/// Facts in a transaction.
const FACTS_PER_TRANSACTION: usize = 5_000;

/// The time between two transactions, in which a hub's flush gets its turn: SQLite looks for one every
/// 100 ms.
const PAUSE: Duration = Duration::from_millis(110);

/// The wait before another try, after SQLite itself has waited for two seconds.
const RETRY: Duration = Duration::from_millis(500);

/// How long somebody else may write before an import gives up.
const PATIENCE: Duration = Duration::from_mins(2);

/// The settings of `import`.
#[derive(Debug, Args)]
pub struct ImportSettings {
    /// Files of JSON Lines, a JSON array or CSV, also compressed with gzip
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The SQLite file; it and its folder are made if missing
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// The folder of archives, from which months come back that the files have something of [default: archive
    /// beside the database]
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
    /// What the old worker's rows are; by default, what their columns look like
    #[arg(long, value_name = "KIND")]
    pub kind: Option<Kind>,
    /// What a column is called in the old worker's files, as in visitor=member; may be repeated. Ours are
    /// id, room, visitor, path, title, referrer, at, content, startedAt, duration, completed
    #[arg(long = "field", value_name = "OURS=THEIRS")]
    pub fields: Vec<Renamed>,
    /// The room of the old worker's rows that name none
    #[arg(long, value_name = "ROOM", default_value = "lobby", value_parser = room)]
    pub room: RoomId,
    /// Read and check everything, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// A file for all refused rows; the first 20 are printed in any case
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Takes in everything in the files that is right, and reports the rest.
///
/// # Errors
/// A file cannot be opened, or the database does not take what was read. What it took before stays.
pub(crate) async fn import(settings: ImportSettings) -> Result<Outcome, Failure> {
    let ImportSettings { files, database_url, archive_dir, kind, fields, room, dry_run, report } = settings;
    let mapping = Mapping::new(kind, room, fields);
    let bar = progress::bytes(0);
    let mut opened = Vec::new();
    for path in files {
        let not_read = |source| Failure::Input { path: path.clone(), source };
        let file = File::open(&path).map_err(not_read)?;
        bar.inc_length(file.metadata().map_err(not_read)?.len());
        let rows = rows::read(bar.wrap_read(file)).map_err(not_read)?;
        opened.push((path, rows));
    }
    let report = Report::new(report.as_deref())?;
    let now = Clock::system().wall();
    let writer = if dry_run { None } else { Some(Writer::open(&database_url, archive_dir, now).await?) };
    let latest = now.plus(AHEAD_LIMIT_MS);
    let mut import = Import { mapping, latest, report, writer, batch: Batch::default() };
    let result = import.take_all(opened).await;
    bar.finish_and_clear();
    let outcome = import.report.finish(dry_run);
    if let Some(writer) = import.writer {
        writer.store.close().await;
    }
    result.and(outcome)
}

struct Import {
    mapping: Mapping,
    /// Nothing may have happened later.
    latest: Time,
    report: Report,
    /// Where facts go; nowhere in a dry run.
    writer: Option<Writer>,
    batch: Batch,
}

impl Import {
    async fn take_all(&mut self, files: Vec<(PathBuf, rows::Rows)>) -> Result<Outcome, Failure> {
        for (path, rows) in files {
            for Row { line, fields } in rows {
                self.report.read();
                if let Err(refusal) = fields.and_then(|fields| self.take(fields)) {
                    self.report.refuse(&path, line, &refusal)?;
                }
                if self.batch.len() >= FACTS_PER_TRANSACTION {
                    self.commit().await?;
                }
            }
        }
        self.commit().await?;
        Ok(Outcome::Clean)
    }

    /// Adds the fact that a row tells to those that are not committed yet.
    fn take(&mut self, fields: Fields) -> Result<(), Refusal> {
        let record = if self.mapping.applies_to(&fields) {
            self.mapping.record(&fields, self.latest)?
        } else {
            record::read(fields, self.latest)?
        };
        record.add_to(&mut self.batch).map_err(|rule| Refusal::field("props", rule))
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        let new = match &mut self.writer {
            Some(writer) if !batch.is_empty() => writer.commit(&batch).await?,
            _ => 0,
        };
        self.report.right(batch.len(), new);
        Ok(())
    }
}

/// Commits, and leaves room for others who write.
struct Writer {
    store: Store,
    archives: Archives,
    /// Not before this moment.
    next: Instant,
    /// Somebody else was writing for longer than SQLite waits, and it was said.
    has_waited: bool,
}

impl Writer {
    async fn open(url: &str, archive_dir: Option<PathBuf>, now: Time) -> Result<Self, Failure> {
        let store = Store::open(url).await?;
        store.begin_quarters(lifecycle::quarters_from(now)).await?;
        let archives = Archives::of(&store, archive_dir);
        Ok(Self { store, archives, next: Instant::now(), has_waited: false })
    }

    /// Commits a batch, and says how many of its facts changed something.
    async fn commit(&mut self, batch: &Batch) -> Result<usize, Failure> {
        // What is in an archive counts already: it must be there again before anything is told again.
        let archived = self.store.archived_months().await?;
        for month in batch.months().intersection(&archived) {
            self.store.reopen(*month, &self.archives).await?;
        }
        sleep_until(self.next).await;
        let started = Instant::now();
        let changes = loop {
            match self.store.commit(batch).await {
                Err(error) if error.is_busy() && started.elapsed() < PATIENCE => {
                    if !std::mem::replace(&mut self.has_waited, true) {
                        note("waits for the database, to which another program writes");
                    }
                    sleep(RETRY).await;
                }
                result => break result?,
            }
        };
        self.next = Instant::now() + PAUSE;
        Ok(changes.page_views + changes.watch_sessions + changes.censuses)
    }
}
