//! What happened. Lives in one SQLite file.
//!
//! Data flows one way: a session or a request appends [`event`]s to the [`journal`], the [`flush`] task
//! commits them to the [`store`], and [`stats`] reads what is committed. The [`lifecycle`] task keeps the file
//! small and moves old months to [`archive`]s. This wing does not know who is here now, or that there are sockets.

pub mod archive;
pub mod calendar;
pub mod capacity;
pub mod event;
pub mod fault;
pub mod flush;
pub mod journal;
pub mod lifecycle;
pub mod meter;
pub mod record;
pub mod rollup;
pub mod stats;
pub mod status;
pub mod store;

pub use fault::Fault;
pub use journal::{Epoch, Journal};
pub use lifecycle::{Lifecycle, Retention};
pub use store::Store;

use std::path::PathBuf;
use std::time::Duration;

/// What the history side is told by the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the database is: `sqlite://path/to/file.db`.
    pub database_url: String,
    /// The longest time between two flushes while events are pending.
    pub flush_interval: Duration,
    /// The most events that may be pending.
    pub queue_limit: usize,
    /// The most bytes of memory that they may take.
    pub queue_bytes: usize,
    /// How long raw rows stay in the database after their month is over.
    pub retention: Retention,
    /// The folder of archives; without one, `archive` beside the database.
    pub archive_dir: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database_url: "sqlite://data/breathing-room.db".to_owned(),
            flush_interval: Duration::from_secs(30),
            queue_limit: 50_000,
            queue_bytes: 64 * 1024 * 1024,
            retention: Retention::default(),
            archive_dir: None,
        }
    }
}
