//! One run of a hub, from its start to its shutdown or its kill, and the checks during the run.
//!
//! `steps` defines the steps. After each step the hub must match the model. Each ack and each response about commits must
//! be true of the database at that moment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use breathing_room::ServeError;
use breathing_room::internals::{RoomId, audit};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::client::{Client, Received};
use super::database::Database;
use super::event_log::EventIndex;
use super::hub::{Hub, Response};
use super::model::{Millis, SavedHold, State, Totals};
use super::scenario::Scenario;
use super::time::run_until_idle;
use super::{ROOMS, panics};

/// The time in which the hub closes all sockets at shutdown, in random order. It passes in one step, since that order
/// does not depend on the seed.
const CLOSE_SPREAD: Millis = 2_000;

/// The steps in which time passes after that, between two checks of the hub.
const STOP_SLICE: Millis = 100;

/// In real time, and longer than SQLite's busy timeout.
const LOCK_TIMEOUT: Duration = Duration::from_millis(2_500);

/// The close code of a shutdown.
const RESTARTING: u16 = 1012;

/// A running hub, its clients, and its database.
#[derive(Debug)]
pub struct HubRun<'w> {
    pub scenario: &'w mut Scenario,
    pub hub: Hub,
    pub database: Database,
    pub clients: Vec<Client>,
    /// Posts without a response yet.
    pub pending_posts: Vec<PendingPost>,
    /// Whether another process has locked the database.
    pub is_locked: bool,
    /// How long the hub has been running.
    pub running_time: Millis,
    /// The sets of holds that may be saved, if known: those of the last flush interval, or of any later moment if the hub
    /// had to wait for the database and saved them late.
    possible_holds: Option<Vec<Vec<SavedHold>>>,
    /// Set when the hub should have saved its holds. The value is whether another process's lock may have prevented it.
    expected_save: Option<bool>,
    /// Closed sockets: each may add measured watch sessions to a full journal.
    ended: usize,
}

/// A request that waits for a commit of its events, of which there may be none.
#[derive(Debug)]
pub struct PendingPost {
    pub what: String,
    pub events: Vec<EventIndex>,
    /// Whether commits could fail when it was sent.
    pub may_fail: bool,
    pub response: JoinHandle<Option<Response>>,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The hub was stopped and saved these holds.
    Stopped(Vec<SavedHold>),
    /// The hub was killed when these holds were saved.
    Killed(Vec<SavedHold>),
    /// The scenario is finished, and no visitor is present.
    Finished,
}

impl<'w> HubRun<'w> {
    pub async fn start(scenario: &'w mut Scenario) -> Self {
        let hub = Hub::start(&scenario.file(), scenario.model.now(), scenario.settings).await;
        let database = Database::open(&scenario.file()).await;
        let (clients, pending_posts) = (Vec::new(), Vec::new());
        let mut run = Self {
            scenario,
            hub,
            database,
            clients,
            pending_posts,
            is_locked: false,
            running_time: 0,
            possible_holds: None,
            expected_save: Some(false), // expired holds are deleted at the start
            ended: 0,
        };
        run.check_presence();
        run.check_saved_holds().await;
        run
    }

    /// Returns whether commits may fail now, or the hub is in the backoff of a failed one.
    pub fn may_fail(&self) -> bool {
        self.scenario.commits_fail || self.is_locked || self.hub.journal().failing.is_some()
    }

    /// Waits until the hub is idle.
    pub async fn wait_for_commit(&self) {
        if self.is_locked {
            run_until_idle().await;
        } else {
            self.hub.wait_for_commit().await;
        }
    }

    /// Checks everything that must hold after each step.
    pub async fn check(&mut self) {
        self.wait_for_commit().await;
        self.collect_posts().await;
        self.check_presence();
        self.check_saved_holds().await;
        self.record_holds();
        let status = self.hub.journal();
        // The hub adds its own measures when a socket with playing watch sessions closes: at most three per socket.
        let measures = 3 * self.ended;
        let most = status.limit + measures as u64;
        assert!(status.pending() as u64 <= most, "the journal exceeds its limit: {status:?}");
        assert_eq!(panics::take_last(), None, "a task of the hub panicked");
    }

    /// Checks that the hub has saved the current holds, at its flush interval or as soon as it could.
    pub async fn check_saved_holds(&mut self) {
        let Some(may_fail) = self.expected_save.filter(|_| !self.is_locked) else { return };
        self.expected_save = None;
        let held = self.held();
        let (began, database) = (Instant::now(), &mut self.database);
        let is_saved = async {
            // After a long lock the hub has given up, and tries again at the next interval.
            while !may_fail || began.elapsed() < LOCK_TIMEOUT {
                if database.holds().await == held {
                    return true;
                }
            }
            false
        };
        let is_saved = self.hub.ticker.with_timeout(&format!("holds to be saved: {held:?}"), is_saved).await;
        self.possible_holds = is_saved.then(|| vec![held]);
    }

    fn record_holds(&mut self) {
        let held = self.held();
        if let Some(possible_holds) =
            self.possible_holds.as_mut().filter(|possible_holds| !possible_holds.contains(&held))
        {
            possible_holds.push(held);
        }
    }

    /// The holds that the hub must save.
    fn held(&self) -> Vec<SavedHold> {
        if self.scenario.settings.seat_hold == 0 { Vec::new() } else { self.scenario.model.saved() }
    }

    fn check_presence(&self) {
        let (model, registry) = (&self.scenario.model, &self.hub.registry);
        for room in ROOMS {
            assert_eq!(self.state(room), model.state(room), "the {room}: left the hub, right the model");
            let held = model.held().into_iter().filter(|hold| hold.member.room == room).count();
            let reported = registry.snapshot(&RoomId::try_from(room).expect("a name")).held;
            assert_eq!(reported as usize, held, "held in the {room}: left the hub, right the model");
        }
        let reported: usize = registry.rooms(usize::MAX).iter().map(|room| room.socket_count()).sum();
        assert_eq!(
            reported,
            model.totals().sessions,
            "subscribers of all rooms: left the hub, right the model"
        );
        let totals = registry.totals();
        let totals = Totals { visitors: totals.visitors, sessions: totals.sessions, rooms: totals.rooms };
        assert_eq!(totals, model.totals(), "left the hub, right the model");
    }

    fn state(&self, room: &str) -> State {
        let counts = self.hub.registry.snapshot(&RoomId::try_from(room).expect("a name"));
        let moods = self.hub.registry.vocabulary().names().zip(counts.moods.iter());
        let moods =
            moods.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count.into()));
        State { present: counts.present.into(), moods: moods.collect() }
    }

    /// Advances the clock.
    pub async fn pass(&mut self, millis: Millis) {
        let interval = self.scenario.settings.flush_interval;
        let flushes = self.running_time / interval;
        self.running_time += millis;
        self.scenario.model.pass(millis);
        self.hub.pass(millis).await;
        if self.running_time / interval > flushes {
            self.expected_save = Some(self.is_locked || self.expected_save == Some(true));
        }
    }

    /// Reads all messages of all reading clients, and checks the last state of rooms whose publish window is over.
    pub async fn read_all(&mut self) {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if !client.is_reading {
                continue;
            }
            let received = client.read_available();
            let room = client.member.room;
            self.record(self.clients[index].number, received).await;
            let expected = self.scenario.model.state(room);
            if self.scenario.model.is_published(room) && *self.clients[index].state() != expected {
                self.round_trip(index).await; // the message may still be in the kernel
                let client = &self.clients[index];
                assert_eq!(
                    *client.state(),
                    expected,
                    "client {}: left its state, right the model",
                    client.number
                );
            }
        }
    }

    /// Reads all messages of one client.
    pub async fn round_trip(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let received = self.hub.ticker.with_timeout("the messages of a client", client.round_trip()).await;
        self.record(self.clients[index].number, received).await;
    }

    /// Logs received messages, and checks acks against the database.
    pub async fn record(&mut self, client: u64, received: Vec<Received>) {
        for received in received {
            match received {
                Received::Acked(events) => {
                    self.acked(events, &format!("client {client} received an ack")).await;
                }
                Received::Overloaded(event) => {
                    self.scenario
                        .log_line(&format!("  client {client}: event {event} was rejected as overloaded"));
                }
                Received::Closed(code) => {
                    self.scenario.log_line(&format!("  client {client}: closed with {code}"));
                }
            }
        }
    }

    async fn acked(&mut self, events: Vec<EventIndex>, why: &str) {
        self.scenario.log_line(&format!("  {why} of {events:?}"));
        for number in events {
            let is_there = self.database.has(self.scenario.event_log.event(number)).await;
            assert!(is_there, "{why} of event {number}, which is not in the database");
            self.scenario.event_log.acked(number);
        }
    }

    /// Collects the responses to posts. All posts must have one, except while commits fail: those wait for the next
    /// attempt, which depends on the clock.
    pub async fn collect_posts(&mut self) {
        let (done, waiting) = std::mem::take(&mut self.pending_posts)
            .into_iter()
            .partition(|post| !(self.is_locked || post.may_fail) || post.response.is_finished());
        self.pending_posts = waiting;
        for PendingPost { what, events, may_fail, response } in Vec::from_iter::<Vec<PendingPost>>(done) {
            let response = self.hub.ticker.with_timeout("a response", response).await.expect("a response");
            let Some(Response { status, body }) = response else {
                assert!(may_fail && self.hub.has_stopped(), "{what} got no response");
                self.scenario.log_line(&format!("  {what} got no response"));
                continue;
            };
            match (status, body["error"]["code"].as_str()) {
                (200, None) => self.acked(events, &format!("{what} was committed")).await,
                (202, None) => self.scenario.log_line(&format!("  {what} was queued")),
                (503, Some("overloaded")) => {
                    self.scenario.log_line(&format!("  {what} was rejected as overloaded"));
                }
                (503, Some("not-committed")) if may_fail => {
                    self.scenario.log_line(&format!("  {what} stays queued"));
                }
                _ => panic!("{what} got {status} {body}"),
            }
        }
    }

    /// Requests a flush, which does not wait for the retry of a failed commit. If commits cannot fail, all reading clients
    /// must get all their acks.
    pub async fn flush(&mut self) {
        let response = self.hub.send_request("POST", "/flush", &Value::Null);
        let may_fail = self.scenario.commits_fail || self.is_locked;
        self.pending_posts.push(PendingPost {
            what: "the flush".to_owned(),
            events: Vec::new(),
            may_fail,
            response,
        });
        run_until_idle().await;
        self.collect_posts().await;
        if !may_fail {
            self.read_all().await;
            for index in 0..self.clients.len() {
                if self.clients[index].is_reading && !self.clients[index].unacked().is_empty() {
                    self.round_trip(index).await; // the message may still be in the kernel
                }
            }
            for client in self.clients.iter().filter(|client| client.is_reading) {
                let unacked = client.unacked();
                assert!(
                    unacked.is_empty(),
                    "client {}: all events are committed, but {unacked:?} are not acked",
                    client.number
                );
            }
        }
    }

    /// Checks that reading clients have an ack for each committed event.
    pub async fn check_acks(&mut self) {
        self.read_all().await;
        for index in 0..self.clients.len() {
            if self.clients[index].is_reading {
                self.round_trip(index).await;
                for number in self.clients[index].unacked() {
                    let event = self.scenario.event_log.event(number);
                    // Another message may have stored the same row before this one is committed.
                    let is_alone = event.sent == 1 && self.scenario.event_log.is_alone(event);
                    let is_late = is_alone && self.database.has(event).await;
                    assert!(!is_late, "event {number} is in the database, but its client got no ack");
                }
            }
        }
    }

    /// Waits until the hub has noticed that a socket is closed.
    pub async fn wait_for_close(&mut self) {
        self.ended += 1;
        let (registry, sessions) = (&self.hub.registry, self.scenario.model.totals().sessions);
        let is_gone = || registry.totals().sessions == sessions;
        self.hub.ticker.wait_until("the hub to notice a closed socket", is_gone).await;
    }

    /// Stops the hub gracefully and checks the saved state.
    pub async fn stop(mut self) -> Outcome {
        (self.possible_holds, self.expected_save) = (None, None);
        let began = self.scenario.model.now();
        let listeners = self.clients.iter().filter(|client| client.is_reading);
        let accepted: Vec<EventIndex> = listeners.flat_map(Client::unacked).collect();
        self.hub.signal();
        self.hub.wait_for_commit().await;
        // Time passes only while the hub waits for it: for delayed closes and for retries of commits.
        let mut slice = CLOSE_SPREAD;
        while self.needs_time().await {
            self.pass(slice).await;
            slice = STOP_SLICE;
            self.hub.wait_for_commit().await;
            self.read_closes().await;
        }
        let stopped = self.hub.stopped().await;
        self.collect_posts().await;
        assert!(
            !self.clients.iter().any(|client| client.is_reading),
            "each reading client must get the close of the restart"
        );
        let holds = match stopped {
            Ok(()) => {
                for number in accepted {
                    let is_there = self.database.has(self.scenario.event_log.event(number)).await;
                    assert!(is_there, "event {number} was accepted, but the last flush did not store it");
                }
                self.holds(began).await
            }
            Err(ServeError::Unflushed(events)) if self.scenario.commits_fail => {
                self.scenario.log_line(&format!("  {events} events were not written"));
                self.database.holds().await
            }
            Err(error) => panic!("the shutdown failed: {error}"),
        };
        Outcome::Stopped(holds)
    }

    /// Returns whether the stopping hub waits for time to pass. Otherwise it has stopped.
    async fn needs_time(&self) -> bool {
        let (registry, hub) = (&self.hub.registry, &self.hub);
        let needs_time = || registry.totals().sessions > 0 || hub.journal().failing.is_some();
        hub.ticker.wait_until("the hub to stop", || hub.has_stopped() || needs_time()).await;
        !hub.has_stopped()
    }

    /// Reads the closes of the shutdown, in any order of the sockets.
    async fn read_closes(&mut self) {
        for mut client in std::mem::take(&mut self.clients) {
            let received = if client.is_reading { client.read_available() } else { Vec::new() };
            let is_over = received.contains(&Received::Closed(RESTARTING));
            self.record(client.number, received).await;
            if !is_over {
                self.clients.push(client);
            }
        }
        run_until_idle().await;
    }

    /// Checks and returns the holds that the hub has saved: existing holds are unchanged, and each visitor with a socket
    /// is held for `SEAT_HOLD`.
    async fn holds(&mut self, began: Millis) -> Vec<SavedHold> {
        let (model, seat_hold) = (&self.scenario.model, self.scenario.settings.seat_hold);
        let now = model.now();
        let holds = self.database.holds().await;
        let mut left = holds.clone();
        left.retain(|hold| hold.until > now); // those that ended during the stop are not in the model
        for hold in &mut left {
            hold.sit_until.take_if(|until| *until <= now);
            let stopped_at = hold.stopped_at.take().expect("the time of the stop");
            assert!((began..=now).contains(&stopped_at), "{hold:?}");
        }
        let (before, connected) = match seat_hold {
            0 => (Vec::new(), Vec::new()),
            _ => (model.held(), model.connected()),
        };
        for hold in before {
            let found = left.iter().position(|left| *left == hold);
            left.swap_remove(found.unwrap_or_else(|| panic!("changed: {hold:?} in {holds:?}")));
        }
        for member in connected {
            let found = left.iter().position(|hold| hold.member == member);
            let hold = left.swap_remove(found.unwrap_or_else(|| panic!("{member} has no hold: {holds:?}")));
            let (sit, until) = (model.sit_until(member), began + seat_hold..=now + seat_hold);
            if hold.reason == "sit" {
                assert_eq!(Some(hold.until), sit, "{member}");
                assert!(hold.until > *until.start(), "{member} should be held until {until:?}: {holds:?}");
            } else {
                assert!(until.contains(&hold.until), "{member} should be held until {until:?}: {holds:?}");
                assert_eq!(hold.reason, "restart", "{member}");
                assert!(sit.is_none_or(|sit| sit <= *until.end()), "the sit of {member} is later: {holds:?}");
            }
            assert_eq!((hold.mood, hold.sit_until), (model.mood(member), sit), "{member}");
        }
        assert_eq!(left, [], "holds of absent visitors");
        self.scenario.log_line(&format!("  {} holds are saved", holds.len()));
        holds
    }

    /// Kills the hub. The holds of its last flush interval stay saved.
    pub async fn kill(mut self) -> Outcome {
        let holds = self.database.holds().await;
        if let Some(possible_holds) = &self.possible_holds {
            assert!(
                possible_holds.contains(&holds),
                "{holds:?} are saved, but none of {possible_holds:?} was expected"
            );
        }
        self.scenario.log_line(&format!("the hub is killed, with {} holds saved", holds.len()));
        self.scenario.copy_database();
        Outcome::Killed(holds)
    }

    /// Checks that no visitor is present and no state is left.
    pub async fn check_empty(&mut self) {
        assert_eq!(audit(&self.hub.registry).await, [], "the audit must find no difference");
        assert_eq!(self.hub.registry.rooms(usize::MAX).len(), 0);
        let debug = self.hub.request("GET", "/debug", &Value::Null).await.body;
        let left: BTreeMap<_, _> =
            ["liveUsers", "sessions", "connections", "roomCount"].map(|key| (key, &debug[key])).into();
        assert!(left.values().all(|count| **count == 0), "{left:?}");
        assert_eq!(self.hub.journal().pending(), 0);
    }
}
