//! Deterministic simulation: three nodes with a real file each in simulated time, over a log that fails, against a model of
//! their events.
//!
//! Each seed gives one scenario of random steps: events come to any node, some of them again elsewhere; nodes stop, crash
//! and lose their disk; commits fail; the log is slow, loses and repeats messages, is away, or is deleted. When the log is
//! good for some time, each file has exactly the events that were acked. `CLUSTER_SEED=7` repeats a seed, as far as it
//! does not depend on which of two nodes is first at one moment; `CLUSTER_SEEDS=500` runs more of them.

mod scenarios;
mod weather;

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking, yield_now};
use uuid::Uuid;

use super::Log;
use super::breaker::BreakerState;
use super::command::ErasureKey;
use super::erasures::Erasures;
use super::follow::LogParts;
use super::memory::MemoryLog;
use super::metrics::LogMetrics;
use super::replica::Replica;
use super::status::{LogMonitor, LogReading};
use crate::address::Address;
use crate::history::capacity::JournalLimits;
use crate::history::event::{Actor, Batch, Event, PageViewEvent, WatchEvent, merged};
use crate::history::metrics::HistoryMetrics;
use crate::history::store::Store;
use crate::history::{Epoch, Journal, flush, journal};
use crate::panics::Panics;
use crate::protocol::{Time, WatchState};
use crate::quota::Sharing;
use crate::time::Clock;
use weather::{FaultyLog, Weather};

const NODES: [&str; 3] = ["a", "b", "c"];
const ROOMS: [&str; 2] = ["lobby", "garden"];
const VISITORS: [&str; 4] = ["ann", "bob", "carol", "dan"];
const PATHS: [&str; 3] = ["/", "/sit", "/breathe"];

/// Half a minute before the end of a month: many scenarios cross it.
const START: u64 = 1_796_083_200_000 - 30_000;

/// The time of one step of the clock, in milliseconds.
const STEP: u64 = 50;

/// The longest time, in milliseconds, until all files are equal after the log is good again: the breaker tries again
/// after 15 s at the latest.
const SETTLE: u64 = 60_000;

/// A node, while it runs.
struct Node {
    journal: Journal,
    committed: watch::Receiver<Epoch>,
    flush: JoinHandle<()>,
    store: Store,
    log: LogMonitor,
    /// Events that are not acked, with their epochs.
    pending: Vec<(Epoch, Event)>,
}

struct Simulation {
    random: StdRng,
    now: u64,
    clock: Clock,
    log: MemoryLog,
    weather: watch::Sender<Weather>,
    nodes: Vec<Option<Node>>,
    /// The file of a node that stops.
    stopping: Option<Store>,
    folders: Vec<TempDir>,
    /// Events that were acked.
    acked: Batch,
    /// Events whose node has died before the ack: clients send them again.
    unsent: Vec<Event>,
    /// Ids that were used.
    ids: Vec<Uuid>,
    steps: Vec<String>,
    /// A task that runs on a thread of its own keeps the paused clock from going on while SQLite works.
    _no_advance: std::sync::mpsc::Sender<()>,
}

impl Simulation {
    async fn new(seed: u64, empty: &[u8]) -> Self {
        let (sender, dropped) = std::sync::mpsc::channel::<()>();
        spawn_blocking(move || dropped.recv());
        let folders = Vec::from(NODES.map(|_| memory_folder()));
        for folder in &folders {
            fs::write(folder.path().join("a.db"), empty).unwrap();
        }
        let mut simulation = Self {
            random: StdRng::seed_from_u64(seed),
            now: 0,
            clock: Clock::manual(Time::from_millis(START)),
            log: MemoryLog::new(),
            weather: watch::Sender::new(Weather::Good),
            nodes: vec![None, None, None],
            stopping: None,
            folders,
            acked: Batch::default(),
            unsent: Vec::new(),
            ids: Vec::new(),
            steps: Vec::new(),
            _no_advance: sender,
        };
        for node in 0..NODES.len() {
            simulation.start(node).await;
        }
        simulation
    }

    fn say(&mut self, line: &str) {
        self.steps.push(format!("{:>7} ms  {line}", self.now));
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random.random_range(0..choices.len())]
    }

    /// The running nodes.
    fn running(&self) -> Vec<usize> {
        (0..NODES.len()).filter(|node| self.nodes[*node].is_some()).collect()
    }

    async fn start(&mut self, node: usize) {
        let interval = self.one_of(&[200, 1_000, 5_000]);
        self.start_with(node, interval).await;
    }

    /// Starts a node that flushes at this interval, in milliseconds.
    async fn start_with(&mut self, node: usize, interval: u64) {
        let path = self.folders[node].path().join("a.db");
        let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        store.fail_commits(false).await;
        let (clock, panics) = (self.clock.clone(), Panics::register());
        let limits =
            JournalLimits { events: 50_000, bytes: 64 * 1024 * 1024, sharing: Sharing::Fair, rate: None };
        let (journal, receiver) = journal::open(limits, clock.clone(), HistoryMetrics::register(&panics));
        let log = FaultyLog::new(self.log.clone(), self.weather.subscribe(), node, self.random.random());
        let [finished, unfinished] = store.logged_erasures().await.unwrap();
        let erasures = Erasures::new(ErasureKey::derive("token", "c"), finished, unfinished);
        erasures.set_repeated(); // there is no ledger from which erasures could be missing
        let parts = LogParts {
            log: Arc::new(log),
            store: store.clone(),
            clock,
            panics,
            metrics: LogMetrics::register(),
            erasures,
        };
        let (replica, log, _) = Replica::open(parts).await.unwrap();
        self.say(&format!("{} starts, and flushes each {interval} ms", NODES[node]));
        let committed = journal.committed();
        let flush =
            tokio::spawn(flush::run(receiver, store.clone(), Duration::from_millis(interval), Some(replica)));
        self.nodes[node] = Some(Node { journal, committed, flush, store, log, pending: Vec::new() });
    }

    /// Stops a node in order: everything is committed.
    async fn stop(&mut self, node: usize) {
        let Some(Node { journal, flush, store, pending, .. }) = self.nodes[node].take() else { return };
        self.say(&format!("{} stops", NODES[node]));
        store.fail_commits(false).await;
        drop(journal);
        self.stopping = Some(store.clone());
        while !flush.is_finished() {
            self.pass(STEP).await;
        }
        flush.await.unwrap();
        self.stopping = None;
        store.close().await;
        self.acked.append(pending.into_iter().map(|(_, event)| event).collect());
    }

    /// Kills a node. What it has not acked is sent again by the clients.
    async fn kill(&mut self, node: usize) {
        let Some(Node { flush, store, pending, .. }) = self.nodes[node].take() else { return };
        self.say(&format!("{} is killed, with {} events pending", NODES[node], pending.len()));
        flush.abort();
        let _ = flush.await; // it was aborted
        store.close().await;
        self.unsent.extend(pending.into_iter().map(|(_, event)| event));
    }

    /// A node loses its disk while it used the log. It starts with a copy of another node's file.
    async fn lose_disk(&mut self, node: usize) {
        let Some(other) = self.running().into_iter().find(|other| *other != node) else { return };
        if !self.uses_log(node).await || !self.uses_log(other).await {
            return; // its events may be in its file only
        }
        self.kill(node).await;
        self.say(&format!("{} loses its disk, and gets a copy of {}", NODES[node], NODES[other]));
        let store = self.nodes[other].as_ref().unwrap().store.clone();
        let (mut copy, mut part) = (Vec::new(), store.snapshot().await.unwrap().next().await.unwrap());
        while let Some((bytes, rest)) = part {
            copy.extend_from_slice(&bytes);
            part = rest.next().await.unwrap();
        }
        self.folders[node] = memory_folder();
        fs::write(self.folders[node].path().join("a.db"), copy).unwrap();
        self.settle().await;
    }

    /// Whether everything that a node has acked is in the log, too.
    async fn uses_log(&self, node: usize) -> bool {
        let Some(running) = &self.nodes[node] else { return false };
        let (status, row) = (running.log.status(), running.store.log_row().await.unwrap());
        let name = self.log.state().await.unwrap().name;
        status.problem().is_none() && status.outbox == 0 && row.is_some_and(|row| row.log == name)
    }

    /// The log forgets messages that all files have.
    async fn forget(&mut self) {
        let (mut forgotten, name) = (usize::MAX, self.log.state().await.unwrap().name);
        for node in &self.nodes {
            let Some(node) = node else { return };
            let Some(row) = node.store.log_row().await.unwrap().filter(|row| row.log == name) else { return };
            forgotten = forgotten.min(usize::try_from(row.position).unwrap());
        }
        self.say(&format!("the log forgets its first {forgotten} messages"));
        self.log.forget(forgotten);
    }

    /// An event comes to a node: a new one, or another state of one that is known.
    fn send(&mut self, node: usize) {
        let event = self.event();
        self.send_event(node, event);
    }

    fn send_event(&mut self, node: usize, event: Event) {
        let Some(running) = &mut self.nodes[node] else { return };
        let address: Address = Ipv4Addr::LOCALHOST.into();
        let epoch = running.journal.append(address, event.clone()).unwrap();
        running.pending.push((epoch, event));
    }

    fn event(&mut self) -> Event {
        let is_known = !self.ids.is_empty() && self.random.random_range(0..3) == 0;
        let id = if is_known {
            let ids = self.ids.clone();
            self.one_of(&ids)
        } else {
            let id = Uuid::from_u128(self.random.random());
            self.ids.push(id);
            id
        };
        // A page view or a watch session by its id, so that known ids are states of one.
        let (room, visitor) = (self.one_of(&ROOMS), self.one_of(&VISITORS));
        let actor =
            Actor { room: room.try_into().unwrap(), visitor: visitor.try_into().unwrap(), is_bot: false };
        let at = Time::from_millis(START + self.now - self.random.random_range(0..120_000));
        let path = self.one_of(&PATHS).to_owned();
        if id.as_u128().is_multiple_of(2) {
            let path = path.try_into().unwrap();
            return Event::PageView(PageViewEvent {
                actor,
                id,
                path,
                title: None,
                referrer: None,
                at,
                props: None,
            });
        }
        let position = self.random.random_range(0..9_000_u64).try_into().unwrap();
        Event::Watch(WatchEvent {
            actor,
            id,
            content: path.try_into().unwrap(),
            state: self.one_of(&[WatchState::Playing, WatchState::Paused, WatchState::Ended]),
            at,
            watched_ms: self.random.random_range(0..9_000),
            started_at: at.minus(10_000),
            seen_at: at,
            position_ms: Some((at, position)),
            duration_ms: None,
            props: None,
        })
    }

    /// Clients send again what was not acked.
    fn send_again(&mut self) {
        let running = self.running();
        if running.is_empty() || self.unsent.is_empty() {
            return;
        }
        self.say(&format!("clients send {} events again", self.unsent.len()));
        for event in std::mem::take(&mut self.unsent) {
            let node = self.one_of(&running);
            self.send_event(node, event);
        }
    }

    fn set_weather(&mut self, weather: Weather) {
        self.say(&format!("the log is {weather:?}"));
        self.weather.send_replace(weather);
    }

    /// Lets time pass, in steps.
    async fn pass(&mut self, millis: u64) {
        let mut left = millis;
        while left > 0 {
            let step = left.min(STEP);
            left -= step;
            self.now += step;
            let by = Duration::from_millis(step);
            self.clock.advance(by);
            tokio::time::advance(by).await;
            self.run_until_idle().await;
        }
    }

    /// Runs all tasks that can make progress, and waits for SQLite.
    async fn run_until_idle(&mut self) {
        let mut idle = 0;
        while idle < 2 {
            for _ in 0..8 {
                yield_now().await;
            }
            let stores = self.nodes.iter().flatten().map(|node| &node.store);
            let is_idle = stores.chain(&self.stopping).all(Store::is_idle);
            idle = if is_idle { idle + 1 } else { 0 };
            // A moment of real time.
            spawn_blocking(|| ()).await.unwrap();
        }
        for node in self.nodes.iter_mut().flatten() {
            let committed = *node.committed.borrow();
            let acked = node.pending.extract_if(.., |(epoch, _)| *epoch <= committed);
            self.acked.append(acked.map(|(_, event)| event).collect());
        }
    }

    /// Lets the log be good until nothing is under way. Then all files have all acked events, once.
    async fn settle(&mut self) {
        self.set_weather(Weather::Good);
        for node in 0..NODES.len() {
            if let Some(running) = &self.nodes[node] {
                running.store.fail_commits(false).await;
            } else {
                self.start(node).await;
            }
        }
        self.send_again();
        let began = self.now;
        while let Some(reason) = self.under_way().await {
            assert!(self.now - began < SETTLE, "still after {SETTLE} ms: {reason}");
            self.pass(500).await;
        }
        self.say("all is quiet");
        let expected = merged_batch(self.acked.clone());
        let mut sums = Vec::new();
        for (name, node) in NODES.iter().zip(self.nodes.iter().flatten()) {
            let records = records(&node.store).await;
            let found = merged_batch(records.clone());
            assert_eq!(records.len(), found.len(), "{name} has an event twice");
            for view in &expected.page_views {
                assert!(found.page_views.contains(view), "{name} lacks {view:?}");
            }
            for watch in &expected.watches {
                assert!(found.watches.contains(watch), "{name} lacks {watch:?}");
            }
            assert_eq!(found.len(), expected.len(), "{name} has more than what was sent");
            assert_eq!(node.store.recount().await.unwrap().differences, [], "{name}");
            sums.push(node.store.month_sums().await.unwrap());
        }
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    }

    /// What is not over yet.
    async fn under_way(&self) -> Option<String> {
        let log = self.log.state().await.unwrap();
        for (name, node) in NODES.iter().zip(self.nodes.iter().flatten()) {
            let (status, row) = (node.log.status(), node.store.log_row().await.unwrap());
            let is_quiet = node.pending.is_empty()
                && status.outbox == 0
                && status.reading == LogReading::Following
                && status.breaker == BreakerState::Closed
                && !status.is_resending
                && row.as_ref().is_some_and(|row| {
                    row.log == log.name && row.position == log.last && row.resend_from.is_none()
                });
            if !is_quiet {
                let pending = node.pending.len();
                return Some(format!("{name}: {pending} pending, {status:?}, {row:?}, {log:?}"));
            }
        }
        None
    }
}

/// A folder that is no disk, where there is one: the scenarios write much.
fn memory_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn merged_batch(batch: Batch) -> Batch {
    let Batch { page_views, watches, samples } = batch;
    Batch { page_views: merged(page_views), watches: merged(watches), samples: merged(samples) }
}

/// All records in the tables of a file.
async fn records(store: &Store) -> Batch {
    let mut records = Batch::default();
    for month in store.live_months().await.unwrap() {
        let mut pages = store.events(month);
        while let Some(page) = pages.next().await.unwrap() {
            records.append(page);
        }
    }
    records
}
