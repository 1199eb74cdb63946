//! Property tests of the union: it does not depend on the order, the grouping and the repetition of updates, and what it
//! stores equals what a recount finds.

use proptest::prelude::*;

use super::*;
use crate::protocol::{Time, Vocabulary};

fn moods() -> Vocabulary {
    Vocabulary::parse("calm,joy,hope").unwrap()
}

fn stamp(at: u64) -> Stamp {
    Stamp::from_bits(at)
}

/// One state of an entry, with stamps up to a small number, so that there are ties.
fn entry() -> impl Strategy<Value = Entry> {
    let stamps = || 1..30_u64;
    let reason = prop_oneof![Just(HoldReason::Grace), Just(HoldReason::Restart), Just(HoldReason::Sit)];
    let away = prop_oneof![
        Just(None),
        (stamps(), reason, 0..30_u64).prop_map(|(began, reason, until)| Some(Away::Held(HeldSince {
            began: stamp(began),
            reason,
            until
        }))),
        stamps().prop_map(|at| Some(Away::Gone(stamp(at)))),
    ];
    let sit = prop_oneof![
        (0..30_u64).prop_map(|until| SitState::Running { until, shown: Time::from_millis(until) }),
        Just(SitState::Completed),
        Just(SitState::Ended)
    ];
    let sit = proptest::option::of((stamps(), sit));
    let mood = proptest::option::of((stamps(), proptest::option::of(0..3_usize)));
    (stamps(), away, sit, mood).prop_map(|(joined, away, sit, mood)| {
        let mut entry = Entry::joined(stamp(joined / 2));
        entry.set_last_joined(stamp(joined));
        entry.set_away(away);
        entry.set_sit(sit.map(|(at, sit)| SitRegister { at: stamp(at), sit }));
        if let Some((at, mood)) = mood {
            (entry.mood_at, entry.mood) =
                (stamp(at), mood.and_then(|mood| moods().find(["calm", "joy", "hope"][mood])));
        }
        entry
    })
}

/// What three nodes say of a few persons: the states of each entry in their order.
fn history() -> impl Strategy<Value = Vec<(PersonKey, Entry)>> {
    proptest::collection::vec((1..4_u16, 0..3_u64, entry()), 1..40).prop_map(|states| {
        let states = states.into_iter().zip(1..);
        states
            .map(|((slot, person, mut entry), at)| {
                (entry.slot, entry.changed) = (Slot(slot), stamp(at));
                (PersonKey(person), entry)
            })
            .collect()
    })
}

fn union(updates: impl IntoIterator<Item = (PersonKey, Entry)>) -> RoomUnion {
    let mut union = RoomUnion::new(1, moods().zero());
    for (person, entry) in updates {
        union.put(person, entry, false);
    }
    union
}

fn counts(union: &RoomUnion) -> (UnionCounts, Vec<Standing>) {
    (union.counts().clone(), (0..3).map(|person| union.standing(PersonKey(person))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn union_does_not_depend_on_order_grouping_and_repetition(
        history in history(),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..80),
        shuffled in Just(()).prop_perturb(|(), mut rng| rng.random::<u64>()),
    ) {
        let expected = counts(&union(history.clone()));
        // Some of them first, in any order and repeated, then all of them in another order.
        let mut updates: Vec<_> = order.iter().map(|index| index.get(&history).clone()).collect();
        let mut rest: Vec<_> = history.iter().enumerate().map(|(n, update)| {
            (shuffled.wrapping_mul(n as u64 * 2 + 1).rotate_left(17), update.clone())
        }).collect();
        rest.sort_by_key(|(key, _)| *key);
        updates.extend(rest.into_iter().map(|(_, update)| update));
        prop_assert_eq!(&counts(&union(updates)), &expected);
        // The whole shares, as they are at the end: entry by entry.
        let mut last: HashMap<(PersonKey, Slot), Entry> = HashMap::new();
        for (person, entry) in &history {
            last.insert((*person, entry.slot), entry.clone());
        }
        let whole = last.into_iter().map(|((person, _), entry)| (person, entry));
        prop_assert_eq!(&counts(&union(whole)), &expected);
    }

    #[test]
    fn stored_counts_equal_a_recount_and_seq_rises_with_each_change(history in history()) {
        let mut union = RoomUnion::new(1, moods().zero());
        let mut sum = crate::presence::share::ShareSum::default();
        for (number, (person, entry)) in history.iter().enumerate() {
            let slot = entry.slot;
            let before = (union.seq(), union.counts().present, union.counts().moods.clone(), union.standing(*person));
            let step = union.put(*person, entry.clone(), false);
            sum.replace(step.old, step.new);
            if number % 5 == 4 {
                let step = union.remove(*person, slot);
                sum.replace(step.old, step.new);
            }
            let after = (union.counts().present, union.counts().moods.clone());
            if after != (before.1, before.2) {
                prop_assert!(union.seq() > before.0);
            }
            let totals = union.totals().clone();
            let (stored, recounted) = union.recount(moods().zero());
            prop_assert_eq!(stored, recounted);
            prop_assert_eq!(&totals, union.totals());
        }
        for person in (0..3).map(PersonKey) {
            for slot in (1..4).map(Slot) {
                let step = union.remove(person, slot);
                sum.replace(step.old, step.new);
            }
        }
        prop_assert!(union.is_empty());
        prop_assert_eq!(union.totals(), &RoomTotals::default());
        prop_assert_eq!(sum, crate::presence::share::ShareSum::default());
        prop_assert_eq!(union.counts(), &UnionCounts::new(moods().zero()));
    }
}

const ANN: PersonKey = PersonKey(1);

fn present(slot: u16, joined: u64) -> Entry {
    let mut entry = Entry::joined(stamp(joined));
    entry.slot = Slot(slot);
    entry
}

fn held(slot: u16, joined: u64, began: u64) -> Entry {
    let mut entry = present(slot, joined);
    entry.set_away(Some(Away::Held(HeldSince { began: stamp(began), reason: HoldReason::Grace, until: 99 })));
    entry.changed = stamp(began);
    entry
}

fn gone(slot: u16, joined: u64, at: u64) -> Entry {
    let mut entry = present(slot, joined);
    entry.set_away(Some(Away::Gone(stamp(at))));
    entry.changed = stamp(at);
    entry
}

fn with_mood(mut entry: Entry, at: u64, mood: &str) -> Entry {
    (entry.mood, entry.mood_at) = (moods().find(mood), stamp(at));
    entry.changed = entry.changed.max(stamp(at));
    entry
}

fn of_ann(entries: impl IntoIterator<Item = Entry>) -> Standing {
    union(entries.into_iter().map(|entry| (ANN, entry))).standing(ANN)
}

#[test]
fn person_on_two_nodes_counts_once_with_the_mood_that_was_set_last() {
    let union = union([
        (ANN, with_mood(present(1, 1), 5, "calm")),
        (ANN, with_mood(present(2, 2), 4, "joy")),
        (PersonKey(2), present(2, 3)),
    ]);
    assert_eq!(union.counts().present, 2);
    assert_eq!(union.standing(ANN).mood, moods().find("calm"));
}

#[test]
fn hold_counts_unless_another_node_knows_a_later_join() {
    assert!(of_ann([held(1, 1, 5)]).counts);
    assert!(of_ann([held(1, 1, 5), gone(2, 3, 7)]).counts, "a leave of another session does not end a hold");
    assert!(!of_ann([held(1, 1, 5), gone(2, 6, 7)]).counts, "a join ends it, and then the person left");
    assert!(of_ann([held(1, 1, 5), held(2, 6, 7)]).counts);
    assert!(of_ann([held(1, 1, 5), present(2, 3)]).counts);
    assert!(!of_ann([held(1, 1, 5), present(2, 3)]).is_held);
}

#[test]
fn mood_of_an_earlier_visit_does_not_come_back_from_another_node() {
    let visit = with_mood(gone(1, 1, 5), 3, "joy");
    assert_eq!(of_ann([visit.clone(), present(2, 6)]).mood, None);
    assert_eq!(of_ann([visit, present(2, 4)]).mood, moods().find("joy"), "of the same visit it does");
    let hop = [with_mood(held(1, 1, 5), 3, "joy"), present(2, 6)];
    assert_eq!(of_ann(hop).mood, moods().find("joy"), "a hop to another node keeps the mood");
}

#[test]
fn mood_that_was_taken_over_after_its_visit_was_over_does_not_count() {
    let over = with_mood(gone(1, 1, 5), 3, "joy");
    let taken = with_mood(present(2, 6), 3, "joy");
    assert_eq!(of_ann([over.clone(), taken.clone()]).mood, None);
    assert_eq!(of_ann([taken.clone()]).mood, moods().find("joy"), "until it is known");
    let between = with_mood(present(3, 4), 3, "joy");
    assert_eq!(of_ann([over, taken, between]).mood, moods().find("joy"), "the visit went on elsewhere");
}

#[test]
fn silent_share_is_held_and_keeps_its_sits_and_holds() {
    let lost = HeldSince { began: stamp(9), reason: HoldReason::PeerLost, until: 50 };
    let mut sitting = present(1, 1);
    let sit = SitState::Running { until: 80, shown: Time::from_millis(80) };
    sitting.set_sit(Some(SitRegister { at: stamp(2), sit }));
    let mut union = union([(ANN, present(1, 1)), (PersonKey(2), sitting), (PersonKey(3), held(1, 1, 5))]);
    for person in union.persons_of(Slot(1)) {
        union.lose(person, Slot(1), lost);
    }
    let until = |person| union.entry_of(PersonKey(person), Slot(1)).unwrap().held().unwrap().until;
    assert_eq!([until(1), until(2), until(3)], [50, 80, 99]);
    assert_eq!((union.counts().present, union.counts().held), (3, 3));
}

#[test]
fn person_elsewhere_takes_48_bytes_in_a_table() {
    assert!(size_of::<(PersonKey, Elsewhere)>() <= 48, "{}", size_of::<(PersonKey, Elsewhere)>());
}

#[test]
fn leave_ends_a_hold_for_a_sit_on_another_node_and_no_other_hold() {
    let counts = |reason, left| {
        let (mut held, mut gone) = (Entry::joined(stamp(1)), Entry::joined(stamp(2)));
        held.set_away(Some(Away::Held(HeldSince { began: stamp(5), reason, until: 100 })));
        gone.set_away(Some(Away::Gone(stamp(left))));
        (held.slot, gone.slot) = (Slot(1), Slot(2));
        union([(ANN, held), (ANN, gone)]).counts().present
    };
    assert_eq!(counts(HoldReason::Sit, 6), 0, "the visitor left after the socket was lost");
    assert_eq!(counts(HoldReason::Sit, 4), 1, "the visitor left before");
    assert_eq!(counts(HoldReason::Grace, 6), 1);
}

#[test]
fn visitor_who_left_in_a_sit_is_remembered_until_its_end() {
    let mut union = union([]);
    let mut gone = Entry::joined(stamp(1));
    gone.set_away(Some(Away::Gone(stamp(2))));
    let sit = SitState::Running { until: 100, shown: Time::from_millis(100) };
    gone.set_sit(Some(SitRegister { at: stamp(1), sit }));
    union.put_own(ANN, &VisitorId::try_from("ann").unwrap(), Some(gone));
    assert!(!union.may_forget(ANN, 99), "a share of this node's last run may hold the visitor");
    assert!(union.may_forget(ANN, 100));
}

/// Ann: a node that died holds her for a sit, and she came and left on another node.
fn held_by_a_dead_node_and_left_on_another() -> RoomUnion {
    let (mut held, mut gone) = (Entry::joined(stamp(1)), Entry::joined(stamp(20)));
    let since = HeldSince { began: stamp(5), reason: HoldReason::PeerLost, until: 100 };
    held.set_away(Some(Away::Held(since)));
    gone.set_away(Some(Away::Gone(stamp(21))));
    (held.slot, gone.slot) = (Slot(1), Slot(2));
    union([(ANN, held), (ANN, gone)])
}

#[test]
fn visitor_who_left_does_not_come_back_when_the_second_node_stops_too() {
    let mut union = held_by_a_dead_node_and_left_on_another();
    let (_, next) = union.sweep(ANN, Slot(2), 50);
    assert_eq!((union.counts().present, next), (0, Some(100)));
    let (_, next) = union.sweep(ANN, Slot(1), 100);
    assert_eq!((union.counts().present, next), (0, None));
    assert_eq!(union.sweep(ANN, Slot(2), 100).1, None);
    assert!(union.is_empty());
}

#[test]
fn visitor_who_left_does_not_come_back_when_the_second_node_forgets_them() {
    let mut union = held_by_a_dead_node_and_left_on_another();
    union.remove(ANN, Slot(2));
    assert_eq!(union.counts().present, 0);
}

#[test]
fn mood_that_was_set_on_a_silent_node_before_the_visitor_came_here_counts_when_it_is_heard_again() {
    let (ann, joy) = (VisitorId::try_from("ann").unwrap(), moods().find("joy"));
    let mut union = union([(ANN, with_mood(present(1, 1), 2, "joy"))]);
    // She comes here, and the mood that is known of the other node is taken over.
    let mut own = Entry::joined(stamp(20));
    (own.mood, own.mood_at) = (joy, stamp(2));
    union.put_own(ANN, &ann, Some(own));
    let lost = HeldSince { began: stamp(9), reason: HoldReason::PeerLost, until: 50 };
    union.lose(ANN, Slot(1), lost);
    union.sweep(ANN, Slot(1), 50);
    assert_eq!(union.standing(ANN).mood, joy);
    // The other node had heard later that the mood was cleared, before she came here.
    let mut again = present(2, 1);
    (again.mood_at, again.changed) = (stamp(10), stamp(10));
    union.put(ANN, again, true);
    assert_eq!(union.standing(ANN).mood, None);
    // A node where the visit was over before has no say.
    union.remove(ANN, Slot(2));
    let mut over = with_mood(present(3, 1), 2, "joy");
    over.set_away(Some(Away::Gone(stamp(12))));
    union.put(ANN, over, true);
    assert_eq!(union.standing(ANN).mood, joy);
}
