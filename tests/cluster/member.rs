//! A member of a room: one visitor, who records every state and goes to the next address when the socket ends, as the
//! client library does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// The longest wait for a state: a dead node's people are out after 15 s.
const TIMEOUT: Duration = Duration::from_secs(40);

/// The pause between two tries to join.
const RETRY: Duration = Duration::from_millis(50);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The newest state that a member has.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub present: u64,
    pub moods: BTreeMap<String, u64>,
    /// States so far, welcomes included.
    pub frames: u64,
    /// Sockets so far.
    pub joins: u64,
}

/// The smallest and the largest count since the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub min: u64,
    pub max: u64,
}

/// A member of a room. The connection is lost when this is dropped.
pub struct Member {
    seen: watch::Receiver<Seen>,
    range: Arc<Mutex<Range>>,
    commands: mpsc::UnboundedSender<Message>,
    task: JoinHandle<()>,
}

impl Member {
    /// Joins at the first address, and after the end of a socket at the next one. Waits for the welcome.
    pub async fn join(addresses: &[&str], room: &str, visitor: &str) -> Self {
        let urls = addresses
            .iter()
            .map(|address| format!("ws://{address}/rooms/{room}/socket?visitor={visitor}"))
            .collect();
        let range = Arc::new(Mutex::new(Range { min: u64::MAX, max: 0 }));
        let (sender, mut seen) = watch::channel(Seen::default());
        let (commands, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(stay(urls, sender, Arc::clone(&range), receiver));
        let welcomed = timeout(TIMEOUT, seen.wait_for(|seen| seen.joins > 0)).await;
        welcomed.expect("a welcome in time").expect("a socket");
        Self { seen, range, commands, task }
    }

    /// The newest state.
    pub fn now(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// The newest state, which can be waited for beside the member.
    pub fn watcher(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// Waits until a state fulfils the condition.
    pub async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let found = timeout(TIMEOUT, seen.wait_for(|seen| condition(seen))).await;
        let found = found.unwrap_or_else(|_| panic!("not in {TIMEOUT:?}: {what}; {:?}", self.now()));
        found.expect("a member").clone()
    }

    /// Waits until this many are present.
    pub async fn until_present(&self, present: u64) {
        self.until(&format!("{present} present"), |seen| seen.present == present).await;
    }

    /// Waits until the mood has this count.
    pub async fn until_mood(&self, mood: &str, count: u64) {
        self.until(&format!("{count} {mood}"), |seen| seen.count(mood) == count).await;
    }

    /// Starts a new range at the newest state.
    pub fn reset_range(&self) {
        let present = self.now().present;
        *self.range.lock().unwrap() = Range { min: present, max: present };
    }

    /// The smallest and the largest count since the last reset.
    pub fn range(&self) -> Range {
        *self.range.lock().unwrap()
    }

    pub fn set_mood(&self, mood: Option<&str>) {
        self.send(&json!({ "type": "mood", "mood": mood }));
    }

    pub fn send(&self, message: &Value) {
        self.commands.send(Message::Text(message.to_string().into())).unwrap();
    }

    /// Closes with 1000 and waits for the end.
    pub async fn leave(mut self) {
        self.commands
            .send(Message::Close(Some(CloseFrame { code: 1000.into(), reason: "".into() })))
            .unwrap();
        timeout(TIMEOUT, &mut self.task).await.expect("the end in time").unwrap();
    }

    /// Ends the connection without a close frame.
    pub fn disconnect(self) {
        drop(self);
    }
}

impl Seen {
    /// The count of a mood.
    pub fn count(&self, mood: &str) -> u64 {
        self.moods.get(mood).copied().unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Joins again and again, until the member leaves.
async fn stay(
    urls: Vec<String>,
    seen: watch::Sender<Seen>,
    range: Arc<Mutex<Range>>,
    mut commands: mpsc::UnboundedReceiver<Message>,
) {
    for url in urls.iter().cycle() {
        let Ok(Ok((socket, _))) = timeout(Duration::from_secs(2), connect_async(url)).await else {
            sleep(RETRY).await;
            continue;
        };
        if read(socket, &seen, &range, &mut commands).await {
            return;
        }
    }
}

/// Reads until the socket ends. Returns whether the member has left.
async fn read(
    mut socket: Socket,
    seen: &watch::Sender<Seen>,
    range: &Mutex<Range>,
    commands: &mut mpsc::UnboundedReceiver<Message>,
) -> bool {
    let mut is_leaving = false;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            Some(command) = commands.recv() => {
                is_leaving |= matches!(command, Message::Close(_));
                let _ = socket.send(command).await;
                continue;
            }
        };
        match message {
            Some(Ok(Message::Text(text))) => apply(&text, seen, range),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return is_leaving,
        }
    }
}

fn apply(text: &str, seen: &watch::Sender<Seen>, range: &Mutex<Range>) {
    let message: Value = serde_json::from_str(text).unwrap();
    let is_welcome = message["type"] == "welcome";
    if !is_welcome && message["type"] != "presence" {
        return;
    }
    let present = message["present"].as_u64().unwrap();
    {
        let mut range = range.lock().unwrap();
        *range = Range { min: range.min.min(present), max: range.max.max(present) };
    }
    seen.send_modify(|seen| {
        seen.present = present;
        seen.moods = serde_json::from_value(message["moods"].clone()).unwrap();
        seen.frames += 1;
        seen.joins += u64::from(is_welcome);
    });
}

/// The time since a moment, in milliseconds.
pub fn millis_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000.0
}
