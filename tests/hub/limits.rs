//! How much: what one address, one socket and one visitor may do, and what the hub keeps for all.

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

use crate::support::member::Ending;
use crate::support::request::Answer;
use crate::support::{Hub, Member, clock, eventually};

const HEADER: &str = "fly-client-ip";

fn few(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// A hub whose limits are the usual ones but for this, by a clock that stands still.
async fn limited(clock: &Clock, change: impl FnOnce(&mut Limits)) -> Hub {
    let mut limits = Limits::DEFAULT;
    change(&mut limits);
    Hub::with(|config| {
        config.clock = clock.clone();
        config.transport.limits = Some(limits);
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
    })
    .await
}

async fn upgrade(hub: &Hub, address: &str) -> Answer {
    hub.get("/rooms/lobby/socket?visitor=eve").upgrade().header(HEADER, address).send().await
}

async fn post(hub: &Hub, address: &str) -> Answer {
    let view = json!({ "id": Uuid::new_v4(), "path": "/", "visitor": "eve", "room": "lobby" });
    hub.post("/page-view").header(HEADER, address).json(&view).send().await
}

fn expect_slowed_down(answer: &Answer, code: &str) {
    answer.expect_error(429, code);
    assert_eq!(answer.header("retry-after"), "10");
}

/// How often somebody met this limit.
async fn met(hub: &Hub, limit: &str) -> u64 {
    let page = hub.get("/metrics").send().await.text;
    let name = format!("breathing_room_limited_total{{reason=\"{limit}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).expect("the counter").parse().unwrap()
}

#[tokio::test]
async fn one_address_has_so_many_sockets_and_leaves_the_others_alone() {
    let hub = limited(&clock(), |limits| limits.sockets = few(3)).await;
    let (ann, _bob) = (hub.join("lobby", "ann").await, hub.join("lobby", "bob").await);
    let mut viewer = Member::connect(&format!("ws://{}/live", hub.address)).await.unwrap();
    viewer.next().await.unwrap();
    let refused = hub.get("/rooms/lobby/socket").upgrade().send().await;
    expect_slowed_down(&refused, "too-many");
    expect_slowed_down(&hub.get("/live").upgrade().send().await, "too-many");
    assert_eq!(met(&hub, "address-sockets").await, 2);
    assert_eq!(upgrade(&hub, "192.0.2.7").await.status, 101, "it comes from another address");
    ann.leave().await;
    eventually(async || hub.get("/live").upgrade().send().await.status == 101, "the place is free").await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_leaves_the_others_alone() {
    let hub = Hub::with(|config| {
        config.transport.limits = Some(Limits { sockets: few(3), ..Limits::DEFAULT });
    })
    .await;
    let begin = async || {
        let mut peer = TcpStream::connect(&hub.address).await.unwrap();
        peer.write_all(b"G").await.unwrap(); // the kernel keeps whoever says nothing for a second
        peer
    };
    let slow = [begin().await, begin().await, begin().await];
    let mut refused = String::new();
    begin().await.read_to_string(&mut refused).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("too-many"), "{refused}");
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut elsewhere = elsewhere.connect(hub.address.parse().unwrap()).await.unwrap();
    elsewhere.write_all(b"GET /health HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    elsewhere.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(slow);
    let is_free = async || hub.get("/health").try_send().await.is_ok_and(|answer| answer.status == 200);
    eventually(is_free, "the places are free").await;
    assert!(met(&hub, "address-connections").await > 0);
}

#[tokio::test]
async fn one_address_opens_so_many_sockets_a_second() {
    let clock = clock();
    let hub = limited(&clock, |limits| limits.opened = few(2)).await;
    for _ in 0..20 {
        assert_eq!(upgrade(&hub, "192.0.2.7").await.status, 101);
    }
    expect_slowed_down(&upgrade(&hub, "192.0.2.7").await, "too-fast");
    assert_eq!(met(&hub, "address-socket-rate").await, 1);
    assert_eq!(upgrade(&hub, "192.0.2.8").await.status, 101);
    clock.advance(Duration::from_millis(500));
    assert_eq!(upgrade(&hub, "192.0.2.7").await.status, 101);
}

#[tokio::test]
async fn one_address_posts_so_often() {
    let clock = clock();
    let hub = limited(&clock, |limits| limits.posts = few(1)).await;
    for last in 0..10 {
        // All of one network, as far as IPv6 tells.
        assert_eq!(post(&hub, &format!("2001:db8:1:2::{last}")).await.status, 202);
    }
    expect_slowed_down(&post(&hub, "2001:db8:1:2:ffff::").await, "too-fast");
    assert_eq!(post(&hub, "2001:db8:1:3::1").await.status, 202);
    assert_eq!(met(&hub, "address-post-rate").await, 1);
    let health = hub.get("/health").header(HEADER, "2001:db8:1:2::1").send().await.expect(200);
    assert!(health["pendingPageViews"].as_u64().unwrap() <= 11, "what was refused was not taken");
    clock.advance(Duration::from_secs(1));
    assert_eq!(post(&hub, "2001:db8:1:2::9").await.status, 202);
}

#[tokio::test]
async fn one_address_reads_so_often_but_for_health_files_and_the_admin() {
    let clock = clock();
    let hub = limited(&clock, |limits| limits.reads = few(1)).await;
    let get = async |path: &str, address: &str| hub.get(path).header(HEADER, address).send().await;
    for path in ["/rooms/lobby", "/live-activity", "/unified-stats", "/metrics", "/nowhere"].repeat(2) {
        assert_ne!(get(path, "192.0.2.7").await.status, 429, "{path}");
    }
    expect_slowed_down(&get("/rooms/lobby", "192.0.2.7").await, "too-fast");
    let erase = || hub.delete("/visitors/eve/data").header(HEADER, "192.0.2.7");
    expect_slowed_down(&erase().send().await, "too-fast");
    assert_eq!(met(&hub, "address-read-rate").await, 2);
    assert_eq!(get("/rooms/lobby", "192.0.2.8").await.status, 200, "others are not slowed down");
    for path in ["/health", "/client/breathing-room.js"] {
        assert_eq!(get(path, "192.0.2.7").await.status, 200, "{path}");
    }
    erase().admin().send().await.expect(200);
    assert_eq!(post(&hub, "192.0.2.7").await.status, 202, "posts have a rate of their own");
    clock.advance(Duration::from_secs(1));
    assert_eq!(get("/rooms/lobby", "192.0.2.7").await.status, 200);
}

#[tokio::test]
async fn one_address_has_so_many_sockets_for_the_live_activity() {
    let hub = limited(&clock(), |limits| limits.live = few(2)).await;
    let listen = async || Member::connect(&format!("ws://{}/live", hub.address)).await.unwrap();
    let (mut first, mut second) = (listen().await, listen().await);
    for viewer in [&mut first, &mut second] {
        assert_eq!(viewer.next().await.unwrap()["type"], "live-activity");
    }
    let ask = || hub.get("/live").upgrade();
    expect_slowed_down(&ask().send().await, "too-many");
    assert_eq!(met(&hub, "address-live-sockets").await, 1);
    assert_eq!(ask().header(HEADER, "192.0.2.7").send().await.status, 101, "it comes from another address");
    let _ann = hub.join("lobby", "ann").await;
    first.leave().await;
    eventually(async || ask().send().await.status == 101, "the place is free").await;
}

async fn join_from(hub: &Hub, address: &str, visitor: &str) -> Member {
    Member::join_saying((HEADER, address), &hub.address, "lobby", &format!("visitor={visitor}")).await
}

async fn watch(member: &mut Member, state: &str, content: &str) {
    let id = Uuid::new_v4();
    let watch = json!({ "type": "watch", "id": id, "content": content, "state": state, "watchedMs": 0 });
    member.tell(watch).await;
}

#[tokio::test]
async fn flood_of_watch_sessions_takes_no_clock_from_another_address() {
    let clock = clock();
    let hub = Hub::with(|config| {
        config.clock = clock.clone();
        config.session.watch_clocks = 10;
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
    })
    .await;
    let mut ann = join_from(&hub, "192.0.2.1", "ann").await;
    watch(&mut ann, "playing", "dawn").await;
    ann.settle().await;
    let mut eve = join_from(&hub, "192.0.2.2", "eve").await;
    for _ in 0..30 {
        watch(&mut eve, "paused", "noise").await;
    }
    eve.settle().await;
    let mut bob = join_from(&hub, "192.0.2.3", "bob").await;
    watch(&mut bob, "playing", "dawn").await;
    bob.settle().await;
    assert_eq!(hub.debug("watchClocks").await, 10);
    assert_eq!(hub.metric("breathing_room_watch_clocks").await, 10.0);
    assert_eq!(met(&hub, "watch-clocks").await, 22, "21 of her own, and one for bob");
    clock.advance(Duration::from_secs(10));
    for member in [ann, bob, eve] {
        member.leave().await;
    }
    hub.flush().await;
    let measured =
        "SELECT json_array(visitor, watched_ms) FROM watch_sessions WHERE watched_ms > 0 ORDER BY visitor";
    assert_eq!(hub.rows(measured).await, [json!(["ann", 10_000]), json!(["bob", 10_000])]);
    assert_eq!(hub.rows("SELECT count(*) FROM watch_sessions").await, [32], "everything is stored");
}

#[tokio::test]
async fn live_state_of_one_address_is_bounded_in_bytes_and_its_events_are_stored() {
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
        eve.settle().await;
        flood.push(eve);
    }
    let mut ann = join_from(&hub, "192.0.2.1", "ann").await;
    ann.view_page(Uuid::new_v4(), "/sunrise").await;
    watch(&mut ann, "playing", "dawn").await;
    ann.settle().await;
    let live = hub.get("/live-activity").send().await.expect(200);
    let counts = ["pages", "watching"].map(|list| live[list].as_array().unwrap().len());
    assert!(counts.iter().all(|count| (2..8).contains(count)), "{counts:?}");
    assert!(live["pages"].as_array().unwrap().contains(&json!({ "path": "/sunrise", "count": 1 })));
    assert!(live["watching"].as_array().unwrap().contains(&json!({ "content": "dawn", "count": 1 })));
    let held = hub.metric("breathing_room_live_state_bytes").await;
    assert!((4.0 * 1024.0..=9.0 * 1024.0).contains(&held), "{held}");
    assert!(met(&hub, "live-state").await > 20);
    hub.flush().await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [21]);
    assert_eq!(hub.rows("SELECT count(*) FROM watch_sessions").await, [21]);
    for eve in flood {
        eve.leave().await;
    }
    ann.leave().await;
    let is_free = async || hub.metric("breathing_room_live_state_bytes").await == 0.0;
    eventually(is_free, "all of it is given back").await;
}

#[tokio::test]
async fn personal_data_in_parallel_leaves_the_dashboard_its_readers() {
    let hub = Hub::start().await;
    hub.see("eve", "/").await;
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..40 {
        let request =
            if n % 2 == 0 { hub.get("/visitors/eve/data") } else { hub.delete("/visitors/bob/data") };
        asking.spawn(request.admin().send());
    }
    for n in 1..5 {
        // Always another question, which no kept answer serves.
        let to = 1_800_000_000_000_u64 + n * 3_600_000;
        hub.get(&format!("/unified-stats?from={}&to={to}", to - 86_400_000)).send().await.expect(200);
    }
    let mut refused = 0;
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap();
        if answer.status == 503 {
            answer.expect_error(503, "overloaded");
            assert_eq!(answer.header("retry-after"), "5");
            refused += 1;
        } else {
            answer.expect(200);
        }
    }
    assert_eq!(met(&hub, "personal-data").await, refused);
    hub.get("/visitors/eve/data").admin().send().await.expect(200);
}

#[tokio::test]
async fn a_header_that_is_not_configured_is_nobodys_address() {
    let hub = Hub::with(|config| {
        config.clock = clock();
        config.transport.limits = Some(Limits { posts: few(1), ..Limits::DEFAULT });
    })
    .await;
    for last in 0..10 {
        assert_eq!(post(&hub, &format!("192.0.2.{last}")).await.status, 202);
    }
    expect_slowed_down(&post(&hub, "192.0.2.99").await, "too-fast");
}

#[tokio::test]
async fn a_flood_of_messages_is_refused_ten_times_and_then_closed() {
    let hub = limited(&clock(), |limits| limits.messages = few(1)).await;
    let mut bob = hub.join("lobby", "bob").await;
    let mut eve = hub.join("lobby", "eve").await;
    bob.expect_present(2).await;
    let reference = eve.view_page(Uuid::new_v4(), "/").await;
    for _ in 0..9 {
        eve.settle().await;
    }
    eve.expect_ack(reference).await;
    for _ in 0..9 {
        let reference = eve.view_page(Uuid::new_v4(), "/").await;
        assert_eq!(eve.expect_error("too-fast").await["ref"], reference);
    }
    eve.set_mood(Some("joy")).await;
    assert_eq!(eve.expect_error("too-fast").await["ref"], Value::Null);
    eve.say(json!({ "type": "hello" })).await;
    assert_eq!(eve.expect_end().await, Ending::Closed(1008));
    bob.expect_present(1).await;
    assert_eq!(bob.moods, json!({}));
    hub.flush().await;
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [1]);
    assert_eq!(met(&hub, "message-rate").await, 11);
}

#[tokio::test]
async fn whoever_slows_down_is_heard_again() {
    let clock = clock();
    let hub = limited(&clock, |limits| limits.messages = few(1)).await;
    let mut ann = hub.join("lobby", "ann").await;
    for _ in 0..10 {
        ann.settle().await;
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
async fn a_flood_is_a_flood_in_pings_and_on_the_live_socket_too() {
    let hub = limited(&clock(), |limits| limits.messages = few(1)).await;
    let mut eve = hub.join("lobby", "eve").await;
    for _ in 0..21 {
        eve.send(Message::Ping(Bytes::new())).await;
    }
    assert_eq!(eve.expect_end().await, Ending::Closed(1008));
    let mut viewer = Member::connect(&format!("ws://{}/live", hub.address)).await.unwrap();
    for _ in 0..21 {
        viewer.say(json!({ "type": "hello" })).await;
    }
    let mut refused = Vec::new();
    let end = loop {
        match viewer.next().await {
            Ok(message) => refused.extend(message["code"].as_str().map(str::to_owned)),
            Err(end) => break end,
        }
    };
    assert_eq!(end, Ending::Closed(1008));
    assert_eq!(refused, [vec!["unknown-type"; 10], vec!["too-fast"; 10]].concat());
}

#[tokio::test]
async fn a_visitor_is_in_so_many_rooms() {
    let hub = Hub::with(|config| config.presence.max_rooms_per_visitor = Some(2)).await;
    let _lobby = hub.join("lobby", "ann").await;
    let garden = hub.join("garden", "ann").await;
    let third = || hub.get("/rooms/attic/socket?visitor=ann").upgrade();
    expect_slowed_down(&third().send().await, "too-many");
    assert_eq!(met(&hub, "visitor-rooms").await, 1);
    let _tab = hub.join("lobby", "ann").await;
    let _bob = hub.join("attic", "bob").await;
    garden.leave().await;
    eventually(async || third().send().await.status == 101, "she may go elsewhere").await;
}

#[tokio::test]
async fn a_class_behind_one_router_joins_and_comes_back_together() {
    let hub = Hub::with(|config| config.clock = clock()).await;
    for _ in 0..2 {
        let mut class = Vec::new();
        for n in 0..300 {
            let mut member = hub.join("class", &format!("v{n}")).await;
            for _ in 0..8 {
                member.view_page(Uuid::new_v4(), "/").await;
            }
            class.push(member);
        }
        for member in &mut class {
            member.expect_ack(8).await;
        }
        class[0].expect_present(300).await;
    }
    assert_eq!(hub.metric("breathing_room_limited_total").await, 0.0);
}

#[tokio::test]
async fn limits_can_be_turned_off() {
    let hub = Hub::with(|config| {
        config.clock = clock();
        config.transport.limits = None;
    })
    .await;
    let mut ann = hub.join("lobby", "ann").await;
    for _ in 0..500 {
        ann.say(json!({ "type": "hello" })).await;
    }
    for _ in 0..500 {
        ann.expect_error("unknown-type").await;
    }
}

#[tokio::test]
async fn whoever_takes_nothing_goes_first_where_much_waits() {
    let change = |config: &mut Config| {
        config.transport.max_bytes_in_flight = 64;
        config.transport.limits = None;
        config.transport.ping_interval = Duration::from_millis(500);
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
    // An empty text message, masked: each is answered, and no answer is read.
    let flood = async { while eve.write_all(&[0x81, 0x80, 0, 0, 0, 0]).await.is_ok() {} };
    tokio::join!(flood, ann.expect_present(1));
    let freed = async {
        assert!(met(&hub, "bytes-in-flight").await > 0);
        hub.expect_debug("connections", 1).await;
    };
    tokio::select! {
        () = freed => {}
        () = ann.read() => panic!("nothing else happens in the room"), // and she answers pings meanwhile
    }
}
