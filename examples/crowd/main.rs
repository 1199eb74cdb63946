//! Simulated visitors for a running hub: they join and leave, change mood, view pages and watch videos.
//!
//! `cargo run --release --example crowd -- --people 200 --rooms 8` prints counters every five seconds, and at the end
//! compares the hub's counts with its own. It exits with 1 if the hub broke the protocol. It is written from
//! `docs/protocol.md` and shares no code with the hub. This file has the command line and the phases.

#![expect(clippy::indexing_slicing, reason = "JSON of the hub, and indices in range: a tool may panic")]

mod checks;
mod counters;
mod outbox;
mod tab;
mod visitor;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Parser;
use rand::random_range;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep};
use uuid::Uuid;

use crate::checks::{ACK_WAIT, check_left, check_present};
use crate::counters::{Counters, HEADER};
use crate::visitor::Visitor;

/// The interval of the printed counters.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Joins are spread over this time, or over half of a shorter run.
const ARRIVALS: Duration = Duration::from_secs(4);
/// The longest wait for any response of the hub.
const TIMEOUT: Duration = Duration::from_secs(10);

const ROOMS: [&str; 8] = ["garden", "river", "forest", "meadow", "harbour", "mountain", "lantern", "shore"];

/// Runs simulated visitors against a hub on this machine and checks the hub's counts.
#[derive(Debug, Parser)]
#[command(name = "crowd")]
struct Args {
    /// The hub; it must run on this machine
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080", value_parser = loopback)]
    hub: SocketAddr,
    /// Number of visitors, 1 to 15000. All have one address: above about 500 the hub needs `RATE_LIMITS=off`. Above about
    /// 5000, raise the limit of open files (ulimit -n)
    #[arg(long = "people", value_name = "PEOPLE", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    visitors: u32,
    /// Number of rooms, 1 to 1000
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rooms: u32,
    /// Duration of the run, 1s to 1h, without the wait for the last acks
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = run_duration)]
    duration: Duration,
}

fn loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address = text.replacen("ws://localhost:", "ws://127.0.0.1:", 1);
    match address.strip_prefix("ws://").map(|rest| rest.trim_end_matches('/').parse::<SocketAddr>()) {
        Some(Ok(hub)) if hub.ip().is_loopback() => Ok(hub),
        _ => Err("must be a hub on this machine, by its loopback address, such as ws://127.0.0.1:8080"),
    }
}

fn run_duration(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(duration) if (Duration::from_secs(1)..=Duration::from_hours(1)).contains(&duration) => {
            Ok(duration)
        }
        _ => Err("must be a duration from 1s to 1h, such as 60s or 5m"),
    }
}

/// The phases of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Visitors act at random.
    Active,
    /// Visitors do nothing new: they reconnect and wait for acks.
    Draining,
    /// Visitors close with 1000.
    Leaving,
}

/// The state that all visitors share.
struct Crowd {
    hub: SocketAddr,
    visitors: usize,
    rooms: Vec<String>,
    /// One lock for all counters, so that a row and a comparison are consistent.
    counters: Mutex<Counters>,
}

impl Crowd {
    fn random_room(&self) -> usize {
        random_range(0..self.rooms.len())
    }

    /// Locks the counters. They are valid after each change, so that poison can be ignored.
    #[expect(clippy::disallowed_methods, reason = "the crowd shares no code with the hub")]
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints a line. A closed standard output does not stop the run.
fn print_line(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { hub, visitors, rooms, duration } = Args::parse();
    let room = |index| ROOMS.get(index).map_or_else(|| format!("room-{}", index + 1), ToString::to_string);
    let rooms = (0..rooms as usize).map(room).collect();
    let crowd = Arc::new(Crowd { hub, visitors: visitors as usize, rooms, counters: Mutex::default() });
    if let Err(error) = checks::query(&crowd).await {
        print_line(format_args!(
            "no hub responds at ws://{hub}: {error}; start it first, or name it with --hub"
        ));
        return ExitCode::FAILURE;
    }
    let (rooms, length) = (crowd.rooms.len(), humantime::format_duration(duration));
    print_line(format_args!("{visitors} visitors join {rooms} rooms of ws://{hub} for {length}.\n{HEADER}"));

    let reports = tokio::spawn(report(Arc::clone(&crowd)));
    let (phase, _) = watch::channel(Phase::Active);
    let run = &Uuid::new_v4().simple().to_string()[..8];
    let visitor = |number| Visitor::new(number, run, &crowd, phase.subscribe());
    let arrival = || random_range(Duration::ZERO..ARRIVALS.min(duration / 2));
    let mut visitors: JoinSet<()> =
        (0..crowd.visitors).map(|number| visitor(number).run(arrival())).collect();
    sleep(duration).await;
    print_line("The run is over: waiting for the last acks.");
    phase.send_replace(Phase::Draining);
    let before = checks::compare(&crowd, ACK_WAIT, |rooms| check_present(&crowd, rooms)).await;
    phase.send_replace(Phase::Leaving);
    while let Some(visitor) = visitors.join_next().await {
        if let Err(error) = visitor {
            crowd.counters().violation("A visitor's task panicked, which is a bug of this example", error);
        }
    }
    let after = checks::compare(&crowd, TIMEOUT, |rooms| check_left(&before, rooms)).await;
    reports.abort();
    print_line(crowd.counters().row("end"));
    checks::print_rooms(&before, &after);
    checks::summarize(&crowd)
}

/// Prints a row every five seconds until it is aborted.
async fn report(crowd: Arc<Crowd>) {
    let start = Instant::now();
    let mut ticks = interval_at(start + REPORT_EVERY, REPORT_EVERY);
    loop {
        ticks.tick().await;
        print_line(crowd.counters().row(&format!("{}s", start.elapsed().as_secs())));
    }
}
