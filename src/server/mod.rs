//! The server: opens the parts, serves, and ends everything in order.
//!
//! Each part ends because what feeds it has ended: no new sockets, then the sessions, then the
//! connections, then the journal with its last census and its last flush, then the database.

mod holds;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout, timeout_at};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::auth::{AdminToken, ShortToken};
use crate::config::Config;
use crate::history::archive::Archives;
use crate::history::capacity::Limits;
use crate::history::journal::Gauge;
use crate::history::lifecycle::{self, Keeper};
use crate::history::stats::Answers;
use crate::history::store::{Lock, OpenError};
use crate::history::{Store, flush, journal};
use crate::http::app::App;
use crate::http::body::BodyBudget;
use crate::http::cors::Origins;
use crate::http::log_throttle::LogThrottle;
use crate::http::metrics::{HttpMetrics, Meters};
use crate::http::pages;
use crate::http::personal_data::PersonalDataGate;
use crate::http::routes::Front;
use crate::presence::{Feed, Registry, audit, expiry};
use crate::quota::{Quota, Sharing};
use crate::session::{SessionContext, WatchClocks, samples};
use crate::time::{Clock, millis};
use crate::transport::accept::{AcceptConfig, Acceptor};
use crate::transport::{Descriptors, Sockets, stall_limit, sweep};
use holds::HoldStore;

use crate::auth::BadKeys;
use crate::protocol::CloseCode;

/// How long a request's body may be on its way.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// At the end, closes are spread over this.
const CLOSE_SPREAD: Duration = Duration::from_secs(2);

/// By when, after the signal, sessions and connections have ended or are cut off.
const SESSIONS_DEADLINE: Duration = Duration::from_secs(6);

/// How long a socket that was cut off has to end.
const CUT_OFF_END: Duration = Duration::from_secs(1);

/// By when, after the signal, all is over.
const DEADLINE: Duration = Duration::from_millis(9_500);

/// The hub could not start, or not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The admin token cannot be used.
    #[error(transparent)]
    AdminToken(#[from] ShortToken),
    /// The tokens' keys cannot be used.
    #[error(transparent)]
    Tokens(#[from] BadKeys),
    /// The counters cannot be made.
    #[error("cannot make the metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The listener has no address, or no options.
    #[error("cannot use the listening socket: {0}")]
    Listener(io::Error),
    /// A task panicked that the hub cannot do without; what was acked is on disk.
    #[error("a part of the hub has panicked (see its log), so that it has stopped: start it again")]
    Panicked,
    /// The last flush did not succeed in time.
    #[error("{0} events could not be written to the database before the end")]
    Unflushed(usize),
}

/// A hub whose database is open, ready to serve.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    flush: JoinHandle<()>,
    lifecycle: JoinHandle<()>,
    seats: Arc<HoldStore>,
    accept: AcceptConfig,
    /// What runs beside the sessions: the sweep over sockets, tidying, the census, the audit, and the holds.
    rounds: AbortOnDropHandle<()>,
    /// Makes answers about the history anew.
    renewals: AbortOnDropHandle<()>,
    /// No other hub has the database until all of this has ended.
    lock: Lock,
}

/// Serves on `listener` until `shutdown` is ready, then ends within 10 s.
///
/// # Errors
/// The database cannot be used, or events could not be written at the end.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Server::open(config).await?.serve(listener, shutdown).await
}

impl Server {
    /// Opens the database and builds all parts.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn open(config: Config) -> Result<Self, ServeError> {
        let Config { http, presence, history, session, mut transport, auth, clock } = config;
        let admin_token = http.admin_token.clone().map(AdminToken::new).transpose()?;
        pages::warn_if_missing();
        let tokens = auth.open()?;
        let metrics = Meters::register()?;
        if let Some(descriptors) = transport.descriptors {
            transport.max_connections = transport.max_connections.min(descriptors.sockets());
            info!(
                sockets = transport.max_connections,
                files = descriptors.files(),
                "room for so many sockets"
            );
        }
        let lock = Lock::take(&history.database_url).await?;
        let store = Store::open(&history.database_url).await?;
        let answers = Answers::new(store.clone(), clock.clone(), metrics.history.clone());
        store.begin_quarters(lifecycle::quarters_from(clock.wall())).await?;
        let archives = Archives::of(&store, history.archive_dir);
        let (lifecycle, orders) = lifecycle::open();
        let keeper = Keeper {
            store: store.clone(),
            archives: archives.clone(),
            retention: history.retention,
            clock: clock.clone(),
            metrics: metrics.history.lifecycle.clone(),
        };
        let (panics, rejections) = (metrics.http.panics().clone(), metrics.transport.rejections.clone());
        let keeping = panics.spawn(lifecycle::run(orders, keeper));
        let is_limited = transport.limits.is_some();
        let sharing = if is_limited { Sharing::Fair } else { Sharing::FirstCome };
        let limits = Limits { events: history.queue_limit, bytes: history.queue_bytes, sharing };
        let (journal, drain) = journal::open(limits, clock.clone(), metrics.history);
        let renewals = AbortOnDropHandle::new(tokio::spawn(answers.clone().keep_new(journal.committed())));
        let flush = panics.spawn(flush::run(drain, store.clone(), history.flush_interval));
        let registry = Registry::new(presence.clone(), clock.clone(), metrics.presence);
        let seats = Arc::new(HoldStore {
            registry: Arc::clone(&registry),
            store: store.clone(),
            clock: clock.clone(),
            seat_hold: presence.seat_hold,
            leave_grace: presence.leave_grace,
        });
        let saved = seats.restore().await;
        let sockets = Sockets::new(&transport, clock.clone(), metrics.transport.clone());
        let clocks = Arc::new(WatchClocks::new(session.watch_clocks, rejections.clone()));
        let room = Arc::new(SessionContext {
            registry: Arc::clone(&registry),
            journal: journal.clone(),
            clocks: Arc::clone(&clocks),
            live_state: Arc::new(Quota::new(session.live_state, sharing)),
            clock: clock.clone(),
            tokens,
            rejections: rejections.clone(),
            panics: panics.clone(),
            leave_grace: presence.leave_grace,
        });
        let rounds = AbortOnDropHandle::new(panics.spawn({
            let (sockets, room, metrics) = (Arc::clone(&sockets), Arc::clone(&room), metrics.http.clone());
            let seats = Arc::clone(&seats);
            async move {
                let sweep = sweep::run(&sockets, transport.ping_interval, &room.clock);
                let tidying = tidy(&room.clocks, &room.clock, &metrics);
                let holds = expiry::run(&room.registry);
                let saving = seats.keep_saved(saved, history.flush_interval);
                let audits = audit::run(&room.registry, &room.clock);
                tokio::join!(sweep, tidying, samples::run(&room), audits, holds, saving);
            }
        }));
        let overdue = history.flush_interval * 2 + Duration::from_secs(10);
        let app = Arc::new(App {
            admin_token: admin_token.unwrap_or_else(make_admin_token),
            origins: Origins::new(&http),
            untold: LogThrottle::default(),
            bodies: BodyBudget::new(transport.max_bytes_in_flight, sharing, BODY_TIMEOUT),
            desk: PersonalDataGate::new(sharing),
            config: http,
            feed: Feed::new(Arc::clone(&registry), clock.clone()),
            registry,
            journal,
            store,
            answers,
            lifecycle,
            archives,
            sockets,
            connections: TaskTracker::new(),
            sessions: TaskTracker::new(),
            room,
            clock,
            clocks,
            rejections,
            metrics: metrics.http,
            overdue_ms: millis(overdue),
        });
        let accept = AcceptConfig {
            limit: transport.descriptors.map_or(usize::MAX, Descriptors::connections),
            has_proxy: app.config.client_ip_header.is_some(),
            stall_limit: stall_limit(transport.ping_interval),
            sockets: Arc::clone(&app.sockets),
            connections: app.connections.clone(),
            errors: app.metrics.accept_errors(),
            metrics: metrics.transport,
        };
        Ok(Self { app, flush, lifecycle: keeping, seats, accept, rounds, renewals, lock })
    }

    /// All rooms, for the simulation.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.app.registry
    }

    /// The pending events, for the simulation.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn journal(&self) -> Gauge {
        self.app.journal.gauge()
    }

    /// Serves on `listener` until `shutdown` is ready, then ends within 10 s.
    ///
    /// # Errors
    /// Events could not be written at the end, or a part of the hub panicked; what was acked is on disk.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let panics = self.accept.metrics.panics.clone();
        let front = Front::new(Arc::clone(&self.app));
        let acceptor = Acceptor::start(listener, front, self.accept.clone()).map_err(ServeError::Listener)?;
        let has_panicked = tokio::select! {
            () = shutdown => false,
            () = panics.task_panicked() => true,
        };
        self.end(acceptor).await?;
        if has_panicked { Err(ServeError::Panicked) } else { Ok(()) }
    }

    async fn end(self, acceptor: Acceptor) -> Result<(), ServeError> {
        let Self { app, flush, lifecycle, seats, rounds, renewals, lock: _lock, .. } = self;
        let signalled = Instant::now();
        if !seats.seat_hold.is_zero() {
            app.registry.begin_restart();
        }
        info!(sockets = app.sockets.len(), "stopping");
        // Meanwhile connections are still accepted: whoever asks for a socket is told to come back.
        end_sessions(&app, signalled + SESSIONS_DEADLINE).await;
        acceptor.drain().await;
        // Somebody may have come in at the last moment.
        cut_off(&app).await;
        // They hold the journal too, and the last census is the one that nobody comes after.
        drop(rounds);
        // Nobody is left to ask for what the last commit changes.
        drop(renewals);
        samples::take(&app.room);

        let here = seats.at_stop();

        // The journal ends with its last handle, and the flush task with the journal. So does the lifecycle
        // task, which drops what it does.
        let (store, pending) = (app.store.clone(), app.journal.status().pending());
        drop(app);
        let flushing = flush.abort_handle();
        if timeout_at(signalled + DEADLINE, flush).await.is_err() {
            flushing.abort(); // or it would try again for ever
            return Err(ServeError::Unflushed(pending));
        }
        let _ = timeout_at(signalled + DEADLINE, lifecycle).await;
        let saved = timeout_at(signalled + DEADLINE, seats.save(here)).await;
        if saved.is_err() {
            warn!("no time was left to save who was here");
        }
        // Readers may still be busy; everything is on disk either way.
        let _ = timeout_at(signalled + DEADLINE, store.close()).await;
        info!(took = ?signalled.elapsed(), "stopped");
        Ok(())
    }
}

async fn end_sessions(app: &App, deadline: Instant) {
    app.sessions.close();
    let closed = async {
        app.sockets.close_all(CloseCode::Restarting, CLOSE_SPREAD).await;
        app.sessions.wait().await;
    };
    let _ = timeout_at(deadline, closed).await;
    cut_off(app).await;
}

/// Ends the sessions that are left, if any are.
async fn cut_off(app: &App) {
    if !app.sessions.is_empty() {
        warn!(sockets = app.sockets.len(), "cutting off the sockets that are left");
        app.sockets.abort_all();
        let _ = timeout(CUT_OFF_END, app.sessions.wait()).await;
    }
}

fn make_admin_token() -> AdminToken {
    let token = AdminToken::random();
    info!(token = token.reveal(), "no ADMIN_TOKEN is configured: this one holds until the hub stops");
    token
}

/// Forgets once a minute what nobody will ask for.
async fn tidy(clocks: &WatchClocks, clock: &Clock, metrics: &HttpMetrics) {
    let mut minute = interval(Duration::from_mins(1));
    loop {
        minute.tick().await;
        clocks.remove_idle(clock.elapsed()).await;
        let evicted = clocks.take_evicted();
        if evicted > 0 {
            warn!(
                evicted,
                "too many watch sessions: the hub does not measure the oldest of whoever has the most"
            );
        }
        metrics.sum_up();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::StreamExt;
    use tokio_tungstenite::connect_async;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::history;
    use crate::transport::accept::listen;

    #[tokio::test]
    async fn a_hub_that_lost_a_part_stops_in_order_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let database_url = format!("sqlite://{}/hub.db", folder.path().display());
        let history = history::Config { database_url, ..history::Config::default() };
        let server = Server::open(Config { history, ..Config::default() }).await.unwrap();
        let panics = server.app.metrics.panics().clone();
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(server.serve(listener, pending()));
        let (mut ann, _) = connect_async(format!("ws://{address}/rooms/lobby/socket")).await.unwrap();
        ann.next().await.unwrap().unwrap();
        drop(panics.spawn(async { panic!("a test") }));
        let end = loop {
            if let Message::Close(frame) = ann.next().await.unwrap().unwrap() {
                break frame.unwrap();
            }
        };
        assert_eq!(u16::from(end.code), 1012, "people come back to the next hub");
        assert!(matches!(serving.await.unwrap(), Err(ServeError::Panicked)));
    }
}
