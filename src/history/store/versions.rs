//! Versions of figures, by room and by day, with which caches detect changes.
//!
//! They count commits since the start of the hub.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use crate::history::calendar::Level;
use crate::protocol::{RoomId, Time};
use crate::sync::lock;

/// Limit of rooms with their own version. Beyond it, all rooms count as changed.
const ROOMS_LIMIT: usize = 10_000;

/// Limit of days with their own version. Beyond it, all days count as changed.
const DAYS_LIMIT: usize = 4_000;

/// Versions of all figures.
#[derive(Debug, Default)]
pub(super) struct Versions(
    /// Held for one update per room and day of a commit, or for one lookup.
    Mutex<State>,
);

#[derive(Debug, Default)]
struct State {
    /// The version of the newest change.
    newest: u64,
    /// The version of all rooms that are not in `rooms`.
    oldest_room: u64,
    rooms: HashMap<RoomId, u64>,
    /// The version of all days that are not in `days`.
    oldest_day: u64,
    days: BTreeMap<Time, u64>,
}

impl Versions {
    /// Records a change of these rooms' figures of events of these days, given by their starts.
    pub(super) fn change(&self, rooms: &BTreeSet<RoomId>, days: &BTreeSet<Time>) {
        let mut state = lock(&self.0);
        state.newest += 1;
        let newest = state.newest;
        if state.rooms.len() + rooms.len() > ROOMS_LIMIT {
            state.rooms.clear();
            state.oldest_room = newest;
        }
        if state.days.len() + days.len() > DAYS_LIMIT {
            state.days.clear();
            state.oldest_day = newest;
        }
        state.rooms.extend(rooms.iter().map(|room| (room.clone(), newest)));
        state.days.extend(days.iter().map(|day| (*day, newest)));
    }

    /// Records a change of all figures.
    pub(super) fn change_all(&self) {
        let mut state = lock(&self.0);
        state.newest += 1;
        (state.oldest_room, state.oldest_day) = (state.newest, state.newest);
        state.rooms.clear();
        state.days.clear();
    }

    /// Returns the version of the newest change.
    pub(super) fn newest(&self) -> u64 {
        lock(&self.0).newest
    }

    /// Returns the version since which the figures of a room, or of the whole hub, have not changed from one time to
    /// another.
    pub(super) fn of(&self, room: Option<&RoomId>, (from, to): (Time, Time)) -> u64 {
        let state = lock(&self.0);
        let of_room =
            room.map_or(state.newest, |room| state.rooms.get(room).copied().unwrap_or(state.oldest_room));
        let days = state.days.range(Level::Day.floor(from)..to.max(from)).map(|(_, version)| *version);
        of_room.min(days.max().unwrap_or(0).max(state.oldest_day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::calendar::DAY_MS;

    fn room(name: &str) -> RoomId {
        RoomId::try_from(name).unwrap()
    }

    fn day(number: u64) -> Time {
        Time::from_millis(number * DAY_MS)
    }

    #[test]
    fn version_rises_when_the_room_or_all_rooms_change() {
        let versions = Versions::default();
        let always = (day(0), Time::MAX);
        let look = || {
            (
                versions.of(Some(&room("a")), always),
                versions.of(Some(&room("b")), always),
                versions.of(None, always),
            )
        };
        let change = |rooms: BTreeSet<RoomId>| versions.change(&rooms, &[day(1)].into());
        assert_eq!(look(), (0, 0, 0));
        change([room("a")].into());
        let (a, b, all) = look();
        assert!(a > 0 && b == 0 && all > 0);
        change([room("b")].into());
        assert!(look().0 == a && look().1 > b && look().2 > all);
        versions.change_all();
        let newest = look();
        assert!(newest.0 > a && newest.1 > b && newest.2 > all);
        change((0..20_000).map(|n| room(&n.to_string())).collect());
        assert!(look().0 > newest.0);
    }

    #[test]
    fn version_of_a_period_rises_only_with_its_days() {
        let versions = Versions::default();
        let look = |from, to| versions.of(None, (day(from), day(to)));
        versions.change(&[room("a")].into(), &[day(10)].into());
        assert_eq!((look(5, 10), look(10, 11), look(11, 20)), (0, 1, 0));
        assert_eq!(versions.of(None, (day(10).plus(DAY_MS / 2), day(12))), 1, "a part of a day is the day");
        assert_eq!(versions.of(Some(&room("b")), (day(10), day(11))), 0, "another room");
        versions.change(&[room("a")].into(), &(100..9_000).map(day).collect());
        assert_eq!(look(5, 10), 2, "too many days count as all");
    }
}
