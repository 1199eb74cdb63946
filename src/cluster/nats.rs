//! The transport over NATS: core publish and subscribe, and request and reply. Only this file and [`log`], which is the
//! log over the same connection, name `async_nats`.
//!
//! The client connects in the background, pings its server every 600 ms, and goes to another one when two pongs are
//! missing: a server that hangs would keep it otherwise. While there is no connection, messages are dropped, because the
//! peers ask for a full share anyway.

mod log;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::message::OutboundMessage;
use async_nats::{
    Client, ConnectOptions, Event, Message, ReconnectToServer, Request, RequestErrorKind, Server, ServerAddr,
    Subject, Subscriber,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, Sink, StreamExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use url::{Url, form_urlencoded};

use super::config::{BadCluster, Config};
use super::transport::{NoAnswer, NodeMessage, Sent, Transport};
use crate::history::log::Log;
use crate::panics::Panics;
use crate::sync::lock;
use log::JetStream;

/// The time between two pings. The client leaves a server that owes it two pongs, after at most three of these: soon
/// enough that the peers have everything again within 5 s.
const PING_INTERVAL: Duration = Duration::from_millis(600);

/// How long a server may take to accept a connection: more than three round trips to another continent with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The pause before another try of a server, for each failed one, and the longest.
const RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Messages that may wait for the connection. Further ones are dropped.
const OUTGOING_LIMIT: usize = 1_024;

/// Requests of other nodes that may wait for their answers. Further ones get none.
const REQUESTS_LIMIT: usize = 64;

/// The time between two log lines about failures.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// A connection to NATS. It ends when the receiver of the incoming messages is gone.
pub(super) struct Nats {
    client: Client,
    /// The same client, with the place in its queue that a dropped message waited for.
    queue: Mutex<Client>,
    presence: Subject,
    cluster: String,
    reconnect: Arc<Notify>,
}

impl Nats {
    /// Starts to connect as a node of this name, and passes on what it receives. Does not wait for the network.
    /// Errors: an address or the credentials cannot be used.
    pub(super) async fn open(
        config: &Config,
        node: &str,
        incoming: mpsc::Sender<NodeMessage>,
        panics: &Panics,
    ) -> Result<Arc<Self>, BadCluster> {
        let servers: Vec<ServerAddr> = config
            .urls
            .iter()
            .map(|url| url.parse().map_err(|_| BadCluster::Url))
            .collect::<Result<_, _>>()?;
        let client =
            options(config, node, incoming.clone())?.connect(servers).await.map_err(|_| BadCluster::Url)?;
        let presence = Subject::from(format!("{}.presence.v1", config.name));
        let asked = Subject::from(format!("{}.ask.{node}", config.name));
        let published = client.subscribe(presence.clone()).await.map_err(|_| BadCluster::Name)?;
        let asked = client.subscribe(asked).await.map_err(|_| BadCluster::Node)?;
        let reconnect = Arc::new(Notify::new());
        let nats = Arc::new(Self {
            queue: Mutex::new(client.clone()),
            client,
            presence,
            cluster: config.name.clone(),
            reconnect: Arc::clone(&reconnect),
        });
        drop(panics.spawn(receive(Arc::clone(&nats), published, asked, incoming)));
        Ok(nats)
    }

    /// The log of a cluster of this name.
    pub(super) fn log(&self, cluster: &str) -> Arc<dyn Log> {
        Arc::new(JetStream::new(self.client.clone(), cluster))
    }

    /// Puts a message into the client's queue, or drops it.
    fn send(&self, subject: Subject, payload: Bytes) -> Sent {
        if self.client.connection_state() != State::Connected {
            return Sent::Dropped;
        }
        let mut queue = lock(&self.queue);
        let mut queue = Pin::new(&mut *queue);
        let has_room = queue.as_mut().poll_ready(&mut Context::from_waker(Waker::noop()));
        let message = OutboundMessage { subject, payload, reply: None, headers: None };
        let is_queued = matches!(has_room, Poll::Ready(Ok(()))) && queue.start_send(message).is_ok();
        if is_queued { Sent::Queued } else { Sent::Dropped }
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nats")
    }
}

impl Transport for Nats {
    fn publish(&self, message: Bytes) -> Sent {
        self.send(self.presence.clone(), message)
    }

    fn request(
        &self,
        node: &str,
        message: Bytes,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NoAnswer>> {
        let client = self.client.clone();
        let subject = Subject::from(format!("{}.ask.{node}", self.cluster));
        async move {
            if client.connection_state() != State::Connected {
                return Err(NoAnswer::Unreachable);
            }
            let request = Request::new().payload(message).timeout(None);
            let answer = timeout(limit, client.send_request(subject, request)).await;
            let answer = answer.map_err(|_| NoAnswer::TimedOut)?;
            answer.map(|answer| answer.payload).map_err(|error| match error.kind() {
                RequestErrorKind::TimedOut => NoAnswer::TimedOut,
                _ => NoAnswer::Unreachable,
            })
        }
        .boxed()
    }

    fn reconnect(&self) {
        self.reconnect.notify_one();
    }

    fn flush(&self) -> BoxFuture<'static, ()> {
        let client = self.client.clone();
        async move { drop(client.flush().await) }.boxed()
    }
}

fn options(
    config: &Config,
    node: &str,
    incoming: mpsc::Sender<NodeMessage>,
) -> Result<ConnectOptions, BadCluster> {
    let mut options = ConnectOptions::new();
    if let Some(path) = &config.credentials {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BadCluster::NoCredentials { path: path.clone(), source })?;
        let rejected = |_| BadCluster::BadCredentials { path: path.clone() };
        options = options.credentials(&text).map_err(rejected)?;
    }
    if let Some((user, password)) = config.urls.iter().find_map(|url| user_of(url)) {
        options = match password {
            Some(password) => options.user_and_password(user, password),
            None => options.token(user),
        };
    }
    let (log, last) = (Arc::new(ConnectionLog::default()), Mutex::new(None));
    let failures = Arc::clone(&log);
    Ok(options
        .name(format!("breathing-room {node}"))
        .custom_inbox_prefix(format!("{}.answer.{node}", config.name))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .client_capacity(OUTGOING_LIMIT)
        .retry_on_initial_connect()
        .event_callback(move |event| {
            log.event(&event);
            if matches!(event, Event::Connected) {
                let _ = incoming.try_send(NodeMessage::Connected); // or the next digest comes within a second
            }
            std::future::ready(())
        })
        .reconnect_to_server_callback(move |servers, _| {
            failures.tried(&servers);
            std::future::ready(next_server(&servers, &last))
        }))
}

/// The user and the password in an address. A user alone is a token.
fn user_of(url: &str) -> Option<(String, Option<String>)> {
    let decode = |text: &str| {
        let text = format!("={}", text.replace('+', "%2B"));
        form_urlencoded::parse(text.as_bytes()).map(|(_, value)| value.into_owned()).collect::<String>()
    };
    let url = Url::parse(url).ok().filter(|url| !url.username().is_empty())?;
    Some((decode(url.username()), url.password().map(decode)))
}

/// The server to try now: one with the fewest failed tries, in their order, and the last one after those.
fn next_server(servers: &[Server], last: &Mutex<Option<ServerAddr>>) -> Option<ReconnectToServer> {
    let mut last = lock(last);
    let rank = |server: &&Server| (server.failed_attempts, Some(&server.addr) == last.as_ref());
    let server = servers.iter().min_by_key(rank)?;
    *last = Some(server.addr.clone());
    let failed = u32::try_from(server.failed_attempts).unwrap_or(u32::MAX);
    let delay = RETRY.saturating_mul(failed).min(LONGEST_RETRY);
    Some(ReconnectToServer { addr: server.addr.clone(), delay: Some(delay) })
}

/// Logs what happens to the connection: each connect and loss, but a failure only once in a while.
#[derive(Debug, Default)]
struct ConnectionLog {
    last_failure: Mutex<Option<Instant>>,
}

impl ConnectionLog {
    fn event(&self, event: &Event) {
        match event {
            Event::Connected => {
                *lock(&self.last_failure) = None;
                info!("connected to NATS");
            }
            Event::Disconnected => warn!("the connection to NATS is lost: connecting again"),
            Event::ServerError(error) if self.is_due() => warn!(%error, "NATS reports an error"),
            Event::SlowConsumer(_) if self.is_due() => {
                warn!("messages of other nodes are dropped: this node does not keep up");
            }
            _ => {}
        }
    }

    /// Logs why a server could not be reached, before the next try.
    fn tried(&self, servers: &[Server]) {
        let failed = servers.iter().filter(|server| server.failed_attempts > 0);
        let Some(server) = failed.max_by_key(|server| server.failed_attempts) else { return };
        if self.is_due() {
            let (host, port) = (server.addr.host(), server.addr.port());
            let error = server.last_error.as_deref().unwrap_or_default();
            warn!(server = %format_args!("{host}:{port}"), error, "cannot connect to NATS: trying again");
        }
    }

    fn is_due(&self) -> bool {
        let mut last = lock(&self.last_failure);
        let is_due = last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// Passes on messages and requests, sends answers, and reconnects when asked to, until the receiver is gone.
async fn receive(
    nats: Arc<Nats>,
    mut published: Subscriber,
    mut asked: Subscriber,
    incoming: mpsc::Sender<NodeMessage>,
) {
    let mut answers = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = incoming.closed() => return,
            Some(Message { payload, .. }) = published.next() => {
                // The peers notice what is missing.
                let _ = incoming.try_send(NodeMessage::Published(payload));
            }
            Some(Message { payload, reply: Some(reply), .. }) = asked.next() => {
                let (sender, answer) = oneshot::channel();
                if answers.len() < REQUESTS_LIMIT
                    && incoming.try_send(NodeMessage::Request(payload, sender)).is_ok()
                {
                    answers.push(async move { (reply, answer.await) });
                }
            }
            Some((reply, answer)) = answers.next() => {
                if let Ok(answer) = answer {
                    nats.send(reply, answer);
                }
            }
            () = nats.reconnect.notified() => {
                // A queue that is full does not take the command, and the pings end that connection.
                let _ = timeout(PING_INTERVAL, nats.client.force_reconnect()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_those_of_the_address() {
        let parts = |url| user_of(url).map(|(user, password)| (user, password.unwrap_or_default()));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(parts("nats://ann:a%2Fb+c%40@host:4222"), pair("ann", "a/b+c@"));
        assert_eq!(parts("nats://token@host"), pair("token", ""));
        assert_eq!(parts("nats://host"), None);
    }

    #[test]
    fn next_server_is_the_first_one_and_after_a_loss_another_one() {
        let server = |name: &str, failed_attempts| Server {
            addr: name.parse().unwrap(),
            failed_attempts,
            did_connect: false,
            is_discovered: false,
            last_error: None,
        };
        let last = Mutex::default();
        let next = |a, b, c| {
            let next = next_server(&[server("a", a), server("b", b), server("c", c)], &last).unwrap();
            (next.addr.host().to_owned(), next.delay.unwrap().as_millis())
        };
        assert_eq!(next(0, 0, 0), ("a".to_owned(), 0));
        assert_eq!(next(0, 0, 0), ("b".to_owned(), 0), "the connection to a is lost");
        assert_eq!(next(0, 1, 0), ("a".to_owned(), 0), "b cannot be reached");
        assert_eq!(next(1, 1, 0), ("c".to_owned(), 0));
        assert_eq!(next(1, 1, 1), ("a".to_owned(), 100));
        assert_eq!(next(99, 99, 99), ("b".to_owned(), 1_000));
        assert!(next_server(&[], &last).is_none());
    }
}
