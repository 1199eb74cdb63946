//! Versions: which rooms' figures have changed, and how often, so that whoever keeps an answer knows
//! when it is old.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use crate::protocol::RoomId;
use crate::sync::lock;

/// The most rooms that are told apart. Beyond, all count as changed.
const ROOMS_LIMIT: usize = 10_000;

/// How often figures have changed since the hub started.
#[derive(Debug, Default)]
pub(super) struct Versions(
    /// One number for each room of a commit, or one look.
    Mutex<State>,
);

#[derive(Debug, Default)]
struct State {
    /// The version of the whole hub's figures, which change with those of any room.
    newest: u64,
    /// Rooms that are not named below have this version.
    oldest: u64,
    rooms: HashMap<RoomId, u64>,
}

impl Versions {
    /// The figures of these rooms have changed.
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

    /// All figures may have changed.
    pub(super) fn change_all(&self) {
        let mut state = lock(&self.0);
        state.newest += 1;
        state.oldest = state.newest;
        state.rooms.clear();
    }

    /// The version of a room's figures, or of the whole hub's.
    pub(super) fn of(&self, room: Option<&RoomId>) -> u64 {
        let state = lock(&self.0);
        room.map_or(state.newest, |room| state.rooms.get(room).copied().unwrap_or(state.oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_a_new_version_when_it_or_all_have_changed() {
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
