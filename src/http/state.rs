//! The state of the handlers: one part for each group of routes, which the group's handlers extract.
//!
//! The journal ends when its last handle is dropped, so nothing may keep a part for longer than a request lasts.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio_util::task::TaskTracker;

use super::access::AccessControl;
use super::body::BodyBudget;
use super::cors::CorsPolicy;
use super::gate::PersonalDataGate;
use super::metrics::HttpMetrics;
use super::settings::{Config, FrameAncestors, Mode};
use crate::history::PropNames;
use crate::history::archive::Archives;
use crate::history::log::erasure_request::ErasureSender;
use crate::history::log::status::LogMonitor;
use crate::history::stats::StatsCache;
use crate::history::{Journal, Lifecycle, Store};
use crate::presence::Feed;
use crate::protocol::Time;
use crate::session::SessionContext;
use crate::time::Clock;
use crate::transport::Sockets;

/// The parts, from which [`FromRef`] takes the one that a handler names.
#[derive(Debug, Clone, FromRef)]
pub(crate) struct App {
    pub access: Arc<AccessControl>,
    pub middleware: Arc<MiddlewareState>,
    pub live: Arc<LiveState>,
    pub events: Arc<EventsState>,
    pub stats: Arc<StatsState>,
    pub personal_data: Arc<PersonalDataState>,
    pub replica: Arc<ReplicaState>,
    pub operate: Arc<OperateState>,
    pub pages: Arc<PagesState>,
}

/// Of what runs before and after every handler.
#[derive(Debug)]
pub(crate) struct MiddlewareState {
    pub mode: Mode,
    pub cors: CorsPolicy,
    pub metrics: HttpMetrics,
    pub clock: Clock,
}

impl MiddlewareState {
    /// The state of this configuration.
    pub(crate) fn new(config: &Config, metrics: &HttpMetrics, clock: &Clock) -> Self {
        Self {
            mode: config.mode,
            cors: CorsPolicy::new(config),
            metrics: metrics.clone(),
            clock: clock.clone(),
        }
    }
}

/// Of rooms, the live activity, and their sockets.
#[derive(Debug)]
pub(crate) struct LiveState {
    pub context: Arc<SessionContext>,
    pub feed: Arc<Feed>,
    pub sockets: Arc<Sockets>,
    /// The tasks of all sessions.
    pub sessions: TaskTracker,
}

/// Of posted events.
#[derive(Debug)]
pub(crate) struct EventsState {
    pub context: Arc<SessionContext>,
    pub bodies: BodyBudget,
}

/// Of the statistics.
#[derive(Debug)]
pub(crate) struct StatsState {
    pub cache: StatsCache,
    pub public_props: PropNames,
    pub journal: Journal,
    /// None without a log.
    pub log: Option<LogMonitor>,
}

/// Of the data that is stored of one visitor.
#[derive(Debug)]
pub(crate) struct PersonalDataState {
    pub context: Arc<SessionContext>,
    pub gate: PersonalDataGate,
    pub store: Store,
    pub archives: Archives,
    pub lifecycle: Lifecycle,
    /// What erases on all nodes; none without a log.
    pub erasures: Option<ErasureSender>,
}

/// Of what other nodes fetch.
#[derive(Debug)]
pub(crate) struct ReplicaState {
    pub context: Arc<SessionContext>,
    pub store: Store,
    pub archives: Archives,
}

impl ReplicaState {
    /// The state of these parts.
    pub(crate) fn new(context: &Arc<SessionContext>, store: &Store, archives: Archives) -> Self {
        Self { context: Arc::clone(context), store: store.clone(), archives }
    }
}

/// Of health, metrics, and the admin's requests.
#[derive(Debug)]
pub(crate) struct OperateState {
    pub context: Arc<SessionContext>,
    pub sockets: Arc<Sockets>,
    /// The tasks of all connections that are no sockets.
    pub connections: TaskTracker,
    pub store: Store,
    pub lifecycle: Lifecycle,
    /// None without a log.
    pub log: Option<LogMonitor>,
    pub metrics: HttpMetrics,
    /// The age of the oldest pending event, in milliseconds, from which on `/health` reports `overdue`.
    pub overdue_ms: u64,
    /// When the hub was opened.
    pub started: Time,
}

/// Of the pages.
#[derive(Debug)]
pub(crate) struct PagesState {
    pub frame_ancestors: FrameAncestors,
}
