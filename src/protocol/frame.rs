//! Encoded frames: the bytes of one whole WebSocket message from the hub (RFC 6455, section 5.2).
//!
//! A frame is encoded once, and can be written to any number of sockets.

use bytes::Bytes;
use serde::Serialize;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as Format;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::code::CloseCode;

/// Initial capacity: enough for a welcome, the longest frequent message, so that it is not reallocated.
const CAPACITY: usize = 512;

/// Encodes `message` as JSON.
#[expect(clippy::unreachable, reason = "messages are plain structs with string keys")]
pub(crate) fn to_json(message: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::with_capacity(CAPACITY);
    serde_json::to_writer(&mut json, message)
        .unwrap_or_else(|error| unreachable!("cannot encode a message as JSON: {error}"));
    json
}

/// A whole encoded frame. Clones share its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// A text message with `message` as JSON.
    pub(crate) fn json(message: &impl Serialize) -> Self {
        Self::text(to_json(message))
    }

    /// A text message.
    #[must_use]
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::format(Format::message(text, OpCode::Data(Data::Text), true))
    }

    /// A binary message, which the protocol does not have.
    #[must_use]
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self::format(Format::message(bytes, OpCode::Data(Data::Binary), true))
    }

    /// A ping without payload.
    pub(crate) fn ping() -> Self {
        Self::format(Format::ping(Bytes::new()))
    }

    /// A close frame with the code and its reason.
    pub(crate) fn close(code: CloseCode) -> Self {
        Self::format(Format::close(Some(CloseFrame {
            code: code.number().into(),
            reason: code.reason().into(),
        })))
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[expect(clippy::unreachable, reason = "writing to memory cannot fail")]
    fn format(frame: Format) -> Self {
        let mut bytes = Vec::with_capacity(frame.len());
        frame
            .format(&mut bytes)
            .unwrap_or_else(|error| unreachable!("cannot write a frame to memory: {error}"));
        Self(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_final_unmasked_and_have_the_right_length() {
        assert_eq!(Frame::json(&"hi").bytes(), b"\x81\x04\"hi\"");
        assert_eq!(Frame::ping().bytes(), b"\x89\x00");
        let long = Frame::json(&"x".repeat(200));
        assert_eq!(&long.bytes()[..4], &[0x81, 126, 0, 202]);
        let close = Frame::close(CloseCode::Restarting);
        assert_eq!(close.bytes()[0], 0x88);
        assert_eq!(&close.bytes()[2..4], &1012_u16.to_be_bytes());
    }
}
