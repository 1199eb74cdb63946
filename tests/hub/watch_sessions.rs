//! Watch sessions: the time that the hub measures, the time that clients claim, and how both merge.

use std::time::Duration;

use breathing_room::config::{Clock, Secret, Time};
use breathing_room::internals::{Claims, VisitorId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Client, Hub, START, manual_clock};

async fn hub_at(clock: &Clock) -> Hub {
    let clock = clock.clone();
    Hub::with(|config| config.clock = clock).await
}

async fn send_watch(client: &mut Client, id: Uuid, state: &str, watched_ms: u64) {
    let watch =
        json!({ "type": "watch", "id": id, "content": "dawn", "state": state, "watchedMs": watched_ms });
    client.send_event(watch).await;
    client.round_trip().await;
}

async fn stored(hub: &Hub) -> Value {
    hub.flush().await;
    let rows = hub
        .rows("SELECT json_object('state', state, 'watchedMs', watched_ms, 'startedAt', started_at) FROM watch_sessions")
        .await;
    assert_eq!(rows.len(), 1);
    rows[0].clone()
}

#[tokio::test]
async fn watched_time_is_measured_over_pause_disconnect_and_resume() {
    let clock = manual_clock();
    let hub = hub_at(&clock).await;
    let pass = |seconds: u64| clock.advance(Duration::from_secs(seconds));
    let id = Uuid::new_v4();
    let mut ann = hub.join("lobby", "ann").await;
    send_watch(&mut ann, id, "playing", 0).await;
    pass(10);
    send_watch(&mut ann, id, "paused", 0).await;
    pass(100);
    send_watch(&mut ann, id, "playing", 0).await;
    pass(7);
    ann.disconnect();
    hub.expect_debug("sessions", 0).await;
    pass(1000); // disconnected: no watched time
    let so_far = stored(&hub).await;
    assert_eq!(so_far, json!({ "state": "playing", "watchedMs": 17_000, "startedAt": START }));
    let mut ann = hub.join("lobby", "ann").await;
    send_watch(&mut ann, id, "playing", 0).await;
    pass(8);
    send_watch(&mut ann, id, "ended", 0).await;
    pass(50);
    ann.leave().await;
    let at_last = stored(&hub).await;
    assert_eq!(at_last, json!({ "state": "ended", "watchedMs": 25_000, "startedAt": START }));
}

#[tokio::test]
async fn watched_time_is_the_larger_of_measured_and_claimed_within_wall_time() {
    let clock = manual_clock();
    let hub = hub_at(&clock).await;
    let id = Uuid::new_v4();
    let mut ann = hub.join("lobby", "ann").await;
    send_watch(&mut ann, id, "playing", 3_600_000).await; // claims an hour at the start
    assert_eq!(stored(&hub).await["watchedMs"], 0);
    clock.advance(Duration::from_secs(10));
    send_watch(&mut ann, id, "paused", 4_000).await;
    // The claim is still the largest value, limited to the elapsed time.
    assert!((10_000..=10_001).contains(&stored(&hub).await["watchedMs"].as_u64().unwrap()));

    let id = Uuid::new_v4();
    let watch = json!({ "id": id, "content": "c", "state": "ended", "watchedMs": 99_999_999_u64,
        "startedAt": START - 48 * 3_600_000, "at": START, "visitor": "bob", "room": "lobby" });
    hub.post("/watch-session?durable=true").json(&watch).send().await.expect(200);
    let bobs = hub.rows("SELECT watched_ms FROM watch_sessions WHERE visitor = 'bob'").await;
    assert_eq!(bobs, [24 * 3_600_000]); // a start is at most 24 h in the past
}

#[tokio::test]
async fn watch_messages_in_any_order_store_the_same() {
    let clock = manual_clock();
    clock.advance(Duration::from_secs(10)); // no message is ahead
    let hub = Hub::with(|config| config.clock = clock).await;
    let id = Uuid::new_v4();
    let message = |state: &str, at: u64, watched: u64| {
        json!({ "id": id, "content": "dawn", "state": state, "watchedMs": watched, "startedAt": START - 60_000,
            "at": START + at, "positionMs": at })
    };
    let messages = [
        message("playing", 0, 10),
        message("paused", 5_000, 5_010),
        message("playing", 6_000, 4_000),
        message("ended", 9_000, 8_000),
    ];
    let all = "SELECT json_array(state, watched_ms, position_ms, started_at, updated_at) FROM watch_sessions";
    let expected = json!(["ended", 8_000, 9_000, START - 60_000, START + 9_000]);
    let mut ann = hub.join("lobby", "ann").await;
    for message in messages.iter().rev() {
        let mut event = message.clone();
        event["type"] = json!("watch");
        ann.send_event(event).await;
    }
    ann.round_trip().await;
    hub.flush().await;
    assert_eq!(hub.rows(all).await, std::slice::from_ref(&expected));
    for message in [&messages[2], &messages[0], &messages[3], &messages[1]] {
        let mut event = message.clone();
        event["visitor"] = json!("ann");
        event["room"] = json!("lobby");
        hub.post("/watch-session?durable=true").json(&event).send().await.expect(200);
    }
    assert_eq!(hub.rows(all).await, [expected]);
}

fn secret() -> Secret {
    Secret::from("a secret of more than thirty-two bytes".to_owned())
}

fn bearer(visitor: &str) -> String {
    let visitor = VisitorId::try_from(visitor).unwrap();
    let claims = Claims { visitor, room: None, expires: Time::from_millis(START + 3_600_000) };
    format!("Bearer {}", claims.sign(&secret(), None).unwrap())
}

async fn join_with_token(hub: &Hub, visitor: &str) -> Client {
    Client::join_with_header(("authorization", &bearer(visitor)), &hub.address, "lobby", "").await
}

#[tokio::test]
async fn id_of_another_visitor_does_not_change_their_session() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        config.clock = clock.clone();
        config.auth.secret = Some(secret());
    })
    .await;
    let pass = |seconds: u64| clock.advance(Duration::from_secs(seconds));
    let (id, view) = (Uuid::new_v4(), Uuid::new_v4());
    let mut ann = join_with_token(&hub, "ann").await;
    send_watch(&mut ann, id, "playing", 0).await;
    ann.send_event(json!({ "type": "page-view", "id": view, "path": "/ann" })).await;
    pass(600);
    let mut bob = join_with_token(&hub, "bob").await;
    send_watch(&mut bob, id, "playing", 0).await;
    bob.send_event(json!({ "type": "page-view", "id": view, "path": "/bob", "at": START - 1000 })).await;
    pass(60);
    send_watch(&mut bob, id, "ended", 0).await;
    for (visitor, status) in [("ann", 401), ("bob", 200)] {
        let watch = json!({ "id": id, "content": "zen", "state": "ended", "watchedMs": 0, "room": "lobby",
            "visitor": visitor });
        let post = hub.post("/watch-session?durable=true").header("authorization", &bearer("bob"));
        post.json(&watch).send().await.expect(status);
    }
    pass(1140);
    ann.leave().await;
    hub.expect_debug("sessions", 1).await;
    hub.flush().await;
    let sessions =
        "SELECT json_array(visitor, content, state, watched_ms) FROM watch_sessions ORDER BY visitor";
    assert_eq!(
        hub.rows(sessions).await,
        [json!(["ann", "dawn", "playing", 1_800_000]), json!(["bob", "zen", "ended", 60_000])]
    );
    let views = "SELECT json_array(visitor, path) FROM page_views ORDER BY visitor";
    assert_eq!(hub.rows(views).await, [json!(["ann", "/ann"]), json!(["bob", "/bob"])]);
}

#[tokio::test]
async fn content_is_live_while_it_plays() {
    let hub = Hub::start().await;
    let expect = async |watching: Value| hub.expect_live_activity("watching", watching).await;
    let mut ann = hub.join("lobby", "ann").await;
    let mut tab = hub.join("garden", "ann").await;
    let mut bob = hub.join("garden", "bob").await;
    let id = Uuid::new_v4();
    send_watch(&mut ann, id, "playing", 0).await;
    send_watch(&mut tab, Uuid::new_v4(), "playing", 0).await;
    send_watch(&mut bob, Uuid::new_v4(), "playing", 0).await;
    expect(json!([{ "content": "dawn", "count": 2 }])).await; // visitors, not tabs
    bob.leave().await;
    tab.leave().await;
    hub.expect_debug("sessions", 1).await;
    expect(json!([{ "content": "dawn", "count": 1 }])).await;
    send_watch(&mut ann, id, "paused", 0).await;
    expect(json!([])).await;
}

#[tokio::test]
async fn playing_sessions_per_socket_are_limited_to_16() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    for _ in 0..16 {
        send_watch(&mut ann, Uuid::new_v4(), "playing", 0).await;
    }
    ann.send_event(
        json!({ "type": "watch", "id": Uuid::new_v4(), "content": "c", "state": "playing", "watchedMs": 0 }),
    )
    .await;
    let rejected = ann.expect_error("bad-field").await;
    assert!(rejected["message"].as_str().unwrap().starts_with("state: at most 16"), "{rejected}");
}
