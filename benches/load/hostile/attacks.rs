//! The kinds of hostile peers, and how many of each come how fast.
//!
//! The rates are what two cores can take that the hub shares with the tool: what is looked at is whether the hub
//! bounds what each of them costs, and not how much of a machine a flood can fill.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use uuid::Uuid;

use crate::wire::{self, BINARY, CLOSE, PING, PONG, TEXT};

use super::good::ROOMS;

/// One kind of hostile peer.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// What the n-th peer of this kind says at once.
    pub(super) says: fn(u32) -> Vec<u8>,
    pub(super) then: Then,
    /// Otherwise it reads nothing, ever.
    pub(super) reads: bool,
    /// So many come at once, each time this has passed.
    pub(super) come: (u32, Duration),
    /// No more than so many are open.
    pub(super) most: usize,
    /// It ends by itself after this.
    pub(super) life: Duration,
    /// It takes part when one address floods.
    pub(super) floods: bool,
}

/// What a peer does when it has said what it says.
pub(super) enum Then {
    /// Waits for its end.
    Wait,
    /// Says this so often a second.
    Repeat(fn() -> Vec<u8>, u32),
}

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_hours(1);

/// A peer that reads, waits, and stays until the hub ends it.
const PEER: Attack = Attack {
    name: "",
    says: |_| Vec::new(),
    then: Then::Wait,
    reads: true,
    come: (1, SECOND),
    most: 5_000,
    life: LONG,
    floods: false,
};

pub(super) static ATTACKS: [Attack; 19] = [
    Attack {
        name: "messages at full speed, until closed",
        says: socket,
        then: Then::Repeat(|| frame(TEXT, br#"{"type":"mood","mood":"joy"}"#), 500),
        come: (20, SECOND),
        floods: true,
        ..PEER
    },
    Attack {
        name: "page views, as fast as allowed",
        says: socket,
        then: Then::Repeat(|| frame(TEXT, page_view().as_bytes()), 19),
        come: (5, SECOND),
        most: 50,
        floods: true,
        ..PEER
    },
    Attack { name: "posts", then: Then::Repeat(post, 40), come: (2, SECOND), most: 10, floods: true, ..PEER },
    Attack {
        name: "questions",
        then: Then::Repeat(|| get("/live-activity"), 30),
        come: (2, SECOND),
        most: 10,
        floods: true,
        ..PEER
    },
    Attack {
        name: "questions about the history, each a new one",
        then: Then::Repeat(new_question, 10),
        come: (2, SECOND),
        most: 10,
        floods: true,
        ..PEER
    },
    Attack {
        name: "connections that break at once",
        come: (10, Duration::from_millis(20)),
        life: Duration::ZERO,
        floods: true,
        ..PEER
    },
    Attack {
        name: "connections without a word",
        come: (20, Duration::from_millis(50)),
        floods: true,
        ..PEER
    },
    Attack {
        name: "sockets, as many as allowed",
        says: socket,
        come: (10, Duration::from_millis(50)),
        floods: true,
        ..PEER
    },
    Attack {
        name: "bots in the good rooms that never read",
        says: |n| with_pings(&bot(n)),
        then: Then::Repeat(|| frame(PONG, b""), 1),
        reads: false,
        come: (10, SECOND),
        most: 200,
        ..PEER
    },
    Attack {
        name: "messages byte by byte",
        says: |n| [socket(n), vec![0x81, 0xfe, 0x0f, 0xa0, 1, 2, 3, 4]].concat(),
        then: Then::Repeat(|| vec![b'x'], 1),
        come: (10, SECOND),
        ..PEER
    },
    Attack {
        name: "messages that never end, with pongs",
        says: |n| [socket(n), vec![0x01, 0x81, 0, 0, 0, 0, b'{']].concat(),
        then: Then::Repeat(|| frame(PONG, b""), 1),
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
        then: Then::Repeat(|| [frame(TEXT, b"{\"type\":"), frame(TEXT, &b"[".repeat(4_000))].concat(), 9),
        come: (2, SECOND),
        most: 20,
        ..PEER
    },
    Attack { name: "half-open sockets", says: socket, reads: false, come: (15, SECOND), ..PEER },
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
        then: Then::Repeat(|| vec![b'x'], 1),
        come: (3, Duration::from_millis(100)),
        ..PEER
    },
    Attack {
        name: "answers that nobody takes",
        says: |_| get("/unified-stats?range=7d").repeat(20),
        reads: false,
        come: (1, Duration::from_millis(200)),
        ..PEER
    },
];

/// Opens a socket in one of ten rooms of their own.
fn socket(number: u32) -> Vec<u8> {
    wire::upgrade(&format!("pit-{}", number % 10), &format!("bad-{number}"), None).into_bytes()
}

/// Opens one in a room of the good members, as somebody who is told and not counted.
fn bot(number: u32) -> Vec<u8> {
    let room = format!("room-{}", number as usize % ROOMS);
    let request = wire::upgrade(&room, &format!("bot-{number}"), None);
    request.replace("Host: hub\r\n", "Host: hub\r\nUser-Agent: Googlebot/2.1\r\n").into_bytes()
}

/// Something to answer, as much as is allowed.
fn with_pings(request: &[u8]) -> Vec<u8> {
    [request, &frame(PING, &[b'x'; 125]).repeat(150)].concat()
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    wire::masked(&mut frame, opcode, payload);
    frame
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n").into_bytes()
}

fn new_question() -> Vec<u8> {
    get(&format!("/unified-stats?range=30d&room=r-{}", Uuid::now_v7()))
}

fn page_view() -> String {
    /// They only have to rise on each socket.
    static REFS: AtomicU32 = AtomicU32::new(1);
    let (id, reference) = (Uuid::now_v7(), REFS.fetch_add(1, Ordering::Relaxed));
    format!(r#"{{"type":"page-view","ref":{reference},"id":"{id}","path":"/flood"}}"#)
}

fn post() -> Vec<u8> {
    let id = Uuid::now_v7();
    let body = format!(r#"{{"id":"{id}","path":"/flood","visitor":"bad","room":"pit-0"}}"#);
    let length = body.len();
    format!("POST /page-view HTTP/1.1\r\nHost: hub\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// Whatever RFC 6455 forbids, or the hub.
fn malformed(number: u32) -> Vec<u8> {
    let frames: [&[u8]; 14] = [
        &[0x83, 0x80, 0, 0, 0, 0], // an opcode that is reserved
        &[0xc1, 0x80, 0, 0, 0, 0], // a reserved bit
        &[0x81, 0x01, b'x'],       // no mask
        &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], // a huge length
        &[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], // an impossible one
        &[0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0], // over the limit
        &[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], // no UTF-8
        &[0x80, 0x80, 0, 0, 0, 0], // the end of nothing
        &[0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0], // a message inside another
        &[0x09, 0x80, 0, 0, 0, 0], // half a ping
        &[0x89, 0xfe, 0x00, 0x80, 0, 0, 0, 0], // a long ping
        &[0x82, 0x80, 0, 0, 0, 0], // binary
        &[0x88, 0x81, 0, 0, 0, 0, 0x03], // half a close code
        &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed], // a code that nobody may send
    ];
    let bad = frames[number as usize % frames.len()];
    [socket(number), bad.to_vec(), frame(BINARY, b"more"), frame(CLOSE, b"")].concat()
}

/// Requests that open nothing.
fn handshake(number: u32) -> Vec<u8> {
    let good = wire::upgrade("pit-0", "bad", None);
    let bad = match number % 8 {
        0 => good.replace("Version: 13", "Version: 8"),
        1 => good.replace("dGhl", "!"),
        2 => good.replace("Upgrade: websocket", "Upgrade: h2c"),
        3 => good.replace("pit-0", "The%20Pit"),
        4 => good.replace("HTTP/1.1", "HTTP/9.9"),
        5 => "\x16\x03\x01\x02\x00\x01\x00\x01\x03\x03".repeat(20),
        6 => good.replace("\r\n", "\n").replace(": ", ""),
        _ => good.replace("visitor=bad", &format!("visitor={}", "x".repeat(5_000))),
    };
    bad.into_bytes()
}
