//! The socket: tungstenite reads and keeps the protocol's rules; the outlet writes.
//!
//! tungstenite's own frames (pongs and the echo of a close) go through the outlet too, which takes
//! them whole, so that every socket has one owner of writes. What a peer does wrong is answered
//! with the close code of RFC 6455, section 7.4.1.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as PeerCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::live::Outlet;
use crate::wire::{CloseCode, MESSAGE_LIMIT};

/// tungstenite fills the whole read buffer with zeros before every read, and every idle socket
/// keeps it: as small as most messages are.
const READ_BUFFER: usize = 512;

/// One open socket, as its session sees it.
#[derive(Debug)]
pub struct Socket {
    frames: WebSocketContext,
    outlet: Arc<Outlet>,
    /// tungstenite may have bytes that it has not looked at. If not, it waits for the kernel: every
    /// attempt to read fills its buffer with zeros first.
    has_more: bool,
    /// The peer has sent a close frame, which is to be echoed.
    closed_by_peer: bool,
}

/// What comes from a socket.
#[derive(Debug)]
pub enum Incoming {
    /// A text message, within the limits.
    Text(Utf8Bytes),
    /// Nothing more will come.
    Ended(End),
}

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed it with 1000.
    Left,
    /// In any other way.
    Lost,
}

impl Socket {
    /// Speaks WebSocket on a connection whose handshake is done; `read_already` came behind it.
    #[must_use]
    pub fn new(stream: TcpStream, read_already: Bytes) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        let has_more = !read_already.is_empty();
        let frames = WebSocketContext::from_partially_read(read_already.into(), Role::Server, Some(config));
        Self { frames, outlet: Arc::new(Outlet::new(stream)), has_more, closed_by_peer: false }
    }

    /// Where to write.
    #[must_use]
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// The next message. Meanwhile writes what waits for the peer; while that is much, nothing is
    /// read, so that a peer that does not read cannot make the hub pile up answers. Cancel safe.
    pub async fn next(&mut self) -> Incoming {
        loop {
            let message = match poll_fn(|cx| self.poll_message(cx)).await {
                Ok(message) => message,
                Err(error) => {
                    if let Some(code) = blame(&error) {
                        self.outlet.close(code);
                    }
                    return Incoming::Ended(End::Lost);
                }
            };
            self.outlet.heard();
            match message {
                Message::Text(text) if !self.outlet.is_closing() => return Incoming::Text(text),
                Message::Binary(_) => self.outlet.close(CloseCode::Unsupported),
                Message::Close(frame) => {
                    self.closed_by_peer = true;
                    let left = frame.is_some_and(|frame| frame.code == PeerCode::Normal);
                    return Incoming::Ended(if left { End::Left } else { End::Lost });
                }
                // Pings are answered by tungstenite; pongs were for the sweep.
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        // A peer that sends without end must not keep its worker from everybody else.
        let coop = ready!(poll_proceed(cx));
        while self.outlet.poll_drain(cx)?.is_ready() {}
        loop {
            if self.outlet.is_clogged() {
                return Poll::Pending; // the drain wakes us
            }
            if !self.has_more {
                ready!(self.outlet.reading().poll_read_ready(cx))?;
            }
            let result = self.frames.read(&mut Wire(&self.outlet));
            self.has_more =
                !matches!(&result, Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock);
            if self.has_more {
                coop.made_progress();
                return Poll::Ready(result);
            }
        }
    }

    /// Ends the connection, after whatever was to be done about its end: a peer that gets the echo of its
    /// close has been counted out. Where the hub has closed, the close frame gets its time to arrive:
    /// to drop a connection with unread bytes would reset it, and the peer would never learn why. The
    /// sweep bounds all of it.
    pub async fn finish(mut self) {
        if self.closed_by_peer {
            // It says that the connection is closed now, which is no error.
            let _ = self.frames.flush(&mut Wire(&self.outlet));
        }
        let outlet = self.outlet;
        drop(self.frames);
        while !outlet.is_drained() {
            if poll_fn(|cx| outlet.poll_drain(cx)).await.is_err() {
                return;
            }
        }
        if !outlet.is_closing() {
            return;
        }
        outlet.finish();
        // On the heap: every idle session would carry it in its task.
        let mut ignored = vec![0; 1024];
        while outlet.reading().readable().await.is_ok() {
            match outlet.reading().try_read(&mut ignored) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// The close code for what the peer did wrong, if it did and is still there to be told.
fn blame(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(_) => Some(CloseCode::TooBig),
        Error::Utf8(_) => Some(CloseCode::NotUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}

/// A socket as tungstenite sees it: reads come from the kernel, writes go through the outlet.
struct Wire<'a>(&'a Outlet);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.reading().try_read(buffer)
    }
}

impl Write for Wire<'_> {
    /// Takes everything at once. With a write buffer of 0, what comes is always whole frames.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.0.send_bytes(frames);
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
