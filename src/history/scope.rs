//! The scope of a query: one room, or the whole hub.
//!
//! Each query of the statistics has one, and gives the database the id that only [`Scope`] leads to. So no query can forget
//! it, or take another room's id for it. Pure.

use crate::protocol::RoomId;

/// What a query is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole hub.
    Hub,
    /// One room.
    Room(RoomId),
}

impl Scope {
    /// The room; none for the whole hub.
    #[must_use]
    pub fn room(&self) -> Option<&RoomId> {
        match self {
            Self::Hub => None,
            Self::Room(room) => Some(room),
        }
    }
}

impl From<Option<RoomId>> for Scope {
    fn from(room: Option<RoomId>) -> Self {
        room.map_or(Self::Hub, Self::Room)
    }
}
