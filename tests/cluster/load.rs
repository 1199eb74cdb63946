//! Clients that post page views at a steady rate, each one until it is acked, at any hub; and what all files must have then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use uuid::Uuid;

use crate::cluster::{Cluster, Node};
use crate::member::millis_since;
use crate::support::{Request, eventually, rows};

/// Events of one request, which each client posts once a second.
const BATCH: u64 = 100;

/// How long a client waits for an ack before it asks the next hub.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the nodes may take until all have the same events.
const RECOVERY: Duration = Duration::from_mins(2);

/// The clients. They end with this.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Vec<f64>>,
}

struct Shared {
    addresses: Vec<String>,
    is_over: AtomicBool,
    acked: AtomicU64,
}

impl Load {
    /// Posts this many events per second, a multiple of a hundred.
    pub fn start(cluster: &Cluster, rate: u64) -> Self {
        let addresses = cluster.nodes.iter().map(|node| node.address.clone()).collect();
        let shared = Shared { addresses, is_over: AtomicBool::new(false), acked: AtomicU64::new(0) };
        let (shared, mut clients) = (Arc::new(shared), JoinSet::new());
        for n in 0..rate / BATCH {
            clients.spawn(client(Arc::clone(&shared), usize::try_from(n).unwrap()));
        }
        Self { shared, clients }
    }

    /// The events that are acked so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits for the last acks. Returns the number of events, and how long each ack took, in milliseconds.
    pub async fn stop(self) -> (u64, Vec<f64>) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let times = self.clients.join_all().await.concat();
        (self.shared.acked.load(Ordering::Relaxed), times)
    }
}

/// Posts a batch each second, again at the next hub until it is acked. Returns how long the acks took.
async fn client(shared: Arc<Shared>, number: usize) -> Vec<f64> {
    let (mut times, mut ticks, mut hub) = (Vec::new(), interval(Duration::from_secs(1)), number);
    while !shared.is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let began = Instant::now();
        let event = |n: u64| json!({ "id": Uuid::now_v7(), "path": format!("/{}", n % 20), "visitor": format!("v{number}-{n}"), "room": "lobby" });
        let body = Value::Array((0..BATCH).map(event).collect());
        loop {
            let address = &shared.addresses[hub % shared.addresses.len()];
            let request = Request::new(address, "POST", "/page-view?durable=true").json(&body);
            match timeout(PATIENCE, request.try_send()).await {
                Ok(Ok(answer)) if answer.status == 200 => break,
                // The hub is down, hangs, or cannot commit. The events may be in its file.
                _ => hub += 1,
            }
            sleep(Duration::from_millis(50)).await;
        }
        shared.acked.fetch_add(BATCH, Ordering::Relaxed);
        times.push(millis_since(began));
    }
    times
}

/// The page views in the file of a node.
pub async fn count(node: &Node) -> u64 {
    rows(&node.folder().join("hub.db"), "SELECT count(*) FROM page_views").await[0].as_u64().unwrap()
}

/// Waits until the file of a node has this many page views, and no more.
pub async fn until_complete(node: &Node, expected: u64) {
    let began = Instant::now();
    loop {
        let count = count(node).await;
        if count == expected {
            return;
        }
        assert!(count < expected, "{}: {} events more than were sent", node.name, count - expected);
        assert!(
            began.elapsed() < RECOVERY,
            "{} lacks {} events\n{}",
            node.name,
            expected - count,
            node.log()
        );
        sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until all nodes count this many page views, and checks that they have the same records.
pub async fn expect_equal(cluster: &Cluster, page_views: u64) {
    let mut sums = Vec::new();
    for node in &cluster.nodes {
        let counts = async || {
            let answer = node.get("/unified-stats?range=30d").admin().send().await.expect(200);
            answer["totals"]["pageViews"] == page_views
        };
        eventually(counts, &format!("{} counts {page_views}", node.name)).await;
        sums.push(node.get("/replica").admin().send().await.expect(200)["months"].clone());
    }
    assert!(sums.iter().all(|months| *months == sums[0]), "{sums:?}");
}
