//! The tracker: whether a stream of frames stands between two messages.
//!
//! An idle socket stands there nearly always, and what stands there needs no parser and no buffer. The
//! parser does not tell, so this follows the frames' headers (RFC 6455, section 5.2) and nothing else;
//! judging them is the parser's business. Nor does the parser say how many frames there were, of which
//! a message may have any number without payload: they are counted here.

/// The shortest frames that a message may be cut into all along, in bytes. Nobody who cuts one for a reason sends
/// shorter ones.
const MIN_FRAME_SIZE: usize = 64;

/// A position in a stream of frames.
#[derive(Debug, Clone)]
pub struct FrameTracker {
    /// The header that is being read, up to its length.
    header: [u8; 10],
    /// How much of it has come.
    header_len: usize,
    /// Bytes of the current frame, with its mask, that are still to come.
    left: u64,
    /// Frames of the message that has begun and not ended.
    frames: u32,
    /// How many a message may have.
    max_frames: u32,
    /// The last message has more.
    has_too_many_frames: bool,
}

/// What some bytes were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumed {
    /// Headers of frames that ended in them.
    pub frames: u32,
    /// How many of the bytes come before a message has too many frames: all, where none has.
    pub bytes: usize,
}

impl FrameTracker {
    /// The beginning of a stream of messages that are at most so many bytes long.
    #[must_use]
    pub fn new(message_limit: usize) -> Self {
        let max_frames = u32::try_from(message_limit / MIN_FRAME_SIZE).unwrap_or(u32::MAX).max(1);
        Self { header: [0; 10], header_len: 0, left: 0, frames: 0, max_frames, has_too_many_frames: false }
    }

    /// Whether every message that has begun has ended.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.left == 0 && self.header_len == 0 && self.frames == 0
    }

    /// Whether a message has more frames than it may. Then nothing that follows is looked at.
    #[must_use]
    pub fn has_too_many_frames(&self) -> bool {
        self.has_too_many_frames
    }

    /// These bytes have come.
    pub fn advance(&mut self, bytes: &[u8]) -> Consumed {
        let (mut rest, mut frames) = (bytes, 0);
        while let Some((first, behind)) = rest.split_first().filter(|_| !self.has_too_many_frames) {
            if self.left > 0 {
                let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                self.left -= taken as u64;
                rest = rest.get(taken..).unwrap_or_default();
                continue;
            }
            if let Some(next) = self.header.get_mut(self.header_len) {
                *next = *first;
            }
            self.header_len += 1;
            frames += u32::from(self.complete_header());
            if !self.has_too_many_frames {
                rest = behind;
            }
        }
        Consumed { frames, bytes: bytes.len() - rest.len() }
    }

    /// Takes the header in, if it has come whole.
    fn complete_header(&mut self) -> bool {
        let [first, second, length @ ..] = self.header;
        let (is_data, is_final, is_masked) = (first & 0x08 == 0, first & 0x80 != 0, second & 0x80 != 0);
        let (header_len, length) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
            127 => (10, u64::from_be_bytes(length)),
            short => (2, u64::from(short)),
        };
        if self.header_len < header_len {
            return false;
        }
        if is_data {
            self.has_too_many_frames = self.frames >= self.max_frames;
            self.frames = if is_final { 0 } else { self.frames + 1 };
        }
        self.left = length.saturating_add(if is_masked { 4 } else { 0 });
        self.header_len = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    fn bytes(frame: Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        bytes
    }

    fn frame() -> impl Strategy<Value = (Vec<u8>, Option<bool>)> {
        let length = prop_oneof![0..200_usize, 65_000..67_000_usize];
        (length, any::<bool>(), any::<bool>(), 0..4_u8).prop_map(|(length, is_final, masked, kind)| {
            let mut frame = match kind {
                0 => Frame::ping(vec![0; length.min(125)]),
                _ => Frame::message(vec![0; length], OpCode::Data(Data::Text), is_final),
            };
            if masked {
                frame.header_mut().mask = Some([1, 2, 3, 4]);
            }
            (bytes(frame), (kind > 0).then_some(is_final))
        })
    }

    proptest! {
        #[test]
        fn it_is_known_after_every_byte(frames in proptest::collection::vec(frame(), 1..6), cut in 1..5_000_usize) {
            let mut tracker = FrameTracker::new(1_000);
            let mut in_message = false;
            for (bytes, data) in frames {
                for (index, chunk) in bytes.chunks(cut).enumerate() {
                    prop_assert!(index == 0 || !tracker.is_between_messages());
                    prop_assert_eq!(tracker.advance(chunk).bytes, chunk.len());
                }
                in_message = data.map_or(in_message, |is_final| !is_final);
                prop_assert_eq!(tracker.is_between_messages(), !in_message);
            }
        }

        #[test]
        fn message_in_too_many_frames_ends_before_the_first_too_many(cut in 1..400_usize, early in 0..3_usize) {
            let message = bytes(Frame::message(vec![0; 3], OpCode::Data(Data::Text), true));
            let [begin, empty] = [Data::Text, Data::Continue]
                .map(|data| bytes(Frame::message(Vec::new(), OpCode::Data(data), false)));
            let ping = bytes(Frame::ping(Vec::new()));
            let good = [message.repeat(early), begin, [empty.clone(), ping].concat().repeat(63)].concat();
            let stream = [good.clone(), empty.repeat(100)].concat();
            let (mut tracker, mut frames, mut taken) = (FrameTracker::new(4_096), 0, 0);
            for chunk in stream.chunks(cut) {
                let consumed = tracker.advance(chunk);
                (frames, taken) = (frames + consumed.frames, taken + consumed.bytes);
            }
            prop_assert!(tracker.has_too_many_frames());
            // The header of the 65th frame is not whole, so that no parser sees it.
            prop_assert_eq!(taken, good.len() + 1);
            prop_assert_eq!(frames as usize, early + 64 + 63 + 1);
        }
    }
}
