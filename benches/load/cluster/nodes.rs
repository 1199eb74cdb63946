//! Three hubs and three NATS servers, as processes, for the load of a cluster.
//!
//! Each hub uses its own NATS server. The processes end when this is dropped, or with the tool.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::guard;
use crate::http::Http;
use crate::process::{Server, Settings, Subject};
use crate::swarm::TIMEOUT;
use crate::{Outcome, print_error};

const NODES: usize = 3;

pub(crate) struct Nodes {
    pub(crate) hubs: Vec<Server>,
    _nats: Vec<Nats>,
    /// The folder of the log, which is deleted after the servers have ended.
    _log: Option<TempDir>,
}

struct Nats(Child);

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        guard::clear(self.0.id());
    }
}

impl Nodes {
    /// Starts all of them, and waits until each hub counts the others. They have no log.
    pub(crate) fn start(hub: &Path) -> Outcome<Self> {
        Self::start_with(hub, None, &[])
    }

    /// Starts all of them with a log that is on the disk before it answers, and with these settings of the hubs.
    pub(crate) fn with_log(hub: &Path, settings: Settings<'_>) -> Outcome<Self> {
        let nodes = Self::start_with(hub, Some(TempDir::new()?), settings)?;
        let deadline = Instant::now() + TIMEOUT;
        for hub in &nodes.hubs {
            let mut http = Http::connect(hub.address)?;
            while !http.get("/metrics")?.contains(r#"breathing_room_log_reading{state="following"} 1"#) {
                if Instant::now() > deadline {
                    return Err("a node does not read the log".into());
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        Ok(nodes)
    }

    fn start_with(hub: &Path, log: Option<TempDir>, settings: Settings<'_>) -> Outcome<Self> {
        let (ports, routes) = (free_ports()?, free_ports()?);
        let urls = routes.map(|port| format!("nats://127.0.0.1:{port}")).join(",");
        let program = nats_server()?;
        let mut nats = Vec::new();
        for (port, route) in ports.iter().zip(routes) {
            let arguments = format!(
                "--addr 127.0.0.1 --port {port} --name nats-{port} --no_advertise --cluster_name bench \
                 --cluster nats://127.0.0.1:{route} --routes {urls}"
            );
            let mut command = Command::new(&program);
            if let Some(folder) = &log {
                let (file, store) =
                    (folder.path().join(format!("{port}.conf")), folder.path().join(port.to_string()));
                let config =
                    format!("jetstream {{ store_dir: \"{}\", sync_interval: always }}", store.display());
                fs::write(&file, config)?;
                command.arg("--config").arg(file);
            }
            command
                .args(arguments.split(' '))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let child = command.spawn()?;
            guard::register(child.id());
            nats.push(Nats(child));
        }
        let subject = Subject::Hub(hub.to_owned());
        let mut hubs = Vec::new();
        for (n, port) in ports.iter().enumerate() {
            let (node, url) = (format!("node-{n}"), format!("nats://127.0.0.1:{port}"));
            let own =
                [("NODE", node.as_str()), ("NATS_URL", &url), ("ADMIN_TOKEN", "the-token-of-the-bench")];
            hubs.push(subject.start(&[&own, settings].concat())?);
        }
        let nodes = Self { hubs, _nats: nats, _log: log };
        nodes.until_whole()?;
        Ok(nodes)
    }

    fn until_whole(&self) -> Outcome {
        let deadline = Instant::now() + TIMEOUT;
        for hub in &self.hubs {
            let mut http = Http::connect(hub.address)?;
            while !http.get("/rooms/none")?.contains(&format!(r#""nodes":{NODES},"silent":0"#)) {
                if Instant::now() > deadline {
                    return Err("the nodes do not hear each other".into());
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        print_error("three nodes hear each other");
        // The full shares of the start are over.
        std::thread::park_timeout(Duration::from_secs(2));
        Ok(())
    }

    /// The CPU time of all hubs.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        self.hubs.iter().map(Server::cpu).sum()
    }
}

fn free_ports() -> Outcome<[u16; NODES]> {
    let listeners = [(); NODES].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; NODES];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// The path of nats-server, which the script installs into a folder of the project.
fn nats_server() -> Outcome<PathBuf> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/nats-server");
    let output = Command::new(script).stderr(Stdio::inherit()).output()?;
    if output.status.success() {
        Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
    } else {
        Err("no nats-server".into())
    }
}
