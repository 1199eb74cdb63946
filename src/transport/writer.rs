//! The socket writer: the one owner of the writes to one socket.
//!
//! It writes whole frames in order. It keeps what the kernel does not accept at once as a tail, which the socket's task
//! drains. It never queues states: behind a tail only the newest state waits (coalescing), so that the memory of a slow
//! socket is bounded. It knows bytes, encoded frames and sequence numbers, but no rooms and no messages.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::protocol::CloseCode;
use crate::protocol::frame::Frame;
use crate::sync::lock;

/// The high-water mark, in unsent bytes. Above it, the socket's task reads nothing until the writer has drained.
const HIGH_WATER: usize = 16 * 1024;

/// The writing half of a socket, shared by its session and the broadcast.
#[derive(Debug)]
pub struct SocketWriter {
    stream: TcpStream,
    /// Held during the (non-blocking) write, since frames of two writers must not mix. Each socket has its own lock.
    state: Mutex<WriteState>,
}

#[derive(Debug)]
struct WriteState {
    phase: Phase,
    /// Sweeps since the last activity of the peer.
    idle: u32,
    /// The newest state that is written or in the tail.
    seq: u64,
    /// In a box, since most sockets never have one.
    backlog: Option<Box<Backlog>>,
    /// The socket's task, which a new tail wakes.
    drainer: Option<Waker>,
}

/// The unsent frames of a socket.
#[derive(Debug, Default)]
struct Backlog {
    /// The bytes that the kernel has not accepted, up to the end of a frame.
    tail: BytesMut,
    /// The newest state, which waits for the end of the tail.
    newest: Option<(u64, Frame)>,
    /// Sweeps since the kernel last accepted a byte of the tail.
    stalled: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the welcome: states wait.
    Corked,
    Open {
        /// Whether the client asked for a message with each ping.
        keepalive: bool,
    },
    /// The hub has sent a close frame with this code. No frame may follow it.
    Closing { code: CloseCode, sweeps: u16 },
    /// The socket is shut down, after a failed write or an abort.
    Broken {
        /// The code of the close frame that the hub had sent.
        after: Option<CloseCode>,
    },
}

/// The liveness of a socket, counted in sweeps. Returned by [`SocketWriter::sweep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterStatus {
    /// Sweeps since the last activity of the peer.
    pub idle: u32,
    /// Sweeps since the peer last accepted a byte of the tail; 0 without a tail.
    pub stalled: u32,
    /// Sweeps since the hub sent its close frame; 0 if it sent none.
    pub closing: u32,
    /// Bytes in the tail.
    pub unsent: usize,
    /// Whether the client asked for a message with each ping.
    pub keepalive: bool,
}

impl SocketWriter {
    /// Creates the writer of `stream`. It writes no state before [`open`](Self::open).
    pub(crate) fn new(stream: TcpStream) -> Self {
        let write_state = WriteState { phase: Phase::Corked, idle: 0, seq: 0, backlog: None, drainer: None };
        Self { stream, state: Mutex::new(write_state) }
    }

    /// The socket, for reads only.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends the first message, which has the state `seq`, and then newer states.
    pub(crate) fn open(&self, seq: u64, first: &Frame) {
        let mut writes = lock(&self.state);
        if writes.phase == Phase::Corked {
            writes.phase = Phase::Open { keepalive: false };
            writes.seq = seq;
            writes.write(&self.stream, first.bytes());
            writes.drop_state(seq);
            writes.write_newest(&self.stream);
        }
    }

    /// From now on, the sweep sends a `keepalive` message with each ping. Has no effect before [`open`](Self::open).
    pub(crate) fn enable_keepalive(&self) {
        if let Phase::Open { keepalive } = &mut lock(&self.state).phase {
            *keepalive = true;
        }
    }

    /// Sends the state `seq`, at once or after the tail, unless a newer one replaces it before. Returns whether it is
    /// newer than what this socket had.
    pub(crate) fn send_state(&self, seq: u64, state: &Frame) -> bool {
        let mut writes = lock(&self.state);
        let waiting = writes.backlog.as_ref().and_then(|backlog| backlog.newest.as_ref());
        let known = waiting.map_or(writes.seq, |(newest, _)| *newest);
        if seq <= known {
            return false;
        }
        match writes.phase {
            Phase::Open { .. } if writes.tail().is_empty() => {
                writes.seq = seq;
                writes.write(&self.stream, state.bytes());
            }
            Phase::Open { .. } | Phase::Corked => {
                writes.backlog.get_or_insert_default().newest = Some((seq, state.clone()));
            }
            Phase::Closing { .. } | Phase::Broken { .. } => return false,
        }
        true
    }

    /// Sends a frame that is not a state, after all earlier ones.
    pub fn send(&self, frame: &Frame) {
        self.send_bytes(frame.bytes());
    }

    /// Sends the bytes of whole frames, after all earlier ones.
    pub(crate) fn send_bytes(&self, frames: &[u8]) {
        let mut writes = lock(&self.state);
        if matches!(writes.phase, Phase::Corked | Phase::Open { .. }) {
            writes.write(&self.stream, frames);
        }
    }

    /// Sends a close frame, which is the last one. Later sends and closes have no effect.
    pub fn close(&self, code: CloseCode) {
        let mut writes = lock(&self.state);
        if matches!(writes.phase, Phase::Corked | Phase::Open { .. }) {
            writes.drop_state(u64::MAX);
            writes.write(&self.stream, Frame::close(code).bytes());
            if !matches!(writes.phase, Phase::Broken { .. }) {
                writes.phase = Phase::Closing { code, sweeps: 0 };
            }
        }
    }

    /// Shuts the connection down at once. The socket's task still reads what arrived before. Returns false if it was
    /// shut down already.
    pub(crate) fn abort(&self) -> bool {
        lock(&self.state).shut_down(&self.stream)
    }

    /// Shuts down the writing half (sends FIN); reads continue.
    pub fn finish(&self) {
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
    }

    /// The code of the close frame that the hub has sent. A failed write is no close: messages that the peer sent before
    /// it are still valid.
    pub(crate) fn closed_with(&self) -> Option<CloseCode> {
        match lock(&self.state).phase {
            Phase::Closing { code, .. } => Some(code),
            Phase::Broken { after } => after,
            Phase::Corked | Phase::Open { .. } => None,
        }
    }

    /// Whether the hub has sent its close frame.
    pub(crate) fn has_closed(&self) -> bool {
        self.closed_with().is_some()
    }

    /// Whether the unsent bytes have reached the high-water mark, at which the session stops reading.
    pub(crate) fn is_above_high_water(&self) -> bool {
        lock(&self.state).tail().len() >= HIGH_WATER
    }

    /// Writes what the kernel accepts of the tail, and registers the task to be woken for the rest. For the socket's task
    /// only.
    pub(crate) fn drain(&self, cx: &mut Context<'_>) {
        let mut writes = lock(&self.state);
        if writes.poll_drained(&self.stream, cx).is_ready()
            && !writes.drainer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            writes.drainer = Some(cx.waker().clone());
        }
    }

    /// Ready when the kernel has accepted everything, or the socket is shut down. For the socket's task only.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        lock(&self.state).poll_drained(&self.stream, cx)
    }

    /// Resets the idle count after activity of the peer.
    pub(crate) fn mark_alive(&self) {
        lock(&self.state).idle = 0;
    }

    /// Counts one sweep and returns the liveness of the socket.
    pub(crate) fn sweep(&self) -> WriterStatus {
        let mut writes = lock(&self.state);
        writes.idle += 1;
        let (mut stalled, waiting) = (0, writes.tail().len());
        if let Some(backlog) = writes.backlog.as_mut().filter(|_| waiting > 0) {
            backlog.stalled += 1;
            stalled = backlog.stalled;
        }
        let closing = match &mut writes.phase {
            Phase::Closing { sweeps, .. } => {
                *sweeps = sweeps.saturating_add(1);
                u32::from(*sweeps)
            }
            Phase::Corked | Phase::Open { .. } | Phase::Broken { .. } => 0,
        };
        let keepalive = matches!(writes.phase, Phase::Open { keepalive: true });
        WriterStatus { idle: writes.idle, stalled, closing, unsent: waiting, keepalive }
    }
}

impl WriteState {
    fn tail(&self) -> &[u8] {
        self.backlog.as_ref().map_or(&[], |backlog| &backlog.tail)
    }

    /// Writes what the kernel accepts at once, and keeps the rest as the tail.
    fn write(&mut self, stream: &TcpStream, frames: &[u8]) {
        if let Some(backlog) = self.backlog.as_mut().filter(|backlog| !backlog.tail.is_empty()) {
            backlog.tail.extend_from_slice(frames);
            return;
        }
        let taken = match stream.try_write(frames) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // After any other error the peer can receive nothing more.
            Err(_) => {
                self.shut_down(stream);
                return;
            }
        };
        if let Some(rest @ [_, ..]) = frames.get(taken..) {
            let backlog = self.backlog.get_or_insert_default();
            backlog.tail.extend_from_slice(rest);
            backlog.stalled = 0;
            if let Some(drainer) = self.drainer.take() {
                drainer.wake();
            }
        }
    }

    fn poll_drained(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        while !self.tail().is_empty() {
            let written = match ready!(stream.poll_write_ready(cx)) {
                Ok(()) => stream.try_write(self.tail()),
                Err(error) => Err(error),
            };
            match written {
                Ok(taken) => self.advance_tail(stream, taken),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => _ = self.shut_down(stream),
            }
        }
        Poll::Ready(())
    }

    /// Writes the waiting state if the tail is empty, and drops the backlog.
    fn write_newest(&mut self, stream: &TcpStream) {
        if self.phase == Phase::Corked || !self.tail().is_empty() {
            return;
        }
        if let Some((seq, state)) = self.backlog.take().and_then(|backlog| backlog.newest) {
            self.seq = seq;
            self.write(stream, state.bytes());
        }
    }

    /// Drops the waiting state if it is not newer than `seq`.
    fn drop_state(&mut self, seq: u64) {
        if let Some(backlog) = &mut self.backlog {
            backlog.newest.take_if(|(newest, _)| *newest <= seq);
        }
    }

    fn advance_tail(&mut self, stream: &TcpStream, bytes: usize) {
        if let Some(backlog) = &mut self.backlog {
            backlog.tail.advance(bytes);
            backlog.stalled = 0;
        }
        self.write_newest(stream);
    }

    /// Shuts the socket down, so that its task wakes up and reads its end, independent of the peer. Returns false if it
    /// was shut down already.
    fn shut_down(&mut self, stream: &TcpStream) -> bool {
        self.backlog = None;
        let after = match self.phase {
            Phase::Broken { .. } => return false,
            Phase::Closing { code, .. } => Some(code),
            Phase::Corked | Phase::Open { .. } => None,
        };
        self.phase = Phase::Broken { after };
        // An error means that the peer has ended the connection before.
        let _ = SockRef::from(stream).shutdown(Shutdown::Both);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A writer, and the peer's end of its socket.
    async fn connected() -> (SocketWriter, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        SockRef::from(&stream).set_send_buffer_size(8 * 1024).unwrap();
        stream.writable().await.unwrap();
        (SocketWriter::new(stream), peer)
    }

    fn state(seq: u64) -> Frame {
        Frame::json(&seq)
    }

    /// With the counters of its `Arc` it fits into 112 bytes, a size class of allocators; the next one is 128. With glibc
    /// it fills the gap between two of tokio's tasks, which are aligned to 128 bytes.
    #[test]
    fn writer_of_an_idle_socket_fits_into_a_112_byte_allocation() {
        assert!(size_of::<SocketWriter>() <= 88, "{}", size_of::<SocketWriter>());
    }

    /// Drains the writer, and returns all that the peer reads until the end.
    async fn read_all(writer: SocketWriter, mut peer: TcpStream) -> Vec<u8> {
        let drain = async {
            poll_fn(|cx| writer.poll_drained(cx)).await;
            drop(writer);
        };
        let mut read = Vec::new();
        let ((), result) = tokio::join!(drain, peer.read_to_end(&mut read));
        result.unwrap();
        read
    }

    #[tokio::test]
    async fn welcome_is_first_and_only_newer_states_follow() {
        let (writer, peer) = connected().await;
        assert!(writer.send_state(4, &state(4)));
        assert!(writer.send_state(7, &state(7)));
        writer.open(5, &Frame::json(&"welcome"));
        assert!(!writer.send_state(7, &state(7)), "sent already");
        assert!(!writer.send_state(6, &state(6)), "older than the newest one");
        assert!(writer.send_state(8, &state(8)));
        let expected = [Frame::json(&"welcome"), state(7), state(8)].map(|frame| frame.bytes().to_vec());
        assert_eq!(read_all(writer, peer).await, expected.concat());
    }

    #[tokio::test]
    async fn slow_reader_gets_whole_frames_and_the_latest_state_only() {
        let (writer, peer) = connected().await;
        writer.open(0, &Frame::json(&"welcome"));
        let long = Frame::json(&"x".repeat(1 << 20)); // more than any kernel buffer holds
        writer.send(&long);
        assert!(writer.is_above_high_water());
        for seq in 1..=1_000 {
            assert!(writer.send_state(seq, &state(seq)));
        }
        writer.send(&Frame::ping());
        let expected = [Frame::json(&"welcome"), long, Frame::ping(), state(1_000)];
        assert_eq!(read_all(writer, peer).await, expected.map(|frame| frame.bytes().to_vec()).concat());
    }

    #[tokio::test]
    async fn no_frame_follows_a_close() {
        let (writer, peer) = connected().await;
        writer.open(0, &Frame::json(&"welcome"));
        writer.close(CloseCode::Restarting);
        writer.close(CloseCode::TooBig);
        writer.send(&Frame::ping());
        assert!(!writer.send_state(1, &state(1)));
        assert!(writer.has_closed());
        let expected = [Frame::json(&"welcome"), Frame::close(CloseCode::Restarting)];
        assert_eq!(read_all(writer, peer).await, expected.map(|frame| frame.bytes().to_vec()).concat());
    }

    #[tokio::test]
    async fn abort_ends_a_waiting_drain() {
        let (writer, _peer) = connected().await;
        writer.open(0, &Frame::json(&"x".repeat(1 << 20)));
        let drained = poll_fn(|cx| writer.poll_drained(cx));
        let abort = async { assert!(writer.abort()) };
        tokio::join!(biased; drained, abort);
        poll_fn(|cx| writer.poll_drained(cx)).await;
    }

    #[tokio::test]
    async fn failed_write_shuts_the_socket_down_after_what_has_arrived() {
        let (writer, mut peer) = connected().await;
        writer.open(0, &Frame::json(&"welcome"));
        peer.write_all(b"sent before").await.unwrap();
        writer.stream().readable().await.unwrap();
        writer.finish(); // writes fail with EPIPE now
        assert!(writer.send_state(1, &state(1)), "a newer state, though the write fails");
        assert!(!writer.send_state(2, &state(2)), "no write follows a failed one");
        assert!(!writer.has_closed(), "a failed write is no close");
        let mut read = Vec::new();
        loop {
            writer.stream().readable().await.unwrap();
            match writer.stream().try_read_buf(&mut read) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(read, b"sent before", "the end follows, though the peer is still connected");
        drop(peer);
    }

    #[tokio::test]
    async fn close_stays_a_close_after_an_abort() {
        let (writer, _peer) = connected().await;
        writer.open(0, &Frame::json(&"welcome"));
        writer.close(CloseCode::Restarting);
        assert!(writer.abort());
        assert!(writer.has_closed());
        assert!(!writer.abort());
    }

    #[tokio::test]
    async fn sweep_counts_idle_stalled_and_closing_passes() {
        let (writer, _peer) = connected().await;
        writer.open(0, &Frame::json(&"welcome"));
        assert_eq!(
            writer.sweep(),
            WriterStatus { idle: 1, stalled: 0, closing: 0, unsent: 0, keepalive: false }
        );
        writer.send(&Frame::json(&"x".repeat(1 << 20)));
        writer.close(CloseCode::Overloaded);
        let WriterStatus { idle: 2, stalled: 1, closing: 1, unsent, keepalive: false } = writer.sweep()
        else {
            panic!("another status")
        };
        assert!(unsent > HIGH_WATER);
        writer.mark_alive();
        assert_eq!(
            writer.sweep(),
            WriterStatus { idle: 1, stalled: 2, closing: 2, unsent, keepalive: false }
        );
    }
}
