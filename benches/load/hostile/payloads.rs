//! The payloads of the attacks: requests, frames and events, by the number of the peer.
//!
//! Names, paths, contents and properties come from sets of a fixed size: `cardinality` has the distinct ones.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use uuid::Uuid;

use super::members::ROOMS;
use super::tokens::{token, with_token};
use crate::websocket::{self, BINARY, CLOSE, PING, TEXT};

/// The number of visitor ids of the attackers, in rooms and in posts.
const VISITORS: u32 = 10_000;
const POSTERS: u32 = 20;

/// The number of distinct long texts.
const TEXTS: u32 = 200;

/// The longest path or content in bytes; a title, a referrer and properties may be twice as long.
const PATH: usize = 512;

/// The largest body of a post in bytes.
pub(super) const BODY: usize = 64 * 1024;

/// Bytes of one write of a flood.
const BURST: usize = 64 * 1024;

/// The next number, for values that must rise on each socket, or differ.
pub(super) fn next() -> u32 {
    static NUMBERS: AtomicU32 = AtomicU32::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

fn visitor(number: u32) -> String {
    format!("bad-{}", number % VISITORS)
}

pub(super) fn poster(number: u32) -> String {
    format!("poster-{}", number % POSTERS)
}

/// Opens a socket in one of the attackers' ten rooms.
pub(super) fn socket(number: u32) -> Vec<u8> {
    in_room(&format!("pit-{}", number % 10), number)
}

fn in_room(room: &str, number: u32) -> Vec<u8> {
    let visitor = visitor(number);
    with_token(&websocket::upgrade(room, &visitor, None), &token(&visitor)).into_bytes()
}

/// Opens a socket of `/live`.
pub(super) fn listener(_: u32) -> Vec<u8> {
    websocket::upgrade("x", "x", None).replace("/rooms/x/socket?visitor=x", "/live").into_bytes()
}

/// Opens a socket in a room of the honest members as a bot, which gets states and is not counted.
pub(super) fn bot(number: u32) -> Vec<u8> {
    let (room, bot) = (format!("room-{}", number as usize % ROOMS), format!("bot-{number}"));
    let request = with_token(&websocket::upgrade(&room, &bot, None), &token(&bot));
    request.replace("Host: hub\r\n", "Host: hub\r\nUser-Agent: Googlebot/2.1\r\n").into_bytes()
}

/// Requests a socket without a token, with a malformed token, or with a wrong signature.
pub(super) fn bad_token_join(number: u32) -> Vec<u8> {
    let visitor = visitor(number);
    let request = websocket::upgrade("pit-0", &visitor, None);
    let good = token(&visitor);
    let request = match number % 3 {
        0 => request,
        1 => with_token(&request, &"x".repeat(500)),
        _ => with_token(&request, &format!("{}x", good.get(..good.len() - 2).unwrap_or_default())),
    };
    request.into_bytes()
}

/// Adds pings, as many as are allowed, which the hub answers.
pub(super) fn with_pings(request: &[u8]) -> Vec<u8> {
    [request, &frame(PING, &[b'x'; 125]).repeat(150)].concat()
}

pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    websocket::append_masked(&mut frame, opcode, payload);
    frame
}

/// A burst of frames with this first byte and without payload.
pub(super) fn empty_frames(first: u8) -> Vec<u8> {
    [first, 0x80, 0, 0, 0, 0].repeat(BURST / 6)
}

/// Opens a socket and starts a message that only empty continuations follow.
pub(super) fn endless(number: u32) -> Vec<u8> {
    [socket(number), vec![0x01, 0x80, 0, 0, 0, 0]].concat()
}

pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n").into_bytes()
}

pub(super) fn new_query() -> Vec<u8> {
    get(&format!("/unified-stats?range=30d&room=r-{}", Uuid::now_v7()))
}

/// Requests or erases the data of a poster, with that visitor's own token. The caller must not erase the data of
/// posters whose data it requests.
pub(super) fn own_data(method: &str, number: u32) -> Vec<u8> {
    let poster = poster(number);
    let request = format!("{method} /visitors/{poster}/data HTTP/1.1\r\nHost: hub\r\n\r\n");
    with_token(&request, &token(&poster)).into_bytes()
}

pub(super) fn page_view() -> Vec<u8> {
    page_view_with(r#""path":"/flood""#)
}

/// A page view of the largest size.
pub(super) fn long_page_view() -> Vec<u8> {
    page_view_with(long_fields(next()))
}

fn page_view_with(fields: &str) -> Vec<u8> {
    let (id, reference) = (Uuid::now_v7(), next());
    frame(TEXT, format!(r#"{{"type":"page-view","ref":{reference},"id":"{id}",{fields}}}"#).as_bytes())
}

/// Path, title, referrer and properties, together 3.5 KB.
fn long_fields(number: u32) -> &'static str {
    static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let text = |n: u32, length: usize| format!("/{n}/{}", "x".repeat(length - 10));
        let fields = |n| {
            let (path, long) = (text(n, PATH), text(n, 2 * PATH));
            let props = format!(r#"{{"p":"{}"}}"#, text(n, 2 * PATH - 16));
            format!(
                r#""path":"{path}","title":"{long}","referrer":"https://a.example{}","props":{props}"#,
                &long[..1_000]
            )
        };
        (0..TEXTS).map(fields).collect()
    });
    &FIELDS[(number % TEXTS) as usize]
}

/// A page view with a path that repeats the first line of an upgrade's response.
pub(super) fn response_as_path() -> Vec<u8> {
    let path = format!("{}{:03}", "HTTP/1.1 101 ".repeat(39), next() % TEXTS);
    page_view_with(&format!(r#""path":"{path}""#))
}

/// Joins a room with a long name, sees a page and plays a content.
pub(super) fn long_names(number: u32) -> Vec<u8> {
    let room = format!("{:-<64}", format!("pit-{}", number % TEXTS));
    [in_room(&room, number), long_activity(number)].concat()
}

/// Sees another page and plays another content, with texts that are six times as long in JSON.
pub(super) fn long_activity(number: u32) -> Vec<u8> {
    let text = format!("{}{:03}", "\\u0001".repeat(500), next() % TEXTS);
    // One id for each peer, so that it is one watch session that changes.
    let id = Uuid::from_u128(u128::from(number) + 1);
    let view = page_view_with(&format!(r#""path":"{text}""#));
    let watch = format!(
        r#"{{"type":"watch","ref":{},"id":"{id}","content":"{text}","state":"playing","watchedMs":0}}"#,
        next()
    );
    [view, frame(TEXT, watch.as_bytes())].concat()
}

/// A new watch session, with one message for each state.
pub(super) fn new_watch(states: &[&str]) -> Vec<u8> {
    let id = Uuid::now_v7();
    let message = |state: &&str| {
        let content = next() % TEXTS;
        let text = format!(
            r#"{{"type":"watch","ref":{},"id":"{id}","content":"film-{content}","state":"{state}","watchedMs":0}}"#,
            next()
        );
        frame(TEXT, text.as_bytes())
    };
    states.iter().flat_map(message).collect()
}

/// A post of `count` page views with these fields, or of as many as fit in a body.
pub(super) fn post(number: u32, count: usize, fields: &str, query: &str, header: &str) -> Vec<u8> {
    let poster = poster(number);
    let mut body = String::from("[");
    for event in 0..count {
        let comma = if event > 0 { "," } else { "" };
        let id = Uuid::now_v7();
        let view = format!(r#"{comma}{{"id":"{id}","visitor":"{poster}","room":"pit-0",{fields}}}"#);
        if body.len() + view.len() >= BODY {
            break;
        }
        body.push_str(&view);
    }
    body.push(']');
    let length = body.len();
    let head =
        format!("POST /page-view{query} HTTP/1.1\r\nHost: hub\r\n{header}Content-Length: {length}\r\n\r\n");
    [with_token(&head, &token(&poster)), body].concat().into_bytes()
}

pub(super) const SHORT: &str = r#""path":"/flood""#;

/// A post with as many of the largest page views as fit in a body.
pub(super) fn long_post(number: u32) -> Vec<u8> {
    post(number, 100, long_fields(next()), "", "")
}

/// The head of a post with a chunked body.
pub(super) fn chunked(number: u32) -> Vec<u8> {
    let head = "POST /page-view HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n";
    with_token(head, &token(&poster(number))).into_bytes()
}

/// A chunk of one byte.
pub(super) const CHUNK: &[u8] = b"1\r\n \r\n";

/// A valid post of the largest size, each byte in its own chunk.
pub(super) fn one_byte_chunks(number: u32) -> Vec<u8> {
    let (id, poster) = (Uuid::now_v7(), poster(number));
    let event = format!(r#"[{{"id":"{id}","visitor":"{poster}","room":"pit-0",{SHORT}}}]"#);
    let mut post = chunked(number);
    post.extend(CHUNK.repeat(BODY - event.len()));
    for byte in event.bytes() {
        post.extend([b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    post.extend(b"0\r\n\r\n");
    post
}

/// Opens a socket and sends a frame that RFC 6455 or the hub forbids.
pub(super) fn malformed(number: u32) -> Vec<u8> {
    let frames: [&[u8]; 14] = [
        &[0x83, 0x80, 0, 0, 0, 0], // a reserved opcode
        &[0xc1, 0x80, 0, 0, 0, 0], // a reserved bit
        &[0x81, 0x01, b'x'],       // not masked
        &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], // a huge length
        &[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], // an impossible length
        &[0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0], // over the limit
        &[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], // not UTF-8
        &[0x80, 0x80, 0, 0, 0, 0], // a continuation without a start
        &[0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0], // a message inside a fragmented message
        &[0x09, 0x80, 0, 0, 0, 0], // a fragmented ping
        &[0x89, 0xfe, 0x00, 0x80, 0, 0, 0, 0], // a long ping
        &[0x82, 0x80, 0, 0, 0, 0], // binary
        &[0x88, 0x81, 0, 0, 0, 0, 0x03], // a truncated close code
        &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed], // a close code that no endpoint may send
    ];
    let bad = frames[number as usize % frames.len()];
    [socket(number), bad.to_vec(), frame(BINARY, b"more"), frame(CLOSE, b"")].concat()
}

/// Upgrade requests that are not valid.
pub(super) fn handshake(number: u32) -> Vec<u8> {
    let good = websocket::upgrade("pit-0", "bad", None);
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
    with_token(&bad, &token("bad")).into_bytes()
}
