//! Deterministic simulation: a whole hub, clients that follow the protocol, and random failures of both.
//!
//! Each seed gives one scenario: clients join, leave and disconnect; events are sent, sent again and rejected; commits
//! fail; the hub is stopped or killed, and the next hub uses the same file. After each step the hub is compared with a
//! `model` of the presence and an `event_log` of the events. The hub is the real one, with its sockets and its SQLite;
//! only the clock is manual (`time`). All randomness comes from the seed, so that a scenario can be repeated:
//! `SEED=7 cargo test --test simulation`. `SEEDS=100000` runs more scenarios; with the optimizer (see the Makefile) they
//! run twice as fast.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]
#![expect(clippy::indexing_slicing, reason = "a panic here is a failed test")]
#![expect(clippy::print_stdout, reason = "a failed scenario prints its log")]
#![expect(unreachable_pub, reason = "a test binary exports nothing")]

mod client;
mod database;
mod event_log;
mod hub;
mod hub_run;
mod model;
mod panics;
mod random;
mod scenario;
mod steps;
mod time;

use std::env;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use model::Member;
use scenario::{Scenario, empty_database};

/// The start time of all scenarios: 30 s before the end of a month, so that many of them cross it.
const START: u64 = 1_796_083_200_000 - 30_000;

const ROOMS: [&str; 3] = ["lobby", "garden", "hall"];
const VISITORS: [&str; 6] = ["ann", "bob", "carol", "dan", "eve", "fay"];
const MOODS: [&str; 3] = ["calm", "joy", "sad"];

/// Default number of seeds, about a minute on two cores. `make simulation` runs 2,000.
const SEEDS: u64 = 500;

/// A failed scenario.
struct Failure {
    seed: u64,
    panic: String,
    log: Vec<String>,
}

#[test]
fn random_runs_match_the_model_and_the_event_log() {
    let number = |name| env::var(name).ok().map(|value: String| value.parse().expect("a number"));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    if let Some(Failure { seed, panic, log }) = run_seeds(seeds) {
        let again = format!("SEED={seed} cargo test --locked --test simulation");
        panic!("{}\n\n{panic}\n\nSeed {seed} failed. To repeat: {again}", log.join("\n"));
    }
}

/// Runs the scenarios of all these seeds up to the first failure. Returns the shortest if several fail at the same time.
fn run_seeds(seeds: Range<u64>) -> Option<Failure> {
    let empty = empty_database();
    let (next, steps) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return None;
            }
            let (scenario, panic) = run_seed(seed, &empty);
            steps.fetch_add(scenario.steps, Ordering::Relaxed);
            if let Some(panic) = panic {
                next.store(seeds.end, Ordering::Relaxed);
                return Some(Failure { seed, panic, log: scenario.log });
            }
        }
    };
    // Three threads per core: each waits for SQLite's threads most of the time.
    let workers = 3 * thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<Failure> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().expect("a worker that catches panics"))
            .collect()
    });
    println!("{} steps of seeds {seeds:?}", steps.into_inner());
    failures.into_iter().min_by_key(|failure| failure.log.len())
}

#[test]
fn same_seed_gives_the_same_run() {
    let empty = empty_database();
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| {
            let (scenario, panic) = run_seed(seed, &empty);
            assert_eq!(panic, None, "seed {seed}:\n{}", scenario.log.join("\n"));
            scenario.log
        });
        for (line, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "seed {seed}, line {line}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

/// Runs the scenario of a seed. Returns it, and the panic if it failed.
fn run_seed(seed: u64, empty: &[u8]) -> (Scenario, Option<String>) {
    let mut scenario = Scenario::new(seed, empty);
    let panic = panics::catch(|| scenario.run());
    (scenario, panic)
}
