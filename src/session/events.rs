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
use crate::presence::VisitorActivity;
use crate::protocol::{ErrorCode, PageView, Ref, Refusal, SessionId, Time, Watch, WatchState};
use crate::quota::Permit;
use crate::rejections::Limit;

/// The most watch sessions that may play at once on one socket.
const PLAYING_LIMIT: usize = 16;

/// The events of one session.
pub(crate) struct Events {
    context: Arc<room::Context>,
    session: SessionId,
    who: Who,
    address: Address,
    /// Bots have none: they are not seen.
    attention: Option<VisitorActivity>,
    acks: Acks,
    /// Ready when the next ack is due.
    commit: Option<Pin<Box<dyn Future<Output = Epoch> + Send>>>,
    last_ref: Option<Ref>,
    last_watch: Time,
    /// What its page takes of the live state, where it is listed.
    page: Option<Permit>,
    /// The watch sessions that play on this socket, and are measured.
    playing: Vec<Playing>,
}

/// A watch session that plays.
struct Playing {
    /// The newest fact, without what only its own message tells.
    fact: WatchFact,
    /// When it came.
    since: Duration,
    /// What this takes of the live state.
    _permit: Permit,
}

impl Events {
    /// No events yet.
    #[must_use]
    pub(crate) fn new(context: Arc<room::Context>, session: SessionId, who: Who, address: Address) -> Self {
        let attention = (!who.is_bot).then(|| context.registry.attention(&who.visitor));
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
            page: None,
            playing: Vec::new(),
        }
    }

    /// A page was seen.
    ///
    /// # Errors
    /// The `ref` does not rise, or the journal is full; nothing has changed.
    pub(crate) fn page_view(&mut self, reference: Ref, view: PageView) -> Result<(), Refusal> {
        self.check_rising(reference)?;
        let path = view.path.shared();
        let fact = PageViewFact::new(self.who.clone(), view, self.context.clock.wall())
            .map_err(|problem| refuse(problem.code, problem.message, reference))?;
        self.append(reference, Event::PageView(fact))?;
        self.look_at(&path);
        Ok(())
    }

    /// The page is listed in the live activity, unless there is no room for it.
    fn look_at(&mut self, path: &Arc<str>) {
        let Some(attention) = &mut self.attention else { return };
        attention.look_away();
        self.page = None;
        let bytes = VisitorActivity::bytes(path);
        self.page = self.context.live_state.try_hold(self.address, bytes as u64).ok();
        if self.page.is_some() {
            attention.look_at(path);
        } else {
            self.context.rejections.limited(Limit::LiveState);
        }
    }

    /// The state of a watch session.
    ///
    /// # Errors
    /// The `ref` does not rise, too much plays at once, or the journal is full; nothing has changed.
    pub(crate) fn watch(&mut self, reference: Ref, watch: Watch) -> Result<(), Refusal> {
        self.check_rising(reference)?;
        let (id, state, content) = (watch.id, watch.state, watch.content.shared());
        let others = self.playing.iter().filter(|playing| playing.fact.id() != id).count();
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
        self.playing.retain(|playing| playing.fact.id() != id);
        if let Some(attention) = &mut self.attention {
            attention.stop(id);
        }
        let socket = (self.address, self.session);
        if self.context.clocks.tell(socket, id, fact.state_at(), now) {
            self.play(fact.measurable(), &content, now);
        }
        Ok(())
    }

    /// A watch session plays on this socket: it is listed and measured, unless there is no room for it. Then it has the
    /// time that its client tells.
    fn play(&mut self, fact: WatchFact, content: &Arc<str>, now: Duration) {
        let id = fact.id();
        // The fact and the list may each have a text of their own.
        let bytes = size_of::<Playing>() + content.len() + VisitorActivity::bytes(content);
        let Ok(permit) = self.context.live_state.try_hold(self.address, bytes as u64) else {
            self.context.rejections.limited(Limit::LiveState);
            self.context.clocks.lose(self.session, id, now);
            return;
        };
        self.playing.push(Playing { fact, since: now, _permit: permit });
        if let Some(attention) = &mut self.attention {
            attention.play(id, content);
        }
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
            self.context.rejections.limited(full.into());
            refuse(ErrorCode::Overloaded, full.to_string(), reference)
        })?;
        self.last_ref = Some(reference);
        self.acks.queued(epoch, reference);
        Ok(())
    }

    /// Ready when an epoch is committed that may make an ack.
    pub(crate) fn poll_commit(&mut self, cx: &mut Context<'_>) -> Poll<Epoch> {
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
    pub(crate) fn committed(&mut self, epoch: Epoch) -> Option<Ref> {
        self.commit = None;
        self.acks.committed(epoch)
    }
}

impl Drop for Events {
    /// What played on the socket no longer does, and how long it did is kept.
    fn drop(&mut self) {
        let now = self.context.clock.elapsed();
        for Playing { fact, since, .. } in self.playing.drain(..) {
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
