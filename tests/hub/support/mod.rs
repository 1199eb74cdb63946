//! Shared helpers of the tests: a hub, its clients, requests, database rows, and waiting.

pub mod client;
pub mod contract;
pub mod program;
pub mod request;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use breathing_room::Config;
use breathing_room::config::{Clock, Time};
use breathing_room::{ServeError, Server};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use client::Client;
pub use program::Program;
pub use request::Request;

/// The longest wait for anything that a test expects.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The start time of tests with a manual clock: a full hour.
pub const START: u64 = 1_800_000_000_000;

/// A clock at [`START`] that moves only when a test advances it.
pub fn manual_clock() -> Clock {
    Clock::manual(Time::from_millis(START))
}

pub const ADMIN_TOKEN: &str = "the-admins-token";

/// A hub in this process, on a free port, with its own database.
pub struct Hub {
    pub address: String,
    folder: TempDir,
    shutdown: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Hub {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), change).await
    }

    /// Starts a hub on the database in this folder.
    pub async fn in_folder(folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.history.database_url = format!("sqlite://{}/hub.db", folder.path().display());
        config.history.flush_interval = Duration::from_millis(50);
        config.presence.leave_grace = Duration::ZERO;
        config.http.admin_token = Some(ADMIN_TOKEN.to_owned());
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (shutdown, signal) = oneshot::channel();
        let signal = async { signal.await.unwrap_or(()) };
        let server = Server::open(config).await.unwrap();
        let task = tokio::spawn(server.serve(listener, signal));
        Self { address, folder, shutdown: Some(shutdown), served: Some(task) }
    }

    /// Starts a hub with this clock, which flushes on request only.
    pub async fn with_clock(clock: &Clock) -> Self {
        Self::with(|config| {
            config.clock = clock.clone();
            config.history.flush_interval = Duration::from_hours(1);
        })
        .await
    }

    pub async fn join(&self, room: &str, visitor: &str) -> Client {
        Client::join(&self.address, room, &format!("visitor={visitor}")).await
    }

    pub async fn join_with_mood(&self, room: &str, visitor: &str, mood: &str) -> Client {
        Client::join(&self.address, room, &format!("visitor={visitor}&mood={mood}")).await
    }

    pub fn get(&self, path: &str) -> Request {
        Request::new(&self.address, "GET", path)
    }

    pub fn post(&self, path: &str) -> Request {
        Request::new(&self.address, "POST", path)
    }

    pub fn delete(&self, path: &str) -> Request {
        Request::new(&self.address, "DELETE", path)
    }

    /// The database file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("hub.db")
    }

    /// The folder of archives.
    pub fn archives(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// Runs a query on the database file: see [`rows`].
    pub async fn rows(&self, query: &str) -> Vec<Value> {
        rows(&self.file(), query).await
    }

    /// Posts a page view and waits for its commit.
    pub async fn post_page_view(&self, visitor: &str, path: &str) {
        let view = json!({ "id": Uuid::new_v4(), "path": path, "visitor": visitor, "room": "lobby" });
        self.post("/page-view?durable=true").json(&view).send().await.expect(200);
    }

    /// Runs all maintenance steps that are due, and returns the report.
    pub async fn run_maintenance(&self) -> Value {
        self.post("/maintain").admin().send().await.expect(200)
    }

    /// Flushes all queued events.
    pub async fn flush(&self) {
        self.post("/flush").admin().send().await.expect(200);
    }

    /// Returns the number at `key` of `GET /debug`.
    pub async fn debug(&self, key: &str) -> u64 {
        let response = self.get("/debug").admin().send().await;
        response.expect(200)[key].as_u64().unwrap()
    }

    /// Returns the sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(&self.get("/metrics").admin().send().await.text, name)
    }

    /// Waits until `GET /debug` has `expected` at `key`.
    pub async fn expect_debug(&self, key: &str, expected: u64) {
        eventually(async || self.debug(key).await == expected, key).await;
    }

    /// Waits until the live activity, which may be 0.1 s old, has `expected` at `key`.
    pub async fn expect_live_activity(&self, key: &str, expected: Value) {
        let is_equal = async || self.get("/live-activity").send().await.expect(200)[key] == expected;
        eventually(is_equal, &format!("{key}: {expected}")).await;
    }

    /// Waits until the hub holds this many visitors, over all rooms and reasons.
    pub async fn expect_held(&self, expected: u32) {
        let held = async || self.metric("breathing_room_held").await == f64::from(expected);
        eventually(held, &format!("{expected} visitors are held")).await;
    }

    /// Starts the graceful shutdown.
    pub fn signal(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Stops the hub as a signal does, and returns its folder.
    pub async fn stop(mut self) -> TempDir {
        self.signal();
        self.wait().await
    }

    /// Waits until the hub has stopped, after a signal.
    pub async fn wait(mut self) -> TempDir {
        self.served.take().unwrap().await.unwrap().unwrap();
        self.folder
    }
}

fn metric(page: &str, name: &str) -> f64 {
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    page.lines().filter(is_it).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

pub async fn open_database(file: &std::path::Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).connect().await.unwrap()
}

/// Returns the rows of `query`, which selects one number or one JSON text.
pub async fn rows(file: &std::path::Path, query: &str) -> Vec<Value> {
    let mut connection = open_database(file).await;
    let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let value = |row: &SqliteRow| match row.try_get::<i64, _>(0) {
        Ok(number) => number.into(),
        Err(_) => serde_json::from_str(row.get(0)).unwrap(),
    };
    rows.iter().map(value).collect()
}

/// The metric names in a text, without the suffixes of histograms.
pub fn metric_names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("breathing_room_") || word.starts_with("process_"));
    words
        .map(|word| {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word)
        })
        .collect()
}

/// Reports a skipped test. With `CI=true` a skipped test fails.
pub fn skip(why: &str) {
    report_skipped(why);
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped, which CI=true does not allow: {why}");
}

/// Reports a skipped test on standard error directly, since libtest hides the output of a test that passes.
fn report_skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{test}: skipped: {why}\n").as_bytes());
}

/// Gives a file or folder to another user. Returns false without root, also with `CI=true`: the test is then skipped.
pub fn give_away(path: &std::path::Path, user: u32) -> bool {
    let given = std::os::unix::fs::chown(path, Some(user), Some(user));
    given.inspect_err(|error| report_skipped(&format!("only root may give a file away ({error})"))).is_ok()
}

/// The users that own something in a folder, with the path of what they own.
pub fn owners(folder: &std::path::Path) -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, file) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        found.push((std::os::unix::fs::MetadataExt::uid(&file), path.clone()));
        if file.is_dir() {
            found.extend(owners(&path));
        }
    }
    found
}

/// Polls the condition until it is true.
pub async fn eventually(mut condition: impl AsyncFnMut() -> bool, what: &str) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting)
        .await
        .unwrap_or_else(|_| panic!("still false after {TIMEOUT:?}: {what}"));
}
