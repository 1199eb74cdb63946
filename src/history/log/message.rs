//! Messages of the log, as bytes.
//!
//! A version, a kind, the run of the node that published it and its number there; then the body in a zlib stream: of a
//! batch JSON Lines of the export format, of a command its JSON. A replacement is a batch without the events of erased
//! visitors, and names the positions of the messages that it stands for. A hub reads its own version and the one before.
//! What it cannot read it skips. Parsing is bounded by the sizes before and after inflation. Pure.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;
use uuid::Uuid;

use super::command::Command;
use crate::history::archive::parse_line;
#[cfg(feature = "internals")]
use crate::history::event::merged;
use crate::history::event::{Batch, TotalSample};
use crate::history::record::Record;
use crate::protocol::{Time, VisitorId};

/// The version that is written.
const VERSION: u8 = 1;

/// The versions that are read.
const READABLE: std::ops::RangeInclusive<u8> = 1..=VERSION;

/// The kind of a message whose body is a batch.
const BATCH: u8 = 0;

/// The kind of a message whose body is a command.
const COMMAND: u8 = 1;

/// The kind of a message that stands for others: before the batch it has their number, as 16 bits, and positions.
const REPLACEMENT: u8 = 2;

/// The most bytes of a message. NATS accepts a megabyte by default.
pub(crate) const MESSAGE_LIMIT: usize = 256 * 1024;

/// The most bytes of a batch after inflation: all that [`PART_BYTES`] of events can become, if each character is
/// escaped, and some more for later versions.
const INFLATED_LIMIT: usize = 2 * 1024 * 1024;

/// Memory of the events of one message, in bytes. Their JSON is shorter with usual texts.
pub(crate) const PART_BYTES: usize = 192 * 1024;

/// Version, kind, origin and number.
const HEAD: usize = 2 + 16 + 8;

/// A message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMessage {
    /// The version is a newer one, or one that is not read any more.
    #[error("version {0} of log messages is not readable")]
    Version(u8),
    /// The kind is one of a newer version.
    #[error("log messages of kind {0} are not known")]
    Kind(u8),
    /// It is too short, or its body is no zlib stream.
    #[error("the message is broken")]
    Broken,
    /// Its body is too large.
    #[error("the message has more than {INFLATED_LIMIT} bytes after inflation")]
    TooLarge,
    /// The command is one of a newer version.
    #[error("the command is not known: {0}")]
    Command(String),
    /// A line is no valid record.
    #[error("line {line}: {error}")]
    Record {
        /// The number of the line, from 1 on.
        line: usize,
        /// The field and its rule.
        error: String,
    },
}

/// One run of a node, which numbers its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin(Uuid);

impl Origin {
    /// A run that begins now.
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

/// Which message this is: by it the log removes repeats, and a node knows its own messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageId {
    /// The run that published it.
    pub origin: Origin,
    /// Its number in that run.
    pub number: u64,
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.origin.0.simple(), self.number)
    }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// Events.
    Events(Batch),
    /// A command.
    Command(Command),
}

/// A message, with the events that are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// Its id.
    pub id: MessageId,
    /// The events that it carries.
    pub batch: Batch,
    /// Its bytes, at most [`MESSAGE_LIMIT`].
    pub message: Bytes,
}

/// Numbers the messages of a run.
#[derive(Debug)]
pub(crate) struct Encoder {
    origin: Origin,
    next: u64,
}

/// The number from which on a run numbers what it publishes again.
const AGAIN: u64 = 1 << 63;

impl Encoder {
    /// The messages of a run.
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin, next: 0 }
    }

    /// The messages of a run that it publishes again, for the time with this number, from 0 on.
    pub(crate) fn again(origin: Origin, time: u64) -> Self {
        Self { origin, next: AGAIN + (time << 40) }
    }

    /// The run.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// The id of a message of this run.
    pub(crate) fn id(&self, number: u64) -> MessageId {
        MessageId { origin: self.origin, number }
    }

    /// Goes on as another run, so that this node applies what it published before as if another node had.
    pub(crate) fn renew(&mut self) {
        self.origin = Origin::new();
    }

    /// Encodes a command.
    pub(crate) fn command(&mut self, command: &Command) -> Encoded {
        let id = self.id(self.next);
        self.next += 1;
        // A command has no map, and memory has no write errors.
        let text = serde_json::to_vec(command).unwrap_or_default();
        Encoded { id, batch: Batch::default(), message: message(COMMAND, id, &[], &text) }
    }

    /// Encodes events, in several messages if one would be too large.
    pub(crate) fn encode(&mut self, mut batch: Batch) -> Vec<Encoded> {
        batch.samples = batch.samples.into_iter().flat_map(TotalSample::split).collect();
        let (mut waiting, mut encoded) = (vec![batch], Vec::new());
        while let Some(mut batch) = waiting.pop() {
            if batch.is_empty() {
                continue;
            }
            let id = self.id(self.next);
            let lines = lines(&batch);
            let message = message(BATCH, id, &[], &lines);
            let is_small = lines.len() <= INFLATED_LIMIT && message.len() <= MESSAGE_LIMIT;
            // One event is always small enough: its texts and rooms are bounded.
            if is_small || batch.len() == 1 {
                self.next += 1;
                encoded.push(Encoded { id, batch, message });
            } else {
                let first = batch.split_front(batch.bytes() / 2);
                waiting.extend([batch, first]);
            }
        }
        encoded
    }
}

/// Returns a batch as JSON Lines.
fn lines(batch: &Batch) -> Vec<u8> {
    let mut lines = Vec::with_capacity(PART_BYTES);
    for record in Record::of(batch.clone()) {
        // A record has no map with other keys than texts, and memory has no write errors.
        if serde_json::to_writer(&mut lines, &record).is_ok() {
            lines.push(b'\n');
        }
    }
    lines
}

fn message(kind: u8, id: MessageId, positions: &[u64], text: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(HEAD + text.len() / 4);
    message.extend([VERSION, kind]);
    message.extend(id.origin.0.as_bytes());
    message.extend(id.number.to_be_bytes());
    if kind == REPLACEMENT {
        message.extend(u16::try_from(positions.len()).unwrap_or(u16::MAX).to_be_bytes());
        message.extend(positions.iter().take(u16::MAX.into()).flat_map(|position| position.to_be_bytes()));
    }
    let mut zlib = ZlibEncoder::new(message, Compression::fast());
    // Memory has no write errors.
    let finished = zlib.write_all(text).and_then(|()| zlib.finish());
    finished.unwrap_or_default().into()
}

/// Returns the id of a message.
/// Errors: this version cannot read it.
pub(crate) fn id_of(message: &[u8]) -> Result<MessageId, BadMessage> {
    Ok(Parts::of(message)?.id)
}

/// Returns the positions of the messages that a message stands for.
pub(crate) fn replaced(message: &[u8]) -> Vec<u64> {
    Parts::of(message).map(|parts| parts.positions).unwrap_or_default()
}

/// Returns what a message says.
/// Errors: this version cannot read it, or it breaks a rule. Nothing of it is used then.
pub(crate) fn decode(message: &[u8]) -> Result<Body, BadMessage> {
    let parts = Parts::of(message)?;
    let text = inflate(parts.body)?;
    let text = str::from_utf8(&text).map_err(|_| BadMessage::Broken)?;
    if parts.kind == COMMAND {
        let command = serde_json::from_str(text).map_err(|error| BadMessage::Command(error.to_string()))?;
        return Ok(Body::Command(command));
    }
    let mut batch = Batch::default();
    for (line, text) in (1..).zip(text.lines()) {
        batch.append(parse_line(text).map_err(|error| BadMessage::Record { line, error })?);
    }
    Ok(Body::Events(batch))
}

fn inflate(body: &[u8]) -> Result<Vec<u8>, BadMessage> {
    let mut text = Vec::new();
    let mut zlib = ZlibDecoder::new(body);
    let limit = INFLATED_LIMIT as u64 + 1;
    Read::take(&mut zlib, limit).read_to_end(&mut text).map_err(|_| BadMessage::Broken)?;
    if text.len() > INFLATED_LIMIT {
        return Err(BadMessage::TooLarge);
    }
    Ok(text)
}

/// Returns a message with the same id and only the events of which `is_kept` returns true; none if these are all, or if it
/// has no events that can be read.
pub(crate) fn without(bytes: &[u8], is_kept: impl Fn(&VisitorId, Time) -> bool) -> Option<Bytes> {
    let (parts, rest) = rest_of(bytes, is_kept)?;
    Some(message(parts.kind, parts.id, &parts.positions, &lines(&rest)))
}

/// As [`without`], as a message that stands for the one at a position and for those that this one stood for.
pub(crate) fn replacement(
    position: u64,
    bytes: &[u8],
    is_kept: impl Fn(&VisitorId, Time) -> bool,
) -> Option<(MessageId, Bytes)> {
    let (Parts { id, mut positions, .. }, rest) = rest_of(bytes, is_kept)?;
    positions.push(position);
    Some((id, message(REPLACEMENT, id, &positions, &lines(&rest))))
}

fn rest_of(bytes: &[u8], is_kept: impl Fn(&VisitorId, Time) -> bool) -> Option<(Parts<'_>, Batch)> {
    let Body::Events(mut batch) = decode(bytes).ok()? else { return None };
    let parts = Parts::of(bytes).ok()?;
    (batch.retain(is_kept) > 0).then_some((parts, batch))
}

/// A message that is not inflated.
struct Parts<'a> {
    kind: u8,
    id: MessageId,
    positions: Vec<u64>,
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(message: &'a [u8]) -> Result<Self, BadMessage> {
        let (head, mut body) = message.split_at_checked(HEAD).ok_or(BadMessage::Broken)?;
        let [version, kind, rest @ ..] = head else { return Err(BadMessage::Broken) };
        if !READABLE.contains(version) {
            return Err(BadMessage::Version(*version));
        }
        let (origin, number) = rest.split_first_chunk::<16>().ok_or(BadMessage::Broken)?;
        let number = number.first_chunk::<8>().ok_or(BadMessage::Broken)?;
        let origin = Origin(Uuid::from_bytes(*origin));
        let id = MessageId { origin, number: u64::from_be_bytes(*number) };
        let mut positions = Vec::new();
        match *kind {
            BATCH | COMMAND => {}
            REPLACEMENT => {
                let (count, rest) = body.split_first_chunk().ok_or(BadMessage::Broken)?;
                let length = usize::from(u16::from_be_bytes(*count)) * 8;
                let (numbers, rest) = rest.split_at_checked(length).ok_or(BadMessage::Broken)?;
                let number = |bytes: &[u8]| bytes.first_chunk().copied().map(u64::from_be_bytes);
                positions.extend(numbers.chunks(8).filter_map(number));
                body = rest;
            }
            other => return Err(BadMessage::Kind(other)),
        }
        Ok(Self { kind: *kind, id, positions, body })
    }
}

/// Returns whether what a message says is the same after it is written and read again; none if it cannot be read. For the
/// fuzz target.
#[cfg(feature = "internals")]
#[must_use]
pub fn is_same_when_rewritten(bytes: &[u8]) -> Option<bool> {
    let mut encoder = Encoder::new(Origin::new());
    let once = match decode(bytes).ok()? {
        Body::Events(once) => once,
        Body::Command(command) => {
            let Encoded { message, .. } = encoder.command(&command);
            return Some(decode(&message) == Ok(Body::Command(command)));
        }
    };
    let mut again = Batch::default();
    for Encoded { message, .. } in encoder.encode(once.clone()) {
        match decode(&message) {
            Ok(Body::Events(part)) if message.len() <= MESSAGE_LIMIT => again.append(part),
            _ => return Some(false),
        }
    }
    // A sample of many rooms is in several parts.
    let whole = |batch: Batch| Batch { samples: merged(batch.samples), ..batch };
    Some(whole(once) == whole(again))
}

/// Returns a message with these lines. For the fuzz target.
#[cfg(feature = "internals")]
#[must_use]
pub fn log_message_of(lines: &[u8]) -> Bytes {
    message(BATCH, MessageId { origin: Origin(Uuid::nil()), number: 0 }, &[], lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Actor, Mergeable, PageViewEvent, RoomSample};
    use crate::history::log::command::{ErasureKey, MOST_ERASED};
    use crate::protocol::{RoomId, Time};

    fn events(message: &[u8]) -> Batch {
        let Ok(Body::Events(batch)) = decode(message) else { panic!("no events") };
        batch
    }

    fn view(number: u128, path: &str) -> PageViewEvent {
        let actor = Actor { room: "r".try_into().unwrap(), visitor: "v".try_into().unwrap(), is_bot: false };
        let (path, at) = (path.to_owned().try_into().unwrap(), Time::from_millis(1));
        PageViewEvent {
            actor,
            id: Uuid::from_u128(number),
            path,
            title: None,
            referrer: None,
            at,
            props: None,
        }
    }

    fn views(paths: impl IntoIterator<Item = String>) -> Batch {
        let views = (1..).zip(paths).map(|(number, path)| view(number, &path));
        Batch { page_views: views.collect(), ..Batch::default() }
    }

    #[test]
    fn batch_is_read_as_it_was_written() {
        let watch = r#"{"type":"watch","id":"018f0e6e-0000-7000-8000-000000000001","room":"r","visitor":"v","content":"f",
            "state":"paused","at":9,"watchedMs":5,"startedAt":1,"seenAt":8,"positionMs":4,"positionAt":7,"durationMs":99,
            "props":{"a":"b"},"propsAt":6}"#;
        let mut batch = views(["/".to_owned(), "/\u{1}\"ü".to_owned()]);
        batch.append(parse_line(&watch.replace('\n', "")).unwrap());
        let sample = r#"{"type":"census","id":"018f0e6e-0000-7000-8000-000000000002","at":1,"hub":{"presentMs":1,"peak":1,
            "joins":1,"moodsMs":{}},"rooms":{}}"#;
        batch.append(parse_line(&sample.replace('\n', "")).unwrap());
        let mut run = Encoder::new(Origin::new());
        let first = run.encode(batch.clone());
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].batch, batch);
        assert_eq!(decode(&first[0].message), Ok(Body::Events(batch.clone())));
        assert_eq!(id_of(&first[0].message), Ok(first[0].id));
        let next = run.encode(batch);
        assert_ne!(next[0].id, first[0].id);
        assert_eq!(next[0].id.origin, run.origin());
        assert_eq!(run.encode(Batch::default()), []);
    }

    #[test]
    fn sample_of_many_rooms_becomes_several_messages() {
        let moods = (0..32).map(|number| (format!("{number:032}"), 59_999 - number)).collect();
        let room = RoomSample { present_ms: 1, moods_ms: moods, ..RoomSample::default() };
        let name = |_| RoomId::try_from(Uuid::new_v4().to_string()).unwrap();
        let sample = TotalSample {
            id: Uuid::from_u128(1),
            at: Time::from_millis(1),
            nodes: std::collections::BTreeSet::new(),
            hub: RoomSample::default(),
            rooms: (0..5_000).map(|number| (name(number), room.clone())).collect(),
        };
        let encoded =
            Encoder::new(Origin::new()).encode(Batch { samples: vec![sample.clone()], ..Batch::default() });
        assert!(encoded.len() > 1 && encoded.iter().all(|encoded| encoded.message.len() <= MESSAGE_LIMIT));
        let decoded: Batch = encoded.iter().map(|encoded| events(&encoded.message)).collect();
        assert_eq!(decoded.samples.into_iter().reduce(TotalSample::merge), Some(sample));
    }

    #[test]
    fn batch_that_is_too_large_becomes_several_messages() {
        // Random texts do not become shorter.
        let random =
            (0..4_000).map(|_| (0..12).map(|_| Uuid::new_v4().simple().to_string()).collect::<String>());
        // Each character is escaped with six.
        for paths in [random.collect::<Vec<_>>(), vec!["\u{1}".repeat(512); 4_000]] {
            let batch = views(paths);
            let encoded = Encoder::new(Origin::new()).encode(batch.clone());
            assert!(encoded.len() > 1);
            assert!(encoded.iter().all(|encoded| encoded.message.len() <= MESSAGE_LIMIT));
            let decoded: Batch = encoded.iter().map(|encoded| events(&encoded.message)).collect();
            assert_eq!(decoded, batch);
            assert_eq!(encoded.iter().map(|encoded| encoded.batch.clone()).collect::<Batch>(), batch);
        }
    }

    #[test]
    fn unreadable_message_is_an_error_with_its_rule() {
        let id = MessageId { origin: Origin::new(), number: 7 };
        let good = message(BATCH, id, &[], &lines(&views(["/".to_owned()]))).to_vec();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(decode(&with(0, 2)), Err(BadMessage::Version(2)));
        assert_eq!(decode(&with(0, 0)), Err(BadMessage::Version(0)));
        assert!(matches!(decode(&with(1, COMMAND)), Err(BadMessage::Command(_))));
        assert_eq!(decode(&with(1, REPLACEMENT)), Err(BadMessage::Broken));
        assert_eq!(decode(&with(1, 3)), Err(BadMessage::Kind(3)));
        assert_eq!(decode(&with(HEAD, 0xff)), Err(BadMessage::Broken));
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]), Err(BadMessage::Broken), "{length}");
        }
        let bomb = message(BATCH, id, &[], &vec![b'\n'; 50_000_000]);
        assert!(bomb.len() < MESSAGE_LIMIT, "{}", bomb.len());
        assert_eq!(decode(&bomb), Err(BadMessage::TooLarge));
        let bad = message(BATCH, id, &[], b"{\"type\":\"page-view\"}\n");
        assert!(matches!(decode(&bad), Err(BadMessage::Record { line: 1, .. })));
        assert_eq!(decode(&message(BATCH, id, &[], &[0xff])), Err(BadMessage::Broken));
    }

    #[test]
    fn command_is_read_as_it_was_written_and_one_of_a_later_version_is_an_error() {
        let key = ErasureKey::derive("t", "c");
        let one = |n: u64| key.erasure(key.hash(&n.to_string()), Time::from_millis(n));
        let command = Command::Erase { visitors: (0..MOST_ERASED as u64).map(one).collect() };
        let mut run = Encoder::new(Origin::new());
        let encoded = run.command(&command);
        assert!(encoded.message.len() <= MESSAGE_LIMIT, "{}", encoded.message.len());
        assert_eq!(decode(&encoded.message), Ok(Body::Command(command)));
        assert_ne!(run.encode(views(["/".to_owned()]))[0].id, encoded.id);
        assert_eq!(without(&encoded.message, |_, _| false), None);
        let later = message(COMMAND, encoded.id, &[], br#"{"command":"ban","rooms":[]}"#);
        assert!(matches!(decode(&later), Err(BadMessage::Command(error)) if error.contains("ban")));
    }

    #[test]
    fn replacement_has_the_other_events_and_names_what_it_stands_for() {
        let mut batch = views(["/a".to_owned(), "/b".to_owned(), "/c".to_owned()]);
        batch.page_views[0].actor.visitor = "ann".try_into().unwrap();
        batch.page_views[1].actor.visitor = "bob".try_into().unwrap();
        let encoded = Encoder::new(Origin::new()).encode(batch.clone()).remove(0);
        let not = |name: &'static str| move |visitor: &VisitorId, _: Time| visitor.as_str() != name;
        assert_eq!(replacement(7, &encoded.message, not("cid")), None);
        let (id, first) = replacement(7, &encoded.message, not("ann")).unwrap();
        assert_eq!((id, replaced(&first)), (encoded.id, vec![7]));
        assert_eq!(events(&first).page_views, batch.page_views[1..]);
        let (_, second) = replacement(9, &first, not("bob")).unwrap();
        assert_eq!(replaced(&second), [7, 9]);
        assert_eq!(events(&second).page_views, batch.page_views[2..]);
        assert_eq!(replaced(&without(&first, not("bob")).unwrap()), [7]);
        assert!(replaced(&encoded.message).is_empty());
    }

    #[test]
    fn memory_of_a_message_is_bounded_by_its_inflated_size() {
        let line = r#"{"type":"page-view","id":"018f0e6e00007000800000000000001f","room":"r","visitor":"v","path":"/","at":1}"#;
        let lines = format!("{line}\n").repeat(INFLATED_LIMIT / (line.len() + 1));
        let id = MessageId { origin: Origin::new(), number: 7 };
        let Ok(Body::Events(batch)) = decode(&message(BATCH, id, &[], lines.as_bytes())) else {
            panic!("a message")
        };
        assert_eq!(batch.len(), lines.lines().count());
        assert!(batch.bytes() < 6 * INFLATED_LIMIT, "{}", batch.bytes());
    }
}
