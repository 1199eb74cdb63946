//! Leaving: at once with 1000, after the grace in any other way, and not at all for who is back.

use std::time::{Duration, Instant};

use breathing_room::Config;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::member::Ending;
use crate::support::{Hub, Member, Program, eventually};

fn grace(grace: Duration) -> impl FnOnce(&mut Config) {
    move |config| config.presence.leave_grace = grace
}

#[tokio::test]
async fn whoever_closes_with_1000_leaves_at_once() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    let mut bob = hub.join("lobby", "bob").await;
    let ann = hub.join("lobby", "ann").await;
    bob.expect_present(2).await;
    ann.leave().await;
    bob.expect_present(1).await;
}

#[tokio::test]
async fn whoever_is_lost_leaves_after_the_grace() {
    let grace_time = Duration::from_millis(300);
    let hub = Hub::with(grace(grace_time)).await;
    let mut bob = hub.join("lobby", "bob").await;
    for end in ["1001", "break"] {
        let ann = hub.join("lobby", "ann").await;
        bob.expect_present(2).await;
        let lost = Instant::now();
        match end {
            "1001" => assert_eq!(ann.close(1001).await, Ending::Closed(1001)),
            _ => ann.break_off(),
        }
        bob.expect_present(1).await;
        assert!(lost.elapsed() >= grace_time, "{end}: {:?}", lost.elapsed());
    }
}

#[tokio::test]
async fn a_reload_inside_the_grace_is_not_seen() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    let mut bob = hub.join("lobby", "bob").await;
    let ann = hub.join_with("lobby", "ann", "calm").await;
    bob.expect_present(2).await;
    for _ in 0..3 {
        hub.join("lobby", "ann").await.break_off();
    }
    ann.break_off();
    hub.expect_debug("sessions", 1).await; // the hub has noticed
    let ann = hub.join("lobby", "ann").await;
    assert_eq!((ann.present, &ann.moods), (2, &json!({ "calm": 1 })));
    // Bob is told nothing until somebody else comes.
    let seq = bob.seq;
    let _carol = hub.join("lobby", "carol").await;
    bob.read().await;
    assert_eq!((bob.seq, bob.present), (seq + 1, 3));
    // And who is back needs no place held: leaving is leaving.
    ann.leave().await;
    bob.expect_present(2).await.expect_moods(json!({})).await;
}

#[tokio::test]
async fn a_lost_tab_is_held_even_when_the_other_tab_leaves() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    let mut bob = hub.join("lobby", "bob").await;
    let (tab_1, tab_2) = (hub.join("lobby", "ann").await, hub.join("lobby", "ann").await);
    tab_1.break_off();
    hub.expect_debug("sessions", 2).await;
    tab_2.leave().await;
    hub.expect_debug("sessions", 1).await;
    let _ann = hub.join("lobby", "ann").await; // the reload is done
    let _carol = hub.join("lobby", "carol").await;
    bob.expect_present(3).await;
}

#[tokio::test]
async fn a_dead_peer_is_counted_out() {
    let hub = Hub::with(|config| config.transport.ping_interval = Duration::from_millis(200)).await;
    let mut bob = hub.join("lobby", "bob").await;
    let dead = hub.join("lobby", "dead").await; // stays open, but never answers a ping: nobody reads
    bob.expect_present(2).await;
    bob.expect_present(1).await; // while bob, who reads, answers and stays
    assert_eq!(hub.debug("connections").await, 1);
    drop(dead);
}

#[tokio::test]
async fn an_idle_member_who_answers_pings_stays() {
    let hub = Hub::with(|config| config.transport.ping_interval = Duration::from_millis(20)).await;
    let mut bob = hub.join("lobby", "bob").await;
    for _ in 0..20 {
        bob.expect_ping().await; // each later than a dead peer is given
    }
    bob.settle().await;
    assert_eq!(hub.debug("connections").await, 1);
}

#[tokio::test]
async fn a_mass_disconnect_does_not_block_new_members() {
    let hub = Hub::start().await;
    let mut members = Vec::new();
    for n in 0..400 {
        members.push(hub.join("lobby", &format!("v{n}")).await);
    }
    members.into_iter().for_each(Member::break_off);
    let mut late = hub.join("lobby", "late").await;
    late.expect_present(1).await;
}

/// Everybody in these rooms closes with 1000 and resets the connection, with states unread. Nobody stays.
async fn expect_all_leave_at_once(hub: &Program, rooms: Vec<Vec<Member>>) {
    hub.signal("STOP").await;
    let count = rooms.len();
    for member in rooms.into_iter().flatten() {
        member.leave_and_reset().await;
    }
    hub.signal("CONT").await;
    let nobody = async || hub.metric("breathing_room_rooms").await == 0.0;
    eventually(nobody, &format!("{count} rooms are empty")).await;
}

#[tokio::test]
async fn close_1000_with_unread_state_leaves_at_once_whatever_became_of_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("LEAVE_GRACE", "1h"), ("RATE_LIMITS", "off")];
    let hub = Program::start(folder.path(), &settings).await;
    for (members, rooms) in [(2, 10), (3, 10), (10, 10), (100, 1)] {
        let mut all = Vec::new();
        for room in 0..rooms {
            let mut here = Vec::new();
            for n in 0..members {
                here.push(hub.join(&format!("room-{room}"), &format!("v{n}")).await);
            }
            here[0].expect_present(members).await;
            all.push(here);
        }
        expect_all_leave_at_once(&hub, all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_who_leave_in_the_same_moment_leave_at_once() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    for time in 0..3 {
        let mut rooms = Vec::new();
        for room in 0..30 {
            let room = format!("room-{room}");
            let (mut ann, bob) = (hub.join(&room, "ann").await, hub.join(&room, "bob").await);
            ann.expect_present(2).await;
            rooms.push((ann, bob));
        }
        // What one of them leaves behind is published onto the other's connection, which is reset already.
        let leaving = rooms.into_iter().map(|(ann, bob)| async {
            tokio::join!(ann.leave_and_reset(), bob.leave_and_reset());
        });
        futures_util::future::join_all(leaving).await;
        let nobody = async || hub.metric("breathing_room_rooms").await == 0.0;
        eventually(nobody, &format!("all have left, time {time}")).await;
    }
}

#[tokio::test]
async fn close_1000_that_answers_the_hubs_own_close_is_no_leaving() {
    let hub = Hub::with(grace(Duration::from_hours(1))).await;
    let mut bob = hub.join("lobby", "bob").await;
    let mut eve = hub.join("lobby", "eve").await;
    bob.expect_present(2).await;
    eve.send(Message::Binary(vec![0].into())).await;
    assert_eq!(eve.expect_close().await.0, 1003);
    eve.write_bytes(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await; // 1000, though the hub has said 1003
    hub.expect_debug("connections", 1).await;
    assert_eq!(hub.get("/rooms/lobby").send().await.expect(200)["present"], 2, "eve is held for the grace");
}
