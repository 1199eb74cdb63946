//! What the handlers ask: one value, made at start, dropped at the end.
//!
//! Dropping it is what ends the journal, so nothing may keep it longer than a request lasts.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::Config;
use super::body::BodyBudget;
use super::cors::Origins;
use super::log_throttle::LogThrottle;
use super::metrics::HttpMetrics;
use super::personal_data::PersonalDataGate;
use crate::auth::AdminToken;
use crate::history::archive::Archives;
use crate::history::stats::Answers;
use crate::history::{Journal, Lifecycle, Store};
use crate::presence::{Feed, Registry};
use crate::rejections::Rejections;
use crate::session::{SessionContext, WatchClocks};
use crate::time::Clock;
use crate::transport::Sockets;

/// Everything that a handler may need.
#[derive(Debug)]
pub(crate) struct App {
    /// Who may see what.
    pub config: Config,
    /// From which sites browsers may come.
    pub origins: Origins,
    /// When was logged that a proxy tells no address.
    pub untold: LogThrottle,
    /// The admin's token, configured or made.
    pub admin_token: AdminToken,
    /// Room for bodies.
    pub bodies: BodyBudget,
    /// Whose turn it is to read or erase what is kept of a person.
    pub desk: PersonalDataGate,
    /// Who is here.
    pub registry: Arc<Registry>,
    /// The live activity.
    pub feed: Arc<Feed>,
    /// Where events go.
    pub journal: Journal,
    /// The database.
    pub store: Store,
    /// What the history says.
    pub answers: Answers,
    /// Who keeps it.
    pub lifecycle: Lifecycle,
    /// Where its older months are.
    pub archives: Archives,
    /// All open sockets.
    pub sockets: Arc<Sockets>,
    /// The tasks of all connections that are no sockets.
    pub connections: TaskTracker,
    /// The tasks of all sessions.
    pub sessions: TaskTracker,
    /// What room sessions need.
    pub room: Arc<SessionContext>,
    /// Both clocks.
    pub clock: Clock,
    /// How long watch sessions have played.
    pub clocks: Arc<WatchClocks>,
    /// What was refused.
    pub rejections: Rejections,
    /// Requests, and the page that shows all counters.
    pub metrics: HttpMetrics,
    /// When events that still wait mean that the database is in trouble, in milliseconds.
    pub overdue_ms: u64,
}
