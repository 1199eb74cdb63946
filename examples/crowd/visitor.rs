//! One person: a task that visits rooms with one or two tabs and does there what people do.
//!
//! A person leaves as the protocol says, loses connections, comes back after a random wait and
//! sends again what was not acked. What happens goes to the tally, and what must not happen too.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, select_all};
use rand::random_range;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::counters::Place;
use crate::outbox::{Outbox, film, page_view, turn};
use crate::tab::{FromHub, Tab};
use crate::{Crowd, PATIENCE, Phase};

pub(crate) struct Person {
    number: usize,
    visitor: String,
    crowd: Arc<Crowd>,
    phase: watch::Receiver<Phase>,
    room: usize,
    mood: Option<String>,
    /// The moods that may be set, from the newest welcome.
    vocabulary: Vec<String>,
    /// What the hub was last told of it.
    film: Option<Value>,
    outbox: Outbox,
    /// The last visit ended without a close, and the next one is a return.
    lost: bool,
    failures: u32,
}

/// Why a visit ends.
enum Parting {
    /// The person leaves for this long, and then goes to some room.
    Away(Duration),
    /// The network fails, on purpose.
    Dropped,
    /// A socket ended by itself.
    Ended(String),
}

impl From<String> for Parting {
    fn from(reason: String) -> Self {
        Self::Ended(reason)
    }
}

impl Person {
    pub(crate) fn new(number: usize, run: &str, crowd: &Arc<Crowd>, phase: watch::Receiver<Phase>) -> Self {
        Self {
            number,
            visitor: format!("crowd-{run}-{number}"),
            crowd: Arc::clone(crowd),
            phase,
            room: crowd.any_room(),
            mood: None,
            vocabulary: Vec::new(),
            film: None,
            outbox: Outbox::default(),
            lost: false,
            failures: 0,
        }
    }

    /// A person's whole day.
    pub(crate) async fn live(mut self, arrival: Duration) {
        self.rest(arrival, Phase::Settling).await;
        while *self.phase.borrow() != Phase::Leaving {
            match self.join(0).await {
                Ok(first) => {
                    let mut tabs = vec![first];
                    let Err(parting) = self.stay(&mut tabs).await;
                    self.part(tabs, parting).await;
                }
                Err(trouble) => self.back_off(trouble).await,
            }
        }
    }

    /// A pause that ends early when that part of the day comes.
    async fn rest(&mut self, pause: Duration, until: Phase) {
        let _ = timeout(pause, self.phase.wait_for(|phase| *phase >= until)).await;
    }

    /// Waits before another attempt: 500 ms, doubling up to 8 s, with full jitter.
    async fn back_off(&mut self, trouble: String) {
        self.crowd.tally().error(trouble);
        let most = Duration::from_millis(500 << self.failures.min(4));
        self.failures += 1;
        self.rest(random_range(Duration::ZERO..most), Phase::Leaving).await;
    }

    /// Opens a tab in the person's room and checks its welcome.
    async fn join(&mut self, index: usize) -> Result<Tab, String> {
        let name = &self.crowd.rooms[self.room];
        let mood = self.mood.as_ref().map(|mood| format!("&mood={mood}")).unwrap_or_default();
        let url = format!("ws://{}/rooms/{name}/socket?visitor={}{mood}", self.crowd.hub, self.visitor);
        let (mut tab, first) = Tab::open(url, index).await?;
        let mut tally = self.crowd.tally();
        match serde_json::from_str(&first) {
            Ok(FromHub::Welcome { protocol: 1, visitor, room, seq, present, vocabulary })
                if visitor == self.visitor && room == *name =>
            {
                tab.seq = seq;
                self.vocabulary = vocabulary;
                tally.joins += 1;
                let place = Place { room: self.room, mood: self.mood.clone(), told: present };
                tally.tabs.insert((self.number, index), place);
                Ok(tab)
            }
            _ => {
                tally.complain("The first message was not the right welcome", first);
                Err("a socket had no welcome".to_owned())
            }
        }
    }

    /// From the welcome to the parting.
    async fn stay(&mut self, tabs: &mut Vec<Tab>) -> Result<Infallible, Parting> {
        self.take_up(&mut tabs[0]).await?;
        let mut next_deed = Instant::now() + seconds(1.0, 6.0);
        loop {
            let heard = select_all(tabs.iter_mut().map(|tab| Box::pin(tab.next())));
            tokio::select! {
                (said, tab) = heard.map(|(said, tab, _)| (said, tab)) => self.hear(&mut tabs[tab], &said?),
                () = sleep_until(next_deed) => {
                    next_deed = Instant::now() + seconds(1.0, 6.0);
                    self.act(tabs).await?;
                }
                _ = self.phase.changed() => self.heed_phase(&mut tabs[0]).await?,
            }
        }
    }

    /// Goes on where the last visit ended: the mood, the film, and what is not acked.
    async fn take_up(&mut self, tab: &mut Tab) -> Result<(), Parting> {
        // That socket is gone: nobody knows what of it has arrived.
        self.outbox.recall(|_| true);
        if std::mem::take(&mut self.lost) {
            self.crowd.tally().returns += 1;
            // The hub may still remember a mood that was cleared in the last moment.
            tab.send(&json!({ "type": "mood", "mood": self.mood })).await?;
        }
        if let Some(film) = self.film.clone() {
            self.post(film);
        }
        self.heed_phase(tab).await
    }

    async fn heed_phase(&mut self, tab: &mut Tab) -> Result<(), Parting> {
        let phase = *self.phase.borrow();
        match phase {
            Phase::Living => {}
            Phase::Settling => self.turn_film("ended"),
            Phase::Leaving => return Err(Parting::Away(Duration::ZERO)),
        }
        self.deliver(tab).await
    }

    async fn act(&mut self, tabs: &mut Vec<Tab>) -> Result<(), Parting> {
        self.failures = 0;
        let idle = *self.phase.borrow() != Phase::Living;
        match random_range(0..100) {
            _ if idle => {}
            0..30 => self.change_mood(&mut tabs[0]).await?,
            30..60 => self.post(page_view()),
            60..82 => self.watch(),
            82..88 => self.toggle_second_tab(tabs).await?,
            88..93 => return Err(Parting::Away(seconds(0.1, 1.0))),
            93..96 => {
                self.turn_film("ended");
                return Err(Parting::Away(seconds(2.0, 12.0)));
            }
            _ => return Err(Parting::Dropped),
        }
        self.deliver(&mut tabs[0]).await
    }

    async fn change_mood(&mut self, tab: &mut Tab) -> Result<(), Parting> {
        let clear = random_range(0..6) == 0;
        self.mood = if clear { None } else { self.vocabulary.choose(&mut rand::rng()).cloned() };
        tab.send(&json!({ "type": "mood", "mood": self.mood })).await?;
        let mut tally = self.crowd.tally();
        tally.moods += 1;
        if let Some(place) = tally.tabs.get_mut(&(self.number, 0)) {
            place.mood.clone_from(&self.mood);
        }
        Ok(())
    }

    /// Starts a film, or pauses, resumes or ends the one there is.
    fn watch(&mut self) {
        let next = match &self.film {
            Some(_) if random_range(0..5) < 2 => "ended",
            Some(film) if film["state"] == "playing" => "paused",
            _ => "playing",
        };
        self.film.get_or_insert_with(film);
        self.turn_film(next);
    }

    fn turn_film(&mut self, state: &str) {
        if let Some(mut film) = self.film.take() {
            turn(&mut film, state);
            self.post(film.clone());
            self.film = (state != "ended").then_some(film);
        }
    }

    async fn toggle_second_tab(&mut self, tabs: &mut Vec<Tab>) -> Result<(), Parting> {
        match tabs.pop_if(|tab| tab.index == 1) {
            Some(second) => self.leave(second).await,
            None => tabs.push(self.join(1).await?),
        }
        Ok(())
    }

    fn post(&mut self, event: Value) {
        self.outbox.push(event);
        self.crowd.tally().events += 1;
    }

    /// Sends what waits, each under a new `ref`.
    async fn deliver(&mut self, tab: &mut Tab) -> Result<(), Parting> {
        for event in self.outbox.waiting() {
            tab.last_ref += random_range(1..=3);
            event["ref"] = tab.last_ref.into();
            tab.send(event).await?;
            self.crowd.tally().sent += 1;
        }
        Ok(())
    }

    fn hear(&mut self, tab: &mut Tab, text: &str) {
        let mut tally = self.crowd.tally();
        match serde_json::from_str(text) {
            Ok(FromHub::Presence { seq, present }) => {
                tally.frames += 1;
                if seq <= tab.seq {
                    let reason = format_args!("{seq} after {} in {}", tab.seq, self.crowd.rooms[self.room]);
                    tally.complain("On one socket seq did not rise", reason);
                }
                tab.seq = seq;
                if let Some(place) = tally.tabs.get_mut(&(self.number, tab.index)) {
                    place.told = present;
                }
            }
            Ok(FromHub::Ack { up_to }) if up_to <= tab.last_ref => tally.acked += self.outbox.acked(up_to),
            Ok(FromHub::Ack { .. }) => tally.complain("The hub acked what was never sent", text),
            Ok(FromHub::Error { code, message, r#ref }) => {
                tally.error(format_args!("{code}: {message}"));
                if matches!(code.as_str(), "overloaded" | "too-fast") {
                    self.outbox.recall(|sent| Some(sent) == r#ref);
                } else {
                    tally.complain("The hub refused a message", text);
                }
            }
            Ok(FromHub::Welcome { .. }) | Err(_) => tally.complain("The hub broke the protocol", text),
        }
    }

    /// Ends the visit in its way, and waits as one does before the next.
    async fn part(&mut self, tabs: Vec<Tab>, parting: Parting) {
        if let Parting::Away(pause) = parting {
            for tab in tabs.into_iter().rev() {
                self.leave(tab).await;
            }
            self.room = self.crowd.any_room();
            return self.rest(pause, Phase::Settling).await;
        }
        // The connections end without a word.
        for tab in tabs {
            let mut tally = self.crowd.tally();
            tally.drops += 1;
            tally.tabs.remove(&(self.number, tab.index));
        }
        self.lost = true;
        match parting {
            Parting::Ended(reason) => self.back_off(reason).await,
            _ => self.rest(seconds(0.2, 5.0), Phase::Settling).await,
        }
    }

    /// Closes a tab with 1000 and hears it out: an ack may still be on its way.
    async fn leave(&mut self, mut tab: Tab) {
        self.crowd.tally().leaves += 1;
        self.crowd.tally().tabs.remove(&(self.number, tab.index));
        let goodbye = async {
            tab.close().await;
            while let Ok(text) = tab.next().await {
                self.hear(&mut tab, &text);
            }
        };
        if timeout(PATIENCE, goodbye).await.is_err() {
            self.crowd.tally().error("the hub did not answer a close");
        }
    }
}

fn seconds(least: f64, most: f64) -> Duration {
    Duration::from_secs_f64(random_range(least..most))
}
