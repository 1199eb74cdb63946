//! Messages of the log, as bytes.
//!
//! A version, a kind, the run of the node that published it and its number there; then the body, which for a batch is
//! JSON Lines of the export format in a zlib stream. A hub reads its own version and the one before. What it cannot
//! read it skips. Parsing is bounded by the sizes before and after inflation. Pure.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;
use uuid::Uuid;

use crate::history::archive::parse_line;
use crate::history::event::{Batch, TotalSample};
use crate::history::record::Record;
use crate::protocol::VisitorId;

/// The version that is written.
const VERSION: u8 = 1;

/// The versions that are read.
const READABLE: std::ops::RangeInclusive<u8> = 1..=VERSION;

/// The kind of a message whose body is a batch. 1 is for commands, which no version writes yet.
const BATCH: u8 = 0;

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

    /// The messages of a run that it publishes again.
    pub(crate) fn again(origin: Origin) -> Self {
        Self { origin, next: AGAIN }
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
            let message = message(id, &lines);
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
    for record in Record::of(batch) {
        // A record has no map with other keys than texts, and memory has no write errors.
        if serde_json::to_writer(&mut lines, &record).is_ok() {
            lines.push(b'\n');
        }
    }
    lines
}

fn message(id: MessageId, lines: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(HEAD + lines.len() / 4);
    message.extend([VERSION, BATCH]);
    message.extend(id.origin.0.as_bytes());
    message.extend(id.number.to_be_bytes());
    let mut zlib = ZlibEncoder::new(message, Compression::fast());
    // Memory has no write errors.
    let finished = zlib.write_all(lines).and_then(|()| zlib.finish());
    finished.unwrap_or_default().into()
}

/// Returns the id of a message.
/// Errors: this version cannot read it.
pub(crate) fn id_of(message: &[u8]) -> Result<MessageId, BadMessage> {
    let (head, _) = split(message)?;
    Ok(head)
}

/// Returns the events of a message.
/// Errors: this version cannot read it, or it breaks a rule. Nothing of it is used then.
pub(crate) fn decode(message: &[u8]) -> Result<Batch, BadMessage> {
    let (_, body) = split(message)?;
    let mut lines = Vec::new();
    let mut zlib = ZlibDecoder::new(body);
    let limit = INFLATED_LIMIT as u64 + 1;
    Read::take(&mut zlib, limit).read_to_end(&mut lines).map_err(|_| BadMessage::Broken)?;
    if lines.len() > INFLATED_LIMIT {
        return Err(BadMessage::TooLarge);
    }
    let text = str::from_utf8(&lines).map_err(|_| BadMessage::Broken)?;
    let mut batch = Batch::default();
    for (line, text) in (1..).zip(text.lines()) {
        batch.append(parse_line(text).map_err(|error| BadMessage::Record { line, error })?);
    }
    Ok(batch)
}

/// Returns a message without the events of a visitor; none if it has none of them, or cannot be read.
pub(crate) fn without(bytes: &[u8], visitor: &VisitorId) -> Option<Bytes> {
    let (id, mut batch) = (id_of(bytes).ok()?, decode(bytes).ok()?);
    let before = batch.len();
    batch.page_views.retain(|view| view.actor.visitor != *visitor);
    batch.watches.retain(|watch| watch.actor.visitor != *visitor);
    (batch.len() < before).then(|| message(id, &lines(&batch)))
}

/// Splits a message into its id and its body.
fn split(message: &[u8]) -> Result<(MessageId, &[u8]), BadMessage> {
    let (head, body) = message.split_at_checked(HEAD).ok_or(BadMessage::Broken)?;
    let [version, kind, rest @ ..] = head else { return Err(BadMessage::Broken) };
    if !READABLE.contains(version) {
        return Err(BadMessage::Version(*version));
    }
    if *kind != BATCH {
        return Err(BadMessage::Kind(*kind));
    }
    let (origin, number) = rest.split_first_chunk::<16>().ok_or(BadMessage::Broken)?;
    let number = number.first_chunk::<8>().ok_or(BadMessage::Broken)?;
    let origin = Origin(Uuid::from_bytes(*origin));
    Ok((MessageId { origin, number: u64::from_be_bytes(*number) }, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Actor, Mergeable, PageViewEvent, RoomSample};
    use crate::protocol::{RoomId, Time};

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
        assert_eq!(decode(&first[0].message), Ok(batch.clone()));
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
        let decoded: Batch = encoded.iter().map(|encoded| decode(&encoded.message).unwrap()).collect();
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
            let decoded: Batch = encoded.iter().map(|encoded| decode(&encoded.message).unwrap()).collect();
            assert_eq!(decoded, batch);
            assert_eq!(encoded.iter().map(|encoded| encoded.batch.clone()).collect::<Batch>(), batch);
        }
    }

    #[test]
    fn unreadable_message_is_an_error_with_its_rule() {
        let id = MessageId { origin: Origin::new(), number: 7 };
        let good = message(id, &lines(&views(["/".to_owned()]))).to_vec();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(decode(&with(0, 2)), Err(BadMessage::Version(2)));
        assert_eq!(decode(&with(0, 0)), Err(BadMessage::Version(0)));
        assert_eq!(decode(&with(1, 1)), Err(BadMessage::Kind(1)));
        assert_eq!(decode(&with(HEAD, 0xff)), Err(BadMessage::Broken));
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]), Err(BadMessage::Broken), "{length}");
        }
        let bomb = message(id, &vec![b'\n'; 50_000_000]);
        assert!(bomb.len() < MESSAGE_LIMIT, "{}", bomb.len());
        assert_eq!(decode(&bomb), Err(BadMessage::TooLarge));
        let bad = message(id, b"{\"type\":\"page-view\"}\n");
        assert!(matches!(decode(&bad), Err(BadMessage::Record { line: 1, .. })));
        assert_eq!(decode(&message(id, &[0xff])), Err(BadMessage::Broken));
    }
}
