//! The messages of this node: numbered deltas, a digest each second, parts of the whole share, questions and the goodbye.
//!
//! It makes the bytes. The node task says when.

use bytes::Bytes;

use super::peers::Moment;
use super::update::{Body, Digest, Header, Heard, LogReport, MOST_CHANGES, Update, UpdateContext};
use crate::history::log::status::LogStatus;
use crate::presence::clustered::Outgoing;
use crate::presence::share::{Change, ShareSum};
use crate::presence::stamp::Stamp;
use crate::protocol::{Time, Vocabulary};

/// The messages of one run of a node.
#[derive(Debug)]
pub(super) struct Messages {
    node: String,
    incarnation: u64,
    started: Time,
    moods: Vocabulary,
    /// The number of the last delta.
    seq: u64,
    stamp: Stamp,
    sum: ShareSum,
    /// Visitors of the node and their open sockets.
    counts: (u64, u64),
}

impl Messages {
    pub(super) fn new(node: String, incarnation: u64, started: Time, moods: Vocabulary) -> Self {
        let (stamp, sum) = (Stamp::NEVER, ShareSum::default());
        Self { node, incarnation, started, moods, seq: 0, stamp, sum, counts: (0, 0) }
    }

    /// Visitors of the node, and their open sockets.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.counts
    }

    /// The deltas with these changes, of which there may be none.
    pub(super) fn deltas(&mut self, outgoing: Outgoing, now: u64, wall: Time) -> Vec<Bytes> {
        let Outgoing { mut changes, sum, stamp, people, sockets } = outgoing;
        (self.stamp, self.sum, self.counts) = (stamp, sum, (people as u64, sockets as u64));
        let mut messages = Vec::new();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(MOST_CHANGES));
            self.seq += 1;
            messages.push(self.encode(Body::Delta(std::mem::replace(&mut changes, rest)), now, wall));
        }
        messages
    }

    /// What the share adds up to after the last delta. Changes that are not published yet are not in it, so deltas with
    /// all changes come first.
    pub(super) fn digest(
        &self,
        heard: Vec<Heard>,
        log: Option<&LogStatus>,
        Moment { now, wall }: Moment,
    ) -> Bytes {
        let digest = Digest {
            share: self.sum,
            people: self.counts.0,
            sockets: self.counts.1,
            started: self.started,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            heard,
            log: log.map(LogReport::of),
            records: log.and_then(|log| log.records.clone()),
        };
        self.encode(Body::Digest(digest), now, wall)
    }

    /// A part of the whole share after the last delta.
    pub(super) fn part(
        &self,
        index: u32,
        is_last: bool,
        changes: Vec<Change>,
        now: u64,
        wall: Time,
    ) -> Bytes {
        self.encode(Body::Part { index, is_last, changes }, now, wall)
    }

    /// The question for another node's share.
    pub(super) fn ask(&self, node: String, incarnation: u64, now: u64, wall: Time) -> Bytes {
        self.encode(Body::Ask { node, incarnation }, now, wall)
    }

    /// The goodbye: the visitors of this node are held for this time, in ms.
    pub(super) fn bye(&self, hold_ms: u64, now: u64, wall: Time) -> Bytes {
        self.encode(Body::Bye { hold_ms }, now, wall)
    }

    fn encode(&self, body: Body, now: u64, wall: Time) -> Bytes {
        let from = Header {
            node: self.node.clone(),
            incarnation: self.incarnation,
            seq: self.seq,
            stamp: self.stamp,
            sent: wall,
        };
        Update { from, body }.encode(UpdateContext { moods: &self.moods, now, wall })
    }
}
