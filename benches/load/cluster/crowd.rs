//! Members of one room at one hub, in a process of their own: one process has too few descriptors for 40,000.
//!
//! The parent sends a line for each change that it is about to make, and gets a line with the moment at which the last
//! member had it. Both use the system's monotonic clock.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::swarm::{Join, Swarm, skip_sources};
use crate::{Outcome, guard};

/// The room of all crowds.
pub(crate) const ROOM: &str = "hall";

/// More sockets than the parent has open at the same hub.
const OF_PARENT: u32 = 1_000;

/// The system's monotonic time in microseconds.
pub(crate) fn now_micros() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1_000
}

pub(crate) struct Crowd {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    /// Starts a process whose members join, and waits until all are welcomed.
    pub(crate) fn join(hub: SocketAddr, name: &str, members: usize) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["crowd", &hub.to_string(), name, &members.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        guard::register(child.id());
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the crowd has no pipes".into());
        };
        let mut crowd = Self { child, input, output: BufReader::new(output) };
        crowd.read()?;
        Ok(crowd)
    }

    /// Announces a change to a state with this many members of the mood.
    pub(crate) fn expect(&mut self, mood: &str, count: u32) -> Outcome {
        Ok(writeln!(self.input, "{mood} {count}")?)
    }

    /// The moment at which the last member had the announced change.
    pub(crate) fn read(&mut self) -> Outcome<u64> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().map_err(|_| format!("a crowd failed: {line:?}").into())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        guard::clear(self.child.id());
    }
}

/// The process of a crowd, until its input ends.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let [hub, name, members] = arguments else { return Err("crowd HUB NAME MEMBERS".into()) };
    crate::raise_open_files()?;
    let members: usize = members.parse()?;
    skip_sources(OF_PARENT);
    let mut swarm = Swarm::new(hub.parse()?)?;
    swarm.join_all(members, |index| Join {
        room: ROOM.to_owned(),
        visitor: format!("{name}-{index}"),
        mood: None,
    })?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", now_micros())?;
    output.flush()?;
    // The input is read beside the sockets, which must not wait for it.
    let (sender, lines) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(std::sync::mpsc::TryRecvError::Empty) => {
                swarm.turn(Duration::from_millis(1), &mut |_, _| {})?;
                continue;
            }
            Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
        };
        let (mood, count) = line.split_once(' ').ok_or("a line without a count")?;
        let wanted = format!(r#""{mood}":{count}"#);
        let (mut right, mut left) = (vec![false; members], members);
        let deadline = Instant::now() + crate::swarm::TIMEOUT;
        while left > 0 && Instant::now() < deadline {
            swarm.turn(Duration::from_millis(5), &mut |index, text| {
                let has_it = text.windows(wanted.len()).any(|part| part == wanted.as_bytes());
                if has_it && !std::mem::replace(&mut right[index], true) {
                    left -= 1;
                }
            })?;
        }
        if left > 0 {
            return Err(format!("{left} of {members} members did not get {wanted}").into());
        }
        writeln!(output, "{}", now_micros())?;
        output.flush()?;
    }
}
