//! Limits: rates and quotas per address, socket and visitor, and load shedding.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::HeaderName;
use breathing_room::Config;
use breathing_room::config::{Clock, Limits};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use uuid::Uuid;

use crate::support::client::Disconnect;
use crate::support::request::Response;
use crate::support::{Client, Hub, eventually, manual_clock};

const HEADER: &str = "fly-client-ip";

fn non_zero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// A hub with the default limits except for this change, with a manual clock.
async fn hub_with_limits(clock: &Clock, change: impl FnOnce(&mut Limits)) -> Hub {
    let mut limits = Limits::DEFAULT;
    change(&mut limits);
    Hub::with(|config| {
        config.clock = clock.clone();
        config.transport.limits = Some(limits);
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
    })
    .await
}

async fn upgrade(hub: &Hub, address: &str) -> Response {
    hub.get("/rooms/lobby/socket?visitor=eve").upgrade().header(HEADER, address).send().await
}

async fn post(hub: &Hub, address: &str) -> Response {
    let view = json!({ "id": Uuid::new_v4(), "path": "/", "visitor": "eve", "room": "lobby" });
    hub.post("/page-view").header(HEADER, address).json(&view).send().await
}

fn expect_rate_limited(response: &Response, code: &str) {
    response.expect_error(429, code);
    assert_eq!(response.header("retry-after"), "10");
}

/// Returns how often this limit was exceeded.
async fn limited_total(hub: &Hub, limit: &str) -> u64 {
    let page = hub.get("/metrics").send().await.text;
    let name = format!("breathing_room_limited_total{{reason=\"{limit}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).expect("the counter").parse().unwrap()
}

#[tokio::test]
async fn socket_limit_per_address_does_not_affect_others() {
    let hub = hub_with_limits(&manual_clock(), |limits| limits.sockets = non_zero(3)).await;
    let (ann, _bob) = (hub.join("lobby", "ann").await, hub.join("lobby", "bob").await);
    let mut viewer = Client::connect(&format!("ws://{}/live", hub.address)).await.unwrap();
    viewer.next().await.unwrap();
    let rejected = hub.get("/rooms/lobby/socket").upgrade().send().await;
    expect_rate_limited(&rejected, "too-many");
    expect_rate_limited(&hub.get("/live").upgrade().send().await, "too-many");
    assert_eq!(limited_total(&hub, "address-sockets").await, 2);
    assert_eq!(upgrade(&hub, "192.0.2.7").await.status, 101, "another address has its own limit");
    ann.leave().await;
    eventually(async || hub.get("/live").upgrade().send().await.status == 101, "a socket is free").await;
}

#[tokio::test]
async fn connection_limit_per_address_does_not_affect_others() {
    let hub = Hub::with(|config| {
        config.transport.limits = Some(Limits { sockets: non_zero(3), ..Limits::DEFAULT });
    })
    .await;
    let begin = async || {
        let mut peer = TcpStream::connect(&hub.address).await.unwrap();
        peer.write_all(b"G").await.unwrap(); // the kernel defers the accept until data arrives, up to a second
        peer
    };
    let slow = [begin().await, begin().await, begin().await];
    let mut rejected = String::new();
    begin().await.read_to_string(&mut rejected).await.unwrap();
    assert!(rejected.starts_with("HTTP/1.1 429 ") && rejected.contains("too-many"), "{rejected}");
    let page = hub.get("/").header("accept", "text/html").send().await;
    assert_eq!(page.status, 429);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text.contains("<p>Too many connections are open from your address.</p>"), "{}", page.text);
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut elsewhere = elsewhere.connect(hub.address.parse().unwrap()).await.unwrap();
    elsewhere.write_all(b"GET /health HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut response = String::new();
    elsewhere.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    drop(slow);
    let is_free = async || hub.get("/health").try_send().await.is_ok_and(|response| response.status == 200);
    eventually(is_free, "the connections are free").await;
    assert!(limited_total(&hub, "address-connections").await > 0);
}

#[tokio::test]
async fn socket_rate_per_address_is_limited() {
    let clock = manual_clock();
    let hub = hub_with_limits(&clock, |limits| limits.opened = non_zero(2)).await;
    for _ in 0..20 {
        assert_eq!(upgrade(&hub, "192.0.2.7").await.status, 101);
    }
    expect_rate_limited(&upgrade(&hub, "192.0.2.7").await, "too-fast");
    assert_eq!(limited_total(&hub, "address-socket-rate").await, 1);
    assert_eq!(upgrade(&hub, "192.0.2.8").await.status, 101);
    clock.advance(Duration::from_millis(500));
    assert_eq!(upgrade(&hub, "192.0.2.7").await.status, 101);
}

#[tokio::test]
async fn post_rate_per_address_is_limited_by_ipv6_network() {
    let clock = manual_clock();
    let hub = hub_with_limits(&clock, |limits| limits.posts = non_zero(1)).await;
    for last in 0..10 {
        // Addresses of one IPv6 /64 count as one.
        assert_eq!(post(&hub, &format!("2001:db8:1:2::{last}")).await.status, 202);
    }
    expect_rate_limited(&post(&hub, "2001:db8:1:2:ffff::").await, "too-fast");
    assert_eq!(post(&hub, "2001:db8:1:3::1").await.status, 202);
    assert_eq!(limited_total(&hub, "address-post-rate").await, 1);
    let health = hub.get("/health").header(HEADER, "2001:db8:1:2::1").send().await.expect(200);
    assert!(health["pendingPageViews"].as_u64().unwrap() <= 11, "rejected posts are not queued");
    clock.advance(Duration::from_secs(1));
    assert_eq!(post(&hub, "2001:db8:1:2::9").await.status, 202);
}

#[tokio::test]
async fn read_rate_per_address_exempts_health_assets_and_admin() {
    let clock = manual_clock();
    let hub = hub_with_limits(&clock, |limits| limits.reads = non_zero(1)).await;
    let get = async |path: &str, address: &str| hub.get(path).header(HEADER, address).send().await;
    for path in ["/rooms/lobby", "/live-activity", "/unified-stats", "/metrics", "/nowhere"].repeat(2) {
        assert_ne!(get(path, "192.0.2.7").await.status, 429, "{path}");
    }
    expect_rate_limited(&get("/rooms/lobby", "192.0.2.7").await, "too-fast");
    let erase = || hub.delete("/visitors/eve/data").header(HEADER, "192.0.2.7");
    expect_rate_limited(&erase().send().await, "too-fast");
    assert_eq!(limited_total(&hub, "address-read-rate").await, 2);
    assert_eq!(get("/rooms/lobby", "192.0.2.8").await.status, 200, "another address has its own rate");
    for path in ["/health", "/client/breathing-room.js"] {
        assert_eq!(get(path, "192.0.2.7").await.status, 200, "{path}");
    }
    erase().admin().send().await.expect(200);
    assert_eq!(post(&hub, "192.0.2.7").await.status, 202, "posts have a separate rate");
    clock.advance(Duration::from_secs(1));
    assert_eq!(get("/rooms/lobby", "192.0.2.7").await.status, 200);
}

#[tokio::test]
async fn live_socket_limit_per_address_does_not_affect_others() {
    let hub = hub_with_limits(&manual_clock(), |limits| limits.live = non_zero(2)).await;
    let listen = async || Client::connect(&format!("ws://{}/live", hub.address)).await.unwrap();
    let (mut first, mut second) = (listen().await, listen().await);
    for viewer in [&mut first, &mut second] {
        assert_eq!(viewer.next().await.unwrap()["type"], "live-activity");
    }
    let ask = || hub.get("/live").upgrade();
    expect_rate_limited(&ask().send().await, "too-many");
    assert_eq!(limited_total(&hub, "address-live-sockets").await, 1);
    assert_eq!(
        ask().header(HEADER, "192.0.2.7").send().await.status,
        101,
        "another address has its own limit"
    );
    let _ann = hub.join("lobby", "ann").await;
    first.leave().await;
    eventually(async || ask().send().await.status == 101, "a socket is free").await;
}

async fn join_from(hub: &Hub, address: &str, visitor: &str) -> Client {
    Client::join_with_header((HEADER, address), &hub.address, "lobby", &format!("visitor={visitor}")).await
}

async fn watch(client: &mut Client, state: &str, content: &str) {
    let id = Uuid::new_v4();
    let watch = json!({ "type": "watch", "id": id, "content": content, "state": state, "watchedMs": 0 });
    client.send_event(watch).await;
}

#[tokio::test]
async fn watch_clock_quota_keeps_clocks_for_other_addresses() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        config.clock = clock.clone();
        config.session.watch_clocks = 10;
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
    })
    .await;
    let mut ann = join_from(&hub, "192.0.2.1", "ann").await;
    watch(&mut ann, "playing", "dawn").await;
    ann.round_trip().await;
    let mut eve = join_from(&hub, "192.0.2.2", "eve").await;
    for _ in 0..30 {
        watch(&mut eve, "paused", "noise").await;
    }
    eve.round_trip().await;
    let mut bob = join_from(&hub, "192.0.2.3", "bob").await;
    watch(&mut bob, "playing", "dawn").await;
    bob.round_trip().await;
    assert_eq!(hub.debug("watchClocks").await, 10);
    assert_eq!(hub.metric("breathing_room_watch_clocks").await, 10.0);
    assert_eq!(limited_total(&hub, "watch-clocks").await, 22, "21 of Eve's, and one for Bob");
    clock.advance(Duration::from_secs(10));
    for client in [ann, bob, eve] {
        client.leave().await;
    }
    hub.flush().await;
    let measured =
        "SELECT json_array(visitor, watched_ms) FROM watch_sessions WHERE watched_ms > 0 ORDER BY visitor";
    assert_eq!(hub.rows(measured).await, [json!(["ann", 10_000]), json!(["bob", 10_000])]);
    assert_eq!(hub.rows("SELECT count(*) FROM watch_sessions").await, [32], "all watch sessions are stored");
}

#[tokio::test]
async fn live_state_quota_per_address_bounds_bytes_and_keeps_events() {
    let hub = Hub::with(|config| {
        config.session.live_state = 16 * 1024;
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
    })
    .await;
    let mut flood = Vec::new();
    for n in 0..20 {
        let mut eve = join_from(&hub, "192.0.2.2", &format!("eve{n}")).await;
        eve.view_page(Uuid::new_v4(), &format!("/{n:02}/{}", "x".repeat(500))).await;
        watch(&mut eve, "playing", &format!("{n:02}{}", "x".repeat(500))).await;
        eve.round_trip().await;
        flood.push(eve);
    }
    let mut ann = join_from(&hub, "192.0.2.1", "ann").await;
    ann.view_page(Uuid::new_v4(), "/sunrise").await;
    watch(&mut ann, "playing", "dawn").await;
    ann.round_trip().await;
    let live = hub.get("/live-activity").send().await.expect(200);
    let counts = ["pages", "watching"].map(|list| live[list].as_array().unwrap().len());
    assert!(counts.iter().all(|count| (2..8).contains(count)), "{counts:?}");
    assert!(live["pages"].as_array().unwrap().contains(&json!({ "path": "/sunrise", "count": 1 })));
    assert!(live["watching"].as_array().unwrap().contains(&json!({ "content": "dawn", "count": 1 })));
    let held = hub.metric("breathing_room_live_state_bytes").await;
    assert!((4.0 * 1024.0..=9.0 * 1024.0).contains(&held), "{held}");
    assert!(limited_total(&hub, "live-state").await > 20);
    hub.flush().await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [21]);
    assert_eq!(hub.rows("SELECT count(*) FROM watch_sessions").await, [21]);
    for eve in flood {
        eve.leave().await;
    }
    ann.leave().await;
    let is_free = async || hub.metric("breathing_room_live_state_bytes").await == 0.0;
    eventually(is_free, "the quota is released").await;
}

#[tokio::test]
async fn parallel_personal_data_requests_do_not_block_stats() {
    let hub = Hub::start().await;
    hub.post_page_view("eve", "/").await;
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..40 {
        let request =
            if n % 2 == 0 { hub.get("/visitors/eve/data") } else { hub.delete("/visitors/bob/data") };
        asking.spawn(request.admin().send());
    }
    for n in 1..5 {
        // Each range is new, so that no cache entry serves it.
        let to = 1_800_000_000_000_u64 + n * 3_600_000;
        hub.get(&format!("/unified-stats?from={}&to={to}", to - 86_400_000)).send().await.expect(200);
    }
    let mut rejected = 0;
    while let Some(response) = asking.join_next().await {
        let response = response.unwrap();
        if response.status == 503 {
            response.expect_error(503, "overloaded");
            assert_eq!(response.header("retry-after"), "5");
            rejected += 1;
        } else {
            response.expect(200);
        }
    }
    assert_eq!(limited_total(&hub, "personal-data").await, rejected);
    hub.get("/visitors/eve/data").admin().send().await.expect(200);
}

#[tokio::test]
async fn client_ip_header_is_ignored_when_not_configured() {
    let hub = Hub::with(|config| {
        config.clock = manual_clock();
        config.transport.limits = Some(Limits { posts: non_zero(1), ..Limits::DEFAULT });
    })
    .await;
    for last in 0..10 {
        assert_eq!(post(&hub, &format!("192.0.2.{last}")).await.status, 202);
    }
    expect_rate_limited(&post(&hub, "192.0.2.99").await, "too-fast");
}

#[tokio::test]
async fn events_of_one_address_have_a_rate_over_sockets_and_posts_together() {
    let clock = manual_clock();
    let hub = hub_with_limits(&clock, |limits| limits.events = non_zero(10)).await;
    let views = |count: usize| -> Value {
        let view = |_| json!({ "id": Uuid::new_v4(), "path": "/", "visitor": "eve", "room": "lobby" });
        (0..count).map(view).collect()
    };
    let post = async |address: &str, count| {
        hub.post("/page-view").header(HEADER, address).json(&views(count)).send().await
    };
    let (first, second) = ("192.0.2.1", "192.0.2.2");
    for count in [100, 100, 49] {
        assert_eq!(post(first, count).await.status, 202);
    }
    let mut eve = Client::join_with_header((HEADER, first), &hub.address, "lobby", "visitor=eve").await;
    eve.view_page(Uuid::new_v4(), "/").await;
    eve.round_trip().await;
    let refused = eve.view_page(Uuid::new_v4(), "/").await;
    assert_eq!(eve.expect_error("overloaded").await["ref"], refused);
    let response = post(first, 1).await;
    response.expect_error(503, "overloaded");
    assert_eq!(response.header("retry-after"), "5");
    assert_eq!(post(second, 100).await.status, 202, "another address");
    clock.advance(Duration::from_secs(1));
    assert_eq!(post(first, 10).await.status, 202);
    hub.flush().await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [360]);
    assert_eq!(limited_total(&hub, "address-event-rate").await, 2);
}

#[tokio::test]
async fn message_flood_is_rejected_ten_times_and_then_closed() {
    let hub = hub_with_limits(&manual_clock(), |limits| limits.messages = non_zero(1)).await;
    let mut bob = hub.join("lobby", "bob").await;
    let mut eve = hub.join("lobby", "eve").await;
    bob.expect_present(2).await;
    let reference = eve.view_page(Uuid::new_v4(), "/").await;
    for _ in 0..9 {
        eve.round_trip().await;
    }
    eve.expect_ack(reference).await;
    for _ in 0..9 {
        let reference = eve.view_page(Uuid::new_v4(), "/").await;
        assert_eq!(eve.expect_error("too-fast").await["ref"], reference);
    }
    eve.set_mood(Some("joy")).await;
    assert_eq!(eve.expect_error("too-fast").await["ref"], Value::Null);
    eve.send_json(json!({ "type": "hello" })).await;
    assert_eq!(eve.expect_disconnect().await, Disconnect::Closed(1008));
    bob.expect_present(1).await;
    assert_eq!(bob.moods, json!({}));
    hub.flush().await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [1]);
    assert_eq!(limited_total(&hub, "message-rate").await, 11);
}

#[tokio::test]
async fn rate_limited_client_recovers_after_a_pause() {
    let clock = manual_clock();
    let hub = hub_with_limits(&clock, |limits| limits.messages = non_zero(1)).await;
    let mut ann = hub.join("lobby", "ann").await;
    for _ in 0..10 {
        ann.round_trip().await;
    }
    for _ in 0..5 {
        ann.view_page(Uuid::new_v4(), "/").await;
        ann.expect_error("too-fast").await;
    }
    clock.advance(Duration::from_secs(6));
    let reference = ann.view_page(Uuid::new_v4(), "/").await;
    ann.expect_ack(reference).await;
}

#[tokio::test]
async fn message_rate_applies_to_pings_and_to_live_sockets() {
    let hub = hub_with_limits(&manual_clock(), |limits| limits.messages = non_zero(1)).await;
    let mut eve = hub.join("lobby", "eve").await;
    for _ in 0..21 {
        eve.send(Message::Ping(Bytes::new())).await;
    }
    assert_eq!(eve.expect_disconnect().await, Disconnect::Closed(1008));
    let mut viewer = Client::connect(&format!("ws://{}/live", hub.address)).await.unwrap();
    for _ in 0..21 {
        viewer.send_json(json!({ "type": "hello" })).await;
    }
    let mut rejected = Vec::new();
    let end = loop {
        match viewer.next().await {
            Ok(message) => rejected.extend(message["code"].as_str().map(str::to_owned)),
            Err(end) => break end,
        }
    };
    assert_eq!(end, Disconnect::Closed(1008));
    assert_eq!(rejected, [vec!["unknown-type"; 10], vec!["too-fast"; 10]].concat());
}

#[tokio::test]
async fn rooms_per_visitor_are_limited() {
    let hub = Hub::with(|config| config.presence.max_rooms_per_visitor = Some(2)).await;
    let _lobby = hub.join("lobby", "ann").await;
    let garden = hub.join("garden", "ann").await;
    let third = || hub.get("/rooms/attic/socket?visitor=ann").upgrade();
    expect_rate_limited(&third().send().await, "too-many-rooms");
    assert_eq!(limited_total(&hub, "visitor-rooms").await, 1);
    let ask = |visitor| hub.get("/rooms/attic/socket").header("visitor", visitor);
    expect_rate_limited(&ask("ann").send().await, "too-many-rooms");
    ask("bob").send().await.expect_error(426, "upgrade-required");
    ask("b o b").send().await.expect_error(400, "bad-visitor");
    let _tab = hub.join("lobby", "ann").await;
    let _bob = hub.join("attic", "bob").await;
    garden.leave().await;
    eventually(async || third().send().await.status == 101, "another room is allowed").await;
}

#[tokio::test]
async fn class_of_300_behind_one_address_meets_no_limit() {
    let hub = Hub::with(|config| config.clock = manual_clock()).await;
    for _ in 0..2 {
        let mut class = Vec::new();
        for n in 0..300 {
            let mut client = hub.join("class", &format!("v{n}")).await;
            for _ in 0..8 {
                client.view_page(Uuid::new_v4(), "/").await;
            }
            class.push(client);
        }
        for client in &mut class {
            client.expect_ack(8).await;
        }
        class[0].expect_present(300).await;
    }
    assert_eq!(hub.metric("breathing_room_limited_total").await, 0.0);
}

#[tokio::test]
async fn limits_can_be_turned_off() {
    let hub = Hub::with(|config| {
        config.clock = manual_clock();
        config.transport.limits = None;
    })
    .await;
    let mut ann = hub.join("lobby", "ann").await;
    for _ in 0..500 {
        ann.send_json(json!({ "type": "hello" })).await;
    }
    for _ in 0..500 {
        ann.expect_error("unknown-type").await;
    }
}

#[tokio::test]
async fn load_shedding_closes_the_slowest_reader_first() {
    let change = |config: &mut Config| {
        config.transport.max_bytes_in_flight = 64;
        config.transport.limits = None;
        config.transport.ping_interval = Duration::from_secs(4); // the sweep runs more often; Ann has time to answer
    };
    let hub = Hub::with(change).await;
    let mut ann = hub.join("lobby", "ann").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut eve = socket.connect(hub.address.parse().unwrap()).await.unwrap();
    let head = "GET /rooms/lobby/socket?visitor=eve HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\n\
                upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    eve.write_all(head.as_bytes()).await.unwrap();
    ann.expect_present(2).await;
    // Empty masked text messages: each causes an error, and Eve reads none.
    let flood = async { while eve.write_all(&[0x81, 0x80, 0, 0, 0, 0]).await.is_ok() {} };
    tokio::join!(flood, ann.expect_present(1));
    let freed = async {
        assert!(limited_total(&hub, "bytes-in-flight").await > 0);
        hub.expect_debug("connections", 1).await;
    };
    tokio::select! {
        () = freed => {}
        () = ann.read() => panic!("unexpected message in the room"), // Ann answers pings meanwhile
    }
}
