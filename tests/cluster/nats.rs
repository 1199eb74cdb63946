//! NATS servers on loopback, which a test stops, kills and starts again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::eventually;

/// Servers of one NATS cluster, with JetStream unless they have a configuration. They end when this is dropped.
pub struct Nats {
    servers: Vec<Server>,
    folder: TempDir,
}

struct Server {
    port: u16,
    arguments: Vec<String>,
    child: Child,
}

/// The path of nats-server, which the first call installs.
fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/nats-server");
        let output = std::process::Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "no nats-server");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// A port that is free now, and that the system gives to no other socket until it is used: it is below those that the
/// system chooses from (32768 by default).
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + u16::try_from(std::process::id() % 100).unwrap() * 200;
    let mut ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed) % 8_000);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl Nats {
    /// Starts this many servers, with further arguments, and waits until they are connected with each other.
    pub async fn start(count: usize, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let routes: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let urls: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let servers = urls.iter().enumerate().map(|(n, url)| {
            let (port, routes) = (free_port(), urls.join(","));
            let arguments = format!(
                "--addr 127.0.0.1 --port {port} --name nats-{n} --connect_retries 100 --no_advertise"
            );
            let cluster = format!("--cluster_name test --cluster {url} --routes {routes}");
            let mut arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
            if count > 1 {
                arguments.extend(cluster.split(' ').map(str::to_owned));
            }
            // With the accounts of a configuration, JetStream needs more of it.
            if !more.contains(&"--config") {
                let store = folder.path().join(n.to_string());
                arguments.extend(["--jetstream", "--store_dir", store.to_str().unwrap()].map(str::to_owned));
            }
            arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
            Server { port, child: spawn(&arguments), arguments }
        });
        let nats = Self { servers: servers.collect(), folder };
        for n in 0..count {
            nats.until_open(n).await;
        }
        nats
    }

    /// The folder with the files of all servers.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The number of servers.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// The address of a server.
    pub fn address(&self, server: usize) -> String {
        format!("127.0.0.1:{}", self.servers[server].port)
    }

    /// The value of `NATS_URL` of a hub that uses this server first.
    pub fn url(&self, first: usize) -> String {
        let order = (0..self.len()).map(|n| self.address((first + n) % self.len()));
        order.map(|address| format!("nats://{address}")).collect::<Vec<_>>().join(",")
    }

    /// Sends a signal by its name.
    pub async fn signal(&self, server: usize, name: &str) {
        let id = self.servers[server].child.id().expect("a running server").to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    /// Kills a server.
    pub async fn kill(&mut self, server: usize) {
        self.servers[server].child.kill().await.unwrap();
    }

    /// Starts a server that was killed.
    pub async fn restart(&mut self, server: usize) {
        let found = &mut self.servers[server];
        found.child = spawn(&found.arguments);
        self.until_open(server).await;
    }

    /// Sends a request of JetStream's API without a body to a server, and returns the answer.
    pub async fn ask(&self, server: usize, subject: &str) -> String {
        self.ask_with(server, subject, "").await
    }

    /// Sends a request of JetStream's API to a server, and returns the answer.
    pub async fn ask_with(&self, server: usize, subject: &str, body: &str) -> String {
        let stream = tokio::net::TcpStream::connect(self.address(server)).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let length = body.len();
        let request = format!("CONNECT {{}}\r\nSUB answer 1\r\nPUB {subject} answer {length}\r\n{body}\r\n");
        writer.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("MSG answer ") {
                return lines.next_line().await.unwrap().unwrap();
            }
        }
        panic!("no answer to {subject}");
    }

    async fn until_open(&self, server: usize) {
        let is_open = async || tokio::net::TcpStream::connect(self.address(server)).await.is_ok();
        eventually(is_open, "nats-server listens").await;
    }
}

fn spawn(arguments: &[String]) -> Child {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().unwrap()
}
