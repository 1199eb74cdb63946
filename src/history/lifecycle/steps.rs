//! The steps of a maintenance run, and the report of a run.
//!
//! Metrics and the admin's answer use both.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::history::store::MonthRows;

/// A step of a run. Steps run in this order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum MaintenanceStep {
    /// Continues interrupted erasures, and repeats those that a restored database lacks; counts visitors.
    Erase,
    /// Prunes old rollups of quarter hours; counts days.
    Quarters,
    /// Makes the rollups of months that are over; counts months.
    Months,
    /// Restores archived months that have late rows; counts months.
    Restore,
    /// Bounds the lists of months that are over, and rebuilds them after changes; counts rows.
    Settle,
    /// Sums up the records of months of an older version; counts months.
    Sums,
    /// Archives months after their retention; counts months.
    Archive,
    /// Deletes what erasures and archives have left; counts tables and texts.
    Sweep,
    /// Returns free pages to the disk; counts pages.
    Vacuum,
    /// Updates SQLite's table statistics.
    Optimize,
    /// Truncates the write-ahead log; counts 1, or 0 if a reader or writer blocked it.
    Checkpoint,
}

/// The result of a step.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepReport {
    /// Duration in milliseconds.
    pub took_ms: u64,
    /// How many days, months or pages the step processed.
    pub count: u64,
    /// Error messages.
    pub failures: Vec<String>,
}

/// The result of a run.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MaintenanceReport {
    /// Duration in milliseconds.
    pub took_ms: u64,
    /// The result of each step.
    pub steps: BTreeMap<MaintenanceStep, StepReport>,
    /// The archives that were written.
    pub archived: Vec<MonthRows>,
}
