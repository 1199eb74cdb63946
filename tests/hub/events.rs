//! Events over sockets and HTTP: they are idempotent, acked after the commit, and bounded by the queue.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Hub, manual_clock};

const VIEWS: &str = "SELECT json_object('id', id, 'room', room, 'visitor', visitor, 'path', path, \
    'title', title, 'referrer', referrer, 'at', at, 'props', json(props)) FROM page_views ORDER BY path";

#[tokio::test]
async fn page_view_is_stored_acked_and_live() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let id = Uuid::now_v7();
    let at = ann.welcome["serverTime"].as_u64().unwrap() - 1_000;
    let reference = ann
        .send_event(json!({
            "type": "page-view", "id": id, "path": "/sit", "title": "Sit ☯", "referrer": "https://example.org/",
            "at": at, "props": { "lang": "de", "level": 3, "first": true },
        }))
        .await;
    ann.expect_ack(reference).await;
    assert_eq!(
        hub.rows(VIEWS).await,
        [json!({
            "id": id, "room": "lobby", "visitor": "ann", "path": "/sit", "title": "Sit ☯",
            "referrer": "https://example.org/", "at": at,
            "props": { "lang": "de", "level": 3, "first": true },
        })]
    );
    let live = hub.get("/live-activity").send().await.expect(200);
    assert_eq!(live["pages"], json!([{ "path": "/sit", "count": 1 }]));
    ann.leave().await;
    hub.expect_debug("sessions", 0).await;
    hub.expect_live_activity("pages", json!([])).await;
}

#[tokio::test]
async fn ack_follows_the_commit_and_covers_all_earlier_events() {
    let hub = Hub::with(|config| config.history.flush_interval = Duration::from_hours(1)).await;
    let mut ann = hub.join("lobby", "ann").await;
    for n in 0..5 {
        ann.view_page(Uuid::new_v4(), &format!("/{n}")).await;
    }
    ann.round_trip().await;
    assert_eq!(hub.rows(VIEWS).await.len(), 0);
    assert_eq!(hub.get("/health").send().await.expect(200)["pendingPageViews"], 5);
    let flushed = hub.post("/flush").admin().send().await.expect(200);
    assert_eq!(flushed["flushed"], json!({ "pageViews": 5, "watchSessions": 0 }));
    assert_eq!(ann.expect("ack").await["upTo"], 5);
    assert_eq!(hub.rows(VIEWS).await.len(), 5);
    let health = hub.get("/health").send().await.expect(200);
    assert_eq!((&health["pendingPageViews"], health["lastFlush"].is_u64()), (&json!(0), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn resent_page_views_of_fifty_sockets_are_stored_once() {
    let hub = Hub::start().await;
    let address = hub.address.clone();
    let visitors = (0..50).map(|n| {
        let address = address.clone();
        tokio::spawn(async move {
            let visitor = format!("visitor=v{n}");
            let join = || crate::support::Client::join(&address, "lobby", &visitor);
            let ids: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
            let mut first = join().await;
            for (index, id) in ids.iter().enumerate() {
                first.view_page(*id, &format!("/{n}/{index}")).await;
            }
            // The connection is lost before an ack; the client sends all events again.
            first.disconnect();
            let mut second = join().await;
            for (index, id) in ids.iter().enumerate().rev() {
                second.view_page(*id, &format!("/{n}/{index}")).await;
            }
            second.expect_ack(20).await;
            ids
        })
    });
    let mut sent: Vec<String> = Vec::new();
    for visitor in visitors.collect::<Vec<_>>() {
        sent.extend(visitor.await.unwrap().iter().map(Uuid::to_string));
    }
    let mut stored: Vec<Value> = hub.rows("SELECT json_quote(id) FROM page_views").await;
    sent.sort();
    stored.sort_by_key(Value::to_string);
    assert_eq!(json!(stored), json!(sent));
}

#[tokio::test]
async fn refs_must_increase_and_rejected_events_change_nothing() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let event = |reference: Value| json!({ "type": "page-view", "ref": reference, "id": Uuid::new_v4(), "path": "/" });
    ann.send_json(event(json!(5))).await;
    for bad in [json!(5), json!(4), json!(0), json!(-1), json!("6"), json!(6.5), Value::Null] {
        ann.send_json(event(bad.clone())).await;
        let error = ann.expect_error("bad-field").await;
        assert!(error["message"].as_str().unwrap().contains("ref"), "{bad}: {error}");
    }
    ann.send_json(event(json!(1000))).await;
    ann.expect_ack(1000).await;
    assert_eq!(hub.rows(VIEWS).await.len(), 2);
}

#[tokio::test]
async fn full_queue_rejects_new_events_and_keeps_accepted_ones() {
    let hub = Hub::with(|config| {
        config.clock = manual_clock(); // it does not move: no presence sample is queued
        config.history.flush_interval = Duration::from_hours(1);
        config.history.queue_limit = 3;
        config.transport.limits = None; // one address may fill the queue
    })
    .await;
    // The lock stops the early flush of a filling queue.
    let mut other = crate::support::open_database(&hub.file()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let mut ann = hub.join("lobby", "ann").await;
    for n in 0..3 {
        ann.view_page(Uuid::new_v4(), &format!("/{n}")).await;
    }
    let rejected = ann.view_page(Uuid::new_v4(), "/3").await;
    assert_eq!(ann.expect_error("overloaded").await["ref"], rejected);
    let view = json!({ "id": Uuid::new_v4(), "path": "/4", "visitor": "bob", "room": "lobby" });
    let response = hub.post("/page-view").json(&view).send().await;
    response.expect_error(503, "overloaded");
    assert_eq!(response.header("retry-after"), "5");
    assert_eq!(hub.get("/health").send().await.expect(503)["status"], "degraded");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    ann.expect_ack(3).await;
    let again = ann.view_page(Uuid::new_v4(), "/3").await;
    hub.flush().await;
    ann.expect_ack(again).await;
    assert_eq!(
        hub.rows("SELECT json_quote(path) FROM page_views ORDER BY path").await,
        ["/0", "/1", "/2", "/3"]
    );
    assert!(hub.metric("breathing_room_refused_total").await >= 2.0);
}

#[tokio::test]
async fn quarter_full_queue_is_flushed_early() {
    let hub = Hub::with(|config| {
        config.history.flush_interval = Duration::from_hours(1);
        config.history.queue_limit = 40;
    })
    .await;
    let mut ann = hub.join("lobby", "ann").await;
    for n in 0..10 {
        ann.view_page(Uuid::new_v4(), &format!("/{n}")).await;
    }
    ann.expect_ack(10).await;
}

#[tokio::test]
async fn http_accepts_one_or_many_events_as_json_or_beacon() {
    let hub = Hub::with(|config| config.history.flush_interval = Duration::from_hours(1)).await;
    let view = |path: &str| json!({ "id": Uuid::new_v4(), "path": path, "visitor": "ann", "room": "lobby" });
    let now = hub.get("/health").send().await.expect(200)["timestamp"].as_u64().unwrap();
    let watch = json!({ "id": Uuid::new_v4(), "content": "c", "state": "ended", "watchedMs": 5,
        "startedAt": now - 9, "at": now, "visitor": "ann", "room": "lobby" });
    let one = hub.post("/page-view").json(&view("/1")).send().await.expect(202);
    assert_eq!(one, json!({ "queued": 1 }));
    let many = json!([view("/2"), view("/3")]).to_string();
    let beacon = hub.post("/page-view").header("content-type", "text/plain;charset=UTF-8").body(many);
    assert_eq!(beacon.send().await.expect(202), json!({ "queued": 2 }));
    assert_eq!(hub.rows(VIEWS).await.len(), 0);
    let durable = hub.post("/watch-session?durable=true").json(&watch).send().await.expect(200);
    assert_eq!(durable, json!({ "committed": 1 }));
    assert_eq!(hub.rows(VIEWS).await.len(), 3); // one commit for all events
    assert_eq!(hub.rows("SELECT watched_ms FROM watch_sessions").await, [5]);
    let again = hub.post("/watch-session?durable=true").json(&json!([watch, watch])).send().await.expect(200);
    assert_eq!(again, json!({ "committed": 2 }));
    assert_eq!(hub.rows("SELECT count(*) FROM watch_sessions").await, [1]);
}

#[tokio::test]
async fn array_of_events_is_accepted_or_rejected_as_a_whole() {
    let hub = Hub::start().await;
    let view = || json!({ "id": Uuid::new_v4(), "path": "/", "visitor": "ann", "room": "lobby" });
    let mut bad = view();
    bad["path"] = json!("x".repeat(513));
    let response = hub.post("/page-view").json(&json!([view(), view(), bad])).send().await;
    let message = response.expect_error(400, "bad-field");
    assert_eq!(message, "[2]: path: must be at most 512 bytes");
    let many: Vec<Value> = (0..101).map(|_| view()).collect();
    hub.post("/page-view").json(&json!(many)).send().await.expect_error(400, "bad-field");
    assert_eq!(hub.get("/health").send().await.expect(200)["pendingPageViews"], 0);
    let all = hub.post("/page-view?durable=true").json(&json!(many[..100])).send().await.expect(200);
    assert_eq!(all["committed"], 100);
}
