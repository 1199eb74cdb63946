//! The socket of a session: tungstenite reads and checks the protocol, the [writer](super::writer) writes.
//!
//! tungstenite's own frames (pongs, the echo of a close) go through the writer too, so that every socket has one owner
//! of its writes. A violation of the protocol gets the close code of RFC 6455, section 7.4.1.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::Response;
use tokio::task::coop::poll_proceed;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as PeerCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::task::TaskTracker;

use super::frame_tracker::FrameTracker;
use super::rate::{Decision, RateLimiter, ReadSize};
use super::sockets::{SitLimit, SitPermit, SocketPermit};
use super::upgrade::{Handshake, Upgraded};
use super::writer::SocketWriter;
use crate::address::Address;
use crate::panics::PanicScope;
use crate::protocol::{CloseCode, LOST_ON_PURPOSE, Time};

/// The size of a read, in bytes: several messages, so that many messages cost few reads. Tokio's cooperative budget
/// makes the session yield after 128 KiB at the latest.
const READ_BUFFER: usize = 2048;

/// The most bytes that the hub reads and discards after its own close frame: more than a well-behaved peer has in
/// flight when it receives that frame.
const DISCARD_LIMIT: u32 = 256 * 1024;

/// One open socket. An idle one has neither a parser nor a read buffer.
#[derive(Debug)]
pub struct Socket {
    writer: Arc<SocketWriter>,
    /// None between two messages: see [`FrameTracker`].
    reader: Option<Box<Reader>>,
    state: SocketState,
    rate: RateLimiter,
    permit: SocketPermit,
}

/// tungstenite's parser, and its position in the stream.
#[derive(Debug)]
struct Reader {
    frames: WebSocketContext,
    tracker: FrameTracker,
    /// Whether tungstenite may have unparsed bytes. If it has none, the next read waits for the kernel, since every
    /// attempt to read first fills tungstenite's buffer with zeros.
    has_more: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketState {
    Open,
    /// The peer has sent a close frame; the echo is not sent yet.
    ClosedByPeer,
    /// The writer sends its last bytes.
    Draining,
    /// The hub has closed: it reads and discards until the peer's end, or this many bytes more.
    Discarding(u32),
}

/// What a session receives from its socket.
#[derive(Debug)]
pub enum SocketInput {
    /// A text message, within the limits.
    Text(Utf8Bytes),
    /// A text message over the rate limit, which the session answers with an error.
    TooFast(Utf8Bytes),
    /// A binary message, whether or not it is over the rate limit.
    Binary(Bytes),
    /// The end of the socket: no message follows.
    Ended(SocketEnd),
}

/// How a socket ended. It decides how long the visitor stays present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEnd {
    /// The peer closed it with 1000: the visitor leaves.
    Left,
    /// The peer closed it with another code, such as 1001: the page is closed or loads again.
    Closed,
    /// It was lost, by no decision of the visitor: it broke, the hub restarts or is full, the token expired, or the peer
    /// closed it with 4000, which says so.
    Lost,
    /// The hub closed it because the peer broke a rule.
    Rejected,
}

impl SocketEnd {
    fn of_hub(code: CloseCode) -> Self {
        if code.is_loss() { Self::Lost } else { Self::Rejected }
    }

    fn of_peer(code: Option<PeerCode>) -> Self {
        match code {
            Some(PeerCode::Normal) => Self::Left,
            Some(
                PeerCode::Error | PeerCode::Restart | PeerCode::Again | PeerCode::Library(LOST_ON_PURPOSE),
            ) => Self::Lost,
            _ => Self::Closed,
        }
    }
}

impl Socket {
    /// Returns the response to the handshake. After it is sent, runs `session` on the socket as a task of `sessions`.
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
        let opening = panics.catch(PanicScope::Session, async move {
            if let Some(connection) = pending.complete().await {
                // In its own task, which is smaller than this one.
                drop(sessions.spawn(session(Socket::new(connection, permit))));
            }
        });
        drop(tracker.spawn(opening));
        response
    }

    /// Creates the socket of a connection whose handshake is complete.
    #[must_use]
    pub fn new(connection: Upgraded, mut permit: SocketPermit) -> Self {
        let Upgraded { stream, buffered } = connection;
        let writer = Arc::new(SocketWriter::new(stream));
        permit.register(&writer);
        let reader = (!buffered.is_empty()).then(|| Reader::new(&buffered, permit.message_limit()));
        Self { writer, reader, state: SocketState::Open, rate: RateLimiter::default(), permit }
    }

    /// The owner of the socket's writes.
    #[must_use]
    pub fn writer(&self) -> &Arc<SocketWriter> {
        &self.writer
    }

    /// Sets when the socket's token expires. The sweep closes the socket then.
    pub(crate) fn set_expiry(&self, expires: Time) {
        self.permit.set_expiry(expires);
    }

    /// Extends the expiry. Returns false, and changes nothing, if the new one is sooner.
    pub(crate) fn extend_expiry(&self, expires: Time) -> bool {
        self.permit.extend_expiry(expires)
    }

    /// The peer's address.
    pub(crate) fn address(&self) -> Address {
        self.permit.address()
    }

    /// Admits a sit of the visitor, who may sit with this permit. Returns none if that is enough.
    pub(crate) fn admit_sit(&self, current: Option<&SitPermit>) -> Result<Option<SitPermit>, SitLimit> {
        self.permit.admit_sit(current)
    }

    /// Returns the next message, and drains the writer meanwhile. Backpressure: above the writer's high-water mark it
    /// reads nothing, so that answers to a peer that does not read cannot pile up.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<SocketInput> {
        loop {
            let message = match ready!(self.poll_message(cx)) {
                Ok(message) => message,
                Err(code) => {
                    if let Some(code) = code {
                        self.writer.close(code);
                    }
                    let code = self.writer.closed_with().or(code);
                    return Poll::Ready(SocketInput::Ended(code.map_or(SocketEnd::Lost, SocketEnd::of_hub)));
                }
            };
            // Control frames inside a fragmented message do not count as activity: a message has to end.
            if message.is_text() || message.is_binary() || self.is_between_messages() {
                self.writer.mark_alive();
            }
            if let Message::Close(frame) = message {
                self.state = SocketState::ClosedByPeer;
                // An answer to the hub's own close says nothing about the visitor.
                let of_peer = || SocketEnd::of_peer(frame.map(|frame| frame.code));
                let end = self.writer.closed_with().map_or_else(of_peer, SocketEnd::of_hub);
                return Poll::Ready(SocketInput::Ended(end));
            }
            // Pings and pongs count for the rate limit too.
            let decision = self.permit.check_message(&mut self.rate);
            match (message, decision) {
                (_, Decision::Close) => {
                    self.writer.close(CloseCode::Policy);
                    let code = self.writer.closed_with().unwrap_or(CloseCode::Policy);
                    return Poll::Ready(SocketInput::Ended(SocketEnd::of_hub(code)));
                }
                (Message::Text(_) | Message::Binary(_), _) if self.writer.has_closed() => {}
                (Message::Binary(bytes), _) => return Poll::Ready(SocketInput::Binary(bytes)),
                (Message::Text(text), Decision::Allow) => return Poll::Ready(SocketInput::Text(text)),
                (Message::Text(text), Decision::Reject) => return Poll::Ready(SocketInput::TooFast(text)),
                // tungstenite answers pings; pongs only mark the peer as alive.
                (Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_), _) => {}
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.reader.as_ref().is_none_or(|reader| reader.tracker.is_between_messages())
    }

    /// Returns the next message, or an error with the close code to send, if any. Reads everything that has arrived,
    /// also after a failed write: a close 1000 in it means that the visitor left.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Option<CloseCode>>> {
        loop {
            // A peer that never stops sending must not starve the other tasks of its worker.
            let coop = ready!(poll_proceed(cx));
            self.writer.drain(cx);
            if self.writer.is_above_high_water() {
                return Poll::Pending; // draining wakes the task
            }
            if self.reader.as_ref().is_none_or(|reader| !reader.has_more) {
                ready!(self.writer.stream().poll_read_ready(cx)).map_err(|_| None)?;
                ready!(self.permit.poll_turn(cx));
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

    /// Completes the closing handshake. To be polled after the session has left its room, so that a peer that receives
    /// the echo of its close does not count any more.
    ///
    /// After the hub's own close, reads until the peer ends: dropping a connection with unread bytes resets it, and the
    /// peer would not receive the close frame. The sweep bounds the time.
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
                    // Consumes tokio's cooperative budget.
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

    /// Returns the next message, and the size of the read, if there was one.
    fn read(&mut self, writer: &SocketWriter) -> (Result<Message, Error>, Option<ReadSize>) {
        let mut stream = StreamAdapter { writer, tracker: &mut self.tracker, received: None };
        let result = self.frames.read(&mut stream);
        (result, stream.received)
    }

    fn echo_close(&mut self, writer: &SocketWriter) {
        let mut stream = StreamAdapter { writer, tracker: &mut self.tracker, received: None };
        // tungstenite returns an error here that only says that the connection is closed.
        let _ = self.frames.flush(&mut stream);
    }
}

/// The close code for a violation of the protocol; none for a lost connection.
fn close_code(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(_) => Some(CloseCode::TooBig),
        Error::Utf8(_) => Some(CloseCode::NotUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}

/// The stream that tungstenite uses: reads from the kernel, writes through the writer.
struct StreamAdapter<'a> {
    writer: &'a SocketWriter,
    tracker: &'a mut FrameTracker,
    /// The size of the read, if there was one.
    received: Option<ReadSize>,
}

impl Read for StreamAdapter<'_> {
    /// Reads once only: tungstenite would loop while bytes arrive that complete no message.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.received.is_some() || self.tracker.has_too_many_frames() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.writer.stream().try_read(buffer)?;
        let consumed = self.tracker.advance(buffer.get(..read).unwrap_or_default());
        self.received = Some(ReadSize { bytes: read, frames: consumed.frames });
        // 0 would mean the end of the connection.
        if read > 0 && consumed.bytes == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(consumed.bytes) }
    }
}

impl Write for StreamAdapter<'_> {
    /// Accepts everything. tungstenite's write buffer has size 0, so that each write is of whole frames.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.writer.send_bytes(frames);
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
