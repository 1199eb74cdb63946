//! One socket of the swarm: upgrade, frames in, frames out, without ever blocking.
//!
//! It keeps the last message as it came and answers pings. Everything else is for the caller who is
//! told of every text; what a message means is not known here.

use std::io::{ErrorKind, Read, Write};
use std::mem;

use mio::Registry;
use mio::net::TcpStream;

use crate::Outcome;
use crate::websocket::{self, ACCEPT, CLOSE, PING, PONG, TEXT};

/// How an ack begins.
const ACK: &[u8] = br#"{"type":"ack""#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request waits for the connection.
    Connecting,
    /// The answer to the request is not whole yet.
    Upgrading,
    Open,
    /// A close frame was sent: whatever ends the socket now is right.
    Leaving,
}

/// What a swarm has seen so far, over all its members.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    /// Members whose first message is here.
    pub(crate) welcomed: usize,
    /// Text messages, the first ones included.
    pub(crate) texts: usize,
    pub(crate) pings: usize,
    /// Bytes of frames, and of answers to upgrades, in and out.
    pub(crate) bytes_in: usize,
    pub(crate) bytes_out: usize,
}

#[derive(Debug)]
pub(crate) struct Member {
    stream: TcpStream,
    phase: Phase,
    unsent: Vec<u8>,
    unread: Vec<u8>,
    /// The newest text message that is not an ack.
    pub(crate) last: Vec<u8>,
    pub(crate) texts: u32,
}

/// Whether the socket goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goes {
    On,
    Ended,
}

impl Member {
    /// A connection that is being made, and the request to be sent on it.
    pub(crate) fn new(stream: TcpStream, request: String) -> Self {
        let unsent = request.into_bytes();
        Self { stream, phase: Phase::Connecting, unsent, unread: Vec::new(), last: Vec::new(), texts: 0 }
    }

    pub(crate) fn is_welcomed(&self) -> bool {
        self.texts > 0
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }

    /// Puts a frame behind what is not sent yet.
    pub(crate) fn queue(&mut self, opcode: u8, payload: &[u8], tally: &mut Tally) {
        let before = self.unsent.len();
        websocket::masked(&mut self.unsent, opcode, payload);
        tally.bytes_out += self.unsent.len() - before;
        if opcode == CLOSE {
            self.phase = Phase::Leaving;
        }
    }

    /// Sends what the socket takes; the rest goes when it is writable.
    pub(crate) fn flush(&mut self) -> Outcome {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(taken) => drop(self.unsent.drain(..taken)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) if self.phase == Phase::Leaving => self.unsent.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Nothing is heard of the socket any more; what is said goes out where the socket takes it at once.
    pub(crate) fn stop_reading(&mut self, registry: &Registry) -> Outcome {
        Ok(registry.deregister(&mut self.stream)?)
    }

    /// The socket is writable.
    pub(crate) fn writable(&mut self) -> Outcome {
        if self.phase == Phase::Connecting {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            self.phase = Phase::Upgrading;
        }
        self.flush()
    }

    /// The socket is readable, edge-triggered: a short read has emptied it, unless its end is near.
    pub(crate) fn readable(
        &mut self,
        to_the_end: bool,
        buffer: &mut [u8],
        tally: &mut Tally,
        hear: &mut dyn FnMut(&[u8]),
    ) -> Outcome<Goes> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.phase == Phase::Leaving => return Ok(Goes::Ended),
                Ok(0) => return Err("the server ended a socket".into()),
                Ok(read) => {
                    self.take_in(&buffer[..read], tally, hear)?;
                    if read < buffer.len() && !to_the_end {
                        return Ok(Goes::On);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Goes::On),
                Err(_) if self.phase == Phase::Leaving => return Ok(Goes::Ended),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_in(&mut self, bytes: &[u8], tally: &mut Tally, hear: &mut dyn FnMut(&[u8])) -> Outcome {
        tally.bytes_in += bytes.len();
        if self.unread.is_empty() {
            let used = self.consume(bytes, tally, hear)?;
            self.unread.extend_from_slice(&bytes[used..]);
        } else {
            let mut unread = mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let used = self.consume(&unread, tally, hear)?;
            self.unread.extend_from_slice(&unread[used..]);
        }
        Ok(())
    }

    /// Takes in what is whole and says how many bytes that was.
    fn consume(&mut self, bytes: &[u8], tally: &mut Tally, hear: &mut dyn FnMut(&[u8])) -> Outcome<usize> {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = websocket::head(bytes) else { return Ok(0) };
            let text = String::from_utf8_lossy(&bytes[..end]);
            if !text.starts_with("HTTP/1.1 101 ") || !text.contains(ACCEPT) {
                return Err(format!("an upgrade was answered with {text}").into());
            }
            self.phase = Phase::Open;
            used = end;
        }
        while let Some(frame) = websocket::first_frame(&bytes[used..])? {
            used += frame.length;
            match frame.opcode {
                TEXT => {
                    tally.texts += 1;
                    tally.welcomed += usize::from(self.texts == 0);
                    self.texts += 1;
                    if !frame.payload.starts_with(ACK) {
                        self.last.clear();
                        self.last.extend_from_slice(frame.payload);
                    }
                    hear(frame.payload);
                }
                PING => {
                    tally.pings += 1;
                    self.queue(PONG, frame.payload, tally);
                    self.flush()?;
                }
                CLOSE if self.phase == Phase::Leaving => {}
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
