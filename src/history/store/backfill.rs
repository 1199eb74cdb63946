//! Backfill: moves events from the tables of the first migration to the current ones.
//!
//! Events merge idempotently, so that an interrupted backfill continues at the next start.

use sqlx::SqliteConnection;
use tracing::info;
use uuid::Uuid;

use super::{CommitError, Store, read};
use crate::history::event::{Batch, PageViewEvent, WatchEvent};

/// Events per transaction.
const ROWS_PER_TRANSACTION: u32 = 5_000;

impl Store {
    /// Moves all events of the old tables, if these exist, and drops them.
    pub(super) async fn backfill(&self) -> Result<(), CommitError> {
        const EXISTS: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'old_page_views'";
        let exists: i64 = sqlx::query_scalar(EXISTS).fetch_one(&self.writer).await?;
        if exists == 0 {
            return Ok(());
        }
        let (mut after, mut moved) = ((None, None), 0);
        loop {
            let mut connection = self.writer.acquire().await?;
            let batch = Batch {
                page_views: old_page_views(&mut connection, after.0).await?,
                watches: old_watches(&mut connection, after.1).await?,
                samples: Vec::new(),
            };
            drop(connection);
            if batch.is_empty() {
                break;
            }
            let last =
                (batch.page_views.last().map(|view| view.id), batch.watches.last().map(|watch| watch.id));
            after = (last.0.or(after.0), last.1.or(after.1));
            moved += batch.len();
            self.commit(&batch).await?;
        }
        let mut transaction = self.begin().await?;
        sqlx::query("DROP TABLE old_page_views").execute(&mut *transaction).await?;
        sqlx::query("DROP TABLE old_watch_sessions").execute(&mut *transaction).await?;
        transaction.commit().await?;
        if moved > 0 {
            info!(events = moved, "moved the events of an older version to the current tables");
        }
        Ok(())
    }
}

async fn old_page_views(
    connection: &mut SqliteConnection,
    after: Option<Uuid>,
) -> Result<Vec<PageViewEvent>, sqlx::Error> {
    const ROWS: &str = "
        SELECT id, room, visitor, path, title, referrer, at, props, false
        FROM old_page_views WHERE id > ?1 ORDER BY id LIMIT ?2";
    let rows =
        sqlx::query(ROWS).bind(read::blob(after)).bind(ROWS_PER_TRANSACTION).fetch_all(connection).await?;
    rows.iter().map(read::page_view).collect()
}

async fn old_watches(
    connection: &mut SqliteConnection,
    after: Option<Uuid>,
) -> Result<Vec<WatchEvent>, sqlx::Error> {
    const ROWS: &str = "
        SELECT id, room, visitor, content, state, updated_at, watched_ms, started_at, seen_at,
               position_ms, position_at, duration_ms, props, props_at, false
        FROM old_watch_sessions WHERE id > ?1 ORDER BY id LIMIT ?2";
    let rows =
        sqlx::query(ROWS).bind(read::blob(after)).bind(ROWS_PER_TRANSACTION).fetch_all(connection).await?;
    rows.iter().map(read::watch).collect()
}
