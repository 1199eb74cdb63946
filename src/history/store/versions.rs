//! Versions of figures, by room, with which caches detect changes.
//!
//! They count commits since the start of the hub.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use crate::protocol::RoomId;
use crate::sync::lock;

/// Limit of rooms with their own version. Beyond it, all rooms count as changed.
const ROOMS_LIMIT: usize = 10_000;

/// Versions of all figures.
#[derive(Debug, Default)]
pub(super) struct Versions(
    /// Held for one update per room of a commit, or for one lookup.
    Mutex<State>,
);

#[derive(Debug, Default)]
struct State {
    /// The version of the whole hub's figures, which change with each room's.
    newest: u64,
    /// The version of all rooms that are not in `rooms`.
    oldest: u64,
    rooms: HashMap<RoomId, u64>,
}

impl Versions {
    /// Records a change of these rooms' figures.
    pub(super) fn change(&self, rooms: &BTreeSet<RoomId>) {
        let mut state = lock(&self.0);
        if state.rooms.len() + rooms.len() > ROOMS_LIMIT {
            state.rooms.clear();
            state.oldest = state.newest + 1;
        }
        state.newest += 1;
        let newest = state.newest;
        state.rooms.extend(rooms.iter().map(|room| (room.clone(), newest)));
    }

    /// Records a change of all figures.
    pub(super) fn change_all(&self) {
        let mut state = lock(&self.0);
        state.newest += 1;
        state.oldest = state.newest;
        state.rooms.clear();
    }

    /// Returns the version of a room's figures, or of the whole hub's.
    pub(super) fn of(&self, room: Option<&RoomId>) -> u64 {
        let state = lock(&self.0);
        room.map_or(state.newest, |room| state.rooms.get(room).copied().unwrap_or(state.oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_rises_when_the_room_or_all_rooms_change() {
        let versions = Versions::default();
        let room = |name: &str| RoomId::try_from(name).unwrap();
        let look = || (versions.of(Some(&room("a"))), versions.of(Some(&room("b"))), versions.of(None));
        assert_eq!(look(), (0, 0, 0));
        versions.change(&BTreeSet::from([room("a")]));
        let (a, b, all) = look();
        assert!(a > 0 && b == 0 && all > 0);
        versions.change(&BTreeSet::from([room("b")]));
        assert!(look().0 == a && look().1 > b && look().2 > all);
        versions.change_all();
        let newest = look();
        assert!(newest.0 > a && newest.1 > b && newest.2 > all);
        versions.change(&(0..20_000).map(|n| room(&n.to_string())).collect());
        assert!(look().0 > newest.0);
    }
}
