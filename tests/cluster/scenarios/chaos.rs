//! chaos: hubs and servers are killed and stopped at random under load. What was acked is in every file, once.
//!
//! `CHAOS_MINUTES` sets the length of the long form, and `CHAOS_SEED` repeats the order of the faults.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use super::log::{cluster, until_healthy};
use crate::cluster::Cluster;
use crate::figure::{Figure, Scale};
use crate::load::{Load, expect_equal, until_complete};
use crate::member::millis_since;

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Hub(usize),
    Server(usize),
}

/// How it fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Stop,
}

async fn fail(cluster: &mut Cluster, victim: Victim, fault: Fault) {
    match (victim, fault) {
        (Victim::Hub(hub), Fault::Kill) => cluster.nodes[hub].kill().await,
        (Victim::Hub(hub), Fault::Stop) => cluster.nodes[hub].signal("STOP").await,
        (Victim::Server(server), Fault::Kill) => cluster.nats.kill(server).await,
        (Victim::Server(server), Fault::Stop) => cluster.nats.signal(server, "STOP").await,
    }
}

async fn repair(cluster: &mut Cluster, victim: Victim, fault: Fault) {
    match (victim, fault) {
        (Victim::Hub(hub), Fault::Kill) => cluster.nodes[hub].open().await,
        (Victim::Hub(hub), Fault::Stop) => cluster.nodes[hub].signal("CONT").await,
        (Victim::Server(server), Fault::Kill) => cluster.nats.restart(server).await,
        (Victim::Server(server), Fault::Stop) => cluster.nats.signal(server, "CONT").await,
    }
}

/// One round: one or two of the hubs and servers fail for a while.
async fn round(cluster: &mut Cluster, random: &mut StdRng, longest: u64) {
    let all = (0..3).map(Victim::Hub).chain((0..3).map(Victim::Server)).collect::<Vec<_>>();
    let first = all[random.random_range(0..all.len())];
    let second = all[random.random_range(0..all.len())];
    let mut faults = Vec::new();
    for victim in if first == second { vec![first] } else { vec![first, second] } {
        let fault = if random.random() { Fault::Kill } else { Fault::Stop };
        fail(cluster, victim, fault).await;
        faults.push((victim, fault));
        sleep(Duration::from_millis(random.random_range(0..500))).await;
    }
    sleep(Duration::from_millis(random.random_range(0..longest))).await;
    println!("chaos: {faults:?}");
    for (victim, fault) in faults {
        repair(cluster, victim, fault).await;
    }
    sleep(Duration::from_millis(random.random_range(0..longest))).await;
}

/// Hubs and servers fail at random under load.
pub async fn chaos(scale: Scale) -> Vec<Figure> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seed = number("CHAOS_SEED").unwrap_or_else(rand::random);
    let length = Duration::from_secs(scale.of(8, 60 * number("CHAOS_MINUTES").unwrap_or(30)));
    println!("chaos: seed {seed}, {length:?}");
    let (mut random, mut cluster) = (StdRng::seed_from_u64(seed), cluster().await);
    let load = Load::start(&cluster, scale.of(300, 2_500));
    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < length {
        round(&mut cluster, &mut random, scale.of(1_500, 8_000)).await;
        rounds += 1;
    }
    let (acked, acks) = load.stop().await;
    let (posted, recovering) = (began.elapsed(), Instant::now());
    for node in &cluster.nodes {
        until_complete(node, acked).await;
    }
    until_healthy(&cluster).await;
    let recovered = millis_since(recovering);
    println!("chaos: {rounds} rounds, {acked} events acked in {posted:?}, 0 missing, 0 twice");
    expect_equal(&cluster, acked).await;
    vec![
        Figure::millis("chaos", "ack, with the client's tries at other hubs", acks, 60_000.0),
        Figure::millis("chaos", "all files equal after the last fault", vec![recovered], 60_000.0),
    ]
}
