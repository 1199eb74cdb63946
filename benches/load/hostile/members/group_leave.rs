//! Twenty members of a room who leave at the same moment, with 1000, while a state of the room is unread in their sockets.
//!
//! First one of the room leaves in the ordinary way, so that the others have something to read, which the twenty no longer
//! do. When the first member of the room was told, all twenty close at once, and the time is taken until that member
//! is told of all of them. One that the hub takes for lost is counted until the leave grace is over.

use std::time::{Duration, Instant};

use super::{Good, IN_A_ROOM, LOOKED_AT, ROOMS};
use crate::Outcome;
use crate::figure::millis;
use crate::snapshot;

/// A group begins to leave this often, if the one before is back.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// How many leave at the same moment.
const GROUP: usize = 20;
/// Whoever is counted for longer will always be.
const PATIENCE: Duration = Duration::from_secs(30);

/// A group that is leaving. All of it are in one room.
pub(super) struct Leaving {
    room: usize,
    /// The one who leaves before the others, and then who leave at once.
    first: usize,
    group: Vec<usize>,
    /// Whether the group has left.
    has_left: bool,
    since: Instant,
}

impl Good {
    /// A group of the next room begins to leave, where all are there.
    pub(super) fn begin_to_leave(&mut self) -> Outcome {
        if self.leaving.is_some() {
            return Ok(());
        }
        self.groups += 1;
        let room = LOOKED_AT + self.groups % (ROOMS - LOOKED_AT);
        let all = room * IN_A_ROOM..(room + 1) * IN_A_ROOM;
        if !self.people.members[all.clone()].iter().all(|member| member.is_welcomed) {
            return Ok(());
        }
        // The first member of the room stays, and is the one who looks.
        let mut leavers = all.skip(1).map(|who| (who * 31 + self.groups * 7, who)).collect::<Vec<_>>();
        leavers.sort_by_key(|(order, _)| order % 47);
        let mut leavers = leavers.into_iter().map(|(_, who)| who).take(1 + GROUP);
        let Some(first) = leavers.next() else { return Ok(()) };
        let group: Vec<_> = leavers.collect();
        for who in &group {
            if let Some(socket) = self.people.members[*who].socket {
                self.swarm.stop_reading(socket)?;
            }
        }
        self.take_socket(first).map_or(Ok(()), |socket| self.swarm.leave(socket))?;
        self.leaving = Some(Leaving { room, first, group, has_left: false, since: Instant::now() });
        Ok(())
    }

    /// Looks what the one who stays was told, and goes on with the group.
    pub(super) fn go_on_leaving(&mut self) -> Outcome {
        let Some(leaving) = &self.leaving else { return Ok(()) };
        let gone = 1 + if leaving.has_left { leaving.group.len() } else { 0 };
        let told = snapshot::present(&self.people.members[leaving.room * IN_A_ROOM].last);
        let is_told = told.is_some_and(|present| present as usize <= IN_A_ROOM - gone);
        let waited = leaving.since.elapsed();
        if !is_told && waited < PATIENCE {
            return Ok(());
        }
        let Some(mut leaving) = self.leaving.take() else { return Ok(()) };
        if leaving.has_left {
            self.people.leaves.push(millis(waited));
            return self.bring_back(leaving);
        }
        for who in &leaving.group {
            self.take_socket(*who).map_or(Ok(()), |socket| self.swarm.leave_unread(socket))?;
        }
        (leaving.has_left, leaving.since) = (true, Instant::now());
        self.leaving = Some(leaving);
        Ok(())
    }

    /// Nobody looks any more: whoever has left, or was about to, comes back.
    pub(super) fn stop_leaving(&mut self) -> Outcome {
        let Some(leaving) = self.leaving.take() else { return Ok(()) };
        if !leaving.has_left {
            // They read nothing any more, so they need other sockets.
            for who in &leaving.group {
                self.take_socket(*who).map_or(Ok(()), |socket| self.swarm.leave_unread(socket))?;
            }
        }
        self.bring_back(leaving)
    }

    fn bring_back(&mut self, leaving: Leaving) -> Outcome {
        self.come_back(leaving.first)?;
        leaving.group.into_iter().try_for_each(|who| self.come_back(who))
    }

    fn take_socket(&mut self, who: usize) -> Option<usize> {
        let member = &mut self.people.members[who];
        member.is_welcomed = false;
        member.socket.take()
    }
}
