//! The measured server process: start, end, and the kernel's figures of it.
//!
//! CPU time is the process's own clock, in nanoseconds over all threads. Memory is resident memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Outcome;
use crate::guard;
use crate::peer::Peer;
use crate::swarm::TIMEOUT;

/// The program that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A hub, by the path of its program.
    Hub(PathBuf),
    /// A hub on another platform.
    Peer(Peer),
    /// This program as the floor, with frames of this many bytes.
    Floor { frame: usize },
}

/// Settings that a scenario changes, as in `FLUSH_INTERVAL`. A peer knows `PING_INTERVAL` only.
pub(crate) type Settings<'a> = &'a [(&'a str, &'a str)];

/// The file name of the hub's log.
const LOG: &str = "log";

/// When pages send pings.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PagePings {
    /// Each once in this time, after silence.
    Every(Duration),
    /// After one of so many keepalives.
    AfterKeepalive { one_in: u64 },
}

impl Subject {
    /// Whether it counts visitors and sends snapshots. The floor does not.
    pub(crate) fn has_rooms(&self) -> bool {
        !matches!(self, Self::Floor { .. })
    }

    /// When a page that is seen sends a ping in a quiet room, with this interval of the server's pings. This hub sends a
    /// message with each of its own, after which a page compares clocks once in ten minutes. (A hub of before that, as
    /// `--against`, is measured with fewer pings than its pages send.)
    pub(crate) fn page_pings(&self, ping_interval: Duration) -> PagePings {
        match self {
            Self::Hub(_) => {
                let one_in = Duration::from_mins(10).as_secs() / ping_interval.as_secs();
                PagePings::AfterKeepalive { one_in }
            }
            Self::Peer(_) | Self::Floor { .. } => PagePings::Every(Duration::from_mins(1)),
        }
    }

    /// Starts it on a free port, with an empty database, and waits until it listens.
    pub(crate) fn start(&self, settings: Settings<'_>) -> Outcome<Server> {
        self.start_in(TempDir::new()?, settings, Stdio::inherit())
    }

    /// The same, with its log in a file.
    pub(crate) fn start_logged(&self, settings: Settings<'_>) -> Outcome<Server> {
        let folder = TempDir::new()?;
        let log = fs::File::create(folder.path().join(LOG))?;
        self.start_in(folder, settings, log.into())
    }

    fn start_in(&self, folder: TempDir, settings: Settings<'_>, log: Stdio) -> Outcome<Server> {
        let mut command = match self {
            Self::Hub(program) => {
                let mut hub = Command::new(program);
                hub.env_clear()
                    .env("LISTEN", "127.0.0.1:0")
                    .env("DATABASE_URL", format!("sqlite://{}", folder.path().join("hub.db").display()))
                    .envs([("RATE_LIMITS", "off"), ("LEAVE_GRACE", "0s"), ("RUST_LOG", "error")])
                    .envs([("MAX_CONNECTIONS", "20000"), ("MAX_ROOMS", "20000")])
                    .envs(settings.iter().copied());
                hub
            }
            Self::Peer(peer) => {
                let mut hub = peer.command();
                hub.envs(settings.iter().copied());
                hub
            }
            Self::Floor { frame } => {
                let mut floor = Command::new(std::env::current_exe()?);
                floor.args(["floor", &frame.to_string()]);
                floor
            }
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        guard::register(child.id());
        let stdout = child.stdout.take();
        let mut server = Server { child, address: ([127, 0, 0, 1], 0).into(), folder };
        let (sender, line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
            let _ = sender.send(line);
        });
        let line = line.recv_timeout(TIMEOUT)?;
        let address = line.split("http://").nth(1).map(|rest| rest.trim_end().trim_end_matches('/'));
        server.address = address.ok_or("the server did not print its address")?.parse()?;
        Ok(server)
    }
}

/// A running process. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        guard::clear(self.child.id());
    }
}

impl Server {
    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("hub.db")
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Outcome<String> {
        Ok(fs::read_to_string(self.folder.path().join(LOG))?)
    }

    /// The CPU time so far, over all threads, ended ones included.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let process = Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(clock_gettime(clock_getcpuclockid(process)?)?.into())
    }

    pub(crate) fn memory(&self) -> Outcome<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
            kib.map(|kib| kib * 1024.0).ok_or_else(|| format!("no {name} in smaps_rollup"))
        };
        Ok(Memory { rss: bytes("Rss:")?, pss: bytes("Pss:")? })
    }
}

/// Resident and proportional set size, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) rss: f64,
    pub(crate) pss: f64,
}
