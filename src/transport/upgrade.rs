//! The upgrade: from an HTTP request to a TCP stream for WebSocket (RFC 6455, section 4.2).
//!
//! It checks the opening handshake and builds the response; hyper sends it and hands over the connection. It knows HTTP
//! headers, but not the messages of the socket.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::warn;

use crate::protocol::{BEARER_SUBPROTOCOL, SUBPROTOCOL, VISITOR_HEADER, VISITOR_SUBPROTOCOL};

/// The protocol version of RFC 6455.
const WEBSOCKET_VERSION: &str = "13";

/// The time limit to send the response that opens the socket, and the responses before it.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request does not open a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// Not an upgrade request to WebSocket, or not by GET over HTTP/1.1.
    #[error("this path is a WebSocket: connect with an upgrade request")]
    NotWebSocket,
    /// A protocol version other than 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// The key is missing, sent twice, or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64, once")]
    Key,
    /// The request announces a body, whose bytes would be parsed as frames.
    #[error("a WebSocket request must not have a body: remove Content-Length, Transfer-Encoding and Expect")]
    Body,
}

/// A valid opening handshake.
#[derive(Debug)]
pub struct Handshake {
    accept: HeaderValue,
    subprotocol: bool,
    /// None if hyper did not read the request.
    connection: Option<OnUpgrade>,
}

/// A connection whose response is not sent yet.
#[derive(Debug)]
pub(crate) struct PendingUpgrade(Option<OnUpgrade>);

impl Handshake {
    /// Checks the client's part of the handshake.
    ///
    /// # Errors
    /// The request does not open a WebSocket.
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
        if announces_body(headers) {
            return Err(UpgradeError::Body);
        }
        let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter().map(HeaderValue::as_bytes);
        let key = keys.next().filter(|key| is_key(key)).ok_or(UpgradeError::Key)?;
        if keys.next().is_some() {
            return Err(UpgradeError::Key);
        }
        let accept = HeaderValue::try_from(derive_accept_key(key)).map_err(|_| UpgradeError::Key)?;
        let subprotocol = items(headers, &SEC_WEBSOCKET_PROTOCOL).any(|item| item == SUBPROTOCOL);
        Ok(Self { accept, subprotocol, connection: request.extensions().get().cloned() })
    }

    /// Returns the response that opens the socket, and the connection, which is ready when the response is sent.
    pub(crate) fn accept<B: Default>(mut self) -> (Response<B>, PendingUpgrade) {
        let pending = PendingUpgrade(self.connection.take());
        (self.response(), pending)
    }

    fn response<B: Default>(self) -> Response<B> {
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

impl PendingUpgrade {
    /// Returns the connection when the response is sent. Returns none if the connection ends before, or if the peer does
    /// not read the response within five seconds; only hyper owns the connection then.
    pub(crate) async fn complete(self) -> Option<Upgraded> {
        let upgraded = timeout(UPGRADE_TIMEOUT, self.0?).await.ok()?.ok()?;
        let Some((io, buffered)) = take_over(upgraded) else {
            warn!(
                "a WebSocket is not on a plain TCP connection of hyper or, with the feature `embed`, of axum::serve"
            );
            return None;
        };
        Some(Upgraded { stream: io.into_inner(), buffered })
    }
}

/// Takes the TCP stream of a connection back from hyper, with the bytes that hyper has read.
fn take_over(upgraded: hyper::upgrade::Upgraded) -> Option<(TokioIo<TcpStream>, Bytes)> {
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(Parts { io, read_buf, .. }) => Some((io, read_buf)),
        #[cfg(feature = "embed")]
        Err(upgraded) => {
            use hyper_util::server::conn::auto::upgrade::{Parts, downcast};
            downcast::<TokioIo<TcpStream>>(upgraded).ok().map(|Parts { io, read_buf, .. }| (io, read_buf))
        }
        #[cfg(not(feature = "embed"))]
        Err(_) => None,
    }
}

/// A connection after the opening handshake.
#[derive(Debug)]
pub struct Upgraded {
    /// The connection.
    pub stream: TcpStream,
    /// The bytes that the peer sent after its request.
    pub buffered: Bytes,
}

impl From<TcpStream> for Upgraded {
    fn from(stream: TcpStream) -> Self {
        Self { stream, buffered: Bytes::new() }
    }
}

/// Returns the token that the client offers as a subprotocol. The hub never echoes it.
pub(crate) fn offered_token(headers: &HeaderMap) -> Option<&str> {
    items(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|item| item.strip_prefix(BEARER_SUBPROTOCOL))
}

/// Returns the visitor id that the client offers as a subprotocol, or names in the header `visitor`: a page that asks by a
/// plain `GET` why its upgrade was rejected cannot offer subprotocols. The hub never echoes it.
pub(crate) fn offered_visitor(headers: &HeaderMap) -> Option<&str> {
    let offered =
        items(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|item| item.strip_prefix(VISITOR_SUBPROTOCOL));
    offered.or_else(|| headers.get(VISITOR_HEADER)?.to_str().ok())
}

/// Whether a request announces a body.
fn announces_body(headers: &HeaderMap) -> bool {
    let is_long = |length: &HeaderValue| length.as_bytes() != b"0";
    headers.contains_key(TRANSFER_ENCODING)
        || headers.contains_key(EXPECT)
        || headers.get_all(CONTENT_LENGTH).iter().any(is_long)
}

/// Returns the items of a header that is a comma-separated list.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

/// Whether a key is 16 bytes in base64: 22 characters and two of padding.
fn is_key(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key.strip_suffix(b"=="), Some(digits) if digits.len() == 22 && digits.iter().all(is_base64))
}

#[cfg(test)]
mod tests {
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
    fn response_is_the_example_of_the_rfc() {
        let response: Response<()> = check(|_| {}).unwrap().response();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn subprotocol_is_echoed_when_offered() {
        let offer = HeaderValue::from_static("bearer.x, breathing-room.v1");
        let handshake = check(|request| {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offer);
        });
        let response: Response<()> = handshake.unwrap().response();
        assert_eq!(response.headers()["sec-websocket-protocol"], "breathing-room.v1");
    }

    #[test]
    fn offered_token_is_found_and_not_echoed() {
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
        let response: Response<()> = handshake.unwrap().response();
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn request_that_is_no_handshake_is_rejected() {
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

    #[test]
    fn two_keys_or_an_announced_body_are_rejected() {
        let with = |name: HeaderName, value: &'static str| {
            check(|request| {
                request.headers_mut().append(name, HeaderValue::from_static(value));
            })
            .err()
        };
        assert_eq!(with(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="), Some(UpgradeError::Key));
        assert_eq!(with(CONTENT_LENGTH, "5"), Some(UpgradeError::Body));
        assert_eq!(with(TRANSFER_ENCODING, "chunked"), Some(UpgradeError::Body));
        assert_eq!(with(EXPECT, "100-continue"), Some(UpgradeError::Body));
        assert_eq!(with(CONTENT_LENGTH, "0"), None, "an empty body");
    }
}
