//! Invalid input of every kind: the hub responds as the protocol says, and nothing else changes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::support::client::Disconnect;
use crate::support::{Client, Hub, eventually};

/// A hub with two clients in the lobby and one queued page view.
async fn hub_with_two_clients() -> (Hub, Client, Client) {
    let hub = Hub::with(|config| config.history.flush_interval = Duration::from_hours(1)).await;
    let mut bob = hub.join_with_mood("lobby", "bob", "calm").await;
    let mut ann = hub.join_with_mood("lobby", "ann", "joy").await;
    bob.expect_present(2).await;
    ann.view_page(Uuid::new_v4(), "/before").await;
    ann.round_trip().await;
    (hub, ann, bob)
}

async fn expect_unchanged(hub: &Hub) {
    let room = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&room["present"], &room["moods"]), (&json!(2), &json!({ "calm": 1, "joy": 1 })));
    let health = hub.get("/health").send().await.expect(200);
    assert_eq!((&health["pendingPageViews"], &health["pendingWatchSessions"]), (&json!(1), &json!(0)));
    let live = hub.get("/live-activity").send().await.expect(200);
    assert_eq!(live["pages"], json!([{ "path": "/before", "count": 1 }]));
    assert_eq!(live["sessions"], 2);
}

#[tokio::test]
async fn invalid_messages_are_rejected_and_change_nothing() {
    let (hub, mut ann, _bob) = hub_with_two_clients().await;
    let id = Uuid::new_v4();
    let cases: Vec<(String, &str, &str)> = vec![
        ("{".into(), "bad-json", ""),
        ("[]".into(), "bad-json", ""),
        ("hello".into(), "bad-json", ""),
        (json!({ "type": "heartbeat" }).to_string(), "unknown-type", "type"),
        (json!({ "type": "mood" }).to_string(), "bad-field", "mood"),
        (json!({ "type": "mood", "mood": 5 }).to_string(), "bad-field", "mood"),
        (json!({ "type": "mood", "mood": "furious" }).to_string(), "unknown-mood", "mood"),
        (json!({ "type": "mood", "mood": "" }).to_string(), "unknown-mood", "mood"),
        (json!({ "mood": "calm" }).to_string(), "bad-field", "type"),
        (json!({ "type": "page-view", "ref": 50, "path": "/" }).to_string(), "bad-field", "id"),
        (json!({ "type": "page-view", "ref": 50, "id": "7", "path": "/" }).to_string(), "bad-field", "id"),
        (json!({ "type": "page-view", "ref": 50, "id": id }).to_string(), "bad-field", "path"),
        (json!({ "type": "page-view", "ref": 50, "id": id, "path": "x".repeat(513) }).to_string(), "bad-field", "path"),
        (json!({ "type": "page-view", "ref": 50, "id": id, "path": "/", "title": "x".repeat(1025) }).to_string(), "bad-field", "title"),
        (json!({ "type": "page-view", "ref": 50, "id": id, "path": "/", "referrer": 1 }).to_string(), "bad-field", "referrer"),
        (json!({ "type": "page-view", "ref": 50, "id": id, "path": "/", "at": "now" }).to_string(), "bad-field", "at"),
        (json!({ "type": "page-view", "ref": 50, "id": id, "path": "/", "props": { "a": { } } }).to_string(), "bad-field", "props"),
        (json!({ "type": "page-view", "ref": 50, "id": id, "path": "/", "props": { "a": "x".repeat(1024) } }).to_string(), "bad-field", "props"),
        (json!({ "type": "watch", "ref": 50, "id": id, "content": "c", "state": "playing" }).to_string(), "bad-field", "watchedMs"),
        (json!({ "type": "watch", "ref": 50, "id": id, "content": "c", "state": "gone", "watchedMs": 1 }).to_string(), "bad-field", "state"),
        (json!({ "type": "watch", "ref": 50, "id": id, "content": "", "state": "ended", "watchedMs": 1 }).to_string(), "bad-field", "content"),
        (json!({ "type": "watch", "ref": 50, "id": id, "content": "c", "state": "ended", "watchedMs": -1 }).to_string(), "bad-field", "watchedMs"),
    ];
    for (text, code, field) in cases {
        ann.send_text(&text).await;
        let error = ann.expect_error(code).await;
        assert!(error["message"].as_str().unwrap().contains(field), "{text}: {error}");
        if text.contains("\"ref\":50") {
            assert_eq!(error["ref"], 50, "{text}");
        } else {
            assert_eq!(error.get("ref"), None, "{text}");
        }
    }
    expect_unchanged(&hub).await;
    // The socket still works, and values of the maximum length are accepted.
    let longest = json!({ "type": "page-view", "ref": 50, "id": id, "path": "x".repeat(512), "title": "x".repeat(1024),
        "referrer": "x".repeat(1024), "props": { "a": "x".repeat(1016) } });
    ann.send_json(longest).await;
    hub.flush().await;
    ann.expect_ack(50).await;
}

#[tokio::test]
async fn message_of_4096_bytes_is_accepted_and_4097_bytes_close_with_1009() {
    let (hub, mut ann, _bob) = hub_with_two_clients().await;
    let padded = |length: usize| {
        let empty = json!({ "type": "mood", "mood": "joy", "x": "" }).to_string();
        json!({ "type": "mood", "mood": "joy", "x": "x".repeat(length - empty.len()) }).to_string()
    };
    ann.send_text(&padded(4096)).await;
    ann.round_trip().await;
    let mut eve = hub.join("garden", "eve").await;
    eve.send_text(&padded(4097)).await;
    assert_eq!(eve.expect_disconnect().await, Disconnect::Closed(1009));
    hub.expect_debug("sessions", 2).await;
    expect_unchanged(&hub).await;
}

#[tokio::test]
async fn binary_invalid_utf8_and_protocol_errors_close_with_their_codes() {
    let (hub, _ann, _bob) = hub_with_two_clients().await;
    let mask = [0_u8; 4];
    let masked = |head: &[u8], payload: &[u8]| [head, &mask, payload].concat();
    let cases = [
        (masked(&[0x81, 0x82], &[0xff, 0xfe]), 1007),
        (masked(&[0x83, 0x80], &[]), 1002),     // a reserved opcode
        (masked(&[0xc1, 0x80], &[]), 1002),     // a reserved bit
        (masked(&[0x80, 0x80], &[]), 1002),     // a continuation without a first fragment
        (masked(&[0x09, 0x80], &[]), 1002),     // a fragmented ping
        (vec![0x81, 0x02, b'{', b'}'], 1002),   // not masked
        (masked(&[0x88, 0x81], &[0x03]), 1002), // half a close code
        (masked(&[0x81, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0], &[]), 1009), // the header of a frame of 4 GiB
    ];
    for (bytes, code) in cases {
        let mut eve = hub.join("garden", "eve").await;
        eve.write_bytes(&bytes).await;
        assert_eq!(eve.expect_disconnect().await, Disconnect::Closed(code), "{bytes:x?}");
    }
    let mut eve = hub.join("garden", "eve").await;
    eve.send(Message::Binary(vec![1, 2, 3].into())).await;
    assert_eq!(eve.expect_disconnect().await, Disconnect::Closed(1003));
    hub.expect_debug("sessions", 2).await;
    expect_unchanged(&hub).await;
}

#[tokio::test]
async fn close_frame_reaches_a_client_that_keeps_sending() {
    let (hub, _ann, _bob) = hub_with_two_clients().await;
    let mut eve = hub.join("garden", "eve").await;
    eve.send_text(&"x".repeat(200_000)).await; // most of it is in flight when the hub closes
    assert_eq!(eve.expect_disconnect().await, Disconnect::Closed(1009));
}

#[tokio::test]
async fn rejected_upgrade_gets_an_http_error() {
    let (hub, _ann, _bob) = hub_with_two_clients().await;
    let socket = |rest: &str| hub.get(&format!("/rooms/{rest}"));
    let plain = socket("lobby/socket").send().await;
    plain.expect_error(426, "upgrade-required");
    assert_eq!((plain.header("upgrade"), plain.header("sec-websocket-version")), ("", "13"));
    let without = |name: &'static str| socket("lobby/socket").upgrade().without(name);
    without("upgrade").send().await.expect_error(426, "upgrade-required");
    without("connection").send().await.expect_error(426, "upgrade-required");
    without("sec-websocket-version").send().await.expect_error(426, "upgrade-required");
    without("sec-websocket-key").send().await.expect_error(400, "bad-upgrade");
    for (address, code) in [
        ("Lobby/socket", "bad-room"),
        ("-lobby/socket", "bad-room"),
        ("%ff/socket", "bad-room"),
        (&*format!("{}/socket", "a".repeat(65)), "bad-room"),
        ("lobby/socket?visitor=", "bad-visitor"),
        ("lobby/socket?visitor=a%20b", "bad-visitor"),
        (&*format!("lobby/socket?visitor={}", "a".repeat(65)), "bad-visitor"),
        ("lobby/socket?mood=furious", "unknown-mood"),
        ("lobby/socket?visitor=a&visitor=b", "bad-parameter"),
    ] {
        socket(address).upgrade().send().await.expect_error(400, code);
    }
    assert_eq!(hub.debug("connections").await, 2);
    expect_unchanged(&hub).await;
}

#[tokio::test]
async fn invalid_requests_get_json_errors() {
    let (hub, _ann, _bob) = hub_with_two_clients().await;
    hub.get("/nowhere").send().await.expect_error(404, "not-found");
    hub.get("/rooms/lobby/unknown").send().await.expect_error(404, "not-found");
    hub.get("/rooms/Lobby").send().await.expect_error(400, "bad-room");
    let method = hub.post("/health").send().await;
    method.expect_error(405, "method-not-allowed");
    assert_eq!(method.header("allow"), "GET,HEAD");
    let method = hub.get("/page-view").send().await;
    method.expect_error(405, "method-not-allowed");
    assert_eq!(method.header("allow"), "POST");
    for query in ["range=1y", "range=", "room=Lobby", "range=24h&range=7d"] {
        assert_eq!(hub.get(&format!("/unified-stats?{query}")).send().await.status, 400, "{query}");
    }
    let post =
        |body: &str| hub.post("/page-view").header("content-type", "application/json").body(body.to_owned());
    post("{").send().await.expect_error(400, "bad-json");
    post("").send().await.expect_error(400, "bad-json");
    post("{}").send().await.expect_error(400, "bad-field");
    hub.post("/page-view?durable=maybe").json(&json!({})).send().await.expect_error(400, "bad-parameter");
    hub.post("/page-view")
        .header("content-type", "application/json")
        .body(vec![0xff])
        .send()
        .await
        .expect_error(400, "bad-json");
    hub.post("/page-view")
        .header("content-type", "image/png")
        .body("{}")
        .send()
        .await
        .expect_error(415, "unsupported-media-type");
    post(&" ".repeat(65_537)).send().await.expect_error(413, "too-large");
    let gone: Value = hub.post("/presence").send().await.expect(410);
    assert!(gone["error"]["message"].as_str().unwrap().contains("/rooms/{room}/socket"), "{gone}");
    expect_unchanged(&hub).await;
}

#[tokio::test]
async fn admin_routes_reject_requests_without_the_admin_token() {
    let hub = Hub::with(|config| {
        config.http.metrics = breathing_room::config::Access::Admin;
    })
    .await;
    let routes = [("POST", "/flush"), ("POST", "/init-db"), ("GET", "/debug"), ("GET", "/metrics")];
    for (method, path) in routes {
        let request = || crate::support::Request::new(&hub.address, method, path);
        let response = request().send().await;
        response.expect_error(401, "unauthorized");
        assert_eq!(response.header("www-authenticate"), "Bearer");
        request().header("authorization", "Bearer wrong").send().await.expect_error(401, "unauthorized");
        assert_eq!(request().admin().send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn backpressure_stops_reading_from_a_client_that_does_not_read() {
    let hub = Hub::with(|config| config.transport.limits = None).await;
    let (mut bob, _ann) = (hub.join("lobby", "bob").await, hub.join("lobby", "ann").await);
    bob.expect_present(2).await;
    let mut flooder = hub.join("garden", "eve").await;
    // Each message causes an error, which the client does not read: at some point the hub stops reading.
    let flood = async {
        for _ in 0..200_000 {
            flooder.send_text("{").await;
        }
    };
    let stuck = tokio::time::timeout(Duration::from_secs(3), flood).await.is_err();
    let rejected = hub.metric("breathing_room_refused_total").await;
    assert!(stuck || rejected < 200_000.0, "the hub read all messages: {rejected}");
    expect_sessions(&hub, 3).await;
}

async fn expect_sessions(hub: &Hub, sessions: u64) {
    assert_eq!(hub.debug("sessions").await, sessions);
    let room = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!(room["present"], 2);
}

#[tokio::test]
async fn incomplete_request_head_is_closed_after_the_timeout() {
    let hub = Hub::start().await;
    let mut stream = TcpStream::connect(&hub.address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut response = Vec::new();
    let ended = tokio::time::timeout(crate::support::TIMEOUT, stream.read_to_end(&mut response)).await;
    assert!(ended.is_ok(), "the connection is closed");
    eventually(async || hub.get("/health").send().await.status == 200, "the hub works").await;
}
