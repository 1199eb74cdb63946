//! The kinds of hostile peers, and how many of each come how fast.
//!
//! The rates are what two cores can take that the hub shares with the tool: what is looked at is whether the hub
//! bounds what each of them costs, and not how much of a machine a flood can fill. Those that stay come first, so
//! that from one address they have their places before the others fill it up.

use std::time::Duration;

use super::payloads::{
    CHUNK, SHORT, answer_as_path, bot, chunked, empty_frames, frame, get, handshake, listener, long_activity,
    long_names, long_page_view, long_post, malformed, new_question, new_watch, one_byte_chunks, own_data,
    page_view, post, refused_join, socket, unended, with_pings,
};
use crate::websocket::{PONG, TEXT};

/// One kind of hostile peer.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// What the n-th peer of this kind says at once.
    pub(super) says: fn(u32) -> Vec<u8>,
    pub(super) then: Then,
    pub(super) reads: Reads,
    /// So many come at once, each time this has passed.
    pub(super) come: (u32, Duration),
    /// No more than so many are open.
    pub(super) most: usize,
    /// It ends by itself after this.
    pub(super) life: Duration,
}

/// What a peer does when it has said what it says.
pub(super) enum Then {
    /// Waits for its end.
    Wait,
    /// The n-th says this so often a second.
    Repeat(fn(u32) -> Vec<u8>, u32),
    /// Says this as fast as the hub takes it.
    Flood(fn() -> Vec<u8>),
}

/// How a peer takes what the hub sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    All,
    /// So many bytes at most, fifty times a second.
    Slowly(usize),
    Nothing,
}

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_hours(1);
const TICK: Duration = Duration::from_millis(20);

/// A peer that reads, waits, and stays until the hub ends it.
const PEER: Attack = Attack {
    name: "",
    says: |_| Vec::new(),
    then: Then::Wait,
    reads: Reads::All,
    come: (1, SECOND),
    most: 5_000,
    life: LONG,
};

/// A pong each second, so that the sweep hears a peer that answers no ping.
const PONGS: Then = Then::Repeat(|_| frame(PONG, b""), 1);

pub(super) static ATTACKS: &[Attack] = &[
    Attack {
        name: "empty continuations without end",
        says: unended,
        then: Then::Flood(|| empty_frames(0x00)),
        come: (4, SECOND),
        most: 4,
        ..PEER
    },
    Attack {
        name: "empty messages without end",
        says: socket,
        then: Then::Flood(|| empty_frames(0x81)),
        come: (4, SECOND),
        most: 4,
        ..PEER
    },
    Attack {
        name: "empty pings without end",
        says: socket,
        then: Then::Flood(|| empty_frames(0x89)),
        come: (4, SECOND),
        most: 4,
        ..PEER
    },
    Attack {
        name: "empty pongs without end",
        says: socket,
        then: Then::Flood(|| empty_frames(0x8a)),
        come: (4, SECOND),
        most: 4,
        ..PEER
    },
    Attack {
        name: "paths that look like an answer",
        says: socket,
        then: Then::Repeat(|_| answer_as_path(), 1),
        come: (10, TICK),
        most: 100,
        ..PEER
    },
    Attack {
        name: "pipelined `/live-activity`, read slowly",
        then: Then::Repeat(|_| get("/live-activity").repeat(10), 20),
        reads: Reads::Slowly(2_048),
        come: (5, SECOND),
        most: 20,
        ..PEER
    },
    Attack {
        name: "new watch sessions, paused",
        says: socket,
        then: Then::Repeat(|_| new_watch(&["paused"]), 19),
        come: (10, TICK),
        most: 300,
        ..PEER
    },
    Attack {
        name: "new watch sessions, played and ended",
        says: socket,
        then: Then::Repeat(|_| new_watch(&["playing", "ended"]), 9),
        come: (10, TICK),
        most: 50,
        ..PEER
    },
    Attack {
        name: "rooms, pages and contents with long names",
        says: long_names,
        then: Then::Repeat(long_activity, 1),
        come: (10, TICK),
        most: 100,
        ..PEER
    },
    Attack { name: "`/live` listeners", says: listener, then: PONGS, come: (4, TICK), most: 700, ..PEER },
    Attack {
        name: "page views of 3.6 KB",
        says: socket,
        then: Then::Repeat(|_| long_page_view(), 19),
        come: (5, TICK),
        most: 50,
        ..PEER
    },
    Attack {
        name: "posts of 64 KB of them",
        then: Then::Repeat(long_post, 10),
        come: (10, SECOND),
        most: 10,
        ..PEER
    },
    Attack {
        name: "posts of 100 page views",
        then: Then::Repeat(|n| post(n, 100, SHORT, "", ""), 10),
        come: (10, SECOND),
        most: 10,
        ..PEER
    },
    Attack {
        name: "durable posts",
        then: Then::Repeat(|n| post(n, 1, SHORT, "?durable=true", ""), 5),
        come: (10, SECOND),
        most: 10,
        ..PEER
    },
    Attack {
        name: "posts from a page of another origin",
        then: Then::Repeat(|n| post(n, 1, SHORT, "", "Origin: https://evil.example\r\n"), 10),
        come: (5, SECOND),
        most: 5,
        ..PEER
    },
    Attack {
        name: "own data, asked for",
        then: Then::Repeat(|n| own_data("GET", n), 20),
        come: (4, SECOND),
        most: 4,
        ..PEER
    },
    Attack {
        name: "own data, erased",
        then: Then::Repeat(|n| own_data("DELETE", n + 4), 20),
        come: (4, SECOND),
        most: 4,
        ..PEER
    },
    Attack {
        name: "bodies in chunks of one byte",
        then: Then::Repeat(one_byte_chunks, 5),
        come: (4, SECOND),
        most: 4,
        ..PEER
    },
    Attack { name: "bodies that never come", says: chunked, come: (2, TICK), most: 1_500, ..PEER },
    Attack {
        name: "bodies of a byte a second",
        says: chunked,
        then: Then::Repeat(|_| CHUNK.to_vec(), 1),
        come: (2, TICK),
        most: 1_500,
        ..PEER
    },
    Attack { name: "joins with a bad token", says: refused_join, come: (1, TICK), life: SECOND, ..PEER },
    Attack {
        name: "messages at full speed, until closed",
        says: socket,
        then: Then::Repeat(|_| frame(TEXT, br#"{"type":"mood","mood":"joy"}"#), 500),
        come: (20, SECOND),
        ..PEER
    },
    Attack {
        name: "page views, as fast as allowed",
        says: socket,
        then: Then::Repeat(|_| page_view(), 19),
        come: (5, SECOND),
        most: 50,
        ..PEER
    },
    Attack {
        name: "posts",
        then: Then::Repeat(|n| post(n, 1, SHORT, "", ""), 4),
        come: (5, SECOND),
        most: 10,
        ..PEER
    },
    Attack {
        name: "questions",
        then: Then::Repeat(|_| get("/live-activity"), 30),
        come: (2, SECOND),
        most: 10,
        ..PEER
    },
    Attack {
        name: "questions about the history, each a new one",
        then: Then::Repeat(|_| new_question(), 10),
        come: (2, SECOND),
        most: 10,
        ..PEER
    },
    Attack { name: "connections that break at once", come: (10, TICK), life: Duration::ZERO, ..PEER },
    Attack { name: "connections without a word", come: (20, Duration::from_millis(50)), ..PEER },
    Attack {
        name: "sockets, as many as allowed",
        says: socket,
        come: (10, Duration::from_millis(50)),
        ..PEER
    },
    Attack {
        name: "bots in the good rooms that never read",
        says: |n| with_pings(&bot(n)),
        then: PONGS,
        reads: Reads::Nothing,
        come: (10, SECOND),
        most: 200,
        ..PEER
    },
    Attack {
        name: "messages byte by byte",
        says: |n| [socket(n), vec![0x81, 0xfe, 0x0f, 0xa0, 1, 2, 3, 4]].concat(),
        then: Then::Repeat(|_| vec![b'x'], 1),
        come: (10, SECOND),
        ..PEER
    },
    Attack {
        name: "messages that never end, with pongs",
        says: |n| [socket(n), vec![0x01, 0x81, 0, 0, 0, 0, b'{']].concat(),
        then: PONGS,
        come: (10, SECOND),
        ..PEER
    },
    Attack {
        name: "malformed frames",
        says: malformed,
        come: (10, Duration::from_millis(100)),
        life: SECOND,
        ..PEER
    },
    Attack {
        name: "broken and deep JSON",
        says: socket,
        then: Then::Repeat(|_| [frame(TEXT, b"{\"type\":"), frame(TEXT, &b"[".repeat(4_000))].concat(), 9),
        come: (2, SECOND),
        most: 20,
        ..PEER
    },
    Attack { name: "half-open sockets", says: socket, reads: Reads::Nothing, come: (15, SECOND), ..PEER },
    Attack {
        name: "reconnect storms, 300 at once",
        says: socket,
        come: (300, Duration::from_secs(5)),
        life: Duration::from_millis(500),
        ..PEER
    },
    Attack {
        name: "bad handshakes",
        says: handshake,
        come: (10, Duration::from_millis(100)),
        life: SECOND,
        ..PEER
    },
    Attack {
        name: "huge heads",
        says: |_| format!("GET / HTTP/1.1\r\nHost: hub\r\nX: {}", "x".repeat(20_000)).into_bytes(),
        come: (2, Duration::from_millis(100)),
        ..PEER
    },
    Attack {
        name: "heads byte by byte",
        says: |_| b"GET / HTTP/1.1\r\nHost: hub\r\nX: ".to_vec(),
        then: Then::Repeat(|_| vec![b'x'], 1),
        come: (3, Duration::from_millis(100)),
        ..PEER
    },
    Attack {
        name: "answers that nobody takes",
        says: |_| get("/unified-stats?range=7d").repeat(20),
        reads: Reads::Nothing,
        come: (1, Duration::from_millis(200)),
        ..PEER
    },
];
