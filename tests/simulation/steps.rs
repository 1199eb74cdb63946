//! The steps: what people, time, disks and operators do.
//!
//! A seed first draws which kinds of steps it knows at all, and how often each comes ("swarm testing": a bug
//! that needs ten failed commits in a row is found where nothing mends the disk, and one that needs a
//! full room where nobody leaves). What a step is about is drawn when it is taken.

use serde_json::{Value, json};

use super::client::{Loss, Tab};
use super::database::FAILURES;
use super::event_log::Number;
use super::hub_run::{End, Life, Post};
use super::model::Who;
use super::random::Dice;
use super::time::settle;
use super::{MOODS, ROOMS, VISITORS};

/// The most sockets at once.
const CROWD: usize = 14;

/// The most time that one hub runs: after five minutes it begins to tidy up, at a time of its own.
const LIFETIME: u64 = 290_000;

/// The kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Join,
    Leave,
    Lose,
    Mood,
    View,
    Watch,
    Resend,
    Repeat,
    Post,
    Pass,
    Listen,
    Flush,
    BreakDisk,
    MendDisk,
    Lock,
    Unlock,
    Stop,
    Kill,
}

/// How often each comes, where all come.
const USUAL: [(Step, u64); 18] = [
    (Step::Join, 40),
    (Step::Leave, 12),
    (Step::Lose, 14),
    (Step::Mood, 20),
    (Step::View, 30),
    (Step::Watch, 20),
    (Step::Resend, 12),
    (Step::Repeat, 8),
    (Step::Post, 10),
    (Step::Pass, 40),
    (Step::Listen, 8),
    (Step::Flush, 10),
    (Step::BreakDisk, 4),
    (Step::MendDisk, 4),
    (Step::Lock, 3),
    (Step::Unlock, 10),
    (Step::Stop, 1),
    (Step::Kill, 1),
];

/// The kinds of steps that a seed knows, each with its weight.
pub fn draw(dice: &mut Dice) -> Vec<(Step, u64)> {
    let mut swarm = Vec::new();
    for (step, weight) in USUAL {
        let always = matches!(step, Step::Join | Step::Pass | Step::Unlock);
        if always || !dice.once_in(4) {
            swarm.push((step, weight * (1 + dice.below(4))));
        }
    }
    swarm
}

impl Life<'_> {
    /// Takes one step. Some end this life.
    pub async fn take(mut self, step: Step) -> Result<Self, End> {
        match step {
            Step::Join => self.join_somebody().await,
            Step::Leave => self.leave().await,
            Step::Lose => self.lose().await,
            Step::Mood => self.set_mood().await,
            Step::View | Step::Watch => self.tell_news(step).await,
            Step::Resend => self.resend().await,
            Step::Repeat => self.repeat().await,
            Step::Post => self.post(),
            Step::Pass => self.let_time_pass().await,
            Step::Listen => self.begin_to_listen().await,
            Step::Flush => self.flush_now().await,
            Step::BreakDisk | Step::MendDisk if self.is_locked => {}
            Step::BreakDisk => self.break_disk().await,
            Step::MendDisk => self.mend_disk().await,
            Step::Lock => self.lock().await,
            Step::Unlock => self.unlock().await,
            Step::Stop => {
                self.unlock().await;
                self.world.say("the hub is told to stop");
                return Err(self.stop().await);
            }
            Step::Kill => {
                return Err(self.kill().await);
            }
        }
        self.check().await;
        Ok(self)
    }

    async fn join_somebody(&mut self) {
        if self.tabs.len() < CROWD {
            let dice = &mut self.world.dice;
            let who = Who { room: dice.one_of(&ROOMS), visitor: dice.one_of(&VISITORS) };
            let mood = dice.once_in(3).then(|| dice.one_of(&MOODS));
            let listens = !dice.once_in(6);
            self.join(who, mood, listens).await;
        }
    }

    /// Somebody opens a tab, and is told at once how the room is, with them in it.
    pub async fn join(&mut self, who: Who, mood: Option<&'static str>, listens: bool) {
        let number = self.world.next_tab();
        let how = if listens { "" } else { ", and does not listen" };
        let in_mood = mood.map(|mood| format!(" in mood {mood}")).unwrap_or_default();
        self.world.say(&format!("{who} opens tab {number}{in_mood}{how}"));
        self.world.model.join(who, mood);
        let opening = Tab::open(self.hub.address, number, who, mood);
        let tab = self.hub.pulse.in_time("a socket to open", opening).await;
        let sessions = self.world.model.totals().sessions;
        let live = &self.hub.live;
        self.hub.pulse.until("the hub to take a socket", || live.totals().sessions == sessions).await;
        self.tabs.push(tab);
        if listens {
            let index = self.tabs.len() - 1;
            self.listen(index).await;
            assert_eq!(
                *self.tabs[index].state(),
                self.world.model.state(who.room),
                "left the welcome, right the model"
            );
        }
    }

    async fn leave(&mut self) {
        if let Some(index) = self.some_tab(|_| true) {
            self.leave_tab(index).await;
        }
    }

    /// A tab is closed with 1000: when it has the answer, it does not count any more.
    pub async fn leave_tab(&mut self, index: usize) {
        let mut tab = self.tabs.remove(index);
        self.world.say(&format!("tab {} of {} leaves", tab.number, tab.who));
        self.world.model.leave(tab.who);
        let heard = self.hub.pulse.in_time("the answer to a close", tab.close(1000)).await;
        assert_eq!(self.hub.live.totals().sessions, self.world.model.totals().sessions, "it is counted out");
        self.note(tab.number, heard).await;
        self.has_ended().await;
    }

    async fn lose(&mut self) {
        let Some(index) = self.some_tab(|_| true) else { return };
        let mut tab = self.tabs.remove(index);
        let how = self.world.dice.one_of(&Loss::ALL);
        self.world.say(&format!("tab {} of {} is lost: {how:?}", tab.number, tab.who));
        self.world.model.lose(tab.who, self.world.model.now() + self.world.knobs.leave_grace);
        match how {
            Loss::GoneAway => {
                let heard = self.hub.pulse.in_time("the answer to a close", tab.close(1001)).await;
                self.note(tab.number, heard).await;
            }
            Loss::Ended => tab.end().await,
            Loss::HalfAFrame => tab.write_half_a_frame().await,
            Loss::Reset => {}
        }
        // One that only ends its side waits for the hub to end the other; the others are gone.
        let _kept = (how == Loss::Ended).then_some(tab);
        self.has_ended().await;
    }

    async fn set_mood(&mut self) {
        let Some(index) = self.some_tab(|tab| tab.listens) else { return };
        let dice = &mut self.world.dice;
        let mood = (!dice.once_in(4)).then(|| dice.one_of(&MOODS));
        let tab = &mut self.tabs[index];
        self.world.say(&format!("tab {} of {} sets mood {}", tab.number, tab.who, mood.unwrap_or("none")));
        self.world.model.set_mood(tab.who, mood);
        tab.set_mood(mood).await;
        self.listen(index).await;
    }

    async fn tell_news(&mut self, step: Step) {
        let Some(index) = self.some_tab(|_| true) else { return };
        let (who, now) = (self.tabs[index].who, self.world.model.now());
        let (ledger, dice) = (&mut self.world.ledger, &mut self.world.dice);
        let event =
            if step == Step::View { ledger.view(dice, who, now) } else { ledger.watch(dice, who, now) };
        self.tell(index, &[event]).await;
    }

    /// What was not acked is sent again, on any socket of the same person in the same room.
    async fn resend(&mut self) {
        let Some(index) = self.some_tab(|_| true) else { return };
        let pending = self.world.ledger.pending_of(self.tabs[index].who);
        let under_way = self.tabs[index].under_way();
        let pending: Vec<_> = pending.into_iter().filter(|event| !under_way.contains(event)).collect();
        if !pending.is_empty() {
            self.tell(index, &pending).await;
        }
    }

    /// Something is sent again that need not be.
    async fn repeat(&mut self) {
        let Some(index) = self.some_tab(|_| true) else { return };
        let all = self.world.ledger.all_of(self.tabs[index].who);
        if !all.is_empty() {
            let event = self.world.dice.one_of(&all);
            self.tell(index, &[event]).await;
        }
    }

    /// A tab tells events, and hears what the hub says of them if it listens.
    pub async fn tell(&mut self, index: usize, events: &[Number]) {
        let tab = &mut self.tabs[index];
        self.world.say(&format!("tab {} of {} tells events {events:?}", tab.number, tab.who));
        for number in events {
            tab.tell(*number, self.world.ledger.send(*number)).await;
        }
        if tab.listens {
            self.listen(index).await;
        } else {
            settle().await;
        }
    }

    /// Somebody posts events, and waits for the commit or not.
    fn post(&mut self) {
        let (now, dice) = (self.world.model.now(), &mut self.world.dice);
        let who = Who { room: dice.one_of(&ROOMS), visitor: dice.one_of(&VISITORS) };
        let durable = if dice.once_in(4) { "false" } else { "true" };
        let count = 1 + dice.below(3);
        let is_watch = dice.once_in(3);
        let mut events = Vec::new();
        for _ in 0..count {
            let (ledger, dice) = (&mut self.world.ledger, &mut self.world.dice);
            events.push(if is_watch { ledger.watch(dice, who, now) } else { ledger.view(dice, who, now) });
        }
        let path = self.world.ledger.event(events[0]).kind().1;
        let mut posted = |number: &Number| {
            let mut json = self.world.ledger.send(*number).json();
            json["visitor"] = json!(who.visitor);
            json["room"] = json!(who.room);
            json
        };
        let body = Value::Array(events.iter().map(&mut posted).collect());
        let what = format!("the post of events {events:?}");
        self.world.say(&format!("{who} posts events {events:?}, durable={durable}"));
        let answer = self.hub.ask("POST", &format!("{path}?durable={durable}"), &body);
        self.posts.push(Post { what, events, may_fail: self.may_fail(), answer });
    }

    async fn let_time_pass(&mut self) {
        let dice = &mut self.world.dice;
        let millis = match dice.weighted(&[(150, 8), (600, 8), (4_000, 4), (40_000, 1)]) {
            limit if self.age + limit > LIFETIME => return,
            // A hub that is about to open a connection must not find that it took seconds.
            limit if self.is_locked => 1 + dice.below(limit.min(150)),
            limit => 1 + dice.below(limit),
        };
        self.world.say(&format!("{millis} ms pass"));
        self.pass(millis).await;
        self.rest().await;
        self.listen_all().await;
    }

    async fn begin_to_listen(&mut self) {
        if let Some(index) = self.some_tab(|tab| !tab.listens) {
            let tab = &self.tabs[index];
            self.world.say(&format!("tab {} of {} begins to listen", tab.number, tab.who));
            self.listen(index).await;
        }
    }

    async fn flush_now(&mut self) {
        self.world.say("a flush is asked for");
        self.flush().await;
    }

    async fn break_disk(&mut self) {
        if !self.world.is_broken {
            let (why, how) = self.world.dice.one_of(&FAILURES);
            self.world.say(&format!("from now on commits fail: {why}"));
            self.database.fail(how).await;
            self.world.is_broken = true;
        }
    }

    pub async fn mend_disk(&mut self) {
        if self.world.is_broken {
            self.world.say("commits succeed again");
            self.database.mend().await;
            self.world.is_broken = false;
        }
    }

    async fn lock(&mut self) {
        if !self.is_locked {
            self.world.say("another process locks the database");
            self.database.lock().await;
            self.is_locked = true;
        }
    }

    pub async fn unlock(&mut self) {
        if self.is_locked {
            self.world.say("the lock is gone");
            self.database.unlock().await;
            self.is_locked = false;
            self.hub.rest().await;
            self.collect_posts().await;
            self.check_acks().await;
            self.check_saved().await;
        }
    }

    fn some_tab(&mut self, is_it: impl Fn(&Tab) -> bool) -> Option<usize> {
        let fitting = (0..self.tabs.len()).filter(|index| is_it(&self.tabs[*index]));
        let fitting: Vec<usize> = fitting.collect();
        (!fitting.is_empty()).then(|| self.world.dice.one_of(&fitting))
    }
}
