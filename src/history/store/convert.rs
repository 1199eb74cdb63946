//! Gives the tables of a month that an older version made the key that they have now.
//!
//! Such a table knows a row by its id alone. Its rows are copied in short transactions, which continue after a crash
//! where they were; the last one replaces the table. Rows of the month do not change meanwhile: whatever changes a month
//! converts it first.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, SqliteConnection};
use strum::VariantArray;
use tokio::time::Instant;
use tracing::info;

use super::partition::{Partitions, RowKind};
use super::slices::SliceSize;
use super::{CommitError, Store};
use crate::history::calendar::Month;

impl Store {
    /// Converts those of the months that have the old key.
    /// Errors: the database failed. A retry continues.
    pub(super) async fn convert(&self, months: &BTreeSet<Month>) -> Result<(), CommitError> {
        // The semaphore is never closed.
        let _only = self.conversion.acquire().await;
        for month in months {
            let (mut size, mut slices) = (SliceSize::rows(), 0);
            loop {
                let mut transaction = self.begin().await?;
                let started = Instant::now();
                let is_over = convert_slice(&mut transaction, *month, size.get()).await?;
                transaction.commit().await?;
                if is_over {
                    break;
                }
                slices += 1;
                size.adapt(started.elapsed());
                // Other writers come between two slices.
                tokio::task::yield_now().await;
            }
            if slices > 0 {
                info!(%month, slices, "the tables of a month have the new key");
            }
        }
        Ok(())
    }
}

/// Copies at most `rows` rows of a month, or, when all are copied, replaces its tables. Returns whether nothing is left to
/// do.
async fn convert_slice(
    connection: &mut SqliteConnection,
    month: Month,
    rows: u32,
) -> Result<bool, sqlx::Error> {
    const CONVERTED: &str = "UPDATE months SET row_key = 1 WHERE month = ?1";
    let partitions = Partitions::read(connection).await?;
    if !partitions.old_key.contains(&month) {
        return Ok(true);
    }
    for kind in RowKind::VARIANTS {
        if copy_rows(connection, *kind, month, rows).await? > 0 {
            return Ok(false);
        }
    }
    partitions.replace(connection, month).await?;
    sqlx::query(CONVERTED).bind(month.to_string()).execute(connection).await?;
    Ok(true)
}

/// Copies the next rows of one kind, and returns how many.
async fn copy_rows(
    connection: &mut SqliteConnection,
    kind: RowKind,
    month: Month,
    rows: u32,
) -> Result<u64, sqlx::Error> {
    let (table, copy, names) = (kind.table(month), kind.copy(month), kind.names().join(", "));
    sqlx::query(AssertSqlSafe(kind.create(&copy))).execute(&mut *connection).await?;
    // Each id is in the old table once.
    let next = format!(
        "INSERT INTO {copy} ({names}) SELECT {names} FROM {table}
         WHERE id > ifnull((SELECT max(id) FROM {copy}), X'') ORDER BY id LIMIT ?1"
    );
    Ok(sqlx::query(AssertSqlSafe(next)).bind(rows).execute(connection).await?.rows_affected())
}
