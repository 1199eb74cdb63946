//! NATS servers that crash, hang, or are not there yet.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Setup};
use crate::figure::{Figure, Scale};
use crate::member::{Member, Range, millis_since};
use crate::support::eventually;

/// Two members at each of three nodes.
async fn members(cluster: &Cluster) -> Vec<Member> {
    let mut members = Vec::new();
    for n in 0..6 {
        members.push(Member::join(&[&cluster.nodes[n % 3].address], "lobby", &format!("v{n}")).await);
    }
    for member in &members {
        member.until_present(6).await;
        member.reset_range();
    }
    members
}

fn expect_flat(members: &[Member]) {
    for member in members {
        assert_eq!(member.range(), Range { min: 6, max: 6 });
    }
}

/// A member changes the mood. Returns the time until all have it.
async fn change(members: &[Member], member: usize, mood: Option<&str>) -> f64 {
    let began = Instant::now();
    members[member].set_mood(mood);
    for other in members {
        other.until_mood("tired", u64::from(mood.is_some())).await;
    }
    millis_since(began)
}

/// Each server is killed in turn: the counts stay, and changes arrive again soon.
pub async fn kill_nats(scale: Scale) -> Vec<Figure> {
    let mut cluster = Cluster::with(Setup { servers: 3, ..Setup::default() }).await;
    let members = members(&cluster).await;
    let mut gaps = Vec::new();
    for round in 0..scale.of(3, 60) {
        let server = round % 3;
        cluster.nats.kill(server).await;
        // The node whose server is gone, and one of the others.
        gaps.push(change(&members, server, Some("tired")).await);
        change(&members, server, None).await;
        cluster.nats.restart(server).await;
        cluster.until_whole().await;
        sleep(Duration::from_millis(scale.of(0, 1_500))).await;
    }
    expect_flat(&members);
    vec![Figure::millis("kill-nats", "change to all after a server's death", gaps, 1_000.0)]
}

/// A server hangs, and its clients believe that they are connected: they notice it themselves.
pub async fn stop_nats(scale: Scale) -> Vec<Figure> {
    let cluster = Cluster::with(Setup { servers: 3, ..Setup::default() }).await;
    let members = members(&cluster).await;
    let mut times = Vec::new();
    for round in 0..scale.of(1, 20) {
        let server = round % 3;
        cluster.nats.signal(server, "STOP").await;
        times.push(change(&members, server, Some("tired")).await);
        sleep(Duration::from_secs(scale.of(0, 7))).await;
        cluster.nats.signal(server, "CONT").await;
        change(&members, server, None).await;
        cluster.until_whole().await;
    }
    expect_flat(&members);
    vec![Figure::millis("stop-nats", "change to all after a server's stop", times, 5_000.0)]
}

/// The servers are away at the start of the hubs: each hub is alone, says so, and finds the others later.
pub async fn late_nats(_: Scale) -> Vec<Figure> {
    let mut cluster = Cluster::start().await;
    cluster.nats.kill(0).await;
    for n in 0..3 {
        cluster.nodes[n].stop().await;
        cluster.nodes[n].open().await;
    }
    let ann = Member::join(&[&cluster.nodes[0].address], "lobby", "ann").await;
    for node in &cluster.nodes {
        node.until_health("alone").await;
        assert!(node.log().contains("NATS"), "the log says so: {}", node.log());
    }
    cluster.nats.restart(0).await;
    cluster.until_whole().await;
    cluster.until_present("lobby", 1).await;
    let healthy = async || cluster.nodes[0].health().await.is_empty();
    eventually(healthy, "the hub is healthy").await;
    drop(ann);
    Vec::new()
}
