//! The writer: the one owner of writes to one socket.
//!
//! Whole frames go in and leave in order. What the kernel does not take at once stays as a tail,
//! and the socket's own task drains it. States are never queued: while a tail is in the way, only
//! the newest state waits, so what a slow socket costs is bounded by construction. The writer
//! knows bytes, ready frames and sequence numbers; it does not know rooms or messages.

use std::io;
use std::net::Shutdown;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::protocol::CloseCode;
use crate::protocol::frame::Frame;
use crate::sync::lock;

/// With this many unsent bytes a socket is clogged: its task reads no more until they are gone.
const HIGH_WATER: usize = 16 * 1024;

/// `MSG_NOSIGNAL`: a connection that is gone is an error of this call and no signal to the process.
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

/// `MSG_MORE`: the kernel waits for more before it sends a packet, or for the end.
#[cfg(target_os = "linux")]
const WITH_FIN: SendFlags = NO_SIGNAL.union(SendFlags::MORE);
#[cfg(not(target_os = "linux"))]
const WITH_FIN: SendFlags = NO_SIGNAL; // in two packets

/// The sending half of a socket, shared by its session and by whoever publishes to it.
#[derive(Debug)]
pub struct SocketWriter {
    stream: TcpStream,
    /// This lock *is* the ownership of the socket's writes: frames of two writers must not mix, so
    /// it is held over the (non-blocking) write. One socket, one lock: nobody else waits for it.
    state: Mutex<WriteState>,
}

#[derive(Debug)]
struct WriteState {
    phase: Phase,
    /// Sweeps since the peer was last heard.
    idle: u32,
    /// The newest state that was written or is in the tail.
    seq: u64,
    /// Most sockets never have one, and there are many sockets.
    backlog: Option<Box<Backlog>>,
    /// The socket's task, to be woken when there is a tail to drain.
    drainer: Option<Waker>,
}

/// What waits for a peer.
#[derive(Debug, Default)]
struct Backlog {
    /// What the kernel has not taken yet, up to the end of a frame.
    tail: BytesMut,
    /// The newest state, where the tail is in its way.
    newest: Option<(u64, Frame)>,
    /// Sweeps since the kernel last took a byte of the tail.
    stalled: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the welcome: states wait.
    Corked,
    Open,
    /// A close frame was the last to go in, so many sweeps ago.
    Closing(u16),
    /// The kernel refused a write, or the hub gave the socket up: it is shut down.
    Broken {
        /// Whether the hub had sent its close frame before.
        after_close: bool,
    },
}

/// How a socket does, in sweeps. Made by [`SocketWriter::sweep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterStatus {
    /// Since the peer was last heard.
    pub idle: u32,
    /// Since the peer last took a byte of what waits for it; 0 where nothing waits.
    pub stalled: u32,
    /// Since the hub sent its close frame; 0 where it sent none.
    pub closing: u32,
    /// Bytes that wait for the peer.
    pub unsent: usize,
}

impl SocketWriter {
    /// Takes over all writing to `stream`. No state leaves before [`open`](Self::open).
    #[must_use]
    pub(crate) fn new(stream: TcpStream) -> Self {
        let write_state = WriteState { phase: Phase::Corked, idle: 0, seq: 0, backlog: None, drainer: None };
        Self { stream, state: Mutex::new(write_state) }
    }

    /// The socket, for reading only.
    #[must_use]
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends the first message, which tells the state `seq`, and lets newer states follow it.
    pub(crate) fn open(&self, seq: u64, first: &Frame) {
        let mut writes = lock(&self.state);
        if writes.phase == Phase::Corked {
            writes.phase = Phase::Open;
            writes.seq = seq;
            writes.write(&self.stream, first.bytes());
            writes.drop_state(seq);
            writes.write_newest(&self.stream);
        }
    }

    /// Sends the state `seq`, now or as soon as nothing is in its way, unless a newer one comes
    /// first. Says whether it was news to this socket.
    pub(crate) fn send_state(&self, seq: u64, state: &Frame) -> bool {
        let mut writes = lock(&self.state);
        let waiting = writes.backlog.as_ref().and_then(|backlog| backlog.newest.as_ref());
        let known = waiting.map_or(writes.seq, |(newest, _)| *newest);
        if seq <= known {
            return false;
        }
        match writes.phase {
            Phase::Open if writes.tail().is_empty() => {
                writes.seq = seq;
                writes.write(&self.stream, state.bytes());
            }
            Phase::Open | Phase::Corked => {
                writes.backlog.get_or_insert_default().newest = Some((seq, state.clone()));
            }
            Phase::Closing(_) | Phase::Broken { .. } => return false,
        }
        true
    }

    /// Sends a frame that is not a state, after all that went in before.
    pub fn send(&self, frame: &Frame) {
        self.send_bytes(frame.bytes());
    }

    /// Sends the bytes of whole frames, after all that went in before.
    pub(crate) fn send_bytes(&self, frames: &[u8]) {
        self.send_with(NO_SIGNAL, frames);
    }

    /// The same of the last ones, behind which the connection is dropped at once: they leave in one packet with
    /// its end.
    pub(crate) fn send_last(&self, frames: &[u8]) {
        self.send_with(WITH_FIN, frames);
    }

    fn send_with(&self, flags: SendFlags, frames: &[u8]) {
        let mut writes = lock(&self.state);
        if matches!(writes.phase, Phase::Corked | Phase::Open) {
            writes.write_with(flags, &self.stream, frames);
        }
    }

    /// Sends a close frame, the last that goes in. Later calls change nothing.
    pub fn close(&self, code: CloseCode) {
        let mut writes = lock(&self.state);
        if matches!(writes.phase, Phase::Corked | Phase::Open) {
            writes.drop_state(u64::MAX);
            writes.write(&self.stream, Frame::close(code).bytes());
            if !matches!(writes.phase, Phase::Broken { .. }) {
                writes.phase = Phase::Closing(0);
            }
        }
    }

    /// Ends the connection at once. The socket's task reads what has arrived before, and then its end. Says
    /// whether it had not ended yet.
    pub(crate) fn abort(&self) -> bool {
        lock(&self.state).shut_down(&self.stream)
    }

    /// Tells the peer that nothing more will come; reading goes on.
    pub fn finish(&self) {
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
    }

    /// Whether the hub has sent its close frame. A write that failed is no close: what the peer has said before
    /// holds all the same.
    #[must_use]
    pub(crate) fn has_closed(&self) -> bool {
        matches!(lock(&self.state).phase, Phase::Closing(_) | Phase::Broken { after_close: true })
    }

    /// Whether so much waits for the peer that nothing more should be read from it.
    #[must_use]
    pub(crate) fn is_above_high_water(&self) -> bool {
        lock(&self.state).tail().len() >= HIGH_WATER
    }

    /// Writes what the socket takes of the tail, and wakes the task when there is more to write. To be polled by
    /// the socket's task only.
    pub(crate) fn drain(&self, cx: &mut Context<'_>) {
        let mut writes = lock(&self.state);
        if writes.poll_drained(&self.stream, cx).is_ready()
            && !writes.drainer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            writes.drainer = Some(cx.waker().clone());
        }
    }

    /// Ready when the kernel has taken everything that went in, or the socket was given up. To be polled by the
    /// socket's task only.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        lock(&self.state).poll_drained(&self.stream, cx)
    }

    /// The peer was heard.
    pub(crate) fn mark_alive(&self) {
        lock(&self.state).idle = 0;
    }

    /// One sweep has come by: counts it and says how the socket does.
    pub(crate) fn sweep(&self) -> WriterStatus {
        let mut writes = lock(&self.state);
        writes.idle += 1;
        let (mut stalled, waiting) = (0, writes.tail().len());
        if let Some(backlog) = writes.backlog.as_mut().filter(|_| waiting > 0) {
            backlog.stalled += 1;
            stalled = backlog.stalled;
        }
        let closing = match &mut writes.phase {
            Phase::Closing(sweeps) => {
                *sweeps = sweeps.saturating_add(1);
                u32::from(*sweeps)
            }
            Phase::Corked | Phase::Open | Phase::Broken { .. } => 0,
        };
        WriterStatus { idle: writes.idle, stalled, closing, unsent: waiting }
    }
}

impl WriteState {
    fn tail(&self) -> &[u8] {
        self.backlog.as_ref().map_or(&[], |backlog| &backlog.tail)
    }

    fn write(&mut self, stream: &TcpStream, frames: &[u8]) {
        self.write_with(NO_SIGNAL, stream, frames);
    }

    /// Writes what the kernel takes at once and keeps the rest.
    fn write_with(&mut self, flags: SendFlags, stream: &TcpStream, frames: &[u8]) {
        if let Some(backlog) = self.backlog.as_mut().filter(|backlog| !backlog.tail.is_empty()) {
            backlog.tail.extend_from_slice(frames);
            return;
        }
        // Past tokio's record of what is ready, which is one cache line more to miss for each member of a
        // crowd. Draining goes by it.
        let taken = match send(stream, frames, flags) {
            Ok(taken) => taken,
            Err(Errno::AGAIN) => 0,
            // Whatever else it is, this peer cannot be told anything any more.
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
                Ok(()) => stream.try_write(self.tail()), // with MSG_NOSIGNAL, as all of std
                Err(error) => Err(error),
            };
            match written {
                Ok(taken) => self.advance_tail(stream, taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => _ = self.shut_down(stream),
            }
        }
        Poll::Ready(())
    }

    /// Writes the state that waits, where nothing is in its way any more. Then no backlog is left.
    fn write_newest(&mut self, stream: &TcpStream) {
        if self.phase == Phase::Corked || !self.tail().is_empty() {
            return;
        }
        if let Some((seq, state)) = self.backlog.take().and_then(|backlog| backlog.newest) {
            self.seq = seq;
            self.write(stream, state.bytes());
        }
    }

    /// Forgets a state that waits, up to this one.
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

    /// Shuts the socket down, so that its task wakes up and finds its end, whatever the peer goes on to do. Says
    /// whether it was not broken yet.
    fn shut_down(&mut self, stream: &TcpStream) -> bool {
        self.backlog = None;
        let after_close = match self.phase {
            Phase::Broken { .. } => return false,
            Phase::Closing(_) => true,
            Phase::Corked | Phase::Open => false,
        };
        self.phase = Phase::Broken { after_close };
        // It fails where the peer was faster, which is as good.
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

    /// An writer and the peer's end of its socket.
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

    /// With the counters of its `Arc` it fits into 112 bytes, which allocators have a size for; the next is 128. In
    /// glibc's it fills the gap between two of tokio's tasks, which are aligned to 128 bytes.
    #[test]
    fn it_is_small_since_every_idle_socket_has_one() {
        assert!(size_of::<SocketWriter>() <= 88, "{}", size_of::<SocketWriter>());
    }

    /// All that the peer reads until the end, while the writer drains.
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
    async fn the_welcome_is_first_and_only_news_follows_it() {
        let (writer, peer) = connected().await;
        assert!(writer.send_state(4, &state(4)));
        assert!(writer.send_state(7, &state(7)));
        writer.open(5, &Frame::json(&"welcome"));
        assert!(!writer.send_state(7, &state(7)), "told already");
        assert!(!writer.send_state(6, &state(6)), "older than what was told");
        assert!(writer.send_state(8, &state(8)));
        let expected = [Frame::json(&"welcome"), state(7), state(8)].map(|frame| frame.bytes().to_vec());
        assert_eq!(read_all(writer, peer).await, expected.concat());
    }

    #[tokio::test]
    async fn a_slow_socket_gets_whole_frames_and_of_all_states_the_newest() {
        let (writer, peer) = connected().await;
        writer.open(0, &Frame::json(&"welcome"));
        let long = Frame::json(&"x".repeat(1 << 20)); // more than any kernel buffer takes
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
    async fn nothing_follows_a_close() {
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
    async fn nobody_waits_for_a_socket_that_was_given_up() {
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
        peer.write_all(b"said before").await.unwrap();
        writer.stream().readable().await.unwrap();
        writer.finish(); // from now on the kernel refuses writes with EPIPE
        assert!(writer.send_state(1, &state(1)), "it was news, though it cannot be told");
        assert!(!writer.send_state(2, &state(2)), "nothing is told any more");
        assert!(!writer.has_closed(), "a write that failed is no close of the hub");
        let mut read = Vec::new();
        loop {
            writer.stream().readable().await.unwrap();
            match writer.stream().try_read_buf(&mut read) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(read, b"said before", "and then the end, though the peer is still there");
        drop(peer);
    }

    #[tokio::test]
    async fn close_of_the_hub_holds_when_a_later_write_fails() {
        let (writer, _peer) = connected().await;
        writer.open(0, &Frame::json(&"welcome"));
        writer.close(CloseCode::Restarting);
        assert!(writer.abort());
        assert!(writer.has_closed());
        assert!(!writer.abort());
    }

    #[tokio::test]
    async fn a_sweep_counts_silence_stalls_and_closes() {
        let (writer, _peer) = connected().await;
        writer.open(0, &Frame::json(&"welcome"));
        assert_eq!(writer.sweep(), WriterStatus { idle: 1, stalled: 0, closing: 0, unsent: 0 });
        writer.send(&Frame::json(&"x".repeat(1 << 20)));
        writer.close(CloseCode::Overloaded);
        let WriterStatus { idle: 2, stalled: 1, closing: 1, unsent } = writer.sweep() else {
            panic!("other vitals")
        };
        assert!(unsent > HIGH_WATER);
        writer.mark_alive();
        assert_eq!(writer.sweep(), WriterStatus { idle: 1, stalled: 2, closing: 2, unsent });
    }
}
