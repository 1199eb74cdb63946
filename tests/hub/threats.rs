//! What somebody may try (docs/threats.md) and no other test does.

use serde_json::json;
use uuid::Uuid;

use crate::support::Hub;

#[tokio::test]
async fn an_address_leads_to_no_file_but_the_pages() {
    let hub = Hub::start().await;
    for path in [
        "/assets/../../Cargo.toml",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/%2e%2e%2f%2e%2e%2fpackage.json",
        "/client/..%5c..%5cpackage.json",
        "/client/%2fetc%2fpasswd",
        "/assets/room.html%00.js",
    ] {
        hub.get(path).send().await.expect_error(404, "not-found");
    }
}

#[tokio::test]
async fn json_of_many_levels_is_refused_and_the_socket_goes_on() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    ann.say_raw(&"[".repeat(4_000)).await;
    ann.expect_error("bad-json").await;
    ann.say_raw(&format!(r#"{{"type":"mood","mood":null,"x":{}"#, r#"{"x":"#.repeat(700))).await;
    ann.expect_error("bad-json").await;
    let body = "[".repeat(60_000);
    let post = hub.post("/page-view").header("content-type", "application/json").body(body);
    post.send().await.expect_error(400, "bad-json");
    ann.settle().await;
}

#[tokio::test]
async fn what_people_make_up_makes_no_counters() {
    let hub = Hub::start().await;
    let lines = async || hub.get("/metrics").send().await.text.lines().count();
    for path in ["/nowhere", "/rooms/lobby", "/rooms/BAD", "/metrics"] {
        hub.get(path).send().await;
    }
    let before = lines().await;
    for n in 0..50 {
        hub.get(&format!("/nowhere/{n}")).send().await;
        hub.get(&format!("/rooms/r{n}")).send().await;
        hub.get(&format!("/rooms/R{n}")).send().await;
    }
    assert_eq!(lines().await, before);
}

#[tokio::test]
async fn texts_go_into_the_history_as_they_are() {
    let hub = Hub::start().await;
    let title = "=1+1\n<script>alert(1)</script>'; DROP TABLE texts; --";
    let view =
        json!({ "id": Uuid::new_v4(), "path": "/'\"", "title": title, "visitor": "ann", "room": "lobby" });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    assert_eq!(hub.rows("SELECT json_quote(title) FROM page_views").await, [title]);
}
