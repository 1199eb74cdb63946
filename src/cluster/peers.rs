//! The other nodes: what is known of each, and what follows from a message or from silence.
//!
//! Pure: the time comes with each call, and what is to be done is returned as a list of actions. A peer's deltas are
//! applied in order and without a gap, and its digests must agree with what was applied. If not, this node asks that peer
//! for its whole share, which goes into a slot of its own and then replaces the one before. A peer that is silent is
//! held, and later ends. No node passes on what another one said.

use std::collections::BTreeMap;

use super::namesake::Namesake;
use super::status::{NodeState, NodeStatus, SILENCE_MS};
use super::update::{Body, Digest, Header, Heard, Update};
use crate::history::log::status::RecordsAt;
use crate::presence::HoldReason;
use crate::presence::share::{Change, HeldSince, ShareSum, Slot};
use crate::presence::stamp::Stamp;
use crate::protocol::Time;

/// The time after its last message, in ms, until which the visitors of a silent peer are held.
pub(crate) const LOST_MS: u64 = 15_000;

/// The time, in ms, after which an answer is asked for again.
const ASK_AGAIN_MS: u64 = 1_000;

/// The time, in ms, after which a peer that is not heard is forgotten.
const FORGET_MS: u64 = 3_600_000;

/// The most peers. Further ones are ignored.
const MOST_PEERS: usize = 256;

/// The earlier runs of a peer that are known.
const MOST_PAST: usize = 8;

/// What follows from a message or from silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Apply changes to a share. With `is_replay` they are a part of a whole share, of persons who were counted before.
    Apply {
        /// The share.
        slot: Slot,
        /// The changes.
        changes: Vec<Change>,
        /// Whether they are a part of a whole share.
        is_replay: bool,
    },
    /// Hold the visitors of a share until a deadline.
    Lose(Slot, HeldSince),
    /// Remove the entries of a share whose hold has ended. [`Peers::swept`] takes when the next one ends.
    Sweep(Slot),
    /// Remove a share.
    Drop(Slot),
    /// Ask a node for its whole share.
    Ask {
        /// The name of the node.
        node: String,
        /// Its run.
        incarnation: u64,
    },
    /// Publish the whole share of this node.
    Answer,
}

/// When a message came, by this node's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The monotonic clock in ms.
    pub now: u64,
    /// The wall clock.
    pub wall: Time,
}

/// All peers.
#[derive(Debug)]
pub(crate) struct Peers {
    own: String,
    incarnation: u64,
    /// When this node heard itself last; before the first time, when it started.
    heard_self: u64,
    has_heard_self: bool,
    namesake: Namesake,
    by_name: BTreeMap<String, Peer>,
    last_slot: Slot,
    gaps: u64,
}

/// One other node.
#[derive(Debug)]
struct Peer {
    run: Run,
    /// Shares of former runs, and until when they hold.
    former: Vec<Former>,
    /// The last former runs, the newest one last.
    past: Vec<Past>,
}

/// A run that another one has replaced. What comes of it is late.
#[derive(Debug, Clone, Copy)]
struct Past {
    incarnation: u64,
    has_left: bool,
}

/// A share that holds until a deadline.
#[derive(Debug, Clone, Copy)]
struct Former {
    slot: Slot,
    ends: u64,
}

/// The newest run of a peer.
#[derive(Debug)]
struct Run {
    incarnation: u64,
    state: NodeState,
    slot: Slot,
    /// The number of the next delta for the share in `slot`.
    next: u64,
    /// Whether that share is what the peer has said so far.
    is_in_sync: bool,
    load: Option<Load>,
    asked: Option<u64>,
    heard: u64,
    stamp: Stamp,
    /// Until when the share holds, where the peer is silent or has left.
    ends: Option<u64>,
    digest: Option<Digest>,
    way: Way,
    lag: u64,
}

/// A whole share on its way.
#[derive(Debug)]
struct Load {
    slot: Slot,
    /// The last delta that is in the share.
    seq: u64,
    next: u64,
    parts: Vec<bool>,
    count: Option<u32>,
}

impl Load {
    fn is_complete(&self) -> bool {
        self.count
            .is_some_and(|count| self.parts.len() == count as usize && self.parts.iter().all(|part| *part))
    }

    /// Notes a part. Returns whether it is a new one.
    fn note(&mut self, index: u32, is_last: bool) -> bool {
        if is_last {
            self.count = Some(index + 1);
        }
        let index = index as usize;
        if self.parts.len() <= index {
            self.parts.resize(index + 1, false);
        }
        self.parts.get_mut(index).is_some_and(|part| !std::mem::replace(part, true))
    }
}

/// The most parts of a whole share: of more visitors than a node can have.
const MOST_PARTS: u32 = 100_000;

impl Peers {
    /// No peers yet.
    pub(crate) fn new(own: String, incarnation: u64, now: u64) -> Self {
        Self {
            own,
            incarnation,
            heard_self: now,
            has_heard_self: false,
            namesake: Namesake::default(),
            by_name: BTreeMap::new(),
            last_slot: Slot::default(),
            gaps: 0,
        }
    }

    /// Whether this node does not hear itself.
    pub(crate) fn is_alone(&self, now: u64) -> bool {
        !self.has_heard_self || now.saturating_sub(self.heard_self) >= SILENCE_MS
    }

    /// The time since this node heard itself, or since its start, in ms.
    pub(crate) fn unheard_ms(&self, now: u64) -> u64 {
        now.saturating_sub(self.heard_self)
    }

    /// Whether another node has this one's name.
    pub(crate) fn has_namesake(&self, now: u64) -> bool {
        self.namesake.is_there(now)
    }

    /// Deltas that were missed.
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Whether a peer is missing that has not left: what it has seen of this node's visitors is unknown.
    pub(crate) fn has_missing(&self) -> bool {
        self.by_name.values().any(|peer| matches!(peer.run.state, NodeState::Silent | NodeState::Lost))
    }

    /// The peers that are heard, with the last delta of each that was applied.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        let heard = self.by_name.iter().filter(|(_, peer)| peer.run.state.is_heard());
        heard
            .map(|(node, Peer { run, .. })| Heard {
                node: node.clone(),
                incarnation: run.incarnation,
                seq: run.next.saturating_sub(1),
            })
            .collect()
    }

    /// How long the last message of a peer took, beyond the fastest one, in ms.
    pub(crate) fn lag_of(&self, node: &str) -> Option<u64> {
        self.by_name.get(node).map(|peer| peer.run.lag)
    }

    /// What the records of the files of the peers that are heard add up to.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&str, Option<&RecordsAt>)> {
        let heard = self.by_name.iter().filter(|(_, peer)| peer.run.state.is_heard());
        heard.map(|(node, peer)| (node.as_str(), peer.run.digest.as_ref().and_then(|it| it.records.as_ref())))
    }

    /// All peers, for the status.
    pub(crate) fn statuses(&self, now: u64) -> impl Iterator<Item = NodeStatus> {
        self.by_name.iter().map(move |(name, Peer { run, .. })| {
            let digest = run.digest.as_ref();
            NodeStatus {
                name: name.clone(),
                is_self: false,
                version: digest.map_or_else(String::new, |digest| digest.version.clone()),
                since: digest.map_or_else(|| Time::from_millis(0), |digest| digest.started),
                people: digest.map_or(0, |digest| digest.people),
                sockets: digest.map_or(0, |digest| digest.sockets),
                heard_ms: now.saturating_sub(run.heard),
                lag_ms: run.lag,
                skew_ms: -run.way.fastest(),
                log: digest.and_then(|digest| digest.log),
                differs: false,
                state: run.state,
            }
        })
    }

    /// Takes a message. `sum` is what was applied to a share so far; none where some
    /// of it was refused.
    pub(crate) fn receive(
        &mut self,
        update: Update,
        moment: Moment,
        sum: impl Fn(Slot) -> Option<ShareSum>,
    ) -> Vec<Action> {
        let Update { from, body } = update;
        if let Body::Ask { node, incarnation } = &body
            && (node, incarnation) == (&self.own, &self.incarnation)
            && from.node != self.own
        {
            return vec![Action::Answer];
        }
        if from.node == self.own {
            if from.incarnation == self.incarnation {
                (self.heard_self, self.has_heard_self) = (moment.now, true);
            } else {
                self.namesake.hear(from.incarnation, matches!(body, Body::Bye { .. }), moment.now);
            }
            return Vec::new();
        }
        if !self.by_name.contains_key(&from.node) && self.by_name.len() >= MOST_PEERS {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if !self.follow_run(&from, moment.now, &mut actions) {
            return actions;
        }
        let load_slot = self.load_slot(&from, &body);
        let Some(Peer { run, .. }) = self.by_name.get_mut(&from.node) else { return actions };
        run.hear(&from, moment);
        match body {
            Body::Delta(changes) => {
                self.gaps += u64::from(run.delta(from.seq, changes, &mut actions));
            }
            Body::Part { index, is_last, changes } => {
                if let Some(slot) = load_slot {
                    run.load.take().inspect(|load| actions.push(Action::Drop(load.slot)));
                    let (seq, next) = (from.seq, from.seq.saturating_add(1));
                    run.load = Some(Load { slot, seq, next, parts: Vec::new(), count: None });
                }
                run.part(from.seq, index, is_last, changes, &mut actions);
                if run.load.is_some() {
                    run.asked = Some(moment.now); // the answer is on its way
                }
            }
            Body::Digest(digest) => {
                self.gaps += u64::from(run.check(from.seq, digest.share, sum));
                run.digest = Some(digest);
            }
            Body::Ask { .. } => {}
            Body::Bye { hold_ms } => run.leave(from.stamp, moment.now.saturating_add(hold_ms), &mut actions),
        }
        if run.state == NodeState::Syncing && run.may_ask(moment.now) {
            run.asked = Some(moment.now);
            actions.push(Action::Ask { node: from.node, incarnation: from.incarnation });
        }
        actions
    }

    /// What follows from the time that has passed. Call it a few times in a second.
    pub(crate) fn tick(&mut self, now: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for (node, Peer { run, former, .. }) in &mut self.by_name {
            let unheard = now.saturating_sub(run.heard);
            if run.state.is_heard() && unheard >= SILENCE_MS {
                run.fall_silent(&mut actions);
            }
            if run.state == NodeState::Silent && unheard >= LOST_MS {
                run.state = NodeState::Lost;
            }
            if run.state == NodeState::Syncing && run.may_ask(now) {
                run.asked = Some(now);
                actions.push(Action::Ask { node: node.clone(), incarnation: run.incarnation });
            }
            let ended = run.ends.filter(|ends| *ends <= now).map(|_| run.slot);
            let former = former.iter().filter(|former| former.ends <= now).map(|former| former.slot);
            actions.extend(former.chain(ended).map(Action::Sweep));
        }
        self.by_name.retain(|_, peer| {
            let is_over = !peer.run.state.is_heard() && peer.run.ends.is_none() && peer.former.is_empty();
            !(is_over && now.saturating_sub(peer.run.heard) >= FORGET_MS)
        });
        actions
    }

    /// Notes when the next entry of a share ends that was swept; none where no entry is left.
    pub(crate) fn swept(&mut self, slot: Slot, next: Option<u64>) {
        for Peer { run, former, .. } in self.by_name.values_mut() {
            if run.slot == slot && run.ends.is_some() {
                run.ends = next;
            }
            former.retain(|former| former.slot != slot || next.is_some());
            for former in former.iter_mut().filter(|former| former.slot == slot) {
                former.ends = next.unwrap_or(former.ends);
            }
        }
    }

    /// Makes the run of the message the newest one of its peer, where it is. Returns whether the message is of the newest
    /// run.
    fn follow_run(&mut self, from: &Header, now: u64, actions: &mut Vec<Action>) -> bool {
        let slot = match self.by_name.get(&from.node) {
            Some(Peer { run, .. }) if run.incarnation == from.incarnation => {
                return run.state != NodeState::Left;
            }
            Some(peer) if peer.is_late(from.incarnation, now) => return false,
            _ => self.next_slot(),
        };
        let run = Run::new(from, slot, now);
        match self.by_name.get_mut(&from.node) {
            None => {
                self.by_name.insert(from.node.clone(), Peer { run, former: Vec::new(), past: Vec::new() });
            }
            Some(peer) => {
                let mut before = std::mem::replace(&mut peer.run, run);
                peer.note_past(&before, from.incarnation);
                if before.state.is_heard() {
                    before.fall_silent(actions);
                }
                peer.former.extend(before.ends.map(|ends| Former { slot: before.slot, ends }));
            }
        }
        true
    }

    /// The slot of a whole share that begins with this message.
    fn load_slot(&mut self, from: &Header, body: &Body) -> Option<Slot> {
        let Body::Part { index: 0, .. } = body else { return None };
        let run = &self.by_name.get(&from.node)?.run;
        let is_known = run.load.as_ref().is_some_and(|load| load.seq == from.seq);
        (!run.is_in_sync && !is_known).then(|| self.next_slot())
    }

    fn next_slot(&mut self) -> Slot {
        let used = |slot: Slot| {
            self.by_name.values().any(|Peer { run, former, .. }| {
                run.slot == slot
                    || run.load.as_ref().is_some_and(|load| load.slot == slot)
                    || former.iter().any(|former| former.slot == slot)
            })
        };
        let mut slot = self.last_slot;
        loop {
            slot = Slot(slot.0.checked_add(1).unwrap_or(1));
            if !used(slot) {
                self.last_slot = slot;
                return slot;
            }
        }
    }
}

impl Peer {
    /// Whether a message of another run than the newest one comes late. Numbers of runs have no order. A run that was
    /// not heard of before is the newest one. If it is not, since its message came late, it falls silent, and the run
    /// that goes on is followed again.
    fn is_late(&self, incarnation: u64, now: u64) -> bool {
        let is_silent = now.saturating_sub(self.run.heard) >= SILENCE_MS;
        let past = self.past.iter().find(|past| past.incarnation == incarnation);
        past.is_some_and(|past| past.has_left || !is_silent)
    }

    /// Notes that a run has replaced this one.
    fn note_past(&mut self, before: &Run, incarnation: u64) {
        self.past.retain(|past| past.incarnation != incarnation);
        if self.past.len() == MOST_PAST {
            self.past.remove(0);
        }
        self.past.push(Past { incarnation: before.incarnation, has_left: before.state == NodeState::Left });
    }
}

impl Run {
    fn new(from: &Header, slot: Slot, now: u64) -> Self {
        Self {
            incarnation: from.incarnation,
            state: NodeState::Syncing,
            slot,
            next: 1,
            is_in_sync: true, // a new run has an empty share until its first delta
            load: None,
            asked: None,
            heard: now,
            stamp: from.stamp,
            ends: None,
            digest: None,
            way: Way::default(),
            lag: 0,
        }
    }

    fn hear(&mut self, from: &Header, moment: Moment) {
        self.heard = moment.now;
        self.stamp = self.stamp.max(from.stamp);
        if !self.state.is_heard() {
            // What was held here in the meantime is not the share any more.
            self.state = NodeState::Syncing;
            self.is_in_sync = false;
            self.asked = None;
        }
        self.lag = self.way.note(difference(moment.wall, from.sent), moment.now);
    }

    /// Applies a delta, or drops one that came before. Returns whether one was missed.
    fn delta(&mut self, seq: u64, changes: Vec<Change>, actions: &mut Vec<Action>) -> bool {
        if self.is_in_sync {
            if seq == self.next {
                self.next = self.next.saturating_add(1);
                actions.push(Action::Apply { slot: self.slot, changes, is_replay: false });
            }
            self.is_in_sync = seq < self.next;
            if !self.is_in_sync {
                self.state = NodeState::Syncing;
            }
            return !self.is_in_sync;
        }
        if let Some(load) = &mut self.load {
            if seq == load.next {
                load.next = load.next.saturating_add(1);
                actions.push(Action::Apply { slot: load.slot, changes, is_replay: false });
            } else if seq > load.next {
                actions.push(Action::Drop(load.slot));
                self.load = None;
                return true;
            }
        }
        false
    }

    /// Applies a part of the whole share, which replaces the share when it is complete.
    fn part(&mut self, seq: u64, index: u32, is_last: bool, changes: Vec<Change>, actions: &mut Vec<Action>) {
        let Some(load) = self.load.as_mut().filter(|load| load.seq == seq && index < MOST_PARTS) else {
            return;
        };
        if load.note(index, is_last) {
            actions.push(Action::Apply { slot: load.slot, changes, is_replay: true });
        }
        if load.is_complete() {
            actions.push(Action::Drop(self.slot));
            (self.slot, self.next) = (load.slot, load.next);
            (self.is_in_sync, self.load, self.ends) = (true, None, None);
            self.state = NodeState::Live;
            self.asked = None;
        }
    }

    /// Compares the share with a digest. Returns whether a delta was missed.
    fn check(&mut self, seq: u64, share: ShareSum, sum: impl Fn(Slot) -> Option<ShareSum>) -> bool {
        if !self.is_in_sync || seq.saturating_add(1) < self.next {
            return false;
        }
        let is_missing = seq >= self.next;
        self.is_in_sync = !is_missing && sum(self.slot).is_none_or(|applied| applied == share);
        self.state = if self.is_in_sync { NodeState::Live } else { NodeState::Syncing };
        is_missing
    }

    fn may_ask(&self, now: u64) -> bool {
        !self.is_in_sync && self.asked.is_none_or(|asked| now.saturating_sub(asked) >= ASK_AGAIN_MS)
    }

    /// Holds the share until 15 s after the last message.
    fn fall_silent(&mut self, actions: &mut Vec<Action>) {
        self.state = NodeState::Silent;
        self.hold(HoldReason::PeerLost, self.stamp, self.heard + LOST_MS, actions);
    }

    fn leave(&mut self, stamp: Stamp, until: u64, actions: &mut Vec<Action>) {
        self.state = NodeState::Left;
        self.hold(HoldReason::Restart, stamp, until, actions);
    }

    fn hold(&mut self, reason: HoldReason, began: Stamp, until: u64, actions: &mut Vec<Action>) {
        self.load.take().inspect(|load| actions.push(Action::Drop(load.slot)));
        self.is_in_sync = false;
        // Entries that are held already, since the peer was silent before, keep their deadline.
        if self.ends.is_none() {
            actions.push(Action::Lose(self.slot, HeldSince { began, reason, until }));
            self.ends = Some(until);
        }
    }
}

/// How long messages take from wall clock to wall clock, in ms: the way, less what the clock of the peer is ahead. The
/// fastest one of the last minute or two is taken for the difference of the clocks.
#[derive(Debug, Default)]
struct Way {
    began: u64,
    before: Option<i64>,
    current: Option<i64>,
}

impl Way {
    const WINDOW_MS: u64 = 60_000;

    /// Notes a message. Returns how much longer than the fastest one it took.
    fn note(&mut self, way: i64, now: u64) -> u64 {
        if now.saturating_sub(self.began) >= Self::WINDOW_MS {
            (self.began, self.before) = (now, self.current.take());
        }
        self.current = Some(self.current.map_or(way, |current| current.min(way)));
        u64::try_from(way.saturating_sub(self.fastest())).unwrap_or_default()
    }

    fn fastest(&self) -> i64 {
        self.before.into_iter().chain(self.current).min().unwrap_or_default()
    }
}

/// One wall time without another, in ms.
fn difference(a: Time, b: Time) -> i64 {
    let millis = |time: Time| i64::try_from(time.millis()).unwrap_or(i64::MAX);
    millis(a).saturating_sub(millis(b))
}

#[cfg(test)]
mod tests;
