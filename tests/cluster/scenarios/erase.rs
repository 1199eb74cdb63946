//! An erasure on one node: the visitor is in no file of any node, also of one that was down, and in no byte of the log.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use flate2::read::ZlibDecoder;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::log::{cluster, until};
use crate::cluster::{Cluster, Node};
use crate::figure::{Figure, Scale};
use crate::member::millis_since;
use crate::support::{ADMIN_TOKEN, Program, Request};

/// An id that does not occur by chance.
const ZOE: &str = "Zoe-5d1f0c7e";

/// The bytes of a message before its body.
const HEAD: usize = 26;

/// The bytes of a body by which a file is searched for a message: what is beyond its zlib header.
const PROBE: std::ops::Range<usize> = HEAD + 4..HEAD + 44;

async fn post(node: &Node, visitor: &str) {
    let view = json!({ "id": Uuid::now_v7(), "path": format!("/people/{visitor}"), "visitor": visitor, "room": "lobby",
        "title": format!("Diary of {visitor}"), "props": { "by": visitor } });
    node.post("/page-view?durable=true").json(&view).send().await.expect(200);
}

async fn page_views(node: &Node) -> u64 {
    let answer = node.get("/unified-stats?range=24h").admin().send().await.expect(200);
    answer["totals"]["pageViews"].as_u64().unwrap()
}

async fn until_views(nodes: &[Node], views: u64) {
    for node in nodes {
        until(async || page_views(node).await == views, &format!("{}: {views} page views", node.name)).await;
    }
}

/// Erases Zoe, and returns the answer.
async fn delete(node: &Node) -> Value {
    let path = format!("/visitors/{ZOE}/data");
    Request::new(&node.address, "DELETE", &path).admin().send().await.expect(200)
}

fn names(nodes: &Value) -> Vec<&str> {
    nodes.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The files that contain one of these bytes. One that the server has deleted meanwhile does not.
fn files_with(files: Vec<PathBuf>, wanted: &[Vec<u8>]) -> Vec<PathBuf> {
    let has = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        wanted.iter().any(|wanted| bytes.windows(wanted.len()).any(|part| part == wanted))
    };
    files.into_iter().filter(has).collect()
}

/// Fails if the id is in a file of a node.
fn expect_forgotten(node: &Node) {
    assert_eq!(files_with(files(node.folder()), &[ZOE.into()]), Vec::<PathBuf>::new(), "{}", node.name);
}

/// The messages of the stream: their positions and bytes.
async fn messages(cluster: &Cluster) -> Vec<(u64, Vec<u8>)> {
    let info = cluster.nats.ask(0, "$JS.API.STREAM.INFO.breathing-room-log").await;
    let info: Value = serde_json::from_str(&info).unwrap();
    let last = info["state"]["last_seq"].as_u64().unwrap();
    let mut found = Vec::new();
    for position in 1..=last {
        let body = json!({ "seq": position }).to_string();
        let answer = cluster.nats.ask_with(0, "$JS.API.STREAM.MSG.GET.breathing-room-log", &body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        if let Some(data) = answer["message"]["data"].as_str() {
            found.push((position, BASE64.decode(data.as_bytes()).unwrap()));
        }
    }
    found
}

/// Whether a message has Zoe's id.
fn is_of_zoe(message: &[u8]) -> bool {
    let mut text = String::new();
    // The body of a replacement is after its positions.
    let positions = match message[1] {
        2 => 2 + 8 * usize::from(u16::from_be_bytes([message[HEAD], message[HEAD + 1]])),
        _ => 0,
    };
    ZlibDecoder::new(&message[HEAD + positions..]).read_to_string(&mut text).unwrap();
    text.contains(ZOE)
}

/// A visitor is erased on one node while another one is down, and once more while the log is cut off behind that node.
pub async fn erase(scale: Scale) -> Vec<Figure> {
    let mut cluster = cluster().await;
    for node in &cluster.nodes {
        post(node, ZOE).await;
        post(node, "ann").await;
    }
    until_views(&cluster.nodes, 6).await;
    cluster.nodes[2].kill().await;
    post(&cluster.nodes[0], ZOE).await;
    post(&cluster.nodes[1], "bob").await;
    until_views(&cluster.nodes[..2], 8).await;
    let probes: Vec<Vec<u8>> = messages(&cluster)
        .await
        .into_iter()
        .filter(|(_, bytes)| is_of_zoe(bytes))
        .map(|(_, bytes)| bytes[PROBE].to_vec())
        .collect();
    assert!(probes.len() >= 2, "{}", probes.len());
    let of_stream = |cluster: &Cluster| {
        let mut all = files(cluster.nats.folder());
        all.retain(|path| path.to_str().unwrap().contains("/streams/breathing-room-log/"));
        all
    };
    assert!(files_with(of_stream(&cluster), &probes).len() >= 2, "two of three servers have them");

    let began = Instant::now();
    let answer = delete(&cluster.nodes[1]).await;
    assert_eq!(answer["erased"]["pageViews"], 4, "{answer}");
    assert_eq!(names(&answer["nodes"]["done"]), ["node-0", "node-1"], "{answer}");
    assert_eq!(names(&answer["nodes"]["pending"]), ["node-2"], "{answer}");
    expect_forgotten(&cluster.nodes[0]);
    expect_forgotten(&cluster.nodes[1]);
    until_views(&cluster.nodes[..2], 4).await;
    // The server overwrites the blocks of the stream at once.
    until(
        async || files_with(of_stream(&cluster), &probes).is_empty(),
        "the stream has no byte of Zoe's messages",
    )
    .await;
    let overwritten = millis_since(began);
    assert!(messages(&cluster).await.iter().all(|(_, bytes)| !is_of_zoe(bytes)));

    // The node that was down gets the events of the others, and erases the visitor.
    assert_ne!(files_with(files(cluster.nodes[2].folder()), &[ZOE.into()]), Vec::<PathBuf>::new());
    cluster.nodes[2].open().await;
    until_views(&cluster.nodes, 4).await;
    let forgotten = async || files_with(files(cluster.nodes[2].folder()), &[ZOE.into()]).is_empty();
    until(forgotten, "node-2 has forgotten Zoe").await;
    until(async || cluster.nodes[2].health().await.is_empty(), "node-2 is healthy").await;
    let again = delete(&cluster.nodes[0]).await;
    assert_eq!(names(&again["nodes"]["done"]), ["node-0", "node-1", "node-2"], "{again}");
    let mut figures =
        vec![Figure::millis("erase", "overwritten in the blocks of the stream", vec![overwritten], 30_000.0)];

    if matches!(scale, Scale::Long) {
        // Also the logs of Raft.
        while !files_with(files(cluster.nats.folder()), &probes).is_empty() {
            assert!(
                began.elapsed() < Duration::from_mins(8),
                "{:?}",
                files_with(files(cluster.nats.folder()), &probes)
            );
            sleep(Duration::from_secs(1)).await;
        }
        figures.push(Figure::millis(
            "erase",
            "in no byte of JetStream's files",
            vec![millis_since(began)],
            240_000.0,
        ));
    }
    return_after_the_log(&mut cluster).await;
    figures
}

/// A node that was away for longer than the log reaches does not read it, says so, and joins again without the visitor.
async fn return_after_the_log(cluster: &mut Cluster) {
    post(&cluster.nodes[2], ZOE).await;
    until_views(&cluster.nodes, 5).await;
    cluster.nodes[2].stop().await;
    post(&cluster.nodes[0], "ann").await;
    delete(&cluster.nodes[0]).await;
    let purged = cluster.nats.ask(0, "$JS.API.STREAM.PURGE.breathing-room-log").await;
    assert!(purged.contains("\"success\":true"), "{purged}");
    cluster.nodes[2].open().await;
    until(async || cluster.nodes[2].health().await == "log-gone", "node-2 says log-gone").await;
    let answer = delete(&cluster.nodes[0]).await;
    assert_eq!(names(&answer["nodes"]["pending"]), ["node-2"], "{answer}");
    cluster.nodes[2].stop().await;
    let folder = cluster.nodes[2].folder();
    let from = format!("http://{}", cluster.nodes[0].address);
    let url = format!("sqlite://{}/hub.db", folder.display());
    let settings = [("DATABASE_URL", url.as_str()), ("ADMIN_TOKEN", ADMIN_TOKEN)];
    let joined = Program::run(&["join", "--replace", &from], &settings).await;
    assert_eq!(joined.code, Some(0), "{joined:?}");
    for path in files(folder).into_iter().filter(|path| path.to_str().unwrap().contains(".replaced-")) {
        fs::remove_file(path).unwrap();
    }
    cluster.nodes[2].open().await;
    until_views(&cluster.nodes, 5).await;
    expect_forgotten(&cluster.nodes[2]);
    until(async || cluster.nodes[2].health().await.is_empty(), "node-2 is healthy").await;
}
