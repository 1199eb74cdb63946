//! This node's share of one room: it follows what the visitors do here, and takes over what was set elsewhere.
//!
//! Pure. After each step of a room's state, the entry of that visitor is made from it again: a change gets a stamp. What
//! another node knows later holds here too: the mood and the sit that were set last, and a join that ends a hold.

use std::time::Duration;

use tokio::time::Instant;

use super::hold::{PermittedSit, Sit};
use super::share::{Away, Entry, HeldSince, PersonKey, SitRegister, SitState};
use super::stamp::Stamp;
use super::state::{OccupancyChange, RoomState};
use super::union::UnionStep;
use crate::protocol::VisitorId;

/// How much, in ms, two readings of one deadline may differ.
const SAME_MS: u64 = 2;

/// The clocks of one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// This node's stamp of the step.
    pub stamp: Stamp,
    /// The monotonic clock in ms, by which shares have deadlines.
    pub elapsed: u64,
    /// The same moment, by which a room's state has deadlines.
    pub instant: Instant,
}

impl Now {
    fn elapsed_at(&self, moment: Instant) -> u64 {
        let left = moment.saturating_duration_since(self.instant).as_millis();
        self.elapsed.saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
    }

    fn instant_at(&self, elapsed: u64) -> Instant {
        let left = Duration::from_millis(elapsed.saturating_sub(self.elapsed));
        self.instant.checked_add(left).unwrap_or(self.instant)
    }
}

impl RoomState {
    /// Brings the entry of a visitor up to date, after a step of theirs. `since` is given for a visitor of the run of the
    /// hub before this one: the moment from which on they are held. Returns none if nothing has changed.
    pub(super) fn sync(
        &mut self,
        id: &VisitorId,
        person: PersonKey,
        since: Option<Stamp>,
        now: &Now,
    ) -> Option<UnionStep> {
        let hints = std::mem::take(&mut self.union.as_deref_mut()?.hints);
        let old = self.union.as_deref()?.own(person).map(|own| own.entry.clone());
        let (sessions, lasting, sit, mood) =
            self.visitors.get(id).map_or((0, None, None, None), |v| (v.sessions, v.hold(), v.sit(), v.mood));
        let is_here = sessions > 0 || lasting.is_some();
        let began = since.unwrap_or(now.stamp);
        let mut entry = match &old {
            Some(old) if old.gone().is_none() || !is_here => old.clone(),
            // Another visit: what was set in the one before is over.
            _ if is_here => Entry::joined(began),
            _ => return None,
        };
        if hints.joined {
            entry.set_last_joined(now.stamp);
        }
        if hints.mood || (since.is_some() && mood.is_some()) {
            (entry.mood, entry.mood_at) = (mood, began);
        }
        if sessions > 0 {
            entry.set_away(None);
        } else if let Some(hold) = lasting {
            let (before, until) = (entry.held(), now.elapsed_at(hold.deadline));
            let is_same =
                |held: &HeldSince| held.reason == hold.reason && held.until.abs_diff(until) <= SAME_MS;
            if !before.as_ref().is_some_and(is_same) {
                let began = before.map_or(began, |held| held.began);
                let since = HeldSince { began, reason: hold.reason, until };
                entry.set_away(Some(Away::Held(since)));
            }
        } else if entry.gone().is_none() {
            entry.set_away(Some(Away::Gone(now.stamp)));
        }
        match (sit, entry.sit().map(|register| register.sit)) {
            (Some(sit), Some(SitState::Running { shown, .. })) if shown == sit.until => {}
            (Some(sit), _) => {
                let (until, shown) = (now.elapsed_at(sit.deadline), sit.until);
                entry.set_sit(Some(SitRegister { at: began, sit: SitState::Running { until, shown } }));
            }
            (None, Some(SitState::Running { until, .. })) if until <= now.elapsed + SAME_MS => {
                entry.set_sit(Some(SitRegister { at: now.stamp, sit: SitState::Completed }));
            }
            // A leave ends the sit only where no other node has the visitor, which is seen from the entries.
            (None, Some(SitState::Running { .. })) if is_here => {
                entry.set_sit(Some(SitRegister { at: now.stamp, sit: SitState::Ended }));
            }
            (None, _) => {}
        }
        if !hints.adopted && old.as_ref() == Some(&entry) {
            return None;
        }
        entry.changed = now.stamp;
        Some(self.union.as_deref_mut()?.put_own(person, id, Some(entry)))
    }

    /// Takes over what other nodes know later of a visitor who is here. [`sync`](Self::sync) follows.
    pub(super) fn reconcile(&mut self, id: &VisitorId, person: PersonKey, now: &Now) -> OccupancyChange {
        let Some(union) = self.union.as_deref_mut() else { return OccupancyChange::Unchanged };
        let (registers, is_overridden) = (union.registers(person), union.is_overridden(person));
        let Some(own) = union.own_mut(person).filter(|own| own.entry.gone().is_none()) else {
            return OccupancyChange::Unchanged;
        };
        let entry = &mut own.entry;
        let takes_mood = (registers.mood_at, registers.mood) != (entry.mood_at, entry.mood);
        if takes_mood {
            (entry.mood, entry.mood_at) = (registers.mood, registers.mood_at);
        }
        let takes_sit = registers.sit != entry.sit();
        if takes_sit {
            entry.set_sit(registers.sit);
        }
        union.hints.adopted = takes_mood || takes_sit;
        let adopted = union.hints;
        if takes_mood {
            self.set_mood(id, registers.mood);
        }
        let mut change = OccupancyChange::Unchanged;
        if takes_sit {
            let sit = match registers.sit.map(|register| register.sit) {
                Some(SitState::Running { until, shown }) => {
                    Some(Sit { deadline: now.instant_at(until), until: shown, latest: None })
                }
                Some(SitState::Completed | SitState::Ended) | None => None,
            };
            // The node of the visitor's socket counts the sit.
            let sit = sit.map(|sit| PermittedSit { sit, permit: None });
            change = self.set_sit(id, sit, now.instant);
        }
        if is_overridden && change == OccupancyChange::Unchanged {
            change = self.release(id, now.instant);
        }
        if let Some(union) = &mut self.union {
            union.hints = adopted; // what was taken over was not set here
        }
        change
    }
}
