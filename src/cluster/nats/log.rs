//! The log over NATS: one JetStream stream, through the requests of its API.
//!
//! It is read by an ephemeral pull consumer that begins at a position and expects no acks: its heartbeats and the
//! numbers of its deliveries show that no message is missing. A durable one with acks loses messages when servers are
//! killed. Each pull asks for a bounded number of bytes, and the next one follows when all of them are taken.

use std::fmt;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use crate::history::log::{Log, LogEntry, LogError, LogReader, LogState};
use crate::protocol::Time;

/// How long the log may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long the stream keeps a message.
const MAX_AGE: Duration = Duration::from_hours(72);

/// The most bytes of the stream. It discards the oldest messages then.
const MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// The copies of the stream, where there are that many servers.
const REPLICAS: u8 = 3;

/// How long the stream knows the ids of messages.
const DUPLICATES: Duration = Duration::from_mins(2);

/// The time between two heartbeats of a consumer, and the silence after which it is gone.
const HEARTBEAT: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_millis(1_600);

/// How long a pull waits for its last message.
const PULL_EXPIRES: Duration = Duration::from_secs(10);

/// The messages and bytes of one pull.
const PULL_MESSAGES: u64 = 64;
const PULL_BYTES: u64 = 2 * 1024 * 1024;

/// How long the server keeps a consumer that pulls no more.
const CONSUMER_EXPIRES: Duration = Duration::from_secs(30);

/// JetStream's code for a stream that does not exist.
const NO_STREAM: u64 = 10_059;

/// JetStream's code for a message that is not deleted.
const DELETE_FAILED: u64 = 10_057;

/// The statuses of a pull (<https://docs.nats.io/reference/reference-protocols/nats_api_reference>).
const STATUS_HEARTBEAT: u16 = 100;
const STATUS_NO_MESSAGES: u16 = 404;
const STATUS_EXPIRED: u16 = 408;
const STATUS_CONFLICT: u16 = 409;

/// The stream of a cluster.
#[derive(Clone)]
pub(super) struct JetStream {
    client: Client,
    stream: String,
    subject: String,
}

impl JetStream {
    /// The stream of a cluster of this name.
    pub(super) fn new(client: Client, cluster: &str) -> Self {
        // A stream's name has no dots.
        let stream = format!("{}-log", cluster.replace('.', "_"));
        Self { client, stream, subject: format!("{cluster}.log") }
    }

    /// Sends a request of the API, and returns the answer.
    async fn ask<T: DeserializeOwned>(
        &self,
        subject: String,
        request: &impl Serialize,
    ) -> Result<Answer<T>, LogError> {
        let payload = serde_json::to_vec(request).map_err(|_| LogError::BadAnswer)?;
        let request = Request::new().payload(payload.into());
        let answer = send(&self.client, subject, request, LogError::NoJetStream).await?;
        serde_json::from_slice(&answer.payload).map_err(|_| LogError::BadAnswer)
    }

    async fn find(&self) -> Result<Option<StreamInfo>, LogError> {
        match self.ask(format!("$JS.API.STREAM.INFO.{}", self.stream), &json!({})).await? {
            Answer::Error { error } if error.err_code == NO_STREAM => Ok(None),
            answer => answer.ok().map(Some),
        }
    }

    /// Makes or changes the stream. `action` is a word of the API.
    async fn put(&self, action: &str, replicas: u8) -> Result<StreamInfo, LogError> {
        let config = json!({
            "name": self.stream,
            "subjects": [self.subject],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_age": nanos(MAX_AGE),
            "max_bytes": MAX_BYTES,
            "duplicate_window": nanos(DUPLICATES),
            "num_replicas": replicas,
        });
        self.ask(format!("$JS.API.STREAM.{action}.{}", self.stream), &config).await?.ok()
    }

    /// Finds the stream or makes it, with three copies where there are three servers, and with one otherwise.
    async fn open(&self) -> Result<StreamInfo, LogError> {
        let found = match self.find().await? {
            Some(found) => found,
            None => match self.put("CREATE", REPLICAS).await {
                Err(LogError::Refused(reason)) => {
                    warn!(
                        reason,
                        "the log has one copy: with three NATS servers it would survive one of them"
                    );
                    self.put("CREATE", 1).await?
                }
                made => made?,
            },
        };
        if found.config.num_replicas < REPLICAS
            && let Ok(more) = self.put("UPDATE", REPLICAS).await
        {
            return Ok(more);
        }
        Ok(found)
    }
}

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Log for JetStream {
    fn append(&self, id: String, message: Bytes) -> BoxFuture<'static, Result<u64, LogError>> {
        let js = self.clone();
        async move {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id);
            headers.insert("Nats-Expected-Stream", js.stream.as_str());
            let request = Request::new().payload(message).headers(headers);
            // The leader of the stream answers, and there may be none for some seconds.
            let answer = send(&js.client, js.subject.clone(), request, LogError::Unreachable).await?;
            let stored: Answer<Stored> =
                serde_json::from_slice(&answer.payload).map_err(|_| LogError::BadAnswer)?;
            Ok(stored.ok()?.seq)
        }
        .boxed()
    }

    fn state(&self) -> BoxFuture<'static, Result<LogState, LogError>> {
        let js = self.clone();
        async move {
            let StreamInfo { created, state, .. } = js.open().await?;
            Ok(LogState { name: created, first: state.first_seq, last: state.last_seq })
        }
        .boxed()
    }

    fn read(&self, after: u64) -> BoxFuture<'static, Result<Box<dyn LogReader>, LogError>> {
        let js = self.clone();
        async move { Ok(Box::new(Consumer::open(js, after).await?) as Box<dyn LogReader>) }.boxed()
    }

    fn delete(&self, position: u64) -> BoxFuture<'static, Result<(), LogError>> {
        let js = self.clone();
        async move {
            let subject = format!("$JS.API.STREAM.MSG.DELETE.{}", js.stream);
            // Not `no_erase`: the server overwrites the message.
            let answer = js.ask::<Deleted>(subject, &json!({ "seq": position })).await?;
            match answer {
                Answer::Error { error } if error.is_no_message() => Ok(()),
                answer => answer.ok().map(drop),
            }
        }
        .boxed()
    }
}

/// Sends a request, and waits for the answer. `unheard` is the error if no server has a subscription for it.
async fn send(
    client: &Client,
    subject: String,
    request: Request,
    unheard: LogError,
) -> Result<Message, LogError> {
    if client.connection_state() != State::Connected {
        return Err(LogError::Unreachable);
    }
    let answer = timeout(ANSWER_LIMIT, client.send_request(subject, request.timeout(None))).await;
    answer.map_err(|_| LogError::TimedOut)?.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => unheard,
        _ => LogError::Unreachable,
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An answer of JetStream.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: ApiError },
    Ok(T),
}

impl<T> Answer<T> {
    fn ok(self) -> Result<T, LogError> {
        match self {
            Self::Ok(answer) => Ok(answer),
            Self::Error { error } => Err(LogError::Refused(error.description)),
        }
    }
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl ApiError {
    /// Whether the message to delete is not there.
    fn is_no_message(&self) -> bool {
        let texts = ["no message found", "deleted message", "sequence not found"];
        self.err_code == DELETE_FAILED && texts.iter().any(|text| self.description.contains(text))
    }
}

#[derive(Deserialize)]
struct Stored {
    seq: u64,
}

#[derive(Deserialize)]
struct Deleted {
    #[serde(rename = "success")]
    _success: bool,
}

#[derive(Deserialize)]
struct StreamInfo {
    created: String,
    config: StreamConfig,
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamConfig {
    num_replicas: u8,
}

#[derive(Deserialize)]
struct StreamState {
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    name: String,
}

/// A consumer that is pulled.
struct Consumer {
    js: JetStream,
    name: String,
    inbox: String,
    messages: Subscriber,
    /// Messages of the last pull that have not come.
    expected: u64,
    /// The number of the last delivery.
    delivered: u64,
}

impl Consumer {
    async fn open(js: JetStream, after: u64) -> Result<Self, LogError> {
        let inbox = js.client.new_inbox();
        let name = inbox.rsplit('.').next().unwrap_or_default().to_owned();
        let messages = js.client.subscribe(inbox.clone()).await.map_err(|_| LogError::Unreachable)?;
        let request = json!({
            "stream_name": js.stream,
            "action": "create",
            "config": {
                "name": name,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": after + 1,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": nanos(CONSUMER_EXPIRES),
                "mem_storage": true,
                "num_replicas": 1,
            },
        });
        let subject = format!("$JS.API.CONSUMER.CREATE.{}.{name}", js.stream);
        let ConsumerInfo { name } = js.ask(subject, &request).await?.ok()?;
        Ok(Self { js, name, inbox, messages, expected: 0, delivered: 0 })
    }

    async fn pull(&mut self) -> Result<(), LogError> {
        let request = json!({
            "batch": PULL_MESSAGES,
            "max_bytes": PULL_BYTES,
            "expires": nanos(PULL_EXPIRES),
            "idle_heartbeat": nanos(HEARTBEAT),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.js.stream, self.name);
        let publish =
            self.js.client.publish_with_reply(subject, self.inbox.clone(), request.to_string().into());
        timeout(SILENCE, publish)
            .await
            .map_err(|_| LogError::TimedOut)?
            .map_err(|_| LogError::Unreachable)?;
        self.expected = PULL_MESSAGES;
        Ok(())
    }

    async fn next(&mut self) -> Result<LogEntry, LogError> {
        loop {
            if self.expected == 0 {
                self.pull().await?;
            }
            let message = timeout(SILENCE, self.messages.next()).await.map_err(|_| LogError::Interrupted)?;
            let message = message.ok_or(LogError::Interrupted)?;
            let Some(status) = message.status else {
                self.expected = self.expected.saturating_sub(1);
                return self.entry(message);
            };
            let description = message.description.unwrap_or_default();
            match status.as_u16() {
                STATUS_HEARTBEAT => {}
                STATUS_NO_MESSAGES | STATUS_EXPIRED => self.expected = 0,
                // The pull ends because the next message would exceed its bytes, or because it has all its messages.
                STATUS_CONFLICT if description.starts_with("Message Size") => self.expected = 0,
                STATUS_CONFLICT if description.starts_with("Batch Completed") => self.expected = 0,
                _ => return Err(LogError::Interrupted),
            }
        }
    }

    /// Checks that no delivery is missing before a message.
    fn entry(&mut self, message: Message) -> Result<LogEntry, LogError> {
        let delivery = message.reply.as_deref().and_then(Delivery::parse).ok_or(LogError::BadAnswer)?;
        if delivery.number != self.delivered + 1 {
            return Err(LogError::Interrupted);
        }
        self.delivered = delivery.number;
        Ok(LogEntry {
            position: delivery.position,
            behind: delivery.pending,
            stored: Time::from_millis(delivery.nanos / 1_000_000),
            message: message.payload,
        })
    }
}

impl LogReader for Consumer {
    fn next(&mut self) -> BoxFuture<'_, Result<LogEntry, LogError>> {
        Consumer::next(self).boxed()
    }
}

/// What the reply subject of a delivered message says.
#[derive(Debug, PartialEq, Eq)]
struct Delivery {
    /// The position in the stream.
    position: u64,
    /// Rises by one with each delivery of the consumer.
    number: u64,
    /// When the message was stored, in nanoseconds since the Unix epoch.
    nanos: u64,
    /// Messages that follow it.
    pending: u64,
}

impl Delivery {
    /// Parses `$JS.ACK.[domain.account.]stream.consumer.deliveries.position.number.nanos.pending[.random]`.
    fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let tokens = match tokens.len() {
            7 => tokens.get(3..)?,
            9.. => tokens.get(5..)?,
            _ => return None,
        };
        let number = |index: usize| tokens.get(index)?.parse().ok();
        Some(Self { position: number(0)?, number: number(1)?, nanos: number(2)?, pending: number(3)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_is_parsed_with_and_without_a_domain() {
        let expected = Delivery { position: 42, number: 7, nanos: 1_700_000_000_000_000_000, pending: 3 };
        let rest = "breathing-room-log.abc.1.42.7.1700000000000000000.3";
        for subject in [
            format!("$JS.ACK.{rest}"),
            format!("$JS.ACK._.hash.{rest}"),
            format!("$JS.ACK.hub.hash.{rest}.random"),
        ] {
            assert_eq!(Delivery::parse(&subject).as_ref(), Some(&expected), "{subject}");
        }
        for bad in ["", "$JS.ACK.", "$JS.ACK.s.c.1.42.7.x.3", "$JS.ACK.s.c.1.42.7.1", "_INBOX.1"] {
            assert_eq!(Delivery::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_of_jetstream_are_parsed() {
        let parse = |text: &str| serde_json::from_str::<Answer<Stored>>(text).map(Answer::ok);
        assert!(matches!(parse(r#"{"stream":"a","seq":5,"duplicate":true}"#), Ok(Ok(Stored { seq: 5 }))));
        let refused = r#"{"error":{"code":503,"err_code":10074,"description":"no"},"stream":"","seq":0}"#;
        assert!(matches!(parse(refused), Ok(Err(LogError::Refused(reason))) if reason == "no"));
        assert!(parse("{}").is_err());
    }
}
