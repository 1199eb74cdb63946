//! The flush: one transaction for all waiting events, and retries while the database fails.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Hub, eventually, manual_clock, open_database};

#[tokio::test]
async fn locked_database_loses_no_events_and_recovers() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let first = ann.view_page(Uuid::new_v4(), "/0").await;
    ann.expect_ack(first).await;
    assert_eq!(hub.get("/health").send().await.expect(200)["status"], "ok");

    let mut other = open_database(&hub.file()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    for n in 1..=20 {
        ann.view_page(Uuid::new_v4(), &format!("/{n}")).await;
    }
    let degraded = async || hub.get("/health").send().await.status == 503;
    eventually(degraded, "health is degraded").await;
    let health = hub.get("/health").send().await.expect(503);
    assert_eq!((&health["status"], &health["pendingPageViews"]), (&json!("degraded"), &json!(20)));
    // Joins and events work meanwhile.
    let mut bob = hub.join("lobby", "bob").await;
    bob.expect_present(2).await;
    bob.view_page(Uuid::new_v4(), "/21").await;
    let waiting = hub.post("/flush").admin().send().await;
    assert!(waiting.expect_error(503, "not-committed").contains("queued"));
    assert_eq!(hub.debug("sessions").await, 2);

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    ann.expect_ack(21).await;
    bob.expect_ack(1).await;
    eventually(async || !degraded().await, "health is ok again").await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [22]);
    assert!(hub.metric("breathing_room_flush_failures_total").await >= 1.0);
    assert_eq!(hub.metric("breathing_room_events_committed_total").await, 22.0);
}

#[tokio::test]
async fn full_disk_rolls_back_loses_no_events_and_recovers() {
    let hub = Hub::start().await;
    // The trigger fails as SQLITE_FULL does: in the middle of the transaction, which SQLite rolls back by itself.
    let mut other = open_database(&hub.file()).await;
    let full = "CREATE TRIGGER disk_full BEFORE INSERT ON activity_rollups BEGIN \
        SELECT RAISE(ROLLBACK, 'database or disk is full'); END";
    sqlx::query(full).execute(&mut other).await.unwrap();
    let mut ann = hub.join("lobby", "ann").await;
    for n in 0..5 {
        ann.view_page(Uuid::new_v4(), &format!("/{n}")).await;
    }
    ann.send_event(
        json!({ "type": "watch", "id": Uuid::new_v4(), "content": "c", "state": "paused", "watchedMs": 0 }),
    )
    .await;
    eventually(async || hub.get("/health").send().await.status == 503, "health is degraded").await;
    // Only SQLite's own error codes have a reason of their own; a trigger's message is in the log.
    assert_eq!(hub.get("/health").send().await.expect(503)["reason"], "database-error");
    assert_eq!(hub.rows("SELECT count(*) FROM watch_sessions").await, [0]); // the transaction is atomic
    sqlx::query("DROP TRIGGER disk_full").execute(&mut other).await.unwrap();
    ann.expect_ack(6).await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [5]);
    assert_eq!(hub.rows("SELECT count(*) FROM watch_sessions").await, [1]);
    assert_eq!(hub.get("/health").send().await.expect(200)["status"], "ok");
}

#[tokio::test]
async fn overdue_events_degrade_health() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let mut ann = hub.join("lobby", "ann").await;
    let reason = async || {
        let response = hub.get("/health").send().await;
        response.expect(if response.text.contains("degraded") { 503 } else { 200 })["reason"].clone()
    };
    ann.view_page(Uuid::new_v4(), "/").await;
    ann.round_trip().await;
    clock.advance(Duration::from_secs(2 * 3600 + 10));
    assert_eq!(reason().await, Value::Null);
    clock.advance(Duration::from_millis(1));
    assert_eq!(reason().await, "overdue");
    hub.flush().await;
    assert_eq!(reason().await, Value::Null);
}

#[tokio::test]
async fn durable_posts_share_flush_retries_and_get_no_error_details() {
    let hub = Hub::start().await;
    let mut other = open_database(&hub.file()).await;
    let failing = "CREATE TRIGGER failing BEFORE INSERT ON activity_rollups BEGIN SELECT RAISE(ROLLBACK, 'a secret'); END";
    sqlx::query(failing).execute(&mut other).await.unwrap();
    let failures = async || hub.metric("breathing_room_flush_failures_total").await;
    let post = |durable: bool| {
        let view = json!({ "id": Uuid::new_v4(), "path": "/", "visitor": "ann", "room": "lobby" });
        hub.post(&format!("/page-view?durable={durable}")).json(&view)
    };
    post(false).send().await.expect(202);
    // The backoff has reached 2 s.
    eventually(async || failures().await >= 4.0, "four flushes have failed").await;
    let before = failures().await;
    let mut responses = Vec::new();
    for n in 1..=30 {
        responses.push(tokio::spawn(post(true).send()));
        let is_pending = async || hub.get("/health").send().await.expect(503)["pendingPageViews"] == n + 1;
        eventually(is_pending, "the event is queued").await;
    }
    for response in responses {
        let response = response.await.unwrap();
        let message = response.expect_error(503, "not-committed");
        assert_eq!(response.header("retry-after"), "5");
        assert!(message.contains("queued") && !message.contains("secret"), "{message}");
    }
    let tries = failures().await - before;
    assert!(tries <= 5.0, "{tries} tries for 30 posts");
    // The admin can force a flush, and gets the error.
    let before = failures().await;
    let forced = hub.post("/flush").admin().send().await.expect_error(503, "not-committed");
    assert!(forced.contains("a secret") && failures().await > before, "{forced}");
    sqlx::query("DROP TRIGGER failing").execute(&mut other).await.unwrap();
    hub.flush().await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [31]);
}

#[tokio::test]
async fn large_epoch_is_committed_in_slices_and_acked_at_the_end() {
    let hub = Hub::with(|config| config.history.flush_interval = Duration::from_hours(1)).await;
    let text = "x".repeat(1000);
    let mut ann = hub.join("lobby", "ann").await;
    let first = ann.view_page(Uuid::new_v4(), "/").await;
    ann.round_trip().await;
    let post = async |posts: usize| {
        for _ in 0..posts {
            let view = |_| {
                let id = Uuid::new_v4();
                json!({ "id": id, "path": "/", "title": text, "referrer": text, "visitor": "bob", "room": "lobby" })
            };
            let views: Value = (0..25).map(view).collect();
            hub.post("/page-view").json(&views).send().await.expect(202);
        }
    };
    post(50).await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [0]);
    let flushed = hub.post("/flush").admin().send().await.expect(200);
    assert_eq!(flushed["flushed"], json!({ "pageViews": 1_251, "watchSessions": 0 }));
    ann.expect_ack(first).await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [1_251]);
    assert_eq!(hub.metric("breathing_room_flush_events_count").await, 1.0);
    // At 4 MiB the epoch closes and is committed, long before the flush interval.
    let second = ann.view_page(Uuid::new_v4(), "/").await;
    ann.round_trip().await;
    post(80).await;
    ann.expect_ack(second).await;
}

#[tokio::test]
async fn one_flush_commits_all_waiting_posts() {
    let hub = Hub::with(|config| config.history.flush_interval = Duration::from_hours(1)).await;
    let posts = (0..40).map(|n| {
        let view =
            json!({ "id": Uuid::new_v4(), "path": format!("/{n}"), "visitor": "ann", "room": "lobby" });
        hub.post("/page-view?durable=true").json(&view).send()
    });
    let mut posts: Vec<_> = posts.map(Box::pin).collect();
    for response in futures_util::future::join_all(posts.drain(..)).await {
        assert_eq!(response.expect(200), json!({ "committed": 1 }));
    }
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [40]);
    let flushes = hub.metric("breathing_room_flush_duration_seconds_count").await;
    assert!(flushes < 40.0, "{flushes} flushes for 40 posts");
}
