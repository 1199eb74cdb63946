//! Opens a hub: the database, the tasks, and the state of the handlers.
//!
//! The one place that knows all parts. What it builds is passed on; nothing here runs later.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::info;

use super::background::Background;
use super::holds::HoldStore;
use super::mount::Mount;
use super::{ServeError, Server};
use crate::auth::AdminToken;
use crate::config::Config;
use crate::history::archive::Archives;
use crate::history::capacity::JournalLimits;
use crate::history::lifecycle::{self, MaintenanceWorker};
use crate::history::stats::StatsCache;
use crate::history::store::DatabaseLock;
use crate::history::{Store, flush, journal};
use crate::http::access::AccessControl;
use crate::http::body::BodyBudget;
use crate::http::cors::CorsPolicy;
use crate::http::gate::PersonalDataGate;
use crate::http::log_throttle::LogThrottle;
use crate::http::metrics::Metrics;
use crate::http::pages;
use crate::http::routes::router;
use crate::http::state::{
    App, EventsState, LiveState, MiddlewareState, OperateState, PagesState, PersonalDataState, StatsState,
};
use crate::presence::{Feed, Registry};
use crate::quota::{Quota, Sharing};
use crate::session::{SessionContext, WatchClocks};
use crate::time::millis;
use crate::transport::accept::AcceptConfig;
use crate::transport::{Descriptors, Sockets, stall_limit};

/// The most time that the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a hub with this configuration.
pub(super) async fn open(config: Config) -> Result<Server, ServeError> {
    let Config { http, presence, history, session, mut transport, auth, clock } = config;
    let admin_token = http.admin_token.clone().map(AdminToken::new).transpose()?;
    pages::warn_if_missing();
    let tokens = auth.open()?;
    let metrics = Metrics::register();
    if let Some(descriptors) = transport.descriptors {
        transport.max_connections = transport.max_connections.min(descriptors.sockets());
        info!(
            sockets = transport.max_connections,
            files = descriptors.files(),
            "the limit of open files allows this many sockets"
        );
    }
    let lock = DatabaseLock::acquire(&history.database_url).await?;
    let store = Store::open(&history.database_url).await?;
    let answers = StatsCache::new(store.clone(), clock.clone(), metrics.history.clone());
    store.begin_quarters(lifecycle::quarters_from(clock.wall())).await?;
    let archives = Archives::new(history.archive_dir, &store.path());
    let (lifecycle, commands) = lifecycle::open();
    let worker = MaintenanceWorker {
        store: store.clone(),
        archives: archives.clone(),
        retention: history.retention,
        clock: clock.clone(),
        metrics: metrics.history.lifecycle.clone(),
    };
    let (panics, rejections) = (metrics.http.panics().clone(), metrics.transport.rejections.clone());
    let maintenance = panics.spawn(lifecycle::run(commands, worker));
    let is_limited = transport.limits.is_some();
    let sharing = if is_limited { Sharing::Fair } else { Sharing::FirstCome };
    let limits = JournalLimits { events: history.queue_limit, bytes: history.queue_bytes, sharing };
    let (journal, drain) = journal::open(limits, clock.clone(), metrics.history);
    let stats_refresh =
        AbortOnDropHandle::new(tokio::spawn(answers.clone().refresh_on_commit(journal.committed())));
    let flush = panics.spawn(flush::run(drain, store.clone(), history.flush_interval));
    let registry = Registry::new(presence.clone(), clock.clone(), metrics.presence);
    let holds = Arc::new(HoldStore {
        registry: Arc::clone(&registry),
        store: store.clone(),
        clock: clock.clone(),
        seat_hold: presence.seat_hold,
        leave_grace: presence.leave_grace,
    });
    let saved_holds = holds.restore().await;
    let sockets = Sockets::new(&transport, clock.clone(), metrics.transport.clone());
    let watch_clocks = Arc::new(WatchClocks::new(session.watch_clocks, rejections.clone()));
    let room = Arc::new(SessionContext {
        registry: Arc::clone(&registry),
        journal: journal.clone(),
        clocks: Arc::clone(&watch_clocks),
        live_state: Arc::new(Quota::new(session.live_state, sharing)),
        clock: clock.clone(),
        tokens: tokens.clone(),
        rejections: rejections.clone(),
        panics: panics.clone(),
        leave_grace: presence.leave_grace,
    });
    let background = Background {
        sockets: Arc::clone(&sockets),
        room: Arc::clone(&room),
        holds: Arc::clone(&holds),
        saved_holds,
        metrics: metrics.http.clone(),
        ping_interval: transport.ping_interval,
        flush_interval: history.flush_interval,
    };
    let background = AbortOnDropHandle::new(panics.spawn(background.run()));
    let overdue = history.flush_interval * 2 + Duration::from_secs(10);
    let access = AccessControl {
        dashboard: http.dashboard,
        metrics: http.metrics,
        client_ip_header: http.client_ip_header.clone(),
        missing_address: LogThrottle::default(),
        admin_token: admin_token.unwrap_or_else(make_admin_token),
        tokens,
        sockets: Arc::clone(&sockets),
        clock: clock.clone(),
    };
    let (connections, sessions) = (TaskTracker::new(), TaskTracker::new());
    let app = App {
        access: Arc::new(access),
        middleware: Arc::new(MiddlewareState {
            cors: CorsPolicy::new(&http),
            metrics: metrics.http.clone(),
            clock: clock.clone(),
        }),
        live: Arc::new(LiveState {
            feed: Feed::new(Arc::clone(&registry), clock.clone()),
            registry: Arc::clone(&registry),
            sockets: Arc::clone(&sockets),
            room: Arc::clone(&room),
            sessions: sessions.clone(),
        }),
        events: Arc::new(EventsState {
            journal: journal.clone(),
            bodies: BodyBudget::new(transport.max_bytes_in_flight, sharing, BODY_TIMEOUT),
            rejections: rejections.clone(),
            clock: clock.clone(),
        }),
        stats: Arc::new(StatsState { cache: answers, public_props: http.public_props }),
        personal_data: Arc::new(PersonalDataState {
            gate: PersonalDataGate::new(sharing),
            registry: Arc::clone(&registry),
            journal: journal.clone(),
            store: store.clone(),
            archives,
            lifecycle: lifecycle.clone(),
            rejections,
        }),
        pages: Arc::new(PagesState { frame_ancestors: http.frame_ancestors }),
        operate: Arc::new(OperateState {
            registry,
            sockets: Arc::clone(&sockets),
            connections: connections.clone(),
            watch_clocks,
            room: Arc::clone(&room),
            journal,
            store: store.clone(),
            lifecycle,
            metrics: metrics.http.clone(),
            clock,
            overdue_ms: millis(overdue),
        }),
    };
    let accept = AcceptConfig {
        limit: transport.descriptors.map_or(usize::MAX, Descriptors::connections),
        has_proxy: http.client_ip_header.is_some(),
        stall_limit: stall_limit(transport.ping_interval),
        sockets,
        connections,
        errors: metrics.http.accept_errors(),
        metrics: metrics.transport,
    };
    let mount = Mount::new(router(app.clone()));
    Ok(Server { app, accept, mount, holds, flush, maintenance, background, stats_refresh, lock })
}

fn make_admin_token() -> AdminToken {
    let token = AdminToken::random();
    info!(token = token.reveal(), "ADMIN_TOKEN is not set: this one is valid until the hub stops");
    token
}
