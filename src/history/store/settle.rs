//! Settling: bounds the rollups of dimensions of months that are over.
//!
//! In each room, period and dimension the first values in the order of lists keep their rows, and the rest becomes
//! `(other)`. From then on commits leave these rollups alone. After a change they are rebuilt from the raw rows and
//! folded again, so that the result does not depend on the order in which events arrived.
//!
//! A rebuild deletes the rollups and then counts the raw rows by id. Commits meanwhile count their rows if the rebuild
//! has passed their ids. Each step is a short transaction, and an interrupted rebuild continues.

use strum::VariantArray;
use tokio::time::Instant;
use uuid::Uuid;

use super::dimensions::{self, TABLE};
use super::months::{self, MonthState};
use super::partition::RowKind;
use super::roll_up::quarters_from;
use super::slices::SliceSize;
use super::{LifecycleError, Store, dictionary, read};
use crate::history::calendar::{Level, Month};
use crate::history::rollup::{Counted, RollupDelta};

/// Rows per transaction of a rebuild. Few in tests, so that there are many.
const ROWS_PER_SLICE: u32 = if cfg!(test) { 3 } else { 2_000 };

/// Bytes of old rollups per transaction of a conversion.
const BYTES_PER_SLICE: i64 = 256 * 1024;

impl Store {
    /// Makes a month's rollups of dimensions exact, and if the month `is_over`, folds them. Returns how many rows were
    /// rebuilt or folded.
    /// Errors: the database failed. A retry continues.
    pub(crate) async fn settle(&self, month: Month, is_over: bool) -> Result<u64, LifecycleError> {
        let Some(state) = self.state(month).await? else { return Ok(0) };
        let mut rows = 0;
        if state.needs_rebuild() && state.is_live && state.archive.is_none() {
            rows += self.rebuild(&state).await?;
        }
        // An archived month is folded as an older version counted it.
        match self.state(month).await? {
            Some(state) if is_over && (!state.needs_rebuild() || !state.is_live) => {
                rows += self.fold(&state).await?;
            }
            _ => {}
        }
        self.versions.change_all();
        Ok(rows)
    }

    async fn state(&self, month: Month) -> Result<Option<MonthState>, LifecycleError> {
        Ok(months::one(&mut *self.read().await?, month).await?)
    }

    /// Deletes a month's rollups of dimensions and counts all its raw rows.
    async fn rebuild(&self, state: &MonthState) -> Result<u64, LifecycleError> {
        const BEGIN: &str = "UPDATE months SET counted = X'', folded = 0, settled = NULL WHERE month = ?1";
        let month = state.month;
        let counted = state.dimensions.counted.as_deref().and_then(dimensions::decode);
        let mut counted = match counted {
            Some(counted) if !state.dimensions.is_folded => counted,
            _ => {
                let begin = sqlx::query(BEGIN).bind(month.to_string());
                begin.execute(&mut *self.connection().await?).await?;
                Counted::Nothing
            }
        };
        let mut rows = 0;
        loop {
            counted = match counted {
                Counted::Nothing => {
                    for level in Level::VARIANTS {
                        self.delete_dimensions(*level, (month.start(), month.next().start())).await?;
                    }
                    let next = Counted::PageViewsBefore(Uuid::nil());
                    let mut transaction = self.begin().await?;
                    months::set_counted(&mut transaction, month, Some(next)).await?;
                    transaction.commit().await?;
                    next
                }
                counted => match self.count_slice(month, counted, &mut rows).await? {
                    Some(next) => next,
                    None => return Ok(rows),
                },
            };
        }
    }

    /// Counts the next rows of a rebuild. Returns where it continues, or `None` at the end.
    async fn count_slice(
        &self,
        month: Month,
        counted: Counted,
        rows: &mut u64,
    ) -> Result<Option<Counted>, LifecycleError> {
        let (kind, from) = match counted {
            Counted::PageViewsBefore(id) => (RowKind::PageViews, id),
            Counted::WatchesBefore(id) => (RowKind::WatchSessions, id),
            Counted::Nothing => return Ok(Some(counted)),
        };
        let mut transaction = self.begin().await?;
        // The rows of one id are counted together.
        let (batch, next) = read::from_id(&mut transaction, month, kind, from, ROWS_PER_SLICE).await?;
        let next = match (next, kind) {
            (Some(id), RowKind::PageViews) => Some(Counted::PageViewsBefore(id)),
            (Some(id), _) => Some(Counted::WatchesBefore(id)),
            (None, RowKind::PageViews) => Some(Counted::WatchesBefore(Uuid::nil())),
            (None, _) => None,
        };
        let mut ids = dictionary::intern(&mut transaction, &[&batch]).await?;
        ids.rules.months.clear();
        let mut delta = RollupDelta::default();
        delta.add(&batch, &ids);
        let from = quarters_from(&mut transaction).await?;
        let changes = delta.dimensions(|level, at| level != Level::Quarter || at >= from);
        dimensions::add(&mut transaction, TABLE, &changes).await?;
        months::set_counted(&mut transaction, month, next).await?;
        transaction.commit().await?;
        *rows += batch.len() as u64;
        Ok(next)
    }

    /// Folds a month's rollups of dimensions, which count all rows.
    async fn fold(&self, state: &MonthState) -> Result<u64, LifecycleError> {
        const SETTLED: &str = "UPDATE months SET settled = ?2 WHERE month = ?1 AND changes >= ?2";
        // From here on commits do not change these rollups.
        const FOLDED: &str = "UPDATE months SET folded = 1, settled = NULL WHERE month = ?1 AND changes = ?2";
        const UNCHANGED: &str = "UPDATE months SET settled = ?2 WHERE month = ?1 AND changes = ?2";
        let (month, between) = (state.month, (state.month.start(), state.month.next().start()));
        let mut large = Vec::new();
        for level in Level::VARIANTS {
            large.extend(dimensions::too_large(&mut *self.read().await?, TABLE, *level, between).await?);
        }
        let begin = sqlx::query(if large.is_empty() { UNCHANGED } else { FOLDED });
        let begin = begin.bind(month.to_string()).bind(state.changes);
        let is_same = begin.execute(&mut *self.connection().await?).await?.rows_affected() > 0;
        if !is_same || large.is_empty() {
            return Ok(0);
        }
        let (mut rows, mut size) = (0, SliceSize::rows());
        for bucket in large {
            let Some(last) = dimensions::last_kept(&mut *self.read().await?, TABLE, bucket).await? else {
                continue;
            };
            let mut after = 0;
            loop {
                let found =
                    dimensions::beyond(&mut *self.read().await?, TABLE, bucket, &last, (after, size.get()))
                        .await?;
                let Some((key, _)) = found.last() else { break };
                after = key.value;
                let started = Instant::now();
                let mut transaction = self.begin().await?;
                dimensions::fold(&mut transaction, TABLE, &found).await?;
                transaction.commit().await?;
                size.adapt(started.elapsed());
                rows += found.len() as u64;
            }
        }
        let settled = sqlx::query(SETTLED).bind(month.to_string()).bind(state.changes);
        settled.execute(&mut *self.connection().await?).await?;
        Ok(rows)
    }

    /// Converts the rollups of dimensions of an older version: those of archived months, since the others are rebuilt.
    /// Returns how many old rollups there were.
    /// Errors: the database failed. A retry continues.
    pub(crate) async fn convert_old_rollups(&self) -> Result<u64, LifecycleError> {
        const EXISTS: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'old_activity_rollups'";
        // The first rows, up to a sum of their bytes.
        const SLICE: &str = "
            SELECT max(row) FROM (
                SELECT rowid AS row, sum(length(pages) + length(contents) + length(referrers) + length(props))
                    OVER (ORDER BY rowid) - length(pages) AS bytes
                FROM old_activity_rollups WHERE rowid IN (SELECT rowid FROM old_activity_rollups ORDER BY rowid LIMIT 200)
            ) WHERE bytes < ?1 OR row = (SELECT min(rowid) FROM old_activity_rollups)";
        const CONVERT: &str = "
            INSERT INTO dimension_rollups
            SELECT CASE level WHEN 'month' THEN 0 WHEN 'day' THEN 1 ELSE 2 END, at / 900000, room, 1,
                   CAST(key AS INTEGER), item.value, 0
            FROM old_activity_rollups, json_each(pages) AS item WHERE old_activity_rollups.rowid <= ?1 AND {ARCHIVED}
            UNION ALL
            SELECT CASE level WHEN 'month' THEN 0 WHEN 'day' THEN 1 ELSE 2 END, at / 900000, room, 2,
                   CAST(key AS INTEGER), item.value ->> 0, item.value ->> 1
            FROM old_activity_rollups, json_each(contents) AS item WHERE old_activity_rollups.rowid <= ?1 AND {ARCHIVED}
            UNION ALL
            SELECT CASE level WHEN 'month' THEN 0 WHEN 'day' THEN 1 ELSE 2 END, at / 900000, room, 3,
                   CAST(key AS INTEGER), item.value, 0
            FROM old_activity_rollups, json_each(referrers) AS item WHERE old_activity_rollups.rowid <= ?1 AND {ARCHIVED}
            ON CONFLICT DO UPDATE SET count = count + excluded.count, watched_ms = watched_ms + excluded.watched_ms";
        const ARCHIVED: &str = "
            EXISTS (SELECT 1 FROM months WHERE archive IS NOT NULL
                    AND month = strftime('%Y-%m', at / 1000, 'unixepoch'))";
        const DELETE: &str = "DELETE FROM old_activity_rollups WHERE rowid <= ?1";
        let exists: i64 = sqlx::query_scalar(EXISTS).fetch_one(&mut *self.read().await?).await?;
        if exists == 0 {
            return Ok(0);
        }
        let convert = CONVERT.replace("{ARCHIVED}", ARCHIVED);
        let mut converted = 0;
        loop {
            let mut transaction = self.begin().await?;
            let last = sqlx::query_scalar(SLICE).bind(BYTES_PER_SLICE).fetch_one(&mut *transaction).await?;
            let Some(last): Option<i64> = last else {
                sqlx::query("DROP TABLE old_activity_rollups").execute(&mut *transaction).await?;
                transaction.commit().await?;
                return Ok(converted);
            };
            sqlx::query(sqlx::AssertSqlSafe(convert.as_str())).bind(last).execute(&mut *transaction).await?;
            converted += sqlx::query(DELETE).bind(last).execute(&mut *transaction).await?.rows_affected();
            transaction.commit().await?;
        }
    }
}
