//! The maintenance worker: retention, archiving and erasures.
//!
//! It runs every hour and on request, and processes a plan step by step. Erasures run on the same task, so that no other
//! work changes tables and archives meanwhile. Each step may be interrupted, so the task is simply dropped at shutdown.

mod erase;
mod logged;
pub(crate) mod plan;
pub(crate) mod steps;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

pub(crate) use logged::LoggedErasures;
pub(crate) use plan::{Retention, quarters_from};
pub(crate) use steps::{MaintenanceReport, MaintenanceStep};

use self::erase::Overwriting;
use self::plan::MaintenancePlan;
use super::archive::Archives;
use super::metrics::LifecycleMetrics;
use super::store::{Erased, Erasure, LifecycleError, MonthRows, Store};
use crate::protocol::VisitorId;
use crate::time::{Clock, millis};

/// Delay of the first run after the start, so that it does not compete with visitors who reconnect.
const FIRST_RUN: Duration = Duration::from_mins(5);

/// Time between two runs.
const INTERVAL: Duration = Duration::from_hours(1);

/// Limit of queued commands of each kind.
const COMMANDS_LIMIT: usize = 16;

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaintenanceError {
    /// The hub stops.
    #[error("the hub is stopping")]
    Stopped,
    /// A step failed. A retry continues.
    #[error(transparent)]
    Failed(#[from] LifecycleError),
}

/// Sends commands to the maintenance worker. When the last clone is dropped, the worker stops at once.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    maintenance: mpsc::Sender<oneshot::Sender<MaintenanceReport>>,
    erasures: mpsc::Sender<Request>,
    _alive: Arc<DropGuard>,
}

/// A visitor to erase, and where the result goes.
type Request = (VisitorId, Erasure, oneshot::Sender<Result<Erased, LifecycleError>>);

/// The worker's end of the command channels.
#[derive(Debug)]
pub(crate) struct Commands {
    maintenance: mpsc::Receiver<oneshot::Sender<MaintenanceReport>>,
    erasures: mpsc::Receiver<Request>,
    stop: CancellationToken,
}

/// Opens the command channels.
pub(crate) fn open() -> (Lifecycle, Commands) {
    let ((maintain, maintenance), (erase, erasures)) =
        (mpsc::channel(COMMANDS_LIMIT), mpsc::channel(COMMANDS_LIMIT));
    let stop = CancellationToken::new();
    let alive = Arc::new(stop.clone().drop_guard());
    let lifecycle = Lifecycle { maintenance: maintain, erasures: erase, _alive: alive };
    (lifecycle, Commands { maintenance, erasures, stop })
}

impl Lifecycle {
    /// Starts a run, or joins the one in progress, and waits for its report.
    /// Errors: the hub stops first.
    pub(crate) async fn maintain(&self) -> Result<MaintenanceReport, MaintenanceError> {
        let (reply, report) = oneshot::channel();
        self.maintenance.send(reply).await.map_err(|_| MaintenanceError::Stopped)?;
        report.await.map_err(|_| MaintenanceError::Stopped)
    }

    /// Erases a visitor from the database and the archives.
    /// Errors: a step failed, or the hub stops first. A retry continues.
    pub(crate) async fn erase(
        &self,
        visitor: VisitorId,
        erasure: Erasure,
    ) -> Result<Erased, MaintenanceError> {
        let (reply, erased) = oneshot::channel();
        self.erasures.send((visitor, erasure, reply)).await.map_err(|_| MaintenanceError::Stopped)?;
        Ok(erased.await.map_err(|_| MaintenanceError::Stopped)??)
    }
}

/// Why the worker woke up.
enum Wake {
    /// The interval is over.
    Due,
    /// A run was requested.
    Maintain(oneshot::Sender<MaintenanceReport>),
    /// An erasure was requested.
    Erase(Request),
    /// The log has erased visitors.
    Logged,
    /// Erasures have left copies, and the rest is over.
    Overwrite,
    /// All senders are dropped.
    Closed,
}

/// The maintenance worker.
#[derive(Debug)]
pub(crate) struct MaintenanceWorker {
    /// The database.
    pub store: Store,
    /// The folder of archives.
    pub archives: Archives,
    /// How long raw rows stay in the database.
    pub retention: Retention,
    /// The wall clock.
    pub clock: Clock,
    /// Counters of steps.
    pub metrics: LifecycleMetrics,
    /// The erasures of the log; none without a log.
    pub logged: Option<LoggedErasures>,
}

/// Executes commands and scheduled runs until the last [`Lifecycle`] is dropped.
pub(crate) async fn run(commands: Commands, worker: MaintenanceWorker) {
    let stop = commands.stop.clone();
    // Dropping the work in progress is safe: each step is one transaction or can be continued.
    stop.run_until_cancelled(serve(commands, worker)).await;
}

async fn serve(mut commands: Commands, worker: MaintenanceWorker) {
    match Box::pin(worker.continue_erasures()).await {
        Ok(0) => {}
        Ok(visitors) => info!(visitors, "finished the erasures of visitors: maintenance overwrites the rest"),
        Err(error) => warn!(%error, "cannot finish the erasures of visitors: maintenance tries it again"),
    }
    let (mut due, mut overwriting) = (Instant::now() + FIRST_RUN, Overwriting::new());
    loop {
        // A failed send means that the requester has left.
        match commands.next(due, worker.logged.as_ref(), &overwriting).await {
            Wake::Erase((visitor, erasure, reply)) => {
                drop(reply.send(Box::pin(worker.erase(&visitor, erasure, &mut overwriting)).await));
            }
            Wake::Logged => Box::pin(worker.erase_logged()).await,
            Wake::Overwrite => Box::pin(worker.overwrite_due(&mut overwriting)).await,
            Wake::Closed => return,
            wake @ (Wake::Due | Wake::Maintain(_)) => {
                let report = Box::pin(worker.maintain()).await;
                due = Instant::now() + INTERVAL;
                if let Wake::Maintain(reply) = wake {
                    let _ = reply.send(report.clone());
                }
                // Requests that came during the run share its report.
                while let Ok(reply) = commands.maintenance.try_recv() {
                    let _ = reply.send(report.clone());
                }
            }
        }
    }
}

impl Commands {
    async fn next(
        &mut self,
        due: Instant,
        logged: Option<&LoggedErasures>,
        overwriting: &Overwriting,
    ) -> Wake {
        let logged = async {
            match logged {
                Some(logged) => logged.erasures.due().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = logged => Wake::Logged,
            () = overwriting.due() => Wake::Overwrite,
            reply = self.maintenance.recv() => reply.map_or(Wake::Closed, Wake::Maintain),
            erasure = self.erasures.recv() => erasure.map_or(Wake::Closed, Wake::Erase),
            () = sleep_until(due) => Wake::Due,
        }
    }
}

impl MaintenanceWorker {
    /// Continues the erasures that a stop interrupted, or that a database restored from a backup does not have. Only
    /// afterwards, the node publishes what that database still had for the log. Returns how many visitors were erased.
    async fn continue_erasures(&self) -> Result<u64, LifecycleError> {
        let visitors = self.store.continue_erasures(&self.archives, self.clock.wall()).await?;
        if let Some(logged) = &self.logged {
            logged.erasures.set_repeated();
        }
        Ok(visitors)
    }

    /// Executes a run: all steps that are due. A step that fails does not stop the others.
    pub(in crate::history) async fn maintain(&self) -> MaintenanceReport {
        use MaintenanceStep as Step;
        let (store, archives, now) = (&self.store, &self.archives, self.clock.wall());
        let report = MaintenanceReport::default();
        let mut run = Run { metrics: &self.metrics, started: Instant::now(), report };
        if let Some(visitors) = run.step(Step::Erase, self.continue_erasures()).await {
            run.count(Step::Erase, visitors);
        }
        if let Some(Some(visitors)) = run.step(Step::Erase, self.finish_logged()).await {
            run.count(Step::Erase, visitors);
        }
        if let Some(days) = run.step(Step::Quarters, store.drop_quarters(quarters_from(now))).await {
            run.count(Step::Quarters, days);
        }
        let months = run.step(Step::Months, store.months()).await.unwrap_or_default();
        let plan = MaintenancePlan::new(now, self.retention, &months);
        for month in plan.sum {
            if run.step(Step::Months, store.sum_month(month)).await.is_some() {
                run.count(Step::Months, 1);
            }
        }
        for month in plan.restore {
            if run.step(Step::Restore, store.restore_from(month, archives)).await.is_some() {
                run.count(Step::Restore, 1);
            }
        }
        for rows in [
            run.step(Step::Settle, store.drop_unlisted_props()).await,
            run.step(Step::Settle, store.convert_old_rollups()).await,
        ] {
            run.count(Step::Settle, rows.unwrap_or_default());
        }
        // A restored month is settled and archived in the same run.
        let months = run.step(Step::Settle, store.months()).await.unwrap_or_default();
        let plan = MaintenancePlan::new(now, self.retention, &months);
        for (month, is_over) in plan.settle {
            if let Some(rows) = run.step(Step::Settle, store.settle(month, is_over)).await {
                run.count(Step::Settle, rows);
            }
        }
        for month in plan.sum_records {
            let is_complete = run.step(Step::Sums, store.sum_records(month, archives)).await;
            run.count(Step::Sums, u64::from(is_complete == Some(true)));
        }
        // An archive would have the rows of visitors who are half erased.
        let may_archive = run.step(Step::Archive, store.has_pending_erasures()).await == Some(false);
        for month in plan.archive.into_iter().filter(|_| may_archive) {
            let written = run.step(Step::Archive, store.archive(month, archives)).await.flatten();
            if let Some(written) = written.filter(|written| written.rows > 0) {
                run.count(Step::Archive, 1);
                run.report.archived.push(MonthRows { month, rows: written.rows });
            }
        }
        if let Some(count) = run.step(Step::Sweep, store.remove_leftovers()).await {
            run.count(Step::Sweep, count);
        }
        if let Some(freed) = run.step(Step::Vacuum, store.vacuum()).await {
            run.count(Step::Vacuum, freed.pages);
        }
        run.step(Step::Optimize, store.optimize()).await;
        if let Some(is_empty) = run.step(Step::Checkpoint, store.checkpoint()).await {
            run.count(Step::Checkpoint, is_empty.into());
        }
        run.end()
    }
}

/// A run in progress.
struct Run<'a> {
    metrics: &'a LifecycleMetrics,
    started: Instant,
    report: MaintenanceReport,
}

impl Run<'_> {
    async fn step<T>(
        &mut self,
        step: MaintenanceStep,
        work: impl Future<Output = Result<T, LifecycleError>>,
    ) -> Option<T> {
        let started = Instant::now();
        let result = work.await;
        let report = self.report.steps.entry(step).or_default();
        report.took_ms += millis(started.elapsed());
        match result {
            Ok(done) => Some(done),
            Err(error) => {
                let name: &str = step.into();
                warn!(step = name, %error, "a maintenance step failed: the next run tries it again");
                self.metrics.failed(step);
                report.failures.push(error.to_string());
                None
            }
        }
    }

    fn count(&mut self, step: MaintenanceStep, count: u64) {
        self.report.steps.entry(step).or_default().count += count;
        match step {
            MaintenanceStep::Archive => self.metrics.archived_months.increment(count),
            MaintenanceStep::Vacuum => self.metrics.freed_pages.increment(count),
            _ => {}
        }
    }

    fn end(mut self) -> MaintenanceReport {
        self.report.took_ms = millis(self.started.elapsed());
        for (step, report) in &self.report.steps {
            self.metrics.took(*step, report.took_ms as f64 / 1000.0);
        }
        info!(took_ms = self.report.took_ms, archived = ?self.report.archived, "finished a maintenance run");
        self.report
    }
}
