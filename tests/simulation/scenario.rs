//! A scenario: all steps of one seed, over several runs of the hub, and the checks at the end.
//!
//! It has everything that outlives a hub: the database file, the clients' events, the model, and the log of all steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use breathing_room::internals::Store;
use serde_json::Value;
use tempfile::TempDir;

use super::database::{Database, copy_database};
use super::event_log::EventLog;
use super::hub::Settings;
use super::hub_run::{HubRun, Outcome};
use super::model::Model;
use super::random::Random;
use super::steps::{self, Step};
use super::time::{self, RealTimeTicker};

/// Maximum number of steps of a scenario.
const MAX_STEPS: u64 = 250;

#[derive(Debug)]
pub struct Scenario {
    pub random: Random,
    pub settings: Settings,
    pub model: Model,
    pub event_log: EventLog,
    /// Whether commits fail at the moment.
    pub commits_fail: bool,
    /// All steps and their results.
    pub log: Vec<String>,
    pub steps: u64,
    swarm: Vec<(Step, u64)>,
    steps_left: u64,
    clients: u64,
    folder: TempDir,
    runs: u64,
}

impl Scenario {
    /// Creates the scenario of a seed on a copy of this empty database.
    pub fn new(seed: u64, empty: &[u8]) -> Self {
        let mut random = Random::new(seed);
        let folder = folder();
        let (settings, swarm) = (Settings::choose(&mut random), steps::choose_weights(&mut random));
        let steps_left = 1 + random.below(MAX_STEPS);
        let log = vec![format!("{settings:?}, {steps_left} of {swarm:?}")];
        let scenario = Self {
            random,
            settings,
            model: Model::default(),
            event_log: EventLog::default(),
            commits_fail: false,
            log,
            steps: 0,
            swarm,
            steps_left,
            clients: 0,
            folder,
            runs: 0,
        };
        std::fs::write(scenario.file(), empty).expect("a file");
        scenario
    }

    /// Runs the scenario. Panics if a check fails.
    pub fn run(&mut self) {
        loop {
            let holds = match time::runtime().block_on(self.run_hub()) {
                Outcome::Finished => break,
                Outcome::Stopped(holds) | Outcome::Killed(holds) => holds,
            };
            let later = self.random.below(6_000);
            self.model.restart(holds, later);
        }
        time::runtime().block_on(self.verify());
    }

    /// Runs a hub until a step stops or kills it, or the scenario is finished.
    async fn run_hub(&mut self) -> Outcome {
        let mut run = HubRun::start(self).await;
        while run.scenario.steps_left > 0 {
            run.scenario.steps_left -= 1;
            run.scenario.steps += 1;
            let step = run.scenario.next_step();
            run = match run.take(step).await {
                Ok(run) => run,
                Err(end) => return end,
            };
        }
        run.finish().await
    }

    fn next_step(&mut self) -> Step {
        self.random.weighted(&self.swarm)
    }

    pub fn next_client(&mut self) -> u64 {
        self.clients += 1;
        self.clients
    }

    pub fn log_line(&mut self, line: &str) {
        self.log.push(format!("{:>4} {:>7} ms  {line}", self.steps, self.model.now()));
    }

    /// Returns the database file of the current hub.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join(format!("hub-{}.db", self.runs))
    }

    /// Copies the database in its current state for the next hub.
    pub fn copy_database(&mut self) {
        let from = self.file();
        self.runs += 1;
        copy_database(&from, &self.file());
    }

    /// Checks that the database has each event of the clients once, and that the rollups match the rows.
    async fn verify(&mut self) {
        let _pulse = RealTimeTicker::start();
        let mut database = Database::open(&self.file()).await;
        let mut views = self.event_log.views();
        let stored = database.views().await;
        for (id, view) in &mut views {
            if view[3].is_null()
                && let Some(stored) = stored.get(id)
            {
                view[3] = stored[3].clone(); // the hub has set the time
            }
        }
        compare("page view", &stored, &views);
        compare("watch session", &database.watch_sessions().await, &self.event_log.watch_sessions());
        drop(database);
        let store = Store::open(&format!("sqlite://{}", self.file().display())).await.expect("a database");
        let recount = store.recount().await.expect("a recount");
        store.close().await;
        assert_eq!(recount.differences, [], "the rollups must match the rows");
    }
}

impl HubRun<'_> {
    /// Removes all failures, sends all unacked events again until they are acked, closes all clients, and stops the hub.
    async fn finish(mut self) -> Outcome {
        self.scenario.log_line("the scenario finishes");
        self.unlock().await;
        self.repair_disk().await;
        self.check().await;
        self.flush().await;
        let mut waiting = self.scenario.event_log.waiting();
        while !waiting.is_empty() {
            let before = self.scenario.event_log.len();
            for member in waiting {
                let find_name =
                    self.clients.iter().position(|client| client.member == member && client.is_reading);
                if find_name.is_none() {
                    self.join(member, None, true).await;
                }
                let index = find_name.unwrap_or(self.clients.len() - 1);
                let pending = self.scenario.event_log.pending_of(member);
                self.send_events(index, &pending).await;
                self.check().await;
            }
            self.flush().await;
            assert_ne!(self.scenario.event_log.len(), before, "sending again must make progress");
            waiting = self.scenario.event_log.waiting();
        }
        while !self.clients.is_empty() {
            self.leave_client(0).await;
            self.check().await;
        }
        let settings = self.scenario.settings;
        let last_sit = self.scenario.model.last_sit().saturating_sub(self.scenario.model.now());
        self.pass(settings.leave_grace.max(settings.seat_hold).max(last_sit)).await;
        self.check().await;
        self.flush().await;
        self.check_empty().await;
        self.stop().await;
        Outcome::Finished
    }
}

/// Creates a folder for a scenario, in memory if the system has `/dev/shm`.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a folder")
}

/// Returns the bytes of an empty database, of which each scenario gets a copy.
pub fn empty_database() -> Vec<u8> {
    let folder = folder();
    let file = folder.path().join("empty.db");
    time::runtime().block_on(async {
        let _pulse = RealTimeTicker::start();
        let store = Store::open(&format!("sqlite://{}", file.display())).await.expect("a database");
        store.close().await;
    });
    std::fs::read(&file).expect("a file")
}

/// Checks that the stored rows are the expected ones.
fn compare(what: &str, stored: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) {
    for id in stored.keys().chain(expected.keys()) {
        assert_eq!(
            stored.get(id),
            expected.get(id),
            "{what} {id}: left the stored row, right the expected one"
        );
    }
}
