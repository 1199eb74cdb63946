//! The model of the simulation: what one person in one room is, by what happened to them.
//!
//! Naive on purpose: sockets, holds with deadlines, a mood and a sit, without nodes that have to agree.

use super::GRACE;

/// A person in the model.
#[derive(Debug, Clone, Default)]
pub(super) struct Person {
    /// The node of each socket.
    pub(super) sockets: Vec<usize>,
    pub(super) holds: Vec<PersonHold>,
    /// After a kill: until when the person counts for sure, and until when they may count.
    pub(super) killed: Option<(u64, u64)>,
    pub(super) mood: Option<&'static str>,
    /// The end of the sit.
    pub(super) sit: Option<u64>,
    /// Whether a node has stopped since the sit was set, so that not all nodes may know it.
    pub(super) is_sit_unsure: bool,
}

/// A hold in the model: the node, and its deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct PersonHold {
    pub(super) node: usize,
    pub(super) until: u64,
    /// It is for a sit, and ends with a leave on another node.
    pub(super) is_sit: bool,
}

impl Person {
    pub(super) fn counts(&self, now: u64) -> bool {
        !self.sockets.is_empty()
            || self.holds.iter().any(|hold| hold.until > now)
            || self.killed.is_some_and(|(sure, _)| sure > now)
    }

    pub(super) fn may_count(&self, now: u64) -> bool {
        self.counts(now) || self.killed.is_some_and(|(_, until)| until > now)
    }

    pub(super) fn is_killed(&mut self, sure: u64, until: u64) {
        let (before_sure, before) = self.killed.unwrap_or_default();
        self.killed = Some((sure.max(before_sure), until.max(before)));
    }

    pub(super) fn sit(&self, now: u64) -> Option<u64> {
        self.sit.filter(|until| *until > now)
    }

    /// The last socket on a node is lost, or another one: the hold is the later one of the grace and the sit.
    pub(super) fn is_lost(&mut self, node: usize, now: u64) {
        let grace = now + GRACE;
        self.holds.push(PersonHold { node, until: grace, is_sit: false });
        let Some(until) = self.sit(now).filter(|_| !self.sockets.contains(&node)) else { return };
        if self.is_sit_unsure {
            self.is_killed(0, until + 1_000);
        } else if until > grace {
            self.holds.push(PersonHold { node, until, is_sit: true });
        }
    }

    /// A socket on a node is left. If it was the last one there, that ends the holds for a sit on all nodes.
    pub(super) fn has_left(&mut self, node: usize, now: u64) {
        if self.sockets.contains(&node) {
            return;
        }
        if self.holds.iter().any(|hold| hold.node == node) {
            // The leave ends the sit, and the grace of another socket goes on.
            self.holds.retain(|hold| !hold.is_sit);
            self.sit = None;
        } else {
            let of_sits: Vec<_> =
                self.holds.iter().filter(|hold| hold.is_sit).map(|hold| hold.node).collect();
            self.holds.retain(|hold| !of_sits.contains(&hold.node));
            self.sit.take_if(|_| self.sockets.is_empty() && self.holds.is_empty());
        }
        if self.is_sit_unsure {
            self.is_killed(0, self.sit(now).map_or(0, |until| until + 1_000));
        }
    }

    /// A node stops or dies: whether the others know the sit for as long as it goes on is not certain any more.
    pub(super) fn loses_node(&mut self, now: u64) {
        if let Some(until) = self.sit(now) {
            self.is_killed(0, until + 1_000);
            self.is_sit_unsure = true;
        }
    }
}
