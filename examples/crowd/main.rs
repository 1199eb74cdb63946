//! A crowd for a running hub: people who come and go, change mood, look at pages and watch things.
//!
//! `cargo run --release --example crowd -- --people 200 --rooms 8` sends them in, prints every five
//! seconds what they did, and holds at the end the hub's word against what the crowd knows. It exits
//! with 1 where something was not as the protocol promises. It knows the hub from `docs/protocol.md`
//! alone and shares no code with it. Here are the command line and the course of the day.

#![expect(
    clippy::indexing_slicing,
    reason = "the hub's JSON, and places that were drawn or counted: a tool may panic"
)]

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

/// A row of what happened comes this often.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Arrivals are spread over this time, or over half of a shorter stay.
const ARRIVALS: Duration = Duration::from_secs(4);
/// How long the hub may take to answer anything.
const TIMEOUT: Duration = Duration::from_secs(10);

const ROOMS: [&str; 8] = ["garden", "river", "forest", "meadow", "harbour", "mountain", "lantern", "shore"];

/// Sends a crowd of simulated visitors to a hub on this machine and checks what the hub says.
#[derive(Debug, Parser)]
#[command(name = "crowd")]
struct Args {
    /// The hub to visit; it must run on this machine
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080", value_parser = loopback)]
    hub: SocketAddr,
    /// How many people come, 1 to 15000; above some 500 the hub needs `RATE_LIMITS=off`, since all come from one
    /// address, and above some 5000 mind the limit of open files (ulimit -n)
    #[arg(long = "people", value_name = "PEOPLE", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    visitors: u32,
    /// How many rooms they go to, 1 to 1000
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rooms: u32,
    /// How long they stay, 1s to 1h; waiting for the last acks comes on top
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = length_of_stay)]
    duration: Duration,
}

fn loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address = text.replacen("ws://localhost:", "ws://127.0.0.1:", 1);
    match address.strip_prefix("ws://").map(|rest| rest.trim_end_matches('/').parse::<SocketAddr>()) {
        Some(Ok(hub)) if hub.ip().is_loopback() => Ok(hub),
        _ => Err("must be a hub on this machine, by its loopback address, such as ws://127.0.0.1:8080"),
    }
}

fn length_of_stay(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(duration) if (Duration::from_secs(1)..=Duration::from_hours(1)).contains(&duration) => {
            Ok(duration)
        }
        _ => Err("must be a duration from 1s to 1h, such as 60s or 5m"),
    }
}

/// The parts of the crowd's day, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Everybody does as they like.
    Active,
    /// Nobody does anything new; everybody comes back and waits for acks.
    Draining,
    /// Everybody closes with 1000.
    Leaving,
}

/// What all people share.
struct Crowd {
    hub: SocketAddr,
    visitors: usize,
    rooms: Vec<String>,
    /// One lock for all of it, so that a row and a comparison are of one moment.
    counters: Mutex<Counters>,
}

impl Crowd {
    fn random_room(&self) -> usize {
        random_range(0..self.rooms.len())
    }

    /// Held for a few steps only; the tally is sound after each of them, so poison means nothing.
    #[expect(clippy::disallowed_methods, reason = "the crowd shares no code with the hub")]
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closed standard output is no reason to leave the hub in a hurry.
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
        print_line(format_args!("No hub answers at ws://{hub}: {error}."));
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
    print_line("The time is up: nobody does anything new, and everybody waits for their acks.");
    phase.send_replace(Phase::Draining);
    let before = checks::compare(&crowd, ACK_WAIT, |rooms| check_present(&crowd, rooms)).await;
    phase.send_replace(Phase::Leaving);
    while let Some(visitor) = visitors.join_next().await {
        if let Err(error) = visitor {
            crowd.counters().violation("A person stumbled, which is a bug of the crowd", error);
        }
    }
    let after = checks::compare(&crowd, TIMEOUT, |rooms| check_left(&before, rooms)).await;
    reports.abort();
    print_line(crowd.counters().row("end"));
    checks::print_rooms(&before, &after);
    checks::summarize(&crowd)
}

/// A row every five seconds, until it is aborted.
async fn report(crowd: Arc<Crowd>) {
    let start = Instant::now();
    let mut ticks = interval_at(start + REPORT_EVERY, REPORT_EVERY);
    loop {
        ticks.tick().await;
        print_line(crowd.counters().row(&format!("{}s", start.elapsed().as_secs())));
    }
}
