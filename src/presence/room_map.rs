//! All rooms with visitors: found by name in O(1), and iterated in chunks.
//!
//! The registry's lock is held for one chunk only, so that joins and leaves can run between two chunks. Keys are stable:
//! an iteration has every room that exists from its beginning to its end exactly once.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::room::Room;
use crate::protocol::RoomId;

/// Rooms of one chunk: about 50 µs under the registry's lock.
const CHUNK: usize = 512;

/// Rooms by name. The registry limits their number.
#[derive(Debug, Default)]
pub(super) struct RoomMap {
    keys: HashMap<RoomId, usize>,
    rooms: Slab<Arc<Room>>,
}

impl RoomMap {
    /// Returns the room of this name.
    pub(super) fn get(&self, id: &RoomId) -> Option<&Arc<Room>> {
        self.keys.get(id).and_then(|key| self.rooms.get(*key))
    }

    /// Returns the room of this name; `create` creates it if there is none.
    pub(super) fn get_or_insert_with(
        &mut self,
        id: &RoomId,
        create: impl FnOnce() -> Arc<Room>,
    ) -> Arc<Room> {
        if let Some(room) = self.get(id) {
            return Arc::clone(room);
        }
        let room = create();
        self.keys.insert(id.clone(), self.rooms.insert(Arc::clone(&room)));
        room
    }

    /// Removes the room of this name.
    pub(super) fn remove(&mut self, id: &RoomId) {
        if let Some(key) = self.keys.remove(id) {
            self.rooms.try_remove(key);
        }
    }

    /// The number of rooms.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// All rooms, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Room>> {
        self.rooms.iter().map(|(_, room)| room)
    }

    /// The rooms of this chunk; `None` after the last chunk.
    pub(super) fn chunk(&self, chunk: usize) -> Option<Vec<Arc<Room>>> {
        let from = chunk * CHUNK;
        let keys = from..self.rooms.capacity().min(from + CHUNK);
        (!keys.is_empty()).then(|| keys.filter_map(|key| self.rooms.get(key).cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::metrics::PresenceMetrics;
    use super::*;
    use crate::panics::Panics;
    use crate::protocol::Vocabulary;

    fn id(number: usize) -> RoomId {
        RoomId::try_from(format!("room-{number}")).unwrap()
    }

    fn open(rooms: &mut RoomMap, number: usize) -> Arc<Room> {
        let metrics = PresenceMetrics::register(&Panics::register());
        let create = || Arc::new(Room::new(id(number), Vocabulary::default(), metrics, Duration::ZERO));
        rooms.get_or_insert_with(&id(number), create)
    }

    #[test]
    fn chunks_have_every_room_once_while_others_open_and_close() {
        let mut rooms = RoomMap::default();
        for number in 0..3 * CHUNK {
            open(&mut rooms, number);
        }
        let (mut seen, mut chunks) = (Vec::new(), 0);
        while let Some(chunk) = rooms.chunk(chunks) {
            seen.extend(chunk.iter().map(|room| room.id().clone()));
            rooms.remove(&id(chunks)); // it was in this chunk or an earlier one
            open(&mut rooms, 3 * CHUNK + chunks);
            chunks += 1;
        }
        assert!(chunks >= 3);
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len());
        assert!((0..3 * CHUNK).all(|number| distinct.contains(&id(number))));
    }

    #[test]
    fn room_is_found_by_name_until_it_is_removed() {
        let mut rooms = RoomMap::default();
        let first = open(&mut rooms, 1);
        assert!(Arc::ptr_eq(&open(&mut rooms, 1), &first));
        assert!(Arc::ptr_eq(rooms.get(&id(1)).unwrap(), &first));
        rooms.remove(&id(1));
        assert!(rooms.get(&id(1)).is_none());
        assert_eq!((rooms.len(), rooms.iter().count()), (0, 0));
    }
}
