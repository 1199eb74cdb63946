//! The table of months: which months exist, and where their rows are.
//!
//! A month's rows are in its tables, in an archive, or in both: after late rows, or during a restore.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use serde::Serialize;
use sqlx::SqliteConnection;
use utoipa::ToSchema;

use super::codec::{from_visitors, to_visitors};
use super::{LifecycleError, ReadError, Store, dimensions};
use crate::history::calendar::Month;
use crate::history::rollup::Counted;

/// The state of a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MonthState {
    /// The month.
    pub month: Month,
    /// Whether the month has tables.
    pub is_live: bool,
    /// The change counter, which rises with each transaction that changes the tables.
    pub changes: i64,
    /// Whether the month rollups are complete.
    pub is_summed: bool,
    /// The state of the month's rollups of dimensions.
    pub dimensions: DimensionState,
    /// The month's archive, if its rows are or were archived.
    pub archive: Option<Archive>,
    /// Whether all records are summed up.
    pub has_record_sum: bool,
}

/// The state of a month's rollups of dimensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DimensionState {
    /// The change counter when the month was settled.
    pub settled: Option<i64>,
    /// Whether some values are summed up as `(other)`.
    pub is_folded: bool,
    /// Which rows they count, as the table has it; `None` for all.
    pub counted: Option<Vec<u8>>,
}

impl MonthState {
    /// Whether the rollups of dimensions are rebuilt as soon as all rows are in the tables.
    pub(crate) fn needs_rebuild(&self) -> bool {
        let DimensionState { settled, is_folded, counted } = &self.dimensions;
        counted.is_some() || *is_folded && *settled != Some(self.changes)
    }
}

/// A month's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    /// The file name.
    pub name: String,
    /// The file's SHA-256, in hexadecimal.
    pub checksum: String,
    /// How many of its lines are restored.
    pub restored: u64,
}

/// A month and a number of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct MonthRows {
    /// The month.
    pub month: Month,
    /// The number of rows.
    pub rows: u64,
}

type Row =
    (String, bool, i64, bool, Option<String>, Option<String>, u64, Option<i64>, bool, Option<Vec<u8>>, bool);

impl MonthState {
    fn from_row(row: Row) -> Result<Self, sqlx::Error> {
        let (
            month,
            is_live,
            changes,
            is_summed,
            name,
            checksum,
            restored,
            settled,
            is_folded,
            counted,
            has_sum,
        ) = row;
        let month = month.parse().map_err(|bad| sqlx::Error::Decode(Box::new(bad)))?;
        let archive = name.zip(checksum).map(|(name, checksum)| Archive { name, checksum, restored });
        let dimensions = DimensionState { settled, is_folded, counted };
        Ok(Self { month, is_live, changes, is_summed, dimensions, archive, has_record_sum: has_sum })
    }
}

/// All months, in order.
pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<MonthState>, sqlx::Error> {
    const ALL: &str = "
        SELECT month, is_live, changes, summed = 'yes', archive, checksum, restored, settled, folded, counted,
               record_sum_before IS NULL
        FROM months ORDER BY month";
    let rows: Vec<Row> = sqlx::query_as(ALL).fetch_all(connection).await?;
    rows.into_iter().map(MonthState::from_row).collect()
}

/// The archived months.
pub(super) async fn archived(connection: &mut SqliteConnection) -> Result<BTreeSet<Month>, sqlx::Error> {
    let months = all(connection).await?.into_iter();
    Ok(months.filter(|state| state.archive.is_some()).map(|state| state.month).collect())
}

/// The months with an `(other)` in their rollups of dimensions.
pub(super) async fn folded(connection: &mut SqliteConnection) -> Result<Vec<Month>, sqlx::Error> {
    let months = all(connection).await?.into_iter();
    Ok(months.filter(|state| state.dimensions.is_folded).map(|state| state.month).collect())
}

/// One month.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    month: Month,
) -> Result<Option<MonthState>, sqlx::Error> {
    const ONE: &str = "
        SELECT month, is_live, changes, summed = 'yes', archive, checksum, restored, settled, folded, counted,
               record_sum_before IS NULL
        FROM months WHERE month = ?1";
    let row: Option<Row> = sqlx::query_as(ONE).bind(month.to_string()).fetch_optional(connection).await?;
    row.map(MonthState::from_row).transpose()
}

/// Records that a month's rows are in an archive, or (`None`) in the tables.
pub(super) async fn set_archive(
    connection: &mut SqliteConnection,
    month: Month,
    archive: Option<(&str, &str)>,
) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE months SET archive = ?2, checksum = ?3, restored = 0 WHERE month = ?1";
    let (name, checksum) = archive.unzip();
    sqlx::query(SET).bind(month.to_string()).bind(name).bind(checksum).execute(connection).await?;
    Ok(())
}

/// Records which rows the month's rollups of dimensions count; `None` for all.
pub(super) async fn set_counted(
    connection: &mut SqliteConnection,
    month: Month,
    counted: Option<Counted>,
) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE months SET counted = ?2 WHERE month = ?1";
    let counted = counted.map(dimensions::encode);
    sqlx::query(SET).bind(month.to_string()).bind(counted).execute(connection).await?;
    Ok(())
}

/// The visitors in a month's archive, or `None` if it was written by an older version.
pub(super) async fn archived_visitors(
    connection: &mut SqliteConnection,
    month: Month,
) -> Result<Option<RoaringBitmap>, sqlx::Error> {
    const VISITORS: &str = "SELECT archived_visitors FROM months WHERE month = ?1";
    let visitors = sqlx::query_scalar(VISITORS).bind(month.to_string());
    let visitors: Option<Option<Vec<u8>>> = visitors.fetch_optional(connection).await?;
    visitors.flatten().map(|visitors| to_visitors(&visitors)).transpose()
}

/// Records the visitors in a month's archive.
pub(super) async fn set_archived_visitors(
    connection: &mut SqliteConnection,
    month: Month,
    visitors: &RoaringBitmap,
) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE months SET archived_visitors = ?2 WHERE month = ?1";
    sqlx::query(SET).bind(month.to_string()).bind(from_visitors(visitors)).execute(connection).await?;
    Ok(())
}

/// The months with tables that are to be rewritten after an erasure.
pub(super) async fn to_rewrite(connection: &mut SqliteConnection) -> Result<Vec<Month>, sqlx::Error> {
    named(connection, "SELECT month FROM months WHERE is_live AND rewrite ORDER BY month").await
}

/// The months whose rollups may count rows that an erasure has deleted from the archive.
pub(super) async fn to_recount(connection: &mut SqliteConnection) -> Result<Vec<Month>, sqlx::Error> {
    named(connection, "SELECT month FROM months WHERE recount ORDER BY month").await
}

async fn named(connection: &mut SqliteConnection, query: &'static str) -> Result<Vec<Month>, sqlx::Error> {
    let months: Vec<String> = sqlx::query_scalar(query).fetch_all(connection).await?;
    let parse = |month: String| month.parse().map_err(|bad| sqlx::Error::Decode(Box::new(bad)));
    months.into_iter().map(parse).collect()
}

/// Adds to the number of restored lines.
pub(super) async fn add_restored(
    connection: &mut SqliteConnection,
    month: Month,
    lines: u64,
) -> Result<(), sqlx::Error> {
    const ADD: &str = "UPDATE months SET restored = restored + ?2 WHERE month = ?1";
    let lines = i64::try_from(lines).unwrap_or(i64::MAX);
    sqlx::query(ADD).bind(month.to_string()).bind(lines).execute(connection).await?;
    Ok(())
}

impl Store {
    /// Returns the states of all months, in order.
    /// Errors: the database failed.
    pub(crate) async fn months(&self) -> Result<Vec<MonthState>, LifecycleError> {
        Ok(all(&mut *self.read().await?).await?)
    }

    /// Returns the archived months.
    /// Errors: the database failed.
    pub(crate) async fn archived_months(&self) -> Result<BTreeSet<Month>, ReadError> {
        Ok(archived(&mut *self.read().await?).await?)
    }
}
