//! The load tool: puts the hub through what it exists for, and says what that costs.
//!
//! `make bench` runs all of it, `cargo bench --bench load -- --only fan-out,churn --quick` a part. It
//! starts the hub, and the floor in turn with it, reads their CPU time and memory from /proc, and
//! checks every result before it prints a figure; it exits with 1 where one was wrong. It knows
//! the hub from `docs/protocol.md` alone. Here are the command line and the order of the runs.

#![expect(
    clippy::indexing_slicing,
    reason = "the hub's JSON, and places that were counted: a tool may panic"
)]

mod client;
mod cost;
mod figure;
mod floor;
mod growth;
mod guard;
mod hostile;
mod http;
mod process;
mod report;
mod scenarios;
mod snapshot;
mod swarm;
mod websocket;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::builder::PossibleValuesParser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process::Subject;
use crate::report::{Role, Table};
use crate::scenarios::fan_out::FRAME;
use crate::scenarios::{ALL, Scale, Scenario};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Given by `cargo bench`; without it nothing is run.
const BENCH: &str = "--bench";

/// Measures the hub. Each figure is the median of all rounds, or the 99th percentile over all of them.
#[derive(Debug, Parser)]
#[command(name = "load")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Args {
    /// Scenarios to run; without it, all of them
    #[arg(long, value_delimiter = ',', value_name = "SCENARIOS",
          value_parser = PossibleValuesParser::new(ALL.map(|scenario| scenario.name)))]
    only: Vec<String>,
    /// Shorter times and fewer rounds
    #[arg(long)]
    quick: bool,
    /// How often each scenario runs, instead of its own number
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// The hub's program
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_breathing-room"))]
    hub: PathBuf,
    /// Another hub's program, run in turn with the first and compared with it
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Print how the figures grow with sockets and rooms, and nothing else
    #[arg(long)]
    grow: bool,
    /// Print docs/cost.md, and nothing else
    #[arg(long, conflicts_with = "grow")]
    cost: bool,
    /// Put good members beside hostile ones, and do nothing else
    #[arg(long, conflicts_with_all = ["grow", "cost"])]
    hostile: bool,
    /// How long the hostile ones go on, each time
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    hostile_for: Duration,
    /// From how many addresses they come, a run for each number
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_value = "1,50",
          value_parser = clap::value_parser!(u8).range(1..=200))]
    addresses: Vec<u8>,
    /// Only attacks whose names contain one of these; without it, all of them
    #[arg(long, value_delimiter = ',', value_name = "PARTS OF NAMES")]
    attacks: Vec<String>,
}

/// Closed standard output is no reason to end.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [floor, frame] if floor == "floor" => {
            frame.parse().map_err(Failure::from).and_then(floor::run).map(|()| true)
        }
        // So that `cargo test --all-targets` does not spend minutes here.
        all if !all.iter().any(|argument| argument == BENCH) => {
            say("This is the load tool. It runs with `make bench` or `cargo bench --bench load`.");
            Ok(true)
        }
        all => {
            let ours = all.iter().filter(|argument| *argument != BENCH).cloned();
            measure(&Args::parse_from(std::iter::once("load".to_owned()).chain(ours)))
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            complain(failure);
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for and says whether all of it was right.
fn measure(args: &Args) -> Outcome<bool> {
    let began = Instant::now();
    raise_open_files()?;
    guard::start()?;
    if args.cost {
        return cost::print(&args.hub).map(|()| true);
    }
    report::print_machine();
    if args.grow {
        return growth::print(&args.hub).map(|()| true);
    }
    if args.hostile {
        let (addresses, only) = (args.addresses.clone(), args.attacks.clone());
        return hostile::run(&args.hub, &hostile::Plan { time: args.hostile_for, addresses, only });
    }
    let mut table = Table::default();
    let mut right = true;
    for scenario in
        ALL.iter().filter(|it| args.only.is_empty() || args.only.iter().any(|name| name == it.name))
    {
        if let Err(failure) = run(scenario, args, &mut table) {
            complain(format_args!("WRONG: {}: {failure}", scenario.name));
            right = false;
        }
    }
    table.print();
    table.print_noise();
    say(format_args!("It took {:.0} s.", began.elapsed().as_secs_f64()));
    Ok(right)
}

/// All rounds of a scenario, the hub and what it is compared with in turn.
fn run(scenario: &Scenario, args: &Args, table: &mut Table) -> Outcome {
    let mut subjects = vec![(Role::Hub, Subject::Hub(args.hub.clone()))];
    subjects.extend(args.against.clone().map(|other| (Role::Other, Subject::Hub(other))));
    if scenario.has_floor {
        subjects.push((Role::Floor, Subject::Floor { frame: FRAME }));
    }
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let rounds = args.rounds.map_or(scale.of(scenario.rounds.0, scenario.rounds.1), |rounds| rounds as usize);
    for round in 1..=rounds {
        for (role, subject) in &subjects {
            complain(format_args!("{} {round}/{rounds}: {role:?}", scenario.name));
            let samples = (scenario.run)(subject, scale).map_err(|failure| format!("{role:?}: {failure}"))?;
            table.take(*role, samples);
        }
    }
    Ok(())
}

/// Every socket is a descriptor, here and in the server, which inherits the limit.
fn raise_open_files() -> Outcome {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    match maximum {
        Some(files) if files < 11_000 => {
            Err(format!("only {files} files may be open: see ulimit -Hn").into())
        }
        _ => Ok(()),
    }
}
