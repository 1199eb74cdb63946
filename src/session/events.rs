//! A session's events: from a message to the journal, and from a commit to an ack.
//!
//! Made by the first event and dropped with the session, at which what played on its socket stops.
//! It knows nothing of the socket.

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::acks::Acks;
use super::room;
use crate::address::Address;
use crate::history::Epoch;
use crate::history::event::{Event, PageViewFact, WatchFact, Who};
use crate::live::Attention;
use crate::wire::{ErrorCode, PageView, Ref, Refusal, SessionId, Time, Watch, WatchState};

/// The most watch sessions that may play at once on one socket.
const PLAYING_LIMIT: usize = 16;

/// The events of one session.
pub struct Events {
    context: Arc<room::Context>,
    session: SessionId,
    who: Who,
    address: Address,
    /// Bots have none: they are not seen.
    attention: Option<Attention>,
    acks: Acks,
    /// Ready when the next ack is due.
    commit: Option<Pin<Box<dyn Future<Output = Epoch> + Send>>>,
    last_ref: Option<Ref>,
    last_watch: Time,
    /// The newest facts of the watch sessions that play on this socket, and when they came.
    playing: Vec<(WatchFact, Duration)>,
}

impl Events {
    /// No events yet.
    #[must_use]
    pub fn new(context: Arc<room::Context>, session: SessionId, who: Who, address: Address) -> Self {
        let attention = (!who.is_bot).then(|| context.hub.attention(&who.visitor));
        Self {
            context,
            session,
            who,
            address,
            attention,
            acks: Acks::default(),
            commit: None,
            last_ref: None,
            last_watch: Time::from_millis(0),
            playing: Vec::new(),
        }
    }

    /// A page was seen.
    ///
    /// # Errors
    /// The `ref` does not rise, or the journal is full; nothing has changed.
    pub fn page_view(&mut self, reference: Ref, view: PageView) -> Result<(), Refusal> {
        self.check_rising(reference)?;
        let path = view.path.shared();
        let fact = PageViewFact::new(self.who.clone(), view, self.context.clock.wall())
            .map_err(|problem| refuse(problem.code, problem.message, reference))?;
        self.append(reference, Event::PageView(fact))?;
        if let Some(attention) = &mut self.attention {
            attention.look_at(path);
        }
        Ok(())
    }

    /// The state of a watch session.
    ///
    /// # Errors
    /// The `ref` does not rise, too much plays at once, or the journal is full; nothing has changed.
    pub fn watch(&mut self, reference: Ref, watch: Watch) -> Result<(), Refusal> {
        self.check_rising(reference)?;
        let (id, state, content) = (watch.id, watch.state, watch.content.shared());
        let others = self.playing.iter().filter(|(fact, _)| fact.id() != id).count();
        if state == WatchState::Playing && others >= PLAYING_LIMIT {
            let rule = format!("state: at most {PLAYING_LIMIT} watch sessions may play at once");
            return Err(refuse(ErrorCode::BadField, rule, reference));
        }
        // Two messages in one millisecond still have an order.
        self.last_watch = self.context.clock.wall().max(self.last_watch.plus(1));
        let now = self.context.clock.elapsed();
        let fact = WatchFact::new(self.who.clone(), watch, self.last_watch)
            .map_err(|problem| refuse(problem.code, problem.message, reference))?
            .measured(self.context.clocks.total(id, now), Duration::ZERO);
        self.append(reference, Event::Watch(fact.clone()))?;
        self.playing.retain(|(playing, _)| playing.id() != id);
        let plays = self.context.clocks.tell(self.session, id, fact.state_at(), now);
        if plays {
            self.playing.push((fact.measurable(), now));
        }
        match &mut self.attention {
            Some(attention) if plays => attention.play(id, content),
            Some(attention) => attention.stop(id),
            None => {}
        }
        Ok(())
    }

    fn check_rising(&self, reference: Ref) -> Result<(), Refusal> {
        match self.last_ref {
            Some(last) if reference <= last => {
                let rule = format!("ref: must rise; the last one on this socket was {last}");
                Err(refuse(ErrorCode::BadField, rule, reference))
            }
            _ => Ok(()),
        }
    }

    /// Queues the event. Only events that were taken use up their `ref`.
    fn append(&mut self, reference: Ref, event: Event) -> Result<(), Refusal> {
        let epoch = self.context.journal.append(self.address, event).map_err(|full| {
            self.context.meter.limited(full.into());
            refuse(ErrorCode::Overloaded, full.to_string(), reference)
        })?;
        self.last_ref = Some(reference);
        self.acks.queued(epoch, reference);
        Ok(())
    }

    /// Ready when an epoch is committed that may make an ack.
    pub fn poll_commit(&mut self, cx: &mut Context<'_>) -> Poll<Epoch> {
        let Some(waiting_for) = self.acks.waiting_for() else { return Poll::Pending };
        let commit = self.commit.get_or_insert_with(|| {
            let mut committed = self.context.journal.committed();
            Box::pin(async move {
                let reached = committed.wait_for(|epoch| *epoch >= waiting_for).await.map(|epoch| *epoch);
                match reached {
                    Ok(epoch) => epoch,
                    Err(_) => pending().await, // the journal has ended, and the session will
                }
            })
        });
        commit.as_mut().poll(cx)
    }

    /// All epochs up to `epoch` are on disk; returns what may be acked now.
    pub fn committed(&mut self, epoch: Epoch) -> Option<Ref> {
        self.commit = None;
        self.acks.committed(epoch)
    }
}

impl Drop for Events {
    /// What played on the socket no longer does, and how long it did is kept.
    fn drop(&mut self) {
        let now = self.context.clock.elapsed();
        for (fact, since) in self.playing.drain(..) {
            if let Some(total) = self.context.clocks.lose(self.session, fact.id(), now) {
                let fact = fact.measured(total, now.saturating_sub(since));
                self.context.journal.append_measured(Event::Watch(fact));
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("session", &self.session)
            .field("acks", &self.acks)
            .finish_non_exhaustive()
    }
}

fn refuse(code: ErrorCode, message: String, reference: Ref) -> Refusal {
    Refusal { code, message, reference: Some(reference) }
}
