//! The frame path: a real socket that gets the bytes in pieces, compared with a parser that gets all bytes at once.
//!
//! The hub drops its parser when [`FrameTracker`] says that no message is incomplete. For any pieces, the messages, the
//! pongs and the close code must be the same.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream as Peer};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use breathing_room::config::{Clock, TransportConfig};
use breathing_room::internals::{
    CloseCode, Frame, FrameTracker, Panics, Rejections, Socket, SocketInput, Sockets, TransportMetrics,
    Upgraded,
};
use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The longest message: short enough for fuzzers to reach, and long enough for the 16-bit length.
const MESSAGE_LIMIT: usize = 300;

/// A message after all other bytes, which shows whether they end between two messages.
const PROBE: &str = "something that stands between two messages";

thread_local! {
    static NETWORK: Network = Network::new();
}

static SOCKETS: LazyLock<Arc<Sockets>> = LazyLock::new(|| {
    let mut config = TransportConfig::default();
    config.message_limit = MESSAGE_LIMIT;
    config.limits = None;
    Sockets::new(
        &config,
        Clock::system(),
        TransportMetrics::register(Rejections::register(), Panics::register()),
    )
});

/// The messages of a socket, and the hub's pongs and close code.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transcript {
    texts: Vec<String>,
    pongs: Vec<Bytes>,
    /// 1005 stands for a close frame without a code.
    closed: Option<u16>,
}

/// The first byte is the length of the pieces, the second the number of bytes that arrive with the handshake.
pub fn check(bytes: &[u8]) {
    let [piece, early, bytes @ ..] = bytes else { return };
    let piece = if *piece == 0 { bytes.len().max(1) } else { usize::from(*piece) };
    let (early, late) = bytes.split_at(bytes.len().min(usize::from(*early)));
    let expected = parse_whole(bytes);
    let pieces = late.chunks(piece);
    let transcript =
        NETWORK.with(|network| network.runtime.block_on(run_in_pieces(&network.listener, early, pieces)));
    assert_eq!(transcript, expected);
    if expected.closed.is_none() {
        let mut tracker = FrameTracker::new(MESSAGE_LIMIT);
        bytes.chunks(piece).for_each(|piece| assert_eq!(tracker.advance(piece).bytes, piece.len()));
        // The hub must drop its parser exactly between two messages.
        let probe = [bytes, &probe()].concat();
        let is_between = parse_whole(&probe).texts.last().is_some_and(|text| text == PROBE);
        assert_eq!(tracker.is_between_messages(), is_between);
    }
}

/// The probe as a frame of a client, with a mask of zeros.
fn probe() -> Vec<u8> {
    let mut frame = Frame::text(PROBE).bytes().to_vec();
    frame[1] |= 0x80;
    frame.splice(2..2, [0; 4]);
    frame
}

/// The expected result by RFC 6455, the hub's limits and its protocol.
fn parse_whole(bytes: &[u8]) -> Transcript {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_LIMIT)).max_frame_size(Some(MESSAGE_LIMIT));
    let mut parser = WebSocketContext::new(Role::Server, Some(config));
    // The parser does not count the frames of a message.
    let mut tracker = FrameTracker::new(MESSAGE_LIMIT);
    let within = tracker.advance(bytes).bytes;
    let mut input = Input(&bytes[..within]);
    let mut transcript = Transcript::default();
    transcript.closed = loop {
        match parser.read(&mut input) {
            Ok(Message::Text(text)) => transcript.texts.push(text.to_string()),
            Ok(Message::Ping(payload)) => transcript.pongs.push(payload),
            Ok(Message::Pong(_) | Message::Frame(_)) => {}
            Ok(Message::Binary(_)) => break Some(1003),
            Ok(Message::Close(frame)) => break Some(frame.map_or(1005, |frame| frame.code.into())),
            Err(Error::Io(_)) => break tracker.has_too_many_frames().then_some(1009),
            Err(Error::Capacity(_)) => break Some(1009),
            Err(Error::Utf8(_)) => break Some(1007),
            Err(Error::Protocol(_)) => break Some(1002),
            Err(error) => panic!("{error}"),
        }
    };
    transcript
}

async fn run_in_pieces(
    listener: &TcpListener,
    early: &[u8],
    pieces: impl Iterator<Item = &[u8]>,
) -> Transcript {
    let mut peer = Peer::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (stream, _) = listener.accept().await.expect("a connection");
    peer.set_nodelay(true).and_then(|()| stream.set_nodelay(true)).expect("small segments");
    let admission = SOCKETS.admit(Ipv4Addr::LOCALHOST.into()).expect("a place");
    let connection = Upgraded { buffered: Bytes::copy_from_slice(early), ..stream.into() };
    let mut socket = Socket::new(connection, admission);
    let mut transcript = Transcript::default();
    for piece in pieces {
        if poll_fn(|cx| Poll::Ready(poll_transcript(&mut socket, &mut transcript, cx))).await.is_ready() {
            break;
        }
        peer.write_all(piece).expect("room in the kernel");
        yield_now().await; // the runtime polls the socket
    }
    peer.shutdown(Shutdown::Write).expect("an open socket");
    poll_fn(|cx| poll_transcript(&mut socket, &mut transcript, cx)).await;
    poll_fn(|cx| socket.poll_finish(cx)).await;
    socket.writer().finish();
    let mut replies = Vec::new();
    peer.read_to_end(&mut replies).expect("answers, and their end");
    // Many sockets in TIME_WAIT would use up the ports.
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("an open socket");
    drop(peer);
    read_replies(&replies, &mut transcript);
    transcript
}

/// Records all messages. Ready when the socket has ended.
fn poll_transcript(socket: &mut Socket, transcript: &mut Transcript, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        match ready!(socket.poll_next(cx)) {
            SocketInput::Text(text) => transcript.texts.push(text.to_string()),
            SocketInput::Binary(_) => socket.writer().close(CloseCode::Unsupported),
            SocketInput::TooFast(_) => panic!("there is no limit"),
            SocketInput::Ended(_) => return Poll::Ready(()),
        }
    }
}

/// Reads the hub's frames: pongs, then at most one close, and nothing after it.
fn read_replies(bytes: &[u8], transcript: &mut Transcript) {
    let mut parser = WebSocketContext::new(Role::Client, None);
    let mut input = Input(bytes);
    loop {
        match parser.read(&mut input) {
            Ok(Message::Pong(payload)) => transcript.pongs.push(payload),
            Ok(Message::Close(frame)) => {
                transcript.closed = Some(frame.map_or(1005, |frame| frame.code.into()));
            }
            Err(Error::Io(_)) => return,
            other => panic!("{other:?}"),
        }
    }
}

/// A stream that blocks after these bytes, and discards all writes.
struct Input<'a>(&'a [u8]);

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Network {
    runtime: Runtime,
    listener: TcpListener,
}

impl Network {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        Self { runtime, listener }
    }
}
