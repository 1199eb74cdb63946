//! One visitor: a task that joins rooms with one or two tabs and acts at random.
//!
//! It leaves as the protocol says, loses connections, reconnects after a random wait, and sends unacked events again. It
//! records its actions and all violations of the protocol in the counters.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, select_all};
use rand::random_range;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::counters::TabState;
use crate::outbox::{Outbox, page_view, update_watch, watch};
use crate::tab::{HubMessage, Tab};
use crate::{Crowd, Phase, TIMEOUT};

pub(crate) struct Visitor {
    number: usize,
    id: String,
    crowd: Arc<Crowd>,
    phase: watch::Receiver<Phase>,
    room: usize,
    mood: Option<String>,
    /// The moods that may be set, from the newest welcome.
    vocabulary: Vec<String>,
    /// The last sent state of the running watch session.
    watch: Option<Value>,
    outbox: Outbox,
    /// Whether the last visit ended without a close.
    lost: bool,
    failures: u32,
}

/// Why a visit ends.
enum VisitEnd {
    /// The visitor leaves for this long, and then joins a random room.
    Left(Duration),
    /// The visitor drops its connections on purpose.
    Dropped,
    /// A socket ended unexpectedly.
    Lost(String),
}

impl From<String> for VisitEnd {
    fn from(reason: String) -> Self {
        Self::Lost(reason)
    }
}

impl Visitor {
    pub(crate) fn new(number: usize, run: &str, crowd: &Arc<Crowd>, phase: watch::Receiver<Phase>) -> Self {
        Self {
            number,
            id: format!("crowd-{run}-{number}"),
            crowd: Arc::clone(crowd),
            phase,
            room: crowd.random_room(),
            mood: None,
            vocabulary: Vec::new(),
            watch: None,
            outbox: Outbox::default(),
            lost: false,
            failures: 0,
        }
    }

    /// Runs the visitor through all phases.
    pub(crate) async fn run(mut self, arrival: Duration) {
        self.pause_until(arrival, Phase::Draining).await;
        while *self.phase.borrow() != Phase::Leaving {
            match self.join(0).await {
                Ok(first) => {
                    let mut tabs = vec![first];
                    let Err(end) = self.visit(&mut tabs).await;
                    self.end_visit(tabs, end).await;
                }
                Err(error) => self.back_off(error).await,
            }
        }
    }

    /// Pauses, at most until the phase begins.
    async fn pause_until(&mut self, pause: Duration, until: Phase) {
        let _ = timeout(pause, self.phase.wait_for(|phase| *phase >= until)).await;
    }

    /// Waits before another attempt: 500 ms, doubling up to 8 s, with full jitter.
    async fn back_off(&mut self, error: String) {
        self.crowd.counters().error(error);
        let most = Duration::from_millis(500 << self.failures.min(4));
        self.failures += 1;
        self.pause_until(random_range(Duration::ZERO..most), Phase::Leaving).await;
    }

    /// Opens a tab in the visitor's room and checks its welcome.
    async fn join(&mut self, index: usize) -> Result<Tab, String> {
        let name = &self.crowd.rooms[self.room];
        let mood = self.mood.as_ref().map(|mood| format!("&mood={mood}")).unwrap_or_default();
        let url = format!("ws://{}/rooms/{name}/socket?visitor={}{mood}", self.crowd.hub, self.id);
        let (mut tab, first) = Tab::open(url, index).await?;
        let mut counters = self.crowd.counters();
        match serde_json::from_str(&first) {
            Ok(HubMessage::Welcome { protocol: 1, visitor, room, seq, present, vocabulary })
                if visitor == self.id && room == *name =>
            {
                tab.seq = seq;
                self.vocabulary = vocabulary;
                counters.joins += 1;
                let state = TabState { room: self.room, mood: self.mood.clone(), present };
                counters.tabs.insert((self.number, index), state);
                Ok(tab)
            }
            _ => {
                counters.violation("The first message was not the expected welcome", first);
                Err("a socket had no welcome".to_owned())
            }
        }
    }

    /// Stays in the room until the visit ends.
    async fn visit(&mut self, tabs: &mut Vec<Tab>) -> Result<Infallible, VisitEnd> {
        self.resume(&mut tabs[0]).await?;
        let mut next_action = Instant::now() + seconds(1.0, 6.0);
        loop {
            let next_message = select_all(tabs.iter_mut().map(|tab| Box::pin(tab.next())));
            tokio::select! {
                (text, tab) = next_message.map(|(text, tab, _)| (text, tab)) => self.receive(&mut tabs[tab], &text?),
                () = sleep_until(next_action) => {
                    next_action = Instant::now() + seconds(1.0, 6.0);
                    self.act(tabs).await?;
                }
                _ = self.phase.changed() => self.apply_phase(&mut tabs[0]).await?,
            }
        }
    }

    /// Restores the mood, the watch session and the unacked events of the last visit.
    async fn resume(&mut self, tab: &mut Tab) -> Result<(), VisitEnd> {
        // It is unknown which events of the last socket have arrived.
        self.outbox.mark_unsent(|_| true);
        if std::mem::take(&mut self.lost) {
            self.crowd.counters().returns += 1;
            // The hub may not have received the last change of the mood.
            tab.send(&json!({ "type": "mood", "mood": self.mood })).await?;
        }
        if let Some(watch) = self.watch.clone() {
            self.queue_event(watch);
        }
        self.apply_phase(tab).await
    }

    async fn apply_phase(&mut self, tab: &mut Tab) -> Result<(), VisitEnd> {
        let phase = *self.phase.borrow();
        match phase {
            Phase::Active => {}
            Phase::Draining => self.update_session("ended"),
            Phase::Leaving => return Err(VisitEnd::Left(Duration::ZERO)),
        }
        self.send_events(tab).await
    }

    async fn act(&mut self, tabs: &mut Vec<Tab>) -> Result<(), VisitEnd> {
        self.failures = 0;
        let idle = *self.phase.borrow() != Phase::Active;
        match random_range(0..100) {
            _ if idle => {}
            0..30 => self.change_mood(&mut tabs[0]).await?,
            30..60 => self.queue_event(page_view()),
            60..82 => self.watch(),
            82..88 => self.toggle_second_tab(tabs).await?,
            88..93 => return Err(VisitEnd::Left(seconds(0.1, 1.0))),
            93..96 => {
                self.update_session("ended");
                return Err(VisitEnd::Left(seconds(2.0, 12.0)));
            }
            _ => return Err(VisitEnd::Dropped),
        }
        self.send_events(&mut tabs[0]).await
    }

    async fn change_mood(&mut self, tab: &mut Tab) -> Result<(), VisitEnd> {
        let clear = random_range(0..6) == 0;
        self.mood = if clear { None } else { self.vocabulary.choose(&mut rand::rng()).cloned() };
        tab.send(&json!({ "type": "mood", "mood": self.mood })).await?;
        let mut counters = self.crowd.counters();
        counters.moods += 1;
        if let Some(state) = counters.tabs.get_mut(&(self.number, 0)) {
            state.mood.clone_from(&self.mood);
        }
        Ok(())
    }

    /// Starts a watch session, or pauses, resumes or ends the running one.
    fn watch(&mut self) {
        let next = match &self.watch {
            Some(_) if random_range(0..5) < 2 => "ended",
            Some(watch) if watch["state"] == "playing" => "paused",
            _ => "playing",
        };
        self.watch.get_or_insert_with(watch);
        self.update_session(next);
    }

    fn update_session(&mut self, state: &str) {
        if let Some(mut watch) = self.watch.take() {
            update_watch(&mut watch, state);
            self.queue_event(watch.clone());
            self.watch = (state != "ended").then_some(watch);
        }
    }

    async fn toggle_second_tab(&mut self, tabs: &mut Vec<Tab>) -> Result<(), VisitEnd> {
        match tabs.pop_if(|tab| tab.index == 1) {
            Some(second) => self.leave(second).await,
            None => tabs.push(self.join(1).await?),
        }
        Ok(())
    }

    fn queue_event(&mut self, event: Value) {
        self.outbox.push(event);
        self.crowd.counters().events += 1;
    }

    /// Sends all unsent events, each with a new `ref`.
    async fn send_events(&mut self, tab: &mut Tab) -> Result<(), VisitEnd> {
        for event in self.outbox.unsent() {
            tab.last_ref += random_range(1..=3);
            event["ref"] = tab.last_ref.into();
            tab.send(event).await?;
            self.crowd.counters().sent += 1;
        }
        Ok(())
    }

    fn receive(&mut self, tab: &mut Tab, text: &str) {
        let mut counters = self.crowd.counters();
        match serde_json::from_str(text) {
            Ok(HubMessage::Presence { seq, present }) => {
                counters.frames += 1;
                if seq <= tab.seq {
                    let reason = format_args!("{seq} after {} in {}", tab.seq, self.crowd.rooms[self.room]);
                    counters.violation("seq did not increase on a socket", reason);
                }
                tab.seq = seq;
                if let Some(state) = counters.tabs.get_mut(&(self.number, tab.index)) {
                    state.present = present;
                }
            }
            Ok(HubMessage::Ack { up_to }) if up_to <= tab.last_ref => {
                counters.acked += self.outbox.acked(up_to);
            }
            Ok(HubMessage::Ack { .. }) => {
                counters.violation("The hub acked an event that was not sent", text);
            }
            Ok(HubMessage::Error { code, message, r#ref }) => {
                counters.error(format_args!("{code}: {message}"));
                if matches!(code.as_str(), "overloaded" | "too-fast") {
                    self.outbox.mark_unsent(|sent| Some(sent) == r#ref);
                } else {
                    counters.violation("The hub rejected a message", text);
                }
            }
            Ok(HubMessage::Welcome { .. }) | Err(_) => counters.violation("The hub broke the protocol", text),
        }
    }

    /// Ends the visit, and waits before the next one.
    async fn end_visit(&mut self, tabs: Vec<Tab>, end: VisitEnd) {
        if let VisitEnd::Left(pause) = end {
            for tab in tabs.into_iter().rev() {
                self.leave(tab).await;
            }
            self.room = self.crowd.random_room();
            return self.pause_until(pause, Phase::Draining).await;
        }
        // The connections end without a close frame.
        for tab in tabs {
            let mut counters = self.crowd.counters();
            counters.drops += 1;
            counters.tabs.remove(&(self.number, tab.index));
        }
        self.lost = true;
        match end {
            VisitEnd::Lost(reason) => self.back_off(reason).await,
            _ => self.pause_until(seconds(0.2, 5.0), Phase::Draining).await,
        }
    }

    /// Closes a tab with 1000 and reads to the end: an ack may still be in flight.
    async fn leave(&mut self, mut tab: Tab) {
        self.crowd.counters().leaves += 1;
        self.crowd.counters().tabs.remove(&(self.number, tab.index));
        let close = async {
            tab.close().await;
            while let Ok(text) = tab.next().await {
                self.receive(&mut tab, &text);
            }
        };
        if timeout(TIMEOUT, close).await.is_err() {
            self.crowd.counters().error("the hub did not answer a close");
        }
    }
}

fn seconds(least: f64, most: f64) -> Duration {
    Duration::from_secs_f64(random_range(least..most))
}
