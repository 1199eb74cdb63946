//! The database from outside: what is in the file, and what a disk or another process may do to it.
//!
//! Two connections of our own beside the hub's: one that only reads, and one that gets in the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Row};

use super::START;
use super::event_log::{Body, Event};
use super::model::Seat;
use super::{ROOMS, VISITORS, Who};

/// In which ways commits fail: at the first row that is written, in the middle, or almost at the end; and either
/// SQLite rolls back by itself, as it does when the disk is full, or leaves that to the hub.
pub const FAILURES: [(&str, &str); 3] = [
    (
        "the disk is full",
        "CREATE TRIGGER broken BEFORE INSERT ON texts BEGIN SELECT RAISE(ROLLBACK, 'full'); END",
    ),
    (
        "a page is broken",
        "CREATE TRIGGER broken BEFORE INSERT ON activity_rollups BEGIN SELECT RAISE(FAIL, 'broken'); END",
    ),
    (
        "an I/O error",
        "CREATE TRIGGER broken AFTER INSERT ON activity_rollups BEGIN SELECT RAISE(ROLLBACK, 'error'); END",
    ),
];

#[derive(Debug)]
pub struct Database {
    reader: SqliteConnection,
    intruder: SqliteConnection,
}

impl Database {
    pub async fn open(file: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(file);
        let reader = options.clone().read_only(true).connect().await.expect("a reader");
        Self { reader, intruder: options.connect().await.expect("a writer") }
    }

    /// Lets commits fail from now on.
    pub async fn fail(&mut self, how: &'static str) {
        self.intrude(how).await;
    }

    pub async fn mend(&mut self) {
        self.intrude("DROP TRIGGER broken").await;
    }

    /// Keeps everybody else from writing.
    pub async fn lock(&mut self) {
        self.intrude("BEGIN IMMEDIATE").await;
    }

    pub async fn unlock(&mut self) {
        self.intrude("ROLLBACK").await;
    }

    async fn intrude(&mut self, statement: &'static str) {
        sqlx::query(statement).execute(&mut self.intruder).await.expect(statement);
    }

    /// Whether the event is committed, now.
    pub async fn has(&mut self, event: &Event) -> bool {
        let id = &event.id.as_bytes()[..];
        let query = match event.body {
            Body::View { .. } => sqlx::query("SELECT count(*) FROM raw_page_views WHERE id = ?1").bind(id),
            Body::Watch { at, watched, .. } => {
                let told =
                    "SELECT count(*) FROM raw_watch_sessions WHERE id = ?1 AND at >= ?2 AND watched_ms >= ?3";
                sqlx::query(told).bind(id).bind(number(at)).bind(number(watched))
            }
        };
        query.fetch_one(&mut self.reader).await.expect("a count").get::<i64, _>(0) == 1
    }

    /// Every page view in the file, as the ledger has them.
    pub async fn views(&mut self) -> BTreeMap<String, Value> {
        self.rows("SELECT id, json_array(room, visitor, path, at) FROM page_views").await
    }

    /// Every watch session in the file, as the ledger has them.
    pub async fn watch_sessions(&mut self) -> BTreeMap<String, Value> {
        let rows =
            "SELECT id, json_array(room, visitor, state, watched_ms, position_ms, started_at, updated_at)
            FROM watch_sessions";
        self.rows(rows).await
    }

    async fn rows(&mut self, query: &'static str) -> BTreeMap<String, Value> {
        let rows = sqlx::query(query).fetch_all(&mut self.reader).await.expect("rows");
        let count = rows.len();
        let row =
            |row: &sqlx::sqlite::SqliteRow| (row.get(0), serde_json::from_str(row.get(1)).expect("JSON"));
        let by_id: BTreeMap<String, Value> = rows.iter().map(row).collect();
        assert_eq!(by_id.len(), count, "an id is there twice");
        by_id
    }

    /// The holds that are saved.
    pub async fn seats(&mut self) -> Vec<Seat> {
        let rows = sqlx::query("SELECT room, visitor, mood, reason, held_until FROM seats");
        let seat = |row: &sqlx::sqlite::SqliteRow| Seat {
            who: Who { room: known(&ROOMS, row.get(0)), visitor: known(&VISITORS, row.get(1)) },
            mood: row.get(2),
            reason: row.get(3),
            until: u64::try_from(row.get::<i64, _>(4)).expect("a time") - START,
        };
        let rows = rows.fetch_all(&mut self.reader).await.expect("seats");
        let mut seats: Vec<Seat> = rows.iter().map(seat).collect();
        seats.sort();
        seats
    }
}

/// Copies the files as they are on the disk at this moment: all that is left of a hub that is killed. Whatever is
/// committed stands in them; a commit that is under way still waits for the lock, so that nobody writes.
pub fn salvage(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        match fs::copy(with(from), with(to)) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!((error.kind(), suffix), (std::io::ErrorKind::NotFound, "-wal"), "{error}");
            }
        }
    }
}

fn number(millis: u64) -> i64 {
    i64::try_from(millis).expect("a time")
}

fn known(names: &[&'static str], name: &str) -> &'static str {
    names.iter().find(|known| **known == name).expect("a name of ours")
}
