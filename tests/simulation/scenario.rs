//! The world: one simulation, from its seed to its verdict, over as many lives of the hub as it takes.
//!
//! It keeps what outlives a hub: the file, the clients' memory, the model, and the log of all steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use breathing_room::internals::Store;
use serde_json::Value;
use tempfile::TempDir;

use super::database::{Database, salvage};
use super::event_log::Ledger;
use super::hub::Knobs;
use super::hub_run::{End, Life};
use super::model::Model;
use super::random::Dice;
use super::steps::{self, Step};
use super::time::{self, Pulse};

/// The longest simulation.
const MOST_STEPS: u64 = 250;

#[derive(Debug)]
pub struct World {
    pub dice: Dice,
    pub knobs: Knobs,
    pub model: Model,
    pub ledger: Ledger,
    /// Commits fail.
    pub is_broken: bool,
    /// Everything that was done, and what came of it.
    pub log: Vec<String>,
    pub steps: u64,
    swarm: Vec<(Step, u64)>,
    steps_left: u64,
    tabs: u64,
    folder: TempDir,
    lives: u64,
}

impl World {
    /// A world on a copy of this empty database.
    pub fn new(seed: u64, empty: &[u8]) -> Self {
        let mut dice = Dice::new(seed);
        let folder = folder();
        let (knobs, swarm) = (Knobs::draw(&mut dice), steps::draw(&mut dice));
        let steps_left = 1 + dice.below(MOST_STEPS);
        let log = vec![format!("{knobs:?}, {steps_left} of {swarm:?}")];
        let world = Self {
            dice,
            knobs,
            model: Model::default(),
            ledger: Ledger::default(),
            is_broken: false,
            log,
            steps: 0,
            swarm,
            steps_left,
            tabs: 0,
            folder,
            lives: 0,
        };
        std::fs::write(world.file(), empty).expect("a file");
        world
    }

    /// Runs the simulation, and panics where something is not as it must be.
    pub fn run(&mut self) {
        loop {
            let seats = match time::runtime().block_on(self.live()) {
                End::Peace => break,
                End::Stopped(seats) | End::Killed(seats) => seats,
            };
            let later = self.dice.below(6_000);
            self.model.begin_again(seats, later);
        }
        time::runtime().block_on(self.verify());
    }

    /// One life of a hub; the last one ends in peace.
    async fn live(&mut self) -> End {
        let mut life = Life::begin(self).await;
        while life.world.steps_left > 0 {
            life.world.steps_left -= 1;
            life.world.steps += 1;
            let step = life.world.next_step();
            life = match life.take(step).await {
                Ok(life) => life,
                Err(end) => return end,
            };
        }
        life.end_in_peace().await
    }

    fn next_step(&mut self) -> Step {
        self.dice.weighted(&self.swarm)
    }

    pub fn next_tab(&mut self) -> u64 {
        self.tabs += 1;
        self.tabs
    }

    pub fn say(&mut self, line: &str) {
        self.log.push(format!("{:>4} {:>7} ms  {line}", self.steps, self.model.now()));
    }

    /// The file of the hub that lives now.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join(format!("hub-{}.db", self.lives))
    }

    /// From now on the file is what is on the disk at this moment.
    pub fn salvage(&mut self) {
        let from = self.file();
        self.lives += 1;
        salvage(&from, &self.file());
    }

    /// The database says what the clients say, each event once, and its sums are those of its rows.
    async fn verify(&mut self) {
        let _pulse = Pulse::start();
        let mut database = Database::open(&self.file()).await;
        let mut views = self.ledger.views();
        let stored = database.views().await;
        for (id, view) in &mut views {
            if view[3].is_null()
                && let Some(stored) = stored.get(id)
            {
                view[3] = stored[3].clone(); // the hub's own time
            }
        }
        compare("page view", &stored, &views);
        compare("watch session", &database.watch_sessions().await, &self.ledger.watch_sessions());
        drop(database);
        let store =
            Store::open_existing(&format!("sqlite://{}", self.file().display())).await.expect("a database");
        let recount = store.recount().await.expect("a recount");
        store.close().await;
        assert_eq!(recount.differences, [], "rollups are what the rows add up to");
    }
}

impl Life<'_> {
    /// Everything that stands in the way goes; all that is not acked is sent again until it is; all leave; and the
    /// hub stops.
    async fn end_in_peace(mut self) -> End {
        self.world.say("peace comes");
        self.unlock().await;
        self.mend_disk().await;
        self.check().await;
        self.flush().await;
        let mut waiting = self.world.ledger.waiting();
        while !waiting.is_empty() {
            let before = self.world.ledger.len();
            for who in waiting {
                let known = self.tabs.iter().position(|tab| tab.who == who && tab.listens);
                if known.is_none() {
                    self.join(who, None, true).await;
                }
                let index = known.unwrap_or(self.tabs.len() - 1);
                let pending = self.world.ledger.pending_of(who);
                self.tell(index, &pending).await;
                self.check().await;
            }
            self.flush().await;
            assert_ne!(self.world.ledger.len(), before, "whoever sends again gets there in the end");
            waiting = self.world.ledger.waiting();
        }
        while !self.tabs.is_empty() {
            self.leave_tab(0).await;
            self.check().await;
        }
        self.pass(self.world.knobs.leave_grace.max(self.world.knobs.seat_hold)).await;
        self.check().await;
        self.flush().await;
        self.check_empty().await;
        self.stop().await;
        End::Peace
    }
}

/// A file of its own for each world, in memory where the system has a place for that.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a folder")
}

/// An empty database, of which each world takes a copy.
pub fn empty_database() -> Vec<u8> {
    let folder = folder();
    let file = folder.path().join("empty.db");
    time::runtime().block_on(async {
        let _pulse = Pulse::start();
        let store = Store::open(&format!("sqlite://{}", file.display())).await.expect("a database");
        store.close().await;
    });
    std::fs::read(&file).expect("a file")
}

/// What is stored is what was told.
fn compare(what: &str, stored: &BTreeMap<String, Value>, told: &BTreeMap<String, Value>) {
    for id in stored.keys().chain(told.keys()) {
        assert_eq!(stored.get(id), told.get(id), "{what} {id}: left what is stored, right what was told");
    }
}
