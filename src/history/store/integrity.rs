//! Integrity: looks through the whole file beside the running hub, table by table, at a bounded rate.
//!
//! Each table with its indexes is one `PRAGMA quick_check` in one read transaction. The check rests three quarters of the
//! time. It makes way for a checkpoint and checks the table again later, without rests. The check of the schema's table
//! covers the list of free pages. Only a check of the whole file at once finds pages that two tables share, or none.

use std::future::pending;
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::Store;
use super::error::result_code;
use super::readers::BackgroundReader;

/// How long a rest is, for each unit of work before it.
const REST: u32 = 3;

/// The first delay before a table is checked again; it doubles with each further one.
const RETRY_MIN: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(30) };

/// The longest delay.
const RETRY_MAX: Duration = Duration::from_hours(1);

impl Store {
    /// Stores that a run has begun, and checks the file; and so again for each file that replaces it. Runs until it is
    /// dropped.
    pub(crate) async fn watch_file(&self) {
        loop {
            tokio::select! {
                () = self.file.replaced() => {}
                never = async { tokio::join!(self.store_run(), self.check_file()); pending().await } => never,
            }
        }
    }

    async fn store_run(&self) {
        let mut delay = RETRY_MIN;
        while let Err(error) = self.begin_run().await {
            warn!(%error, "cannot store that this run has begun: the next try is later");
            delay = wait(delay).await;
        }
    }

    async fn check_file(&self) {
        self.status.set_damaged(false);
        if let Some(damage) = self.find_damage().await {
            error!(damage, "the database file is damaged: keep a copy of it, and restore a backup");
            self.status.set_damaged(true);
        }
    }

    /// Checks all tables, and returns the first damage.
    async fn find_damage(&self) -> Option<String> {
        let started = Instant::now();
        let mut delay = RETRY_MIN;
        let tables = loop {
            match self.tables().await {
                Ok(tables) => break tables,
                Err(error) => {
                    warn!(%error, "cannot check the database file: the next try is later");
                    delay = wait(delay).await;
                }
            }
        };
        let mut reader = None;
        for table in &tables {
            if let Some(damage) = self.find_damage_of(table, &mut reader).await {
                return Some(damage);
            }
        }
        info!(tables = tables.len(), took = ?started.elapsed(), "checked the database file: it is intact");
        None
    }

    /// The tables, the schema's own first.
    async fn tables(&self) -> Result<Vec<String>, sqlx::Error> {
        const TABLES: &str = "
            SELECT 'sqlite_schema' UNION ALL
            SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0";
        sqlx::query_scalar(TABLES).fetch_all(&mut *self.read().await?).await
    }

    /// Checks a table until that succeeds.
    async fn find_damage_of(&self, table: &str, reader: &mut Option<BackgroundReader>) -> Option<String> {
        let (mut delay, mut rest) = (RETRY_MIN, REST);
        loop {
            match self.quick_check(table, rest, reader).await {
                Ok(result) => return (result != "ok").then(|| result.replace('\n', " ")),
                Err(error) => match result_code(&error) {
                    Some(11 | 26) => return Some(format!("{table}: {error}")),
                    // The table was dropped meanwhile.
                    Some(1) => return None,
                    // It made way for a checkpoint. Without rests, a large table is more likely to be done before the next.
                    Some(9) => rest = 0,
                    _ => warn!(%error, table, "cannot check a table: the next try is later"),
                },
            }
            delay = wait(delay).await;
        }
    }

    /// Checks a table with this connection, or opens one. After an error it is closed, and not kept until the next try.
    async fn quick_check(
        &self,
        table: &str,
        rest: u32,
        reader: &mut Option<BackgroundReader>,
    ) -> Result<String, sqlx::Error> {
        let mut open = match reader.take() {
            Some(open) => open,
            None => self.readers.open_background().await?,
        };
        let check = format!("PRAGMA quick_check('{}')", table.replace('\'', "''"));
        let result = sqlx::query_scalar(AssertSqlSafe(check)).fetch_one(&mut *open.read(rest).await?).await?;
        *reader = Some(open);
        Ok(result)
    }
}

/// Waits, and returns the next delay.
async fn wait(delay: Duration) -> Duration {
    sleep(delay).await;
    (delay * 2).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn check_that_makes_way_for_pauses_finishes_after_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let fill = "
            CREATE TABLE large (n INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)
            INSERT INTO large SELECT i, hex(randomblob(50)) FROM n";
        sqlx::raw_sql(fill).execute(&mut *store.connection().await.unwrap()).await.unwrap();
        let pauses = async {
            for _ in 0..30 {
                assert!(store.readers.gate().pause().await.is_some());
                tokio::task::yield_now().await;
            }
        };
        let (damage, ()) = tokio::join!(store.find_damage(), pauses);
        assert_eq!(damage, None);
    }

    #[tokio::test]
    async fn table_that_is_dropped_meanwhile_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        assert!(store.tables().await.unwrap().contains(&"months".to_owned()));
        assert_eq!(store.find_damage_of("dropped", &mut None).await, None);
    }
}
