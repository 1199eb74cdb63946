//! WebSocket as the load tool needs it: one upgrade request, masked frames out, frame headers in.
//!
//! It is written from `docs/protocol.md` and RFC 6455, not from the hub's code, so that it finds the
//! hub's mistakes. Payloads are not copied or unmasked: most frames are only counted.

use std::fmt::Write;

use crate::Outcome;

/// The nonce of RFC 6455's example, which every client sends, and the accept value for it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The masking key of all client frames; not zero, so that masking is seen.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x9e];

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The length code of a payload length that follows in two bytes.
const LONG: u8 = 0x7e;

/// The request that opens a room's socket.
pub(crate) fn upgrade(room: &str, visitor: &str, mood: Option<&str>) -> String {
    let mut request = format!("GET /rooms/{room}/socket?visitor={visitor}");
    if let Some(mood) = mood {
        let _ = write!(request, "&mood={mood}");
    }
    let _ = write!(
        request,
        " HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: breathing-room.v1\r\n\r\n"
    );
    request
}

/// The length of an HTTP head with its empty line, or `None` where it is incomplete.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Appends a client's frame.
pub(crate) fn append_masked(buffer: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    append_header(buffer, opcode, payload.len(), 0x80);
    buffer.extend(MASK);
    buffer.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A server's text frame of this size, header included. The floor sends it.
pub(crate) fn text_frame(bytes: usize) -> Vec<u8> {
    let payload = bytes.saturating_sub(if bytes > 127 { 4 } else { 2 });
    let mut frame = Vec::with_capacity(bytes);
    append_header(&mut frame, TEXT, payload, 0);
    frame.resize(frame.len() + payload, b' ');
    frame
}

fn append_header(buffer: &mut Vec<u8>, opcode: u8, length: usize, mask: u8) {
    buffer.push(0x80 | opcode);
    match u8::try_from(length) {
        Ok(short) if short < LONG => buffer.push(mask | short),
        _ => {
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            buffer.push(mask | LONG);
            buffer.extend(length.to_be_bytes());
        }
    }
}

/// A complete frame.
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    /// As received, still masked where it was.
    pub(crate) payload: &'a [u8],
    /// Bytes of header and payload.
    pub(crate) length: usize,
}

/// Parses the first frame of `bytes`; `None` where it is incomplete.
pub(crate) fn first_frame(bytes: &[u8]) -> Outcome<Option<Frame<'_>>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 {
        return Err(format!("a frame begins with {first:#04x}: a fragment or a reserved bit").into());
    }
    let (length, rest) = match (second & 0x7f, rest) {
        (LONG, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        (127, _) => return Err("a frame of 64 KiB or more".into()),
        (LONG, _) => return Ok(None),
        (short, rest) => (usize::from(short), rest),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let Some(payload) = rest.get(mask..mask + length) else { return Ok(None) };
    let length = bytes.len() - rest.len() + mask + length;
    Ok(Some(Frame { opcode: first & 0x0f, payload, length }))
}
