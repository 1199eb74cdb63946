//! Sits: a visitor who set one stays present until its end when the socket is lost, and not when the visitor leaves.

use std::num::NonZeroU32;
use std::time::Duration;

use breathing_room::Config;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Disconnect;
use crate::support::{Client, Hub, Program, eventually, manual_clock, open_database, rows};

const HOUR_MS: u64 = 3_600_000;

/// Sets a sit and returns its end.
async fn sit(client: &mut Client, for_ms: u64) -> Value {
    client.send_json(json!({ "type": "sit", "forMs": for_ms })).await;
    client.expect("sit").await["until"].clone()
}

/// The visitors of the lobby who are held, by reason.
async fn held(hub: &Hub, reason: &str) -> usize {
    let page = hub.get("/metrics").admin().send().await.text;
    let start = format!("breathing_room_held{{reason=\"{reason}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

async fn expect_held(hub: &Hub, reason: &str, expected: usize) {
    eventually(async || held(hub, reason).await == expected, &format!("{expected} {reason}")).await;
}

async fn present(hub: &Hub) -> Value {
    hub.get("/rooms/lobby").send().await.expect(200)["present"].clone()
}

#[tokio::test]
async fn ping_is_answered_and_welcome_says_when_to_send_one() {
    let mut ann = Hub::start().await.join("lobby", "ann").await;
    assert_eq!(ann.welcome["pingAfterMs"], 60_000);
    assert!(ann.welcome.get("sit").is_none() && ann.welcome.get("mood").is_none());
    ann.send_json(json!({ "type": "ping" })).await;
    assert!(ann.expect("pong").await["serverTime"].as_u64().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn ping_is_answered_while_the_database_is_locked() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let mut other = open_database(&hub.file()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    ann.view_page(uuid::Uuid::new_v4(), "/").await;
    ann.send_json(json!({ "type": "ping" })).await;
    ann.expect("pong").await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
}

#[tokio::test]
async fn lost_socket_with_a_sit_keeps_the_visitor_until_the_end_of_the_sit() {
    let hub = Hub::start().await; // without a leave grace
    let mut bob = hub.join("lobby", "bob").await;
    for end in ["break", "4000", "1011", "1012", "1013"] {
        let mut ann = hub.join("lobby", "ann").await;
        let until = sit(&mut ann, HOUR_MS).await;
        bob.expect_present(2).await;
        match end {
            "break" => ann.disconnect(),
            code => _ = ann.close(code.parse().unwrap()).await,
        }
        expect_held(&hub, "sit", 1).await;
        let ann = hub.join("lobby", "ann").await;
        assert_eq!((ann.present, &ann.welcome["sit"]), (2, &until), "{end}: coming back goes on with it");
        ann.leave().await;
        bob.expect_present(1).await;
    }
}

#[tokio::test]
async fn sits_of_two_visitors_end_at_their_deadlines() {
    let hub = Hub::start().await;
    let mut bob = hub.join("lobby", "bob").await;
    let (mut ann, mut eve) = (hub.join("lobby", "ann").await, hub.join("lobby", "eve").await);
    bob.expect_present(3).await;
    sit(&mut ann, 300).await;
    sit(&mut eve, 600).await;
    ann.disconnect();
    eve.disconnect();
    bob.expect_present(1).await;
    let ann = hub.join("lobby", "ann").await;
    assert!(ann.welcome.get("sit").is_none(), "it is over");
    ann.leave().await;
    expect_held(&hub, "sit", 0).await;
}

#[tokio::test]
async fn close_1000_on_the_last_socket_ends_the_sit() {
    let hub = Hub::start().await;
    let mut bob = hub.join("lobby", "bob").await;
    let (mut one, mut two) = (hub.join("lobby", "ann").await, hub.join("lobby", "ann").await);
    bob.expect_present(2).await;
    sit(&mut one, HOUR_MS).await;
    bob.expect_present(2).await;
    one.leave().await;
    two.round_trip().await;
    two.disconnect();
    expect_held(&hub, "sit", 1).await;
    let (one, two) = (hub.join("lobby", "ann").await, hub.join("lobby", "ann").await);
    assert!(two.welcome["sit"].is_u64(), "the other socket was still there");
    one.disconnect();
    hub.expect_debug("sessions", 2).await;
    two.leave().await;
    bob.expect_present(1).await;
    assert!(hub.join("lobby", "ann").await.welcome.get("sit").is_none());
}

#[tokio::test]
async fn close_1001_ends_the_sit_after_the_leave_grace() {
    let hub = Hub::with(|config| config.presence.leave_grace = Duration::from_hours(1)).await;
    let mut ann = hub.join("lobby", "ann").await;
    let until = sit(&mut ann, 2 * HOUR_MS / 3).await;
    ann.close(1001).await;
    expect_held(&hub, "grace", 1).await;
    assert_eq!(hub.join("lobby", "ann").await.welcome["sit"], until, "a reload goes on with it");

    let hub = Hub::start().await; // without a leave grace
    let mut bob = hub.join("lobby", "bob").await;
    for code in [1001, 1005, 3000] {
        let mut ann = hub.join("lobby", "ann").await;
        bob.expect_present(2).await;
        sit(&mut ann, HOUR_MS).await;
        match code {
            1005 => {
                ann.send(Message::Close(None)).await;
                ann.expect_disconnect().await;
            }
            code => _ = ann.close(code).await,
        }
        bob.expect_present(1).await;
        let ann = hub.join("lobby", "ann").await;
        assert!(ann.welcome.get("sit").is_none(), "{code}: a closed tab is no phantom");
        bob.expect_present(2).await;
        ann.leave().await;
        bob.expect_present(1).await;
    }
}

#[tokio::test]
async fn close_by_the_hub_for_a_violation_ends_the_sit() {
    let hub = Hub::with(|config| config.presence.leave_grace = Duration::from_hours(1)).await;
    for violation in ["binary", "text", "rate"] {
        let mut ann = hub.join("lobby", "ann").await;
        sit(&mut ann, HOUR_MS).await;
        let code = match violation {
            "binary" => {
                ann.send(Message::Binary(vec![1].into())).await;
                1003
            }
            "text" => {
                ann.write_bytes(&[0x81, 0x81, 0, 0, 0, 0, 0xff]).await;
                1007
            }
            _ => {
                for _ in 0..400 {
                    _ = ann.try_send_json(json!({ "type": "ping" })).await;
                }
                1008
            }
        };
        assert_eq!(ann.expect_disconnect().await, Disconnect::Closed(code));
        drop(ann);
        expect_held(&hub, "grace", 1).await;
        assert!(hub.join("lobby", "ann").await.welcome.get("sit").is_none(), "{violation}");
        hub.expect_debug("sessions", 0).await;
    }
}

#[tokio::test]
async fn last_sit_that_is_set_applies_and_is_cut_to_the_limit() {
    let hub = Hub::with(|config| config.presence.sit_limit = Duration::from_mins(5)).await;
    let mut ann = hub.join("lobby", "ann").await;
    let before = ann.welcome["serverTime"].as_u64().unwrap();
    let until = sit(&mut ann, (1 << 53) - 1).await.as_u64().unwrap();
    assert!((before + 300_000..before + 320_000).contains(&until), "{until}");
    let mut two = hub.join("lobby", "ann").await;
    assert_eq!(two.welcome["sit"], until);
    let shorter = sit(&mut two, 60_000).await;
    assert_eq!(hub.join("lobby", "ann").await.welcome["sit"], shorter);
    assert_eq!(sit(&mut ann, 0).await, Value::Null);
    assert!(hub.join("lobby", "ann").await.welcome.get("sit").is_none());
    assert!(hub.join("garden", "ann").await.welcome.get("sit").is_none(), "a sit is for one room");
}

#[tokio::test]
async fn bots_and_hubs_without_sits_refuse_them() {
    let refuse = async |mut client: Client| {
        client.send_json(json!({ "type": "sit", "forMs": 1_000 })).await;
        client.expect_error("sit-refused").await
    };
    let hub = Hub::start().await;
    refuse(Client::join_with_user_agent("Googlebot/2.1", &hub.address, "lobby", "visitor=b").await).await;
    let hub = Hub::with(|config| config.presence.sit_limit = Duration::ZERO).await;
    let error = refuse(hub.join("lobby", "ann").await).await;
    assert!(error["message"].as_str().unwrap().contains("SIT_LIMIT"), "{error}");
}

#[tokio::test]
async fn erasure_ends_the_sit() {
    let hub = Hub::start().await;
    let (mut ann, mut eve) = (hub.join("lobby", "ann").await, hub.join("lobby", "eve").await);
    sit(&mut ann, HOUR_MS).await;
    sit(&mut eve, HOUR_MS).await;
    ann.disconnect();
    expect_held(&hub, "sit", 1).await;
    for visitor in ["ann", "eve"] {
        hub.delete(&format!("/visitors/{visitor}/data")).admin().send().await.expect(200);
        assert!(hub.join("lobby", visitor).await.welcome.get("sit").is_none(), "{visitor}");
    }
    assert_eq!(rows(&hub.file(), "SELECT count(*) FROM seats").await, [0]);
    eve.disconnect();
    eventually(async || present(&hub).await == 0, "nothing holds Eve").await;
}

fn sits_over_restarts(config: &mut Config) {
    config.presence.seat_hold = Duration::from_millis(1);
}

#[tokio::test]
async fn restart_keeps_sits_with_and_without_a_socket() {
    let hub = Hub::with(sits_over_restarts).await;
    let mut clients = Vec::new();
    for visitor in ["ann", "bob", "eve"] {
        clients.push(Client::join(&hub.address, "lobby", &format!("visitor={visitor}&mood=calm")).await);
    }
    let mut ends = Vec::new();
    for client in &mut clients[..2] {
        ends.push(sit(client, HOUR_MS).await.as_u64().unwrap());
    }
    clients.remove(0).disconnect();
    expect_held(&hub, "sit", 1).await;
    let stop = async { hub.stop().await };
    let closed = async {
        for client in &mut clients {
            assert_eq!(client.expect_disconnect().await, Disconnect::Closed(1012));
        }
    };
    let (folder, ()) = tokio::join!(stop, closed);
    let hub = Hub::in_folder(folder, sits_over_restarts).await;
    eventually(async || present(&hub).await == 2, "Eve had no sit").await;
    assert_eq!(held(&hub, "sit").await, 2);
    for (visitor, end) in ["ann", "bob"].into_iter().zip(ends) {
        let client = hub.join("lobby", visitor).await;
        assert_eq!(client.moods, json!({ "calm": 2 }));
        let until = client.welcome["sit"].as_u64().unwrap();
        assert!((end - 1_000..end + 60_000).contains(&until), "{visitor}: {until}, before the restart {end}");
        client.disconnect();
    }
}

#[tokio::test]
async fn kill_9_in_the_middle_of_a_sit_keeps_it_with_the_newest_mood() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("FLUSH_INTERVAL", "20ms"), ("RATE_LIMITS", "off")];
    let hub = Program::start(folder.path(), &settings).await;
    let mut ann = Client::join(&hub.address, "lobby", "visitor=ann&mood=calm").await;
    let _bob = hub.join("lobby", "bob").await;
    let until = sit(&mut ann, HOUR_MS).await.as_u64().unwrap();
    let file = folder.path().join("hub.db");
    let saved = async |mood: &str| {
        let query = "SELECT json_array(visitor, mood, reason, sit_until = held_until) FROM seats";
        let expected = [json!(["ann", mood, "sit", 1])];
        eventually(async || rows(&file, query).await == expected, mood).await;
    };
    saved("calm").await;
    ann.set_mood(Some("joy")).await; // with a socket: the holds do not change
    saved("joy").await;
    hub.signal("KILL").await;
    hub.wait().await;
    let hub = Program::start(folder.path(), &settings).await;
    let lobby = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&lobby["present"], &lobby["held"]), (&json!(1), &json!(1)), "{lobby}");
    assert_eq!(lobby["moods"], json!({ "joy": 1 }));
    let ann = hub.join("lobby", "ann").await;
    let now = ann.welcome["sit"].as_u64().unwrap();
    assert!((until - 1_000..until + 1_000).contains(&now), "{now}, before the crash {until}");
}

#[tokio::test]
async fn each_mood_is_confirmed_on_its_socket_and_the_newest_comes_last() {
    let hub = Hub::start().await;
    let mut one = Client::join(&hub.address, "lobby", "visitor=ann&features=own-mood").await;
    let mut two = Client::join(&hub.address, "lobby", "visitor=ann&features=own-mood").await;
    let moods = ["calm", "joy", "hope", "peace", "love"];
    for mood in moods {
        one.set_mood(Some(mood)).await;
    }
    for mood in moods {
        while one.expect("own-mood").await["mood"] != mood {}
    }
    two.set_mood(Some("sad")).await;
    for client in [&mut one, &mut two] {
        while client.expect("own-mood").await["mood"] != "sad" {}
    }
}

#[tokio::test]
async fn own_mood_reaches_the_visitors_sockets_that_asked_for_it() {
    let hub = Hub::start().await;
    let with = |visitor, mood| format!("visitor={visitor}&features=x,own-mood{mood}");
    let mut one = Client::join(&hub.address, "lobby", &with("ann", "")).await;
    assert_eq!(one.welcome["mood"], Value::Null);
    assert!(one.welcome.as_object().unwrap().contains_key("mood"));
    let mut two = Client::join(&hub.address, "lobby", &with("ann", "&mood=calm")).await;
    assert_eq!(two.welcome["mood"], "calm");
    let mut old = hub.join("lobby", "ann").await;
    let mut bob = Client::join(&hub.address, "lobby", &with("bob", "")).await;
    let mut garden = Client::join(&hub.address, "garden", &with("ann", "")).await;
    assert_eq!(one.expect("own-mood").await["mood"], "calm", "a join may set the mood");
    for mood in [Some("joy"), None, Some("calm")] {
        two.set_mood(mood).await;
        for client in [&mut one, &mut two] {
            while client.expect("own-mood").await["mood"] != json!(mood) {}
        }
    }
    one.set_mood(Some("calm")).await; // the same again is confirmed too
    assert_eq!(one.expect("own-mood").await["mood"], "calm");
    for client in [&mut old, &mut bob, &mut garden] {
        client.send_json(json!({ "type": "ping" })).await;
        client.expect("pong").await;
        assert!(!client.has_received("own-mood"));
    }
    one.leave().await;
    let mut bob_again = Client::join(&hub.address, "lobby", &with("bob", "")).await; // may get the id of the old socket
    old.set_mood(Some("hope")).await;
    while two.expect("own-mood").await["mood"] != "hope" {}
    bob_again.expect_moods(json!({ "hope": 1 })).await;
    assert!(!bob_again.has_received("own-mood"));
}

#[tokio::test]
async fn own_sit_reaches_the_visitors_sockets_that_asked_for_it() {
    let hub = Hub::start().await;
    let with = |visitor, features| format!("visitor={visitor}&features={features}");
    let mut phone = Client::join(&hub.address, "lobby", &with("ann", "own-sit,own-mood")).await;
    let mut laptop = Client::join(&hub.address, "lobby", &with("ann", "own-sit")).await;
    let mut old = Client::join(&hub.address, "lobby", &with("ann", "own-mood")).await;
    let mut bob = Client::join(&hub.address, "lobby", &with("bob", "own-sit")).await;
    let mut garden = Client::join(&hub.address, "garden", &with("ann", "own-sit")).await;
    for for_ms in [HOUR_MS, HOUR_MS / 2, 0] {
        let until = sit(&mut phone, for_ms).await;
        for client in [&mut phone, &mut laptop] {
            assert_eq!(client.expect("own-sit").await["until"], until);
        }
    }
    sit(&mut laptop, HOUR_MS).await;
    phone.expect("own-sit").await;
    laptop.expect("own-sit").await;
    // Without its socket the phone is held, and the laptop's end of the sit reaches the next one.
    phone.disconnect();
    hub.expect_debug("sessions", 4).await;
    let mut phone = Client::join(&hub.address, "lobby", &with("ann", "own-sit")).await;
    assert!(phone.welcome["sit"].is_u64());
    assert_eq!(sit(&mut laptop, 0).await, Value::Null);
    assert_eq!(phone.expect("own-sit").await["until"], Value::Null);
    for client in [&mut old, &mut bob, &mut garden] {
        client.round_trip().await;
        assert!(!client.has_received("own-sit"));
    }
    assert!(!laptop.has_received("own-mood"));
}

#[tokio::test]
async fn erasure_is_an_own_sit_without_an_end() {
    let hub = Hub::start().await;
    let mut ann = Client::join(&hub.address, "lobby", "visitor=ann&features=own-sit").await;
    sit(&mut ann, HOUR_MS).await;
    assert!(ann.expect("own-sit").await["until"].is_u64());
    hub.delete("/visitors/ann/data").admin().send().await.expect(200);
    assert_eq!(ann.expect("own-sit").await["until"], Value::Null);
}

#[tokio::test]
async fn lost_visitor_who_sits_is_held_in_responses() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    sit(&mut ann, HOUR_MS).await;
    ann.disconnect();
    expect_held(&hub, "sit", 1).await;
    let lobby = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&lobby["present"], &lobby["held"]), (&json!(1), &json!(1)));
    let listed = json!([{ "room": "lobby", "present": 1, "held": 1, "moods": {} }]);
    hub.expect_live_activity("rooms", listed).await;
}

#[tokio::test]
async fn sits_beyond_the_limit_of_an_address_are_refused_and_the_grace_holds() {
    let hub = Hub::with(|config| {
        let limits = config.transport.limits.as_mut().unwrap();
        limits.sockets = NonZeroU32::new(2).unwrap();
    })
    .await;
    for visitor in ["ann", "bob"] {
        let mut client = hub.join("lobby", visitor).await;
        sit(&mut client, HOUR_MS).await;
        sit(&mut client, HOUR_MS).await; // again is no second sit
        client.disconnect();
        hub.expect_debug("sessions", 0).await;
    }
    expect_held(&hub, "sit", 2).await;
    // A held visitor takes no socket's place, so that those who come back are not rejected.
    let (mut eve, ann) = (hub.join("lobby", "eve").await, hub.join("lobby", "ann").await);
    eve.send_json(json!({ "type": "sit", "forMs": HOUR_MS })).await;
    let error = eve.expect_error("sit-refused").await;
    assert!(error["message"].as_str().unwrap().contains("from your address"), "{error}");
    eve.disconnect();
    eventually(async || present(&hub).await == 2, "Eve has the grace only, which is zero here").await;
    let page = hub.get("/metrics").admin().send().await.text;
    assert!(page.contains("breathing_room_limited_total{reason=\"address-sits\"} 1"), "{page}");
    ann.leave().await;
    let mut eve = hub.join("lobby", "eve").await;
    assert!(sit(&mut eve, HOUR_MS).await.is_u64(), "Ann's place is free again");
}

#[tokio::test]
async fn sits_of_the_last_run_count_against_the_hub_only() {
    let few = |config: &mut Config| {
        config.transport.max_connections = 2;
        config.transport.limits.as_mut().unwrap().sockets = NonZeroU32::new(1).unwrap();
    };
    let hub = Hub::with(few).await;
    let mut ann = hub.join("lobby", "ann").await;
    sit(&mut ann, HOUR_MS).await;
    ann.disconnect();
    expect_held(&hub, "sit", 1).await;
    let hub = Hub::in_folder(hub.stop().await, few).await;
    expect_held(&hub, "sit", 1).await;
    let mut bob = hub.join("lobby", "bob").await;
    sit(&mut bob, HOUR_MS).await;
    bob.disconnect();
    expect_held(&hub, "sit", 2).await;
    let mut eve = hub.join("lobby", "eve").await;
    eve.send_json(json!({ "type": "sit", "forMs": 1 })).await;
    let error = eve.expect_error("sit-refused").await;
    assert!(error["message"].as_str().unwrap().contains("of this hub"), "{error}");
}

#[tokio::test]
async fn held_visitor_who_is_back_from_another_address_may_sit_again_while_the_hub_is_full() {
    let few = |config: &mut Config| config.transport.max_connections = 2;
    let hub = Hub::with(few).await;
    let mut ann = hub.join("lobby", "ann").await;
    sit(&mut ann, HOUR_MS).await;
    ann.disconnect();
    expect_held(&hub, "sit", 1).await;
    // After a restart the sit has no address, as if it were another one.
    let hub = Hub::in_folder(hub.stop().await, few).await;
    expect_held(&hub, "sit", 1).await;
    let mut bob = hub.join("lobby", "bob").await;
    sit(&mut bob, HOUR_MS).await;
    let mut ann = hub.join("lobby", "ann").await;
    assert!(sit(&mut ann, HOUR_MS).await.is_u64(), "her own permit counts");
    bob.leave().await;
    hub.expect_debug("sessions", 1).await;
    let mut eve = hub.join("lobby", "eve").await;
    assert!(sit(&mut eve, HOUR_MS).await.is_u64(), "no permit is lost or counted twice");
    ann.leave().await;
    eve.leave().await;
}

#[tokio::test]
async fn presence_history_has_held_time_and_sits() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let mut ann = hub.join("lobby", "ann").await;
    sit(&mut ann, HOUR_MS).await;
    sit(&mut ann, HOUR_MS / 2).await; // another end of the same sit
    clock.advance(Duration::from_secs(10));
    ann.disconnect();
    expect_held(&hub, "sit", 1).await;
    clock.advance(Duration::from_secs(20));
    let (mut bob, mut eve) = (hub.join("garden", "bob").await, hub.join("garden", "eve").await);
    sit(&mut eve, HOUR_MS).await;
    eve.leave().await; // begun, and not completed
    sit(&mut bob, 50).await;
    let ended = async || hub.join("garden", "bob").await.welcome.get("sit").is_none();
    eventually(ended, "Bob's sit is over, with a socket").await;
    hub.flush().await;
    let rows = hub
        .rows("SELECT json_array(room, present_ms, held_ms, sits_begun, sits_completed, sat_ms) FROM presence ORDER BY 1")
        .await;
    let expected = [
        json!([null, 30_000, 20_000, 3, 1, 30_000]),
        json!(["garden", 0, 0, 2, 1, 0]),
        json!(["lobby", 30_000, 20_000, 1, 0, 30_000]),
    ];
    for row in &expected {
        assert!(rows.contains(row), "{row} is not in {rows:?}");
    }
    let totals = hub.get("/unified-stats?range=24h").send().await.expect(200)["totals"].clone();
    assert_eq!(totals["sits"], json!({ "begun": 3, "completed": 1, "minutes": 0.5 }));
    assert!(totals["averageHeld"].is_number());
    let garden = hub.get("/unified-stats?range=24h&room=garden").send().await.expect(200);
    assert_eq!(garden["series"][24]["sits"], json!({ "begun": 2, "completed": 1, "minutes": 0.0 }));
}
