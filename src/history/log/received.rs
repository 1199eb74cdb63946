//! Messages that were read of the log and are not committed yet, in the order of the log.
//!
//! Plain data of the flush task.

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::ErasedVisitor;
use super::erasures::LoggedErasure;
use super::own::MESSAGE_BYTES;
use crate::history::event::Batch;
use crate::history::journal::TRANSACTION_BYTES;
use crate::history::store::{LogChange, Moved};

/// Read messages, bounded by those who add to them: see [`Received::has_room`].
#[derive(Default)]
pub(super) struct Received {
    items: VecDeque<Item>,
    /// Their memory.
    bytes: usize,
    /// The log, and the position before the first of them.
    base: Option<(Arc<str>, u64)>,
}

/// A message that was read.
pub(super) struct ReadMessage {
    /// Its position in the log.
    pub(super) position: u64,
    /// Its events. A message of this node has none here.
    pub(super) batch: Batch,
    /// The visitors that it erases.
    pub(super) erasures: Vec<ErasedVisitor>,
    /// Whether it had events of a visitor who was erased before.
    pub(super) is_late: bool,
}

enum Item {
    /// The next messages follow this position.
    Begin(Arc<str>, u64),
    Message(ReadMessage),
}

impl Received {
    /// The messages.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether another message may be read before a commit.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < TRANSACTION_BYTES
    }

    /// The next messages follow this position of this log.
    pub(super) fn begin(&mut self, log: Arc<str>, after: u64) {
        self.items.push_back(Item::Begin(log, after));
    }

    /// Adds a message.
    pub(super) fn push(&mut self, message: ReadMessage) {
        self.bytes += message.bytes();
        self.items.push_back(Item::Message(message));
    }

    /// Takes what one transaction commits: events, and the rest with the position after them.
    pub(super) fn take_slice(&mut self) -> Option<(Batch, LogChange)> {
        let (mut all, mut change, mut bytes, mut to) = (Batch::default(), LogChange::default(), 0, None);
        while bytes < TRANSACTION_BYTES {
            match self.items.pop_front() {
                Some(Item::Message(message)) => {
                    bytes += message.bytes();
                    let ReadMessage { position, batch, erasures, is_late } = message;
                    all.append(batch);
                    change.late = change.late.or(is_late.then_some(position));
                    let erasures = erasures.into_iter().map(|ErasedVisitor { visitor, until, .. }| {
                        LoggedErasure { visitor, until, position: Some(position) }
                    });
                    change.erasures.extend(erasures);
                    to = Some(position);
                }
                Some(Item::Begin(log, after)) if to.is_none() => self.base = Some((log, after)),
                Some(begin @ Item::Begin(..)) => {
                    self.items.push_front(begin);
                    break;
                }
                None => break,
            }
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        let to = to?;
        change.moved = self.base.as_mut().map(|(log, from)| {
            let moved = Moved { log: Arc::clone(log), from: *from, to };
            *from = to;
            moved
        });
        Some((all, change))
    }
}

impl ReadMessage {
    fn bytes(&self) -> usize {
        MESSAGE_BYTES + self.batch.bytes() + size_of_val(self.erasures.as_slice())
    }
}
