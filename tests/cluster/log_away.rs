//! What a hub does and says while the log of events cannot be used: NATS without JetStream, and a full disk besides.

use serde_json::json;
use uuid::Uuid;

use crate::nats::Nats;
use crate::support::program::Volume;
use crate::support::request::Response;
use crate::support::{Program, eventually};

async fn until_health(hub: &Program, reason: &str) {
    let is_it = async || {
        let body: serde_json::Value = serde_json::from_str(&hub.get("/health").send().await.text).unwrap();
        body["reason"].as_str().unwrap_or_default() == reason
    };
    eventually(is_it, &format!("{reason:?} in /health")).await;
}

async fn outbox(hub: &Program) -> u64 {
    let log = hub.get("/cluster").admin().send().await.expect(200)["log"].clone();
    log["outbox"].as_u64().unwrap()
}

/// Posts a page view to this path.
async fn post(hub: &Program, path: &str) -> Response {
    let view = json!({ "id": Uuid::new_v4(), "path": "/", "visitor": "carol", "room": "lobby" });
    hub.post(path).json(&view).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_on_nats_without_jetstream_says_so_and_acks_events() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("nats.conf");
    std::fs::write(&config, "max_payload: 1MB\n").unwrap();
    let nats = Nats::start(1, &["--config", config.to_str().unwrap()]).await;
    let hub = Program::start(folder.path(), &[("NATS_URL", &nats.url(0))]).await;
    until_health(&hub, "no-jetstream").await;
    let answer = post(&hub, "/page-view?durable=true").await.expect(200);
    assert_eq!(answer["position"], json!(null), "{answer}");
    let log = hub.get("/cluster").admin().send().await.expect(200)["log"].clone();
    let error = "no NATS server has JetStream: start the servers with --jetstream";
    assert_eq!(log["error"], error, "{log}");
    assert_eq!((&log["reading"], &log["outbox"]), (&json!("away"), &json!(1)));
    assert_eq!(hub.get("/health").send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_while_the_log_is_away_stops_acks_until_there_is_space() {
    let Some(volume) = Volume::mount("4m") else { return };
    let mut nats = Nats::start(1, &[]).await;
    let url = nats.url(0);
    let settings = [
        ("NATS_URL", url.as_str()),
        ("FLUSH_INTERVAL", "50ms"),
        ("QUEUE_LIMIT", "10"),
        ("RATE_LIMITS", "off"),
    ];
    let hub = volume.start(&settings).await;
    until_health(&hub, "").await;
    assert!(post(&hub, "/page-view?durable=true").await.expect(200)["position"].is_u64());
    nats.kill(0).await;
    let mut accepted = 1;
    while outbox(&hub).await == 0 {
        post(&hub, "/page-view?durable=true").await.expect(200);
        accepted += 1;
    }
    volume.run("dd if=/dev/zero of=filling bs=4k 2>/dev/null; true");
    loop {
        let answer = post(&hub, "/page-view?durable=true").await;
        accepted += 1;
        if answer.status != 200 {
            assert!(answer.expect_error(503, "not-committed").contains("queued"));
            break;
        }
    }
    until_health(&hub, "disk-full").await;
    loop {
        let answer = post(&hub, "/page-view").await;
        if answer.status != 202 {
            answer.expect_error(503, "overloaded");
            break;
        }
        accepted += 1;
    }
    // The log does not help a full disk.
    nats.restart(0).await;
    let is_back = async || hub.get("/cluster").admin().send().await.expect(200)["state"] == "ok";
    eventually(is_back, "the hub is connected again").await;
    until_health(&hub, "disk-full").await;
    volume.run("rm filling");
    until_health(&hub, "").await;
    eventually(async || outbox(&hub).await == 0, "the outbox is empty").await;
    let has_all = async || {
        let stats = hub.get("/unified-stats?range=24h").send().await.expect(200);
        stats["totals"]["pageViews"] == accepted
    };
    eventually(has_all, &format!("{accepted} page views, each stored once")).await;
}
