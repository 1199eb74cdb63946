//! Rewrites tables of which rows with properties were erased.
//!
//! A page that SQLite has reorganized may keep pieces of its earlier content, so that a deleted row leaves copies. The
//! rows that remain are copied to a new table in slices. Triggers change both tables meanwhile. A crash leaves a copy
//! that the next rewrite deletes.

use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::time::Instant;

use super::partition::{Partitions, RowKind};
use super::slices::{SliceSize, retire};
use super::{LifecycleError, Store, months};
use crate::history::calendar::Month;

/// The kinds of rows with properties.
const KINDS: [RowKind; 2] = [RowKind::PageViews, RowKind::WatchSessions];

/// Sorts behind all ids, which have 16 bytes.
const ABOVE_ALL: [u8; 17] = [0xff; 17];

/// The triggers that change the copy with the table.
const TRIGGERS: [&str; 3] = ["insert", "update", "delete"];

impl Store {
    /// Rewrites the tables of all months of which rows with properties were erased. Returns how many months.
    /// Errors: the database failed. A retry starts the month again.
    pub(super) async fn rewrite_months(&self) -> Result<u64, LifecycleError> {
        let due = months::to_rewrite(&mut *self.read().await?).await?;
        for month in &due {
            let mut transaction = self.begin().await?;
            for kind in KINDS {
                begin_copy(&mut transaction, &kind.table(*month)).await?;
            }
            transaction.commit().await?;
            for kind in KINDS {
                self.copy(&kind.table(*month)).await?;
            }
            let mut transaction = self.begin().await?;
            replace(&mut transaction, *month).await?;
            transaction.commit().await?;
            self.drop_retired().await?;
        }
        Ok(due.len() as u64)
    }

    async fn copy(&self, table: &str) -> Result<(), LifecycleError> {
        // All rows of one id are in one slice.
        let last = format!("SELECT id FROM {table} WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2");
        let copy = copy_slice(table);
        let (mut size, mut after) = (SliceSize::rows(), Vec::new());
        loop {
            let mut transaction = self.begin().await?;
            let started = Instant::now();
            let last = sqlx::query_scalar(AssertSqlSafe(last.as_str())).bind(&after).bind(size.get());
            let last: Option<Vec<u8>> = last.fetch_optional(&mut *transaction).await?;
            let end = last.as_deref().unwrap_or(&ABOVE_ALL);
            let slice = sqlx::query(AssertSqlSafe(copy.as_str())).bind(&after).bind(end);
            slice.execute(&mut *transaction).await?;
            transaction.commit().await?;
            let Some(last) = last else { return Ok(()) };
            after = last;
            size.adapt(started.elapsed());
            tokio::task::yield_now().await;
        }
    }
}

/// Copies the rows with ids behind `?1`, up to `?2`. Both are bounds of one search by the primary key: with a condition that
/// is true without an end, SQLite would read each slice up to the end of the table.
fn copy_slice(table: &str) -> String {
    format!("INSERT OR IGNORE INTO {table}_copy SELECT * FROM {table} WHERE id > ?1 AND id <= ?2 ORDER BY id")
}

/// Creates the empty copy of a table, and the triggers that change it with the table.
async fn begin_copy(connection: &mut SqliteConnection, table: &str) -> Result<(), sqlx::Error> {
    const COLUMNS: &str = "
        SELECT group_concat('NEW.' || name, ', ' ORDER BY cid),
               group_concat(name || ' = OLD.' || name, ' AND ') FILTER (WHERE pk > 0),
               group_concat(name || ' = NEW.' || name, ' AND ') FILTER (WHERE pk > 0)
        FROM pragma_table_info(?1)";
    const CREATE: &str = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    end_copy(connection, table).await?;
    retire(connection, &format!("{table}_copy")).await?;
    let create: String = sqlx::query_scalar(CREATE).bind(table).fetch_one(&mut *connection).await?;
    let columns = create.find('(').and_then(|start| create.get(start..)).unwrap_or_default();
    let (new, is_old, is_new): (String, String, String) =
        sqlx::query_as(COLUMNS).bind(table).fetch_one(&mut *connection).await?;
    let (delete_old, delete_new, insert) = (
        format!("DELETE FROM {table}_copy WHERE {is_old};"),
        format!("DELETE FROM {table}_copy WHERE {is_new};"),
        format!("INSERT INTO {table}_copy VALUES ({new});"),
    );
    let trigger = |name: &str, body: String| {
        format!("CREATE TRIGGER {table}_copy_{name} AFTER {name} ON {table} BEGIN {body} END")
    };
    for statement in [
        format!("CREATE TABLE {table}_copy {columns}"),
        trigger("insert", format!("{delete_new} {insert}")),
        trigger("update", format!("{delete_old} {insert}")),
        trigger("delete", delete_old.clone()),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Drops the triggers of a copy.
async fn end_copy(connection: &mut SqliteConnection, table: &str) -> Result<(), sqlx::Error> {
    for name in TRIGGERS {
        let drop = format!("DROP TRIGGER IF EXISTS {table}_copy_{name}");
        sqlx::query(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Replaces the tables of a month with their copies.
async fn replace(connection: &mut SqliteConnection, month: Month) -> Result<(), sqlx::Error> {
    const REWRITTEN: &str = "UPDATE months SET rewrite = 0 WHERE month = ?1";
    // SQLite renames no table while a view refers to a missing one.
    Partitions::default().make_views(connection).await?;
    for table in KINDS.map(|kind| kind.table(month)) {
        end_copy(connection, &table).await?;
        retire(connection, &table).await?;
        let rename = format!("ALTER TABLE {table}_copy RENAME TO {table}");
        sqlx::query(AssertSqlSafe(rename)).execute(&mut *connection).await?;
    }
    Partitions::read(connection).await?.make_views(connection).await?;
    sqlx::query(REWRITTEN).bind(month.to_string()).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Row};

    use super::*;

    #[tokio::test]
    async fn slice_is_found_by_one_search_with_a_start_and_an_end() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for table in ["t", "t_copy"] {
            let create = format!("CREATE TABLE {table} (id BLOB, n, PRIMARY KEY (id, n)) WITHOUT ROWID");
            sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
        }
        let explain = format!("EXPLAIN QUERY PLAN {}", copy_slice("t"));
        let plan = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        assert_eq!(plan, ["SEARCH t USING PRIMARY KEY (id>? AND id<?)"]);
    }
}
