//! People on two nodes, on another node than before, and on nodes that restart in turn.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::figure::{Figure, Scale};
use crate::member::{Member, Range, millis_since};
use crate::support::eventually;

/// Members at each node, who stay there.
async fn observers(cluster: &Cluster, room: &str) -> Vec<Member> {
    let mut observers = Vec::new();
    for node in &cluster.nodes {
        observers.push(Member::join(&[&node.address], room, &format!("observer-{}", node.name)).await);
    }
    for observer in &observers {
        observer.until_present(3).await;
    }
    observers
}

fn expect_flat(members: &[Member], present: u64) {
    for member in members {
        assert_eq!(member.range(), Range { min: present, max: present });
    }
}

/// One person on two nodes counts once, with the mood that was set last, and the end of one socket is no change.
pub async fn two_places(scale: Scale) -> Vec<Figure> {
    let cluster = Cluster::start().await;
    let observers = observers(&cluster, "lobby").await;
    for round in 0..scale.of(1, 20) {
        let here = Member::join(&[&cluster.nodes[0].address], "lobby", "ann").await;
        for observer in &observers {
            observer.until_present(4).await;
            observer.reset_range();
        }
        let there = Member::join(&[&cluster.nodes[1].address], "lobby", "ann").await;
        here.set_mood(Some("calm"));
        there.until_mood("calm", 1).await;
        there.set_mood(Some("joy"));
        for member in observers.iter().chain([&here]) {
            member.until("joy, and no calm", |seen| seen.count("joy") == 1 && seen.count("calm") == 0).await;
        }
        let before: Vec<u64> = observers.iter().map(|observer| observer.now().frames).collect();
        if round % 2 == 0 {
            here.leave().await;
        } else {
            here.disconnect();
        }
        // A change after the end of the socket, which comes alone.
        observers[0].set_mood(Some("hope"));
        for (observer, before) in observers.iter().zip(before) {
            let seen = observer.until("hope", |seen| seen.count("hope") == 1).await;
            assert_eq!((seen.frames, seen.present, seen.count("joy")), (before + 1, 4, 1));
        }
        expect_flat(&observers, 4);
        observers[0].set_mood(None);
        there.leave().await;
        for observer in &observers {
            observer.until_present(3).await;
            observer.until_mood("hope", 0).await;
        }
    }
    Vec::new()
}

/// A person whose connection breaks on one node and who comes back on the next one never leaves.
pub async fn hop(scale: Scale) -> Vec<Figure> {
    let cluster = Cluster::start().await;
    let observers = observers(&cluster, "lobby").await;
    let mut leaves = Vec::new();
    let mut ann = Member::join(&[&cluster.nodes[0].address], "lobby", "ann").await;
    for round in 1..=scale.of(12, 500) {
        for observer in &observers {
            observer.until_present(4).await;
            observer.reset_range();
        }
        let is_measured = round % scale.of(6, 10) == 0;
        ann.disconnect();
        if is_measured {
            // A connection that is lost after the next one has begun leaves a hold, as it does on one node.
            let from = &cluster.nodes[(round - 1) % 3];
            eventually(async || from.room("lobby").await["held"] == 1, "the loss is seen").await;
        }
        ann = Member::join(&[&cluster.nodes[round % 3].address], "lobby", "ann").await;
        assert_eq!(ann.now().present, 4, "the welcome");
        expect_flat(&observers, 4);
        if is_measured {
            let began = Instant::now();
            ann.leave().await;
            for observer in &observers {
                observer.until_present(3).await;
            }
            leaves.push(millis_since(began));
            ann = Member::join(&[&cluster.nodes[round % 3].address], "lobby", "ann").await;
        }
    }
    vec![Figure::millis("hop", "leave to the last socket", leaves, 250.0)]
}

/// All hubs restart in turn, as a deployment does it: every member sees a flat line.
pub async fn rolling(scale: Scale) -> Vec<Figure> {
    let mut cluster = Cluster::start().await;
    let mut members = Vec::new();
    let people = scale.of(4, 30);
    for n in 0..3 * people {
        members.push(cluster.join(n % 3, "lobby", &format!("v{n}")).await);
    }
    let present = members.len() as u64;
    let mut settled = Vec::new();
    for _ in 0..scale.of(1, 20) {
        for member in &members {
            member.until_present(present).await;
            member.reset_range();
        }
        for n in 0..3 {
            cluster.nodes[n].stop().await;
            // The new version starts some time later.
            sleep(Duration::from_millis(scale.of(200, 2_000))).await;
            cluster.nodes[n].open().await;
            cluster.until_whole().await;
        }
        let began = Instant::now();
        for node in &cluster.nodes {
            let is_settled = async || {
                let counts = node.room("lobby").await;
                counts["present"] == present && counts["held"] == 0
            };
            eventually(is_settled, &format!("{}: {present} present, 0 held", node.name)).await;
        }
        settled.push(millis_since(began));
        expect_flat(&members, present);
    }
    vec![Figure::millis("rolling", "last restart to no holds", settled, 15_000.0)]
}
