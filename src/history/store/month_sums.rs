//! The sum of each month's records, by which two nodes compare their histories.
//!
//! Each transaction that changes rows changes the sums too, so they follow the rows at the cost of the batch. Archiving and
//! restoring change no records, and no sum. Maintenance sums up months of an older version in slices; commits meanwhile
//! count the records that it has passed.

use sqlx::SqliteConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::codec::decode_error;
use super::hidden_names::HiddenNames;
use super::months::{self, Archive};
use super::partition::{Partitions, RowKind};
use super::slices::SliceSize;
use super::{LifecycleError, ReadError, Store, read};
use crate::history::archive::{ArchiveError, Archives, LINES, Source, parse_line};
use crate::history::calendar::Month;
use crate::history::record_sum::{self, PartlySummed, RecordKind, RecordSum, SumDelta, SummedBefore};

/// The sum of a month's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MonthSum {
    /// The month.
    pub month: Month,
    /// The sum; none until maintenance has summed up the records of an older version, or restored an archived month
    /// to which rows were added.
    pub sum: Option<RecordSum>,
}

/// Applies a change to the sums, after the rows.
pub(super) async fn apply(connection: &mut SqliteConnection, delta: SumDelta<'_>) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE months SET record_sum = ?2 WHERE month = ?1";
    for (month, change) in delta.months() {
        let mut sum = stored(connection, month).await?;
        sum.add(change);
        let set = sqlx::query(SET).bind(month.to_string()).bind(sum.to_bytes().to_vec());
        set.execute(&mut *connection).await?;
    }
    Ok(())
}

/// The sum that is stored for a month, whether all records are summed up or not.
pub(super) async fn stored(
    connection: &mut SqliteConnection,
    month: Month,
) -> Result<RecordSum, sqlx::Error> {
    const SUM: &str = "SELECT record_sum FROM months WHERE month = ?1";
    let sum: Option<Vec<u8>> =
        sqlx::query_scalar(SUM).bind(month.to_string()).fetch_optional(connection).await?;
    sum.map_or(Ok(RecordSum::default()), |sum| RecordSum::from_bytes(&sum)).map_err(decode_error)
}

/// The sums of all months that have records, in order. A month whose last record has moved to another month, by a merge with
/// an earlier one, has none: it is not there on a node that got both records at once.
pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<MonthSum>, sqlx::Error> {
    let mut sums = Vec::new();
    for state in months::all(connection).await? {
        let is_known = state.has_record_sum && !(state.is_live && state.archive.is_some());
        let sum = if is_known { Some(stored(connection, state.month).await?) } else { None };
        if sum != Some(RecordSum::default()) {
            sums.push(MonthSum { month: state.month, sum });
        }
    }
    Ok(sums)
}

/// Records how far the records of a month are summed up; `None` for all.
async fn set_before(
    connection: &mut SqliteConnection,
    month: Month,
    before: Option<SummedBefore>,
) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE months SET record_sum_before = ?2 WHERE month = ?1";
    let before = before.map(record_sum::encode);
    sqlx::query(SET).bind(month.to_string()).bind(before).execute(connection).await?;
    Ok(())
}

impl Store {
    /// Returns the sums of all months that have records, in order.
    /// Errors: the database failed.
    pub(crate) async fn month_sums(&self) -> Result<Vec<MonthSum>, ReadError> {
        Ok(all(&mut *self.read().await?).await?)
    }

    /// Sums up the records of a month of an older version. Returns whether all are summed up: not those of an archived
    /// month with rows in the tables, which is restored first.
    /// Errors: the database failed, or the month's archive is missing or damaged. A retry continues.
    pub(crate) async fn sum_records(
        &self,
        month: Month,
        archives: &Archives,
    ) -> Result<bool, LifecycleError> {
        let Some(state) = months::one(&mut *self.read().await?, month).await? else { return Ok(true) };
        match state.archive {
            _ if state.has_record_sum => Ok(true),
            Some(archive) if !state.is_live => self.sum_archive(month, &archive, archives).await,
            Some(_) => Ok(false),
            None => self.sum_tables(month).await,
        }
    }

    async fn sum_tables(&self, month: Month) -> Result<bool, LifecycleError> {
        let mut size = SliceSize::rows();
        loop {
            let mut transaction = self.begin().await?;
            let started = Instant::now();
            let is_over = sum_slice(&mut transaction, month, size.get()).await?;
            transaction.commit().await?;
            if is_over {
                return Ok(true);
            }
            size.adapt(started.elapsed());
            // Other writers come between two slices.
            tokio::task::yield_now().await;
        }
    }

    async fn sum_archive(
        &self,
        month: Month,
        archive: &Archive,
        archives: &Archives,
    ) -> Result<bool, LifecycleError> {
        const SET: &str = "
            UPDATE months SET record_sum = ?3, record_sum_before = NULL
            WHERE month = ?1 AND checksum = ?2 AND NOT is_live AND record_sum_before IS NOT NULL";
        let (path, all) = (archives.path(&archive.name), PartlySummed::new());
        let (mut delta, mut source) = (SumDelta::new(&all), Source::open(path.clone()).await?);
        loop {
            let (rest, events) = source.next(LINES, parse_line).await?;
            source = rest;
            if events.is_empty() {
                break;
            }
            delta.add(events.into_iter().collect());
        }
        if source.checksum() != archive.checksum {
            let (expected, found) = (archive.checksum.clone(), source.checksum());
            return Err(ArchiveError::Checksum { path, expected, found }.into());
        }
        let sum = delta.months().remove(&month).unwrap_or_default();
        let mut transaction = self.begin().await?;
        let set = sqlx::query(SET).bind(month.to_string()).bind(&archive.checksum);
        let set = set.bind(sum.to_bytes().to_vec()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(set.rows_affected() > 0)
    }
}

/// Adds the next rows of a month to its sum. Returns whether no rows are left.
async fn sum_slice(connection: &mut SqliteConnection, month: Month, rows: u32) -> Result<bool, sqlx::Error> {
    let partitions = Partitions::read(connection).await?;
    let Some((kind, id)) = partitions.partly_summed.get(&month).copied() else { return Ok(true) };
    let (row_kind, next_kind) = match kind {
        RecordKind::PageView => (RowKind::PageViews, Some(RecordKind::Watch)),
        RecordKind::Watch => (RowKind::WatchSessions, Some(RecordKind::Census)),
        RecordKind::Census => (RowKind::Presence, None),
    };
    let mut next = None;
    // A month without tables has no rows.
    if partitions.live.contains(&month) {
        let (mut events, next_id) = read::from_id(connection, month, row_kind, id, rows).await?;
        HiddenNames::read(connection).await?.restore(&mut events);
        let all = PartlySummed::new();
        let mut delta = SumDelta::new(&all);
        delta.add(events);
        apply(connection, delta).await?;
        next = next_id.map(|id| (kind, id)).or(next_kind.map(|kind| (kind, Uuid::nil())));
    }
    set_before(connection, month, next).await?;
    Ok(next.is_none())
}
