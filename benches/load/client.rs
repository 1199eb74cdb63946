//! One non-blocking WebSocket client of the swarm: upgrade, frames in, frames out.
//!
//! It keeps the last snapshot as received and answers pings. It calls back with each text message and
//! does not interpret it.

use std::io::{ErrorKind, Read, Write};
use std::mem;

use mio::Registry;
use mio::net::TcpStream;

use crate::Outcome;
use crate::websocket::{self, ACCEPT, CLOSE, PING, PONG, TEXT};

/// The first bytes of messages that say nothing about the room. A server that does not know pings answers with an error.
const NO_SNAPSHOTS: [&[u8]; 4] =
    [br#"{"type":"ack""#, br#"{"type":"pong""#, br#"{"type":"keepalive""#, br#"{"type":"error""#];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The TCP connection is not open yet; the request waits.
    Connecting,
    /// The response to the upgrade is incomplete.
    Upgrading,
    Open,
    /// A close frame was sent: the server may end the socket in any way.
    Closing,
}

/// Counters over all clients of a swarm.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counters {
    /// Clients that have received their first message.
    pub(crate) welcomed: usize,
    /// Text messages, welcomes included.
    pub(crate) texts: usize,
    pub(crate) pings: usize,
    /// Bytes of frames and of responses to upgrades, received and sent.
    pub(crate) bytes_in: usize,
    pub(crate) bytes_out: usize,
}

#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    phase: Phase,
    unsent: Vec<u8>,
    unread: Vec<u8>,
    /// The newest text message about the room.
    pub(crate) last: Vec<u8>,
    pub(crate) texts: u32,
}

/// Whether a socket is still open after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadResult {
    Open,
    Ended,
}

impl Client {
    /// A client whose TCP connection is being opened, with its upgrade request.
    pub(crate) fn new(stream: TcpStream, request: String) -> Self {
        let unsent = request.into_bytes();
        Self { stream, phase: Phase::Connecting, unsent, unread: Vec::new(), last: Vec::new(), texts: 0 }
    }

    pub(crate) fn is_welcomed(&self) -> bool {
        self.texts > 0
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// Appends a frame to the send buffer.
    pub(crate) fn queue(&mut self, opcode: u8, payload: &[u8], counters: &mut Counters) {
        let before = self.unsent.len();
        websocket::append_masked(&mut self.unsent, opcode, payload);
        counters.bytes_out += self.unsent.len() - before;
        if opcode == CLOSE {
            self.phase = Phase::Closing;
        }
    }

    /// Sends until the socket would block; the rest is sent when it is writable.
    pub(crate) fn flush(&mut self) -> Outcome {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) if self.phase == Phase::Closing => self.unsent.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the socket from the poll. Frames are still sent where the socket does not block.
    pub(crate) fn stop_reading(&mut self, registry: &Registry) -> Outcome {
        Ok(registry.deregister(&mut self.stream)?)
    }

    /// Handles a writable socket.
    pub(crate) fn on_writable(&mut self) -> Outcome {
        if self.phase == Phase::Connecting {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            self.phase = Phase::Upgrading;
        }
        self.flush()
    }

    /// Handles a readable socket. The poll is edge-triggered: a short read has emptied the socket, unless its end
    /// is announced (`to_end`).
    pub(crate) fn on_readable(
        &mut self,
        to_end: bool,
        buffer: &mut [u8],
        counters: &mut Counters,
        on_text: &mut dyn FnMut(&[u8]),
    ) -> Outcome<ReadResult> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.phase == Phase::Closing => return Ok(ReadResult::Ended),
                Ok(0) => return Err("the server ended a socket".into()),
                Ok(read) => {
                    self.receive(&buffer[..read], counters, on_text)?;
                    if read < buffer.len() && !to_end {
                        return Ok(ReadResult::Open);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(ReadResult::Open),
                Err(_) if self.phase == Phase::Closing => return Ok(ReadResult::Ended),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn receive(&mut self, bytes: &[u8], counters: &mut Counters, on_text: &mut dyn FnMut(&[u8])) -> Outcome {
        counters.bytes_in += bytes.len();
        if self.unread.is_empty() {
            let used = self.parse(bytes, counters, on_text)?;
            self.unread.extend_from_slice(&bytes[used..]);
        } else {
            let mut unread = mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let used = self.parse(&unread, counters, on_text)?;
            self.unread.extend_from_slice(&unread[used..]);
        }
        Ok(())
    }

    /// Handles the complete frames and returns how many bytes they have.
    fn parse(
        &mut self,
        bytes: &[u8],
        counters: &mut Counters,
        on_text: &mut dyn FnMut(&[u8]),
    ) -> Outcome<usize> {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = websocket::head_length(bytes) else { return Ok(0) };
            let text = String::from_utf8_lossy(&bytes[..end]);
            if !text.starts_with("HTTP/1.1 101 ") || !text.contains(ACCEPT) {
                return Err(format!("the server refused an upgrade: {text}").into());
            }
            self.phase = Phase::Open;
            used = end;
        }
        while let Some(frame) = websocket::first_frame(&bytes[used..])? {
            used += frame.length;
            match frame.opcode {
                TEXT => {
                    counters.texts += 1;
                    counters.welcomed += usize::from(self.texts == 0);
                    self.texts += 1;
                    if !NO_SNAPSHOTS.iter().any(|start| frame.payload.starts_with(start)) {
                        self.last.clear();
                        self.last.extend_from_slice(frame.payload);
                    }
                    on_text(frame.payload);
                }
                PING => {
                    counters.pings += 1;
                    self.queue(PONG, frame.payload, counters);
                    self.flush()?;
                }
                CLOSE if self.phase == Phase::Closing => {}
                CLOSE => {
                    let code = frame.payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    return Err(format!("the server closed a socket with {code:?}").into());
                }
                other => return Err(format!("a frame with the opcode {other:#x}").into()),
            }
        }
        Ok(used)
    }
}
