//! What a person sees in a browser where the hub refuses a request: a page, and a redirect to the room that is meant.

use std::num::NonZeroU32;

use crate::support::request::Response;
use crate::support::{Hub, Request};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn expect_page(response: &Response, status: u16, words: &str) {
    assert_eq!((response.status, response.header("content-type")), (status, "text/html; charset=utf-8"));
    assert!(
        response.text.starts_with("<!doctype html>") && response.text.contains(words),
        "{}",
        response.text
    );
    assert!(response.header("content-security-policy").starts_with("default-src 'none'"));
}

#[tokio::test]
async fn browser_gets_a_page_where_a_program_gets_json() {
    let hub = Hub::start().await;
    let browse = async |path: &str| hub.get(path).header("accept", BROWSER).send().await;
    expect_page(&browse("/nowhere").await, 404, "There is no page at this address");
    expect_page(&browse("/rooms/NO").await, 400, "letters from a to z");
    expect_page(&browse("/room/%C3%A4").await, 400, "letters from a to z");
    expect_page(&browse("/debug").await, 401, "This needs a token");
    expect_page(&browse("/rooms/lobby/socket").await, 426, "connect with an upgrade request");
    let foreign = hub.get("/rooms/lobby/socket").header("origin", "https://evil.example");
    expect_page(&foreign.header("accept", BROWSER).send().await, 403, "This is not allowed");
    for accept in ["*/*", "application/json"] {
        let json = hub.get("/nowhere").header("accept", accept).send().await.expect(404);
        assert_eq!(json["error"]["code"], "not-found");
    }
    assert_eq!(hub.get("/rooms/NO").send().await.expect(400)["error"]["code"], "bad-room");
    let posted = hub.post("/page-view").header("accept", BROWSER).body("{").send().await;
    assert_eq!(posted.header("content-type"), "application/json", "a post is no navigation");
}

#[tokio::test]
async fn rate_limited_browser_gets_a_page_with_retry_after() {
    let hub = Hub::with(|config| {
        config.transport.limits.as_mut().unwrap().reads = NonZeroU32::new(1).unwrap();
    })
    .await;
    let mut last = hub.get("/rooms/lobby").send().await;
    while last.status == 200 {
        last = hub.get("/rooms/lobby").header("accept", BROWSER).send().await;
    }
    expect_page(&last, 429, "Too many requests");
    assert_eq!(last.header("retry-after"), "10");
}

#[tokio::test]
async fn room_that_is_meant_is_found() {
    let hub = Hub::start().await;
    for (path, location) in [
        ("/room/Lobby", "/room/lobby"),
        ("/room/my%20room", "/room/my-room"),
        ("/room/%20My%20%20Room%20", "/room/my-room"),
        ("/room/Lobby?embed=1", "/room/lobby?embed=1"),
        ("/room/lobby/", "/room/lobby"),
        ("/room/Lobby/?embed=1", "/room/Lobby?embed=1"),
    ] {
        let response = Request::new(&hub.address, "GET", path).send().await;
        assert_eq!((response.status, response.header("location")), (308, location), "{path}");
    }
    for path in ["/room/", "/room//evil.example/", "/rooms/Lobby/", "/room/lobby/more/"] {
        assert_eq!(hub.get(path).send().await.status, 404, "{path}");
    }
    assert_ne!(hub.get("/room/lobby").send().await.status, 308);
}
