//! The write-ahead log: bounded while queries overlap, reported where another program keeps it from being truncated.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::Connection;
use uuid::Uuid;

use crate::support::{Hub, eventually, open_database};

const MIB: u64 = 1024 * 1024;

async fn with_wal_limit(bytes: u64) -> Hub {
    Hub::with(|config| {
        config.history.wal_limit = bytes;
        config.transport.limits = None;
    })
    .await
}

/// A hundred page views with paths of their own.
fn views(batch: usize) -> Value {
    let view = |n| {
        let path = format!("/{batch}/{n}/{}", "x".repeat(200));
        json!({ "id": Uuid::new_v4(), "path": path, "visitor": format!("v{n}"), "room": "lobby" })
    };
    (0..100).map(view).collect()
}

async fn post_views(hub: &Hub, batch: usize) {
    hub.post("/page-view?durable=true").json(&views(batch)).send().await.expect(200);
}

fn wal_bytes(database: &Path) -> u64 {
    fs::metadata(database.with_extension("db-wal")).map_or(0, |file| file.len())
}

#[tokio::test]
async fn write_ahead_log_stays_bounded_while_queries_overlap() {
    let hub = with_wal_limit(MIB).await;
    let (is_over, questions, peak) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let write = async {
        for batch in 0..200 {
            post_views(&hub, batch).await;
            peak.fetch_max(wal_bytes(&hub.file()), Ordering::Relaxed);
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let ask = async || {
        while !is_over.load(Ordering::Relaxed) {
            // No two questions are the same, so that none is answered from the cache.
            let from = 1_700_000_000_000 + questions.fetch_add(1, Ordering::Relaxed);
            let query = format!("/unified-stats?from={from}&to={}", from + 86_400_000 * 80);
            hub.get(&query).send().await.expect(200);
        }
    };
    tokio::join!(write, join_all((0..4).map(|_| ask())));
    let (questions, peak) = (questions.into_inner(), peak.into_inner());
    assert!(questions > 200, "{questions}");
    assert!(peak > 0 && peak <= 8 * MIB, "{peak} bytes, after {questions} questions");
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [20_000]);
}

#[tokio::test]
async fn write_ahead_log_that_is_blocked_degrades_health_until_it_is_truncated() {
    let hub = with_wal_limit(MIB / 4).await;
    post_views(&hub, 0).await;
    let mut other = open_database(&hub.file()).await;
    sqlx::query("BEGIN").execute(&mut other).await.unwrap();
    sqlx::query("SELECT count(*) FROM page_views").fetch_one(&mut other).await.unwrap();
    let mut batch = 1;
    while wal_bytes(&hub.file()) <= MIB {
        post_views(&hub, batch).await;
        batch += 1;
    }
    let health = hub.get("/health").send().await;
    assert_eq!(health.expect(503)["reason"], "wal-large");
    assert!(hub.metric("breathing_room_wal_bytes").await > MIB as f64);
    other.close().await.unwrap();
    eventually(async || hub.get("/health").send().await.status == 200, "the log is truncated").await;
    assert!(hub.metric("breathing_room_wal_bytes").await <= MIB as f64 / 4.0);
    let counted = hub.get("/unified-stats?range=24h").send().await.expect(200)["totals"]["pageViews"].clone();
    assert_eq!(counted, batch * 100);
}

#[tokio::test]
async fn query_over_its_time_answers_503_with_retry_after() {
    let hub = Hub::with(|config| config.history.read_limit = Duration::ZERO).await;
    hub.post_page_view("ann", "/").await;
    let response = hub.get("/unified-stats?from=1700000000000&to=1707000000000").send().await;
    assert!(response.expect_error(503, "history-unavailable").contains("took too long"));
    assert!(response.header("retry-after").parse::<u32>().is_ok());
    assert!(hub.metric("breathing_room_stats_answers_total{state=\"error\"}").await >= 1.0);
    hub.post_page_view("ann", "/next").await; // the writer has no such limit
}
