//! Tests of the peers: gaps, digests, whole shares, silence, goodbyes and new runs.
//!
//! The time is passed in.

use super::*;
use crate::presence::share::{Entry, PersonKey};
use crate::protocol::RoomId;

const SECOND: u64 = 1_000;

/// Peers, and what was applied to each share.
struct Node {
    peers: Peers,
    now: u64,
    sums: BTreeMap<Slot, ShareSum>,
}

impl Node {
    fn new() -> Self {
        Self { peers: Peers::new("me".to_owned(), 1, 0), now: 0, sums: BTreeMap::new() }
    }

    fn receive(&mut self, update: Update) -> Vec<Action> {
        let moment = Moment { now: self.now, wall: Time::from_millis(1_000_000 + self.now) };
        let sums = &self.sums;
        let sum = |slot| Some(sums.get(&slot).copied().unwrap_or_default());
        let actions = self.peers.receive(update, moment, sum);
        self.apply(&actions);
        actions
    }

    fn pass(&mut self, millis: u64) -> Vec<Action> {
        self.now += millis;
        let actions = self.peers.tick(self.now);
        self.apply(&actions);
        actions
    }

    fn apply(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Apply { slot, changes, .. } => {
                    let sum = self.sums.entry(*slot).or_default();
                    for change in changes {
                        sum.replace(None, Some(change.person.0));
                    }
                }
                Action::Drop(slot) => drop(self.sums.remove(slot)),
                _ => {}
            }
        }
    }

    fn state(&self, node: &str) -> NodeState {
        self.peers.statuses(self.now).find(|status| status.name == node).unwrap().state
    }
}

/// Another node, as it publishes.
struct Other {
    incarnation: u64,
    seq: u64,
    now: u64,
    share: ShareSum,
}

impl Other {
    fn new(incarnation: u64) -> Self {
        Self { incarnation, seq: 0, now: 0, share: ShareSum::default() }
    }

    fn update(&self, seq: u64, body: Body) -> Update {
        let stamp = Stamp::at(Time::from_millis(1_000_000 + self.now));
        let sent = Time::from_millis(1_000_000 + self.now);
        Update {
            from: Header { node: "b".to_owned(), incarnation: self.incarnation, seq, stamp, sent },
            body,
        }
    }

    fn change(person: u64) -> Change {
        let entry = Some(Entry::joined(Stamp::from_bits(person)));
        Change { room: RoomId::try_from("lobby").unwrap(), person: PersonKey(person), entry }
    }

    fn delta(&mut self, person: u64) -> Update {
        self.seq += 1;
        self.share.replace(None, Some(person));
        self.update(self.seq, Body::Delta(vec![Self::change(person)]))
    }

    fn digest(&self) -> Update {
        let digest = Digest {
            share: self.share,
            people: self.share.entries,
            sockets: 0,
            started: Time::from_millis(0),
            version: "1".to_owned(),
            heard: Vec::new(),
            log: None,
            records: None,
        };
        self.update(self.seq, Body::Digest(digest))
    }

    fn part(&self, index: u32, is_last: bool, persons: &[u64]) -> Update {
        let changes = persons.iter().map(|person| Self::change(*person)).collect();
        self.update(self.seq, Body::Part { index, is_last, changes })
    }
}

fn asks(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Ask { .. })).count()
}

fn applied(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Apply { .. })).count()
}

#[test]
fn deltas_of_a_new_node_are_applied_in_order_and_repeated_ones_are_not() {
    let (mut node, mut b) = (Node::new(), Other::new(1));
    let (first, second) = (b.delta(1), b.delta(2));
    assert_eq!((applied(&node.receive(first.clone())), applied(&node.receive(second))), (1, 1));
    assert_eq!(node.receive(first), []);
    assert_eq!(asks(&node.receive(b.digest())), 0);
    assert_eq!(node.state("b"), NodeState::Live);
}

#[test]
fn gap_makes_the_node_ask_until_the_whole_share_is_there() {
    let (mut node, mut b) = (Node::new(), Other::new(1));
    node.receive(b.delta(1));
    drop(b.delta(2)); // lost
    assert_eq!(asks(&node.receive(b.delta(3))), 1);
    assert_eq!((node.state("b"), node.peers.gaps()), (NodeState::Syncing, 1));
    assert_eq!(asks(&node.pass(SECOND / 2)), 0, "not again at once");
    assert_eq!(asks(&node.pass(SECOND / 2)), 1);

    let (first, last) = (b.part(0, false, &[1, 2]), b.part(1, true, &[3]));
    assert_eq!(applied(&node.receive(first.clone())), 1);
    assert_eq!(applied(&node.receive(first)), 0, "a part that is repeated");
    assert_eq!(applied(&node.receive(b.delta(4))), 1, "a delta between the parts");
    let actions = node.receive(last);
    assert!(matches!(actions[..], [Action::Apply { is_replay: true, .. }, Action::Drop(_)]), "{actions:?}");
    assert_eq!(node.state("b"), NodeState::Live);
    assert_eq!(asks(&node.receive(b.digest())), 0, "it is the share of the peer");
    assert_eq!(applied(&node.receive(b.delta(5))), 1);
}

#[test]
fn delta_that_is_missed_while_the_share_arrives_makes_the_node_ask_again() {
    let (mut node, mut b) = (Node::new(), Other::new(1));
    drop(b.delta(1));
    assert_eq!(asks(&node.receive(b.digest())), 1);
    node.receive(b.part(0, false, &[1]));
    drop(b.delta(2)); // lost
    let actions = node.receive(b.delta(3));
    assert!(matches!(actions[..], [Action::Drop(_)]), "{actions:?}");
    assert_eq!(asks(&node.pass(SECOND)), 1);
}

#[test]
fn wrong_digest_makes_the_node_ask() {
    let (mut node, mut b) = (Node::new(), Other::new(1));
    node.receive(b.delta(1));
    node.receive(b.digest());
    b.share.replace(None, Some(77));
    assert_eq!(asks(&node.receive(b.digest())), 1);
    assert_eq!(node.state("b"), NodeState::Syncing);
}

#[test]
fn silent_node_is_held_until_15_s_after_its_last_message_and_then_lost() {
    let (mut node, mut b) = (Node::new(), Other::new(1));
    node.receive(b.delta(1));
    assert_eq!(node.pass(SILENCE_MS - 1), []);
    let actions = node.pass(1);
    let [Action::Lose(slot, held)] = actions[..] else { panic!("{actions:?}") };
    assert_eq!((held.reason, held.until), (HoldReason::PeerLost, LOST_MS));
    assert_eq!(held.began, Stamp::at(Time::from_millis(1_000_000)), "the last stamp of the node");
    assert_eq!((node.state("b"), node.peers.has_missing()), (NodeState::Silent, true));
    assert_eq!(node.pass(LOST_MS - SILENCE_MS - 1), []);
    assert_eq!(node.pass(1), [Action::Sweep(slot)]);
    assert_eq!(node.state("b"), NodeState::Lost);
    node.peers.swept(slot, Some(20_000)); // a sit goes on
    assert_eq!(node.pass(4_999), []);
    assert_eq!(node.pass(1), [Action::Sweep(slot)]);
    node.peers.swept(slot, None);
    assert_eq!(node.pass(FORGET_MS), []);
    assert_eq!(node.peers.statuses(node.now).count(), 0, "forgotten");
}

#[test]
fn node_that_returns_is_asked_for_its_share_and_its_holds_stay_until_then() {
    let (mut node, mut b) = (Node::new(), Other::new(1));
    node.receive(b.delta(1));
    let actions = node.pass(5 * SECOND);
    let [Action::Lose(held, _)] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(asks(&node.receive(b.digest())), 1);
    assert_eq!(node.state("b"), NodeState::Syncing);
    let actions = node.receive(b.part(0, true, &[1]));
    let [Action::Apply { slot, is_replay: true, .. }, Action::Drop(dropped)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(*dropped, held);
    assert_ne!(*slot, held);
    assert_eq!(node.pass(2 * SECOND), []);
}

#[test]
fn node_that_says_goodbye_is_held_for_its_seat_hold_and_is_not_missing() {
    let (mut node, mut b) = (Node::new(), Other::new(1));
    node.receive(b.delta(1));
    let actions = node.receive(b.update(1, Body::Bye { hold_ms: 9_000 }));
    assert!(
        matches!(actions[..], [Action::Lose(_, HeldSince { reason: HoldReason::Restart, until: 9_000, .. })]),
        "{actions:?}"
    );
    assert_eq!((node.state("b"), node.peers.has_missing()), (NodeState::Left, false));
    assert_eq!(node.receive(b.digest()), [], "a message that comes late");
    assert_eq!(node.pass(8_999), []);
    assert!(matches!(node.pass(1)[..], [Action::Sweep(_)]));
}

#[test]
fn new_run_of_a_node_does_not_end_the_holds_of_the_one_before() {
    for says_bye in [true, false] {
        let (mut node, mut b) = (Node::new(), Other::new(1));
        node.receive(b.delta(1));
        if says_bye {
            node.receive(b.update(1, Body::Bye { hold_ms: 9_000 }));
        }
        node.now += SECOND;
        let mut again = Other::new(2);
        let actions = node.receive(again.digest());
        assert_eq!(actions.len(), usize::from(!says_bye), "held since it was heard no more: {actions:?}");
        assert_eq!(node.state("b"), NodeState::Live, "its share is empty");
        assert_eq!(applied(&node.receive(again.delta(1))), 1);
        assert_eq!(node.receive(b.delta(2)), [], "a late message of the run before");
        node.receive(again.digest());
        let mut swept = Vec::new();
        for _ in 0..15 {
            node.receive(again.digest());
            swept.extend(node.pass(SECOND));
        }
        assert!(swept.iter().all(|action| matches!(action, Action::Sweep(_))), "{swept:?}");
        assert!(!swept.is_empty());
    }
}

#[test]
fn node_is_alone_until_it_hears_itself_and_after_3_s_without_that() {
    let mut node = Node::new();
    assert!(node.peers.is_alone(0));
    let own = |incarnation| {
        let mut update = Other::new(incarnation).digest();
        update.from.node = "me".to_owned();
        update
    };
    node.receive(own(1));
    assert!(!node.peers.is_alone(2_999));
    assert!(node.peers.is_alone(3_000));
}

#[test]
fn node_that_hears_its_own_name_from_another_run_has_a_namesake() {
    let mut node = Node::new();
    let own = |incarnation, body| {
        let mut update = Other::new(incarnation).update(0, body);
        update.from.node = "me".to_owned();
        update
    };
    for _ in 0..6 {
        assert!(!node.peers.has_namesake(node.now));
        node.receive(own(1, Body::Bye { hold_ms: 0 })); // its own
        node.receive(own(2, Body::Delta(Vec::new())));
        node.now += SECOND;
    }
    assert!(node.peers.has_namesake(node.now));
    assert_eq!(node.peers.statuses(node.now).count(), 0, "it is no peer");
    node.receive(own(2, Body::Bye { hold_ms: 0 }));
    assert!(!node.peers.has_namesake(node.now));
}

#[test]
fn new_run_is_followed_at_once_whatever_its_number() {
    for says_bye in [true, false] {
        let (mut node, mut b) = (Node::new(), Other::new(9));
        node.receive(b.delta(1));
        if says_bye {
            node.receive(b.update(1, Body::Bye { hold_ms: 9_000 }));
        }
        let mut again = Other::new(3);
        again.now = b.now.saturating_sub(10 * SECOND); // by its wall clock it began before
        assert_eq!(applied(&node.receive(again.delta(1))), 1);
        node.receive(again.digest());
        assert_eq!(node.state("b"), NodeState::Live);
        node.now += 2_999;
        node.receive(again.digest());
        assert_eq!(node.receive(b.digest()), [], "the run before");
        node.now += 20 * SECOND;
        let late = node.receive(b.digest());
        assert_eq!(late.is_empty(), says_bye, "after a goodbye a run does not come back: {late:?}");
    }
}

#[test]
fn run_that_goes_on_is_followed_again_after_a_late_message_of_an_unknown_one() {
    let (mut node, mut b, unknown) = (Node::new(), Other::new(9), Other::new(3));
    node.receive(b.delta(1));
    node.receive(b.digest());
    node.receive(unknown.digest());
    assert_eq!(node.receive(b.delta(2)), []);
    node.pass(SILENCE_MS);
    let actions = node.receive(b.digest());
    assert_eq!(asks(&actions), 1, "{actions:?}");
    node.receive(b.part(0, true, &[1, 2]));
    assert_eq!((node.state("b"), applied(&node.receive(b.delta(3)))), (NodeState::Live, 1));
}

#[test]
fn earlier_runs_of_a_node_are_bounded() {
    let mut node = Node::new();
    for run in 1..1_000 {
        node.receive(Other::new(run).digest());
    }
    assert_eq!(node.peers.by_name["b"].past.len(), MOST_PAST);
}

#[test]
fn question_for_this_run_of_this_node_is_answered() {
    let mut node = Node::new();
    let ask =
        |node: &str, incarnation| Other::new(1).update(0, Body::Ask { node: node.to_owned(), incarnation });
    assert_eq!(node.receive(ask("me", 1)), [Action::Answer]);
    assert_eq!(node.receive(ask("me", 2)), []);
    assert_eq!(node.receive(ask("c", 1)), []);
}

#[test]
fn skew_of_a_clock_is_no_lag() {
    let (mut node, mut b) = (Node::new(), Other::new(1));
    b.now = 30_000; // 30 s ahead
    node.receive(b.delta(1));
    b.now += 100;
    node.now += 140;
    node.receive(b.delta(2));
    let status = node.peers.statuses(node.now).next().unwrap();
    assert_eq!((status.skew_ms, status.lag_ms), (30_000, 40));
}
