//! Keeping the file in order: old quarter hours go, months are summed up, free pages and the write-ahead
//! log are given back to the disk.
//!
//! Everything is done in short transactions with the writer free in between, and may stop after each.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tokio::time::Instant;

use super::codec::millis;
use super::commit::quarters_from;
use super::rollups;
use super::{LifecycleError, OpenError, Store};
use crate::history::calendar::{Level, Month};
use crate::history::rollup::{ActivityRollup, DictionaryId, PresenceRollup, RollupKey};
use crate::protocol::Time;

/// Pages of the first slice of a vacuum.
const FIRST_PAGES: u32 = 32;

/// The most pages of a slice.
const MOST_PAGES: u32 = 4096;

/// A slice that takes longer is followed by a smaller one, long before it holds the writer for 50 ms.
const LONG: Duration = Duration::from_millis(20);

/// A slice that is over sooner is followed by a larger one.
const SHORT: Duration = Duration::from_millis(8);

/// What a vacuum gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Freed {
    /// Pages.
    pub pages: u64,
    /// In so many steps.
    pub slices: u64,
}

/// The tables of rollups.
const TABLES: [&str; 2] = ["activity_rollups", "presence_rollups"];

impl Store {
    /// Where there is no history yet, keeps rollups of quarter hours only from `time` on, so that old
    /// events that are imported make none.
    ///
    /// # Errors
    /// The database did not do it.
    pub async fn begin_quarters(&self, time: Time) -> Result<(), OpenError> {
        const IS_NEW: &str = "
            SELECT quarters_from = 0 AND NOT EXISTS (SELECT 1 FROM months) FROM horizon";
        const BEGIN: &str = "
            UPDATE horizon SET quarters_from = ?1
            WHERE quarters_from = 0 AND NOT EXISTS (SELECT 1 FROM months)";
        // Mostly there is history, and then no need to wait for somebody who writes.
        let is_new: bool =
            sqlx::query_scalar(IS_NEW).fetch_one(&self.readers).await.map_err(OpenError::Write)?;
        if is_new {
            let begin = sqlx::query(BEGIN).bind(millis(Level::Day.floor(time)));
            begin.execute(&self.writer).await.map_err(OpenError::Write)?;
        }
        Ok(())
    }

    /// Drops the rollups of quarter hours before `time`, a day in each transaction. Says how many days
    /// had some.
    ///
    /// # Errors
    /// The database did not do it.
    pub(crate) async fn drop_quarters(&self, time: Time) -> Result<u64, LifecycleError> {
        const MOVE: &str = "UPDATE horizon SET quarters_from = ?1";
        let goal = Level::Day.floor(time);
        let mut days = 0;
        loop {
            let mut transaction = self.begin().await?;
            if quarters_from(&mut transaction).await? >= goal {
                return Ok(days);
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
    }

    /// Makes the rollups of level `month` of a month that is over: room by room, the sum of its days.
    /// Says how many rooms there are.
    ///
    /// # Errors
    /// The database did not do it.
    pub(crate) async fn sum_month(&self, month: Month) -> Result<usize, LifecycleError> {
        // From here on changes go to the month too, so that each sum stays right once it is made.
        const BEGIN: &str = "UPDATE months SET summed = 'partly' WHERE month = ?1 AND summed = 'no'";
        const END: &str = "UPDATE months SET summed = 'yes' WHERE month = ?1";
        let mut transaction = self.begin().await?;
        sqlx::query(BEGIN).bind(month.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        let rooms = rooms_of(&mut *self.readers.acquire().await?, month).await?;
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

    /// Lets SQLite measure its tables anew where that would help its plans.
    ///
    /// # Errors
    /// The database did not do it.
    pub(crate) async fn optimize(&self) -> Result<(), LifecycleError> {
        let mut writer = self.connection().await?;
        // A look at some rows of each index is enough, and holds the writer for some milliseconds only.
        sqlx::query("PRAGMA analysis_limit = 100").execute(&mut *writer).await?;
        sqlx::query("PRAGMA optimize").execute(&mut *writer).await?;
        Ok(())
    }

    /// Gives all free pages back to the disk, a few at a time.
    ///
    /// # Errors
    /// The database did not do it.
    pub(crate) async fn vacuum(&self) -> Result<Freed, LifecycleError> {
        let (mut freed, mut pages) = (Freed::default(), FIRST_PAGES);
        loop {
            let mut writer = self.connection().await?;
            let started = Instant::now();
            let before = free_pages(&mut writer).await?;
            if before == 0 {
                return Ok(freed);
            }
            let vacuum = format!("PRAGMA incremental_vacuum({pages})");
            sqlx::query(AssertSqlSafe(vacuum)).fetch_all(&mut *writer).await?;
            let after = free_pages(&mut writer).await?;
            drop(writer);
            if after >= before {
                return Ok(freed);
            }
            freed = Freed { pages: freed.pages + u64::from(before - after), slices: freed.slices + 1 };
            pages = next_slice(pages, started.elapsed());
            tokio::task::yield_now().await;
        }
    }

    /// Copies the write-ahead log into the file, and empties it unless somebody reads or writes just now.
    /// Says whether it is empty.
    ///
    /// # Errors
    /// The database did not do it.
    pub(crate) async fn checkpoint(&self) -> Result<bool, LifecycleError> {
        // Only where the file at the path is the hub's.
        drop(self.connection().await?);
        // On a connection of its own: copying does not hold up the writer.
        let options = self.writer.connect_options().as_ref().clone().create_if_missing(false);
        let mut connection = options.connect().await?;
        sqlx::query("PRAGMA busy_timeout = 0").execute(&mut connection).await?;
        let mut checkpoint = async |statement| {
            let row: (i64, i64, i64) = sqlx::query_as(statement).fetch_one(&mut connection).await?;
            Ok::<_, sqlx::Error>(row)
        };
        let (_, log, copied) = checkpoint("PRAGMA wal_checkpoint(PASSIVE)").await?;
        let is_busy = log != copied || checkpoint("PRAGMA wal_checkpoint(TRUNCATE)").await?.0 != 0;
        connection.close().await?;
        Ok(!is_busy)
    }
}

/// How many pages the next slice of a vacuum may have, where one of `pages` took so long.
fn next_slice(pages: u32, took: Duration) -> u32 {
    match took {
        took if took > LONG => (pages / 2).max(1),
        took if took < SHORT => (pages * 2).min(MOST_PAGES),
        _ => pages,
    }
}

async fn free_pages(connection: &mut SqliteConnection) -> Result<u32, sqlx::Error> {
    sqlx::query_scalar("PRAGMA freelist_count").fetch_one(connection).await
}

/// Every room that has rollups of quarter hours, found by one step in the table for each.
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

/// When the first rollup of a quarter hour begins.
async fn first_quarter(connection: &mut SqliteConnection) -> Result<Option<Time>, sqlx::Error> {
    let mut first = None;
    for table in TABLES {
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

/// Drops the rollups of quarter hours that begin before `time`.
async fn drop_quarters(connection: &mut SqliteConnection, time: Time) -> Result<(), sqlx::Error> {
    for table in TABLES {
        let statement = format!(
            "{} DELETE FROM {table} WHERE level = 'quarter' AND room IN (SELECT room FROM rooms) AND at < ?1",
            rooms_in(table)
        );
        sqlx::query(AssertSqlSafe(statement)).bind(millis(time)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The rooms that have a rollup of a day in this month, or already of the month.
async fn rooms_of(
    connection: &mut SqliteConnection,
    month: Month,
) -> Result<BTreeSet<DictionaryId>, sqlx::Error> {
    let mut rooms = rollups::rooms(connection, Level::Day, month).await?;
    rooms.extend(rollups::rooms(connection, Level::Month, month).await?);
    Ok(rooms)
}

/// Writes the sum of a room's days instead of its month, whatever was there.
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
    fn slices_grow_while_they_are_short_and_shrink_before_they_are_long() {
        let after = |pages, took| next_slice(pages, Duration::from_millis(took));
        assert_eq!((after(32, 1), after(32, 10), after(32, 21)), (64, 32, 16));
        assert_eq!((after(MOST_PAGES, 1), after(1, 900)), (MOST_PAGES, 1));
    }
}
