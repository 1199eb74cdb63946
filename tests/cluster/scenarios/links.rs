//! Links that break, links that are long, and clocks that differ.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Setup};
use crate::figure::{Figure, Scale};
use crate::member::{Member, millis_since};
use crate::support::{rows, skip};

const DIRECT: Duration = Duration::ZERO;

/// Checks that no file has more joins of the lobby than these, and that each has them after some minutes.
async fn expect_joins(cluster: &Cluster, most: i64, scale: Scale) {
    for node in &cluster.nodes {
        node.program().post("/flush").admin().send().await.expect(200);
        let query = "SELECT coalesce(sum(joins), 0) FROM presence WHERE room = 'lobby'";
        let found = rows(&node.folder().join("hub.db"), query).await;
        let joins = found[0].as_i64().unwrap();
        // A sample is stored at the end of its minute.
        assert!((scale.of(0, most)..=most).contains(&joins), "{}: {joins} joins of {most}", node.name);
    }
}

/// A hub is cut off: each side counts what it hears and says so, and the end of the partition adds no joins.
pub async fn split(scale: Scale) -> Vec<Figure> {
    let cluster = Cluster::with(Setup { proxies: Some([DIRECT; 3]), ..Setup::default() }).await;
    let mut members = Vec::new();
    for n in 0..6 {
        members.push(Member::join(&[&cluster.nodes[n % 3].address], "lobby", &format!("v{n}")).await);
    }
    for member in &members {
        member.until_present(6).await;
    }
    let (mut degraded, mut own, mut healed) = (Vec::new(), Vec::new(), Vec::new());
    let (cut, others) = cluster.nodes.split_first().unwrap();
    for _ in 0..scale.of(1, 10) {
        let began = Instant::now();
        cut.proxy.as_ref().unwrap().cut();
        cut.until_health("alone").await;
        for other in others {
            other.until_health("peer-lost").await;
        }
        degraded.push(millis_since(began));
        let counts = others[0].room("lobby").await;
        assert_eq!((&counts["present"], &counts["cluster"]["silent"]), (&6.into(), &1.into()), "{counts}");
        cut.until_present("lobby", 2).await;
        for other in others {
            other.until_present("lobby", 4).await;
        }
        assert!(began.elapsed() >= Duration::from_secs(14), "own counts after {:?}", began.elapsed());
        own.push(millis_since(began));
        sleep(Duration::from_secs(scale.of(0, 40))).await;
        let began = Instant::now();
        cut.proxy.as_ref().unwrap().heal();
        for member in &members {
            member.until_present(6).await;
        }
        cluster.until_whole().await;
        healed.push(millis_since(began));
        for node in &cluster.nodes {
            node.until_health("").await;
        }
    }
    expect_joins(&cluster, 6, scale).await;
    vec![
        Figure::millis("split", "cut to degraded", degraded, 4_000.0),
        Figure::millis("split", "cut to own counts", own, 16_500.0),
        Figure::millis("split", "healed", healed, 5_000.0),
    ]
}

/// A mood from before a partition does not come back from the node that kept it.
pub async fn stale_mood(_: Scale) -> Vec<Figure> {
    let cluster = Cluster::with(Setup { proxies: Some([DIRECT; 3]), ..Setup::default() }).await;
    let old = Member::join(&[&cluster.nodes[0].address], "lobby", "ann").await;
    let observer = Member::join(&[&cluster.nodes[2].address], "lobby", "observer").await;
    old.set_mood(Some("tired"));
    observer.until_mood("tired", 1).await;
    let proxy = cluster.nodes[0].proxy.as_ref().unwrap();
    proxy.cut();
    cluster.nodes[1].until_health("peer-lost").await;
    let new = Member::join(&[&cluster.nodes[1].address], "lobby", "ann").await;
    new.set_mood(Some("joy"));
    observer.until("joy only", |seen| seen.count("joy") == 1 && seen.count("tired") == 0).await;
    proxy.heal();
    cluster.until_whole().await;
    old.until("joy only", |seen| seen.count("joy") == 1 && seen.count("tired") == 0).await;
    for node in &cluster.nodes {
        let counts = node.room("lobby").await;
        assert_eq!(
            (&counts["moods"]["joy"], &counts["moods"]["tired"]),
            (&1.into(), &Value::Null),
            "{counts}"
        );
    }
    observer.until("joy only", |seen| seen.count("joy") == 1 && seen.count("tired") == 0).await;
    Vec::new()
}

/// One node is far away: its people agree with the others one way later, and nothing is degraded.
pub async fn far(scale: Scale) -> Vec<Figure> {
    let delay = Duration::from_millis(80);
    let cluster = Cluster::with(Setup { proxies: Some([DIRECT, DIRECT, delay]), ..Setup::default() }).await;
    let here = Member::join(&[&cluster.nodes[0].address], "lobby", "ann").await;
    let there = Member::join(&[&cluster.nodes[2].address], "lobby", "bob").await;
    here.until_present(2).await;
    let mut latencies = Vec::new();
    for round in 0..scale.of(6, 300) {
        let (from, to) = if round % 4 < 2 { (&here, &there) } else { (&there, &here) };
        let count = u64::from(round % 2 == 0);
        let began = Instant::now();
        from.set_mood((count == 1).then_some("tired"));
        to.until_mood("tired", count).await;
        latencies.push(millis_since(began));
        from.until_mood("tired", count).await;
        for node in &cluster.nodes {
            assert_eq!(node.health().await, "");
        }
    }
    vec![Figure::millis("far", "change to a node 80 ms away", latencies, 330.0)]
}

/// One node's clock is half a minute ahead: the mood that was set last counts.
pub async fn skew(scale: Scale) -> Vec<Figure> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/libfaketime");
    let output = std::process::Command::new(script).output().unwrap();
    let library = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    if !output.status.success() {
        skip("no libfaketime");
        return Vec::new();
    }
    let ahead =
        [("LD_PRELOAD", library.as_str()), ("FAKETIME", "+30s"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let cluster = Cluster::with(Setup { of_last: &ahead, ..Setup::default() }).await;
    let here = Member::join(&[&cluster.nodes[0].address], "lobby", "ann").await;
    let there = Member::join(&[&cluster.nodes[2].address], "lobby", "ann").await;
    let observer = Member::join(&[&cluster.nodes[1].address], "lobby", "observer").await;
    for round in 0..scale.of(6, 100) {
        let mood = ["calm", "joy", "hope"][round % 3];
        if round % 2 == 0 {
            here.set_mood(Some(mood));
        } else {
            there.set_mood(Some(mood));
        }
        for member in [&here, &there, &observer] {
            member.until(mood, |seen| seen.moods.len() == 1 && seen.count(mood) == 1).await;
        }
    }
    let skew = cluster.nodes[0].metric("breathing_room_cluster_clock_skew_seconds").await;
    assert!(skew > 20.0, "the skew is measured: {skew}");
    for node in &cluster.nodes {
        assert_eq!(node.health().await, "");
    }
    Vec::new()
}
