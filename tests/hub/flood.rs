//! Floods of frames, most of them without payload: the hub closes the sender, and others are served meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::{Hub, TIMEOUT, manual_clock};

const UPGRADE: &str = "GET /rooms/lobby/socket HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

// Masked frames without payload.
const TEXT: [u8; 6] = [0x81, 0x80, 0, 0, 0, 0];
const FIRST_FRAGMENT: [u8; 6] = [0x01, 0x80, 0, 0, 0, 0];
const CONTINUATION: [u8; 6] = [0x00, 0x80, 0, 0, 0, 0];
const LAST_FRAGMENT: [u8; 6] = [0x80, 0x80, 0, 0, 0, 0];
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
const BINARY: [u8; 6] = [0x82, 0x80, 0, 0, 0, 0];

/// Opens a socket and sends `first`, and then `frame` again and again. Returns the hub's close code, or none if the hub
/// does not close in time.
fn flood(address: &str, first: &[u8], frame: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    stream.write_all(first).unwrap();
    let (frames, began) = (frame.repeat(1_000), Instant::now());
    while stream.write_all(&frames).is_ok() {
        if began.elapsed() > TIMEOUT {
            return None;
        }
    }
    // A failed write does not discard what the hub has sent before.
    let mut heard = Vec::new();
    for _ in 0..3 {
        let _ = stream.read_to_end(&mut heard);
    }
    let close = heard.windows(2).rposition(|bytes| bytes[0] == 0x88 && bytes[1] >= 2)?;
    Some(u16::from_be_bytes([heard[close + 2], heard[close + 3]]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_empty_frames_is_closed_and_others_are_served() {
    for (first, frame, code) in [
        (FIRST_FRAGMENT, CONTINUATION, 1009),
        (TEXT, PING, 1008),
        (PONG, PONG, 1008),
        (TEXT, TEXT, 1008),
        (BINARY, BINARY, 1003),
    ] {
        let hub = Hub::start().await;
        let (mut ann, mut bob) = (hub.join("garden", "ann").await, hub.join("garden", "bob").await);
        let mut floods = JoinSet::new();
        for _ in 0..4 {
            let address = hub.address.clone();
            floods.spawn_blocking(move || flood(&address, &first, &frame));
        }
        // Others are served during and after the floods.
        let mut responses = 0;
        while !floods.is_empty() {
            for mood in ["calm", "joy"] {
                ann.set_mood(Some(mood)).await;
                bob.expect_moods(serde_json::json!({ mood: 1 })).await;
            }
            hub.get("/health").send().await.expect(200);
            responses += 1;
            while let Some(closed) = floods.try_join_next() {
                assert_eq!(closed.unwrap(), Some(code), "{frame:x?} after {responses} answers");
            }
            tokio::time::sleep(Duration::from_millis(200)).await; // stays below the message rate
        }
        ann.round_trip().await;
    }
}

#[tokio::test]
async fn message_of_more_than_64_frames_is_closed_with_1009() {
    let hub = Hub::start().await;
    let mut eve = hub.join("lobby", "eve").await;
    let whole =
        |continuations| [&FIRST_FRAGMENT[..], &CONTINUATION.repeat(continuations), &LAST_FRAGMENT].concat();
    eve.write_bytes(&[whole(62), whole(63)].concat()).await;
    eve.expect_error("bad-json").await; // the empty message of 64 frames
    assert_eq!(eve.expect_close().await, (1009, "a message is at most 4096 bytes".to_owned()));
    assert_eq!(hub.metric("breathing_room_limited_total{reason=\"message-frames\"}").await, 1.0);
}

#[tokio::test]
async fn frame_rate_limit_closes_with_1008() {
    let clock = manual_clock();
    let hub = Hub::with(|config| config.clock = clock.clone()).await;
    let mut eve = hub.join("lobby", "eve").await;
    let message = [&FIRST_FRAGMENT[..], &CONTINUATION.repeat(62), &LAST_FRAGMENT].concat();
    // The clock does not move: the frame rate is reached long before the message rate.
    let mut accepted = 0;
    let closed = loop {
        eve.write_bytes(&message).await;
        match eve.next().await {
            Ok(rejected) => assert_eq!(rejected["code"], "bad-json"),
            Err(_) => break eve.expect_close().await,
        }
        accepted += 1;
    };
    assert_eq!(closed, (1008, "rate-limit".to_owned()));
    assert!((25..=51).contains(&accepted), "{accepted} messages of 64 frames");
    assert_eq!(hub.metric("breathing_room_limited_total{reason=\"frame-rate\"}").await, 1.0);
    assert_eq!(hub.metric("breathing_room_limited_total{reason=\"message-rate\"}").await, 0.0);
}

#[tokio::test]
async fn longest_messages_at_the_message_rate_are_accepted() {
    let clock = manual_clock();
    let hub = Hub::with(|config| config.clock = clock.clone()).await;
    let mut ann = hub.join("lobby", "ann").await;
    let longest = format!("[{}]", " ".repeat(4_094));
    for _ in 0..200 {
        ann.send_text(&longest).await;
    }
    for _ in 0..200 {
        ann.expect_error("bad-json").await;
    }
    for _ in 0..100 {
        clock.advance(Duration::from_millis(50));
        ann.send_text(&longest).await;
        ann.expect_error("bad-json").await;
    }
}
