//! Acks: which `ref` of a socket is on disk.
//!
//! An event is committed when its epoch is. At any time at most two epochs of a socket's events are not
//! yet committed: the one that a flush has taken, and the one that is open. So two slots are all the
//! bookkeeping there is, however many events are on their way.

use crate::history::Epoch;
use crate::protocol::Ref;

/// The newest event of each epoch that is not yet committed.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    taken: Option<(Epoch, Ref)>,
    open: Option<(Epoch, Ref)>,
}

impl Acks {
    /// The event `reference` is in `epoch`. Both only rise.
    pub(crate) fn queued(&mut self, epoch: Epoch, reference: Ref) {
        if self.open.is_some_and(|(open, _)| open < epoch) {
            self.taken = self.open;
        }
        self.open = Some((epoch, reference));
    }

    /// The epoch whose commit would be news.
    #[must_use]
    pub(crate) fn waiting_for(&self) -> Option<Epoch> {
        self.taken.or(self.open).map(|(epoch, _)| epoch)
    }

    /// All epochs up to `committed` are on disk; returns what may be acked now.
    pub(crate) fn committed(&mut self, committed: Epoch) -> Option<Ref> {
        let taken = self.taken.take_if(|(epoch, _)| *epoch <= committed);
        let open = self.open.take_if(|(epoch, _)| *epoch <= committed);
        open.or(taken).map(|(_, reference)| reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ClientMessage;

    fn reference(number: u64) -> Ref {
        let id = uuid::Uuid::nil();
        let text = format!(r#"{{"type":"page-view","ref":{number},"id":"{id}","path":"/"}}"#);
        let Ok(ClientMessage::PageView(reference, _)) = ClientMessage::parse(&text) else {
            panic!("no page view")
        };
        reference
    }

    #[test]
    fn what_is_acked_is_committed_and_a_stream_of_events_starves_no_ack() {
        let (first, second) = (Epoch::default().next(), Epoch::default().next().next());
        let mut acks = Acks::default();
        assert_eq!(acks.waiting_for(), None);
        acks.queued(first, reference(1));
        acks.queued(first, reference(4));
        assert_eq!(acks.committed(Epoch::default()), None);
        acks.queued(second, reference(9)); // while the first is being committed
        assert_eq!(acks.waiting_for(), Some(first));
        assert_eq!(acks.committed(first), Some(reference(4)));
        assert_eq!(acks.waiting_for(), Some(second));
        assert_eq!(acks.committed(second), Some(reference(9)));
        assert_eq!((acks.waiting_for(), acks.committed(second)), (None, None));
    }

    #[test]
    fn one_commit_may_ack_both_epochs() {
        let (first, second) = (Epoch::default().next(), Epoch::default().next().next());
        let mut acks = Acks::default();
        acks.queued(first, reference(1));
        acks.queued(second, reference(2));
        assert_eq!(acks.committed(second), Some(reference(2)));
        assert_eq!(acks.waiting_for(), None);
    }
}
