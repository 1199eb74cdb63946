//! Quotas: how much of the shared queue and of the body budget one address may use.

use std::num::NonZeroU32;

use axum::http::HeaderName;
use breathing_room::Config;
use breathing_room::config::Limits;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::request::Response;
use crate::support::{Client, Hub, eventually, open_database};

const HEADER: &str = "fly-client-ip";

/// A hub behind a proxy, with the default limits except for the rate of events and this change. Another program has locked its database.
async fn locked_hub(change: impl FnOnce(&mut Config)) -> (Hub, SqliteConnection) {
    let hub = Hub::with(|config| {
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
        // The queue is full before the rate is reached.
        let events = NonZeroU32::new(100_000).unwrap();
        config.transport.limits = Some(Limits { events, ..Limits::DEFAULT });
        change(config);
    })
    .await;
    let mut lock = open_database(&hub.file()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut lock).await.unwrap();
    (hub, lock)
}

/// Page views with titles and referrers of this length.
fn views(count: usize, bytes: usize) -> Value {
    let text = "x".repeat(bytes);
    let view = |_| json!({ "id": Uuid::new_v4(), "path": "/", "title": text, "referrer": text, "visitor": "eve", "room": "lobby" });
    (0..count).map(view).collect()
}

async fn post(hub: &Hub, address: &str, views: &Value) -> Response {
    hub.post("/page-view").header(HEADER, address).json(views).send().await
}

/// Posts from one address until one is rejected. Returns the number of accepted posts.
async fn fill(hub: &Hub, address: &str, views: impl Fn() -> Value) -> u64 {
    let mut accepted = 0;
    loop {
        let response = post(hub, address, &views()).await;
        if response.status != 202 {
            response.expect_error(503, "overloaded");
            assert_eq!(response.header("retry-after"), "5");
            return accepted;
        }
        accepted += 1;
    }
}

async fn limited_total(hub: &Hub, limit: &str) -> u64 {
    let page = hub.get("/metrics").send().await.text;
    let name = format!("breathing_room_limited_total{{reason=\"{limit}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).expect("the counter").parse().unwrap()
}

#[tokio::test]
async fn queue_quota_of_one_address_leaves_room_for_others() {
    let (hub, mut lock) = locked_hub(|_| ()).await;
    let accepted = fill(&hub, "192.0.2.1", || views(100, 0)).await;
    assert_eq!(accepted, 218, "7/16 of 50,000 events, in hundreds");
    for _ in 0..20 {
        post(&hub, "192.0.2.1", &views(100, 0)).await.expect_error(503, "overloaded");
        assert_eq!(post(&hub, "198.51.100.1", &views(1, 1000)).await.status, 202);
    }
    assert_eq!(limited_total(&hub, "address-queue").await, 21);
    assert_eq!(limited_total(&hub, "queue").await, 0);
    // Committed events no longer count.
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    eventually(
        async || post(&hub, "192.0.2.1", &views(100, 0)).await.status == 202,
        "the address can post again",
    )
    .await;
    hub.flush().await;
    assert_eq!(hub.metric("breathing_room_events_pending_bytes").await, 0.0);
}

#[tokio::test]
async fn queue_quota_of_fifty_addresses_leaves_room_for_others() {
    let (hub, _lock) = locked_hub(|_| ()).await;
    let mut accepted = 0;
    for round in 0..12 {
        for last in 0..50 {
            let response = post(&hub, &format!("192.0.2.{last}"), &views(100, 0)).await;
            assert!(matches!(response.status, 202 | 503), "{response:?}");
            accepted += u32::from(response.status == 202);
        }
        assert_eq!(post(&hub, "198.51.100.1", &views(5, 1000)).await.status, 202, "round {round}");
    }
    assert!((400..=438).contains(&accepted), "{accepted} of 100 events each");
}

#[tokio::test]
async fn journal_is_bounded_in_bytes() {
    let (hub, mut lock) = locked_hub(|config| {
        config.history.queue_bytes = 1024 * 1024;
        config.transport.limits = None;
    })
    .await;
    let accepted = fill(&hub, "192.0.2.1", || views(10, 1000)).await;
    assert!((30..=45).contains(&accepted), "{accepted} posts of about 25 KB");
    let [pending, limit] =
        ["breathing_room_events_pending_bytes", "breathing_room_events_pending_bytes_limit"];
    let (pending, limit) = (hub.metric(pending).await, hub.metric(limit).await);
    assert!(pending <= limit && limit == 1_048_576.0 && pending > limit - 60_000.0, "{pending}");
    assert_eq!(limited_total(&hub, "queue").await, 1);
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    hub.flush().await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [accepted * 10]);
}

#[tokio::test]
async fn full_queue_bytes_are_rejected_as_overloaded() {
    let hub = Hub::with(|config| {
        config.history.flush_interval = std::time::Duration::from_hours(1);
        config.history.queue_bytes = 1;
    })
    .await;
    post(&hub, "192.0.2.1", &views(1, 0)).await.expect_error(503, "overloaded");
    let mut ann = hub.join("lobby", "ann").await;
    let rejected = ann.view_page(Uuid::new_v4(), "/").await;
    assert_eq!(ann.expect_error("overloaded").await["ref"], rejected);
    assert_eq!(limited_total(&hub, "queue").await, 2);
}

#[tokio::test]
async fn queue_bytes_quota_of_one_address_leaves_room_for_others() {
    let (hub, _lock) = locked_hub(|config| config.history.queue_bytes = 1024 * 1024).await;
    let accepted = fill(&hub, "192.0.2.1", || views(10, 1000)).await;
    assert!((13..=20).contains(&accepted), "{accepted}");
    for _ in 0..20 {
        post(&hub, "192.0.2.1", &views(10, 1000)).await.expect_error(503, "overloaded");
        assert_eq!(post(&hub, "198.51.100.1", &views(1, 1000)).await.status, 202);
    }
}

#[tokio::test]
async fn sockets_of_one_address_share_its_queue_quota() {
    let (hub, _lock) = locked_hub(|config| config.history.queue_limit = 64).await;
    let (mut eve, mut mallory) = (hub.join("lobby", "eve").await, hub.join("lobby", "mallory").await);
    for n in 0..28 {
        let client: &mut Client = if n % 2 == 0 { &mut eve } else { &mut mallory };
        client.view_page(Uuid::new_v4(), "/").await;
    }
    eve.round_trip().await;
    let rejected = mallory.view_page(Uuid::new_v4(), "/").await;
    let error = mallory.expect_error("overloaded").await;
    assert_eq!(error["ref"], rejected);
    assert!(error["message"].as_str().unwrap().contains("address"), "{error}");
    assert_eq!(post(&hub, "198.51.100.1", &views(10, 0)).await.status, 202);
}

/// Starts a post of an address with the first bytes of its body.
async fn begin_post(hub: &Hub, address: &str, framing: &str, begun: &[u8]) -> TcpStream {
    let mut peer = TcpStream::connect(&hub.address).await.unwrap();
    let head = format!("POST /page-view HTTP/1.1\r\nhost: hub\r\n{HEADER}: {address}\r\n{framing}\r\n\r\n");
    peer.write_all(&[head.as_bytes(), begun].concat()).await.unwrap();
    peer
}

async fn hub_with_body_budget(bytes: usize) -> Hub {
    Hub::with(|config| {
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
        config.transport.max_bytes_in_flight = bytes;
    })
    .await
}

#[tokio::test]
async fn one_byte_bodies_do_not_use_the_budget_of_others() {
    let hub = hub_with_body_budget(4 * 1024 * 1024).await;
    let mut slow = Vec::new();
    for address in ["192.0.2.1", "192.0.2.2"] {
        for _ in 0..40 {
            slow.push(begin_post(&hub, address, "transfer-encoding: chunked", b"1\r\n[\r\n").await);
        }
    }
    let reading = async || hub.metric("breathing_room_http_connections").await >= 80.0;
    eventually(reading, "all posts have started").await;
    for _ in 0..50 {
        assert_eq!(post(&hub, "198.51.100.1", &views(10, 1000)).await.status, 202);
    }
    assert_eq!(limited_total(&hub, "bytes-in-flight").await, 0);
}

#[tokio::test]
async fn bodies_in_flight_per_address_are_limited() {
    let hub = hub_with_body_budget(1).await; // the minimum, which is enough for four bodies
    let mut slow = Vec::new();
    for _ in 0..2 {
        slow.push(begin_post(&hub, "192.0.2.1", "content-length: 65536", &vec![b' '; 50_000]).await);
    }
    let rejected = async || {
        let response = post(&hub, "192.0.2.1", &views(10, 1000)).await;
        response.status == 503 && response.header("retry-after") == "5"
    };
    eventually(rejected, "the address has used its budget").await;
    assert!(limited_total(&hub, "address-bytes-in-flight").await > 0);
    assert_eq!(post(&hub, "192.0.2.2", &views(10, 1000)).await.status, 202);
    drop(slow);
    let accepted = async || post(&hub, "192.0.2.1", &views(10, 1000)).await.status == 202;
    eventually(accepted, "the budget is released").await;
}
