//! A tab: a client on one socket, as the protocol says that a client should be.
//!
//! It numbers its events, and remembers which of them are under way on this socket. What it hears it gives back
//! to whoever plays with it; the newest state of the room it keeps.

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

use super::event_log::{Event, Number};
use super::model::{State, Who};

/// A frame whose header promises more than there is.
const HALF_A_FRAME: [u8; 9] = [0x81, 0x80 | 0x28, 1, 2, 3, 4, b'{' ^ 1, b'"' ^ 2, b't' ^ 3];

#[derive(Debug)]
pub struct Tab {
    pub who: Who,
    /// Its number, for the log.
    pub number: u64,
    /// One that does not listen never reads: what it is told stays in the kernel.
    pub listens: bool,
    socket: WebSocketStream<TcpStream>,
    seq: u64,
    state: State,
    last_ref: u64,
    /// Events that were sent on this socket and neither acked nor refused.
    under_way: Vec<(u64, Number)>,
}

/// What a tab was told that is no state.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// These events are in the database.
    Acked(Vec<Number>),
    /// This event was not taken, since the queue is full.
    Overloaded(Number),
    /// The hub has closed the socket, or answered that the tab did.
    Closed(u16),
}

/// How a tab ends without saying goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It is closed with 1001, as browsers do when somebody goes on to another page.
    GoneAway,
    /// The connection is reset.
    Reset,
    /// The connection is reset in the middle of a frame.
    HalfAFrame,
    /// The connection ends without a close frame.
    Ended,
}

impl Loss {
    pub const ALL: [Self; 4] = [Self::GoneAway, Self::Reset, Self::HalfAFrame, Self::Ended];
}

/// A connection that leaves nothing behind in the kernel: thousands of simulations would use its ports up.
pub async fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a connection");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
    stream.set_nodelay(true).expect("an option");
    stream
}

impl Tab {
    /// Opens a socket, and reads nothing of what is said on it.
    pub async fn open(address: SocketAddr, number: u64, who: Who, mood: Option<&str>) -> Self {
        let Who { room, visitor } = who;
        let mood = mood.map(|mood| format!("&mood={mood}")).unwrap_or_default();
        let url = format!("ws://hub/rooms/{room}/socket?visitor={visitor}{mood}");
        let (socket, _) = client_async(url, dial(address).await).await.expect("a handshake");
        let state = State::default();
        Self { who, number, listens: false, socket, seq: 0, state, last_ref: 0, under_way: Vec::new() }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Events that were sent on this socket and neither acked nor refused.
    pub fn under_way(&self) -> Vec<Number> {
        self.under_way.iter().map(|(_, number)| *number).collect()
    }

    pub async fn set_mood(&mut self, mood: Option<&str>) {
        self.say(&json!({ "type": "mood", "mood": mood })).await;
    }

    /// Sends an event, for the first time or once more.
    pub async fn tell(&mut self, number: Number, event: &Event) {
        self.last_ref += 1 + number as u64 % 3; // by any step
        let mut message = event.json();
        message["type"] = json!(event.kind().0);
        message["ref"] = json!(self.last_ref);
        self.under_way.push((self.last_ref, number));
        self.say(&message).await;
    }

    /// Begins to listen, and hears everything up to now: the hub answers in order.
    pub async fn listen(&mut self) -> Vec<Heard> {
        self.listens = true;
        self.say(&json!({ "type": "are-you-done" })).await;
        let mut heard = Vec::new();
        loop {
            let message = self.next().await;
            if message["code"] == "unknown-type" {
                return heard;
            }
            heard.extend(self.understand(&message));
        }
    }

    /// Hears what is there.
    pub fn hear_now(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(Some(Ok(message))) = self.socket.next().now_or_never() {
            heard.extend(self.hear(&message));
        }
        heard
    }

    /// Hears everything until the socket's end.
    pub async fn hear_the_end(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(Ok(message)) = self.socket.next().await {
            heard.extend(self.hear(&message));
        }
        heard
    }

    fn hear(&mut self, message: &Message) -> Option<Heard> {
        match message {
            Message::Text(text) => self.understand(&serde_json::from_str(text).expect("JSON")),
            Message::Close(frame) => {
                Some(Heard::Closed(frame.as_ref().map_or(1005, |frame| frame.code.into())))
            }
            _ => None,
        }
    }

    /// Closes the socket, as a client does who means to leave (1000) or not.
    pub async fn close(&mut self, code: u16) -> Vec<Heard> {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket.send(Message::Close(Some(frame))).await.expect("an open socket");
        self.hear_the_end().await
    }

    /// Ends its side of the connection.
    pub async fn end(&mut self) {
        self.socket.get_mut().shutdown().await.expect("an open socket");
    }

    /// Begins a message and does not end it.
    pub async fn write_half_a_frame(&mut self) {
        self.socket.get_mut().write_all(&HALF_A_FRAME).await.expect("an open socket");
    }

    async fn say(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("an open socket");
    }

    async fn next(&mut self) -> Value {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).expect("JSON"),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("tab {}: the socket is open, and hears {other:?}", self.number),
            }
        }
    }

    fn understand(&mut self, message: &Value) -> Option<Heard> {
        match message["type"].as_str() {
            Some("welcome") => {
                assert_eq!(self.seq, 0, "tab {}: the welcome comes first, and once", self.number);
                self.note_state(message);
                None
            }
            Some("presence") => {
                assert!(self.seq > 0, "tab {}: the welcome comes first: {message}", self.number);
                self.note_state(message);
                None
            }
            Some("ack") => {
                let up_to = message["upTo"].as_u64().expect("a ref");
                let acked = self.under_way.extract_if(.., |(reference, _)| *reference <= up_to);
                let acked: Vec<_> = acked.map(|(_, number)| number).collect();
                assert!(!acked.is_empty(), "tab {}: an ack is news: {message}", self.number);
                Some(Heard::Acked(acked))
            }
            Some("error") if message["code"] == "overloaded" => {
                let is_it = |(reference, _): &(u64, Number)| message["ref"] == *reference;
                let place = self.under_way.iter().position(is_it).expect("a ref of ours");
                Some(Heard::Overloaded(self.under_way.remove(place).1))
            }
            _ => panic!("tab {}: nobody asked for {message}", self.number),
        }
    }

    fn note_state(&mut self, message: &Value) {
        let seq = message["seq"].as_u64().expect("a number");
        assert!(seq > self.seq, "tab {}: seq only rises: {message} after {}", self.number, self.seq);
        self.seq = seq;
        self.state = State {
            present: message["present"].as_u64().expect("a number"),
            moods: serde_json::from_value(message["moods"].clone()).expect("counts by mood"),
        };
    }
}
