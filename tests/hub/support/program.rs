//! The program as its own process, which can be signalled and killed.

use std::collections::HashMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{ADMIN, Member, PATIENCE, Request};

pub struct Program {
    pub address: String,
    child: Child,
}

/// What a program that ended by itself said.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_breathing-room");

fn command(settings: &[(&str, &str)]) -> Command {
    set_up(Command::new(PROGRAM), settings)
}

fn set_up(mut command: Command, settings: &[(&str, &str)]) -> Command {
    let settings: HashMap<_, _> = settings.iter().copied().collect();
    command
        .env_clear()
        .env("LISTEN", "127.0.0.1:0")
        .env("ADMIN_TOKEN", ADMIN)
        .env("LEAVE_GRACE", "0s")
        .envs(settings)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Program {
    /// Starts the hub on a database in `folder` and waits until it tells its address.
    pub async fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_as(Command::new(PROGRAM), folder, settings).await
    }

    /// As above, with these limits of open files, soft and hard.
    pub async fn start_with_files(
        (soft, hard): (u64, u64),
        folder: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\""), PROGRAM]);
        Self::start_as(shell, folder, settings).await
    }

    async fn start_as(command: Command, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let url = format!("sqlite://{}/hub.db", folder.display());
        let settings = [&[("DATABASE_URL", url.as_str())], settings].concat();
        let mut child = set_up(command, &settings).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("an address").unwrap().expect("a line");
        let address = line.split("http://").nth(1).expect("an address to open").trim_end_matches('/');
        Self { address: address.to_owned(), child }
    }

    /// Runs the program until it ends by itself.
    pub async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
        let mut child = command(settings).args(arguments).spawn().unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let ended = timeout(PATIENCE, async {
            child.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
            child.stderr.take().unwrap().read_to_string(&mut stderr).await.unwrap();
            child.wait().await.unwrap()
        });
        let code = ended.await.expect("an end").code();
        Ended { code, stdout, stderr }
    }

    pub async fn join(&self, room: &str, visitor: &str) -> Member {
        Member::join(&self.address, room, &format!("visitor={visitor}")).await
    }

    pub fn get(&self, path: &str) -> Request {
        Request::new(&self.address, "GET", path)
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        super::metric(&self.get("/metrics").send().await.text, name)
    }

    /// Sends a signal by its name, as `kill -s` takes it.
    pub async fn signal(&self, name: &str) {
        let id = self.child.id().expect("a running program").to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await.unwrap();
        assert!(sent.success());
    }

    /// The process, for whoever changes its limits.
    pub fn id(&self) -> rustix::process::Pid {
        let id = self.child.id().expect("a running program");
        rustix::process::Pid::from_raw(id.cast_signed()).expect("an id")
    }

    pub async fn wait(mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("an end").unwrap()
    }
}
