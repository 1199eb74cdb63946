//! Maintenance of the database: prunes quarter-hour rollups, makes month rollups and vacuums.
//!
//! All work is in short transactions that leave the writer free in between, and may stop after each.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::time::Instant;

use super::codec::millis;
use super::roll_up::quarters_from;
use super::slices::SliceSize;
use super::{LifecycleError, OpenError, Store};
use super::{dimensions, rollups};
use crate::history::calendar::{Level, Month};
use crate::history::rollup::{ActivityRollup, DictionaryId, PresenceRollup, RollupKey};
use crate::protocol::Time;

/// Pages of the first slice of a vacuum.
const FIRST_PAGES: u32 = 32;

/// Maximum pages of a slice.
const MOST_PAGES: u32 = 4096;

/// After a slice longer than this, the next one is smaller. The writer must not be blocked for 50 ms.
const LONG: Duration = Duration::from_millis(20);

/// The result of a vacuum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Freed {
    /// Freed pages.
    pub pages: u64,
    /// The number of slices.
    pub slices: u64,
}

/// The tables of rollups.
const ROLLUP_TABLES: [&str; 2] = ["activity_rollups", "presence_rollups"];

impl Store {
    /// Sets the start of quarter-hour rollups to `time` in a database without history, so that imported old events make
    /// none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn begin_quarters(&self, time: Time) -> Result<(), OpenError> {
        const IS_NEW: &str = "
            SELECT quarters_from = 0 AND NOT EXISTS (SELECT 1 FROM months) FROM horizon";
        const BEGIN: &str = "
            UPDATE horizon SET quarters_from = ?1
            WHERE quarters_from = 0 AND NOT EXISTS (SELECT 1 FROM months)";
        // Mostly there is history; then no write lock is needed.
        let is_new: bool =
            sqlx::query_scalar(IS_NEW).fetch_one(&self.writer).await.map_err(OpenError::Write)?;
        if is_new {
            let begin = sqlx::query(BEGIN).bind(millis(Level::Day.floor(time)));
            begin.execute(&self.writer).await.map_err(OpenError::Write)?;
        }
        Ok(())
    }

    /// Deletes the quarter-hour rollups before `time`, one day per transaction. Returns how many days had some.
    /// Errors: the database failed.
    pub(crate) async fn drop_quarters(&self, time: Time) -> Result<u64, LifecycleError> {
        const MOVE: &str = "UPDATE horizon SET quarters_from = ?1";
        let goal = Level::Day.floor(time);
        let mut days = 0;
        loop {
            let mut transaction = self.begin().await?;
            if quarters_from(&mut transaction).await? >= goal {
                break;
            }
            let first = first_quarter(&mut transaction).await?.filter(|first| *first < goal);
            let next = first.map_or(goal, |first| Level::Day.after(Level::Day.floor(first)).min(goal));
            if first.is_some() {
                drop_quarters(&mut transaction, next).await?;
                days += 1;
            }
            sqlx::query(MOVE).bind(millis(next)).execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        // Queries have not read these since the start moved.
        self.delete_dimensions(Level::Quarter, (Time::from_millis(0), goal)).await?;
        Ok(days)
    }

    /// Deletes the rollups of dimensions of one level that begin in a range of time, in slices.
    pub(super) async fn delete_dimensions(
        &self,
        level: Level,
        between: (Time, Time),
    ) -> Result<(), LifecycleError> {
        let mut size = SliceSize::rows();
        loop {
            let mut transaction = self.begin().await?;
            let started = Instant::now();
            let deleted = dimensions::delete_between(&mut transaction, level, between, size.get()).await?;
            transaction.commit().await?;
            if deleted < u64::from(size.get()) {
                return Ok(());
            }
            size.adapt(started.elapsed());
        }
    }

    /// Makes the month rollups of a month that is over, room by room, from its days. Returns the number of rooms.
    /// Errors: the database failed.
    pub(crate) async fn sum_month(&self, month: Month) -> Result<usize, LifecycleError> {
        // From here on, commits change the month rollups too, so that each sum stays right after it is made.
        const BEGIN: &str = "UPDATE months SET summed = 'partly' WHERE month = ?1 AND summed = 'no'";
        const END: &str = "UPDATE months SET summed = 'yes' WHERE month = ?1";
        let mut transaction = self.begin().await?;
        sqlx::query(BEGIN).bind(month.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        let rooms = rooms_of(&mut *self.read().await?, month).await?;
        for room in &rooms {
            let mut transaction = self.begin().await?;
            sum_room(&mut transaction, month, *room).await?;
            transaction.commit().await?;
        }
        let mut transaction = self.begin().await?;
        sqlx::query(END).bind(month.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rooms.len())
    }

    /// Updates SQLite's table statistics where it helps the query planner.
    /// Errors: the database failed.
    pub(crate) async fn optimize(&self) -> Result<(), LifecycleError> {
        let mut writer = self.connection().await?;
        // Samples some rows of each index, which blocks the writer for a few milliseconds only.
        sqlx::query("PRAGMA analysis_limit = 100").execute(&mut *writer).await?;
        sqlx::query("PRAGMA optimize").execute(&mut *writer).await?;
        Ok(())
    }

    /// Returns all free pages to the disk, in slices.
    /// Errors: the database failed.
    pub(crate) async fn vacuum(&self) -> Result<Freed, LifecycleError> {
        let (mut freed, mut pages) = (Freed::default(), vacuum_slices());
        loop {
            let mut writer = self.connection().await?;
            let started = Instant::now();
            let before = free_pages(&mut writer).await?;
            if before == 0 {
                return Ok(freed);
            }
            let vacuum = format!("PRAGMA incremental_vacuum({})", pages.get());
            sqlx::query(AssertSqlSafe(vacuum)).fetch_all(&mut *writer).await?;
            let after = free_pages(&mut writer).await?;
            drop(writer);
            self.wal.measure().await;
            if after >= before {
                return Ok(freed);
            }
            freed = Freed { pages: freed.pages + u64::from(before - after), slices: freed.slices + 1 };
            pages.adapt(started.elapsed());
            tokio::task::yield_now().await;
        }
    }
}

/// The pages of a slice.
fn vacuum_slices() -> SliceSize {
    SliceSize::new(FIRST_PAGES, MOST_PAGES, LONG)
}

async fn free_pages(connection: &mut SqliteConnection) -> Result<u32, sqlx::Error> {
    sqlx::query_scalar("PRAGMA freelist_count").fetch_one(connection).await
}

/// All rooms with quarter-hour rollups, by one index seek for each.
fn rooms_in(table: &str) -> String {
    format!(
        "WITH RECURSIVE rooms (room) AS (
             SELECT min(room) FROM {table} WHERE level = 'quarter'
             UNION ALL
             SELECT (SELECT min(room) FROM {table} WHERE level = 'quarter' AND room > rooms.room)
             FROM rooms WHERE rooms.room IS NOT NULL
         )"
    )
}

/// The start of the first quarter-hour rollup.
async fn first_quarter(connection: &mut SqliteConnection) -> Result<Option<Time>, sqlx::Error> {
    let mut first = None;
    for table in ROLLUP_TABLES {
        let statement = format!(
            "{} SELECT min((SELECT min(at) FROM {table} WHERE level = 'quarter' AND room = rooms.room))
             FROM rooms",
            rooms_in(table)
        );
        let found: Option<u64> =
            sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *connection).await?;
        first = first.into_iter().chain(found.map(Time::from_millis)).min();
    }
    Ok(first)
}

/// Deletes the quarter-hour rollups before `time`.
async fn drop_quarters(connection: &mut SqliteConnection, time: Time) -> Result<(), sqlx::Error> {
    for table in ROLLUP_TABLES {
        let statement = format!(
            "{} DELETE FROM {table} WHERE level = 'quarter' AND room IN (SELECT room FROM rooms) AND at < ?1",
            rooms_in(table)
        );
        sqlx::query(AssertSqlSafe(statement)).bind(millis(time)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The rooms that have a day rollup in this month, or a month rollup.
async fn rooms_of(
    connection: &mut SqliteConnection,
    month: Month,
) -> Result<BTreeSet<DictionaryId>, sqlx::Error> {
    let mut rooms = rollups::rooms(connection, Level::Day, month).await?;
    rooms.extend(rollups::rooms(connection, Level::Month, month).await?);
    Ok(rooms)
}

/// Replaces a room's month rollup with the sum of its days.
async fn sum_room(
    connection: &mut SqliteConnection,
    month: Month,
    room: DictionaryId,
) -> Result<(), sqlx::Error> {
    let (from, to) = (month.start(), month.next().start());
    let key = RollupKey { level: Level::Month, room, at: from };
    let mut activity = ActivityRollup::default();
    for day in rollups::activity_between(connection, Level::Day, room, from, to).await?.values() {
        activity.merge(day);
    }
    rollups::put_activity(connection, &[(key, activity)].into()).await?;
    let days = rollups::presence_between(connection, Level::Day, room, from, to).await?;
    if days.is_empty() {
        return Ok(());
    }
    let mut presence = PresenceRollup::default();
    for day in days.values() {
        presence.merge(day);
    }
    rollups::put_presence(connection, &[(key, presence)].into()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vacuum_slices_adapt_to_their_duration() {
        let mut pages = vacuum_slices();
        for (took, expected) in [(10, 32), (1, 64), (21, 32), (900, 4)] {
            pages.adapt(Duration::from_millis(took));
            assert_eq!(pages.get(), expected, "after {took} ms");
        }
        (0..20).for_each(|_| pages.adapt(Duration::ZERO));
        assert_eq!(pages.get(), MOST_PAGES);
        (0..20).for_each(|_| pages.adapt(Duration::from_millis(900)));
        assert_eq!(pages.get(), 1);
    }
}
