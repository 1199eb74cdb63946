//! The lifecycle task: what becomes of the history as it grows old.
//!
//! It wakes every hour and when somebody asks, makes a plan from what there is and what time it is, and
//! goes through the plan step by step. It erases visitors too, so that nothing else is at work on tables
//! and archives meanwhile. What it does may stop after any step, so that at the end it is just dropped.

pub(crate) mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};
use utoipa::ToSchema;

pub(crate) use plan::{Retention, quarters_from};

use self::plan::Plan;
use super::archive::Archives;
use super::metrics::LifecycleMetrics;
use super::store::{Erased, LifecycleError, MonthRows, Store};
use crate::protocol::VisitorId;
use crate::time::{Clock, millis};

/// When the first run begins: a hub that starts has better things to do.
const FIRST_RUN: Duration = Duration::from_mins(5);

/// How long it is from run to run.
const INTERVAL: Duration = Duration::from_hours(1);

/// Orders that may wait.
const ORDERS: usize = 16;

/// The steps of a run, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(as = MaintenanceStep)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Old rollups of quarter hours go; counts days.
    Quarters,
    /// Months that are over are summed up; counts months.
    Months,
    /// Archived months with late rows come back; counts months.
    Restore,
    /// Old months go to archives; counts months.
    Archive,
    /// Free pages go; counts pages.
    Vacuum,
    /// SQLite measures its tables.
    Optimize,
    /// The write-ahead log is emptied; counts 1, or 0 where somebody was in the way.
    Checkpoint,
}

impl Step {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Quarters,
        Self::Months,
        Self::Restore,
        Self::Archive,
        Self::Vacuum,
        Self::Optimize,
        Self::Checkpoint,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quarters => "quarters",
            Self::Months => "months",
            Self::Restore => "restore",
            Self::Archive => "archive",
            Self::Vacuum => "vacuum",
            Self::Optimize => "optimize",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// How a step went.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepReport {
    /// How long it took.
    pub took_ms: u64,
    /// How much it did.
    pub count: u64,
    /// What went wrong, if something did.
    pub failures: Vec<String>,
}

/// What a run did.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MaintenanceReport)]
pub(crate) struct Report {
    /// How long it took.
    pub took_ms: u64,
    /// How each step went.
    pub steps: BTreeMap<Step, StepReport>,
    /// The archives that were written.
    pub archived: Vec<MonthRows>,
}

/// What was asked for did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfinished {
    /// The hub ends.
    #[error("the hub is stopping")]
    Stopped,
    /// Something failed on the way; asking again goes on.
    #[error(transparent)]
    Failed(#[from] LifecycleError),
}

/// The way to the lifecycle task. When the last one is dropped, the task drops what it does and ends.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    maintenance: mpsc::Sender<oneshot::Sender<Report>>,
    erasures: mpsc::Sender<Erasure>,
    _alive: Arc<DropGuard>,
}

/// Somebody to erase, and who waits for it.
type Erasure = (VisitorId, oneshot::Sender<Result<Erased, LifecycleError>>);

/// The task's end of it.
#[derive(Debug)]
pub(crate) struct Orders {
    maintenance: mpsc::Receiver<oneshot::Sender<Report>>,
    erasures: mpsc::Receiver<Erasure>,
    stop: CancellationToken,
}

/// A way to the task, and what the task is run with.
#[must_use]
pub(crate) fn open() -> (Lifecycle, Orders) {
    let ((maintain, maintenance), (erase, erasures)) = (mpsc::channel(ORDERS), mpsc::channel(ORDERS));
    let stop = CancellationToken::new();
    let alive = Arc::new(stop.clone().drop_guard());
    let lifecycle = Lifecycle { maintenance: maintain, erasures: erase, _alive: alive };
    (lifecycle, Orders { maintenance, erasures, stop })
}

impl Lifecycle {
    /// Goes through all that is due now, or joins the run that is under way.
    ///
    /// # Errors
    /// The hub ends first.
    pub(crate) async fn maintain(&self) -> Result<Report, Unfinished> {
        let (reply, answer) = oneshot::channel();
        self.maintenance.send(reply).await.map_err(|_| Unfinished::Stopped)?;
        answer.await.map_err(|_| Unfinished::Stopped)
    }

    /// Erases everything of a visitor that is in the database and in archives.
    ///
    /// # Errors
    /// Something failed, or the hub ends first; asking again goes on where it stopped.
    pub(crate) async fn erase(&self, visitor: VisitorId) -> Result<Erased, Unfinished> {
        let (reply, answer) = oneshot::channel();
        self.erasures.send((visitor, reply)).await.map_err(|_| Unfinished::Stopped)?;
        Ok(answer.await.map_err(|_| Unfinished::Stopped)??)
    }
}

/// Why the task woke up.
enum Wake {
    /// It is time.
    Due,
    /// Somebody waits for a run.
    Maintain(oneshot::Sender<Report>),
    /// Somebody is to be erased.
    Erase(Erasure),
    /// Nobody can ask any more.
    Closed,
}

/// What the task works with.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// The database.
    pub store: Store,
    /// The folder of archives.
    pub archives: Archives,
    /// How long raw rows stay.
    pub retention: Retention,
    /// Tells what is old.
    pub clock: Clock,
    /// Counts what was done.
    pub metrics: LifecycleMetrics,
}

/// Keeps the history until nobody can ask for it any more.
pub(crate) async fn run(orders: Orders, keeper: Keeper) {
    let stop = orders.stop.clone();
    // What is under way is dropped where it stands: each of its steps is done or not.
    stop.run_until_cancelled(serve(orders, keeper)).await;
}

async fn serve(mut orders: Orders, keeper: Keeper) {
    let mut due = Instant::now() + FIRST_RUN;
    loop {
        // Whoever hung up does not want to know.
        match orders.next(due).await {
            Wake::Erase((visitor, reply)) => drop(reply.send(keeper.erase(&visitor).await)),
            Wake::Closed => return,
            wake @ (Wake::Due | Wake::Maintain(_)) => {
                let report = keeper.maintain().await;
                due = Instant::now() + INTERVAL;
                if let Wake::Maintain(reply) = wake {
                    let _ = reply.send(report.clone());
                }
                // Whoever asked meanwhile has joined this run.
                while let Ok(reply) = orders.maintenance.try_recv() {
                    let _ = reply.send(report.clone());
                }
            }
        }
    }
}

impl Orders {
    async fn next(&mut self, due: Instant) -> Wake {
        tokio::select! {
            reply = self.maintenance.recv() => reply.map_or(Wake::Closed, Wake::Maintain),
            erasure = self.erasures.recv() => erasure.map_or(Wake::Closed, Wake::Erase),
            () = sleep_until(due) => Wake::Due,
        }
    }
}

impl Keeper {
    async fn erase(&self, visitor: &VisitorId) -> Result<Erased, LifecycleError> {
        let erased = self.store.erase(visitor, &self.archives).await;
        match &erased {
            // Whoever asks for nobody's must not fill the log.
            Ok(erased) if erased.is_nothing() => debug!("nothing of a visitor was there to be erased"),
            Ok(erased) => info!(?erased, "a visitor was erased"),
            Err(error) => warn!(%error, "a visitor could not be erased"),
        }
        erased
    }

    /// One run: what is due, step by step. A step that fails does not stop the others.
    pub(in crate::history) async fn maintain(&self) -> Report {
        let (store, archives, now) = (&self.store, &self.archives, self.clock.wall());
        let mut run = Run { metrics: &self.metrics, started: Instant::now(), report: Report::default() };
        if let Some(days) = run.step(Step::Quarters, store.drop_quarters(quarters_from(now))).await {
            run.count(Step::Quarters, days);
        }
        let months = run.step(Step::Months, store.months()).await.unwrap_or_default();
        let plan = Plan::new(now, self.retention, &months);
        for month in plan.sum {
            if run.step(Step::Months, store.sum_month(month)).await.is_some() {
                run.count(Step::Months, 1);
            }
        }
        run.step(Step::Restore, store.settle(archives)).await;
        for month in plan.restore {
            if run.step(Step::Restore, store.reopen(month, archives)).await.is_some() {
                run.count(Step::Restore, 1);
            }
        }
        for month in plan.archive {
            let written = run.step(Step::Archive, store.archive(month, archives)).await.flatten();
            if let Some(written) = written.filter(|written| written.rows > 0) {
                run.count(Step::Archive, 1);
                run.report.archived.push(MonthRows { month, rows: written.rows });
            }
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

/// A run that is under way.
struct Run<'a> {
    metrics: &'a LifecycleMetrics,
    started: Instant,
    report: Report,
}

impl Run<'_> {
    async fn step<T>(
        &mut self,
        step: Step,
        work: impl Future<Output = Result<T, LifecycleError>>,
    ) -> Option<T> {
        let started = Instant::now();
        let result = work.await;
        let report = self.report.steps.entry(step).or_default();
        report.took_ms += millis(started.elapsed());
        match result {
            Ok(done) => Some(done),
            Err(error) => {
                warn!(step = step.name(), %error, "maintenance goes on without this step");
                self.metrics.failed(step);
                report.failures.push(error.to_string());
                None
            }
        }
    }

    fn count(&mut self, step: Step, count: u64) {
        self.report.steps.entry(step).or_default().count += count;
        match step {
            Step::Archive => self.metrics.archived_months.increment(count),
            Step::Vacuum => self.metrics.freed_pages.increment(count),
            _ => {}
        }
    }

    fn end(mut self) -> Report {
        self.report.took_ms = millis(self.started.elapsed());
        for (step, report) in &self.report.steps {
            self.metrics.took(*step, report.took_ms as f64 / 1000.0);
        }
        info!(took_ms = self.report.took_ms, archived = ?self.report.archived, "maintenance is done");
        self.report
    }
}
