//! The steps of a scenario: actions of clients, disks and operators, and the passing of time.
//!
//! Each seed first chooses which kinds of steps occur, and their weights ("swarm testing": without repairs of the disk, a
//! scenario finds bugs that need ten failed commits in a row; without leaves, bugs that need a full room). The details of
//! a step are chosen when it runs.

use serde_json::{Value, json};

use super::client::{Client, Disconnect};
use super::database::FAILURES;
use super::event_log::EventIndex;
use super::hub_run::{HubRun, Outcome, PendingPost};
use super::model::Member;
use super::random::Random;
use super::time::run_until_idle;
use super::{MOODS, ROOMS, START, VISITORS};

/// Maximum number of open sockets.
const MAX_CLIENTS: usize = 14;

/// The longest sit, in ms.
const LONGEST_SIT: u64 = 8_000;

/// Maximum time of one hub run, in ms: after five minutes the hub starts maintenance at a random time.
const MAX_RUN_TIME: u64 = 290_000;

/// The kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Join,
    Leave,
    Disconnect,
    Mood,
    Sit,
    PageView,
    Watch,
    Resend,
    Duplicate,
    Post,
    PassTime,
    StartReading,
    Flush,
    BreakDisk,
    RepairDisk,
    Lock,
    Unlock,
    Stop,
    Kill,
}

/// The weight of each kind if all occur.
const WEIGHTS: [(Step, u64); 19] = [
    (Step::Join, 40),
    (Step::Leave, 12),
    (Step::Disconnect, 14),
    (Step::Mood, 20),
    (Step::Sit, 16),
    (Step::PageView, 30),
    (Step::Watch, 20),
    (Step::Resend, 12),
    (Step::Duplicate, 8),
    (Step::Post, 10),
    (Step::PassTime, 40),
    (Step::StartReading, 8),
    (Step::Flush, 10),
    (Step::BreakDisk, 4),
    (Step::RepairDisk, 4),
    (Step::Lock, 3),
    (Step::Unlock, 10),
    (Step::Stop, 1),
    (Step::Kill, 1),
];

/// Chooses the kinds of steps of a scenario, and their weights.
pub fn choose_weights(random: &mut Random) -> Vec<(Step, u64)> {
    let mut swarm = Vec::new();
    for (step, weight) in WEIGHTS {
        let always = matches!(step, Step::Join | Step::PassTime | Step::Unlock);
        if always || !random.one_in(4) {
            swarm.push((step, weight * (1 + random.below(4))));
        }
    }
    swarm
}

impl HubRun<'_> {
    /// Runs one step. Some steps end this run of the hub.
    pub async fn take(mut self, step: Step) -> Result<Self, Outcome> {
        match step {
            Step::Join => self.join_random().await,
            Step::Leave => self.leave().await,
            Step::Disconnect => self.lose().await,
            Step::Mood => self.set_mood().await,
            Step::Sit => self.sit().await,
            Step::PageView | Step::Watch => self.send_new_event(step).await,
            Step::Resend => self.resend().await,
            Step::Duplicate => self.duplicate().await,
            Step::Post => self.post(),
            Step::PassTime => self.pass_time().await,
            Step::StartReading => self.start_reading().await,
            Step::Flush => self.flush_now().await,
            Step::BreakDisk | Step::RepairDisk if self.is_locked => {}
            Step::BreakDisk => self.break_disk().await,
            Step::RepairDisk => self.repair_disk().await,
            Step::Lock => self.lock().await,
            Step::Unlock => self.unlock().await,
            Step::Stop => {
                self.unlock().await;
                self.scenario.log_line("the hub is stopped");
                return Err(self.stop().await);
            }
            Step::Kill => {
                return Err(self.kill().await);
            }
        }
        self.check().await;
        Ok(self)
    }

    async fn join_random(&mut self) {
        if self.clients.len() < MAX_CLIENTS {
            let random = &mut self.scenario.random;
            let member = Member { room: random.one_of(&ROOMS), visitor: random.one_of(&VISITORS) };
            let mood = random.one_in(3).then(|| random.one_of(&MOODS));
            let is_reading = !random.one_in(6);
            self.join(member, mood, is_reading).await;
        }
    }

    /// Opens a client. Its welcome must have the room's state, with the client in it.
    pub async fn join(&mut self, member: Member, mood: Option<&'static str>, is_reading: bool) {
        let number = self.scenario.next_client();
        let how = if is_reading { "" } else { " and does not read" };
        let in_mood = mood.map(|mood| format!(" in mood {mood}")).unwrap_or_default();
        self.scenario.log_line(&format!("{member} opens client {number}{in_mood}{how}"));
        self.scenario.model.join(member, mood);
        let opening = Client::open(self.hub.address, number, member, mood);
        let client = self.hub.ticker.with_timeout("a socket to open", opening).await;
        let sessions = self.scenario.model.totals().sessions;
        let registry = &self.hub.registry;
        self.hub
            .ticker
            .wait_until("the hub to accept a socket", || registry.totals().sessions == sessions)
            .await;
        self.clients.push(client);
        if is_reading {
            let index = self.clients.len() - 1;
            self.round_trip(index).await;
            assert_eq!(
                *self.clients[index].state(),
                self.scenario.model.state(member.room),
                "left the welcome, right the model"
            );
            self.check_sit(index);
        }
    }

    async fn leave(&mut self) {
        if let Some(index) = self.random_client(|_| true) {
            self.leave_client(index).await;
        }
    }

    /// Closes a client with 1000. It no longer counts when it gets the hub's close.
    pub async fn leave_client(&mut self, index: usize) {
        let mut client = self.clients.remove(index);
        self.scenario.log_line(&format!("client {} of {} leaves", client.number, client.member));
        self.scenario.model.leave(client.member);
        let received = self.hub.ticker.with_timeout("the response to a close", client.close(1000)).await;
        assert_eq!(
            self.hub.registry.totals().sessions,
            self.scenario.model.totals().sessions,
            "the client must not count any more"
        );
        self.record(client.number, received).await;
        self.wait_for_close().await;
    }

    async fn lose(&mut self) {
        let Some(index) = self.random_client(|_| true) else { return };
        let mut client = self.clients.remove(index);
        let how = self.scenario.random.one_of(&Disconnect::ALL);
        self.scenario.log_line(&format!("client {} of {} is lost: {how:?}", client.number, client.member));
        let until = self.scenario.model.now() + self.scenario.settings.leave_grace;
        self.scenario.model.lose(client.member, until, how == Disconnect::GoingAway);
        match how {
            Disconnect::GoingAway | Disconnect::OnPurpose => {
                let code = if how == Disconnect::GoingAway { 1001 } else { 4000 };
                let received =
                    self.hub.ticker.with_timeout("the response to a close", client.close(code)).await;
                self.record(client.number, received).await;
            }
            Disconnect::Eof => client.end().await,
            Disconnect::PartialFrame => client.write_partial_frame().await,
            Disconnect::Reset => {}
        }
        // After an EOF the connection stays half-open until the hub closes it.
        let _kept = (how == Disconnect::Eof).then_some(client);
        self.wait_for_close().await;
    }

    async fn set_mood(&mut self) {
        let Some(index) = self.random_client(|client| client.is_reading) else { return };
        let random = &mut self.scenario.random;
        let mood = (!random.one_in(4)).then(|| random.one_of(&MOODS));
        let client = &mut self.clients[index];
        self.scenario.log_line(&format!(
            "client {} of {} sets mood {}",
            client.number,
            client.member,
            mood.unwrap_or("none")
        ));
        self.scenario.model.set_mood(client.member, mood);
        client.set_mood(mood).await;
        self.round_trip(index).await;
    }

    /// Begins a sit, or ends the one that runs.
    async fn sit(&mut self) {
        let Some(index) = self.random_client(|client| client.is_reading) else { return };
        let random = &mut self.scenario.random;
        let longest = random.one_of(&[1_500, LONGEST_SIT]);
        let millis = if random.one_in(5) { 0 } else { 1 + random.below(longest) };
        let client = &mut self.clients[index];
        let (number, member) = (client.number, client.member);
        self.scenario.log_line(&format!("client {number} of {member} sits for {millis} ms"));
        let until = (millis > 0).then(|| self.scenario.model.now() + millis);
        self.scenario.model.sit(member, until);
        client.sit(millis).await;
        self.round_trip(index).await;
        self.check_sit(index);
    }

    /// Checks the end of the sit that the hub has sent last.
    fn check_sit(&self, index: usize) {
        let client = &self.clients[index];
        let expected = self.scenario.model.sit_until(client.member).map(|until| START + until);
        assert_eq!(client.sit_until(), expected, "left the sit of client {}, right the model", client.number);
    }

    async fn send_new_event(&mut self, step: Step) {
        let Some(index) = self.random_client(|_| true) else { return };
        let (member, now) = (self.clients[index].member, self.scenario.model.now());
        let (event_log, random) = (&mut self.scenario.event_log, &mut self.scenario.random);
        let event = if step == Step::PageView {
            event_log.view(random, member, now)
        } else {
            event_log.watch(random, member, now)
        };
        self.send_events(index, &[event]).await;
    }

    /// Sends unacked events again, on any socket of the same visitor in the same room.
    async fn resend(&mut self) {
        let Some(index) = self.random_client(|_| true) else { return };
        let pending = self.scenario.event_log.pending_of(self.clients[index].member);
        let unacked = self.clients[index].unacked();
        let pending: Vec<_> = pending.into_iter().filter(|event| !unacked.contains(event)).collect();
        if !pending.is_empty() {
            self.send_events(index, &pending).await;
        }
    }

    /// Sends an event again, acked or not.
    async fn duplicate(&mut self) {
        let Some(index) = self.random_client(|_| true) else { return };
        let all = self.scenario.event_log.all_of(self.clients[index].member);
        if !all.is_empty() {
            let event = self.scenario.random.one_of(&all);
            self.send_events(index, &[event]).await;
        }
    }

    /// Sends events of a client, and reads the hub's messages if the client reads.
    pub async fn send_events(&mut self, index: usize, events: &[EventIndex]) {
        let client = &mut self.clients[index];
        self.scenario
            .log_line(&format!("client {} of {} sends events {events:?}", client.number, client.member));
        for number in events {
            client.send_event(*number, self.scenario.event_log.send(*number)).await;
        }
        if client.is_reading {
            self.round_trip(index).await;
        } else {
            run_until_idle().await;
        }
    }

    /// Posts events, durable or not.
    fn post(&mut self) {
        let (now, random) = (self.scenario.model.now(), &mut self.scenario.random);
        let member = Member { room: random.one_of(&ROOMS), visitor: random.one_of(&VISITORS) };
        let durable = if random.one_in(4) { "false" } else { "true" };
        let count = 1 + random.below(3);
        let is_watch = random.one_in(3);
        let mut events = Vec::new();
        for _ in 0..count {
            let (event_log, random) = (&mut self.scenario.event_log, &mut self.scenario.random);
            events.push(if is_watch {
                event_log.watch(random, member, now)
            } else {
                event_log.view(random, member, now)
            });
        }
        let path = self.scenario.event_log.event(events[0]).kind().1;
        let mut posted = |number: &EventIndex| {
            let mut json = self.scenario.event_log.send(*number).json();
            json["visitor"] = json!(member.visitor);
            json["room"] = json!(member.room);
            json
        };
        let body = Value::Array(events.iter().map(&mut posted).collect());
        let what = format!("the post of events {events:?}");
        self.scenario.log_line(&format!("{member} posts events {events:?}, durable={durable}"));
        let response = self.hub.send_request("POST", &format!("{path}?durable={durable}"), &body);
        self.pending_posts.push(PendingPost { what, events, may_fail: self.may_fail(), response });
    }

    async fn pass_time(&mut self) {
        let random = &mut self.scenario.random;
        let millis = match random.weighted(&[(150, 8), (600, 8), (4_000, 4), (40_000, 1)]) {
            limit if self.running_time + limit > MAX_RUN_TIME => return,
            // While the database is locked the hub may be opening a connection, which must not time out.
            limit if self.is_locked => 1 + random.below(limit.min(150)),
            limit => 1 + random.below(limit),
        };
        self.scenario.log_line(&format!("{millis} ms pass"));
        self.pass(millis).await;
        self.wait_for_commit().await;
        self.read_all().await;
    }

    async fn start_reading(&mut self) {
        if let Some(index) = self.random_client(|client| !client.is_reading) {
            let client = &self.clients[index];
            self.scenario.log_line(&format!("client {} of {} starts to read", client.number, client.member));
            self.round_trip(index).await;
        }
    }

    async fn flush_now(&mut self) {
        self.scenario.log_line("a flush is requested");
        self.flush().await;
    }

    async fn break_disk(&mut self) {
        if !self.scenario.commits_fail {
            let (why, how) = self.scenario.random.one_of(&FAILURES);
            self.scenario.log_line(&format!("commits start to fail: {why}"));
            self.database.fail(how).await;
            self.scenario.commits_fail = true;
        }
    }

    pub async fn repair_disk(&mut self) {
        if self.scenario.commits_fail {
            self.scenario.log_line("commits succeed again");
            self.database.stop_failing().await;
            self.scenario.commits_fail = false;
        }
    }

    async fn lock(&mut self) {
        if !self.is_locked {
            self.scenario.log_line("another process locks the database");
            self.database.lock().await;
            self.is_locked = true;
        }
    }

    pub async fn unlock(&mut self) {
        if self.is_locked {
            self.scenario.log_line("the lock is released");
            self.database.unlock().await;
            self.is_locked = false;
            self.hub.wait_for_commit().await;
            self.collect_posts().await;
            self.check_acks().await;
            self.check_saved_holds().await;
        }
    }

    fn random_client(&mut self, is_it: impl Fn(&Client) -> bool) -> Option<usize> {
        let fitting = (0..self.clients.len()).filter(|index| is_it(&self.clients[*index]));
        let fitting: Vec<usize> = fitting.collect();
        (!fitting.is_empty()).then(|| self.scenario.random.one_of(&fitting))
    }
}
