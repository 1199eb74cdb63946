//! The boundary: whether a stream of frames stands between two messages.
//!
//! An idle socket stands there nearly always, and what stands there needs no parser and no buffer. The
//! parser does not tell, so this follows the frames' headers (RFC 6455, section 5.2) and nothing else;
//! judging them is the parser's business.

/// A position in a stream of frames.
#[derive(Debug, Clone, Default)]
pub struct Boundary {
    /// The header that is being read, up to its length.
    header: [u8; 10],
    /// How much of it has come.
    header_len: usize,
    /// Bytes of the current frame, with its mask, that are still to come.
    left: u64,
    /// The last data frame was not its message's last.
    in_message: bool,
}

impl Boundary {
    /// Whether every message that has begun has ended.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.left == 0 && self.header_len == 0 && !self.in_message
    }

    /// These bytes have come.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= taken as u64;
                bytes = bytes.get(taken..).unwrap_or_default();
            } else {
                if let Some(next) = self.header.get_mut(self.header_len) {
                    *next = *first;
                }
                self.header_len += 1;
                bytes = rest;
                self.end_header();
            }
        }
    }

    fn end_header(&mut self) {
        let [first, second, length @ ..] = self.header;
        let (is_data, is_final, is_masked) = (first & 0x08 == 0, first & 0x80 != 0, second & 0x80 != 0);
        let (header_len, length) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
            127 => (10, u64::from_be_bytes(length)),
            short => (2, u64::from(short)),
        };
        if self.header_len < header_len.max(2) {
            return;
        }
        if is_data {
            self.in_message = !is_final;
        }
        self.left = length.saturating_add(if is_masked { 4 } else { 0 });
        self.header_len = 0;
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
            let mut boundary = Boundary::default();
            let mut in_message = false;
            for (bytes, data) in frames {
                for (index, chunk) in bytes.chunks(cut).enumerate() {
                    prop_assert!(index == 0 || !boundary.is_between_messages());
                    boundary.advance(chunk);
                }
                in_message = data.map_or(in_message, |is_final| !is_final);
                prop_assert_eq!(boundary.is_between_messages(), !in_message);
            }
        }
    }
}
