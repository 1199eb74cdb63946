//! What hostile peers say: requests, frames and events, by the number of the peer.
//!
//! Names, paths, contents and properties come from sets of a fixed size. An attack that makes them all distinct
//! grows the history, which is another question than who can stop the hub.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use uuid::Uuid;

use super::members::ROOMS;
use super::tokens::{token, with_token};
use crate::websocket::{self, BINARY, CLOSE, PING, TEXT};

/// Of the visitors that hostile peers are, in the rooms and in the history.
const VISITORS: u32 = 10_000;
const POSTERS: u32 = 20;

/// Of long texts, whatever they are.
const TEXTS: u32 = 200;

/// A path and a content have at most so many bytes; a title, a referrer and properties twice as many.
const PATH: usize = 512;

/// A body of a post has at most so many bytes.
const BODY: usize = 64 * 1024;

/// What a peer repeats as fast as its socket takes it.
const BURST: usize = 64 * 1024;

/// The next number, for what has to rise on each socket, or to change.
fn next() -> u32 {
    static NUMBERS: AtomicU32 = AtomicU32::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

fn visitor(number: u32) -> String {
    format!("bad-{}", number % VISITORS)
}

fn poster(number: u32) -> String {
    format!("poster-{}", number % POSTERS)
}

/// Opens a socket in one of ten rooms of their own.
pub(super) fn socket(number: u32) -> Vec<u8> {
    in_room(&format!("pit-{}", number % 10), number)
}

fn in_room(room: &str, number: u32) -> Vec<u8> {
    let visitor = visitor(number);
    with_token(&websocket::upgrade(room, &visitor, None), &token(&visitor)).into_bytes()
}

/// Opens a socket of the live activity.
pub(super) fn listener(_: u32) -> Vec<u8> {
    websocket::upgrade("x", "x", None).replace("/rooms/x/socket?visitor=x", "/live").into_bytes()
}

/// Opens one in a room of the good members, as somebody who is told and not counted.
pub(super) fn bot(number: u32) -> Vec<u8> {
    let (room, bot) = (format!("room-{}", number as usize % ROOMS), format!("bot-{number}"));
    let request = with_token(&websocket::upgrade(&room, &bot, None), &token(&bot));
    request.replace("Host: hub\r\n", "Host: hub\r\nUser-Agent: Googlebot/2.1\r\n").into_bytes()
}

/// Opens none, since its token is missing, none at all, or of another service.
pub(super) fn refused_join(number: u32) -> Vec<u8> {
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

/// Something to answer, as much as is allowed.
pub(super) fn with_pings(request: &[u8]) -> Vec<u8> {
    [request, &frame(PING, &[b'x'; 125]).repeat(150)].concat()
}

pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    websocket::masked(&mut frame, opcode, payload);
    frame
}

/// Frames of this first byte and without payload, as many as a socket takes at once.
pub(super) fn empty_frames(first: u8) -> Vec<u8> {
    [first, 0x80, 0, 0, 0, 0].repeat(BURST / 6)
}

/// A socket, and the beginning of a message that its empty continuations never end.
pub(super) fn unended(number: u32) -> Vec<u8> {
    [socket(number), vec![0x01, 0x80, 0, 0, 0, 0]].concat()
}

pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n").into_bytes()
}

pub(super) fn new_question() -> Vec<u8> {
    get(&format!("/unified-stats?range=30d&room=r-{}", Uuid::now_v7()))
}

/// Asks for, or erases, what is kept of one who posts, by that visitor's own token. Whoever is asked for has to keep
/// what is posted.
pub(super) fn own_data(method: &str, number: u32) -> Vec<u8> {
    let poster = poster(number);
    let request = format!("{method} /visitors/{poster}/data HTTP/1.1\r\nHost: hub\r\n\r\n");
    with_token(&request, &token(&poster)).into_bytes()
}

pub(super) fn page_view() -> Vec<u8> {
    say_page_view(r#""path":"/flood""#)
}

/// One of the longest there are.
pub(super) fn long_page_view() -> Vec<u8> {
    say_page_view(long_fields(next()))
}

fn say_page_view(fields: &str) -> Vec<u8> {
    let (id, reference) = (Uuid::now_v7(), next());
    frame(TEXT, format!(r#"{{"type":"page-view","ref":{reference},"id":"{id}",{fields}}}"#).as_bytes())
}

/// Path, title, referrer and properties of 3.5 KB together.
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

/// A page whose path repeats how an answer to an upgrade begins.
pub(super) fn answer_as_path() -> Vec<u8> {
    let path = format!("{}{:03}", "HTTP/1.1 101 ".repeat(39), next() % TEXTS);
    say_page_view(&format!(r#""path":"{path}""#))
}

/// A room with a long name of its own, where somebody is on one page and plays another content.
pub(super) fn long_names(number: u32) -> Vec<u8> {
    let room = format!("{:-<64}", format!("pit-{}", number % TEXTS));
    [in_room(&room, number), long_activity(number)].concat()
}

/// Goes to another page and plays something else, whose names are six times as long in JSON.
pub(super) fn long_activity(number: u32) -> Vec<u8> {
    let text = format!("{}{:03}", "\\u0001".repeat(500), next() % TEXTS);
    // The same for this peer each time, so that it is one watch session that moves on.
    let id = Uuid::from_u128(u128::from(number) + 1);
    let view = say_page_view(&format!(r#""path":"{text}""#));
    let watch = format!(
        r#"{{"type":"watch","ref":{},"id":"{id}","content":"{text}","state":"playing","watchedMs":0}}"#,
        next()
    );
    [view, frame(TEXT, watch.as_bytes())].concat()
}

/// A watch session that nobody has heard of, in these states one after the other.
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

/// Posts so many page views at once, or as many as a body holds, with these fields.
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

/// As many of the longest page views as a body holds.
pub(super) fn long_post(number: u32) -> Vec<u8> {
    post(number, 100, long_fields(next()), "", "")
}

/// A post that announces a body in chunks.
pub(super) fn chunked(number: u32) -> Vec<u8> {
    let head = "POST /page-view HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n";
    with_token(head, &token(&poster(number))).into_bytes()
}

/// A chunk of one byte.
pub(super) const CHUNK: &[u8] = b"1\r\n \r\n";

/// A good post as long as may be, each byte of it in a chunk of its own.
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

/// Whatever RFC 6455 forbids, or the hub.
pub(super) fn malformed(number: u32) -> Vec<u8> {
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
