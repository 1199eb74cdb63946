//! The frame path: a real socket, to which bytes come in pieces, against a parser that sees them at once.
//!
//! The hub drops its parser whenever [`FrameTracker`] says that no message is on its way. So whatever the pieces:
//! the same messages come, the same pings are answered, and the socket is closed with the same code.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream as Peer};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use breathing_room::config::{Clock, TransportConfig};
use breathing_room::internals::{
    CloseCode, Frame, FrameTracker, Incoming, Panics, Rejections, Socket, Sockets, TransportMetrics, Upgraded,
};
use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The longest message: so short that inputs reach it, and so long that it takes the longer header.
const MESSAGE_LIMIT: usize = 300;

/// What comes last, to see whether it is taken for a message of its own.
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

/// What was said on a socket, and what it was answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Talk {
    texts: Vec<String>,
    pongs: Vec<Bytes>,
    /// 1005 stands for a close frame without a code.
    closed: Option<u16>,
}

/// The first byte says how long the pieces are, and the second how much came with the handshake.
pub fn check(bytes: &[u8]) {
    let [piece, early, bytes @ ..] = bytes else { return };
    let piece = if *piece == 0 { bytes.len().max(1) } else { usize::from(*piece) };
    let (early, late) = bytes.split_at(bytes.len().min(usize::from(*early)));
    let expected = at_once(bytes);
    let pieces = late.chunks(piece);
    let talk = NETWORK.with(|network| network.runtime.block_on(in_pieces(&network.listener, early, pieces)));
    assert_eq!(talk, expected);
    if expected.closed.is_none() {
        let mut tracker = FrameTracker::new(MESSAGE_LIMIT);
        bytes.chunks(piece).for_each(|piece| assert_eq!(tracker.advance(piece).bytes, piece.len()));
        // The hub may have dropped its parser just there, and must have where it may.
        let probe = [bytes, &probe()].concat();
        let is_between = at_once(&probe).texts.last().is_some_and(|text| text == PROBE);
        assert_eq!(tracker.is_between_messages(), is_between);
    }
}

/// The probe as a client sends it, under a mask of zeros.
fn probe() -> Vec<u8> {
    let mut frame = Frame::text(PROBE).bytes().to_vec();
    frame[1] |= 0x80;
    frame.splice(2..2, [0; 4]);
    frame
}

/// What RFC 6455 asks of whoever gets these bytes, and the limits and the protocol of this hub.
fn at_once(bytes: &[u8]) -> Talk {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_LIMIT)).max_frame_size(Some(MESSAGE_LIMIT));
    let mut parser = WebSocketContext::new(Role::Server, Some(config));
    // The parser counts no frames of a message.
    let mut tracker = FrameTracker::new(MESSAGE_LIMIT);
    let within = tracker.advance(bytes).bytes;
    let mut wire = Memory(&bytes[..within]);
    let mut talk = Talk::default();
    talk.closed = loop {
        match parser.read(&mut wire) {
            Ok(Message::Text(text)) => talk.texts.push(text.to_string()),
            Ok(Message::Ping(payload)) => talk.pongs.push(payload),
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
    talk
}

async fn in_pieces(listener: &TcpListener, early: &[u8], pieces: impl Iterator<Item = &[u8]>) -> Talk {
    let mut peer = Peer::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (stream, _) = listener.accept().await.expect("a connection");
    peer.set_nodelay(true).and_then(|()| stream.set_nodelay(true)).expect("small segments");
    let admission = SOCKETS.admit(Ipv4Addr::LOCALHOST.into()).expect("a place");
    let connection = Upgraded { buffered: Bytes::copy_from_slice(early), ..stream.into() };
    let mut socket = Socket::new(connection, admission);
    let mut talk = Talk::default();
    for piece in pieces {
        if poll_fn(|cx| Poll::Ready(poll_talk(&mut socket, &mut talk, cx))).await.is_ready() {
            break;
        }
        peer.write_all(piece).expect("room in the kernel");
        yield_now().await; // the runtime looks what has come
    }
    peer.shutdown(Shutdown::Write).expect("an open socket");
    poll_fn(|cx| poll_talk(&mut socket, &mut talk, cx)).await;
    poll_fn(|cx| socket.poll_finish(cx)).await;
    socket.writer().finish();
    let mut answers = Vec::new();
    peer.read_to_end(&mut answers).expect("answers, and their end");
    // So many sockets must not linger.
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("an open socket");
    drop(peer);
    read_answers(&answers, &mut talk);
    talk
}

/// Notes what comes. Ready when nothing more will.
fn poll_talk(socket: &mut Socket, talk: &mut Talk, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        match ready!(socket.poll_next(cx)) {
            Incoming::Text(text) => talk.texts.push(text.to_string()),
            Incoming::Binary(_) => socket.writer().close(CloseCode::Unsupported),
            Incoming::TooFast(_) => panic!("there is no limit"),
            Incoming::Ended(_) => return Poll::Ready(()),
        }
    }
}

/// What the hub writes is good frames only: pongs, then at most one close, and nothing behind it.
fn read_answers(bytes: &[u8], talk: &mut Talk) {
    let mut parser = WebSocketContext::new(Role::Client, None);
    let mut wire = Memory(bytes);
    loop {
        match parser.read(&mut wire) {
            Ok(Message::Pong(payload)) => talk.pongs.push(payload),
            Ok(Message::Close(frame)) => talk.closed = Some(frame.map_or(1005, |frame| frame.code.into())),
            Err(Error::Io(_)) => return,
            other => panic!("{other:?}"),
        }
    }
}

/// Bytes of which the rest is still to come, and nobody who reads the answers.
struct Memory<'a>(&'a [u8]);

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Memory<'_> {
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
