//! Leaving: at once with 1000, after the grace in any other way, and not at all for who is back.

use std::time::{Duration, Instant};

use breathing_room::config::Config;
use serde_json::json;

use crate::support::member::Ending;
use crate::support::{Hub, Member};

fn grace(grace: Duration) -> impl FnOnce(&mut Config) {
    move |config| config.session.leave_grace = grace
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
    let hub = Hub::with(|config| config.session.ping_interval = Duration::from_millis(200)).await;
    let mut bob = hub.join("lobby", "bob").await;
    let dead = hub.join("lobby", "dead").await; // stays open, but never answers a ping: nobody reads
    bob.expect_present(2).await;
    bob.expect_present(1).await; // while bob, who reads, answers and stays
    assert_eq!(hub.debug("connections").await, 1);
    drop(dead);
}

#[tokio::test]
async fn an_idle_member_who_answers_pings_stays() {
    let hub = Hub::with(|config| config.session.ping_interval = Duration::from_millis(20)).await;
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
