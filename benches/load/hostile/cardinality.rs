//! Attacks on the history's cardinality: clients within the limits whose texts and ids are all distinct.
//!
//! Each distinct room, visitor, path, title, referrer, content, property name and value is a row of a dictionary or of
//! a rollup. The hub must bound the memory and the time of a flush by the batch, not by what the day already has.

use std::fmt::Write;
use std::time::Duration;

use uuid::Uuid;

use super::attacks::{Attack, PEER, Then};
use super::payloads::{BODY, frame, next, poster, socket};
use super::tokens::{token, with_token};
use crate::websocket::TEXT;

/// Property names of one page view.
const NAMES: usize = 85;

/// The property that the hub rolls up (`ROLLUP_PROPS`).
pub(super) const ROLLED_UP: &str = "plan";

const SECOND: Duration = Duration::from_secs(1);

/// An attack by posts of 100 events, ten times a second from each of ten peers.
const POSTS: Attack = Attack { arrivals: (10, SECOND), max_open: 10, ..PEER };

pub(super) static CARDINALITY: &[Attack] = &[
    Attack {
        name: "distinct property names",
        then: Then::Repeat(|n| views(n, || format!(r#""path":"/p","props":{}"#, names())), 10),
        ..POSTS
    },
    Attack {
        name: "distinct values of a rolled-up property",
        then: Then::Repeat(
            |n| views(n, || format!(r#""path":"/p","props":{{"{ROLLED_UP}":"v{}"}}"#, next())),
            10,
        ),
        ..POSTS
    },
    Attack {
        name: "distinct paths",
        then: Then::Repeat(|n| views(n, || format!(r#""path":"/p/{}""#, next())), 10),
        ..POSTS
    },
    Attack {
        name: "distinct long paths, titles and referrers",
        then: Then::Repeat(|n| views(n, long_texts), 10),
        ..POSTS
    },
    Attack {
        name: "distinct referrer hosts",
        then: Then::Repeat(
            |n| views(n, || format!(r#""path":"/p","referrer":"https://h{}.example/""#, next())),
            10,
        ),
        ..POSTS
    },
    Attack {
        name: "distinct visitors",
        then: Then::Repeat(
            |_| views_of(&format!("one-{}", next()), "pit-0", || r#""path":"/p""#.to_owned()),
            10,
        ),
        ..POSTS
    },
    Attack {
        name: "distinct rooms",
        then: Then::Repeat(
            |n| post("/page-view", &poster(n), || format!(r#""room":"pit-{}","path":"/p""#, next())),
            10,
        ),
        ..POSTS
    },
    Attack {
        name: "distinct contents and watch sessions",
        then: Then::Repeat(
            |n| {
                post("/watch-session", &poster(n), || {
                    format!(r#""room":"pit-0","content":"c-{}","state":"ended","watchedMs":1000"#, next())
                })
            },
            10,
        ),
        ..POSTS
    },
    Attack {
        name: "distinct paths on sockets",
        opening: socket,
        then: Then::Repeat(|_| page_view(&format!("/s/{}", next())), 19),
        arrivals: (5, SECOND),
        max_open: 50,
        ..PEER
    },
];

/// A post of page views in one room.
fn views(number: u32, fields: impl FnMut() -> String) -> Vec<u8> {
    views_of(&poster(number), "pit-0", fields)
}

fn views_of(visitor: &str, room: &str, mut fields: impl FnMut() -> String) -> Vec<u8> {
    post("/page-view", visitor, || format!(r#""room":"{room}",{}"#, fields()))
}

/// A post of 100 events, or of as many as fit in a body.
fn post(route: &str, visitor: &str, mut fields: impl FnMut() -> String) -> Vec<u8> {
    let mut body = String::from("[");
    for event in 0..100 {
        let comma = if event > 0 { "," } else { "" };
        let event = format!(r#"{comma}{{"id":"{}","visitor":"{visitor}",{}}}"#, Uuid::now_v7(), fields());
        if body.len() + event.len() >= BODY {
            break;
        }
        body.push_str(&event);
    }
    body.push(']');
    let head = format!("POST {route} HTTP/1.1\r\nHost: hub\r\nContent-Length: {}\r\n\r\n", body.len());
    [with_token(&head, &token(visitor)), body].concat().into_bytes()
}

fn page_view(path: &str) -> Vec<u8> {
    let (id, reference) = (Uuid::now_v7(), next());
    frame(TEXT, format!(r#"{{"type":"page-view","ref":{reference},"id":"{id}","path":"{path}"}}"#).as_bytes())
}

/// Properties with distinct names, in less than 1,024 bytes.
fn names() -> String {
    let number = next() & 0xf_ffff; // five digits at most, so that all names fit
    let mut props = String::from("{");
    for name in 0..NAMES {
        let comma = if name > 0 { "," } else { "" };
        let _ = write!(props, r#"{comma}"{number:x}{name}":1"#);
    }
    props + "}"
}

fn long_texts() -> String {
    let number = next();
    let (path, title, query) = ("p".repeat(490), "t".repeat(1_000), "r".repeat(960));
    format!(
        r#""path":"/{number}{path}","title":"{number}{title}","referrer":"https://r{number}.example/{query}""#
    )
}
