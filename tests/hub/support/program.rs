//! The program as a process, which tests can signal and kill, and the faults of its disk.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{ADMIN_TOKEN, Client, Request, TIMEOUT};

pub struct Program {
    pub address: String,
    child: Child,
}

/// The exit code and the output of a program that has exited.
#[derive(Debug)]
pub struct ProgramOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_breathing-room");

fn set_up(mut command: Command, settings: &[(&str, &str)]) -> Command {
    let settings: HashMap<_, _> = settings.iter().copied().collect();
    command
        .env_clear()
        .env("LISTEN", "127.0.0.1:0")
        .env("ADMIN_TOKEN", ADMIN_TOKEN)
        .env("LEAVE_GRACE", "0s")
        .envs(settings)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Program {
    /// Starts the hub on a database in `folder` and waits until it prints its address.
    pub async fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_as(Command::new(PROGRAM), folder, settings).await
    }

    /// Starts the hub with these limits of open files, soft and hard.
    pub async fn start_with_file_limits(
        (soft, hard): (u64, u64),
        folder: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\""), PROGRAM]);
        Self::start_as(shell, folder, settings).await
    }

    /// Starts the hub with its log in the file `log` of the folder.
    pub async fn start_with_log(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        Self::start_into(log.into(), Command::new(PROGRAM), folder, settings).await
    }

    async fn start_as(command: Command, folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_into(Stdio::null(), command, folder, settings).await
    }

    async fn start_into(log: Stdio, command: Command, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let url = format!("sqlite://{}/hub.db", folder.display());
        let settings = [&[("DATABASE_URL", url.as_str())], settings].concat();
        let mut child = set_up(command, &settings).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(TIMEOUT, lines.next_line()).await.expect("an address").unwrap().expect("a line");
        let address = line.split("http://").nth(1).expect("a URL").trim_end_matches('/');
        Self { address: address.to_owned(), child }
    }

    /// Runs the program until it exits.
    pub async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> ProgramOutput {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        Self::run_as(command, settings).await
    }

    /// Runs the program until it exits, and calls `react` as soon as its standard error contains `words`.
    pub async fn run_and_react(
        arguments: &[&str],
        settings: &[(&str, &str)],
        words: &str,
        react: impl AsyncFnOnce(),
    ) -> ProgramOutput {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        let mut child = set_up(command, settings).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut stderr = String::new();
        let found = timeout(TIMEOUT, async {
            while !stderr.contains(words) {
                let line = lines.next_line().await.unwrap();
                stderr += &line.unwrap_or_else(|| panic!("it exited before it printed {words:?}: {stderr}"));
                stderr.push('\n');
            }
        });
        found.await.expect("the expected words in time");
        react().await;
        let mut stdout = String::new();
        let exit = timeout(TIMEOUT, async {
            lines.get_mut().read_to_string(&mut stderr).await.unwrap();
            child.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
            child.wait().await.unwrap()
        });
        let code = exit.await.expect("the exit in time").code();
        ProgramOutput { code, stdout, stderr }
    }

    async fn run_as(command: Command, settings: &[(&str, &str)]) -> ProgramOutput {
        let mut child = set_up(command, settings).spawn().unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let exit = timeout(TIMEOUT, async {
            child.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
            child.stderr.take().unwrap().read_to_string(&mut stderr).await.unwrap();
            child.wait().await.unwrap()
        });
        let code = exit.await.expect("the exit in time").code();
        ProgramOutput { code, stdout, stderr }
    }

    pub async fn join(&self, room: &str, visitor: &str) -> Client {
        Client::join(&self.address, room, &format!("visitor={visitor}")).await
    }

    pub fn get(&self, path: &str) -> Request {
        Request::new(&self.address, "GET", path)
    }

    pub fn post(&self, path: &str) -> Request {
        Request::new(&self.address, "POST", path)
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        super::metric(&self.get("/metrics").send().await.text, name)
    }

    /// Sends a signal by its name, as in `kill -s`.
    pub async fn signal(&self, name: &str) {
        let id = self.child.id().expect("a running program").to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await.unwrap();
        assert!(sent.success());
    }

    /// The process id.
    pub fn id(&self) -> rustix::process::Pid {
        let id = self.child.id().expect("a running program");
        rustix::process::Pid::from_raw(id.cast_signed()).expect("an id")
    }

    pub async fn wait(mut self) -> ExitStatus {
        timeout(TIMEOUT, self.child.wait()).await.expect("the exit in time").unwrap()
    }
}

/// Disk faults that a test switches on and off: see `faults.c`.
pub struct Faults {
    library: PathBuf,
    file: PathBuf,
}

impl Faults {
    /// Compiles the library that intercepts the hub's calls of libc.
    pub fn in_folder(folder: &Path) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hub/support/faults.c");
        let library = folder.join("faults.so");
        let mut compiler = std::process::Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]);
        assert!(compiler.status().expect("a C compiler").success());
        Self { library, file: folder.join("faults") }
    }

    /// Returns the environment for the hub.
    pub fn settings(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", self.library.to_str().unwrap()), ("FAULTS", self.file.to_str().unwrap())]
    }

    /// Sets the fault, or none.
    pub fn set(&self, fault: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, fault).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
}

/// A small volume in a mount namespace that only its hub sees, which needs no root.
pub struct Volume {
    folder: TempDir,
    holder: std::process::Child,
}

impl Volume {
    /// Mounts a volume. Returns none where the system does not allow it: the test is then skipped, or fails with
    /// `CI=true`.
    pub fn mount(size: &str) -> Option<Self> {
        Self::try_mount(size).inspect_err(|why| super::skip(why)).ok()
    }

    fn try_mount(size: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let mount =
            format!("mount -t tmpfs -o size={size} none '{}' && echo && exec cat", folder.path().display());
        let mut holder = std::process::Command::new("unshare");
        let holder = holder.args(["--map-root-user", "--mount", "sh", "-c", &mount]);
        holder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = holder.spawn().map_err(|error| format!("cannot run unshare: {error}"))?;
        if holder.stdout.as_mut().unwrap().read(&mut [0]).unwrap() == 1 {
            return Ok(Self { folder, holder });
        }
        let exit = holder.wait_with_output().unwrap();
        let why = String::from_utf8_lossy(&exit.stderr).trim().replace('\n', " ");
        Err(format!("this system does not allow a mount in a new namespace ({why})"))
    }

    fn enter(&self) -> std::process::Command {
        let mut enter = std::process::Command::new("nsenter");
        let id = self.holder.id().to_string();
        enter.args(["--target", &id, "--user", "--mount", "--preserve-credentials", "--wd=."]);
        enter.args(["sh", "-c", "cd \"$0\" && eval \"$1\""]).arg(self.folder.path());
        enter
    }

    /// Runs a shell command in the volume's folder.
    pub fn run(&self, line: &str) {
        assert!(self.enter().arg(line).status().unwrap().success(), "{line}");
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn hub(&self) -> Command {
        let mut command = self.enter();
        command.arg(format!("exec '{PROGRAM}'"));
        command.into()
    }

    pub async fn start(&self, settings: &[(&str, &str)]) -> Program {
        Program::start_as(self.hub(), self.path(), settings).await
    }

    /// Runs a command of the program on the volume.
    pub async fn run_command(&self, command: &str, settings: &[(&str, &str)]) -> ProgramOutput {
        let mut program = self.enter();
        program.arg(format!("exec '{PROGRAM}' {command}"));
        Program::run_as(program.into(), settings).await
    }

    /// Runs a hub until it exits.
    pub async fn run_hub(&self, settings: &[(&str, &str)]) -> ProgramOutput {
        Program::run_as(self.hub(), settings).await
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The end of its input ends the process, and with it the namespace and the mount.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
