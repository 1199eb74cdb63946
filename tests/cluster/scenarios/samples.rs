//! Presence samples through the log: one node writes them, each file has them once, and the next node steps in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::log::never_differed;
use crate::cluster::{Cluster, Node, Setup};
use crate::figure::{Figure, Scale};
use crate::member::Member;
use crate::support::{Program, eventually};

const MINUTE: u64 = 60_000;

/// How long a sample may take: it is written with the one of the next minute, if its node died before.
const LONG: Duration = Duration::from_secs(150);

/// How late the timers of two ends of a minute may be together, in ms.
const LATE: u64 = 3_000;

/// Two people stay on nodes that go on while the first node is killed, in the long form: the samples of all files are the
/// same, one for each minute, with both for the whole minute. The short form ends with the first sample.
pub async fn samples(scale: Scale) -> Vec<Figure> {
    let settings = [("FLUSH_INTERVAL", "500ms")];
    let mut cluster = Cluster::with(Setup { servers: 3, settings: &settings, ..Setup::default() }).await;
    for node in &cluster.nodes {
        node.until_health("").await;
    }
    let _ann = Member::join(&[&cluster.nodes[1].address], "lobby", "ann").await;
    let bob = Member::join(&[&cluster.nodes[2].address], "lobby", "bob").await;
    bob.until_present(2).await;
    let mut newest = until_sample_after(&cluster.nodes[1], 0).await;
    for round in 0..scale.of(0, 6) {
        if round % 2 == 1 {
            // It does not write the sample of this minute any more, and the others do not know that yet.
            sleep(Duration::from_millis(MINUTE - now() % MINUTE).saturating_sub(Duration::from_secs(1)))
                .await;
        }
        cluster.nodes[0].kill().await;
        newest = until_sample_after(&cluster.nodes[1], newest).await;
        cluster.nodes[0].open().await;
        cluster.until_whole().await;
    }
    let expected = census(&cluster.nodes[1]).await;
    for node in &cluster.nodes {
        let is_same = async || census(node).await == expected;
        eventually(is_same, &format!("{}: {expected:#?}", node.name)).await;
    }
    let starts: Vec<u64> = expected.iter().map(|sample| sample["at"].as_u64().unwrap()).collect();
    // The first one begins within a minute.
    let next = starts[0] / MINUTE + 1;
    let minutes: Vec<u64> = (next..).map(|minute| minute * MINUTE).take(starts.len() - 1).collect();
    assert_eq!(starts[1..], minutes, "one sample for each minute: {expected:#?}");
    for sample in &expected[1..] {
        let present = sample["rooms"]["lobby"]["presentMs"].as_u64().unwrap();
        assert!(present.abs_diff(2 * MINUTE) < 2 * LATE && sample["hub"]["presentMs"] == present, "{sample}");
    }
    never_differed(&cluster).await;
    Vec::new()
}

/// Waits until a node's file has a sample that starts later, and returns the start of the newest one.
async fn until_sample_after(node: &Node, start: u64) -> u64 {
    let began = Instant::now();
    loop {
        let newest = census(node).await.iter().filter_map(|sample| sample["at"].as_u64()).max();
        match newest.filter(|newest| *newest > start) {
            Some(newest) => return newest,
            None => assert!(began.elapsed() < LONG, "no sample after {start}: {}", node.log()),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// The presence samples in a node's file, in the order of their starts.
async fn census(node: &Node) -> Vec<Value> {
    let (file, url) = (node.folder().join("census.jsonl"), node.database_url());
    let out = file.display().to_string();
    let exported = Program::run(&["export", "--out", &out], &[("DATABASE_URL", url.as_str())]).await;
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let lines = std::fs::read_to_string(&file).unwrap();
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut samples: Vec<Value> = records.filter(|record| record["type"] == "census").collect();
    samples.sort_by_key(|sample| sample["at"].as_u64());
    samples
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
