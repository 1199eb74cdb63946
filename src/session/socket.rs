//! The socket: tungstenite reads and keeps the protocol's rules; the outlet writes.
//!
//! tungstenite's own frames (pongs and the echo of a close) go through the outlet too, which takes
//! them whole, so that every socket has one owner of writes. What a peer does wrong is answered
//! with the close code of RFC 6455, section 7.4.1.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as PeerCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::live::Outlet;
use crate::wire::{CloseCode, MESSAGE_LIMIT};

/// tungstenite fills the whole read buffer with zeros before every read, and every idle socket
/// keeps it: as small as most messages are.
const READ_BUFFER: usize = 512;

/// One open socket, as its session sees it.
#[derive(Debug)]
pub struct Socket {
    frames: WebSocketStream<Inlet>,
    outlet: Arc<Outlet>,
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
    pub async fn new(stream: TcpStream, read_already: Bytes) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        let outlet = Arc::new(Outlet::new(stream));
        let (inlet, role) = (Inlet(Arc::clone(&outlet)), Role::Server);
        let read_already = read_already.to_vec();
        let frames = WebSocketStream::from_partially_read(inlet, read_already, role, Some(config)).await;
        Self { frames, outlet, closed_by_peer: false }
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
            let message = tokio::select! {
                drained = poll_fn(|cx| self.outlet.poll_drain(cx)) => match drained {
                    Ok(()) => continue,
                    Err(_) => return Incoming::Ended(End::Lost),
                },
                message = self.frames.next(), if !self.outlet.is_clogged() => message,
            };
            self.outlet.heard();
            match message {
                Some(Ok(Message::Text(text))) if !self.outlet.is_closing() => return Incoming::Text(text),
                Some(Ok(Message::Binary(_))) => self.outlet.close(CloseCode::Unsupported),
                Some(Ok(Message::Close(frame))) => {
                    self.closed_by_peer = true;
                    let left = frame.is_some_and(|frame| frame.code == PeerCode::Normal);
                    return Incoming::Ended(if left { End::Left } else { End::Lost });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    if let Some(code) = blame(&error) {
                        self.outlet.close(code);
                    }
                    return Incoming::Ended(End::Lost);
                }
                None => return Incoming::Ended(End::Lost),
            }
        }
    }

    /// Ends the connection, after whatever was to be done about its end: a peer that gets the echo of its
    /// close has been counted out. Where the hub has closed, the close frame gets its time to arrive:
    /// to drop a connection with unread bytes would reset it, and the peer would never learn why. The
    /// sweep bounds all of it.
    pub async fn finish(mut self) {
        if self.closed_by_peer {
            // tungstenite writes the echo when it is asked for more.
            self.frames.next().await;
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
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

/// The outlet as tungstenite's stream: reads come from the socket, writes go through the outlet.
#[derive(Debug)]
struct Inlet(Arc<Outlet>);

impl AsyncRead for Inlet {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.0.reading();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Inlet {
    /// Takes everything at once. With a write buffer of 0, what comes is always whole frames.
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, frames: &[u8]) -> Poll<io::Result<usize>> {
        self.0.send_bytes(frames);
        Poll::Ready(Ok(frames.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
