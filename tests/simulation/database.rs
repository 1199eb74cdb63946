//! The database file from outside: its rows, and failures that a disk or another process may cause.
//!
//! It has two connections besides the hub's: a reader, and a writer that causes the failures.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Row};

use super::START;
use super::event_log::{Event, Payload};
use super::model::SavedHold;
use super::{Member, ROOMS, VISITORS};

/// Failures of commits: at the first row, in the middle, or near the end. Either SQLite rolls back by itself, as on a full
/// disk, or the hub must roll back.
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
    writer: SqliteConnection,
}

impl Database {
    pub async fn open(file: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(file);
        let reader = options.clone().read_only(true).connect().await.expect("a reader");
        Self { reader, writer: options.connect().await.expect("a writer") }
    }

    /// Makes all commits fail.
    pub async fn fail(&mut self, how: &'static str) {
        self.execute(how).await;
    }

    pub async fn stop_failing(&mut self) {
        self.execute("DROP TRIGGER broken").await;
    }

    /// Takes the write lock.
    pub async fn lock(&mut self) {
        self.execute("BEGIN IMMEDIATE").await;
    }

    pub async fn unlock(&mut self) {
        self.execute("ROLLBACK").await;
    }

    async fn execute(&mut self, statement: &'static str) {
        sqlx::query(statement).execute(&mut self.writer).await.expect(statement);
    }

    /// Returns whether the event is committed.
    pub async fn has(&mut self, event: &Event) -> bool {
        let id = event.id.to_string();
        let query = match event.body {
            Payload::PageView { .. } => {
                let statement =
                    "SELECT count(*) FROM page_views WHERE id = ?1 AND visitor = ?2 AND room = ?3";
                sqlx::query(statement).bind(id).bind(event.member.visitor).bind(event.member.room)
            }
            Payload::Watch { at, watched, .. } => {
                let statement = "
                    SELECT count(*) FROM raw_watch_sessions
                    WHERE id = unhex(?1, '-') AND visitor = (SELECT number FROM visitors WHERE text = ?2)
                          AND room = (SELECT number FROM texts WHERE text = ?3)
                          AND at >= ?4 AND watched_ms >= ?5";
                let query =
                    sqlx::query(statement).bind(id).bind(event.member.visitor).bind(event.member.room);
                query.bind(number(at)).bind(number(watched))
            }
        };
        query.fetch_one(&mut self.reader).await.expect("a count").get::<i64, _>(0) == 1
    }

    /// Returns all page views in the file, in the form of the event log.
    pub async fn views(&mut self) -> BTreeMap<String, Value> {
        self.rows(
            "SELECT id || ' ' || visitor || ' ' || room, json_array(room, visitor, path, at) FROM page_views",
        )
        .await
    }

    /// Returns all watch sessions in the file, in the form of the event log.
    pub async fn watch_sessions(&mut self) -> BTreeMap<String, Value> {
        let rows = "SELECT id || ' ' || visitor || ' ' || room,
                    json_array(room, visitor, state, watched_ms, position_ms, started_at, updated_at)
            FROM watch_sessions";
        self.rows(rows).await
    }

    async fn rows(&mut self, query: &'static str) -> BTreeMap<String, Value> {
        let rows = sqlx::query(query).fetch_all(&mut self.reader).await.expect("rows");
        let count = rows.len();
        let row =
            |row: &sqlx::sqlite::SqliteRow| (row.get(0), serde_json::from_str(row.get(1)).expect("JSON"));
        let by_identity: BTreeMap<String, Value> = rows.iter().map(row).collect();
        assert_eq!(by_identity.len(), count, "an identity is stored twice");
        by_identity
    }

    /// Returns the saved holds.
    pub async fn holds(&mut self) -> Vec<SavedHold> {
        let rows =
            sqlx::query("SELECT room, visitor, mood, reason, held_until, stopped_at, sit_until FROM seats");
        let millis = |time: i64| u64::try_from(time).expect("a time") - START;
        let hold = |row: &sqlx::sqlite::SqliteRow| SavedHold {
            member: Member { room: find_name(&ROOMS, row.get(0)), visitor: find_name(&VISITORS, row.get(1)) },
            mood: row.get(2),
            reason: row.get(3),
            until: millis(row.get(4)),
            stopped_at: row.get::<Option<i64>, _>(5).map(millis),
            sit_until: row.get::<Option<i64>, _>(6).map(millis),
        };
        let rows = rows.fetch_all(&mut self.reader).await.expect("seats");
        let mut holds: Vec<SavedHold> = rows.iter().map(hold).collect();
        holds.sort();
        holds
    }
}

/// Copies the files in their current state, as a killed hub leaves them. They contain all committed transactions. A
/// running commit waits for the lock, so that no process writes during the copy.
pub fn copy_database(from: &Path, to: &Path) {
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

fn find_name(names: &[&'static str], name: &str) -> &'static str {
    names.iter().find(|find_name| **find_name == name).expect("a known name")
}
