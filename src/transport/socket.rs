//! The socket: tungstenite reads and keeps the protocol's rules; the writer writes.
//!
//! tungstenite's own frames (pongs and the echo of a close) go through the writer too, which takes
//! them whole, so that every socket has one owner of writes. What a peer does wrong is answered
//! with the close code of RFC 6455, section 7.4.1.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::Response;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as PeerCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::task::TaskTracker;

use super::frame_tracker::FrameTracker;
use super::rate::{Decision, RateLimiter, ReadSize};
use super::sockets::SocketPermit;
use super::upgrade::{Handshake, Upgraded};
use super::writer::SocketWriter;
use crate::address::Address;
use crate::panics::Scope;
use crate::protocol::{CloseCode, Time};

/// Room for several messages, so that a peer that sends many costs few reads. Between two reads the session lets
/// others have their turn, when tokio's budget is used up: after 128 KiB at the latest.
const READ_BUFFER: usize = 2048;

/// What is read and ignored of a peer that the hub has closed, in bytes: more than is on its way when a well-behaved
/// one gets the close frame.
const DISCARD_LIMIT: u32 = 256 * 1024;

/// One open socket, as its session sees it. While it idles, it is a few words.
#[derive(Debug)]
pub struct Socket {
    writer: Arc<SocketWriter>,
    /// Only while a message is on its way: see [`FrameTracker`].
    reader: Option<Box<Reader>>,
    state: SocketState,
    rate: RateLimiter,
    permit: SocketPermit,
}

/// tungstenite's state, and where in the stream it stands.
#[derive(Debug)]
struct Reader {
    frames: WebSocketContext,
    tracker: FrameTracker,
    /// tungstenite may have bytes that it has not looked at. If not, it waits for the kernel: every
    /// attempt to read fills its buffer with zeros first.
    has_more: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketState {
    Open,
    /// The peer has sent a close frame, which is to be echoed.
    ClosedByPeer,
    /// What waits for the peer is still to be taken.
    Draining,
    /// The hub has closed, and waits for the peer to end, or for so many bytes more.
    Discarding(u32),
}

/// What comes from a socket.
#[derive(Debug)]
pub enum Incoming {
    /// A text message, within the limits.
    Text(Utf8Bytes),
    /// A text message that came too fast: to be refused.
    TooFast(Utf8Bytes),
    /// A binary message, however fast it came.
    Binary(Bytes),
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
    /// Answers the handshake, and runs `session` on the socket that it opens, as one of `sessions`.
    pub fn open<B, F>(
        sessions: &TaskTracker,
        permit: SocketPermit,
        handshake: Handshake,
        session: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response<B>
    where
        B: Default,
        F: Future<Output = ()> + Send + 'static,
    {
        let (response, pending) = handshake.accept();
        let (sessions, tracker) = (sessions.clone(), sessions);
        let panics = permit.panics().clone();
        let opening = panics.catch(Scope::Session, async move {
            if let Some(connection) = pending.complete().await {
                // In a task of its own, which is smaller than this one.
                drop(sessions.spawn(session(Socket::new(connection, permit))));
            }
        });
        drop(tracker.spawn(opening));
        response
    }

    /// Speaks WebSocket on a connection whose handshake is done.
    #[must_use]
    pub fn new(connection: Upgraded, mut permit: SocketPermit) -> Self {
        let Upgraded { stream, buffered } = connection;
        let writer = Arc::new(SocketWriter::new(stream));
        permit.register(&writer);
        let reader = (!buffered.is_empty()).then(|| Reader::new(&buffered, permit.message_limit()));
        Self { writer, reader, state: SocketState::Open, rate: RateLimiter::default(), permit }
    }

    /// Where to write.
    #[must_use]
    pub fn writer(&self) -> &Arc<SocketWriter> {
        &self.writer
    }

    /// The socket may stay open until then; the sweep closes it.
    pub(crate) fn set_expiry(&self, expires: Time) {
        self.permit.set_expiry(expires);
    }

    /// Moves the socket's end to another time, unless that is sooner, and says whether it did.
    #[must_use]
    pub(crate) fn extend_expiry(&self, expires: Time) -> bool {
        self.permit.extend_expiry(expires)
    }

    /// Where it comes from.
    #[must_use]
    pub(crate) fn address(&self) -> Address {
        self.permit.address()
    }

    /// The next message. Meanwhile writes what waits for the peer; while that is much, nothing is
    /// read, so that a peer that does not read cannot make the hub pile up answers.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            let message = match ready!(self.poll_message(cx)) {
                Ok(message) => message,
                Err(code) => {
                    if let Some(code) = code {
                        self.writer.close(code);
                    }
                    return Poll::Ready(Incoming::Ended(End::Lost));
                }
            };
            // A pong between the parts of a message is no sign of life: messages have to end.
            if message.is_text() || message.is_binary() || self.is_between_messages() {
                self.writer.mark_alive();
            }
            if let Message::Close(frame) = message {
                self.state = SocketState::ClosedByPeer;
                // Whoever only answers the hub's own close does not mean to leave.
                let left =
                    !self.writer.has_closed() && frame.is_some_and(|frame| frame.code == PeerCode::Normal);
                return Poll::Ready(Incoming::Ended(if left { End::Left } else { End::Lost }));
            }
            // Pings and pongs count too: they are work like any other.
            let decision = self.permit.check_message(&mut self.rate);
            match (message, decision) {
                (_, Decision::Close) => {
                    self.writer.close(CloseCode::Policy);
                    return Poll::Ready(Incoming::Ended(End::Lost));
                }
                (Message::Text(_) | Message::Binary(_), _) if self.writer.has_closed() => {}
                (Message::Binary(bytes), _) => return Poll::Ready(Incoming::Binary(bytes)),
                (Message::Text(text), Decision::Allow) => return Poll::Ready(Incoming::Text(text)),
                (Message::Text(text), Decision::Refuse) => return Poll::Ready(Incoming::TooFast(text)),
                // Pings are answered by tungstenite; pongs were for the sweep.
                (Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_), _) => {}
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.reader.as_ref().is_none_or(|reader| reader.tracker.is_between_messages())
    }

    /// The next message, or the close code for what is wrong, where the peer is to be told one. Whatever happens to
    /// writes, what has arrived is read: a peer that left and is gone has left.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Option<CloseCode>>> {
        loop {
            // A peer that sends without end must not keep its worker from everybody else.
            let coop = ready!(poll_proceed(cx));
            self.writer.drain(cx);
            if self.writer.is_above_high_water() {
                return Poll::Pending; // the drain wakes us
            }
            if self.reader.as_ref().is_none_or(|reader| !reader.has_more) {
                ready!(self.writer.stream().poll_read_ready(cx)).map_err(|_| None)?;
            }
            let new_reader = || Reader::new(&[], self.permit.message_limit());
            let reader = self.reader.get_or_insert_with(new_reader);
            let (result, received) = reader.read(&self.writer);
            coop.made_progress();
            if received.is_some_and(|received| !self.permit.check_read(&mut self.rate, received)) {
                return Poll::Ready(Err(Some(CloseCode::Policy)));
            }
            match result {
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    if reader.tracker.has_too_many_frames() {
                        self.permit.count_too_many_frames();
                        return Poll::Ready(Err(Some(CloseCode::TooBig)));
                    }
                    reader.has_more = false;
                    if reader.tracker.is_between_messages() {
                        self.reader = None;
                    }
                }
                result => {
                    reader.has_more = true;
                    return Poll::Ready(result.map_err(|error| close_code(&error)));
                }
            }
        }
    }

    /// Ends the connection, after whatever was to be done about its end: a peer that gets the echo of its
    /// close has been counted out. Where the hub has closed, the close frame gets its time to arrive:
    /// to drop a connection with unread bytes would reset it, and the peer would never learn why. The
    /// sweep bounds all of it.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.state {
                SocketState::ClosedByPeer | SocketState::Open => {
                    if let Some(mut reader) = self.reader.take()
                        && self.state == SocketState::ClosedByPeer
                    {
                        reader.echo_close(&self.writer);
                    }
                    self.state = SocketState::Draining;
                }
                SocketState::Draining => {
                    ready!(self.writer.poll_drained(cx));
                    if !self.writer.has_closed() {
                        return Poll::Ready(());
                    }
                    self.writer.finish();
                    self.state = SocketState::Discarding(DISCARD_LIMIT);
                }
                SocketState::Discarding(0) => return Poll::Ready(()),
                SocketState::Discarding(left) => {
                    let mut ignored = [0; READ_BUFFER];
                    // Each turn takes of tokio's budget for this task.
                    if ready!(self.writer.stream().poll_read_ready(cx)).is_err() {
                        return Poll::Ready(());
                    }
                    let read = match self.writer.stream().try_read(&mut ignored) {
                        Ok(read @ 1..) => u32::try_from(read).unwrap_or(u32::MAX),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                        Ok(0) | Err(_) => return Poll::Ready(()),
                    };
                    self.state = SocketState::Discarding(left.saturating_sub(read));
                }
            }
        }
    }
}

impl Reader {
    fn new(buffered: &[u8], message_limit: usize) -> Box<Self> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(message_limit))
            .max_frame_size(Some(message_limit));
        let (has_more, mut tracker) = (!buffered.is_empty(), FrameTracker::new(message_limit));
        let consumed = tracker.advance(buffered);
        let begun = buffered.get(..consumed.bytes).unwrap_or_default().to_vec();
        let frames = WebSocketContext::from_partially_read(begun, Role::Server, Some(config));
        Box::new(Self { frames, tracker, has_more })
    }

    /// The next message, and what was read for it.
    fn read(&mut self, writer: &SocketWriter) -> (Result<Message, Error>, Option<ReadSize>) {
        let mut stream =
            StreamAdapter { writer, tracker: &mut self.tracker, received: None, is_ending: false };
        let result = self.frames.read(&mut stream);
        (result, stream.received)
    }

    fn echo_close(&mut self, writer: &SocketWriter) {
        let mut stream =
            StreamAdapter { writer, tracker: &mut self.tracker, received: None, is_ending: true };
        // tungstenite says that the connection is closed now, which is no error.
        let _ = self.frames.flush(&mut stream);
    }
}

/// The close code for what the peer did wrong, if it did and is still there to be told.
fn close_code(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(_) => Some(CloseCode::TooBig),
        Error::Utf8(_) => Some(CloseCode::NotUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}

/// A socket as tungstenite sees it: reads come from the kernel, writes go through the writer.
struct StreamAdapter<'a> {
    writer: &'a SocketWriter,
    tracker: &'a mut FrameTracker,
    /// What was read.
    received: Option<ReadSize>,
    /// What is written now is the last.
    is_ending: bool,
}

impl Read for StreamAdapter<'_> {
    /// Reads once only: tungstenite would go on for as long as bytes come that are no message.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.received.is_some() || self.tracker.has_too_many_frames() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = try_read(self.writer.stream(), buffer)?;
        let consumed = self.tracker.advance(buffer.get(..read).unwrap_or_default());
        self.received = Some(ReadSize { bytes: read, frames: consumed.frames });
        // Nothing at all would be the end of the connection.
        if read > 0 && consumed.bytes == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(consumed.bytes) }
    }
}

/// Reads what has come. What does not fill the buffer was all there is, so that the next attempt waits
/// for the kernel instead of asking it in vain: `try_read` with what tokio's `poll_read` does.
fn try_read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut taken = None;
    let result = stream.try_io(Interest::READABLE, || {
        let (read, _) = recv(stream, &mut *buffer, RecvFlags::empty())?;
        taken = Some(read);
        // Whatever comes from now on makes it ready again: tokio forgets only what it knew before.
        if (1..buffer.len()).contains(&read) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    taken.map_or_else(|| result.map(|()| 0), Ok)
}

impl Write for StreamAdapter<'_> {
    /// Takes everything at once. With a write buffer of 0, what comes is always whole frames.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        let send = if self.is_ending { SocketWriter::send_last } else { SocketWriter::send_bytes };
        send(self.writer, frames);
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
