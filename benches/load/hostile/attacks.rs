//! The kinds of attacks, with the number and the rate of their peers.
//!
//! The rates fit two cores that the hub shares with the tool: the benchmark checks that the hub bounds the cost of
//! each peer, not how much of a machine a flood can fill. Peers that stay connected come first, so that they are
//! admitted before the other peers of their address exhaust its limits.

use std::time::Duration;

use super::payloads::{
    CHUNK, SHORT, bad_token_join, bot, chunked, empty_frames, endless, frame, get, handshake, listener,
    long_activity, long_names, long_page_view, long_post, malformed, new_query, new_watch, one_byte_chunks,
    own_data, page_view, post, response_as_path, socket, with_pings,
};
use crate::websocket::{PONG, TEXT};

/// One kind of attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// What the n-th peer sends when it connects.
    pub(super) opening: fn(u32) -> Vec<u8>,
    pub(super) then: Then,
    pub(super) reads: Reads,
    /// How many peers connect at once, and the interval.
    pub(super) arrivals: (u32, Duration),
    /// The maximum number of open peers.
    pub(super) max_open: usize,
    /// A peer disconnects after this time.
    pub(super) lifetime: Duration,
}

/// What a peer sends after its opening.
pub(super) enum Then {
    /// Nothing.
    Wait,
    /// What the n-th peer repeats, and how often a second.
    Repeat(fn(u32) -> Vec<u8>, u32),
    /// What a peer sends as fast as its socket accepts it.
    Flood(fn() -> Vec<u8>),
}

/// How a peer reads what the hub sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    All,
    /// At most this many bytes, 50 times a second.
    Slowly(usize),
    Nothing,
}

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_hours(1);
const TICK: Duration = Duration::from_millis(20);

/// The defaults: a peer that reads, sends nothing, and stays until the hub closes it.
pub(super) const PEER: Attack = Attack {
    name: "",
    opening: |_| Vec::new(),
    then: Then::Wait,
    reads: Reads::All,
    arrivals: (1, SECOND),
    max_open: 5_000,
    lifetime: LONG,
};

/// A pong each second: the liveness sweep counts it, though the peer answers no ping.
const PONGS: Then = Then::Repeat(|_| frame(PONG, b""), 1);

pub(super) static ATTACKS: &[Attack] = &[
    Attack {
        name: "endless empty continuations",
        opening: endless,
        then: Then::Flood(|| empty_frames(0x00)),
        arrivals: (4, SECOND),
        max_open: 4,
        ..PEER
    },
    Attack {
        name: "endless empty messages",
        opening: socket,
        then: Then::Flood(|| empty_frames(0x81)),
        arrivals: (4, SECOND),
        max_open: 4,
        ..PEER
    },
    Attack {
        name: "endless empty pings",
        opening: socket,
        then: Then::Flood(|| empty_frames(0x89)),
        arrivals: (4, SECOND),
        max_open: 4,
        ..PEER
    },
    Attack {
        name: "endless empty pongs",
        opening: socket,
        then: Then::Flood(|| empty_frames(0x8a)),
        arrivals: (4, SECOND),
        max_open: 4,
        ..PEER
    },
    Attack {
        name: "paths that look like an HTTP response",
        opening: socket,
        then: Then::Repeat(|_| response_as_path(), 1),
        arrivals: (10, TICK),
        max_open: 100,
        ..PEER
    },
    Attack {
        name: "pipelined `/live-activity`, read slowly",
        then: Then::Repeat(|_| get("/live-activity").repeat(10), 20),
        reads: Reads::Slowly(2_048),
        arrivals: (5, SECOND),
        max_open: 20,
        ..PEER
    },
    Attack {
        name: "new watch sessions, paused",
        opening: socket,
        then: Then::Repeat(|_| new_watch(&["paused"]), 19),
        arrivals: (10, TICK),
        max_open: 300,
        ..PEER
    },
    Attack {
        name: "new watch sessions, playing and ended",
        opening: socket,
        then: Then::Repeat(|_| new_watch(&["playing", "ended"]), 9),
        arrivals: (10, TICK),
        max_open: 50,
        ..PEER
    },
    Attack {
        name: "rooms, pages and contents with long names",
        opening: long_names,
        then: Then::Repeat(long_activity, 1),
        arrivals: (10, TICK),
        max_open: 100,
        ..PEER
    },
    Attack {
        name: "`/live` listeners",
        opening: listener,
        then: PONGS,
        arrivals: (4, TICK),
        max_open: 700,
        ..PEER
    },
    Attack {
        name: "page views of 3.6 KB",
        opening: socket,
        then: Then::Repeat(|_| long_page_view(), 19),
        arrivals: (5, TICK),
        max_open: 50,
        ..PEER
    },
    Attack {
        name: "posts of 64 KB of page views",
        then: Then::Repeat(long_post, 10),
        arrivals: (10, SECOND),
        max_open: 10,
        ..PEER
    },
    Attack {
        name: "posts of 100 page views",
        then: Then::Repeat(|n| post(n, 100, SHORT, "", ""), 10),
        arrivals: (10, SECOND),
        max_open: 10,
        ..PEER
    },
    Attack {
        name: "durable posts",
        then: Then::Repeat(|n| post(n, 1, SHORT, "?durable=true", ""), 5),
        arrivals: (10, SECOND),
        max_open: 10,
        ..PEER
    },
    Attack {
        name: "posts from a page of another origin",
        then: Then::Repeat(|n| post(n, 1, SHORT, "", "Origin: https://evil.example\r\n"), 10),
        arrivals: (5, SECOND),
        max_open: 5,
        ..PEER
    },
    Attack {
        name: "own data, requested",
        then: Then::Repeat(|n| own_data("GET", n), 20),
        arrivals: (4, SECOND),
        max_open: 4,
        ..PEER
    },
    Attack {
        name: "own data, erased",
        then: Then::Repeat(|n| own_data("DELETE", n + 4), 20),
        arrivals: (4, SECOND),
        max_open: 4,
        ..PEER
    },
    Attack {
        name: "bodies in chunks of one byte",
        then: Then::Repeat(one_byte_chunks, 5),
        arrivals: (4, SECOND),
        max_open: 4,
        ..PEER
    },
    Attack {
        name: "bodies that never arrive",
        opening: chunked,
        arrivals: (2, TICK),
        max_open: 1_500,
        ..PEER
    },
    Attack {
        name: "bodies of a byte a second",
        opening: chunked,
        then: Then::Repeat(|_| CHUNK.to_vec(), 1),
        arrivals: (2, TICK),
        max_open: 1_500,
        ..PEER
    },
    Attack {
        name: "joins with a bad token",
        opening: bad_token_join,
        arrivals: (1, TICK),
        lifetime: SECOND,
        ..PEER
    },
    Attack {
        name: "messages at full speed, until closed",
        opening: socket,
        then: Then::Repeat(|_| frame(TEXT, br#"{"type":"mood","mood":"joy"}"#), 500),
        arrivals: (20, SECOND),
        ..PEER
    },
    Attack {
        name: "page views at the rate limit",
        opening: socket,
        then: Then::Repeat(|_| page_view(), 19),
        arrivals: (5, SECOND),
        max_open: 50,
        ..PEER
    },
    Attack {
        name: "posts",
        then: Then::Repeat(|n| post(n, 1, SHORT, "", ""), 4),
        arrivals: (5, SECOND),
        max_open: 10,
        ..PEER
    },
    Attack {
        name: "`/live-activity` requests",
        then: Then::Repeat(|_| get("/live-activity"), 30),
        arrivals: (2, SECOND),
        max_open: 10,
        ..PEER
    },
    Attack {
        name: "history queries, all different",
        then: Then::Repeat(|_| new_query(), 10),
        arrivals: (2, SECOND),
        max_open: 10,
        ..PEER
    },
    Attack { name: "connections that close at once", arrivals: (10, TICK), lifetime: Duration::ZERO, ..PEER },
    Attack { name: "silent connections", arrivals: (20, Duration::from_millis(50)), ..PEER },
    Attack {
        name: "as many sockets as allowed",
        opening: socket,
        arrivals: (10, Duration::from_millis(50)),
        ..PEER
    },
    Attack {
        name: "bots in the honest rooms that never read",
        opening: |n| with_pings(&bot(n)),
        then: PONGS,
        reads: Reads::Nothing,
        arrivals: (10, SECOND),
        max_open: 200,
        ..PEER
    },
    Attack {
        name: "messages byte by byte",
        opening: |n| [socket(n), vec![0x81, 0xfe, 0x0f, 0xa0, 1, 2, 3, 4]].concat(),
        then: Then::Repeat(|_| vec![b'x'], 1),
        arrivals: (10, SECOND),
        ..PEER
    },
    Attack {
        name: "messages that never end, with pongs",
        opening: |n| [socket(n), vec![0x01, 0x81, 0, 0, 0, 0, b'{']].concat(),
        then: PONGS,
        arrivals: (10, SECOND),
        ..PEER
    },
    Attack {
        name: "malformed frames",
        opening: malformed,
        arrivals: (10, Duration::from_millis(100)),
        lifetime: SECOND,
        ..PEER
    },
    Attack {
        name: "broken and deep JSON",
        opening: socket,
        then: Then::Repeat(|_| [frame(TEXT, b"{\"type\":"), frame(TEXT, &b"[".repeat(4_000))].concat(), 9),
        arrivals: (2, SECOND),
        max_open: 20,
        ..PEER
    },
    Attack {
        name: "half-open sockets",
        opening: socket,
        reads: Reads::Nothing,
        arrivals: (15, SECOND),
        ..PEER
    },
    Attack {
        name: "reconnect storms of 300",
        opening: socket,
        arrivals: (300, Duration::from_secs(5)),
        lifetime: Duration::from_millis(500),
        ..PEER
    },
    Attack {
        name: "bad handshakes",
        opening: handshake,
        arrivals: (10, Duration::from_millis(100)),
        lifetime: SECOND,
        ..PEER
    },
    Attack {
        name: "huge request heads",
        opening: |_| format!("GET / HTTP/1.1\r\nHost: hub\r\nX: {}", "x".repeat(20_000)).into_bytes(),
        arrivals: (2, Duration::from_millis(100)),
        ..PEER
    },
    Attack {
        name: "request heads byte by byte",
        opening: |_| b"GET / HTTP/1.1\r\nHost: hub\r\nX: ".to_vec(),
        then: Then::Repeat(|_| vec![b'x'], 1),
        arrivals: (3, Duration::from_millis(100)),
        ..PEER
    },
    Attack {
        name: "responses that are not read",
        opening: |_| get("/unified-stats?range=7d").repeat(20),
        reads: Reads::Nothing,
        arrivals: (1, Duration::from_millis(200)),
        ..PEER
    },
];
