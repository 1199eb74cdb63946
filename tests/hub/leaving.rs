//! Leaving: immediately with 1000, otherwise after the grace time, and not at all if the visitor returns.

use std::time::{Duration, Instant};

use breathing_room::Config;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Disconnect;
use crate::support::{Client, Hub, Program, eventually};

fn grace(grace: Duration) -> impl FnOnce(&mut Config) {
    move |config| config.presence.leave_grace = grace
}

#[tokio::test]
async fn close_1000_leaves_immediately() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    let mut bob = hub.join("lobby", "bob").await;
    let ann = hub.join("lobby", "ann").await;
    bob.expect_present(2).await;
    ann.leave().await;
    bob.expect_present(1).await;
}

#[tokio::test]
async fn lost_connection_leaves_after_the_grace_time() {
    let grace_time = Duration::from_millis(300);
    let hub = Hub::with(grace(grace_time)).await;
    let mut bob = hub.join("lobby", "bob").await;
    for end in ["1001", "break"] {
        let ann = hub.join("lobby", "ann").await;
        bob.expect_present(2).await;
        let lost = Instant::now();
        match end {
            "1001" => assert_eq!(ann.close(1001).await, Disconnect::Closed(1001)),
            _ => ann.disconnect(),
        }
        bob.expect_present(1).await;
        assert!(lost.elapsed() >= grace_time, "{end}: {:?}", lost.elapsed());
    }
}

#[tokio::test]
async fn reload_within_the_grace_time_is_not_published() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    let mut bob = hub.join("lobby", "bob").await;
    let ann = hub.join_with_mood("lobby", "ann", "calm").await;
    bob.expect_present(2).await;
    for _ in 0..3 {
        hub.join("lobby", "ann").await.disconnect();
    }
    ann.disconnect();
    hub.expect_debug("sessions", 1).await; // the hub has noticed the disconnect
    let ann = hub.join("lobby", "ann").await;
    assert_eq!((ann.present, &ann.moods), (2, &json!({ "calm": 1 })));
    // Bob gets no message until Carol joins.
    let seq = bob.seq;
    let _carol = hub.join("lobby", "carol").await;
    bob.read().await;
    assert_eq!((bob.seq, bob.present), (seq + 1, 3));
    // A visitor who returned has no hold: 1000 leaves immediately.
    ann.leave().await;
    bob.expect_present(2).await.expect_moods(json!({})).await;
}

#[tokio::test]
async fn visitor_is_held_for_a_lost_tab_after_the_other_tab_leaves() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    let mut bob = hub.join("lobby", "bob").await;
    let (tab_1, tab_2) = (hub.join("lobby", "ann").await, hub.join("lobby", "ann").await);
    tab_1.disconnect();
    hub.expect_debug("sessions", 2).await;
    tab_2.leave().await;
    hub.expect_debug("sessions", 1).await;
    let _ann = hub.join("lobby", "ann").await; // the reloaded tab
    let _carol = hub.join("lobby", "carol").await;
    bob.expect_present(3).await;
}

#[tokio::test]
async fn half_open_connection_is_removed_by_the_sweep() {
    let hub = Hub::with(|config| config.transport.ping_interval = Duration::from_millis(200)).await;
    let mut bob = hub.join("lobby", "bob").await;
    let dead = hub.join("lobby", "dead").await; // stays open, but answers no ping, since the test does not read it
    bob.expect_present(2).await;
    bob.expect_present(1).await; // Bob answers pings and stays
    assert_eq!(hub.debug("connections").await, 1);
    drop(dead);
}

#[tokio::test]
async fn idle_client_that_answers_pings_stays() {
    let hub = Hub::with(|config| config.transport.ping_interval = Duration::from_millis(20)).await;
    let mut bob = hub.join("lobby", "bob").await;
    for _ in 0..20 {
        bob.expect_ping().await; // longer than the timeout of a half-open connection
    }
    bob.round_trip().await;
    assert_eq!(hub.debug("connections").await, 1);
}

#[tokio::test]
async fn keepalive_comes_with_each_ping_to_sockets_that_asked_for_it() {
    let hub = Hub::with(|config| config.transport.ping_interval = Duration::from_secs(1)).await;
    let mut bob = hub.join("lobby", "bob").await;
    let mut ann = Client::join(&hub.address, "lobby", "visitor=ann&features=keepalive").await;
    bob.expect_present(2).await;
    ann.expect_present(2).await;
    let asked = async {
        for _ in 0..2 {
            ann.expect_ping().await;
            assert_eq!(ann.next().await, Ok(json!({ "type": "keepalive" })));
        }
    };
    let plain = async {
        for _ in 0..2 {
            bob.expect_ping().await;
        }
    };
    tokio::join!(asked, plain);
}

#[tokio::test]
async fn mass_disconnect_does_not_block_new_joins() {
    let hub = Hub::start().await;
    let mut clients = Vec::new();
    for n in 0..400 {
        clients.push(hub.join("lobby", &format!("v{n}")).await);
    }
    clients.into_iter().for_each(Client::disconnect);
    let mut late = hub.join("lobby", "late").await;
    late.expect_present(1).await;
}

/// Closes all clients with 1000 and resets their connections, with states unread. All leave immediately.
async fn expect_all_leave_at_once(hub: &Program, rooms: Vec<Vec<Client>>) {
    hub.signal("STOP").await;
    let count = rooms.len();
    for client in rooms.into_iter().flatten() {
        client.close_and_reset().await;
    }
    hub.signal("CONT").await;
    let is_empty = async || hub.metric("breathing_room_rooms").await == 0.0;
    eventually(is_empty, &format!("{count} rooms are empty")).await;
}

#[tokio::test]
async fn close_1000_before_a_reset_leaves_immediately() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("LEAVE_GRACE", "1h"), ("RATE_LIMITS", "off")];
    let hub = Program::start(folder.path(), &settings).await;
    for (clients, rooms) in [(2, 10), (3, 10), (10, 10), (100, 1)] {
        let mut all = Vec::new();
        for room in 0..rooms {
            let mut here = Vec::new();
            for n in 0..clients {
                here.push(hub.join(&format!("room-{room}"), &format!("v{n}")).await);
            }
            here[0].expect_present(clients).await;
            all.push(here);
        }
        expect_all_leave_at_once(&hub, all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_simultaneous_closes_with_reset_leave_immediately() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    for time in 0..3 {
        let mut rooms = Vec::new();
        for room in 0..30 {
            let room = format!("room-{room}");
            let (mut ann, bob) = (hub.join(&room, "ann").await, hub.join(&room, "bob").await);
            ann.expect_present(2).await;
            rooms.push((ann, bob));
        }
        // The state after one leave is published to the other's connection, which is already reset.
        let leaving = rooms.into_iter().map(|(ann, bob)| async {
            tokio::join!(ann.close_and_reset(), bob.close_and_reset());
        });
        futures_util::future::join_all(leaving).await;
        let is_empty = async || hub.metric("breathing_room_rooms").await == 0.0;
        eventually(is_empty, &format!("all have left, attempt {time}")).await;
    }
}

#[tokio::test]
async fn close_1000_after_the_hubs_close_keeps_the_hold() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    let mut bob = hub.join("lobby", "bob").await;
    let mut eve = hub.join("lobby", "eve").await;
    bob.expect_present(2).await;
    eve.send(Message::Binary(vec![0].into())).await;
    assert_eq!(eve.expect_close().await.0, 1003);
    eve.write_bytes(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await; // 1000, after the hub's 1003
    hub.expect_debug("connections", 1).await;
    assert_eq!(
        hub.get("/rooms/lobby").send().await.expect(200)["present"],
        2,
        "eve is held for the grace time"
    );
}
