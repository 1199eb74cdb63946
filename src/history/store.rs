//! The store: one SQLite file, one writer, many readers.
//!
//! The writer commits one batch per transaction with statements that never change: a chunk of facts is
//! one JSON parameter, read by `json_each`. Readers are read-only and see only what is committed.
//! Together with `stats` this is the only place where sqlx appears.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, Transaction};

use super::event::Batch;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Facts per statement: past some hundreds a longer one is no faster, only larger in memory.
const ROWS_PER_STATEMENT: usize = 2_000;

/// How long the writer waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The most connections that read at once.
const READERS: u32 = 4;

/// The most bytes that a checkpointed write-ahead log keeps on disk.
const JOURNAL_SIZE_LIMIT: &str = "67108864";

const INSERT_PAGE_VIEWS: &str = "
    INSERT INTO raw_page_views (id, room, visitor, path, title, referrer, at, props)
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
           value ->> 6, value ->> 7
    FROM json_each(?1) WHERE true
    ON CONFLICT (id) DO NOTHING";

/// Where two messages have the same `at`, the larger values win, so that order never matters.
const MERGE_WATCHES: &str = "
    INSERT INTO raw_watch_sessions AS old
        (id, room, visitor, content, state, watched_ms, started_at, seen_at, updated_at,
         position_ms, position_at, duration_ms, props, props_at)
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
           value ->> 6, value ->> 7, value ->> 8,
           value ->> 9, iif(value ->> 9 IS NULL, NULL, value ->> 8),
           value ->> 10,
           value ->> 11, iif(value ->> 11 IS NULL, NULL, value ->> 8)
    FROM json_each(?1) WHERE true
    ON CONFLICT (id) DO UPDATE SET
        (room, visitor, content) = (
            SELECT iif(newer, excluded.room, old.room), iif(newer, excluded.visitor, old.visitor),
                   iif(newer, excluded.content, old.content)
            FROM (SELECT (excluded.updated_at, excluded.room, excluded.visitor, excluded.content)
                       > (old.updated_at, old.room, old.visitor, old.content) AS newer)),
        state = CASE
            WHEN 'ended' IN (excluded.state, old.state) THEN 'ended'
            WHEN (excluded.updated_at, excluded.state) > (old.updated_at, old.state) THEN excluded.state
            ELSE old.state END,
        watched_ms = max(old.watched_ms, excluded.watched_ms),
        started_at = min(old.started_at, excluded.started_at),
        seen_at = max(old.seen_at, excluded.seen_at),
        updated_at = max(old.updated_at, excluded.updated_at),
        (position_ms, position_at) = (
            SELECT iif(newer, excluded.position_ms, old.position_ms),
                   iif(newer, excluded.position_at, old.position_at)
            FROM (SELECT (ifnull(excluded.position_at, -1), excluded.position_ms)
                       > (ifnull(old.position_at, -1), old.position_ms) AS newer)),
        duration_ms = max(ifnull(old.duration_ms, excluded.duration_ms),
                          ifnull(excluded.duration_ms, old.duration_ms)),
        (props, props_at) = (
            SELECT iif(newer, excluded.props, old.props), iif(newer, excluded.props_at, old.props_at)
            FROM (SELECT (ifnull(excluded.props_at, -1), excluded.props)
                       > (ifnull(old.props_at, -1), old.props) AS newer))";

/// The database could not be opened or brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one of SQLite's.
    #[error("DATABASE_URL {url:?} must look like sqlite://path/to/file.db")]
    Url {
        /// As configured.
        url: String,
    },
    /// The folder for the file could not be made.
    #[error("cannot make the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// SQLite cannot open or write the file.
    #[error("cannot open the database {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: sqlx::Error,
    },
    /// A migration failed; the ones before it have been applied.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] MigrateError),
}

/// A batch could not be committed. Nothing of it was; the same batch may be tried again.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CommitError(#[from] sqlx::Error);

/// The migrations that a call applied, and the newest there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// Versions that were applied just now.
    pub applied: Vec<i64>,
    /// The version of the schema.
    pub current: i64,
}

/// The open database. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

impl Store {
    /// Opens the file, makes it (and its folder) if it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// What stands in the way, in words for whoever starts the hub.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let bad_url = || OpenError::Url { url: url.to_owned() };
        let options = SqliteConnectOptions::from_str(url).map_err(|_| bad_url())?;
        let path = options.get_filename().to_path_buf();
        if !url.starts_with("sqlite:") || path.as_os_str().is_empty() || url.contains(":memory:") {
            return Err(bad_url());
        }
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            std::fs::create_dir_all(folder)
                .map_err(|source| OpenError::Folder { path: folder.to_path_buf(), source })?;
        }
        let writer = options
            .clone()
            .create_if_missing(true)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
            .busy_timeout(BUSY_TIMEOUT);
        let readers = options.read_only(true).busy_timeout(BUSY_TIMEOUT);
        let not_opened = |source| OpenError::File { path: path.clone(), source };
        let writer = pool(1).connect_with(writer).await.map_err(not_opened)?;
        let store = Self { writer, readers: pool(READERS).connect_lazy_with(readers) };
        store.migrate().await?;
        Ok(store)
    }

    /// Applies the migrations that have not been applied.
    ///
    /// # Errors
    /// One failed, or the file has migrations that this version does not know.
    pub async fn migrate(&self) -> Result<Migrated, MigrateError> {
        let before = applied(&self.writer).await?;
        MIGRATIONS.run(&self.writer).await?;
        let mut after = applied(&self.writer).await?;
        let current = after.last().copied().unwrap_or_default();
        after.retain(|version| !before.contains(version));
        Ok(Migrated { applied: after, current })
    }

    /// Commits a batch: all of it, or nothing.
    ///
    /// # Errors
    /// The database is locked, full, gone or broken. Nothing has changed.
    pub async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut connection = self.writer.acquire().await?;
        if let Err(error) = write(&mut connection, batch).await {
            // After a full disk or an I/O error SQLite has rolled back by itself, which sqlx does not
            // see: the connection would refuse every later transaction. A new one starts clean.
            let _ = connection.close().await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Closes all connections, which folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn write(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    // A transaction that reads first and then writes may fail for good; this one locks at once.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    insert(&mut transaction, INSERT_PAGE_VIEWS, &batch.page_views).await?;
    insert(&mut transaction, MERGE_WATCHES, &batch.watches).await?;
    transaction.commit().await
}

async fn insert<T: Serialize>(
    transaction: &mut Transaction<'_, Sqlite>,
    statement: &'static str,
    facts: &[T],
) -> Result<(), sqlx::Error> {
    for chunk in facts.chunks(ROWS_PER_STATEMENT) {
        let rows = serde_json::to_string(chunk).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query(statement).bind(rows).execute(&mut **transaction).await?;
    }
    Ok(())
}

async fn applied(writer: &SqlitePool) -> Result<Vec<i64>, MigrateError> {
    const TABLE: &str = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    const VERSIONS: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    let exists: i64 = sqlx::query_scalar(TABLE).fetch_one(writer).await?;
    if exists == 0 {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_scalar(VERSIONS).fetch_all(writer).await?)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    // Connections to a file do not wear out: none is ever replaced for its age.
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(5))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sqlx::Row;
    use uuid::Uuid;

    use super::super::event::{Event, PageViewFact, WatchFact, Who};
    use super::*;
    use crate::wire::{RoomId, Time, VisitorId};

    fn who(name: &str) -> Who {
        Who { room: RoomId::try_from(name).unwrap(), visitor: VisitorId::try_from(name).unwrap() }
    }

    /// A message as a client may send it: few ids and few times, so that messages meet and tie.
    fn message() -> impl Strategy<Value = Event> {
        let optional = |limit: u64| proptest::option::of(0..limit);
        let state = proptest::sample::select(vec!["playing", "paused", "ended"]);
        let watch = (
            0..3_u128,
            "[a-c]",
            state,
            0..40_u64,
            optional(30),
            optional(9),
            optional(9),
            optional(40),
            0..40_u64,
        )
            .prop_map(|(id, name, state, watched, started, position, duration, at, arrived)| {
                let message = serde_json::json!({
                    "id": Uuid::from_u128(id), "content": name, "state": state, "watchedMs": watched,
                    "startedAt": started, "positionMs": position, "durationMs": duration, "at": at,
                    "props": position.map(|position| serde_json::json!({ "p": position })),
                });
                let message = serde_json::from_value(message).unwrap();
                Event::Watch(WatchFact::new(who(&name), message, Time::from_millis(arrived)))
            });
        let view = (0..5_u128, 0..40_u64).prop_map(|(id, arrived)| {
            // A page view's content is a function of its id: only repeats of the same fact meet.
            let message =
                serde_json::json!({ "id": Uuid::from_u128(id), "path": format!("/{id}"), "at": id });
            let message = serde_json::from_value(message).unwrap();
            Event::PageView(PageViewFact::new(who("a"), message, Time::from_millis(arrived)))
        });
        prop_oneof![3 => watch, 1 => view]
    }

    /// All that the two views show, after these batches were committed to a new file.
    async fn stored(batches: Vec<Batch>) -> Vec<String> {
        const EVERYTHING: &str = "
            SELECT json_array(id, room, visitor, content, state, watched_ms, position_ms, duration_ms,
                              started_at, updated_at, props) FROM watch_sessions
            UNION ALL SELECT json_array(id, room, visitor, path, title, referrer, at, props) FROM page_views
            ORDER BY 1";
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        for batch in batches {
            store.commit(&batch).await.unwrap();
        }
        let rows = sqlx::query(EVERYTHING).fetch_all(&store.readers).await.unwrap();
        store.close().await;
        rows.iter().map(|row| row.get(0)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn any_order_and_any_repeats_store_the_same(
            (told, shuffled) in proptest::collection::vec(message(), 1..24).prop_flat_map(|told| {
                let twice = [told.clone(), told.clone()].concat();
                (Just(told), Just(twice).prop_shuffle())
            }),
            cut in 0..24_usize,
        ) {
            let (first, second) = shuffled.split_at(cut.min(shuffled.len()));
            let batches = [first, second].map(|part| part.iter().cloned().collect());
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let once = runtime.block_on(stored(vec![told.into_iter().collect()]));
            let again = runtime.block_on(stored(batches.to_vec()));
            prop_assert_eq!(once, again);
        }
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_used_says_why() {
        for url in ["postgres://x/y", "sqlite::memory:", "sqlite://"] {
            assert!(matches!(Store::open(url).await, Err(OpenError::Url { .. })), "{url}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not-a-folder");
        std::fs::write(&file, "not a database, but long enough to be read as one".repeat(20)).unwrap();
        let below = Store::open(&format!("sqlite://{}/a.db", file.display())).await;
        assert!(matches!(below, Err(OpenError::Folder { .. })), "{below:?}");
        let itself = Store::open(&format!("sqlite://{}", file.display())).await;
        assert!(matches!(itself, Err(OpenError::File { .. })), "{itself:?}");
    }
}
