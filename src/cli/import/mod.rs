//! `import`: commits events from files in the same way as the hub's own.
//!
//! Files are read row by row, so memory use does not depend on their size. Events merge idempotently, so an import that
//! was interrupted can be repeated. On a node of a cluster they wait in the outbox too, from which the hub publishes them.

pub(super) mod fields;
pub(super) mod mapping;
pub(super) mod native;
mod report;
pub(super) mod rows;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::args::room;
use super::output::{self, print_error};
use super::protected::ProtectedFiles;
use super::{CommandError, Outcome};
use crate::auth::Secret;
use crate::cluster::config::CLUSTER;
use crate::cluster::{self, BadCluster};
use crate::history::archive::Archives;
use crate::history::event::Batch;
use crate::history::lifecycle;
use crate::history::log::command::ErasureKey;
use crate::history::log::erasures::Erasures;
use crate::history::log::message::{Encoder, Origin};
use crate::history::store::LogChange;
use crate::history::store::read_only::path_of;
use crate::history::{self, Store};
use crate::protocol::{RoomId, Time};
use crate::time::Clock;
use fields::{Fields, RowError};
use mapping::{ColumnName, LegacyKind, Mapping, Shape};
use report::ImportReport;
use rows::Row;

/// Events per transaction.
const EVENTS_PER_TRANSACTION: usize = 5_000;

/// How far ahead of the clock the times of rows may be, in milliseconds: 5 minutes.
const AHEAD_LIMIT_MS: u64 = 5 * 60 * 1000;

/// Time between two transactions, so that a running hub can flush: SQLite retries a lock every 100 ms.
const COMMIT_INTERVAL: Duration = Duration::from_millis(110);

/// Delay before a retry, after the busy timeout of 2 s.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How long another writer may block an import.
const BUSY_LIMIT: Duration = Duration::from_mins(2);

/// The settings of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportSettings {
    /// Files of JSON Lines, a JSON array or CSV, also compressed with gzip
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The SQLite file; it and its folder are made if missing
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// The folder of archives; archived months that the files have events of are restored from it [default: archive
    /// beside the database]
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
    /// The kind of the old worker's rows; by default, as their columns suggest
    #[arg(long, value_name = "KIND")]
    pub kind: Option<LegacyKind>,
    /// A column's name in the old worker's files, as in visitor=member; may be repeated. The hub's columns are
    /// id, room, visitor, path, title, referrer, at, content, startedAt, duration, completed
    #[arg(long = "field", value_name = "OURS=THEIRS")]
    pub fields: Vec<ColumnName>,
    /// The room of the old worker's rows that have none
    #[arg(long, value_name = "ROOM", default_value = "lobby", value_parser = room)]
    pub room: RoomId,
    /// Read and validate all rows, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// A file for all rejected rows; the first 20 are always printed
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The NATS servers of the hub on this database, where it is a node of a cluster: with them, the hub publishes the
    /// imported events to the other nodes. The import does not connect to them
    #[arg(long, env, value_name = "URLS", value_delimiter = ',', hide_env_values = true)]
    pub nats_url: Vec<String>,
    /// The name of the cluster
    #[arg(long, env, value_name = "NAME", default_value = CLUSTER)]
    pub cluster: String,
    /// The admin token of the nodes, by which visitors that they have erased are left out
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<Secret>,
}

impl ImportSettings {
    /// The key of the erasures of the cluster; none without a cluster.
    fn erasure_key(&self) -> Result<Option<ErasureKey>, BadCluster> {
        let mut config = cluster::Config::default();
        (config.urls, config.name) = (self.nats_url.clone(), self.cluster.clone());
        config.check("import", self.admin_token.is_some())?;
        let token = self.admin_token.as_ref().filter(|_| config.is_on());
        Ok(token.map(|token| ErasureKey::derive(token.reveal(), &config.name)))
    }
}

/// Imports all valid rows of the files, and reports the others.
/// Errors: a file cannot be opened or read, or has no row of a known kind; the report would replace a file that must
/// stay; or a commit failed. Earlier commits stay.
pub(crate) async fn import(settings: ImportSettings) -> Result<Outcome, CommandError> {
    let key = settings.erasure_key()?;
    let ImportSettings { files, database_url, archive_dir, kind, fields, room, dry_run, report, .. } =
        settings;
    let mapping = Arc::new(Mapping::new(kind, room, fields));
    if let Some(report) = &report {
        let database = path_of(&database_url)?;
        let mut protected = ProtectedFiles::of(&database, &Archives::new(archive_dir.clone(), &database));
        for file in &files {
            protected.add(file, "an input of this import");
        }
        protected.check(report)?;
    }
    let bar = output::byte_bar(0);
    let mut opened = Vec::new();
    for path in files {
        let not_read = |source| CommandError::Input { path: path.clone(), source };
        let file = File::open(&path).map_err(not_read)?;
        bar.inc_length(file.metadata().map_err(not_read)?.len());
        let mapping = Arc::clone(&mapping);
        let check =
            move |names: &[String]| mapping.shape(|name| names.iter().any(|column| column == name)).map(drop);
        let rows = rows::read(bar.wrap_read(file), check).map_err(not_read)?;
        opened.push((path, rows));
    }
    let report = ImportReport::new(report.as_deref())?;
    let now = Clock::system().wall();
    let writer = if dry_run { None } else { Some(Writer::open(&database_url, archive_dir, now, key).await?) };
    let latest = now.plus(AHEAD_LIMIT_MS);
    let mut import = Import { mapping, latest, report, writer, batch: Batch::default() };
    let result = import.import_all(opened).await;
    bar.finish_and_clear();
    let outcome = import.report.finish(dry_run);
    if let Some(writer) = import.writer {
        writer.store.close().await;
    }
    result.and(outcome)
}

struct Import {
    mapping: Arc<Mapping>,
    /// The latest time that an event may have.
    latest: Time,
    report: ImportReport,
    /// None in a dry run.
    writer: Option<Writer>,
    batch: Batch,
}

impl Import {
    async fn import_all(&mut self, files: Vec<(PathBuf, rows::Rows)>) -> Result<Outcome, CommandError> {
        for (path, rows) in files {
            // An empty file is an export without events.
            let (mut is_empty, mut is_known) = (true, false);
            for Row { line, fields } in rows {
                self.report.add_read();
                is_empty = false;
                let added = fields.and_then(|fields| {
                    let shape = self.mapping.shape(|name| fields.get(name).is_some())?;
                    is_known |= is_of_known_kind(shape, &fields);
                    self.add(shape, fields)
                });
                if let Err(error) = added {
                    self.report.add_rejected(&path, line, &error)?;
                }
                if self.batch.len() >= EVENTS_PER_TRANSACTION {
                    self.commit().await?;
                }
            }
            if !is_empty && !is_known {
                self.report.fail(CommandError::Unknown { path });
            }
        }
        self.commit().await?;
        Ok(Outcome::Success)
    }

    /// Converts a row and adds its event to the batch.
    fn add(&mut self, shape: Shape, fields: Fields) -> Result<(), RowError> {
        let record = match shape {
            Shape::Legacy(kind) => self.mapping.record(kind, &fields, self.latest)?,
            Shape::Native => native::read(fields, self.latest)?,
        };
        record.add_to(&mut self.batch).map_err(|rule| RowError::field("props", rule))
    }

    async fn commit(&mut self) -> Result<(), CommandError> {
        let batch = std::mem::take(&mut self.batch);
        let len = batch.len();
        let new = match &mut self.writer {
            Some(writer) if !batch.is_empty() => writer.commit(batch).await?,
            _ => 0,
        };
        self.report.add_valid(len, new);
        Ok(())
    }
}

fn is_of_known_kind(shape: Shape, fields: &Fields) -> bool {
    match shape {
        Shape::Legacy(_) => true,
        Shape::Native => {
            let kind = fields.get("type").and_then(Value::as_str);
            kind.is_some_and(|kind| native::KINDS.contains(&kind))
        }
    }
}

/// What an import needs of the log.
struct LogWriter {
    encoder: Encoder,
    erasures: Erasures,
}

impl LogWriter {
    /// Removes the events of erased visitors, and returns the messages for the other nodes.
    fn publish(&mut self, batch: &mut Batch) -> LogChange {
        self.erasures.drop_from(batch);
        let encoded = self.encoder.encode(batch.clone()).into_iter();
        let outbox = encoded.map(|encoded| (encoded.id.to_string(), encoded.message)).collect();
        LogChange { outbox, ..LogChange::default() }
    }
}

/// Commits batches with pauses for other writers.
struct Writer {
    store: Store,
    archives: Archives,
    /// On a node of a cluster.
    log: Option<LogWriter>,
    /// Earliest time of the next transaction.
    next: Instant,
    /// Whether the message about another writer was printed.
    has_waited: bool,
}

impl Writer {
    async fn open(
        url: &str,
        archive_dir: Option<PathBuf>,
        now: Time,
        key: Option<ErasureKey>,
    ) -> Result<Self, CommandError> {
        let store = Store::open(url).await?;
        store.begin_quarters(lifecycle::quarters_from(now)).await?;
        let archives = Archives::new(archive_dir, &store.path());
        let log = match key {
            None => None,
            Some(key) => {
                let erasures = Erasures::new(key, store.logged_erasures().await?.concat(), []);
                Some(LogWriter { encoder: Encoder::new(Origin::new()), erasures })
            }
        };
        Ok(Self { store, archives, log, next: Instant::now(), has_waited: false })
    }

    /// Commits a batch, and returns how many of its events changed the database.
    async fn commit(&mut self, mut batch: Batch) -> Result<usize, CommandError> {
        let change = self.log.as_mut().map(|log| log.publish(&mut batch)).unwrap_or_default();
        // Rollups include archived rows, so these must be back in the tables to deduplicate the batch.
        let archived = self.store.archived_months().await?;
        for month in batch.months().intersection(&archived) {
            self.store.restore_from(*month, &self.archives).await?;
        }
        sleep_until(self.next).await;
        let started = Instant::now();
        let changes = loop {
            match self.store.commit_with_log(&batch, &change).await {
                Err(error) if error.is_busy() && started.elapsed() < BUSY_LIMIT => {
                    if !std::mem::replace(&mut self.has_waited, true) {
                        print_error("waits for the database, to which another program writes");
                    }
                    sleep(RETRY_DELAY).await;
                }
                result => break result?,
            }
        };
        self.next = Instant::now() + COMMIT_INTERVAL;
        Ok(changes.page_views + changes.watch_sessions + changes.samples)
    }
}
