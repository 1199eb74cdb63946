//! One life of a hub, from its start to its end or to its death, and what must hold in between.
//!
//! The steps that fill it stand in `steps`. After each one the hub must be as the model is; whatever a
//! client is told of the database must be so at that moment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use breathing_room::ServeError;
use breathing_room::internals::{RoomId, audit};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::client::{Heard, Tab};
use super::database::Database;
use super::event_log::{Body, Number};
use super::hub::{Answer, Hub};
use super::model::{Millis, Seat, State, Totals};
use super::scenario::World;
use super::time::settle;
use super::{ROOMS, panics};

/// A hub that stops closes its sockets in an order of its own, within this time. It passes at once, since all
/// else comes from the seed.
const CLOSE_SPREAD: Millis = 2_000;

/// How far time goes on then, before the hub is looked at again.
const STOP_SLICE: Millis = 100;

/// Longer than SQLite waits for another process's lock, in real time.
const LOCK_TIMEOUT: Duration = Duration::from_millis(2_500);

/// The close code that says so.
const RESTARTING: u16 = 1012;

/// A hub, everybody who is connected to it, and its file.
#[derive(Debug)]
pub struct Life<'w> {
    pub world: &'w mut World,
    pub hub: Hub,
    pub database: Database,
    pub tabs: Vec<Tab>,
    /// Posts that wait for their commit.
    pub posts: Vec<Post>,
    /// Another process holds the database's lock.
    pub is_locked: bool,
    /// How long the hub runs.
    pub age: Millis,
    /// What may be in the database, where that can be told: the holds of the last flush interval, or of any moment since,
    /// where the hub had to wait for the database and then saved those that there were.
    saved: Option<Vec<Vec<Seat>>>,
    /// The hub saves its holds, which is to be looked at; with whether another process's lock may keep it from that.
    saving: Option<bool>,
    /// Sockets that have ended: each may leave measures in a full journal.
    ended: usize,
}

/// A request that brings events to the database, or none.
#[derive(Debug)]
pub struct Post {
    pub what: String,
    pub events: Vec<Number>,
    /// The database was not at peace when it came.
    pub may_fail: bool,
    pub answer: JoinHandle<Option<Answer>>,
}

/// How a life ended.
#[derive(Debug)]
pub enum End {
    /// The hub was stopped, and left these seats.
    Stopped(Vec<Seat>),
    /// It was killed, when these seats were saved.
    Killed(Vec<Seat>),
    /// Everything is done, and nobody is left.
    Peace,
}

impl<'w> Life<'w> {
    pub async fn begin(world: &'w mut World) -> Self {
        let hub = Hub::start(&world.file(), world.model.now(), world.knobs).await;
        let database = Database::open(&world.file()).await;
        let (tabs, posts) = (Vec::new(), Vec::new());
        let mut life = Self {
            world,
            hub,
            database,
            tabs,
            posts,
            is_locked: false,
            age: 0,
            saved: None,
            saving: Some(false), // what was over is not in the database any more
            ended: 0,
        };
        life.check_presence();
        life.check_saved().await;
        life
    }

    /// Whether commits may fail now, or the hub waits after one that has.
    pub fn may_fail(&self) -> bool {
        self.world.is_broken || self.is_locked || self.hub.journal().failing.is_some()
    }

    /// Lets everything happen that can happen now.
    pub async fn rest(&self) {
        if self.is_locked {
            settle().await;
        } else {
            self.hub.rest().await;
        }
    }

    /// What must hold after every step.
    pub async fn check(&mut self) {
        self.rest().await;
        self.collect_posts().await;
        self.check_presence();
        self.check_saved().await;
        self.note_held();
        let status = self.hub.journal();
        // Each socket played at most so many watch sessions, of which the hub tells its own measure.
        let measures = 3 * self.ended;
        let most = status.limit + measures as u64;
        assert!(status.pending() as u64 <= most, "the journal is over its bound: {status:?}");
        assert_eq!(panics::taken(), None, "a task of the hub panicked");
    }

    /// The holds that the hub has saved at its flush interval, or as soon as it could, are those that there are.
    pub async fn check_saved(&mut self) {
        let Some(may_fail) = self.saving.filter(|_| !self.is_locked) else { return };
        self.saving = None;
        let held = self.held();
        let (began, database) = (Instant::now(), &mut self.database);
        let is_saved = async {
            // It has given up before, and tries again at the next interval, where the lock was there for so long.
            while !may_fail || began.elapsed() < LOCK_TIMEOUT {
                if database.seats().await == held {
                    return true;
                }
            }
            false
        };
        let is_saved = self.hub.pulse.in_time(&format!("holds to be saved: {held:?}"), is_saved).await;
        self.saved = is_saved.then(|| vec![held]);
    }

    fn note_held(&mut self) {
        let held = self.held();
        if let Some(saved) = self.saved.as_mut().filter(|saved| !saved.contains(&held)) {
            saved.push(held);
        }
    }

    /// Those whom the hub has to save.
    fn held(&self) -> Vec<Seat> {
        if self.world.knobs.seat_hold == 0 { Vec::new() } else { self.world.model.held() }
    }

    fn check_presence(&self) {
        let (model, live) = (&self.world.model, &self.hub.live);
        for room in ROOMS {
            assert_eq!(self.state(room), model.state(room), "the {room}: left the hub, right the model");
            let held = model.held().into_iter().filter(|seat| seat.who.room == room).count();
            let told = live.counts(&RoomId::try_from(room).expect("a name")).held;
            assert_eq!(told as usize, held, "held in the {room}: left the hub, right the model");
        }
        let told: usize = live.rooms(usize::MAX).iter().map(|room| room.sessions()).sum();
        assert_eq!(told, model.totals().sessions, "left the sockets that are told of rooms, right the model");
        let totals = live.totals();
        let totals = Totals { people: totals.visitors, sessions: totals.sessions, rooms: totals.rooms };
        assert_eq!(totals, model.totals(), "left the hub, right the model");
    }

    fn state(&self, room: &str) -> State {
        let counts = self.hub.live.counts(&RoomId::try_from(room).expect("a name"));
        let moods = self.hub.live.vocabulary().names().zip(counts.moods.iter());
        let moods =
            moods.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count.into()));
        State { present: counts.present.into(), moods: moods.collect() }
    }

    /// Time goes on.
    pub async fn pass(&mut self, millis: Millis) {
        let interval = self.world.knobs.flush_interval;
        let flushes = self.age / interval;
        self.age += millis;
        self.world.model.pass(millis);
        self.hub.pass(millis).await;
        if self.age / interval > flushes {
            self.saving = Some(self.is_locked || self.saving == Some(true));
        }
    }

    /// Everybody who listens hears what there is, and knows the last state where there was time to tell it.
    pub async fn listen_all(&mut self) {
        for index in 0..self.tabs.len() {
            let tab = &mut self.tabs[index];
            if !tab.listens {
                continue;
            }
            let heard = tab.hear_now();
            let room = tab.who.room;
            self.note(self.tabs[index].number, heard).await;
            let expected = self.world.model.state(room);
            if self.world.model.is_told(room) && *self.tabs[index].state() != expected {
                self.listen(index).await; // it may still be in the kernel
                let tab = &self.tabs[index];
                assert_eq!(
                    *tab.state(),
                    expected,
                    "tab {}: left what it was told, right the model",
                    tab.number
                );
            }
        }
    }

    /// One tab hears what there is.
    pub async fn listen(&mut self, index: usize) {
        let tab = &mut self.tabs[index];
        let heard = self.hub.pulse.in_time("what a tab is told", tab.listen()).await;
        self.note(self.tabs[index].number, heard).await;
    }

    /// Takes note of what a tab was told, and holds the database to it.
    pub async fn note(&mut self, tab: u64, heard: Vec<Heard>) {
        for heard in heard {
            match heard {
                Heard::Acked(events) => self.acked(events, &format!("tab {tab} heard an ack")).await,
                Heard::Overloaded(event) => {
                    self.world.say(&format!("  tab {tab} hears: no room for event {event}"));
                }
                Heard::Closed(code) => self.world.say(&format!("  tab {tab} hears: closed with {code}")),
            }
        }
    }

    async fn acked(&mut self, events: Vec<Number>, why: &str) {
        self.world.say(&format!("  {why} of {events:?}"));
        for number in events {
            let is_there = self.database.has(self.world.ledger.event(number)).await;
            assert!(is_there, "{why} of event {number}, which is not in the database");
            self.world.ledger.acked(number);
        }
    }

    /// Looks which posts were answered, all of them where nothing is in their way. While commits fail they wait for the
    /// next try, which is a matter of time.
    pub async fn collect_posts(&mut self) {
        let (done, waiting) = std::mem::take(&mut self.posts)
            .into_iter()
            .partition(|post| !(self.is_locked || post.may_fail) || post.answer.is_finished());
        self.posts = waiting;
        for Post { what, events, may_fail, answer } in Vec::from_iter::<Vec<Post>>(done) {
            let answer = self.hub.pulse.in_time("an answer", answer).await.expect("an answer");
            let Some(Answer { status, body }) = answer else {
                assert!(may_fail && self.hub.has_stopped(), "{what} was cut off");
                self.world.say(&format!("  {what} was cut off"));
                continue;
            };
            match (status, body["error"]["code"].as_str()) {
                (200, None) => self.acked(events, &format!("{what} was answered with a commit")).await,
                (202, None) => self.world.say(&format!("  {what} was taken")),
                (503, Some("overloaded")) => self.world.say(&format!("  {what} was refused: no room")),
                (503, Some("not-committed")) if may_fail => self.world.say(&format!("  {what} waits on")),
                _ => panic!("{what} was answered with {status} {body}"),
            }
        }
    }

    /// Flushes. Where nothing is in its way, whoever listens hears that all is committed.
    pub async fn flush(&mut self) {
        let answer = self.hub.ask("POST", "/flush", &Value::Null);
        let may_fail = self.may_fail();
        self.posts.push(Post { what: "the flush".to_owned(), events: Vec::new(), may_fail, answer });
        settle().await;
        self.collect_posts().await;
        if !may_fail {
            self.listen_all().await;
            for index in 0..self.tabs.len() {
                if self.tabs[index].listens && !self.tabs[index].under_way().is_empty() {
                    self.listen(index).await; // it may still be in the kernel
                }
            }
            for tab in self.tabs.iter().filter(|tab| tab.listens) {
                let unacked = tab.under_way();
                assert!(
                    unacked.is_empty(),
                    "tab {}: all is committed, and {unacked:?} not acked",
                    tab.number
                );
            }
        }
    }

    /// Whoever listens has heard an ack of everything that is committed, and not only of the newest.
    pub async fn check_acks(&mut self) {
        self.listen_all().await;
        for index in 0..self.tabs.len() {
            if self.tabs[index].listens {
                self.listen(index).await;
                for number in self.tabs[index].under_way() {
                    let event = self.world.ledger.event(number);
                    // What another message has brought may be there before this one is committed.
                    let is_alone = event.sent == 1 && matches!(event.body, Body::View { .. });
                    let is_late = is_alone && self.database.has(event).await;
                    assert!(!is_late, "event {number} is in the database, and its tab heard no ack");
                }
            }
        }
    }

    /// Waits until the hub has noticed the end of a socket.
    pub async fn has_ended(&mut self) {
        self.ended += 1;
        let (live, sessions) = (&self.hub.live, self.world.model.totals().sessions);
        let is_gone = || live.totals().sessions == sessions;
        self.hub.pulse.until("the hub to notice the end of a socket", is_gone).await;
    }

    /// The signal comes, and the hub ends in order.
    pub async fn stop(mut self) -> End {
        (self.saved, self.saving) = (None, None);
        let began = self.world.model.now();
        let listeners = self.tabs.iter().filter(|tab| tab.listens);
        let taken: Vec<Number> = listeners.flat_map(Tab::under_way).collect();
        self.hub.signal();
        self.hub.rest().await;
        // Time passes for those who need it: sockets that are closed one after the other, and commits that are
        // tried again. The rest is work, during which it stands still.
        let mut slice = CLOSE_SPREAD;
        while self.needs_time().await {
            self.pass(slice).await;
            slice = STOP_SLICE;
            self.hub.rest().await;
            self.hear_the_ends().await;
        }
        let stopped = self.hub.stopped().await;
        self.collect_posts().await;
        assert!(!self.tabs.iter().any(|tab| tab.listens), "everybody who listens is told of the restart");
        let seats = match stopped {
            Ok(()) => {
                for number in taken {
                    let is_there = self.database.has(self.world.ledger.event(number)).await;
                    assert!(is_there, "event {number} was taken, and the last flush did not bring it");
                }
                self.seats(began).await
            }
            Err(ServeError::Unflushed(events)) if self.world.is_broken => {
                self.world.say(&format!("  {events} events were not written"));
                self.database.seats().await
            }
            Err(error) => panic!("the hub did not stop well: {error}"),
        };
        End::Stopped(seats)
    }

    /// Whether a hub that stops waits for time to pass, and not for its work to be done.
    async fn needs_time(&self) -> bool {
        let (live, hub) = (&self.hub.live, &self.hub);
        let needs_time = || live.totals().sessions > 0 || hub.journal().failing.is_some();
        hub.pulse.until("the hub to stop", || hub.has_stopped() || needs_time()).await;
        !hub.has_stopped()
    }

    /// Whoever listens hears that the hub restarts, in whatever order it closes the sockets.
    async fn hear_the_ends(&mut self) {
        for mut tab in std::mem::take(&mut self.tabs) {
            let heard = if tab.listens { tab.hear_now() } else { Vec::new() };
            let is_over = heard.contains(&Heard::Closed(RESTARTING));
            self.note(tab.number, heard).await;
            if !is_over {
                self.tabs.push(tab);
            }
        }
        settle().await;
    }

    /// The seats that the hub left are those of everybody who was there: whoever was held until the same moment as
    /// before, and whoever was on a socket for as long as they should be.
    async fn seats(&mut self, began: Millis) -> Vec<Seat> {
        let (model, hold) = (&self.world.model, self.world.knobs.seat_hold);
        let now = model.now();
        let mut seats = self.database.seats().await;
        seats.retain(|seat| seat.until > now); // what has ended meanwhile is nobody's
        let mut left = seats.clone();
        let (kept, connected) = match hold {
            0 => (Vec::new(), Vec::new()),
            _ => (model.held(), model.connected()),
        };
        for seat in kept {
            let found = left.iter().position(|left| *left == seat);
            left.swap_remove(found.unwrap_or_else(|| panic!("not as before: {seat:?} in {seats:?}")));
        }
        for who in connected {
            let found = left.iter().position(|seat| seat.who == who);
            let seat = left.swap_remove(found.unwrap_or_else(|| panic!("{who} has no seat: {seats:?}")));
            let until = began + hold..=now + hold;
            assert!(until.contains(&seat.until), "{who} is held in {until:?}: {seats:?}");
            assert_eq!((seat.mood, seat.reason.as_str()), (model.mood(who), "restart"), "{who}");
        }
        assert_eq!(left, [], "they were not there");
        self.world.say(&format!("  {} seats are left", seats.len()));
        seats
    }

    /// The hub is killed: whoever was held at its last flush interval still is.
    pub async fn kill(mut self) -> End {
        let seats = self.database.seats().await;
        if let Some(saved) = &self.saved {
            assert!(saved.contains(&seats), "{seats:?} are saved, and not one of {saved:?}");
        }
        self.world.say(&format!("the hub is killed, with {} holds saved", seats.len()));
        self.world.salvage();
        End::Killed(seats)
    }

    /// Nobody is there any more, and nothing is left of them.
    pub async fn check_empty(&mut self) {
        assert_eq!(audit(&self.hub.live).await, [], "the audit finds nothing");
        assert_eq!(self.hub.live.rooms(usize::MAX).len(), 0);
        let debug = self.hub.answer("GET", "/debug", &Value::Null).await.body;
        let left: BTreeMap<_, _> =
            ["liveUsers", "sessions", "connections", "roomCount"].map(|key| (key, &debug[key])).into();
        assert!(left.values().all(|count| **count == 0), "{left:?}");
        assert_eq!(self.hub.journal().pending(), 0);
    }
}
