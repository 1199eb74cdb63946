//! A hub in standing time: the whole server, from its sockets to its file, in this thread.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use breathing_room::Config;
use breathing_room::config::{Clock, Time};
use breathing_room::internals::{Gauge, Registry, Status};
use breathing_room::{ServeError, Server};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::START;
use super::client::dial;
use super::model::Millis;
use super::random::Dice;
use super::time::{self, Pulse, settle};

const ADMIN: &str = "the-admins-token";

/// How a hub is configured in one simulation.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    pub queue_limit: usize,
    pub flush_interval: Millis,
    pub leave_grace: Millis,
    pub seat_hold: Millis,
}

impl Knobs {
    pub fn draw(dice: &mut Dice) -> Self {
        Self {
            queue_limit: dice.one_of(&[8, 16, 60, 50_000]),
            flush_interval: dice.one_of(&[5_000, 30_000]),
            leave_grace: 500 + dice.below(4_000),
            seat_hold: dice.one_of(&[0, 4_000, 15_000]),
        }
    }
}

#[derive(Debug)]
pub struct Hub {
    pub live: Arc<Registry>,
    pub address: SocketAddr,
    pub pulse: Pulse,
    journal: Gauge,
    clock: Clock,
    shutdown: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Hub {
    /// A hub that starts at `now` on the database in `file`.
    pub async fn start(file: &Path, now: Millis, knobs: Knobs) -> Self {
        let pulse = Pulse::start();
        let clock = Clock::manual(Time::from_millis(START + now));
        let millis = Duration::from_millis;
        let mut config = Config::default();
        config.clock = clock.clone();
        config.http.admin_token = Some(ADMIN.to_owned());
        config.history.database_url = format!("sqlite://{}", file.display());
        config.history.queue_limit = knobs.queue_limit;
        config.history.flush_interval = millis(knobs.flush_interval);
        config.presence.leave_grace = millis(knobs.leave_grace);
        config.presence.seat_hold = millis(knobs.seat_hold);
        config.transport.ping_interval = Duration::from_hours(1); // the sweep's pings have tests of their own
        config.transport.limits = None;
        let server = pulse.in_time("the hub to start", Server::open(config)).await.expect("a hub");
        let (live, journal) = (Arc::clone(server.registry()), server.journal());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (shutdown, signal) = oneshot::channel();
        let task = tokio::spawn(server.serve(listener, async { signal.await.unwrap_or_default() }));
        settle().await;
        Self { live, address, pulse, journal, clock, shutdown: Some(shutdown), served: task }
    }

    pub fn journal(&self) -> Status {
        self.journal.status()
    }

    pub async fn pass(&self, millis: Millis) {
        time::pass(&self.clock, millis).await;
    }

    /// Waits until no commit is under way.
    pub async fn rest(&self) {
        settle().await;
        while self.journal().is_committing {
            self.pulse.until("a commit to end", || !self.journal().is_committing).await;
            settle().await;
        }
    }

    /// Asks the hub something. There is no answer where it cut the connection off, as a hub that stops may.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> JoinHandle<Option<Answer>> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "hub")
            .header("authorization", format!("Bearer {ADMIN}"))
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(body.to_string()))
            .expect("a request");
        let address = self.address;
        tokio::spawn(async move {
            let stream = TokioIo::new(dial(address).await);
            let (mut sender, connection) = http1::handshake(stream).await.expect("a connection");
            let connection = tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            connection.abort();
            Some(Answer { status: head.status.as_u16(), body: serde_json::from_slice(&body).expect("JSON") })
        })
    }

    /// What the hub answers, without any time passing.
    pub async fn answer(&self, method: &str, path: &str, body: &Value) -> Answer {
        let answer = self.ask(method, path, body);
        self.pulse.in_time("an answer", answer).await.expect("an answer").expect("a connection that lasts")
    }

    /// Tells the hub to stop, as a signal does.
    pub fn signal(&mut self) {
        let shutdown = self.shutdown.take().expect("the first signal");
        shutdown.send(()).expect("a hub that runs");
    }

    pub fn has_stopped(&self) -> bool {
        self.served.is_finished()
    }

    /// What came of it all.
    pub async fn stopped(&mut self) -> Result<(), ServeError> {
        self.pulse.in_time("the hub to stop", &mut self.served).await.expect("a hub that does not panic")
    }
}
