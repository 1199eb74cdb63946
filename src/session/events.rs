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
use crate::protocol::{ErrorCode, MessageError, PageView, Ref, SessionId, Time, Watch, WatchState};
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
    activity: Option<VisitorActivity>,
    acks: Acks,
    /// Ready when the next ack is due.
    commit: Option<Pin<Box<dyn Future<Output = Epoch> + Send>>>,
    last_ref: Option<Ref>,
    last_watch: Time,
    /// What its page takes of the live state, where it is listed.
    page: Option<Permit>,
    /// The watch sessions that play on this socket, and are measured.
    playing: Vec<PlayingSession>,
}

/// A watch session that plays.
struct PlayingSession {
    /// The newest event, without what only its own message tells.
    event: WatchFact,
    /// When it came.
    since: Duration,
    /// What this takes of the live state.
    _permit: Permit,
}

impl Events {
    /// No events yet.
    #[must_use]
    pub(crate) fn new(context: Arc<room::Context>, session: SessionId, who: Who, address: Address) -> Self {
        let activity = (!who.is_bot).then(|| context.registry.visitor_activity(&who.visitor));
        Self {
            context,
            session,
            who,
            address,
            activity,
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
    pub(crate) fn page_view(&mut self, reference: Ref, view: PageView) -> Result<(), MessageError> {
        self.check_rising(reference)?;
        let path = view.path.shared();
        let event = PageViewFact::new(self.who.clone(), view, self.context.clock.wall())
            .map_err(|problem| refuse(problem.code, problem.message, reference))?;
        self.append(reference, Event::PageView(event))?;
        self.list_page(&path);
        Ok(())
    }

    /// The page is listed in the live activity, unless there is no room for it.
    fn list_page(&mut self, path: &Arc<str>) {
        let Some(activity) = &mut self.activity else { return };
        activity.clear_page();
        self.page = None;
        let bytes = VisitorActivity::entry_bytes(path);
        self.page = self.context.live_state.try_acquire(self.address, bytes as u64).ok();
        if self.page.is_some() {
            activity.set_page(path);
        } else {
            self.context.rejections.limited(Limit::LiveState);
        }
    }

    /// The state of a watch session.
    ///
    /// # Errors
    /// The `ref` does not rise, too much plays at once, or the journal is full; nothing has changed.
    pub(crate) fn watch(&mut self, reference: Ref, watch: Watch) -> Result<(), MessageError> {
        self.check_rising(reference)?;
        let (id, state, content) = (watch.id, watch.state, watch.content.shared());
        let others = self.playing.iter().filter(|playing| playing.event.id() != id).count();
        if state == WatchState::Playing && others >= PLAYING_LIMIT {
            let rule = format!("state: at most {PLAYING_LIMIT} watch sessions may play at once");
            return Err(refuse(ErrorCode::BadField, rule, reference));
        }
        // Two messages in one millisecond still have an order.
        self.last_watch = self.context.clock.wall().max(self.last_watch.plus(1));
        let now = self.context.clock.elapsed();
        let event = WatchFact::new(self.who.clone(), watch, self.last_watch)
            .map_err(|problem| refuse(problem.code, problem.message, reference))?
            .measured(self.context.clocks.total(id, now), Duration::ZERO);
        self.append(reference, Event::Watch(event.clone()))?;
        self.playing.retain(|playing| playing.event.id() != id);
        if let Some(activity) = &mut self.activity {
            activity.stop_watching(id);
        }
        let socket = (self.address, self.session);
        if self.context.clocks.update(socket, id, event.state_at(), now) {
            self.play(event.measurable(), &content, now);
        }
        Ok(())
    }

    /// A watch session plays on this socket: it is listed and measured, unless there is no room for it. Then it has the
    /// time that its client tells.
    fn play(&mut self, event: WatchFact, content: &Arc<str>, now: Duration) {
        let id = event.id();
        // The event and the list may each have a text of their own.
        let bytes = size_of::<PlayingSession>() + content.len() + VisitorActivity::entry_bytes(content);
        let Ok(permit) = self.context.live_state.try_acquire(self.address, bytes as u64) else {
            self.context.rejections.limited(Limit::LiveState);
            self.context.clocks.disconnect(self.session, id, now);
            return;
        };
        self.playing.push(PlayingSession { event, since: now, _permit: permit });
        if let Some(activity) = &mut self.activity {
            activity.start_watching(id, content);
        }
    }

    fn check_rising(&self, reference: Ref) -> Result<(), MessageError> {
        match self.last_ref {
            Some(last) if reference <= last => {
                let rule = format!("ref: must rise; the last one on this socket was {last}");
                Err(refuse(ErrorCode::BadField, rule, reference))
            }
            _ => Ok(()),
        }
    }

    /// Queues the event. Only events that were taken use up their `ref`.
    fn append(&mut self, reference: Ref, event: Event) -> Result<(), MessageError> {
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
        for PlayingSession { event, since, .. } in self.playing.drain(..) {
            if let Some(total) = self.context.clocks.disconnect(self.session, event.id(), now) {
                let event = event.measured(total, now.saturating_sub(since));
                self.context.journal.append_measured(Event::Watch(event));
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

fn refuse(code: ErrorCode, message: String, reference: Ref) -> MessageError {
    MessageError { code, message, reference: Some(reference) }
}
