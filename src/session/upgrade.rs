//! The upgrade: from an HTTP request to a TCP stream that speaks WebSocket (RFC 6455, section 4.2).
//!
//! Checks the opening handshake, builds its answer, and keeps that back: it leaves together with the
//! first message. It knows HTTP headers and nothing of what is said on the socket afterwards.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::sync::lock;
use crate::wire::{BEARER_SUBPROTOCOL, SUBPROTOCOL, VISITOR_SUBPROTOCOL};

/// The protocol version of RFC 6455.
const WEBSOCKET_VERSION: &str = "13";

/// Room for the answer and a welcome behind it, in bytes, so that neither is moved.
const FIRST_PACKET: usize = 1024;

/// How the answer begins that opens a socket.
const SWITCHING_PROTOCOLS: &[u8] = b"HTTP/1.1 101 ";

/// What becomes of a connection whose request opens a socket: an extension of every request, by which its
/// handler tells its connection. Cloning shares it.
#[derive(Clone, Default)]
pub struct Opening(
    /// Set and taken by one connection's own task: nobody ever waits for it.
    Arc<Mutex<Option<Open>>>,
);

type Open = Box<dyn FnOnce(Upgraded) + Send>;

impl Opening {
    /// What to do with the connection, where a request has opened a socket.
    #[must_use]
    pub fn take(&self) -> Option<impl FnOnce(Upgraded) + use<>> {
        lock(&self.0).take()
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening")
    }
}

/// The request does not open a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// No request for an upgrade to WebSocket, or not by GET over HTTP/1.1.
    #[error("this address speaks WebSocket: connect with an upgrade request")]
    NotWebSocket,
    /// Another protocol version than 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// The key is missing, or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
}

/// A good opening handshake that waits for its answer.
#[derive(Debug)]
pub struct Handshake {
    accept: HeaderValue,
    subprotocol: bool,
    opening: Opening,
}

impl Handshake {
    /// Checks the request's part of the handshake.
    ///
    /// # Errors
    /// The request does not open a WebSocket, and why.
    pub fn check<B>(request: &Request<B>) -> Result<Self, UpgradeError> {
        let headers = request.headers();
        let has_token = |name, token| items(headers, name).any(|item| item.eq_ignore_ascii_case(token));
        let asks = has_token(&CONNECTION, "upgrade") && has_token(&UPGRADE, "websocket");
        if !asks || request.method() != Method::GET || request.version() < Version::HTTP_11 {
            return Err(UpgradeError::NotWebSocket);
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != WEBSOCKET_VERSION) {
            return Err(UpgradeError::Version);
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
        if !is_key(key) {
            return Err(UpgradeError::Key);
        }
        let accept = HeaderValue::try_from(derive_accept_key(key)).map_err(|_| UpgradeError::Key)?;
        let subprotocol = items(headers, &SEC_WEBSOCKET_PROTOCOL).any(|item| item == SUBPROTOCOL);
        let opening = request.extensions().get().cloned().unwrap_or_default();
        Ok(Self { accept, subprotocol, opening })
    }

    /// Makes the connection a socket's, which `open` is given as soon as it is, and returns the answer
    /// that says so. Where the connection ends before, `open` is dropped.
    #[must_use]
    pub fn accept<B: Default>(self, open: impl FnOnce(Upgraded) + Send + 'static) -> Response<B> {
        *lock(&self.opening.0) = Some(Box::new(open));
        self.answer()
    }

    fn answer<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        if self.subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        response
    }
}

/// A connection that speaks HTTP and may become a socket. It keeps the answer that makes it one, which
/// then leaves with the first message: one write and one packet less for everybody who comes.
#[derive(Debug)]
pub struct Upgradable {
    stream: TcpStream,
    answer: BytesMut,
}

impl Upgradable {
    /// The connection as a socket's, with what was read behind the request.
    #[must_use]
    pub fn upgrade(self, read_already: Bytes) -> Upgraded {
        let Self { stream, answer } = self;
        Upgraded { stream, answer, read_already }
    }
}

/// A connection that speaks WebSocket from now on.
#[derive(Debug)]
pub struct Upgraded {
    /// The connection.
    pub stream: TcpStream,
    /// The answer that opens the socket, still to be sent.
    pub answer: BytesMut,
    /// What the peer has sent behind its request.
    pub read_already: Bytes,
}

impl From<TcpStream> for Upgradable {
    fn from(stream: TcpStream) -> Self {
        Self { stream, answer: BytesMut::new() }
    }
}

impl From<TcpStream> for Upgraded {
    /// A connection whose answer was sent.
    fn from(stream: TcpStream) -> Self {
        Self { stream, answer: BytesMut::new(), read_already: Bytes::new() }
    }
}

impl AsyncRead for Upgradable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Upgradable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.answer.is_empty() && !bytes.starts_with(SWITCHING_PROTOCOLS) {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        if self.answer.is_empty() {
            self.answer.reserve(FIRST_PACKET);
        }
        self.answer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The token that is offered as a subprotocol. It is never echoed.
#[must_use]
pub fn offered_token(headers: &HeaderMap) -> Option<&str> {
    items(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|item| item.strip_prefix(BEARER_SUBPROTOCOL))
}

/// The visitor's id that is offered as a subprotocol. It is never echoed.
#[must_use]
pub fn offered_visitor(headers: &HeaderMap) -> Option<&str> {
    items(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|item| item.strip_prefix(VISITOR_SUBPROTOCOL))
}

/// The items of a header that is a comma-separated list.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

/// 16 bytes are 22 characters of base64 and two of padding.
fn is_key(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key.strip_suffix(b"=="), Some(digits) if digits.len() == 22 && digits.iter().all(is_base64))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn check(change: impl FnOnce(&mut Request<()>)) -> Result<Handshake, UpgradeError> {
        let mut request = Request::builder()
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        change(&mut request);
        Handshake::check(&request)
    }

    #[test]
    fn the_answer_is_the_one_of_the_rfc() {
        let answer: Response<()> = check(|_| {}).unwrap().answer();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!answer.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn the_subprotocol_is_echoed_when_offered() {
        let offer = HeaderValue::from_static("bearer.x, breathing-room.v1");
        let handshake = check(|request| {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offer);
        });
        let answer: Response<()> = handshake.unwrap().answer();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "breathing-room.v1");
    }

    #[test]
    fn a_token_is_found_among_the_subprotocols_and_not_echoed() {
        let mut request = Request::new(());
        let offers = request.headers_mut();
        assert_eq!(offered_token(offers), None);
        offers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("breathing-room.v1"));
        assert_eq!(offered_token(offers), None);
        offers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("other, bearer.a.b.c"));
        assert_eq!(offered_token(offers), Some("a.b.c"));
        let handshake = check(|request| {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("bearer.a.b.c"));
        });
        let answer: Response<()> = handshake.unwrap().answer();
        assert!(!answer.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn a_request_that_opens_no_socket_is_refused() {
        let without = |name: HeaderName| {
            check(|request| {
                request.headers_mut().remove(name);
            })
            .err()
        };
        let with = |name: HeaderName, value: &'static str| {
            check(|request| {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            })
            .err()
        };
        let head = check(|request| *request.method_mut() = Method::HEAD).err();
        assert_eq!(head, Some(UpgradeError::NotWebSocket));
        assert_eq!(without(CONNECTION), Some(UpgradeError::NotWebSocket));
        assert_eq!(without(UPGRADE), Some(UpgradeError::NotWebSocket));
        assert_eq!(with(UPGRADE, "h2c"), Some(UpgradeError::NotWebSocket));
        assert_eq!(with(SEC_WEBSOCKET_VERSION, "8"), Some(UpgradeError::Version));
        assert_eq!(without(SEC_WEBSOCKET_KEY), Some(UpgradeError::Key));
        assert_eq!(with(SEC_WEBSOCKET_KEY, "short=="), Some(UpgradeError::Key));
    }

    #[tokio::test]
    async fn the_answer_that_opens_a_socket_is_kept_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut connection = Upgradable::from(listener.accept().await.unwrap().0);
        let (other, opening) = ("HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n");
        for bytes in [other, opening, "\r\n"] {
            connection.write_all(bytes.as_bytes()).await.unwrap();
        }
        assert_eq!(connection.answer, format!("{opening}\r\n"));
        drop(connection);
        let mut read = String::new();
        peer.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, other);
    }
}
