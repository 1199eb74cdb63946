//! Access: the order of checks, what a page learns of a refusal, and origins as proxies pass them on.

use std::num::NonZeroU32;

use axum::http::HeaderName;
use breathing_room::http::{AllowedOrigins, PublicUrl};
use breathing_room::session::Limits;
use breathing_room::token::{Claims, Secret};
use breathing_room::wire::{Time, VisitorId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::request::Answer;
use crate::support::{Hub, Member, Program, Request, START, clock};

const SECRET: &str = "a secret of more than thirty-two bytes";
const APP: &str = "https://app.example.org";
const EVIL: &str = "https://evil.example.org";
const HEADER: &str = "fly-client-ip";

/// `Authorization` of a visitor's token that is good for a minute of the tests' clock.
fn bearer(visitor: &str) -> String {
    let visitor = VisitorId::try_from(visitor).unwrap();
    let claims = Claims { visitor, room: None, expires: Time::from_millis(START + 60_000) };
    format!("Bearer {}", claims.sign(&Secret::from(SECRET.to_owned()), None).unwrap())
}

/// A hub that asks for tokens, and where one address may open or post one thing a second, ten at once.
async fn strict() -> Hub {
    Hub::with(|config| {
        config.clock = clock();
        config.token.secret = Some(Secret::from(SECRET.to_owned()));
        config.http.allowed_origins = AllowedOrigins::parse(APP).unwrap();
        config.http.client_ip_header = Some(HeaderName::from_static(HEADER));
        let one = NonZeroU32::MIN;
        config.session.limits = Some(Limits { opened: one, posts: one, ..Limits::DEFAULT });
    })
    .await
}

fn page_view(visitor: &str) -> Value {
    json!({ "id": Uuid::new_v4(), "path": "/", "visitor": visitor, "room": "lobby" })
}

#[tokio::test]
async fn checks_of_a_socket_are_origin_then_address_then_token_then_the_rest_then_426() {
    let hub = strict().await;
    let (exhausted, fresh) = ("192.0.2.1", "192.0.2.2");
    for _ in 0..10 {
        let asked = hub.get("/rooms/lobby/socket").upgrade().header(HEADER, exhausted).send().await;
        asked.expect_error(401, "unauthorized");
    }
    let too_fast = || hub.get("/rooms/lobby/socket").upgrade().header(HEADER, exhausted);
    let refused = too_fast().header("authorization", &bearer("ann")).send().await;
    refused.expect_error(429, "too-fast"); // whoever guessed ten tokens has used the address's rate
    // What is wrong with a request, the first of which is told, whether it asks for an upgrade or not.
    for upgrade in [false, true] {
        let ask = |path: &str, address: &str| {
            let request = hub.get(path).header(HEADER, address);
            if upgrade { request.upgrade().header("sec-websocket-version", "8") } else { request }
        };
        let (bad, good) = ("/rooms/lobby/socket?mood=furious", "/rooms/lobby/socket?mood=calm");
        let foreign = ask(bad, exhausted).header("origin", EVIL).send().await;
        foreign.expect_error(403, "forbidden-origin");
        ask(bad, exhausted).send().await.expect_error(429, "too-fast");
        ask(bad, fresh).send().await.expect_error(401, "unauthorized");
        let known = |path: &str| ask(path, fresh).header("authorization", &bearer("ann"));
        known(bad).send().await.expect_error(400, "unknown-mood");
        known("/rooms/Lobby/socket").send().await.expect_error(400, "bad-room");
        known(good).send().await.expect_error(426, "upgrade-required");
    }
    ask_live(&hub, exhausted, Some(EVIL)).await.expect_error(403, "forbidden-origin");
    ask_live(&hub, exhausted, None).await.expect_error(429, "too-fast");
    ask_live(&hub, fresh, None).await.expect_error(426, "upgrade-required");
    assert_eq!(hub.debug("connections").await, 0, "a request that opens no socket keeps no place");
}

async fn ask_live(hub: &Hub, address: &str, origin: Option<&str>) -> Answer {
    let request = hub.get("/live").header(HEADER, address);
    match origin {
        Some(origin) => request.header("origin", origin).send().await,
        None => request.send().await,
    }
}

#[tokio::test]
async fn requests_refused_for_their_origin_use_up_no_budget() {
    let hub = strict().await;
    let address = "192.0.2.1";
    let post = || {
        let post = hub.post("/page-view").header(HEADER, address).json(&page_view("ann"));
        post.header("authorization", &bearer("ann"))
    };
    let join = || {
        let join = hub.get("/rooms/lobby/socket").upgrade().header(HEADER, address);
        join.header("authorization", &bearer("ann"))
    };
    for _ in 0..20 {
        post().header("origin", EVIL).send().await.expect_error(403, "forbidden-origin");
        join().header("origin", EVIL).send().await.expect_error(403, "forbidden-origin");
    }
    for _ in 0..10 {
        post().send().await.expect(202);
        assert_eq!(join().send().await.status, 101);
    }
    post().send().await.expect_error(429, "too-fast");
    join().send().await.expect_error(429, "too-fast");
}

#[tokio::test]
async fn post_is_checked_for_its_token_before_its_query_and_body() {
    let hub = strict().await;
    let post = |address: &str| hub.post("/page-view?durable=perhaps").header(HEADER, address).body("{");
    let known = |address: &str| post(address).header("authorization", &bearer("ann"));
    post("192.0.2.1").send().await.expect_error(401, "unauthorized");
    known("192.0.2.1").send().await.expect_error(400, "bad-parameter");
    for _ in 0..8 {
        post("192.0.2.1").send().await.expect_error(401, "unauthorized");
    }
    known("192.0.2.1").send().await.expect_error(429, "too-fast");
    known("192.0.2.1").header("origin", EVIL).send().await.expect_error(403, "forbidden-origin");
}

#[tokio::test]
async fn place_of_a_socket_is_looked_for_last() {
    let hub = Hub::with(|config| {
        config.clock = clock();
        config.token.secret = Some(Secret::from(SECRET.to_owned()));
        config.session.max_connections = 1;
    })
    .await;
    let ask = || hub.get("/rooms/lobby/socket").header("authorization", &bearer("ann"));
    ask().send().await.expect_error(426, "upgrade-required");
    let token = bearer("ann");
    let _ann = Member::join_saying(("authorization", &token), &hub.address, "lobby", "").await;
    hub.get("/rooms/lobby/socket").upgrade().send().await.expect_error(401, "unauthorized");
    ask().send().await.expect_error(503, "full");
    ask().upgrade().send().await.expect_error(503, "full");
}

/// What a page of this origin learns of a refusal: all of it, without credentials.
fn expect_readable_by_all(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert!(answer.expect(status)["error"]["code"].is_string());
    assert_eq!(answer.header("access-control-allow-origin"), "*", "{answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    assert_eq!(answer.header("access-control-expose-headers"), "Retry-After");
    assert!(answer.header("vary").contains("Origin"));
}

#[tokio::test]
async fn refusals_of_sockets_and_posts_can_be_read_by_pages_of_every_origin() {
    let hub = strict().await;
    for path in ["/rooms/lobby/socket", "/live", "/rooms/Lobby/socket"] {
        for request in [hub.get(path), hub.get(path).upgrade()] {
            expect_readable_by_all(&request.header("origin", EVIL).send().await, 403);
        }
    }
    let post = || hub.post("/page-view").header("content-type", "text/plain").body("{");
    expect_readable_by_all(&post().header("origin", EVIL).send().await, 403);
    // Pages of allowed origins read everything, and may bring credentials.
    for (status, request) in [
        (401, hub.get("/rooms/lobby/socket").upgrade()),
        (401, hub.get("/rooms/lobby/socket")),
        (401, post()),
    ] {
        let answer = request.header("origin", APP).send().await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, APP));
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
    }
    // What is read without a refusal stays what it was: for pages of allowed origins only.
    let room = hub.get("/rooms/lobby").header("origin", EVIL).send().await;
    assert_eq!((room.status, room.header("access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn two_origins_are_refused_whichever_comes_first() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let hub = Hub::with(|config| config.http.allowed_origins = AllowedOrigins::parse("*").unwrap()).await;
    for (first, second) in [(APP, EVIL), (EVIL, APP)] {
        let mut peer = tokio::net::TcpStream::connect(&hub.address).await.unwrap();
        let head = format!(
            "GET /rooms/lobby/socket HTTP/1.1\r\nhost: hub\r\norigin: {first}\r\norigin: {second}\r\n\
             connection: close\r\n\r\n"
        );
        peer.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("forbidden-origin"), "{answer}");
    }
}

#[tokio::test]
async fn own_pages_are_those_of_the_hubs_scheme_where_it_is_known() {
    let open = async |hub: &Hub, origin: &str, header: Option<(&'static str, &str)>| {
        let upgrade = hub.get("/rooms/lobby/socket").upgrade();
        let upgrade = upgrade.header("host", "hub.example.org:443").header("origin", origin);
        let upgrade = match header {
            Some((name, value)) => upgrade.header(name, value),
            None => upgrade,
        };
        upgrade.send().await.status
    };
    let (https, http) = ("https://hub.example.org:443", "http://hub.example.org:443");
    let plain = Hub::start().await;
    let told = Some(("x-forwarded-proto", "https"));
    assert_eq!(open(&plain, https, None).await, 101, "the default port is no other origin");
    assert_eq!(open(&plain, http, told).await, 101, "nobody is believed without a proxy");
    let proxied = Hub::with(|config| {
        config.http.client_ip_header = Some(HeaderName::from_static("x-forwarded-for"));
    })
    .await;
    assert_eq!(open(&proxied, http, None).await, 101);
    for told in [("x-forwarded-proto", "https"), ("x-forwarded-proto", "wss"), ("forwarded", "proto=https")] {
        assert_eq!(open(&proxied, https, Some(told)).await, 101, "{told:?}");
        assert_eq!(open(&proxied, http, Some(told)).await, 403, "{told:?}");
    }
    let public = Hub::with(|config| {
        config.http.public_url = Some(PublicUrl::parse("https://hub.example.org").unwrap());
    })
    .await;
    assert_eq!(open(&public, https, None).await, 101);
    assert_eq!(open(&public, "http://hub.example.org", None).await, 403);
    assert_eq!(open(&public, "https://other.example.org", None).await, 403);
}

#[tokio::test]
async fn refused_origin_and_missing_address_are_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start_with_log(folder.path(), &[("CLIENT_IP_HEADER", "X-Real-IP")]).await;
    for origin in [EVIL, EVIL, "https://\u{e9}vil.example.org", APP, EVIL] {
        let mut request = hub.get("/live").upgrade();
        request = request.header("origin", origin);
        request.send().await.expect_error(403, "forbidden-origin");
    }
    for _ in 0..3 {
        hub.get("/rooms/lobby/socket").send().await.expect_error(426, "upgrade-required");
    }
    hub.signal("TERM").await;
    hub.wait().await;
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(lines("refused a page of this origin"), 3, "{log}");
    assert_eq!((lines(EVIL), lines(APP), lines("https://\\xc3\\xa9vil")), (1, 1, 1), "{log}");
    assert_eq!(lines("no address can be read from CLIENT_IP_HEADER"), 1, "{log}");
}

#[tokio::test]
async fn client_ip_header_of_another_form_stops_the_start() {
    for header in ["Cookie", "Host", "X-Forwarded-Proto", ""] {
        let ended = Program::run(&[], &[("CLIENT_IP_HEADER", header)]).await;
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{ended:?}");
        assert!(ended.stderr.contains("--client-ip-header"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn forwarded_tells_addresses_apart() {
    let hub = Hub::with(|config| {
        config.clock = clock();
        config.http.client_ip_header = Some(HeaderName::from_static("forwarded"));
        config.session.limits = Some(Limits { opened: NonZeroU32::MIN, ..Limits::DEFAULT });
    })
    .await;
    let ask = |told: &str| -> Request { hub.get("/live").header("forwarded", told) };
    for _ in 0..10 {
        ask("for=\"[2001:db8::1]\";proto=https").send().await.expect_error(426, "upgrade-required");
    }
    ask("for=\"[2001:db8::1]:4711\"").send().await.expect_error(429, "too-fast");
    ask("for=\"[2001:db8:1::1]\"").send().await.expect_error(426, "upgrade-required");
}
