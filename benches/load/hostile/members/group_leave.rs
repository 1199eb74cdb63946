//! Group leave: 20 members of a room leave at the same time, with 1000, while a state is unread in their sockets.
//!
//! First the 20 stop reading and another member leaves, so that a state is unread in their sockets. When the observer,
//! the room's first member, has it, all 20 close at once; the time is measured until the observer has their leaves.
//! The hub must see each close: a member that it treats as lost counts until the end of the leave grace.

use std::time::{Duration, Instant};

use super::{IN_A_ROOM, MOOD_ROOMS, Members, ROOMS};
use crate::Outcome;
use crate::figure::millis;
use crate::snapshot;

/// The interval of the groups. A group waits until the one before is back.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Members that leave at the same time.
const GROUP: usize = 20;
/// The longest wait for the observer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A group of one room that is leaving.
pub(super) struct GroupLeave {
    room: usize,
    /// The member that leaves first, and those that leave at once.
    first: usize,
    group: Vec<usize>,
    /// Whether the group has left.
    has_left: bool,
    since: Instant,
}

impl Members {
    /// Starts with a group of the next room, where all its members are welcomed.
    pub(super) fn start_group_leave(&mut self) -> Outcome {
        if self.leaving.is_some() {
            return Ok(());
        }
        self.groups += 1;
        let room = MOOD_ROOMS + self.groups % (ROOMS - MOOD_ROOMS);
        let all = room * IN_A_ROOM..(room + 1) * IN_A_ROOM;
        if !self.state.members[all.clone()].iter().all(|member| member.is_welcomed) {
            return Ok(());
        }
        // The first member of the room is the observer and stays.
        let mut leavers = all.skip(1).map(|index| (index * 31 + self.groups * 7, index)).collect::<Vec<_>>();
        leavers.sort_by_key(|(order, _)| order % 47);
        let mut leavers = leavers.into_iter().map(|(_, index)| index).take(1 + GROUP);
        let Some(first) = leavers.next() else { return Ok(()) };
        let group: Vec<_> = leavers.collect();
        for index in &group {
            if let Some(socket) = self.state.members[*index].socket {
                self.swarm.stop_reading(socket)?;
            }
        }
        self.take_socket(first).map_or(Ok(()), |socket| self.swarm.leave(socket))?;
        self.leaving = Some(GroupLeave { room, first, group, has_left: false, since: Instant::now() });
        Ok(())
    }

    /// Takes the next step of the group where the observer has the last one.
    pub(super) fn continue_group_leave(&mut self) -> Outcome {
        let Some(leaving) = &self.leaving else { return Ok(()) };
        let left = 1 + if leaving.has_left { leaving.group.len() } else { 0 };
        let present = snapshot::present(&self.state.members[leaving.room * IN_A_ROOM].last);
        let has_step = present.is_some_and(|present| present as usize <= IN_A_ROOM - left);
        let waited = leaving.since.elapsed();
        if !has_step && waited < TIMEOUT {
            return Ok(());
        }
        let Some(mut leaving) = self.leaving.take() else { return Ok(()) };
        if leaving.has_left {
            self.state.leaves.push(millis(waited));
            return self.rejoin_group(leaving);
        }
        for index in &leaving.group {
            self.take_socket(*index).map_or(Ok(()), |socket| self.swarm.leave_unread(socket))?;
        }
        (leaving.has_left, leaving.since) = (true, Instant::now());
        self.leaving = Some(leaving);
        Ok(())
    }

    /// Ends without a measurement: the members of the group join again.
    pub(super) fn stop_group_leave(&mut self) -> Outcome {
        let Some(leaving) = self.leaving.take() else { return Ok(()) };
        if !leaving.has_left {
            // They have stopped reading and need new sockets.
            for index in &leaving.group {
                self.take_socket(*index).map_or(Ok(()), |socket| self.swarm.leave_unread(socket))?;
            }
        }
        self.rejoin_group(leaving)
    }

    fn rejoin_group(&mut self, leaving: GroupLeave) -> Outcome {
        self.rejoin(leaving.first)?;
        leaving.group.into_iter().try_for_each(|index| self.rejoin(index))
    }

    fn take_socket(&mut self, index: usize) -> Option<usize> {
        let member = &mut self.state.members[index];
        member.is_welcomed = false;
        member.socket.take()
    }
}
