//! The history of page views, watch sessions and presence, in one SQLite file.
//!
//! Data flows one way: sessions and requests append [`event`]s to the [`journal`], the [`flush`] task commits them to
//! the [`store`], and [`stats`] reads committed data. The [`lifecycle`] worker prunes and moves old months to
//! [`archive`]s. This module knows neither rooms nor sockets.

pub(crate) mod archive;
pub(crate) mod calendar;
pub(crate) mod capacity;
pub(crate) mod event;
pub(crate) mod flush;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod lifecycle;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod normalize;
pub(crate) mod prop_names;
pub(crate) mod record;
pub(crate) mod record_sum;
pub(crate) mod rollup;
pub(crate) mod scope;
pub(crate) mod sent_file;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod store;

pub(crate) use journal::Journal;
pub(crate) use lifecycle::{Lifecycle, Retention};
pub(crate) use prop_names::PropNames;
pub(crate) use status::Epoch;
pub(crate) use store::Store;

use std::path::PathBuf;
use std::time::Duration;

/// The default of [`Config::database_url`].
pub(crate) const DATABASE_URL: &str = "sqlite://data/breathing-room.db";

/// The settings of the history.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The database: `sqlite://path/to/file.db`.
    pub database_url: String,
    /// Longest time between two flushes while events are pending.
    pub flush_interval: Duration,
    /// Limit of pending events.
    pub queue_limit: usize,
    /// Limit of their memory, in bytes.
    pub queue_bytes: usize,
    /// The properties of page views that are counted by value as they arrive. Others are counted when they are asked
    /// for.
    pub rollup_props: PropNames,
    /// How long raw rows stay in the database after their month.
    pub retention: Retention,
    /// The folder of archives; by default `archive` beside the database.
    pub archive_dir: Option<PathBuf>,
    /// Whether the whole database is checked before the hub serves; by default only after the machine crashed.
    pub check_first: bool,
    /// The longest time of a query of the history.
    pub read_limit: Duration,
    /// The size above which the write-ahead log is truncated, in bytes.
    pub wal_limit: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database_url: DATABASE_URL.to_owned(),
            flush_interval: Duration::from_secs(30),
            queue_limit: 50_000,
            queue_bytes: 64 * 1024 * 1024,
            rollup_props: PropNames::default(),
            retention: Retention::default(),
            archive_dir: None,
            check_first: false,
            read_limit: Duration::from_secs(10),
            wal_limit: store::WAL_LIMIT,
        }
    }
}
