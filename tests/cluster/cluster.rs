//! Hub processes that NATS connects, each on a database and an address of its own.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::member::Member;
use crate::nats::{Nats, free_port};
use crate::proxy::Proxy;
use crate::support::{ADMIN_TOKEN, Program, Request, eventually};

/// What a test sets up. Each hub uses its own NATS server first, as far as there are that many.
#[derive(Default)]
pub struct Setup<'a> {
    /// NATS servers; 0 is 1.
    pub servers: usize,
    /// The delay of a proxy in front of each hub's server. Without one, hubs connect directly.
    pub proxies: Option<[Duration; 3]>,
    /// More settings of all hubs.
    pub settings: &'a [(&'a str, &'a str)],
    /// More settings of the last hub.
    pub of_last: &'a [(&'a str, &'a str)],
    /// A database that each hub begins with a copy of.
    pub database: Option<&'a Path>,
}

/// NATS servers and three hubs.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub nats: Nats,
}

/// A hub of a cluster.
pub struct Node {
    pub name: String,
    /// Stays the same over restarts.
    pub address: String,
    pub proxy: Option<Proxy>,
    folder: TempDir,
    settings: Vec<(String, String)>,
    program: Option<Program>,
}

impl Cluster {
    /// Starts three hubs on one NATS server.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// Starts three hubs and waits until each one hears the others.
    pub async fn with(setup: Setup<'_>) -> Self {
        let nats = Nats::start(setup.servers.max(1), &[]).await;
        let mut nodes = Vec::new();
        for n in 0..3 {
            let proxy = match setup.proxies {
                Some(delays) => Some(Proxy::start(nats.address(n % nats.len()), delays[n]).await),
                None => None,
            };
            let url = proxy
                .as_ref()
                .map_or_else(|| nats.url(n % nats.len()), |proxy| format!("nats://{}", proxy.address()));
            let more = if n == 2 { setup.of_last } else { &[] };
            let settings = [setup.settings, more].concat();
            let mut node = Node::new(&format!("node-{n}"), &url, proxy, &settings);
            if let Some(database) = setup.database {
                std::fs::copy(database, node.folder().join("hub.db")).unwrap();
            }
            node.open().await;
            nodes.push(node);
        }
        let cluster = Self { nodes, nats };
        cluster.until_whole().await;
        cluster
    }

    /// Waits until every hub hears all others.
    pub async fn until_whole(&self) {
        for node in &self.nodes {
            for other in self.nodes.iter().filter(|other| other.name != node.name) {
                node.until_peer_is(&other.name, "live").await;
            }
        }
    }

    /// Waits until every hub has this count in a room, without a silent node.
    pub async fn until_present(&self, room: &str, present: u64) {
        for node in &self.nodes {
            let is_equal = async || {
                let counts = node.room(room).await;
                counts["present"] == present && counts["cluster"]["silent"] == 0
            };
            eventually(is_equal, &format!("{}: {present} in {room}", node.name)).await;
        }
    }

    /// The addresses of all hubs, beginning with this one.
    pub fn addresses(&self, first: usize) -> Vec<&str> {
        (0..self.nodes.len()).map(|n| self.nodes[(first + n) % self.nodes.len()].address.as_str()).collect()
    }

    /// Starts another hub with the name of this one.
    pub async fn namesake_of(&self, node: usize) -> Node {
        let mut node = Node::new(&self.nodes[node].name, &self.nats.url(0), None, &[]);
        node.open().await;
        node
    }

    /// Adds a node that joins with the history of this one, and has its settings.
    pub async fn add_by_join(&mut self, with: usize) {
        let (name, other) = (format!("node-{}", self.nodes.len()), &self.nodes[with]);
        let mut node = Node::new(&name, &self.nats.url(with), None, &[]);
        let url = format!("sqlite://{}/hub.db", node.folder().display());
        run_command(&["join", &format!("http://{}", other.address)], &url).await;
        let others =
            other.settings.iter().filter(|(name, _)| !node.settings.iter().any(|own| own.0 == *name));
        let others: Vec<_> = others.cloned().collect();
        node.settings.extend(others);
        node.open().await;
        self.nodes.push(node);
    }

    /// Joins at one hub, and at the next one whenever the socket ends.
    pub async fn join(&self, first: usize, room: &str, visitor: &str) -> Member {
        Member::join(&self.addresses(first), room, visitor).await
    }
}

impl Node {
    /// A hub that is not started yet.
    fn new(name: &str, url: &str, proxy: Option<Proxy>, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let own = [
            ("NODE", name),
            ("NATS_URL", url),
            ("LISTEN", &address),
            ("LEAVE_GRACE", "3s"),
            ("RATE_LIMITS", "off"),
            ("RUST_LOG", "info"),
        ];
        let settings: Vec<(String, String)> = own
            .iter()
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self { name: name.to_owned(), address, proxy, folder, settings, program: None }
    }

    /// Starts the hub.
    pub async fn open(&mut self) {
        let settings: Vec<(&str, &str)> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.program = Some(Program::start_with_log(self.folder.path(), &settings).await);
    }

    /// Stops the hub as a deployment does, and waits for its exit.
    pub async fn stop(&mut self) {
        let program = self.program.take().unwrap();
        program.signal("TERM").await;
        assert_eq!(program.wait().await.code(), Some(0), "{}", self.log());
    }

    /// Kills the hub.
    pub async fn kill(&mut self) {
        let program = self.program.take().unwrap();
        program.signal("KILL").await;
        program.wait().await;
    }

    /// Sends a signal by its name.
    pub async fn signal(&self, name: &str) {
        self.program().signal(name).await;
    }

    pub fn program(&self) -> &Program {
        self.program.as_ref().expect("a running hub")
    }

    /// The URL of the database.
    pub fn database_url(&self) -> String {
        format!("sqlite://{}/hub.db", self.folder.path().display())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The log, over all starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn get(&self, path: &str) -> Request {
        Request::new(&self.address, "GET", path)
    }

    pub fn post(&self, path: &str) -> Request {
        Request::new(&self.address, "POST", path)
    }

    /// `GET /rooms/{room}`.
    pub async fn room(&self, room: &str) -> Value {
        self.get(&format!("/rooms/{room}")).send().await.expect(200)
    }

    /// `GET /cluster`.
    pub async fn cluster(&self) -> Value {
        self.get("/cluster").admin().send().await.expect(200)
    }

    /// The reason of `GET /health`; empty if the hub is healthy.
    pub async fn health(&self) -> String {
        let body: Value = serde_json::from_str(&self.get("/health").send().await.text).unwrap();
        body["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The state in which this hub sees a node.
    pub async fn state_of(&self, name: &str) -> String {
        let status = self.cluster().await;
        let nodes = status["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == name);
        node.map_or_else(String::new, |node| node["state"].as_str().unwrap().to_owned())
    }

    /// Waits until this hub sees a node in this state.
    pub async fn until_peer_is(&self, name: &str, state: &str) {
        let is_it = async || self.state_of(name).await == state;
        eventually(is_it, &format!("{} sees {name} {state}", self.name)).await;
    }

    /// Waits until `GET /health` has this reason; an empty one is a healthy hub.
    pub async fn until_health(&self, reason: &str) {
        let is_it = async || self.health().await == reason;
        eventually(is_it, &format!("{}: {reason:?} in /health", self.name)).await;
    }

    /// Waits until `GET /rooms/{room}` has this count.
    pub async fn until_present(&self, room: &str, present: u64) {
        let is_it = async || self.room(room).await["present"] == present;
        eventually(is_it, &format!("{}: {present} in {room}", self.name)).await;
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        self.program().metric(name).await
    }
}

/// Runs a command of the program on a database. It may take minutes.
pub async fn run_command(arguments: &[&str], database_url: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_breathing-room"));
    let settings = [("DATABASE_URL", database_url), ("ADMIN_TOKEN", ADMIN_TOKEN)];
    command.args(arguments).env_clear().envs(settings).kill_on_drop(true);
    let output = timeout(Duration::from_mins(10), command.output()).await.expect("the exit in time").unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
}
