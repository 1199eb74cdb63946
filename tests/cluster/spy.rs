//! A client of NATS that has no part in the cluster: it reads all messages, and sends some.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use crate::support::eventually;

/// Subscribed to all subjects. Speaks the text protocol of NATS itself.
pub struct Spy {
    writer: OwnedWriteHalf,
    read: Arc<Mutex<Vec<u8>>>,
}

/// A message, as the server has sent it.
pub struct Message {
    pub subject: String,
    /// The subject for its answer.
    pub reply: Option<String>,
    pub payload: Vec<u8>,
}

impl Spy {
    /// Connects to a server, and waits until it gets all messages.
    pub async fn start(address: &str) -> Self {
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        writer.write_all(b"CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPING\r\n").await.unwrap();
        let read = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&read);
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..length]);
            }
        });
        let spy = Self { writer, read };
        eventually(async || spy.has(b"PONG\r\n"), "the spy is subscribed").await;
        spy
    }

    /// Sends a question, with an own subject for the answer.
    pub async fn ask(&mut self, subject: &str, question: &[u8], answer: &str) {
        let head = format!("PUB {subject} {answer} {}\r\n", question.len());
        self.writer.write_all(&[head.as_bytes(), question, b"\r\n"].concat()).await.unwrap();
    }

    /// Whether these bytes were in anything that the server has sent.
    pub fn has(&self, bytes: &[u8]) -> bool {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.windows(bytes.len()).any(|part| part == bytes)
    }

    /// All messages so far whose subject starts so.
    pub fn messages(&self, start: &str) -> Vec<Message> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rest, mut messages) = (&read[..], Vec::new());
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
            let line = String::from_utf8(rest[..end].to_vec()).unwrap();
            rest = &rest[end + 2..];
            let fields: Vec<&str> = line.split(' ').collect();
            if fields[0] != "MSG" {
                continue;
            }
            let length: usize = fields[fields.len() - 1].parse().unwrap();
            if rest.len() < length + 2 {
                break;
            }
            if fields[1].starts_with(start) {
                let reply = (fields.len() == 5).then(|| fields[3].to_owned());
                messages.push(Message {
                    subject: fields[1].to_owned(),
                    reply,
                    payload: rest[..length].to_vec(),
                });
            }
            rest = &rest[length + 2..];
        }
        messages
    }

    /// The number of answers so far to messages whose subject starts so.
    pub fn answers(&self, start: &str) -> usize {
        let asked = self.messages(start).into_iter().filter_map(|message| message.reply);
        let asked: HashSet<String> = asked.collect();
        self.messages("").iter().filter(|message| asked.contains(&message.subject)).count()
    }
}
