//! The scenarios: random ones by seed, and the bugs that they found.
//!
//! The nodes, the log and the model are in the parent module.

use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::sync::lock;

/// Default number of seeds. `make cluster-test` runs more.
const SEEDS: u64 = 150;

/// Runs a test in simulated time.
fn in_simulation<F: Future<Output = ()>>(test: impl FnOnce(Simulation) -> F, seed: u64, empty: &[u8]) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async { test(Simulation::new(seed, empty).await).await });
}

/// A new database.
fn empty_database() -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = memory_folder();
        let path = folder.path().join("a.db");
        Store::open(&format!("sqlite://{}", path.display())).await.unwrap().close().await;
        fs::read(path).unwrap()
    })
}

/// Runs the scenario of a seed.
fn run(seed: u64, empty: &[u8]) {
    in_simulation(
        async |mut simulation| {
            let steps = Arc::new(Mutex::new(Vec::new()));
            let guard = PrintOnPanic(seed, Arc::clone(&steps));
            for _ in 0..simulation.random.random_range(5..40) {
                simulation.step().await;
                lock(&steps).clone_from(&simulation.steps);
            }
            simulation.settle().await;
            drop(guard);
        },
        seed,
        empty,
    );
}

/// Prints the steps of a scenario that has failed.
struct PrintOnPanic(u64, Arc<Mutex<Vec<String>>>);

impl Drop for PrintOnPanic {
    #[expect(clippy::print_stderr, reason = "a failed scenario prints its steps")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\nCLUSTER_SEED={} repeats it", lock(&self.1).join("\n"), self.0);
        }
    }
}

impl Simulation {
    async fn step(&mut self) {
        let node = self.random.random_range(0..NODES.len());
        match self.random.random_range(0..24) {
            0..8 if self.nodes[node].is_some() => {
                let count = self.random.random_range(1..6);
                self.say(&format!("{count} events come to {}", NODES[node]));
                (0..count).for_each(|_| self.send(node));
            }
            8..11 => {
                let weather = self.one_of(&[
                    Weather::Good,
                    Weather::Slow,
                    Weather::Lossy,
                    Weather::Deaf,
                    Weather::Away,
                    Weather::AwayFrom(node),
                ]);
                self.set_weather(weather);
            }
            11..13 => self.kill(node).await,
            13 => self.stop(node).await,
            14..17 => {
                if self.nodes[node].is_none() {
                    self.start(node).await;
                }
                self.send_again();
            }
            17 => {
                self.say("the log is deleted");
                self.log.delete();
            }
            18 => self.lose_disk(node).await,
            19 => self.forget().await,
            20 => {
                if let Some(running) = &self.nodes[node] {
                    let (store, is_failing) = (running.store.clone(), self.random.random());
                    self.say(&format!("commits of {} fail: {is_failing}", NODES[node]));
                    store.fail_commits(is_failing).await;
                }
            }
            21 => self.settle().await,
            _ => {}
        }
        let pause = self.one_of(&[0, 20, 100, 300, 1_500, 6_000]);
        self.pass(pause).await;
    }
}

#[test]
fn random_runs_of_the_log_match_the_model_of_its_events() {
    let number = |name| env::var(name).ok().map(|value: String| value.parse::<u64>().unwrap());
    let seeds = match number("CLUSTER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CLUSTER_SEEDS").unwrap_or(SEEDS),
    };
    let (next, empty) = (AtomicU64::new(seeds.start), empty_database());
    std::thread::scope(|scope| {
        // Three threads per core: each waits for SQLite's threads much of the time.
        for _ in 0..3 * std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seeds.contains(&seed)
                {
                    run(seed, &empty);
                }
            });
        }
    });
}

#[test]
fn message_that_was_read_is_no_failure_without_an_answer() {
    in_simulation(
        async |mut simulation| {
            simulation.pass(500).await;
            simulation.set_weather(Weather::Deaf);
            simulation.send(0);
            simulation.pass(10_000).await;
            assert_eq!(simulation.acked.len(), 1);
            simulation.set_weather(Weather::Good);
            simulation.pass(1_000).await;
            // There is no other message that could close the breaker.
            assert_eq!(simulation.nodes[0].as_ref().unwrap().log.status().problem(), None);
            simulation.settle().await;
        },
        0,
        &empty_database(),
    );
}

#[test]
fn events_that_were_only_in_a_lost_log_before_their_commit_are_published_again() {
    in_simulation(
        async |mut simulation| {
            for node in 0..NODES.len() {
                simulation.kill(node).await;
            }
            simulation.start_with(0, 5_000).await;
            simulation.send(0);
            simulation.pass(500).await;
            assert_eq!((simulation.log.messages().len(), simulation.acked.len()), (1, 0));
            simulation.log.delete();
            simulation.settle().await;
            assert_eq!(simulation.acked.len(), 1);
        },
        0,
        &empty_database(),
    );
}

#[test]
fn log_that_is_made_again_while_a_node_begins_to_read_is_noticed() {
    in_simulation(
        async |mut simulation| {
            for tenths in 1..25 {
                simulation.stop(0).await;
                simulation.set_weather(Weather::Slow);
                simulation.start(0).await;
                simulation.pass(tenths * 100).await;
                simulation.log.delete();
                simulation.settle().await;
            }
        },
        0,
        &empty_database(),
    );
}

#[test]
fn log_that_is_deleted_before_a_node_has_its_name_loses_no_event() {
    let empty = empty_database();
    for seed in 0..20 {
        in_simulation(
            async |mut simulation| {
                simulation.send(2);
                simulation.pass(20).await;
                simulation.log.delete();
                simulation.settle().await;
                assert_eq!(simulation.acked.len(), 1);
            },
            seed,
            &empty,
        );
    }
}

#[test]
fn new_node_to_which_the_log_does_not_reach_back_publishes_its_events() {
    in_simulation(
        async |mut simulation| {
            simulation.kill(0).await;
            simulation.send(1);
            simulation.pass(6_000).await;
            let messages = simulation.log.messages().len();
            simulation.log.forget(messages);
            simulation.start_with(0, 1_000).await;
            simulation.send(0);
            simulation.pass(6_000).await;
            let status = simulation.nodes[0].as_ref().unwrap().log.status();
            assert_eq!((status.reading, status.outbox), (LogReading::Gone, 0));
            assert_eq!((simulation.acked.len(), simulation.log.messages().len()), (2, 2));
        },
        0,
        &empty_database(),
    );
}
