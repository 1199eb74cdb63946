//! The history of all nodes: what was acked is in every file, and counts once.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::cluster::{Cluster, Node, Setup};
use crate::figure::{Figure, Scale};
use crate::member::millis_since;
use crate::support::{ADMIN_TOKEN, Program, Request, rows};

/// How long a scenario waits for what takes a minute at most.
const LONG: Duration = Duration::from_mins(1);

const COMPARISONS: &str = "breathing_room_replica_comparisons_total";

/// Three hubs and three servers with a log, which all hubs read.
pub async fn cluster() -> Cluster {
    let settings = [("FLUSH_INTERVAL", "500ms")];
    let cluster = Cluster::with(Setup { servers: 3, settings: &settings, ..Setup::default() }).await;
    until_healthy(&cluster).await;
    cluster
}

pub(super) async fn until_healthy(cluster: &Cluster) {
    for node in &cluster.nodes {
        until(async || node.health().await.is_empty(), &format!("{} is healthy", node.name)).await;
    }
}

/// Waits for what may take as long as an election of the servers.
pub async fn until(mut condition: impl AsyncFnMut() -> bool, what: &str) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < LONG, "still false after {LONG:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// What the nodes must have: the page views and watch sessions that were acked.
#[derive(Default)]
struct Model {
    page_views: u64,
    watched_ms: u64,
    watch_sessions: u64,
    visitors: u64,
}

impl Model {
    /// Posts page views and a watch session of a new visitor at a node, and waits for their acks. Returns how long each
    /// ack took.
    async fn post(&mut self, node: &Node, views: u64) -> Vec<f64> {
        let visitor = format!("v{}", self.visitors);
        let mut times = Vec::new();
        for n in 0..views {
            let view =
                json!({ "id": Uuid::now_v7(), "path": format!("/{n}"), "visitor": visitor, "room": "lobby" });
            times.push(post(node, "/page-view", &view).await);
            // A repeat counts once.
            post(node, "/page-view", &view).await;
        }
        let watch = json!({ "id": Uuid::now_v7(), "content": "dawn", "state": "ended", "visitor": visitor,
            "room": "lobby", "watchedMs": 1_000, "startedAt": now() - 5_000, "at": now() });
        times.push(post(node, "/watch-session", &watch).await);
        self.page_views += views;
        self.watch_sessions += 1;
        self.watched_ms += 1_000;
        self.visitors += 1;
        times
    }

    /// Waits until each node answers with all of it, and returns when the last one did.
    async fn until_everywhere(&self, cluster: &Cluster) -> Instant {
        let expected = json!([self.page_views, self.visitors, self.watch_sessions, self.watched_ms]);
        let mut answers = Vec::new();
        for node in &cluster.nodes {
            let mut answer = Value::Null;
            let has_all = async || {
                answer = stats(node).await;
                let totals = &answer["totals"];
                let found = ["pageViews", "visitors", "watchSessions", "watchedMs"];
                found.map(|name| &totals[name]).into_iter().eq(expected.as_array().unwrap())
            };
            until(has_all, &format!("{}: {expected}", node.name)).await;
            answers.push([&answer["topPages"], &answer["topContent"], &answer["other"]].map(Value::clone));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
        Instant::now()
    }
}

/// Posts an event, and waits for its ack. Returns how long that took.
async fn post(node: &Node, path: &str, event: &Value) -> f64 {
    let began = Instant::now();
    durable(node, path, event).await;
    millis_since(began)
}

async fn durable(node: &Node, path: &str, event: &Value) -> Value {
    let answer = node.post(&format!("{path}?durable=true")).json(event).send().await.expect(200);
    assert_eq!(answer["committed"], 1, "{answer}");
    answer
}

pub(super) async fn stats(node: &Node) -> Value {
    node.get("/unified-stats?range=7d").admin().send().await.expect(200)
}

pub(super) fn now() -> u64 {
    u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// Events are posted at each node: every node answers for all of them.
pub async fn events(scale: Scale) -> Vec<Figure> {
    let cluster = cluster().await;
    let (mut model, mut acks, mut lags) = (Model::default(), Vec::new(), Vec::new());
    for round in 0..scale.of(3, 60) {
        acks.extend(model.post(&cluster.nodes[round % 3], 5).await);
        let acked = Instant::now();
        let done = model.until_everywhere(&cluster).await;
        lags.push((done - acked).as_secs_f64() * 1_000.0);
    }
    // A client reads its own write on another node at once.
    let view = json!({ "id": Uuid::now_v7(), "path": "/last", "visitor": "v0", "room": "lobby" });
    let position = durable(&cluster.nodes[0], "/page-view", &view).await["position"].as_u64().unwrap();
    let path = format!("/unified-stats?range=24h&after={position}");
    let answer = cluster.nodes[1].get(&path).admin().send().await.expect(200);
    assert_eq!(answer["totals"]["pageViews"], model.page_views + 1);
    assert_eq!(answer["lagMs"], Value::Null);
    // Each node says how far all of them are.
    for node in &cluster.nodes {
        let is_equal = async || {
            let status = node.cluster().await;
            let nodes = status["nodes"].as_array().unwrap();
            let reports = nodes.iter().map(|node| (&node["log"]["position"], &node["log"]["outbox"]));
            reports.into_iter().all(|report| report == (&json!(position), &json!(0)))
        };
        until(is_equal, &format!("{}: all nodes are at {position}", node.name)).await;
    }
    until_healthy(&cluster).await;
    never_differed(&cluster).await;
    vec![
        Figure::millis("events", "ack of a durable post", acks, 250.0),
        Figure::millis(
            "events",
            "in all files after the ack, with a flush interval of 500 ms",
            lags,
            1_200.0,
        ),
    ]
}

/// What is imported into the file of one node reaches all, except for a visitor that was erased.
pub async fn import(_: Scale) -> Vec<Figure> {
    let cluster = cluster().await;
    let node = &cluster.nodes[1];
    durable(
        node,
        "/page-view",
        &json!({ "id": Uuid::now_v7(), "path": "/", "visitor": "zoe", "room": "lobby" }),
    )
    .await;
    let path = "/visitors/zoe/data";
    Request::new(&cluster.nodes[0].address, "DELETE", path).admin().send().await.expect(200);
    let line = |n: u64| {
        let visitor = if n < 100 { "zoe".to_owned() } else { format!("v{}", n % 7) };
        json!({ "type": "page-view", "id": Uuid::now_v7(), "room": "lobby", "visitor": visitor, "path": format!("/{n}"),
            "at": now() - 3_600_000 - n })
    };
    let lines: Vec<String> = (0..7_100).map(|n| line(n).to_string()).collect();
    let file = node.folder().join("old.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let url = format!("sqlite://{}/hub.db", node.folder().display());
    let settings =
        [("DATABASE_URL", url.as_str()), ("NATS_URL", "nats://127.0.0.1:9"), ("ADMIN_TOKEN", ADMIN_TOKEN)];
    let arguments = ["import", file.to_str().unwrap()];
    let refused = Program::run(&arguments, &[settings[0], settings[1], ("CLUSTER", "a.*")]).await;
    assert!(refused.stderr.contains("CLUSTER: must be"), "{refused:?}");
    let imported = Program::run(&arguments, &settings).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    for node in &cluster.nodes {
        let has_all = async || {
            let totals = stats(node).await["totals"].clone();
            (&totals["pageViews"], &totals["visitors"]) == (&json!(7_000), &json!(7))
        };
        until(has_all, &format!("{}: 7,000 page views", node.name)).await;
    }
    until_healthy(&cluster).await;
    Vec::new()
}

/// Each server of the log is killed in turn: acks go on, and nothing is missing.
pub async fn kill_log(scale: Scale) -> Vec<Figure> {
    let mut cluster = cluster().await;
    let (mut model, mut acks) = (Model::default(), Vec::new());
    for round in 0..scale.of(3, 30) {
        let server = round % 3;
        cluster.nats.kill(server).await;
        for node in &cluster.nodes {
            acks.extend(model.post(node, 3).await);
        }
        cluster.nats.restart(server).await;
        until_healthy(&cluster).await;
        model.until_everywhere(&cluster).await;
    }
    never_differed(&cluster).await;
    vec![Figure::millis("kill-log", "ack while a server is dead", acks, 3_000.0)]
}

/// Two of three servers are away: acks go on, and the others have the events when the servers are back.
pub async fn no_quorum(scale: Scale) -> Vec<Figure> {
    let mut cluster = cluster().await;
    let (mut model, mut acks) = (Model::default(), Vec::new());
    acks.extend(model.post(&cluster.nodes[0], 3).await);
    model.until_everywhere(&cluster).await;
    cluster.nats.kill(1).await;
    cluster.nats.kill(2).await;
    let began = Instant::now();
    let mut posted = 0;
    while posted < 2 || began.elapsed() < Duration::from_secs(scale.of(0, 60)) {
        for node in &cluster.nodes {
            acks.extend(model.post(node, 3).await);
        }
        posted += 1;
    }
    for node in &cluster.nodes {
        until(async || !node.health().await.is_empty(), "it is degraded").await;
        assert!(node.metric("breathing_room_log_outbox_batches").await > 0.0, "{}", node.log());
    }
    cluster.nats.restart(1).await;
    cluster.nats.restart(2).await;
    let began = Instant::now();
    for node in &cluster.nodes {
        let is_empty = async || node.metric("breathing_room_log_outbox_batches").await == 0.0;
        until(is_empty, &format!("{}: the outbox is empty", node.name)).await;
    }
    let emptied = millis_since(began);
    model.until_everywhere(&cluster).await;
    until_healthy(&cluster).await;
    never_differed(&cluster).await;
    vec![
        Figure::millis("no-quorum", "ack without a log", acks, 3_000.0),
        Figure::millis("no-quorum", "outboxes empty after the return", vec![emptied], 30_000.0),
    ]
}

/// A file that was changed by hand has other records than the others: the nodes say so, and `check --with` names the
/// month. A file that joins again is equal.
pub async fn differ(_: Scale) -> Vec<Figure> {
    let mut cluster = cluster().await;
    let mut model = Model::default();
    for n in 0..3 {
        model.post(&cluster.nodes[n], 2).await;
    }
    model.until_everywhere(&cluster).await;
    never_differed(&cluster).await;
    cluster.nodes[2].stop().await;
    let (file, url) = (cluster.nodes[2].folder().join("hub.db"), cluster.nodes[2].database_url());
    rows(&file, "UPDATE months SET record_sum = randomblob(16) RETURNING json_array(month)").await;
    cluster.nodes[2].open().await;
    for node in &cluster.nodes {
        until(async || node.health().await == "replicas-differ", &format!("{} says so", node.name)).await;
        assert!(node.metric("breathing_room_replica_differences_total").await > 0.0);
    }
    let nodes = cluster.nodes[0].cluster().await["nodes"].clone();
    let differ = nodes.as_array().unwrap().iter().map(|node| node["differs"].as_bool().unwrap());
    assert_eq!(differ.collect::<Vec<_>>(), [false, false, true], "{nodes}");
    assert!(cluster.nodes[0].log().contains("differs"), "{}", cluster.nodes[0].log());
    let other = format!("http://{}", cluster.nodes[0].address);
    let settings = [("DATABASE_URL", url.as_str())];
    let checked = Program::run(&["check", "--with", &other], &settings).await;
    assert_ne!(checked.code, Some(0), "{checked:?}");

    cluster.nodes[2].stop().await;
    let joined = Program::run(&["join", &other, "--replace"], &settings).await;
    assert_eq!(joined.code, Some(0), "{joined:?}");
    cluster.nodes[2].open().await;
    until_healthy(&cluster).await;
    model.until_everywhere(&cluster).await;
    Vec::new()
}

/// Waits until each node has compared its file with the others twice, of which none differed.
pub async fn never_differed(cluster: &Cluster) {
    for node in &cluster.nodes {
        let before = node.metric(COMPARISONS).await;
        let has_compared = async || node.metric(COMPARISONS).await >= before + 4.0;
        until(has_compared, &format!("{} compares its file", node.name)).await;
        assert_eq!(node.metric("breathing_room_replica_differences_total").await, 0.0, "{}", node.log());
    }
}

/// The stream is deleted while a node is down: no event is missing afterwards.
pub async fn log_lost(_: Scale) -> Vec<Figure> {
    let mut cluster = cluster().await;
    let mut model = Model::default();
    for n in 0..3 {
        model.post(&cluster.nodes[n], 4).await;
    }
    model.until_everywhere(&cluster).await;
    cluster.nodes[2].stop().await;
    // The last node does not have these, and the log loses them.
    model.post(&cluster.nodes[0], 4).await;
    let answer = cluster.nats.ask(0, "$JS.API.STREAM.DELETE.breathing-room-log").await;
    assert!(answer.contains("\"success\":true"), "{answer}");
    cluster.nodes[2].open().await;
    model.post(&cluster.nodes[1], 4).await;
    model.until_everywhere(&cluster).await;
    until_healthy(&cluster).await;
    let says_so = |node: &Node| node.log().contains("the log has lost messages");
    // A node that has all events already may notice it last.
    until(async || cluster.nodes.iter().all(says_so), "each log says so").await;
    never_differed(&cluster).await;
    Vec::new()
}

/// The last node is a replica: it gets the events of the others, also those from while it was down, and answers for them.
pub async fn replica(_: Scale) -> Vec<Figure> {
    let settings = [("FLUSH_INTERVAL", "500ms")];
    let of_last = [("MODE", "replica")];
    let mut cluster =
        Cluster::with(Setup { settings: &settings, of_last: &of_last, ..Setup::default() }).await;
    until_healthy(&cluster).await;
    let mut model = Model::default();
    for n in 0..2 {
        model.post(&cluster.nodes[n], 4).await;
    }
    model.until_everywhere(&cluster).await;
    cluster.nodes[2].kill().await;
    model.post(&cluster.nodes[0], 4).await;
    cluster.nodes[2].open().await;
    model.post(&cluster.nodes[1], 4).await;
    model.until_everywhere(&cluster).await;
    // A client reads its own write there.
    let view = json!({ "id": Uuid::now_v7(), "path": "/last", "visitor": "v0", "room": "lobby" });
    let position = durable(&cluster.nodes[0], "/page-view", &view).await["position"].as_u64().unwrap();
    let path = format!("/unified-stats?range=24h&after={position}");
    let answer = cluster.nodes[2].get(&path).admin().send().await.expect(200);
    assert_eq!(answer["totals"]["pageViews"], model.page_views + 1);
    let refused = cluster.nodes[2].post("/page-view").json(&view).send().await;
    refused.expect_error(404, "replica");
    until_healthy(&cluster).await;
    Vec::new()
}
