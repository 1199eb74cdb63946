//! The load tool: measures the hub's CPU, memory and latency under the loads that it is built for.
//!
//! `make bench` runs all scenarios, `make bench ARGS="--only fan-out,churn --quick"` a part. The
//! tool starts the hub, and the floor in turn with it, reads CPU time and memory from the kernel, and
//! checks every result before it prints a figure; it exits with 1 where a result is wrong. It knows
//! the hub from `docs/protocol.md` alone. This file has the command line and the order of the runs.

#![expect(
    clippy::indexing_slicing,
    reason = "the hub's JSON, and indexes that are counted here: a tool may panic"
)]

mod client;
mod cluster;
mod cost;
mod figure;
mod floor;
mod growth;
mod guard;
mod hostile;
mod http;
mod peer;
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

use crate::peer::Peer;
use crate::process::Subject;
use crate::report::{Role, Table};
use crate::scenarios::fan_out::FRAME;
use crate::scenarios::{ALL, Scale, Scenario};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The argument that `cargo bench` adds; without it the tool measures nothing.
const BENCH: &str = "--bench";

/// Measures the hub. A figure is the median of all rounds, or the 99th percentile over all rounds.
#[derive(Debug, Parser)]
#[command(name = "load")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Args {
    /// Scenarios to run [default: all]
    #[arg(long, value_delimiter = ',', value_name = "SCENARIOS",
          value_parser = PossibleValuesParser::new(ALL.map(|scenario| scenario.name)))]
    only: Vec<String>,
    /// Run shorter and in fewer rounds
    #[arg(long)]
    quick: bool,
    /// Rounds of each scenario, instead of its own number
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// The hub's program
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_breathing-room"))]
    hub: PathBuf,
    /// The program of another hub, run in turn with the first and compared with it
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Measure small hubs on Node.js (ws) and on Bun too, in fan-out, idle, churn and storm
    #[arg(long, conflicts_with_all = ["grow", "cost", "hostile"])]
    peers: bool,
    /// Print how the figures grow with sockets and rooms, and nothing else
    #[arg(long)]
    grow: bool,
    /// Print docs/cost.md, and nothing else
    #[arg(long, conflicts_with = "grow")]
    cost: bool,
    /// Measure three hubs on three NATS servers, and nothing else: all parts, or these
    #[arg(long, num_args = 0.., value_delimiter = ',', value_name = "PARTS",
          value_parser = PossibleValuesParser::new(cluster::PARTS.map(|(name, _)| name)),
          conflicts_with_all = ["grow", "cost", "hostile", "peers"])]
    cluster: Option<Vec<String>>,
    /// Measure honest members beside hostile peers, and nothing else
    #[arg(long, conflicts_with_all = ["grow", "cost"])]
    hostile: bool,
    /// With --hostile, attack the history by distinct texts and ids instead
    #[arg(long, requires = "hostile")]
    cardinality: bool,
    /// How long the attacks of --hostile last, in each run
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    hostile_for: Duration,
    /// Source addresses of the attacks, one run for each number
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_value = "1,50",
          value_parser = clap::value_parser!(u8).range(1..=200))]
    addresses: Vec<u8>,
    /// Run only attacks whose names contain one of these [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PARTS OF NAMES")]
    attacks: Vec<String>,
}

/// Prints to standard output; ignores a closed one.
fn print_line(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints to standard error; ignores a closed one.
fn print_error(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [floor, frame] if floor == "floor" => {
            frame.parse().map_err(Failure::from).and_then(floor::run).map(|()| true)
        }
        [crowd, arguments @ ..] if crowd == "crowd" => cluster::run_crowd(arguments).map(|()| true),
        // `cargo test --all-targets` runs this program too.
        all if !all.iter().any(|argument| argument == BENCH) => {
            print_line("This is the load tool. Run it with `make bench`.");
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
            print_error(failure);
            ExitCode::FAILURE
        }
    }
}

/// Runs what the arguments ask for. Returns whether all results of the hub are right.
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
    if let Some(parts) = &args.cluster {
        return cluster::run(&args.hub, parts);
    }
    if args.hostile {
        let (addresses, only) = (args.addresses.clone(), args.attacks.clone());
        let (time, cardinality) = (args.hostile_for, args.cardinality);
        return hostile::run(&args.hub, &hostile::Plan { time, addresses, cardinality, only });
    }
    if args.peers {
        let versions = Peer::ALL.into_iter().map(Peer::version).collect::<Outcome<Vec<_>>>()?;
        print_line(format_args!("Peers: {}", versions.join(", ")));
    }
    let mut table = Table::default();
    let mut right = true;
    for scenario in
        ALL.iter().filter(|it| args.only.is_empty() || args.only.iter().any(|name| name == it.name))
    {
        if let Err(failure) = run(scenario, args, &mut table) {
            print_error(format_args!("WRONG: {}: {failure}", scenario.name));
            right = false;
        }
    }
    table.print();
    table.print_noise();
    print_line(format_args!("The run took {:.0} s.", began.elapsed().as_secs_f64()));
    Ok(right)
}

/// Runs all rounds of a scenario, in each round every program in turn. A peer that fails is reported and left
/// out of the remaining rounds.
fn run(scenario: &Scenario, args: &Args, table: &mut Table) -> Outcome {
    let mut subjects = vec![(Role::Hub, Subject::Hub(args.hub.clone()))];
    subjects.extend(args.against.clone().map(|other| (Role::Other, Subject::Hub(other))));
    if scenario.has_floor {
        subjects.push((Role::Floor, Subject::Floor { frame: FRAME }));
    }
    if scenario.has_peers && args.peers {
        subjects.extend(Peer::ALL.map(|peer| (Role::from(peer), Subject::Peer(peer))));
    }
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let rounds = args.rounds.map_or(scale.of(scenario.rounds.0, scenario.rounds.1), |rounds| rounds as usize);
    for round in 1..=rounds {
        for (role, subject) in &subjects {
            print_error(format_args!("{} {round}/{rounds}: {}", scenario.name, role.name()));
            match (scenario.run)(subject, scale) {
                Ok(samples) => table.add(*role, samples),
                Err(failure) if role.is_peer() => {
                    print_error(format_args!("FAILED: {}: {}: {failure}", scenario.name, role.name()));
                    table.fail(*role, scenario.name, failure.to_string());
                }
                Err(failure) => return Err(format!("{}: {failure}", role.name()).into()),
            }
        }
        subjects.retain(|(role, _)| !table.has_failed(*role, scenario.name));
    }
    Ok(())
}

/// Raises the limit of open files: every socket is a descriptor, here and in the server, which inherits the limit.
fn raise_open_files() -> Outcome {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    match maximum {
        Some(files) if files < 11_000 => {
            Err(format!("only {files} files may be open: raise the hard limit (ulimit -Hn)").into())
        }
        _ => Ok(()),
    }
}
