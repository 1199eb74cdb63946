//! The background task: what runs beside the sessions for as long as the hub does.
//!
//! All of it is one task, so that its end is one drop.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;
use tracing::warn;

use super::holds::HoldStore;
use crate::history::Store;
use crate::http::metrics::HttpMetrics;
use crate::presence::{audit, expiry};
use crate::session::{SessionContext, samples};
use crate::transport::{Sockets, sweep};

/// What the background work needs.
#[derive(Debug)]
pub(super) struct Background {
    pub(super) store: Store,
    pub(super) sockets: Arc<Sockets>,
    pub(super) context: Arc<SessionContext>,
    pub(super) holds: Arc<HoldStore>,
    /// The version of the holds that is in the database.
    pub(super) saved_holds: Option<u64>,
    pub(super) metrics: HttpMetrics,
    pub(super) ping_interval: Duration,
    pub(super) flush_interval: Duration,
}

impl Background {
    /// Sweeps sockets, takes presence samples, audits counts, ends and saves holds, checks the database file, bounds its
    /// write-ahead log, and tidies up, until it is dropped.
    pub(super) async fn run(self) {
        let clock = &self.context.clock;
        tokio::join!(
            sweep::run(&self.sockets, self.ping_interval, clock),
            samples::run(&self.context),
            audit::run(&self.context.registry, clock),
            expiry::run(&self.context.registry),
            self.holds.keep_saved(self.saved_holds, self.flush_interval),
            self.store.watch_file(),
            self.store.bound_wal(),
            self.tidy(),
        );
    }

    /// Once a minute: forgets watch sessions that have been idle for long, and lets the metrics' recorder do its upkeep.
    async fn tidy(&self) {
        let mut minute = interval(Duration::from_mins(1));
        loop {
            minute.tick().await;
            let clocks = &self.context.clocks;
            clocks.remove_idle(self.context.clock.elapsed()).await;
            let evicted = clocks.take_evicted();
            if evicted > 0 {
                warn!(
                    evicted,
                    "too many watch sessions: the hub no longer measures the oldest ones of the addresses with the most"
                );
            }
            self.metrics.run_upkeep();
        }
    }
}
