//! join: a new node gets the history of another one under load, and then has what all have.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::log::{now, until_healthy};
use crate::cluster::{Cluster, Setup, run_command};
use crate::figure::{Figure, Scale};
use crate::load::{Load, count, expect_equal, until_complete};
use crate::member::millis_since;

/// Makes a database with this many page views of the last days.
async fn make_history(folder: &Path, events: u64) {
    let (mut lines, now) = (String::new(), now());
    for n in 0..events {
        let (id, at) = (Uuid::new_v4(), now - 1_000 * (n % 400_000));
        let line = format!(
            r#"{{"type":"page-view","id":"{id}","room":"room-{}","visitor":"v{}","path":"/{}","at":{at}}}"#,
            n % 40,
            n % 20_000,
            n % 2_000
        );
        writeln!(lines, "{line}").unwrap();
    }
    let file = folder.join("history.jsonl");
    std::fs::write(&file, lines).unwrap();
    let url = format!("sqlite://{}/hub.db", folder.display());
    run_command(&["import", file.to_str().unwrap()], &url).await;
}

/// A fourth node joins under load.
pub async fn join(scale: Scale) -> Vec<Figure> {
    let (folder, history) = (tempfile::tempdir().unwrap(), scale.of(2_000, 1_000_000));
    make_history(folder.path(), history).await;
    let database = folder.path().join("hub.db");
    let settings = [("FLUSH_INTERVAL", "500ms")];
    let setup = Setup { servers: 3, settings: &settings, database: Some(&database), ..Setup::default() };
    let mut cluster = Cluster::with(setup).await;
    until_healthy(&cluster).await;
    let load = Load::start(&cluster, scale.of(300, 2_500));
    sleep(Duration::from_secs(scale.of(2, 10))).await;
    let began = Instant::now();
    cluster.add_by_join(0).await;
    let new = cluster.nodes.last().unwrap();
    while count(new).await < history + load.acked() {
        assert!(began.elapsed() < Duration::from_mins(3), "{}", new.log());
        sleep(Duration::from_millis(50)).await;
    }
    let joined = millis_since(began);
    sleep(Duration::from_secs(scale.of(1, 10))).await;
    let (acked, _) = load.stop().await;
    for node in &cluster.nodes {
        until_complete(node, history + acked).await;
    }
    until_healthy(&cluster).await;
    expect_equal(&cluster, history + acked).await;
    vec![Figure::millis("join", "a new node has all events, under load", vec![joined], 60_000.0)]
}
