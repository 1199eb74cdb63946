//! A client on one socket, written from the protocol.
//!
//! It numbers its events and knows which of them are unacked on this socket. It keeps the newest state of the room, and
//! returns all other messages to its caller.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::event_log::{Event, EventIndex};
use super::model::{Member, Millis, State};

/// A frame with fewer bytes than its header announces.
const PARTIAL_FRAME: [u8; 9] = [0x81, 0x80 | 0x28, 1, 2, 3, 4, b'{' ^ 1, b'"' ^ 2, b't' ^ 3];

#[derive(Debug)]
pub struct Client {
    pub member: Member,
    /// The client's number in the log.
    pub number: u64,
    /// A client that is not reading leaves all messages in the kernel.
    pub is_reading: bool,
    socket: WebSocketStream<TcpStream>,
    seq: u64,
    state: State,
    last_ref: u64,
    /// The end of the sit, by the welcome or the last answer.
    sit: Option<u64>,
    /// Events that were sent on this socket and neither acked nor rejected.
    unacked: Vec<(u64, EventIndex)>,
}

/// A received message that is not a state.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// These events were acked.
    Acked(Vec<EventIndex>),
    /// This event was rejected, since the queue is full.
    Overloaded(EventIndex),
    /// The hub has closed the socket, or answered the client's close.
    Closed(u16),
}

/// How a client disconnects without a close of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// The socket is closed with 1001, as browsers do on navigation.
    GoingAway,
    /// The socket is closed with 4000: the page gives it up, and the visitor stays.
    OnPurpose,
    /// The connection is reset.
    Reset,
    /// The connection is reset in the middle of a frame.
    PartialFrame,
    /// The connection ends without a close frame.
    Eof,
}

impl Disconnect {
    pub const ALL: [Self; 5] = [Self::GoingAway, Self::OnPurpose, Self::Reset, Self::PartialFrame, Self::Eof];
}

/// Connects with a linger of zero, since thousands of scenarios would otherwise use up the ports.
pub async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a connection");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
    stream.set_nodelay(true).expect("an option");
    stream
}

impl Client {
    /// Opens a socket and reads nothing.
    pub async fn open(address: SocketAddr, number: u64, member: Member, mood: Option<&str>) -> Self {
        let Member { room, visitor } = member;
        let mood = mood.map(|mood| format!("&mood={mood}")).unwrap_or_default();
        let url = format!("ws://hub/rooms/{room}/socket?visitor={visitor}{mood}");
        let (socket, _) = client_async(url, connect(address).await).await.expect("a handshake");
        let state = State::default();
        Self {
            member,
            number,
            is_reading: false,
            socket,
            seq: 0,
            state,
            last_ref: 0,
            sit: None,
            unacked: Vec::new(),
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Events that were sent on this socket and neither acked nor rejected.
    pub fn unacked(&self) -> Vec<EventIndex> {
        self.unacked.iter().map(|(_, number)| *number).collect()
    }

    pub async fn set_mood(&mut self, mood: Option<&str>) {
        self.send_json(&json!({ "type": "mood", "mood": mood })).await;
    }

    /// Begins a sit, or ends it with 0.
    pub async fn sit(&mut self, millis: Millis) {
        self.send_json(&json!({ "type": "sit", "forMs": millis })).await;
    }

    /// The end of the sit, by the welcome or the last answer: a moment of the wall clock.
    pub fn sit_until(&self) -> Option<u64> {
        self.sit
    }

    /// Sends an event, for the first time or again.
    pub async fn send_event(&mut self, number: EventIndex, event: &Event) {
        self.last_ref += 1 + number as u64 % 3; // refs may increase by any amount
        let mut message = event.json();
        message["type"] = json!(event.kind().0);
        message["ref"] = json!(self.last_ref);
        self.unacked.push((self.last_ref, number));
        self.send_json(&message).await;
    }

    /// Starts to read, and reads all messages up to now: the hub replies to an unknown message in order.
    pub async fn round_trip(&mut self) -> Vec<Received> {
        self.is_reading = true;
        self.send_json(&json!({ "type": "are-you-done" })).await;
        let mut received = Vec::new();
        loop {
            let message = self.next().await;
            if message["code"] == "unknown-type" {
                return received;
            }
            received.extend(self.handle_message(&message));
        }
    }

    /// Reads the messages that have arrived.
    pub fn read_available(&mut self) -> Vec<Received> {
        let mut received = Vec::new();
        while let Some(Some(Ok(message))) = self.socket.next().now_or_never() {
            received.extend(self.receive(&message));
        }
        received
    }

    /// Reads until the socket ends.
    pub async fn read_to_end(&mut self) -> Vec<Received> {
        let mut received = Vec::new();
        while let Some(Ok(message)) = self.socket.next().await {
            received.extend(self.receive(&message));
        }
        received
    }

    fn receive(&mut self, message: &Message) -> Option<Received> {
        match message {
            Message::Text(text) => self.handle_message(&serde_json::from_str(text).expect("JSON")),
            Message::Close(frame) => {
                Some(Received::Closed(frame.as_ref().map_or(1005, |frame| frame.code.into())))
            }
            _ => None,
        }
    }

    /// Closes the socket with this code, and reads until it ends.
    pub async fn close(&mut self, code: u16) -> Vec<Received> {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket.send(Message::Close(Some(frame))).await.expect("an open socket");
        self.read_to_end().await
    }

    /// Shuts down the sending side of the connection.
    pub async fn end(&mut self) {
        self.socket.get_mut().shutdown().await.expect("an open socket");
    }

    /// Sends an incomplete frame.
    pub async fn write_partial_frame(&mut self) {
        self.socket.get_mut().write_all(&PARTIAL_FRAME).await.expect("an open socket");
    }

    async fn send_json(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("an open socket");
    }

    async fn next(&mut self) -> Value {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).expect("JSON"),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("client {}: the socket should be open, but got {other:?}", self.number),
            }
        }
    }

    fn handle_message(&mut self, message: &Value) -> Option<Received> {
        match message["type"].as_str() {
            Some("welcome") => {
                assert_eq!(self.seq, 0, "client {}: the welcome must come once", self.number);
                self.note_state(message);
                self.sit = message["sit"].as_u64();
                None
            }
            Some("sit") => {
                self.sit = message["until"].as_u64();
                None
            }
            Some("presence") => {
                assert!(self.seq > 0, "client {}: the welcome must come first: {message}", self.number);
                self.note_state(message);
                None
            }
            Some("ack") => {
                let up_to = message["upTo"].as_u64().expect("a ref");
                let acked = self.unacked.extract_if(.., |(reference, _)| *reference <= up_to);
                let acked: Vec<_> = acked.map(|(_, number)| number).collect();
                assert!(!acked.is_empty(), "client {}: the ack covers no new event: {message}", self.number);
                Some(Received::Acked(acked))
            }
            Some("error") if message["code"] == "overloaded" => {
                let is_it = |(reference, _): &(u64, EventIndex)| message["ref"] == *reference;
                let index = self.unacked.iter().position(is_it).expect("a sent ref");
                Some(Received::Overloaded(self.unacked.remove(index).1))
            }
            _ => panic!("client {}: unexpected message {message}", self.number),
        }
    }

    fn note_state(&mut self, message: &Value) {
        let seq = message["seq"].as_u64().expect("a number");
        assert!(seq > self.seq, "client {}: seq must increase: {message} after {}", self.number, self.seq);
        self.seq = seq;
        self.state = State {
            present: message["present"].as_u64().expect("a number"),
            moods: serde_json::from_value(message["moods"].clone()).expect("counts by mood"),
        };
    }
}
