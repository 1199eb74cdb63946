//! The events of a session: appends them to the journal, and acknowledges them after their commit.
//!
//! The first event creates this state; the end of the session drops it, which stops the watch sessions that play on
//! its socket. It does not know the socket.

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::context::SessionContext;
use super::watch_clock::ClockKey;
use crate::address::Address;
use crate::history::Epoch;
use crate::history::event::{Actor, Event, Mergeable, PageViewEvent, WatchEvent, ahead_ms};
use crate::presence::VisitorActivity;
use crate::protocol::{ErrorCode, MessageError, PageView, Ref, SessionId, Time, Watch, WatchState};
use crate::quota::Permit;
use crate::rejections::Limit;

/// The most watch sessions that may play at once on one socket.
const PLAYING_LIMIT: usize = 16;

/// The events of one session.
pub(crate) struct Events {
    context: Arc<SessionContext>,
    session: SessionId,
    actor: Actor,
    address: Address,
    /// None for bots: the live activity does not list them.
    activity: Option<VisitorActivity>,
    acks: Acks,
    /// Ready at the commit that [`Acks`] waits for.
    commit: Option<Pin<Box<dyn Future<Output = Epoch> + Send>>>,
    last_ref: Option<Ref>,
    last_watch: Time,
    /// The quota that the current page takes of the live state; none where the page is not listed.
    page: Option<Permit>,
    /// The watch sessions that play on this socket and that the hub measures.
    playing: Vec<PlayingSession>,
}

/// A watch session that plays and is measured.
struct PlayingSession {
    /// The newest event, without the fields that only its own message sets.
    event: WatchEvent,
    clock: ClockKey,
    /// When the event arrived, by the monotonic clock.
    since: Duration,
    /// The quota that this takes of the live state.
    _permit: Permit,
}

impl Events {
    /// The state of a session without events.
    pub(crate) fn new(
        context: Arc<SessionContext>,
        session: SessionId,
        actor: Actor,
        address: Address,
    ) -> Self {
        let activity = (!actor.is_bot).then(|| context.registry.visitor_activity(&actor.visitor));
        Self {
            context,
            session,
            actor,
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

    /// Appends a page view and lists the page in the live activity.
    /// Errors: the `ref` does not rise, or the journal is full. Nothing changes then.
    pub(crate) fn page_view(&mut self, reference: Ref, view: PageView) -> Result<(), MessageError> {
        self.check_rising(reference)?;
        let path = view.path.shared();
        let arrived = self.context.clock.wall();
        let is_ahead = ahead_ms(view.at, arrived) > 0;
        let event = PageViewEvent::new(self.actor.clone(), view, arrived)
            .map_err(|error| reject(error.code, error.message, reference))?;
        self.append(reference, Event::PageView(event), is_ahead)?;
        self.list_page(&path);
        Ok(())
    }

    /// Lists the page in the live activity, unless the quota of live state is used up.
    fn list_page(&mut self, path: &Arc<str>) {
        let Some(activity) = &mut self.activity else { return };
        activity.clear_page();
        self.page = None;
        let bytes = VisitorActivity::entry_bytes(path);
        self.page = self.context.live_state.try_acquire(self.address, bytes as u64).ok();
        if self.page.is_some() {
            activity.set_page(path);
        } else {
            self.context.rejections.count_limit(Limit::LiveState);
        }
    }

    /// Appends the state of a watch session, and starts or stops its clock.
    /// Errors: the `ref` does not rise, too many watch sessions play, or the journal is full. Nothing changes then.
    pub(crate) fn watch(&mut self, reference: Ref, watch: Watch) -> Result<(), MessageError> {
        self.check_rising(reference)?;
        let (id, state, content) = (watch.id, watch.state, watch.content.shared());
        let others = self.playing.iter().filter(|playing| playing.event.id() != id).count();
        if state == WatchState::Playing && others >= PLAYING_LIMIT {
            let rule = format!("state: at most {PLAYING_LIMIT} watch sessions may play at once");
            return Err(reject(ErrorCode::BadField, rule, reference));
        }
        // Keeps the order of two messages in one millisecond.
        self.last_watch = self.context.clock.wall().max(self.last_watch.plus(1));
        let now = self.context.clock.elapsed();
        let is_ahead = ahead_ms(watch.at, self.last_watch) > 0;
        let clock = ClockKey::new(id, &self.actor);
        let event = WatchEvent::new(self.actor.clone(), watch, self.last_watch)
            .map_err(|error| reject(error.code, error.message, reference))?
            .measured(self.context.clocks.total(clock, now), Duration::ZERO);
        self.append(reference, Event::Watch(event.clone()), is_ahead)?;
        self.playing.retain(|playing| playing.event.id() != id);
        if let Some(activity) = &mut self.activity {
            activity.stop_watching(id);
        }
        let socket = (self.address, self.session);
        if self.context.clocks.update(socket, clock, event.state_at(), now) {
            self.play(event.measurable(), clock, &content, now);
        }
        Ok(())
    }

    /// Lists and measures a watch session that plays on this socket. Where the quota of live state is used up, the hub
    /// uses the time that the client reports instead.
    fn play(&mut self, event: WatchEvent, clock: ClockKey, content: &Arc<str>, now: Duration) {
        let id = event.id();
        // The event and the list may each have their own copy of the text.
        let bytes = size_of::<PlayingSession>() + content.len() + VisitorActivity::entry_bytes(content);
        let Ok(permit) = self.context.live_state.try_acquire(self.address, bytes as u64) else {
            self.context.rejections.count_limit(Limit::LiveState);
            self.context.clocks.disconnect(self.session, clock, now);
            return;
        };
        self.playing.push(PlayingSession { event, clock, since: now, _permit: permit });
        if let Some(activity) = &mut self.activity {
            activity.start_watching(id, content);
        }
    }

    fn check_rising(&self, reference: Ref) -> Result<(), MessageError> {
        match self.last_ref {
            Some(last) if reference <= last => {
                let rule = format!("ref: must rise; the last one on this socket was {last}");
                Err(reject(ErrorCode::BadField, rule, reference))
            }
            _ => Ok(()),
        }
    }

    /// Appends the event to the journal, and counts a time that was ahead. A rejected event does not use up its `ref`.
    fn append(&mut self, reference: Ref, event: Event, is_ahead: bool) -> Result<(), MessageError> {
        let epoch = self.context.journal.append(self.address, event).map_err(|full| {
            self.context.rejections.count_limit(full.into());
            reject(ErrorCode::Overloaded, full.to_string(), reference)
        })?;
        self.context.journal.count_ahead(is_ahead.into());
        self.last_ref = Some(reference);
        self.acks.add(epoch, reference);
        Ok(())
    }

    /// Ready when the next epoch with events of this session is committed.
    pub(crate) fn poll_commit(&mut self, cx: &mut Context<'_>) -> Poll<Epoch> {
        let Some(next) = self.acks.next_epoch() else { return Poll::Pending };
        let commit = self.commit.get_or_insert_with(|| {
            let mut committed = self.context.journal.committed();
            Box::pin(async move {
                let reached = committed.wait_for(|epoch| *epoch >= next).await.map(|epoch| *epoch);
                match reached {
                    Ok(epoch) => epoch,
                    Err(_) => pending().await, // the journal is closed, and the session ends soon
                }
            })
        });
        commit.as_mut().poll(cx)
    }

    /// Returns the newest `ref` that may be acked now that all epochs up to `epoch` are committed.
    pub(crate) fn committed(&mut self, epoch: Epoch) -> Option<Ref> {
        self.commit = None;
        self.acks.committed(epoch)
    }
}

impl Drop for Events {
    /// Stops the watch sessions that play on the socket, and appends their measured time.
    fn drop(&mut self) {
        let now = self.context.clock.elapsed();
        for PlayingSession { event, clock, since, .. } in self.playing.drain(..) {
            if let Some(total) = self.context.clocks.disconnect(self.session, clock, now) {
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

fn reject(code: ErrorCode, message: String, reference: Ref) -> MessageError {
    MessageError { code, message, reference: Some(reference) }
}

/// The newest `ref` of each epoch that is not committed.
///
/// At most two epochs of a socket's events are not committed at any time: the one that a flush writes, and the open
/// one. So two slots are enough for any number of events.
#[derive(Debug, Default)]
struct Acks {
    flushing: Option<(Epoch, Ref)>,
    open: Option<(Epoch, Ref)>,
}

impl Acks {
    /// Adds an event of `epoch`. Both arguments only rise.
    fn add(&mut self, epoch: Epoch, reference: Ref) {
        if self.open.is_some_and(|(open, _)| open < epoch) {
            self.flushing = self.open;
        }
        self.open = Some((epoch, reference));
    }

    /// The oldest epoch that is not committed.
    fn next_epoch(&self) -> Option<Epoch> {
        self.flushing.or(self.open).map(|(epoch, _)| epoch)
    }

    /// Removes the epochs up to `committed` and returns their newest `ref`.
    fn committed(&mut self, committed: Epoch) -> Option<Ref> {
        let flushing = self.flushing.take_if(|(epoch, _)| *epoch <= committed);
        let open = self.open.take_if(|(epoch, _)| *epoch <= committed);
        open.or(flushing).map(|(_, reference)| reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ClientMessage;

    fn reference(number: u64) -> Ref {
        let id = uuid::Uuid::nil();
        let text = format!(r#"{{"type":"page-view","ref":{number},"id":"{id}","path":"/"}}"#);
        let Ok(ClientMessage::PageView(reference, _)) = ClientMessage::parse(&text) else {
            panic!("no page view")
        };
        reference
    }

    #[test]
    fn ack_follows_the_commit_of_its_epoch_while_newer_events_arrive() {
        let (first, second) = (Epoch::default().next(), Epoch::default().next().next());
        let mut acks = Acks::default();
        assert_eq!(acks.next_epoch(), None);
        acks.add(first, reference(1));
        acks.add(first, reference(4));
        assert_eq!(acks.committed(Epoch::default()), None);
        acks.add(second, reference(9)); // during the commit of the first epoch
        assert_eq!(acks.next_epoch(), Some(first));
        assert_eq!(acks.committed(first), Some(reference(4)));
        assert_eq!(acks.next_epoch(), Some(second));
        assert_eq!(acks.committed(second), Some(reference(9)));
        assert_eq!((acks.next_epoch(), acks.committed(second)), (None, None));
    }

    #[test]
    fn one_commit_may_ack_two_epochs() {
        let (first, second) = (Epoch::default().next(), Epoch::default().next().next());
        let mut acks = Acks::default();
        acks.add(first, reference(1));
        acks.add(second, reference(2));
        assert_eq!(acks.committed(second), Some(reference(2)));
        assert_eq!(acks.next_epoch(), None);
    }
}
