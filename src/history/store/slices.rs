//! Work in slices: many short transactions, between which the writer is free.
//!
//! The size of a slice follows the time that the last one took. A table that is not needed any more is renamed in the
//! transaction that removes it from the views; its rows are deleted in slices afterwards.

use std::time::Duration;

use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::time::Instant;

use super::{LifecycleError, Store};

/// Rows of the first slice. Few in tests, so that there are many slices.
const FIRST_ROWS: u32 = if cfg!(test) { 3 } else { 256 };

/// Maximum rows of a slice.
const MOST_ROWS: u32 = 50_000;

/// After a slice longer than this, the next one is smaller. No slice should take 250 ms.
const LONG: Duration = Duration::from_millis(100);

/// The size of the next slice, in rows or pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SliceSize {
    size: u32,
    most: u32,
    long: Duration,
}

impl SliceSize {
    /// Slices of rows.
    pub(super) fn rows() -> Self {
        Self::new(FIRST_ROWS, MOST_ROWS, LONG)
    }

    /// Slices from `first` up to `most` that should not take longer than `long`.
    pub(super) fn new(first: u32, most: u32, long: Duration) -> Self {
        Self { size: first, most, long }
    }

    /// The size of the next slice.
    pub(super) fn get(self) -> u32 {
        self.size
    }

    /// Sets the next size after a slice that took `took`.
    pub(super) fn adapt(&mut self, took: Duration) {
        self.size = match took {
            took if took > self.long.saturating_mul(4) => self.size / 8,
            took if took > self.long => self.size / 2,
            took if took < self.long.saturating_mul(2) / 5 => self.size.saturating_mul(2),
            _ => self.size,
        }
        .clamp(1, self.most);
    }
}

/// The start of the names of retired tables.
const RETIRED: &str = "dropped_";

/// Retires a table, if it exists: renames it, so that [`Store::drop_retired`] deletes it. No view may refer to it, nor to
/// any missing table.
pub(super) async fn retire(connection: &mut SqliteConnection, table: &str) -> Result<(), sqlx::Error> {
    const EXISTS: &str = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    const NEXT: &str = "
        SELECT ifnull(max(CAST(substr(name, 9) AS INTEGER)), 0) + 1 FROM sqlite_schema
        WHERE type = 'table' AND name GLOB 'dropped_*'";
    let tables: i64 = sqlx::query_scalar(EXISTS).bind(table).fetch_one(&mut *connection).await?;
    if tables > 0 {
        let next: i64 = sqlx::query_scalar(NEXT).fetch_one(&mut *connection).await?;
        let rename = format!("ALTER TABLE {table} RENAME TO {RETIRED}{next}_{table}");
        sqlx::query(AssertSqlSafe(rename)).execute(connection).await?;
    }
    Ok(())
}

impl Store {
    /// Deletes the rows of retired tables in slices, and drops the tables. Returns how many there were.
    /// Errors: the database failed.
    pub(crate) async fn drop_retired(&self) -> Result<u64, LifecycleError> {
        const NEXT: &str =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'dropped_*' LIMIT 1";
        let mut tables = 0;
        loop {
            let next = sqlx::query_scalar(NEXT).fetch_optional(&mut *self.read().await?).await?;
            let Some(table): Option<String> = next else { return Ok(tables) };
            self.drop_in_slices(&table).await?;
            tables += 1;
        }
    }

    async fn drop_in_slices(&self, table: &str) -> Result<(), LifecycleError> {
        let key = key(&mut *self.read().await?, table).await?;
        let delete = format!(
            "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} ORDER BY {key} LIMIT ?1)"
        );
        let mut size = SliceSize::rows();
        loop {
            let mut transaction = self.begin().await?;
            let started = Instant::now();
            let slice = sqlx::query(AssertSqlSafe(delete.as_str())).bind(size.get());
            let is_last = slice.execute(&mut *transaction).await?.rows_affected() < u64::from(size.get());
            if is_last {
                let drop = format!("DROP TABLE {table}");
                sqlx::query(AssertSqlSafe(drop)).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            if is_last {
                return Ok(());
            }
            size.adapt(started.elapsed());
            tokio::task::yield_now().await;
        }
    }
}

/// Returns the columns by which a table is sorted.
async fn key(connection: &mut SqliteConnection, table: &str) -> Result<String, sqlx::Error> {
    const HAS_ROWIDS: &str = "SELECT NOT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1";
    const KEY: &str = "SELECT group_concat(name, ', ' ORDER BY pk) FROM pragma_table_info(?1) WHERE pk > 0";
    if sqlx::query_scalar(HAS_ROWIDS).bind(table).fetch_one(&mut *connection).await? {
        return Ok("rowid".to_owned());
    }
    sqlx::query_scalar(KEY).bind(table).fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_adapt_to_their_duration() {
        let mut size = SliceSize::new(32, 1_000, LONG);
        for (took, expected) in [(1, 64), (50, 64), (101, 32), (39, 64), (401, 8), (900, 1), (900, 1), (0, 2)]
        {
            size.adapt(Duration::from_millis(took));
            assert_eq!(size.get(), expected, "after {took} ms");
        }
        (0..20).for_each(|_| size.adapt(Duration::ZERO));
        assert_eq!(size.get(), 1_000);
    }
}
