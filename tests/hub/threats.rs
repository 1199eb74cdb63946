//! Attacks of docs/threats.md that no other test covers.

use serde_json::json;
use uuid::Uuid;

use crate::support::Hub;

#[tokio::test]
async fn path_traversal_reaches_no_file() {
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
async fn deeply_nested_json_is_rejected_and_the_socket_stays_open() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    ann.send_text(&"[".repeat(4_000)).await;
    ann.expect_error("bad-json").await;
    ann.send_text(&format!(r#"{{"type":"mood","mood":null,"x":{}"#, r#"{"x":"#.repeat(700))).await;
    ann.expect_error("bad-json").await;
    let body = "[".repeat(60_000);
    let post = hub.post("/page-view").header("content-type", "application/json").body(body);
    post.send().await.expect_error(400, "bad-json");
    ann.round_trip().await;
}

#[tokio::test]
async fn unknown_paths_and_rooms_add_no_metric_labels() {
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
async fn text_fields_are_stored_unchanged() {
    let hub = Hub::start().await;
    let title = "=1+1\n<script>alert(1)</script>'; DROP TABLE texts; --";
    let view =
        json!({ "id": Uuid::new_v4(), "path": "/'\"", "title": title, "visitor": "ann", "room": "lobby" });
    hub.post("/page-view?durable=true").json(&view).send().await.expect(200);
    assert_eq!(hub.rows("SELECT json_quote(title) FROM page_views").await, [title]);
}
