//! The simulation: a whole hub, clients that keep to the protocol, and everything that may happen to both.
//!
//! Each seed is a story of its own: people come, go and are lost; events are told, told again and refused;
//! commits fail; hubs are stopped and killed, and the next one goes on with the file. A `model` of
//! the presence and a `ledger` of the events say what must hold after every step. The hub is the real one, with
//! its sockets and its SQLite; only `time` is ours. What is left to chance is left to one seed, so
//! that a story can be told again: `SEED=7 cargo test --test simulation`. `SEEDS=100000`
//! tells more of them, and the optimizer (see the Makefile) tells them twice as fast.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]
#![expect(clippy::indexing_slicing, reason = "a panic here is a failed test")]
#![expect(clippy::print_stdout, reason = "a story that ends badly is told")]
#![expect(unreachable_pub, reason = "a test binary has no outside")]

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

use model::Who;
use scenario::{World, empty_database};

/// When all stories begin: shortly before the end of a month, so that many go over it.
const START: u64 = 1_796_083_200_000 - 30_000;

const ROOMS: [&str; 3] = ["lobby", "garden", "hall"];
const VISITORS: [&str; 6] = ["ann", "bob", "carol", "dan", "eve", "fay"];
const MOODS: [&str; 3] = ["calm", "joy", "sad"];

/// How many seeds there are where nobody says; `make simulation` tells two thousand.
const SEEDS: u64 = 200;

/// A story that did not end well.
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
    if let Some(Failure { seed, panic, log }) = tell_all(seeds) {
        let again = format!("SEED={seed} cargo test --locked --test simulation");
        panic!("{}\n\n{panic}\n\nThat was seed {seed}. Once more: {again}", log.join("\n"));
    }
}

/// Tells the stories of all these seeds, up to the first that does not end well: the shortest, where several
/// end at the same time.
fn tell_all(seeds: Range<u64>) -> Option<Failure> {
    let empty = empty_database();
    let (next, steps) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return None;
            }
            let (world, panic) = tell(seed, &empty);
            steps.fetch_add(world.steps, Ordering::Relaxed);
            if let Some(panic) = panic {
                next.store(seeds.end, Ordering::Relaxed);
                return Some(Failure { seed, panic, log: world.log });
            }
        }
    };
    // Three times as many as there are cores: each waits for SQLite's threads most of its time.
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
        let (first, second) = (tell(seed, &empty).0.log, tell(seed, &empty).0.log);
        for (line, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "seed {seed}, line {line}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

/// Tells the story of a seed, and how it ended, if not well.
fn tell(seed: u64, empty: &[u8]) -> (World, Option<String>) {
    let mut world = World::new(seed, empty);
    let panic = panics::caught(|| world.run());
    (world, panic)
}
