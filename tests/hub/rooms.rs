//! Rooms: welcome, presence and moods; visitors and not sockets count; slow readers get the latest state only.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::{Client, Hub, eventually};

const MOODS: [&str; 10] =
    ["calm", "gratitude", "presence", "joy", "love", "peace", "hope", "tired", "anxious", "sad"];

#[tokio::test]
async fn welcome_has_all_documented_fields() {
    let hub = Hub::start().await;
    let ann = hub.join_with_mood("lobby", "ann", "joy").await;
    let welcome = &ann.welcome;
    assert_eq!(welcome["protocol"], 1);
    assert_eq!(welcome["visitor"], "ann");
    assert_eq!(welcome["room"], "lobby");
    assert_eq!(welcome["present"], 1);
    assert_eq!(welcome["moods"], json!({ "joy": 1 }));
    assert_eq!(welcome["vocabulary"], json!(MOODS));
    assert!(welcome["seq"].as_u64().unwrap() > 0);
    assert!(welcome["serverTime"].as_u64().unwrap() > 1_700_000_000_000);
    assert!(uuid::Uuid::parse_str(welcome["session"].as_str().unwrap()).is_ok());
}

#[tokio::test]
async fn visitor_without_an_id_gets_one() {
    let hub = Hub::start().await;
    let ann = Client::join(&hub.address, "lobby", "").await;
    let mut bob = Client::join(&hub.address, "lobby", "").await;
    assert_ne!(ann.welcome["visitor"], bob.welcome["visitor"]);
    assert_eq!(bob.present, 2);
    ann.leave().await;
    bob.expect_present(1).await;
}

#[tokio::test]
async fn joins_moods_and_leaves_are_published_to_the_room() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let mut bob = hub.join_with_mood("lobby", "bob", "calm").await;
    let elsewhere = hub.join_with_mood("garden", "eve", "sad").await;
    ann.expect_present(2).await.expect_moods(json!({ "calm": 1 })).await;
    ann.set_mood(Some("calm")).await;
    bob.expect_moods(json!({ "calm": 2 })).await;
    bob.set_mood(Some("hope")).await;
    ann.expect_moods(json!({ "calm": 1, "hope": 1 })).await;
    bob.set_mood(None).await;
    ann.expect_moods(json!({ "calm": 1 })).await;
    assert_eq!((ann.present, elsewhere.present), (2, 1));
    bob.leave().await;
    ann.expect_present(1).await;
}

#[tokio::test]
async fn two_tabs_of_one_visitor_count_once() {
    let hub = Hub::start().await;
    let mut bob = hub.join("lobby", "bob").await;
    let tab_1 = hub.join_with_mood("lobby", "ann", "calm").await;
    bob.expect_present(2).await;
    let mut tab_2 = hub.join("lobby", "ann").await;
    assert_eq!((tab_2.present, &tab_2.moods), (2, &json!({ "calm": 1 })));
    tab_2.set_mood(Some("joy")).await; // the mood set last by any tab applies
    bob.expect_moods(json!({ "joy": 1 })).await;
    tab_1.leave().await;
    hub.expect_debug("sessions", 2).await;
    assert_eq!(hub.get("/rooms/lobby").send().await.expect(200)["present"], 2);
    tab_2.leave().await;
    bob.expect_present(1).await.expect_moods(json!({})).await;
}

#[tokio::test]
async fn mood_change_never_shows_as_a_leave() {
    let hub = Hub::start().await;
    let mut bob = hub.join("lobby", "bob").await;
    let mut ann = hub.join_with_mood("lobby", "ann", "calm").await;
    bob.expect_present(2).await;
    for mood in MOODS.iter().cycle().skip(1).take(40) {
        ann.set_mood(Some(mood)).await;
    }
    ann.set_mood(Some("sad")).await;
    while bob.moods != json!({ "sad": 1 }) {
        bob.read().await;
        assert_eq!(bob.present, 2);
        assert_eq!(bob.moods.as_object().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn socket_room_route_and_live_activity_agree() {
    let hub = Hub::start().await;
    let mut ann = hub.join_with_mood("lobby", "ann", "calm").await;
    let _tab = hub.join("lobby", "ann").await;
    let _bob = hub.join("lobby", "bob").await;
    let _ann_too = hub.join_with_mood("garden", "ann", "joy").await;
    ann.expect_present(2).await;
    let room = hub.get("/rooms/lobby").send().await;
    assert_eq!(room.header("cache-control"), "public, max-age=5");
    let room = room.expect(200);
    assert_eq!(
        room,
        json!({ "room": "lobby", "seq": ann.seq, "present": 2, "held": 0, "moods": { "calm": 1 } })
    );
    let live = hub.get("/live-activity").send().await.expect(200);
    assert_eq!(live["liveUsers"], 2); // Ann counts once, in any number of rooms
    assert_eq!(live["sessions"], 4);
    assert_eq!(live["moods"], json!({ "calm": 1, "joy": 1 }));
    let rooms = json!([
        { "room": "lobby", "present": 2, "held": 0, "moods": { "calm": 1 } },
        { "room": "garden", "present": 1, "held": 0, "moods": { "joy": 1 } },
    ]);
    assert_eq!(live["rooms"], rooms);
    let empty = hub.get("/rooms/empty-room").send().await.expect(200);
    assert_eq!(empty, json!({ "room": "empty-room", "seq": 0, "present": 0, "held": 0, "moods": {} }));
}

#[tokio::test]
async fn slow_reader_gets_latest_state_only() {
    let hub = Hub::with(|config| config.transport.limits = None).await;
    let mut slow = hub.join("lobby", "slow").await;
    let mut ann = hub.join("lobby", "ann").await;
    for change in 0..2_000 {
        ann.set_mood(Some(MOODS[change % 2])).await;
    }
    ann.set_mood(Some("peace")).await;
    ann.expect_moods(json!({ "peace": 1 })).await;
    slow.expect_moods(json!({ "peace": 1 })).await;
    assert!(slow.presence_frames <= 40, "{} frames", slow.presence_frames);
}

#[tokio::test]
async fn empty_rooms_leave_no_task_and_no_memory() {
    let hub = Hub::start().await;
    hub.debug("roomCount").await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut clients = Vec::new();
    for n in 0..30 {
        clients.push(hub.join(&format!("room-{}", n % 10), &format!("v{n}")).await);
    }
    hub.expect_debug("roomCount", 10).await;
    for client in clients {
        client.leave().await;
    }
    hub.expect_debug("roomCount", 0).await;
    assert_eq!(hub.debug("liveUsers").await, 0);
    hub.expect_debug("connections", 0).await;
    eventually(async || tasks() <= before, "no task remains").await;
}

#[tokio::test]
async fn reopened_room_starts_at_seq_1_without_moods() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    ann.set_mood(Some("calm")).await;
    ann.expect_moods(json!({ "calm": 1 })).await;
    ann.leave().await;
    hub.expect_debug("roomCount", 0).await;
    let ann = hub.join("lobby", "ann").await;
    assert_eq!((ann.seq, ann.present, &ann.moods), (1, 1, &json!({})));
}

#[tokio::test]
async fn full_hub_rejects_the_upgrade_with_503() {
    let hub = Hub::with(|config| {
        config.transport.max_connections = 3;
        config.presence.max_rooms = 1;
    })
    .await;
    let ann = hub.join("lobby", "ann").await;
    let upgrade = |room: &str| hub.get(&format!("/rooms/{room}/socket")).upgrade();
    let no_room = upgrade("garden").send().await;
    assert!(no_room.expect_error(503, "full").contains("rooms"));
    let (_bob, _eve) = (hub.join("lobby", "bob").await, hub.join("lobby", "eve").await);
    let at_capacity = upgrade("lobby").send().await;
    at_capacity.expect_error(503, "full");
    assert!(at_capacity.header("retry-after").parse::<u32>().unwrap() > 0);
    ann.leave().await;
    hub.expect_debug("connections", 2).await;
    hub.join("lobby", "max").await.expect_present(3).await;
}

#[tokio::test]
async fn live_socket_sends_activity_on_open_and_on_change() {
    let hub = Hub::start().await;
    let _ann = hub.join_with_mood("lobby", "ann", "calm").await;
    let mut viewer = Client::connect(&format!("ws://{}/live", hub.address)).await.unwrap();
    let first = viewer.next().await.unwrap();
    assert_eq!(first["type"], "live-activity");
    assert_eq!((&first["liveUsers"], &first["moods"]), (&json!(1), &json!({ "calm": 1 })));
    let mut bob = hub.join("garden", "bob").await;
    bob.view_page(uuid::Uuid::new_v4(), "/sunrise").await;
    let mut last = first;
    while last["pages"] != json!([{ "path": "/sunrise", "count": 1 }]) {
        let next = viewer.next().await.unwrap();
        assert!(next["timestamp"].as_u64() > last["timestamp"].as_u64());
        last = next;
    }
    assert_eq!(last["liveUsers"], 2);
    viewer.send_json(json!({ "type": "mood", "mood": "calm" })).await;
    viewer.expect_error("unknown-type").await;
    assert_eq!(hub.metric("breathing_room_connections").await, 3.0);
    assert_eq!(hub.metric("breathing_room_sessions").await, 2.0);
}

#[tokio::test]
async fn live_activity_is_at_most_32_kib() {
    let hub = Hub::start().await;
    let mut visitors = Vec::new();
    for n in 0..60 {
        let mut client = hub.join("lobby", &format!("v{n}")).await;
        // Each control character takes six bytes of JSON.
        client.view_page(uuid::Uuid::new_v4(), &format!("{}{n:02}", "\u{1}".repeat(510))).await;
        client.round_trip().await;
        visitors.push(client);
    }
    let most = "/most-viewed";
    for client in &mut visitors[..2] {
        client.view_page(uuid::Uuid::new_v4(), most).await;
        client.round_trip().await;
    }
    eventually(async || hub.get("/live-activity").send().await.text.contains(most), "the page is listed")
        .await;
    let response = hub.get("/live-activity").send().await;
    assert!(response.text.len() <= 32 * 1024, "{} bytes", response.text.len());
    let pages = response.expect(200)["pages"].clone();
    assert_eq!((&pages[0], pages.as_array().unwrap().len()), (&json!({ "path": most, "count": 2 }), 3));
    let mut viewer = Client::connect(&format!("ws://{}/live", hub.address)).await.unwrap();
    assert_eq!(viewer.next().await.unwrap()["pages"], pages);
}

/// Random joins, moods, leaves and disconnects; at the end all sockets agree with a model.
#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_random_visitors_match_a_model() {
    let hub = Hub::with(|config| config.presence.leave_grace = std::time::Duration::from_millis(100)).await;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut clients: Vec<(usize, String, Client)> = Vec::new();
    let mut moods: BTreeMap<(usize, String), &str> = BTreeMap::new();
    for n in 0..300 {
        let (room, visitor) = (random.random_range(0..5), format!("v{n}"));
        clients.push((room, visitor.clone(), hub.join(&format!("room-{room}"), &visitor).await));
        // One of the clients acts.
        let index = random.random_range(0..clients.len());
        let mood = MOODS[random.random_range(0..MOODS.len())];
        match random.random_range(0..6) {
            0 | 1 => {
                let (room, visitor, client) = &mut clients[index];
                client.set_mood(Some(mood)).await;
                client.round_trip().await; // another tab of the visitor may be next
                moods.insert((*room, visitor.clone()), mood);
            }
            2 => {
                let (room, visitor, client) = &mut clients[index];
                client.set_mood(None).await;
                client.round_trip().await;
                moods.remove(&(*room, visitor.clone()));
            }
            3 => {
                let (room, visitor, _) = &clients[index];
                let (room, visitor) = (*room, visitor.clone());
                let tab = hub.join(&format!("room-{room}"), &visitor).await;
                clients.push((room, visitor, tab));
            }
            4 => clients.swap_remove(index).2.leave().await,
            _ => clients.swap_remove(index).2.disconnect(),
        }
    }
    // The model: the present visitors, and the last mood of each.
    let mut expected = vec![(BTreeSet::new(), BTreeMap::<&str, u64>::new()); 5];
    for (room, visitor, _) in &clients {
        let (visitors, counts) = &mut expected[*room];
        if visitors.insert(visitor.clone())
            && let Some(mood) = moods.get(&(*room, visitor.clone()))
        {
            *counts.entry(mood).or_default() += 1;
        }
    }
    for (room, visitor, client) in &mut clients {
        let (visitors, counts) = &expected[*room];
        let state = |client: &Client| (client.present, client.moods.clone());
        let wanted = (visitors.len() as u64, json!(counts));
        while state(client) != wanted {
            client.read().await;
            assert!(client.seq > 0, "{visitor}");
        }
    }
    for (room, (visitors, counts)) in expected.iter().enumerate() {
        let state: Value = hub.get(&format!("/rooms/room-{room}")).send().await.expect(200);
        assert_eq!((&state["present"], &state["moods"]), (&json!(visitors.len()), &json!(counts)));
    }
    hub.stop().await;
}

#[tokio::test]
async fn percent_encoded_room_name_is_the_same_room() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let bob = hub.join("l%6Fbby", "bob").await; // percent-encoded
    assert_eq!(bob.welcome["room"], "lobby");
    ann.expect_present(2).await;
    let opened = r#"breathing_room_http_requests_total{route="/rooms/{room}/socket",status="101"}"#;
    assert_eq!(hub.metric(opened).await, 2.0);
}
