//! One tab: a socket in a room, and the hub's messages.
//!
//! It reads and writes, and checks nothing. An `Err` is the reason for which the socket ended.

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::TIMEOUT;

/// A message of the hub, with the fields that the crowd uses.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(crate) enum HubMessage {
    Welcome { protocol: u32, visitor: String, room: String, seq: u64, present: u32, vocabulary: Vec<String> },
    Presence { seq: u64, present: u32 },
    Ack { up_to: u64 },
    Error { code: String, message: String, r#ref: Option<u64> },
}

pub(crate) struct Tab {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// A visitor has at most two tabs, 0 and 1. Tab 0 sends the events.
    pub(crate) index: usize,
    /// The `seq` of the newest state.
    pub(crate) seq: u64,
    pub(crate) last_ref: u64,
}

impl Tab {
    /// Connects and reads the first message.
    pub(crate) async fn open(url: String, index: usize) -> Result<(Self, Utf8Bytes), String> {
        // With the default buffers of 128 KiB, thousands of sockets would need gigabytes.
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let opening = async {
            let opened = connect_async_with_config(url, Some(config), true).await;
            let (socket, _) = opened.map_err(|error| format!("a socket could not be opened: {error}"))?;
            let mut tab = Self { socket, index, seq: 0, last_ref: 0 };
            let first = tab.next().await?;
            Ok((tab, first))
        };
        timeout(TIMEOUT, opening).await.unwrap_or_else(|_| Err("the hub did not welcome a socket".to_owned()))
    }

    /// Returns the next text message. Cancel safe. tungstenite answers pings.
    pub(crate) async fn next(&mut self) -> Result<Utf8Bytes, String> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) => {
                    return Err(format!("the hub closed a socket with {code}"));
                }
                Some(Ok(other)) => return Err(format!("the hub sent {other:?}")),
                Some(Err(_)) | None => return Err("a connection was lost".to_owned()),
            }
        }
    }

    pub(crate) async fn send(&mut self, message: &impl Serialize) -> Result<(), String> {
        let text = serde_json::to_string(message).map_err(|error| error.to_string())?;
        match timeout(TIMEOUT, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err("a connection was lost".to_owned()),
        }
    }

    /// Closes with 1000. The hub's close, and acks before it, are still to be read.
    pub(crate) async fn close(&mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // An error means that the socket is closed already.
        let _ = self.socket.close(Some(frame)).await;
    }
}
