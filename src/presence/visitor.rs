//! One visitor in one room: sessions, mood, hold, sit, and the sockets that get the visitor's own mood.
//!
//! Pure, and small: a room has one for each visitor. What only some visitors have is in a box.

use tokio::time::Instant;

use super::broadcast::SubscriberId;
use super::hold::{Deadline, Hold, HoldReason, PermittedSit, Sit, SitOutcome};
use crate::protocol::Mood;
use crate::transport::SitPermit;

/// One visitor in one room.
#[derive(Debug, Default)]
pub(crate) struct VisitorState {
    /// Open sessions.
    pub sessions: u32,
    /// The mood in this room.
    pub mood: Option<Mood>,
    /// When the visitor entered, in milliseconds of the monotonic clock.
    pub entered_ms: u64,
    followers: Followers,
    /// None for most visitors.
    lasting: Option<Box<Lasting>>,
}

/// What may last longer than the last session.
#[derive(Debug, Default)]
struct Lasting {
    /// Applies after the last session has ended.
    hold: Option<Hold>,
    sit: Option<PermittedSit>,
    /// Whether the sit applies after the last session has ended.
    sit_holds: bool,
}

/// The sockets that get what is set of the visitor. Most visitors have one at most.
#[derive(Debug, Default)]
enum Followers {
    #[default]
    None,
    One(SubscriberId),
    #[expect(clippy::box_collection, reason = "a pointer, because most visitors have none")]
    Many(Box<Vec<SubscriberId>>),
}

impl VisitorState {
    /// A visitor without a session. `hold` is why they are present: a hold for a sit is the sit itself.
    pub(super) fn held(mood: Option<Mood>, hold: Hold, sit: Option<PermittedSit>) -> Self {
        let sit_holds = sit.is_some() && hold.reason == HoldReason::Sit;
        let lasting = Lasting { hold: Some(hold).filter(|_| !sit_holds), sit, sit_holds };
        Self {
            sessions: 0,
            mood,
            entered_ms: 0,
            followers: Followers::None,
            lasting: Some(Box::new(lasting)),
        }
    }

    /// The same visitor, who entered at this time.
    pub(super) fn entered_at(self, entered_ms: u64) -> Self {
        Self { entered_ms, ..self }
    }

    /// The hold of a visitor without a session. Of a hold and a sit the later one applies.
    pub(crate) fn hold(&self) -> Option<Hold> {
        let Lasting { hold, sit, sit_holds } = self.lasting.as_deref()?;
        let sit = sit.as_ref().filter(|_| *sit_holds).map(|sit| Hold::from(sit.sit));
        let hold = hold.map_or(sit, |hold| Some(hold.or_later(sit)));
        hold.filter(|_| self.sessions == 0)
    }

    /// The hold of a visitor without a session, apart from the sit.
    pub(crate) fn session_hold(&self) -> Option<Hold> {
        self.lasting.as_ref().filter(|_| self.sessions == 0)?.hold
    }

    /// Whether a sit applies without a session: if it is lost now, or has been.
    pub(crate) fn sit_holds(&self) -> bool {
        self.sessions > 0 || self.lasting.as_ref().is_some_and(|lasting| lasting.sit_holds)
    }

    /// The visitor's sit.
    pub(crate) fn sit(&self) -> Option<Sit> {
        self.permitted_sit().map(|permitted| permitted.sit)
    }

    /// The permit of the visitor's sit.
    pub(super) fn sit_permit(&self) -> Option<&SitPermit> {
        self.permitted_sit()?.permit.as_ref()
    }

    fn permitted_sit(&self) -> Option<&PermittedSit> {
        self.lasting.as_ref()?.sit.as_ref()
    }

    /// When something of the visitor ends next, without a change before.
    pub(super) fn next_deadline(&self) -> Option<Deadline> {
        let (hold, sit) = (self.hold(), self.sit().map(|sit| sit.deadline));
        let at = hold.map(|hold| hold.deadline).into_iter().chain(sit).min()?;
        Some(Deadline { at, held: hold.map(|hold| hold.reason) })
    }

    pub(super) fn is_gone(&self) -> bool {
        self.sessions == 0 && self.hold().is_none()
    }

    pub(super) fn begin_session(&mut self) {
        self.sessions += 1;
        if self.lasting.is_some() {
            self.change_lasting(|lasting| lasting.hold = None);
        }
    }

    /// Ends a session, which may leave a hold. Of two holds the later one applies. If it was the last session, this is
    /// what becomes of the sit.
    pub(super) fn end_session(&mut self, hold: Option<Hold>, outcome: SitOutcome) {
        self.sessions = self.sessions.saturating_sub(1);
        let is_last = self.sessions == 0;
        self.change_lasting(|lasting| {
            lasting.hold = hold.map_or(lasting.hold, |hold| Some(hold.or_later(lasting.hold)));
            lasting.sit_holds = outcome == SitOutcome::Holds;
            lasting.sit.take_if(|_| is_last && outcome == SitOutcome::Ends);
        });
    }

    /// Sets the sit, or ends it. The last one that is set applies.
    pub(super) fn set_sit(&mut self, sit: Option<PermittedSit>) {
        self.change_lasting(|lasting| {
            let old = lasting.sit.take().and_then(|old| old.permit);
            lasting.sit =
                sit.map(|PermittedSit { sit, permit }| PermittedSit { sit, permit: permit.or(old) });
        });
    }

    /// Ends the hold and the sit.
    pub(super) fn release(&mut self) {
        self.lasting = None;
    }

    /// Ends the hold if its deadline has passed.
    pub(super) fn expire_hold(&mut self, now: Instant) {
        if self.lasting.is_some() {
            self.change_lasting(|lasting| _ = lasting.hold.take_if(|hold| hold.has_expired(now)));
        }
    }

    /// Ends the sit if its deadline has passed. Returns whether it has.
    pub(super) fn complete_sit(&mut self, now: Instant) -> bool {
        let is_complete = self.sit().is_some_and(|sit| sit.deadline <= now);
        if is_complete {
            self.set_sit(None);
        }
        is_complete
    }

    /// Changes what may last, which takes memory only while there is something.
    fn change_lasting(&mut self, change: impl FnOnce(&mut Lasting)) {
        let mut lasting = self.lasting.take().unwrap_or_default();
        change(&mut lasting);
        self.lasting = Some(lasting).filter(|lasting| lasting.hold.is_some() || lasting.sit.is_some());
    }

    /// Adds a socket that gets what is set of the visitor.
    pub(super) fn follow(&mut self, socket: SubscriberId) {
        self.followers = match std::mem::take(&mut self.followers) {
            Followers::None => Followers::One(socket),
            Followers::One(first) => Followers::Many(Box::new(vec![first, socket])),
            Followers::Many(mut all) => {
                all.push(socket);
                Followers::Many(all)
            }
        };
    }

    /// Removes such a socket.
    pub(super) fn unfollow(&mut self, socket: SubscriberId) {
        match &mut self.followers {
            Followers::One(only) if *only == socket => self.followers = Followers::None,
            Followers::None | Followers::One(_) => {}
            Followers::Many(all) => all.retain(|other| *other != socket),
        }
    }

    /// The sockets that get what is set of the visitor.
    pub(super) fn followers(&self) -> &[SubscriberId] {
        match &self.followers {
            Followers::None => &[],
            Followers::One(only) => std::slice::from_ref(only),
            Followers::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_visitor_takes_40_bytes() {
        assert!(size_of::<VisitorState>() <= 40, "{} bytes", size_of::<VisitorState>());
    }
}
