//! HTTP: live routes work from memory in any state of the database; metrics, subprotocol and moods.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Client, Hub, manual_clock};

/// Everything that must not access the database.
async fn expect_memory_answers(hub: &Hub, pending: u64) {
    let health = hub.get("/health").send().await;
    let health: serde_json::Value = serde_json::from_str(&health.text).unwrap();
    assert_eq!((&health["liveUsers"], &health["pendingPageViews"]), (&json!(1), &json!(pending)));
    assert_eq!(health["architecture"], "memory-first");
    let room = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&room["present"], &room["moods"]), (&json!(1), &json!({ "calm": 1 })));
    assert_eq!(hub.get("/live-activity").send().await.expect(200)["liveUsers"], 1);
    assert_eq!(hub.debug("sessions").await, 1);
    let mut bob = hub.join("lobby", "bob").await;
    assert_eq!(bob.present, 2);
    bob.set_mood(Some("joy")).await;
    bob.expect_moods(json!({ "calm": 1, "joy": 1 })).await;
    bob.leave().await;
    hub.expect_debug("sessions", 1).await;
}

#[tokio::test]
async fn live_routes_work_while_the_database_is_locked() {
    let hub = Hub::start().await;
    let mut ann = hub.join_with_mood("lobby", "ann", "calm").await;
    let mut other = crate::support::open_database(&hub.file()).await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    ann.view_page(Uuid::new_v4(), "/").await;
    ann.round_trip().await;
    expect_memory_answers(&hub, 1).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    drop(other);
    ann.expect_ack(1).await;
}

#[tokio::test]
async fn live_routes_work_while_the_database_is_missing() {
    let hub = Hub::with(|config| config.history.flush_interval = std::time::Duration::from_hours(1)).await;
    let mut ann = hub.join_with_mood("lobby", "ann", "calm").await;
    for end in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{end}", hub.file().display())).unwrap();
    }
    ann.view_page(Uuid::new_v4(), "/").await;
    ann.round_trip().await;
    expect_memory_answers(&hub, 1).await;
}

#[tokio::test]
async fn metrics_match_the_activity() {
    // The clock does not move: no presence sample is taken in between.
    let hub = Hub::with(|config| config.clock = manual_clock()).await;
    let mut ann = hub.join("lobby", "ann").await;
    let bob = hub.join("lobby", "bob").await;
    let _tab = hub.join("garden", "ann").await;
    ann.expect_present(2).await;
    bob.leave().await;
    ann.expect_present(1).await;
    let reference = ann.view_page(Uuid::new_v4(), "/").await;
    ann.expect_ack(reference).await;
    ann.set_mood(Some("furious")).await;
    ann.expect_error("unknown-mood").await;
    for (name, expected) in [
        ("connections", 2.0),
        ("sessions", 2.0),
        ("visitors", 1.0),
        ("rooms", 2.0),
        ("joins_total", 3.0),
        ("leaves_total", 1.0),
        ("events_queued_total", 1.0),
        ("events_committed_total", 1.0),
        ("events_pending", 0.0),
        ("oldest_unflushed_seconds", 0.0),
        ("refused_total", 1.0),
        ("flush_events_sum", 1.0),
        ("flush_duration_seconds_count", 1.0),
    ] {
        let name = format!("breathing_room_{name}");
        assert_eq!(hub.metric(&name).await, expected, "{name}");
    }
    assert!(hub.metric("breathing_room_publishes_total").await >= 2.0);
    assert!(hub.metric("breathing_room_deliveries_total").await >= 2.0);
    hub.get("/rooms/lobby").send().await;
    hub.get("/rooms/garden").send().await;
    hub.get("/nowhere").send().await;
    let page = hub.get("/metrics").send().await;
    assert!(page.header("content-type").starts_with("text/plain"));
    for line in [
        r#"breathing_room_http_requests_total{route="/rooms/{room}",status="200"} 2"#,
        r#"breathing_room_http_requests_total{route="none",status="404"} 1"#,
        r#"breathing_room_http_requests_total{route="/rooms/{room}/socket",status="101"} 3"#,
    ] {
        assert!(page.text.contains(line), "{line}\n{}", page.text);
    }
}

#[tokio::test]
async fn init_db_reports_applied_migrations() {
    let hub = Hub::start().await;
    let response = hub.post("/init-db").admin().send().await.expect(200);
    assert_eq!(response["applied"], json!([]));
    assert!(response["current"].as_u64().unwrap() >= 1);
}

#[tokio::test]
async fn subprotocol_is_echoed_only_when_offered() {
    let hub = Hub::start().await;
    let upgrade = || hub.get("/rooms/lobby/socket").upgrade();
    let offered = upgrade().header("sec-websocket-protocol", "breathing-room.v1, other").send().await;
    assert_eq!((offered.status, offered.header("sec-websocket-protocol")), (101, "breathing-room.v1"));
    let not_offered = upgrade().send().await;
    assert_eq!((not_offered.status, not_offered.header("sec-websocket-protocol")), (101, ""));
    assert_eq!(not_offered.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[tokio::test]
async fn configured_moods_replace_the_default_ones() {
    let hub = Hub::with(|config| {
        config.presence.moods = breathing_room::config::Vocabulary::parse("still,stormy").unwrap();
    })
    .await;
    let mut ann = hub.join_with_mood("lobby", "ann", "still").await;
    assert_eq!(ann.welcome["vocabulary"], json!(["still", "stormy"]));
    ann.set_mood(Some("calm")).await;
    ann.expect_error("unknown-mood").await;
    ann.set_mood(Some("stormy")).await;
    ann.expect_moods(json!({ "stormy": 1 })).await;
    let rejected = Client::connect(&format!("ws://{}/rooms/lobby/socket?mood=calm", hub.address)).await;
    assert!(rejected.is_err());
}
