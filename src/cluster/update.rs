//! Update messages: what one node publishes to the others, as bytes.
//!
//! The first byte is the version. A hub reads its own version and the one before. A release with a new version still
//! writes the old one, and the release after it writes the new one, so that all nodes understand each other during a
//! rolling deploy. Bytes after the known fields are ignored, so that fields can be added at the end without a new
//! version. Parsing is bounded by the length of the message. Times are those that are left, since clocks differ.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::config::is_name;
use crate::history::log::status::{LogStatus, RecordsAt};
use crate::history::record_sum::RecordSum;
use crate::presence::HoldReason;
use crate::presence::share::{Away, Change, Entry, HeldSince, PersonKey, ShareSum, SitRegister, SitState};
use crate::presence::stamp::Stamp;
use crate::protocol::{RoomId, Time, Vocabulary};

/// The version that is written.
const VERSION: u8 = 1;

/// The versions that are read.
const READABLE: std::ops::RangeInclusive<u8> = 1..=VERSION;

/// The most changes of one message: 64 KiB at most with usual names, and never more than NATS accepts.
pub(crate) const MOST_CHANGES: usize = 1_000;

/// The most bytes of a node's name or version.
const NAME_LIMIT: usize = 64;

/// A message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadUpdate {
    /// The version is a newer one, or one that is not read any more.
    #[error("version {0} of update messages is not readable")]
    Version(u8),
    /// It is too short, or a field breaks its rule.
    #[error("the message is broken")]
    Broken,
}

/// Who sends a message, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The name of the node.
    pub node: String,
    /// Identifies the run of the node: a random number.
    pub incarnation: u64,
    /// Of a delta its number, which rises by one; of another message the number of the last delta.
    pub seq: u64,
    /// A stamp of the node's clock that is later than everything in the message.
    pub stamp: Stamp,
    /// The node's wall clock.
    pub sent: Time,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Update {
    /// Who sends it.
    pub from: Header,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// The changes of the share since the delta before.
    Delta(Vec<Change>),
    /// Once a second: what the share adds up to after the last delta.
    Digest(Digest),
    /// A part of the whole share. Deltas that are sent between the parts are later than the share.
    Part {
        /// Rises from 0.
        index: u32,
        /// Whether it is the last part.
        is_last: bool,
        /// The entries.
        changes: Vec<Change>,
    },
    /// A node asks another one for its whole share.
    Ask {
        /// The name of the other node.
        node: String,
        /// Its run.
        incarnation: u64,
    },
    /// The node stops. Its visitors are held for this time, in ms.
    Bye {
        /// The seat hold.
        hold_ms: u64,
    },
}

/// What a node says of itself once a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    /// What its share adds up to.
    pub share: ShareSum,
    /// Distinct visitors of the node.
    pub people: u64,
    /// Its open room sockets.
    pub sockets: u64,
    /// When it started, by its own clock.
    pub started: Time,
    /// The version of its program.
    pub version: String,
    /// The nodes that it hears, with their runs and the last deltas that it has.
    pub heard: Vec<Heard>,
    /// How far it has the log of events. None without a log, or of a version that does not say it.
    pub log: Option<LogReport>,
    /// What the records of its file add up to. None without a log, or before it is known.
    pub records: Option<RecordsAt>,
}

/// How far a node has the log of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogReport {
    /// The last message that is in its file.
    pub position: u64,
    /// How old the last message that it has read is, in milliseconds; 0 if it has read all.
    pub lag_ms: u64,
    /// Messages that wait in its outbox.
    pub outbox: u64,
    /// The last message up to which it has finished all erasures of visitors.
    pub erased: u64,
}

impl LogReport {
    /// What a node says of its log.
    pub(super) fn of(log: &LogStatus) -> Self {
        Self { position: log.position, lag_ms: log.lag_ms, outbox: log.outbox, erased: log.erased }
    }
}

/// A node that another one hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Its name.
    pub node: String,
    /// Its run.
    pub incarnation: u64,
    /// The last delta.
    pub seq: u64,
}

/// What a message is read or written with: the moods of this node, and its clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpdateContext<'a> {
    /// Moods travel by name. One that this node does not have is none.
    pub moods: &'a Vocabulary,
    /// The monotonic clock in ms.
    pub now: u64,
    /// The wall clock. Stamps that are too far ahead of it are clamped.
    pub wall: Time,
}

impl Update {
    /// Writes the message.
    pub(crate) fn encode(&self, context: UpdateContext<'_>) -> Bytes {
        let mut out = Writer { bytes: vec![VERSION], context };
        let kind = match &self.body {
            Body::Delta(_) => 0,
            Body::Digest(_) => 1,
            Body::Part { .. } => 2,
            Body::Ask { .. } => 3,
            Body::Bye { .. } => 4,
        };
        out.byte(kind);
        out.text(&self.from.node);
        out.fixed(self.from.incarnation);
        out.fixed(self.from.seq);
        out.fixed(self.from.stamp.bits());
        out.fixed(self.from.sent.millis());
        match &self.body {
            Body::Delta(changes) => out.changes(changes),
            Body::Digest(digest) => out.digest(digest),
            Body::Part { index, is_last, changes } => {
                out.number((*index).into());
                out.byte((*is_last).into());
                out.changes(changes);
            }
            Body::Ask { node, incarnation } => {
                out.text(node);
                out.fixed(*incarnation);
            }
            Body::Bye { hold_ms } => out.number(*hold_ms),
        }
        out.bytes.into()
    }

    /// Reads a message.
    pub(crate) fn decode(bytes: &[u8], context: UpdateContext<'_>) -> Result<Self, BadUpdate> {
        let (version, rest) = bytes.split_first().ok_or(BadUpdate::Broken)?;
        if !READABLE.contains(version) {
            return Err(BadUpdate::Version(*version));
        }
        Reader { bytes: rest, context }.update().ok_or(BadUpdate::Broken)
    }
}

/// Reads a message, and writes it, reads it and writes it again. Both must be equal. None if it cannot be read. For the
/// fuzz target.
#[cfg(feature = "internals")]
#[must_use]
pub fn rewrite_update(bytes: &[u8]) -> Option<(Bytes, Bytes)> {
    let moods = Vocabulary::default();
    let context = UpdateContext { moods: &moods, now: 1_000, wall: Time::from_millis(1_796_083_200_000) };
    let once = Update::decode(bytes, context).ok()?.encode(context);
    let twice = Update::decode(&once, context).ok()?.encode(context);
    Some((once, twice))
}

/// The flags of a change: two bits for where the person is, then whether a mood and a sit were set, then two bits for
/// the sit.
mod flag {
    pub(super) const PRESENT: u8 = 0;
    pub(super) const HELD: u8 = 1;
    pub(super) const GONE: u8 = 2;
    pub(super) const FORGOTTEN: u8 = 3;
    pub(super) const AWAY: u8 = 3;
    pub(super) const MOOD: u8 = 4;
    pub(super) const SIT: u8 = 8;
    pub(super) const SIT_STATE: u8 = 4; // bits to shift
}

struct Writer<'a> {
    bytes: Vec<u8>,
    context: UpdateContext<'a>,
}

impl Writer<'_> {
    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn fixed(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    /// Seven bits in each byte, the lowest first.
    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.byte(0x80 | low_byte(number));
            number >>= 7;
        }
        self.byte(low_byte(number));
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend(text.as_bytes());
    }

    fn digest(&mut self, digest: &Digest) {
        for number in
            [digest.share.entries, digest.share.sum, digest.people, digest.sockets, digest.started.millis()]
        {
            self.fixed(number);
        }
        self.text(&digest.version);
        self.number(digest.heard.len() as u64);
        for Heard { node, incarnation, seq } in &digest.heard {
            self.text(node);
            self.fixed(*incarnation);
            self.fixed(*seq);
        }
        self.bytes.push(u8::from(digest.log.is_some()));
        if let Some(LogReport { position, lag_ms, outbox, erased }) = digest.log {
            for number in [position, lag_ms, outbox, erased] {
                self.fixed(number);
            }
        }
        self.bytes.push(u8::from(digest.records.is_some()));
        if let Some(RecordsAt { log, position, sum }) = &digest.records {
            self.text(log);
            self.fixed(*position);
            self.bytes.extend(sum.to_bytes());
        }
    }

    fn changes(&mut self, changes: &[Change]) {
        let (mut rooms, mut moods) = (Table::default(), Table::default());
        let indexes: Vec<_> = changes
            .iter()
            .map(|change| {
                let mood = change.entry.as_ref().and_then(|entry| self.context.moods.name(entry.mood?));
                (rooms.index(change.room.as_str()), mood.map_or(0, |mood| moods.index(mood) + 1))
            })
            .collect();
        for names in [&rooms.names, &moods.names] {
            self.number(names.len() as u64);
            for name in names {
                self.text(name);
            }
        }
        self.number(changes.len() as u64);
        for (change, (room, mood)) in changes.iter().zip(indexes) {
            self.number(room);
            self.change(change, mood);
        }
    }

    fn change(&mut self, change: &Change, mood: u64) {
        let Some(entry) = &change.entry else {
            self.byte(flag::FORGOTTEN);
            return self.fixed(change.person.0);
        };
        let sit = entry.sit();
        let away = match entry.away() {
            None => flag::PRESENT,
            Some(Away::Held(_)) => flag::HELD,
            Some(Away::Gone(_)) => flag::GONE,
        };
        let has_mood = if entry.mood_at > Stamp::NEVER { flag::MOOD } else { 0 };
        let sit_state = sit.map_or(0, |register| {
            let state = match register.sit {
                SitState::Running { .. } => 0,
                SitState::Completed => 1,
                SitState::Ended => 2,
            };
            flag::SIT | state << flag::SIT_STATE
        });
        self.byte(away | has_mood | sit_state);
        self.fixed(change.person.0);
        self.fixed(entry.changed.bits());
        self.fixed(entry.last_joined().bits());
        self.fixed(entry.since.bits());
        match entry.away() {
            None => {}
            Some(Away::Held(held)) => {
                self.fixed(held.began.bits());
                self.byte(reason_byte(held.reason));
                self.number(held.until.saturating_sub(self.context.now));
            }
            Some(Away::Gone(at)) => self.fixed(at.bits()),
        }
        if has_mood != 0 {
            self.fixed(entry.mood_at.bits());
            self.number(mood);
        }
        if let Some(SitRegister { at, sit }) = sit {
            self.fixed(at.bits());
            if let SitState::Running { until, shown } = sit {
                self.number(until.saturating_sub(self.context.now));
                self.fixed(shown.millis());
            }
        }
    }
}

/// Names that changes have in common, each once.
#[derive(Default)]
struct Table<'a> {
    indexes: HashMap<&'a str, u64>,
    names: Vec<&'a str>,
}

impl<'a> Table<'a> {
    fn index(&mut self, name: &'a str) -> u64 {
        let next = self.names.len() as u64;
        *self.indexes.entry(name).or_insert_with(|| {
            self.names.push(name);
            next
        })
    }
}

fn low_byte(number: u64) -> u8 {
    let [byte, ..] = (number & 0x7f).to_le_bytes();
    byte
}

fn reason_byte(reason: HoldReason) -> u8 {
    match reason {
        HoldReason::Grace => 0,
        HoldReason::Restart => 1,
        HoldReason::Sit => 2,
        HoldReason::PeerLost => 3,
    }
}

/// A reason of a later version is a grace: what counts is the deadline.
fn reason_of(byte: u8) -> HoldReason {
    match byte {
        1 => HoldReason::Restart,
        2 => HoldReason::Sit,
        3 => HoldReason::PeerLost,
        _ => HoldReason::Grace,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    context: UpdateContext<'a>,
}

impl Reader<'_> {
    fn update(mut self) -> Option<Update> {
        let kind = self.byte()?;
        let from = Header {
            node: self.node()?,
            incarnation: self.fixed()?,
            seq: self.fixed()?,
            stamp: self.stamp()?,
            sent: Time::from_millis(self.fixed()?),
        };
        let body = match kind {
            0 => Body::Delta(self.changes()?),
            1 => Body::Digest(self.digest()?),
            2 => Body::Part {
                index: u32::try_from(self.number()?).ok()?,
                is_last: self.byte()? != 0,
                changes: self.changes()?,
            },
            3 => Body::Ask { node: self.node()?, incarnation: self.fixed()? },
            4 => Body::Bye { hold_ms: self.number()? },
            _ => return None,
        };
        Some(Update { from, body })
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*byte)
    }

    fn fixed(&mut self) -> Option<u64> {
        let (number, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn stamp(&mut self) -> Option<Stamp> {
        self.fixed().map(|bits| Stamp::from_bits(bits).clamped(self.context.wall))
    }

    fn text(&mut self) -> Option<&str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        std::str::from_utf8(text).ok()
    }

    fn sum(&mut self) -> Option<RecordSum> {
        let (sum, rest) = self.bytes.split_first_chunk::<16>()?;
        self.bytes = rest;
        RecordSum::from_bytes(sum).ok()
    }

    fn name(&mut self) -> Option<String> {
        self.text().filter(|name| (1..=NAME_LIMIT).contains(&name.len())).map(str::to_owned)
    }

    /// The name of a node, which is shown and asked.
    fn node(&mut self) -> Option<String> {
        self.name().filter(|name| is_name(name))
    }

    /// Reads a list. Each of its entries has a byte at least, which bounds what is allocated before they are read.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= self.bytes.len())?;
        (0..length).map(|_| read(self)).collect()
    }

    fn digest(&mut self) -> Option<Digest> {
        Some(Digest {
            share: ShareSum { entries: self.fixed()?, sum: self.fixed()? },
            people: self.fixed()?,
            sockets: self.fixed()?,
            started: Time::from_millis(self.fixed()?),
            version: self.name()?,
            heard: self.list(|reader| {
                Some(Heard { node: reader.node()?, incarnation: reader.fixed()?, seq: reader.fixed()? })
            })?,
            log: match self.byte()? {
                0 => None,
                _ => Some(LogReport {
                    position: self.fixed()?,
                    lag_ms: self.fixed()?,
                    outbox: self.fixed()?,
                    erased: self.fixed()?,
                }),
            },
            records: match self.byte()? {
                0 => None,
                _ => Some(RecordsAt { log: self.name()?.into(), position: self.fixed()?, sum: self.sum()? }),
            },
        })
    }

    fn changes(&mut self) -> Option<Vec<Change>> {
        let rooms = self.list(|reader| RoomId::try_from(reader.text()?).ok())?;
        let moods = self.context.moods;
        let moods = self.list(|reader| Some(moods.find(reader.text()?)))?;
        self.list(|reader| {
            let room = rooms.get(usize::try_from(reader.number()?).ok()?)?.clone();
            let flags = reader.byte()?;
            let person = PersonKey(reader.fixed()?);
            if flags & flag::AWAY == flag::FORGOTTEN {
                return Some(Change { room, person, entry: None });
            }
            let changed = Stamp::from_bits(reader.fixed()?);
            let last_joined = reader.stamp()?;
            let mut entry = Entry::joined(reader.stamp()?);
            entry.set_last_joined(last_joined);
            entry.changed = changed;
            let away = match flags & flag::AWAY {
                flag::HELD => Some(Away::Held(HeldSince {
                    began: reader.stamp()?,
                    reason: reason_of(reader.byte()?),
                    until: reader.until()?,
                })),
                flag::GONE => Some(Away::Gone(reader.stamp()?)),
                _ => None,
            };
            entry.set_away(away);
            if flags & flag::MOOD != 0 {
                entry.mood_at = reader.stamp()?;
                let index = usize::try_from(reader.number()?).ok()?;
                entry.mood = match index.checked_sub(1) {
                    None => None,
                    Some(index) => *moods.get(index)?,
                };
            }
            if flags & flag::SIT != 0 {
                let at = reader.stamp()?;
                let sit = match (flags >> flag::SIT_STATE) & 3 {
                    0 => SitState::Running {
                        until: reader.until()?,
                        shown: Time::from_millis(reader.fixed()?),
                    },
                    1 => SitState::Completed,
                    _ => SitState::Ended,
                };
                entry.set_sit(Some(SitRegister { at, sit }));
            }
            Some(Change { room, person, entry: Some(entry) })
        })
    }

    /// A deadline, of which the message has the time that is left.
    fn until(&mut self) -> Option<u64> {
        self.number().map(|left| self.context.now.saturating_add(left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let stamp = || 0..1_u64 << 48;
        let reason = || {
            prop_oneof![
                Just(HoldReason::Grace),
                Just(HoldReason::Restart),
                Just(HoldReason::Sit),
                Just(HoldReason::PeerLost)
            ]
        };
        let away = prop_oneof![
            Just(None),
            (stamp(), reason(), 1_000..9_000_000_u64).prop_map(|(began, reason, until)| {
                Some(Away::Held(HeldSince { began: Stamp::from_bits(began), reason, until }))
            }),
            stamp().prop_map(|at| Some(Away::Gone(Stamp::from_bits(at)))),
        ];
        let state = prop_oneof![
            (1_000..9_000_000_u64, 0..9_000_000_u64)
                .prop_map(|(until, shown)| SitState::Running { until, shown: Time::from_millis(shown) }),
            Just(SitState::Completed),
            Just(SitState::Ended),
        ];
        let sit = proptest::option::of((stamp(), state));
        let mood = proptest::option::of((1..1_u64 << 48, proptest::option::of(0..3_usize)));
        (stamp(), stamp(), away, sit, mood).prop_map(|(joined, changed, away, sit, mood)| {
            let mut entry = Entry::joined(Stamp::from_bits(joined / 2));
            entry.set_last_joined(Stamp::from_bits(joined));
            entry.changed = Stamp::from_bits(changed);
            entry.set_away(away);
            entry.set_sit(sit.map(|(at, sit)| SitRegister { at: Stamp::from_bits(at), sit }));
            if let Some((at, mood)) = mood {
                entry.mood_at = Stamp::from_bits(at);
                entry.mood = mood.and_then(|mood| moods().find(["calm", "joy", "hope"][mood]));
            }
            entry
        })
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = (0..4_u8, any::<u64>(), proptest::option::of(entry()));
        let change = change.prop_map(|(room, person, entry)| Change {
            room: RoomId::try_from(format!("room-{room}")).unwrap(),
            person: PersonKey(person),
            entry,
        });
        proptest::collection::vec(change, 0..20)
    }

    fn body() -> impl Strategy<Value = Body> {
        let heard = ("[a-z-]{1,64}", any::<u64>(), any::<u64>());
        let heard = heard.prop_map(|(node, incarnation, seq)| Heard { node, incarnation, seq });
        let log = proptest::option::of(any::<[u64; 4]>()).prop_map(|log| {
            log.map(|[position, lag_ms, outbox, erased]| LogReport { position, lag_ms, outbox, erased })
        });
        let heard = proptest::collection::vec(heard, 0..4);
        let records = ("[a-z0-9:.-]{1,64}", any::<u64>(), any::<u128>());
        let records = proptest::option::of(records.prop_map(|(log, position, sum)| {
            let sum = RecordSum::from_bytes(&sum.to_be_bytes()).unwrap();
            RecordsAt { log: log.into(), position, sum }
        }));
        let digest = (any::<[u64; 4]>(), 0..1_u64 << 40, "[0-9.]{1,9}", heard, log, records);
        prop_oneof![
            changes().prop_map(Body::Delta),
            (any::<u32>(), any::<bool>(), changes()).prop_map(|(index, is_last, changes)| Body::Part {
                index,
                is_last,
                changes
            }),
            ("[a-z]{1,9}", any::<u64>()).prop_map(|(node, incarnation)| Body::Ask { node, incarnation }),
            any::<u64>().prop_map(|hold_ms| Body::Bye { hold_ms }),
            digest.prop_map(|([entries, sum, people, sockets], started, version, heard, log, records)| {
                let (share, started) = (ShareSum { entries, sum }, Time::from_millis(started));
                Body::Digest(Digest { share, people, sockets, started, version, heard, log, records })
            }),
        ]
    }

    fn moods() -> Vocabulary {
        Vocabulary::parse("calm,joy,hope").unwrap()
    }

    fn wall() -> Time {
        Time::from_millis(1_796_083_200_000)
    }

    fn header() -> Header {
        let node = "node-1".to_owned();
        Header { node, incarnation: 7, seq: 3, stamp: Stamp::at(wall()), sent: wall() }
    }

    proptest! {
        #[test]
        fn message_is_the_same_after_it_is_written_and_read(body in body()) {
            let moods = moods();
            let context = UpdateContext { moods: &moods, now: 1_000, wall: wall() };
            let update = Update { from: header(), body };
            let bytes = update.encode(context);
            prop_assert_eq!(Update::decode(&bytes, context), Ok(update));
            // Each shorter message is broken, and nothing panics.
            for length in 0..bytes.len() {
                prop_assert!(Update::decode(&bytes[..length], context).is_err());
            }
            // A later version may add fields.
            let longer = [&bytes[..], b"more"].concat();
            prop_assert!(Update::decode(&longer, context).is_ok());
        }
    }

    #[test]
    fn deadlines_are_relative_to_the_clock_of_the_reader() {
        let moods = moods();
        let mut entry = Entry::joined(Stamp::from_bits(1));
        let held = |until| HeldSince { began: Stamp::from_bits(2), reason: HoldReason::Grace, until };
        entry.set_away(Some(Away::Held(held(5_000))));
        let change =
            Change { room: RoomId::try_from("lobby").unwrap(), person: PersonKey(1), entry: Some(entry) };
        let update = Update { from: header(), body: Body::Delta(vec![change]) };
        let bytes = update.encode(UpdateContext { moods: &moods, now: 2_000, wall: wall() });
        let read =
            Update::decode(&bytes, UpdateContext { moods: &moods, now: 70_000, wall: wall() }).unwrap();
        let Body::Delta(changes) = read.body else { panic!("a delta") };
        assert_eq!(changes[0].entry.as_ref().unwrap().held(), Some(held(73_000)));
    }

    #[test]
    fn mood_that_this_node_does_not_have_is_none_and_keeps_its_stamp() {
        let (theirs, ours) = (moods(), Vocabulary::parse("joy").unwrap());
        let mut entry = Entry::joined(Stamp::from_bits(1));
        (entry.mood, entry.mood_at) = (theirs.find("calm"), Stamp::from_bits(9));
        let change =
            Change { room: RoomId::try_from("lobby").unwrap(), person: PersonKey(1), entry: Some(entry) };
        let update = Update { from: header(), body: Body::Delta(vec![change]) };
        let bytes = update.encode(UpdateContext { moods: &theirs, now: 0, wall: wall() });
        let read = Update::decode(&bytes, UpdateContext { moods: &ours, now: 0, wall: wall() }).unwrap();
        let Body::Delta(changes) = read.body else { panic!("a delta") };
        let entry = changes[0].entry.as_ref().unwrap();
        assert_eq!((entry.mood, entry.mood_at), (None, Stamp::from_bits(9)));
    }

    #[test]
    fn stamp_far_ahead_is_clamped_and_the_state_of_the_entry_stays_known() {
        let moods = moods();
        let context = UpdateContext { moods: &moods, now: 0, wall: wall() };
        let far = Stamp::at(wall().plus(3_600_000));
        let mut entry = Entry::joined(far);
        (entry.mood, entry.mood_at) = (moods.find("calm"), far);
        let change =
            Change { room: RoomId::try_from("lobby").unwrap(), person: PersonKey(1), entry: Some(entry) };
        let bytes = Update { from: header(), body: Body::Delta(vec![change]) }.encode(context);
        let Body::Delta(changes) = Update::decode(&bytes, context).unwrap().body else { panic!("a delta") };
        let entry = changes[0].entry.as_ref().unwrap();
        assert_eq!((entry.last_joined(), entry.mood_at), (far.clamped(wall()), far.clamped(wall())));
        assert_eq!(entry.changed, far, "the sum of the share is that of the node");
    }

    #[test]
    fn message_of_an_unknown_version_is_rejected_by_name() {
        let moods = moods();
        let context = UpdateContext { moods: &moods, now: 0, wall: wall() };
        assert_eq!(Update::decode(&[9, 1, 2], context), Err(BadUpdate::Version(9)));
        assert_eq!(Update::decode(&[], context), Err(BadUpdate::Broken));
    }
}
