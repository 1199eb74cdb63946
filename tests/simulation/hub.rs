//! A hub with a manual clock: the whole server, from its sockets to its file, in this thread.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use breathing_room::Config;
use breathing_room::config::{Clock, Time};
use breathing_room::internals::{JournalMonitor, JournalStatus, Registry};
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
use super::client::connect;
use super::model::Millis;
use super::random::Random;
use super::time::{self, RealTimeTicker, run_until_idle};

const ADMIN_TOKEN: &str = "the-admins-token";

/// The hub's settings in one scenario.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub queue_limit: usize,
    pub flush_interval: Millis,
    pub leave_grace: Millis,
    pub seat_hold: Millis,
}

impl Settings {
    pub fn choose(random: &mut Random) -> Self {
        Self {
            queue_limit: random.one_of(&[8, 16, 60, 50_000]),
            flush_interval: random.one_of(&[5_000, 30_000]),
            leave_grace: 500 + random.below(4_000),
            seat_hold: random.one_of(&[0, 4_000, 15_000]),
        }
    }
}

#[derive(Debug)]
pub struct Hub {
    pub registry: Arc<Registry>,
    pub address: SocketAddr,
    pub ticker: RealTimeTicker,
    journal: JournalMonitor,
    clock: Clock,
    shutdown: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Value,
}

impl Hub {
    /// Starts a hub at `now` on the database in `file`.
    pub async fn start(file: &Path, now: Millis, settings: Settings) -> Self {
        let ticker = RealTimeTicker::start();
        let clock = Clock::manual(Time::from_millis(START + now));
        let millis = Duration::from_millis;
        let mut config = Config::default();
        config.clock = clock.clone();
        config.http.admin_token = Some(ADMIN_TOKEN.to_owned());
        config.history.database_url = format!("sqlite://{}", file.display());
        config.history.queue_limit = settings.queue_limit;
        config.history.flush_interval = millis(settings.flush_interval);
        config.presence.leave_grace = millis(settings.leave_grace);
        config.presence.seat_hold = millis(settings.seat_hold);
        config.transport.ping_interval = Duration::from_hours(1); // the sweep's pings have other tests
        config.transport.limits = None;
        let server = ticker.with_timeout("the hub to start", Server::open(config)).await.expect("a hub");
        let (registry, journal) = (Arc::clone(server.registry()), server.journal());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (shutdown, signal) = oneshot::channel();
        let task = tokio::spawn(server.serve(listener, async { signal.await.unwrap_or_default() }));
        run_until_idle().await;
        Self { registry, address, ticker, journal, clock, shutdown: Some(shutdown), served: task }
    }

    pub fn journal(&self) -> JournalStatus {
        self.journal.status()
    }

    pub async fn pass(&self, millis: Millis) {
        time::pass(&self.clock, millis).await;
    }

    /// Waits until no commit is running.
    pub async fn wait_for_commit(&self) {
        run_until_idle().await;
        while self.journal().is_committing {
            self.ticker.wait_until("a commit to end", || !self.journal().is_committing).await;
            run_until_idle().await;
        }
    }

    /// Sends a request. There is no response if the hub closes the connection, which a hub may do during shutdown.
    pub fn send_request(&self, method: &str, path: &str, body: &Value) -> JoinHandle<Option<Response>> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "hub")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(body.to_string()))
            .expect("a request");
        let address = self.address;
        tokio::spawn(async move {
            let stream = TokioIo::new(connect(address).await);
            let (mut sender, connection) = http1::handshake(stream).await.expect("a connection");
            let connection = tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            connection.abort();
            Some(Response {
                status: head.status.as_u16(),
                body: serde_json::from_slice(&body).expect("JSON"),
            })
        })
    }

    /// Sends a request and waits for the response, without advancing the clock.
    pub async fn request(&self, method: &str, path: &str, body: &Value) -> Response {
        let response = self.send_request(method, path, body);
        self.ticker
            .with_timeout("a response", response)
            .await
            .expect("a response")
            .expect("a connection that stays open")
    }

    /// Starts the graceful shutdown, as a signal does.
    pub fn signal(&mut self) {
        let shutdown = self.shutdown.take().expect("the first signal");
        shutdown.send(()).expect("a hub that runs");
    }

    pub fn has_stopped(&self) -> bool {
        self.served.is_finished()
    }

    /// Waits until the hub has stopped.
    pub async fn stopped(&mut self) -> Result<(), ServeError> {
        self.ticker
            .with_timeout("the hub to stop", &mut self.served)
            .await
            .expect("a hub that does not panic")
    }
}
