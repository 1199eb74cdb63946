//! Bots: they receive all states, and their events are stored and acked; no count includes them.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Client, Hub, manual_clock};

const BOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

async fn join_bot(hub: &Hub, room: &str) -> Client {
    Client::join_with_user_agent(BOT, &hub.address, room, "visitor=bot&mood=sad").await
}

async fn live_activity(hub: &Hub) -> Value {
    hub.get("/live-activity").send().await.expect(200)
}

#[tokio::test]
async fn bot_gets_all_state_and_is_not_counted() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let mut bot = join_bot(&hub, "lobby").await;
    assert_eq!((bot.present, &bot.moods, &bot.welcome["visitor"]), (1, &json!({}), &json!("bot")));
    bot.set_mood(Some("joy")).await;
    bot.set_mood(Some("furious")).await;
    bot.expect_error("unknown-mood").await;
    ann.set_mood(Some("calm")).await;
    bot.expect_moods(json!({ "calm": 1 })).await;
    ann.expect_moods(json!({ "calm": 1 })).await;
    let bob = Client::join_with_user_agent(BROWSER, &hub.address, "lobby", "visitor=bob").await;
    bot.expect_present(2).await;
    assert_eq!((bob.present, bob.seq), (2, bot.seq));

    let room = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&room["present"], &room["moods"]), (&json!(2), &json!({ "calm": 1 })));
    let live = live_activity(&hub).await;
    assert_eq!((&live["liveUsers"], &live["sessions"]), (&json!(2), &json!(2)));
    assert_eq!(live["moods"], json!({ "calm": 1 }));
    assert_eq!(hub.debug("botSessions").await, 1);
    for (name, expected) in
        [("sessions", 2.0), ("bot_sessions", 1.0), ("visitors", 2.0), ("joins_total", 2.0)]
    {
        assert_eq!(hub.metric(&format!("breathing_room_{name}")).await, expected, "{name}");
    }
    bot.leave().await;
    assert_eq!(hub.debug("botSessions").await, 0);
    assert_eq!(hub.metric("breathing_room_leaves_total").await, 0.0);
    assert_eq!(hub.get("/rooms/lobby").send().await.expect(200)["seq"], room["seq"]);
}

#[tokio::test]
async fn bot_with_a_visitors_id_does_not_affect_that_visitor() {
    let hub = Hub::start().await;
    let mut ann = hub.join_with_mood("lobby", "ann", "calm").await;
    let mut bot = Client::join_with_user_agent(BOT, &hub.address, "lobby", "visitor=ann&mood=sad").await;
    bot.set_mood(None).await;
    bot.round_trip().await;
    let tab = hub.join("lobby", "ann").await;
    assert_eq!((tab.present, &tab.moods), (1, &json!({ "calm": 1 })));
    bot.disconnect();
    hub.expect_debug("botSessions", 0).await;
    let _bob = hub.join("lobby", "bob").await;
    ann.expect_present(2).await;
}

#[tokio::test]
async fn room_with_only_bots_does_not_count_until_a_visitor_joins() {
    let hub = Hub::with(|config| config.presence.max_rooms = 1).await;
    let mut bot = join_bot(&hub, "lobby").await;
    let mut other = join_bot(&hub, "lobby").await;
    let elsewhere = join_bot(&hub, "garden").await;
    let empty = json!({ "room": "lobby", "seq": 0, "present": 0, "held": 0, "moods": {} });
    assert_eq!((bot.present, bot.seq), (0, 0));
    for _ in 0..2 {
        hub.expect_live_activity("rooms", json!([])).await;
        hub.expect_live_activity("liveUsers", json!(0)).await;
        assert_eq!(hub.get("/rooms/lobby").send().await.expect(200), empty);
        assert_eq!(hub.debug("roomCount").await, 0);
        // Bots do not count for `max_rooms`, and stay subscribed when the last visitor leaves.
        let ann = hub.join_with_mood("lobby", "ann", "calm").await;
        assert_eq!(ann.present, 1);
        bot.expect_present(1).await.expect_moods(json!({ "calm": 1 })).await;
        other.expect_present(1).await;
        hub.expect_live_activity("liveUsers", json!(1)).await;
        ann.leave().await;
        bot.expect_present(0).await.expect_moods(json!({})).await;
        other.expect_present(0).await;
    }
    bot.leave().await;
    other.leave().await;
    elsewhere.leave().await;
    assert_eq!(hub.debug("botSessions").await, 0);
    let ann = hub.join("lobby", "ann").await;
    assert_eq!((ann.present, ann.seq), (1, 1)); // the room had been removed
}

#[tokio::test]
async fn bot_events_are_stored_with_mark_acked_and_not_live() {
    let hub = Hub::start().await;
    let mut bot = join_bot(&hub, "lobby").await;
    let mut ann = hub.join("lobby", "ann").await;
    bot.view_page(Uuid::new_v4(), "/bots").await;
    let watch = json!({ "type": "watch", "id": Uuid::new_v4(), "content": "dawn", "state": "playing", "watchedMs": 0 });
    bot.send_event(watch).await;
    ann.view_page(Uuid::new_v4(), "/people").await;
    bot.expect_ack(2).await;
    ann.expect_ack(1).await;
    let live = live_activity(&hub).await;
    assert_eq!(live["pages"], json!([{ "path": "/people", "count": 1 }]));
    assert_eq!(live["watching"], json!([]));
    let views = "SELECT json_array(visitor, path, is_bot) FROM page_views ORDER BY path";
    assert_eq!(hub.rows(views).await, [json!(["bot", "/bots", 1]), json!(["ann", "/people", 0])]);
    let watches = "SELECT json_array(visitor, content, is_bot) FROM watch_sessions";
    assert_eq!(hub.rows(watches).await, [json!(["bot", "dawn", 1])]);
    assert_eq!(hub.metric("breathing_room_bot_events_total").await, 2.0);
    assert_eq!(hub.metric("breathing_room_events_queued_total").await, 3.0);
}

#[tokio::test]
async fn user_agent_marks_posted_events_as_bot() {
    let hub = Hub::start().await;
    let view = |path: &str| json!({ "id": Uuid::new_v4(), "path": path, "visitor": "v", "room": "lobby" });
    let post = |path: &str| hub.post("/page-view?durable=true").json(&view(path));
    post("/none").send().await.expect(200);
    let browser = post("/browser").header("user-agent", BROWSER).send().await.expect(200);
    assert_eq!(browser, json!({ "committed": 1 }));
    let many = json!([view("/bot-1"), view("/bot-2")]);
    let many = hub.post("/page-view?durable=true").json(&many).header("user-agent", BOT);
    assert_eq!(many.send().await.expect(200), json!({ "committed": 2, "bot": true }));
    let queued = hub.post("/page-view").json(&view("/bot-3")).header("user-agent", BOT);
    assert_eq!(queued.send().await.expect(202), json!({ "queued": 1, "bot": true }));
    let watch = json!({ "id": Uuid::new_v4(), "content": "c", "state": "ended", "watchedMs": 5,
        "visitor": "v", "room": "lobby" });
    let watch = hub.post("/watch-session?durable=true").json(&watch).header("user-agent", BOT);
    watch.send().await.expect(200);
    let bots = "SELECT json_quote(path) FROM page_views WHERE is_bot ORDER BY path";
    assert_eq!(hub.rows(bots).await, ["/bot-1", "/bot-2", "/bot-3"]);
    assert_eq!(hub.rows("SELECT count(*) FROM page_views").await, [5]);
    assert_eq!(hub.rows("SELECT count(*) FROM watch_sessions WHERE is_bot").await, [1]);
    assert_eq!(hub.metric("breathing_room_bot_events_total").await, 4.0);
}

#[tokio::test]
async fn presence_samples_exclude_bots() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let mut bot = join_bot(&hub, "lobby").await;
    let _elsewhere = join_bot(&hub, "garden").await;
    let pass = |seconds| clock.advance(std::time::Duration::from_secs(seconds));
    pass(5);
    let ann = hub.join_with_mood("lobby", "ann", "calm").await;
    pass(7);
    ann.leave().await;
    bot.expect_present(0).await;
    pass(11);
    hub.flush().await;
    let samples =
        "SELECT json_array(room, present_ms, peak, joins, json(moods_ms)) FROM presence ORDER BY room";
    let expected =
        [json!([null, 7_000, 1, 1, { "calm": 7_000 }]), json!(["lobby", 7_000, 1, 1, { "calm": 7_000 }])];
    assert_eq!(hub.rows(samples).await, expected);
}
