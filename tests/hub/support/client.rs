//! A WebSocket client of a room, written from the protocol alone. It checks each message against the contract.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use super::TIMEOUT;
use super::contract::SOCKETS;

pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub welcome: Value,
    /// The newest state of the room.
    pub present: u64,
    pub moods: Value,
    pub seq: u64,
    pub presence_frames: usize,
    last_ref: u64,
    /// The code and the reason of the hub's close frame.
    closed: Option<(u16, String)>,
    /// Received messages other than states that no `expect` has taken yet.
    inbox: Vec<Value>,
}

/// How a socket ended, as the client saw it.
#[derive(Debug, PartialEq, Eq)]
pub enum Disconnect {
    Closed(u16),
    Lost,
}

impl Client {
    pub async fn join(address: &str, room: &str, query: &str) -> Self {
        let url = format!("ws://{address}/rooms/{room}/socket?{query}");
        Self::connect(&url).await.unwrap().expect_welcome().await
    }

    /// Joins with this `User-Agent`.
    pub async fn join_with_user_agent(agent: &str, address: &str, room: &str, query: &str) -> Self {
        Self::join_with_header(("user-agent", agent), address, room, query).await
    }

    /// Joins with an additional request header.
    pub async fn join_with_header(
        header: (&'static str, &str),
        address: &str,
        room: &str,
        query: &str,
    ) -> Self {
        let url = format!("ws://{address}/rooms/{room}/socket?{query}");
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert(header.0, header.1.parse().unwrap());
        Self::connect(request).await.unwrap().expect_welcome().await
    }

    /// Reads the welcome, which must be the first message.
    pub async fn expect_welcome(self) -> Self {
        let mut client = self;
        let welcome = client.next().await.expect("a welcome");
        assert_eq!(welcome["type"], "welcome", "the first message");
        client.apply_state(&welcome);
        client.presence_frames = 0;
        client.welcome = welcome;
        client
    }

    /// Opens a socket and reads nothing.
    pub async fn connect(request: impl IntoClientRequest + Unpin) -> Result<Self, Error> {
        let (socket, _) = timeout(TIMEOUT, connect_async(request)).await.expect("a connection")?;
        Ok(Self {
            socket,
            welcome: Value::Null,
            present: 0,
            moods: Value::Null,
            seq: 0,
            presence_frames: 0,
            last_ref: 0,
            closed: None,
            inbox: Vec::new(),
        })
    }

    /// Returns the next JSON message, or how the socket ended.
    pub async fn next(&mut self) -> Result<Value, Disconnect> {
        loop {
            let message = timeout(TIMEOUT, self.socket.next()).await.expect("a message in time");
            match message {
                Some(Ok(Message::Text(text))) => {
                    let message = serde_json::from_str(&text).unwrap();
                    SOCKETS.expect(&message);
                    return Ok(message);
                }
                Some(Ok(Message::Close(frame))) => {
                    self.closed = frame.as_ref().map(|frame| (frame.code.into(), frame.reason.to_string()));
                    return Err(Disconnect::Closed(frame.map_or(1005, |frame| frame.code.into())));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Disconnect::Lost),
            }
        }
    }

    fn apply_state(&mut self, message: &Value) {
        let seq = message["seq"].as_u64().unwrap();
        // An empty room has seq 0. Only a bot can receive that state.
        assert!(seq > self.seq || self.welcome.is_null(), "seq must increase: {seq} after {}", self.seq);
        self.seq = seq;
        self.present = message["present"].as_u64().unwrap();
        self.moods = message["moods"].clone();
        self.presence_frames += 1;
    }

    /// Reads one message: applies a state, and puts any other message into the inbox.
    pub async fn read(&mut self) {
        let message = self.next().await.expect("an open socket");
        if message["type"] == "presence" { self.apply_state(&message) } else { self.inbox.push(message) }
    }

    /// Reads until the room has this count.
    pub async fn expect_present(&mut self, present: u64) -> &mut Self {
        while self.present != present {
            self.read().await;
        }
        self
    }

    /// Reads until the room has exactly these moods.
    pub async fn expect_moods(&mut self, moods: Value) -> &mut Self {
        while self.moods != moods {
            self.read().await;
        }
        self
    }

    /// Returns the next message of this type, which is not a state.
    pub async fn expect(&mut self, kind: &str) -> Value {
        loop {
            if let Some(index) = self.inbox.iter().position(|message| message["type"] == kind) {
                return self.inbox.remove(index);
            }
            self.read().await;
        }
    }

    /// Whether a message of this type has arrived that no `expect` has taken.
    pub fn has_received(&self, kind: &str) -> bool {
        self.inbox.iter().any(|message| message["type"] == kind)
    }

    /// Reads acks until this `ref` is covered.
    pub async fn expect_ack(&mut self, reference: u64) {
        while self.expect("ack").await["upTo"].as_u64().unwrap() < reference {}
    }

    /// Returns the next error, which must have this code.
    pub async fn expect_error(&mut self, code: &str) -> Value {
        let error = self.expect("error").await;
        assert_eq!(error["code"], code, "{error}");
        error
    }

    /// Reads until the socket ends.
    pub async fn expect_disconnect(&mut self) -> Disconnect {
        loop {
            if let Err(ending) = self.next().await {
                return ending;
            }
        }
    }

    /// Reads until the hub closes, and returns the code and the reason.
    pub async fn expect_close(&mut self) -> (u16, String) {
        let end = self.expect_disconnect().await;
        self.closed.clone().unwrap_or_else(|| panic!("{end:?} is not a close with a code"))
    }

    pub async fn send_json(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send(Message::Text(Utf8Bytes::from(text))).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends a message to a hub that may have stopped.
    pub async fn try_send_json(&mut self, message: Value) -> Result<(), Error> {
        self.socket.send(Message::Text(message.to_string().into())).await
    }

    pub async fn set_mood(&mut self, mood: Option<&str>) {
        self.send_json(json!({ "type": "mood", "mood": mood })).await;
    }

    /// Waits until the hub has processed all messages sent before: its reply to an unknown message comes after them.
    pub async fn round_trip(&mut self) {
        self.send_json(json!({ "type": "are-you-done" })).await;
        self.expect_error("unknown-type").await;
    }

    /// Returns the next `ref` of this socket.
    pub fn next_ref(&mut self) -> u64 {
        self.last_ref += 1;
        self.last_ref
    }

    /// Sends an event and returns its `ref`.
    pub async fn send_event(&mut self, mut event: Value) -> u64 {
        let reference = self.next_ref();
        event["ref"] = reference.into();
        self.send_json(event).await;
        reference
    }

    pub async fn view_page(&mut self, id: Uuid, path: &str) -> u64 {
        self.send_event(json!({ "type": "page-view", "id": id, "path": path })).await
    }

    /// Closes with 1000 and waits for the echo.
    pub async fn leave(self) {
        assert_eq!(self.close(1000).await, Disconnect::Closed(1000));
    }

    pub async fn close(mut self, code: u16) -> Disconnect {
        self.send(Message::Close(Some(CloseFrame { code: code.into(), reason: "".into() }))).await;
        self.expect_disconnect().await
    }

    /// Closes with 1000 and resets the connection immediately, with received data unread.
    pub async fn close_and_reset(mut self) {
        let close = Message::Close(Some(CloseFrame { code: 1000.into(), reason: "".into() }));
        self.stream().set_nodelay(true).unwrap(); // otherwise the close frame may wait for an ACK and be lost
        self.send(close).await;
        socket2::SockRef::from(self.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn stream(&self) -> &TcpStream {
        match self.socket.get_ref() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => panic!("no test uses TLS"),
        }
    }

    /// Ends the connection without a close frame.
    pub fn disconnect(self) {
        drop(self);
    }

    /// Writes raw bytes, which need not be a frame.
    pub async fn write_bytes(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt;
        self.socket.get_mut().write_all(bytes).await.unwrap();
    }

    /// Waits for a ping. tungstenite answers it, as browsers do.
    pub async fn expect_ping(&mut self) {
        let message = timeout(TIMEOUT, self.socket.next()).await.expect("a ping in time");
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
        self.socket.flush().await.unwrap();
    }
}
