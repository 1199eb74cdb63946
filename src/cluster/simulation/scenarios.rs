//! The scenarios: random ones by seed, and some that are written out.
//!
//! The nodes, the network and the model are in the parent module.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::time::millis;

/// Default number of seeds. `make cluster-test` runs 2,000.
const SEEDS: u64 = 60;

/// Runs a scenario. Returns its log.
fn run(seed: u64) -> Vec<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut simulation = Simulation::new(seed).await;
        let log = Arc::new(Mutex::new(Vec::new()));
        let guard = PrintOnPanic(seed, Arc::clone(&log));
        for _ in 0..simulation.random.random_range(5..45) {
            simulation.step().await;
            lock(&log).clone_from(&simulation.log);
        }
        simulation.finish().await;
        drop(guard);
        simulation.log
    })
}

/// Prints the log of a scenario that has failed.
struct PrintOnPanic(u64, Arc<Mutex<Vec<String>>>);

impl Drop for PrintOnPanic {
    #[expect(clippy::print_stderr, reason = "a failed scenario prints its log")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\nCLUSTER_SEED={} repeats it", lock(&self.1).join("\n"), self.0);
        }
    }
}

#[test]
fn random_runs_of_three_nodes_match_the_model() {
    let number = |name| env::var(name).ok().map(|value: String| value.parse::<u64>().unwrap());
    let seeds = match number("CLUSTER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CLUSTER_SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seeds.contains(&seed)
                {
                    run(seed);
                }
            });
        }
    });
}

#[test]
fn same_seed_gives_the_same_run_of_three_nodes() {
    for seed in 0..3 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// Three nodes without random steps.
fn in_simulation<F: Future<Output = ()>>(test: impl FnOnce(Simulation) -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async { test(Simulation::new(0).await).await });
}

fn joins(node: &SimulatedNode) -> u32 {
    node.registry.take_samples().total.joins
}

#[test]
fn split_that_heals_adds_no_joins_and_says_what_is_missing() {
    in_simulation(async |mut simulation| {
        for (number, visitor) in VISITORS.iter().enumerate() {
            simulation.join(number % 3, ("lobby", visitor), None).await;
            simulation.pass(10).await;
        }
        simulation.settle().await;
        let registry = |simulation: &Simulation, node: usize| {
            Arc::clone(&simulation.nodes[node].as_ref().unwrap().registry)
        };
        let lobby = RoomId::try_from("lobby").unwrap();
        for node in simulation.nodes.iter().flatten() {
            assert_eq!(joins(node), 5);
        }
        simulation.set_weather(Weather::Alone(0));
        simulation.pass(4_000).await;
        let status =
            |simulation: &Simulation, node: usize| simulation.nodes[node].as_ref().unwrap().cluster.status();
        assert_eq!(status(&simulation, 0).own, OwnState::Alone);
        assert_eq!((status(&simulation, 0).silent(), status(&simulation, 1).silent()), (2, 1));
        assert_eq!(registry(&simulation, 1).snapshot(&lobby).present, 5, "held for 15 s");
        simulation.pass(12_000).await;
        assert_eq!(registry(&simulation, 0).snapshot(&lobby).present, 2, "its own");
        assert_eq!(registry(&simulation, 1).snapshot(&lobby).present, 3);
        simulation.pass(44_000).await;
        simulation.settle().await;
        for node in simulation.nodes.iter().flatten() {
            assert_eq!(joins(node), 0, "visitors who return with a share have not joined");
        }
    });
}

#[test]
fn join_flood_over_three_nodes_is_counted_exactly() {
    in_simulation(async |mut simulation| {
        simulation.set_weather(Weather::Lossy);
        let lobby = RoomId::try_from("lobby").unwrap();
        let mut memberships = Vec::new();
        for number in 0..3_000_usize {
            let registry = Arc::clone(&simulation.nodes[number % 3].as_ref().unwrap().registry);
            let stream = TcpStream::connect(simulation.listener.local_addr().unwrap()).await.unwrap();
            drop(simulation.listener.accept().await.unwrap());
            let visitor = VisitorId::try_from(format!("v{}", number % 2_000)).unwrap();
            let writer = Arc::new(SocketWriter::new(stream));
            memberships
                .push(registry.join(&lobby, &visitor, None, writer, Features::default()).unwrap().membership);
            if number % 500 == 499 {
                simulation.pass(100).await;
            }
        }
        simulation.set_weather(Weather::Good);
        simulation.pass(SETTLE).await;
        for node in simulation.nodes.iter().flatten() {
            assert_eq!(node.registry.snapshot(&lobby).present, 2_000);
            assert_eq!(node.registry.totals().visitors, 2_000);
        }
        drop(memberships);
        simulation.pass(SETTLE).await;
        for node in simulation.nodes.iter().flatten() {
            assert_eq!(node.registry.totals().visitors, 0);
        }
        assert!(millis(simulation.clocks[0].elapsed()) < 60_000);
    });
}

#[test]
fn restart_with_an_earlier_wall_clock_is_followed_at_once() {
    in_simulation(async |mut simulation| {
        for is_stopped in [true, false] {
            simulation.join(0, ("lobby", "ann"), None).await;
            simulation.join(1, ("lobby", "bob"), None).await;
            simulation.settle().await;
            if is_stopped {
                simulation.stop(0).await;
            } else {
                simulation.kill(0);
            }
            simulation.start_again(0, 30_000);
            simulation.pass(300).await;
            simulation.join(0, ("lobby", "eve"), None).await;
            simulation.pass(200).await;
            for node in simulation.nodes.iter().flatten().skip(1) {
                assert_eq!(node.registry.snapshot(&RoomId::try_from("lobby").unwrap()).present, 3);
            }
            simulation.pass(20_000).await; // ann did not come back
            simulation.settle().await;
            while !simulation.sockets.is_empty() {
                simulation.end(0, false);
            }
            simulation.pass(20_000).await;
        }
    });
}

#[test]
fn nodes_with_one_name_say_that_it_is_taken_until_one_of_them_leaves() {
    in_simulation(async |mut simulation| {
        let own = |simulation: &Simulation| simulation.nodes[0].as_ref().unwrap().cluster.status();
        let other = simulation.open(0);
        simulation.pass(5_000).await;
        assert_eq!(own(&simulation).own, OwnState::Ok, "it may be the end of an earlier run");
        simulation.pass(2_000).await;
        for status in [own(&simulation), other.cluster.status()] {
            assert_eq!((status.own, status.silent()), (OwnState::NameTaken, 1));
        }
        other.running.leave().await;
        simulation.pass(1_000).await;
        assert_eq!((own(&simulation).own, own(&simulation).silent()), (OwnState::Ok, 0));
    });
}
