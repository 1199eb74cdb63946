//! Opens a hub: the database, the tasks, and the state of the handlers.
//!
//! The one place that knows all parts. What it builds is passed on; nothing here runs later.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::info;

use super::background::Background;
use super::holds::HoldStore;
use super::mount::Mount;
use super::{ServeError, Server};
use crate::auth::{AdminToken, PublicUrl};
use crate::cluster::kept_samples::KeptSamples;
use crate::cluster::metrics::ClusterMetrics;
use crate::cluster::node::Running;
use crate::cluster::sealed::SealingKey;
use crate::cluster::transport::{INCOMING_LIMIT, NodeMessage};
use crate::cluster::{self, Cluster, ClusterStatus, Connection, node};
use crate::config::{Config, HttpConfig};
use crate::history::archive::Archives;
use crate::history::capacity::JournalLimits;
use crate::history::lifecycle::{self, LoggedErasures, MaintenanceWorker};
use crate::history::log::Log;
use crate::history::log::command::ErasureKey;
use crate::history::log::erasure_request::ErasureSender;
use crate::history::log::erasures::Erasures;
use crate::history::log::follow::LogParts;
use crate::history::log::metrics::LogMetrics;
use crate::history::log::replica::Replica;
use crate::history::log::status::LogMonitor;
use crate::history::normalize::referrer_host;
use crate::history::stats::StatsCache;
use crate::history::store::{CheckFirst, DatabaseLock, StoreOptions};
use crate::history::{self, Journal, Lifecycle, PropNames, Store, flush, journal};
use crate::http::access::AccessControl;
use crate::http::body::BodyBudget;
use crate::http::gate::PersonalDataGate;
use crate::http::metrics::Metrics;
use crate::http::pages;
use crate::http::routes::router;
use crate::http::state::{
    App, EventsState, LiveState, MiddlewareState, OperateState, PagesState, PersonalDataState, ReplicaState,
    StatsState,
};
use crate::panics::Panics;
use crate::presence::share::ClusterKey;
use crate::presence::{CoverageSource, Feed, Registry};
use crate::protocol::VisitorId;
use crate::quota::{Quota, Sharing};
use crate::session::{SampleIds, SessionContext, WatchClocks};
use crate::time::{Clock, millis};
use crate::transport::accept::{AcceptConfig, listen};
use crate::transport::metrics::TransportMetrics;
use crate::transport::{Descriptors, Sockets, stall_limit};
use crate::{presence, transport};

/// The age of the oldest pending event, beyond two flush intervals, from which on `/health` reports `overdue`.
const OVERDUE_MARGIN: Duration = Duration::from_secs(10);

/// The most time that the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a hub with this configuration.
pub(super) async fn open(config: Config) -> Result<Server, ServeError> {
    let Config { http, presence, history, session, mut transport, auth, cluster, clock } = config;
    cluster.check(&session.node, http.admin_token.is_some())?;
    let (admin_token, tokens) = (http.admin_token.clone().map(AdminToken::new).transpose()?, auth.open()?);
    let private = http.metrics_listen.map(listen_privately).transpose()?;
    pages::warn_if_missing();
    let metrics = Metrics::register();
    limit_sockets(&mut transport);
    let sharing = if transport.limits.is_some() { Sharing::Fair } else { Sharing::FirstCome };
    // A property that everyone may ask for has rollups, so that the cost of an answer is bounded.
    let props = http.public_props.and(&history.rollup_props);
    let TransportMetrics { rejections, panics, .. } = metrics.transport.clone();
    let keys = cluster_keys(&http, &cluster);
    let key = keys.as_ref().map(|keys| keys.presence.clone());
    let registry = Registry::open(presence.clone(), clock.clone(), metrics.presence.clone(), key);
    let (cluster, log, incoming) = join_cluster(&cluster, &session.node, keys, &registry, &panics).await?;
    let (limits, interval) = (journal_limits(&history, &transport, sharing), history.flush_interval);
    let history = History::open(history, &props, own_hosts(&http), limits, &metrics, &clock, log).await?;

    let sockets = Sockets::new(&transport, clock.clone(), metrics.transport.clone());
    let holds = hold_store(&registry, &sockets, &history.store, &presence, &clock);
    let saved_holds = holds.restore().await;
    let context = Arc::new(SessionContext {
        registry: Arc::clone(&registry),
        journal: history.journal,
        clocks: Arc::new(WatchClocks::new(session.watch_clocks, rejections.clone())),
        sample_ids: SampleIds::new(session.node),
        kept_samples: Mutex::new(KeptSamples::new(history.log.clone())),
        live_state: Arc::new(Quota::new(session.live_state, sharing)),
        clock: clock.clone(),
        tokens: tokens.clone(),
        rejections,
        panics: panics.clone(),
        leave_grace: presence.leave_grace,
        cluster,
    });
    let background = Background {
        store: history.store.clone(),
        sockets: Arc::clone(&sockets),
        context: Arc::clone(&context),
        holds: Arc::clone(&holds),
        saved_holds,
        metrics: metrics.http.clone(),
        ping_interval: transport.ping_interval,
        flush_interval: interval,
    };
    let background = AbortOnDropHandle::new(panics.spawn(background.run()));
    let node = start_node(&context, incoming, &metrics, presence.seat_hold, history.log.clone());

    let accept = accept_config(&transport, &http, &sockets, &metrics);
    let admin_token = admin_token.unwrap_or_else(make_admin_token);
    let access = AccessControl::new(&http, admin_token, tokens, Arc::clone(&sockets), clock.clone());
    let app = App {
        access: Arc::new(access),
        middleware: Arc::new(MiddlewareState::new(&http, &metrics.http, &clock)),
        live: Arc::new(LiveState {
            context: Arc::clone(&context),
            feed: Feed::new(registry, coverage(context.cluster.clone()), clock),
            sockets: Arc::clone(&sockets),
            sessions: TaskTracker::new(),
        }),
        events: Arc::new(EventsState {
            context: Arc::clone(&context),
            bodies: BodyBudget::new(transport.max_bytes_in_flight, sharing, BODY_TIMEOUT),
        }),
        stats: stats(history.stats, http.public_props, &context.journal, history.log.clone()),
        personal_data: Arc::new(PersonalDataState {
            context: Arc::clone(&context),
            gate: PersonalDataGate::new(sharing),
            store: history.store.clone(),
            archives: history.archives.clone(),
            lifecycle: history.lifecycle.clone(),
            erasures: history.erasures,
        }),
        replica: Arc::new(ReplicaState::new(&context, &history.store, history.archives)),
        operate: Arc::new(OperateState {
            started: context.clock.wall(),
            context,
            sockets,
            connections: accept.connections.clone(),
            store: history.store,
            lifecycle: history.lifecycle,
            log: history.log,
            metrics: metrics.http,
            overdue_ms: millis(interval * 2 + OVERDUE_MARGIN),
        }),
        pages: Arc::new(PagesState { frame_ancestors: http.frame_ancestors }),
    };
    let History { flush, maintenance, stats_refresh, lock, .. } = history;
    Ok(Server {
        node,
        mount: Mount::new(router(app.clone())),
        app,
        accept,
        metrics: private,
        holds,
        flush,
        maintenance,
        background,
        stats_refresh,
        lock,
    })
}

fn journal_limits(
    history: &history::Config,
    transport: &transport::Config,
    sharing: Sharing,
) -> JournalLimits {
    let rate = transport.limits.map(|limits| limits.events);
    JournalLimits { events: history.queue_limit, bytes: history.queue_bytes, sharing, rate }
}

fn stats(
    cache: StatsCache,
    public_props: PropNames,
    journal: &Journal,
    log: Option<LogMonitor>,
) -> Arc<StatsState> {
    Arc::new(StatsState { cache, public_props, journal: journal.clone(), log })
}

fn hold_store(
    registry: &Arc<Registry>,
    sockets: &Arc<Sockets>,
    store: &Store,
    presence: &presence::Config,
    clock: &Clock,
) -> Arc<HoldStore> {
    Arc::new(HoldStore {
        registry: Arc::clone(registry),
        sockets: Arc::clone(sockets),
        store: store.clone(),
        clock: clock.clone(),
        seat_hold: presence.seat_hold,
        leave_grace: presence.leave_grace,
        sit_limit: presence.sit_limit,
        latest: Mutex::default(),
    })
}

fn accept_config(
    transport: &transport::Config,
    http: &HttpConfig,
    sockets: &Arc<Sockets>,
    metrics: &Metrics,
) -> AcceptConfig {
    AcceptConfig {
        limit: transport.descriptors.map_or(usize::MAX, Descriptors::connections),
        has_proxy: http.client_ip_header.is_some(),
        stall_limit: stall_limit(transport.ping_interval),
        sockets: Arc::clone(sockets),
        connections: TaskTracker::new(),
        errors: metrics.http.accept_errors(),
        metrics: metrics.transport.clone(),
    }
}

/// Listens at the private address for metrics.
fn listen_privately(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |error| ServeError::Metrics(address, error);
    let listener = listen(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    info!(%address, "METRICS_LISTEN: /metrics and /health are at this address without a token");
    Ok(listener)
}

/// Reads which nodes the counts are of.
fn coverage(cluster: Option<Cluster>) -> CoverageSource {
    cluster.map_or_else(CoverageSource::default, |cluster| CoverageSource::new(move || cluster.coverage()))
}

/// What the nodes of a cluster derive from the admin token.
struct ClusterKeys {
    /// Of visitors' names in shares.
    presence: ClusterKey,
    /// Of questions between nodes.
    sealing: SealingKey,
    /// Of visitors' names in erasures.
    erasure: ErasureKey,
}

/// The keys of a cluster; none without one.
fn cluster_keys(http: &HttpConfig, cluster: &cluster::Config) -> Option<ClusterKeys> {
    let (token, name) = (http.admin_token.as_ref().filter(|_| cluster.is_on())?, &cluster.name);
    Some(ClusterKeys {
        presence: ClusterKey::derive(token, name),
        sealing: SealingKey::derive(token, name),
        erasure: ErasureKey::derive(token, name),
    })
}

/// The log of a cluster, and what its erasures need.
struct OpenLog {
    log: Arc<dyn Log>,
    key: ErasureKey,
    /// Ends the holds of a visitor.
    release: Arc<dyn Fn(&VisitorId) + Send + Sync>,
}

/// Opens the connection of a node of a cluster, of which there is none without a cluster: the node's handle, its log, and
/// its incoming messages.
async fn join_cluster(
    config: &cluster::Config,
    node: &str,
    keys: Option<ClusterKeys>,
    registry: &Arc<Registry>,
    panics: &Panics,
) -> Result<(Option<Cluster>, Option<OpenLog>, mpsc::Receiver<NodeMessage>), ServeError> {
    let (sender, incoming) = mpsc::channel(INCOMING_LIMIT);
    let Some(ClusterKeys { sealing, erasure, .. }) = keys else { return Ok((None, None, incoming)) };
    let Connection { transport, log } = cluster::connect(config, node, sender, panics).await?;
    let status = ClusterStatus::at_start(config.name.clone(), node.to_owned());
    let registry = Arc::clone(registry);
    let release = Arc::new(move |visitor: &VisitorId| registry.release(visitor));
    let log = log.map(|log| OpenLog { log, key: erasure, release });
    Ok((Some(Cluster::new(transport, sealing, status)), log, incoming))
}

/// Starts the node task, where there is a cluster.
fn start_node(
    context: &SessionContext,
    incoming: mpsc::Receiver<NodeMessage>,
    metrics: &Metrics,
    seat_hold: Duration,
    log: Option<LogMonitor>,
) -> Option<Running> {
    let cluster = context.cluster.clone()?;
    let parts = node::NodeParts {
        node: cluster.status().node,
        incarnation: rand::random(),
        cluster,
        registry: Arc::clone(&context.registry),
        clock: context.clock.clone(),
        incoming,
        metrics: metrics.http.register_more(ClusterMetrics::register),
        seat_hold,
        log,
    };
    Some(node::start(&context.panics, parts))
}

/// Lowers the limit of sockets to what the limit of open files allows.
fn limit_sockets(transport: &mut transport::Config) {
    if let Some(descriptors) = transport.descriptors {
        let (sockets, files) = (descriptors.sockets(), descriptors.files());
        transport.max_connections = transport.max_connections.min(sockets);
        info!(sockets = transport.max_connections, files, "the limit of open files allows this many sockets");
    }
}

/// The parts of the history, with their tasks.
struct History {
    store: Store,
    archives: Archives,
    journal: Journal,
    log: Option<LogMonitor>,
    erasures: Option<ErasureSender>,
    stats: StatsCache,
    lifecycle: Lifecycle,
    flush: JoinHandle<()>,
    maintenance: JoinHandle<()>,
    stats_refresh: AbortOnDropHandle<()>,
    lock: DatabaseLock,
}

impl History {
    /// Opens the database and starts the tasks of the history. With a log, events go through it.
    async fn open(
        config: history::Config,
        props: &[String],
        own_hosts: Vec<String>,
        limits: JournalLimits,
        metrics: &Metrics,
        clock: &Clock,
        log: Option<OpenLog>,
    ) -> Result<Self, ServeError> {
        let log_metrics = log.as_ref().map(|_| metrics.http.register_more(LogMetrics::register));
        let (panics, metrics) = (&metrics.transport.panics, &metrics.history);
        let lock = DatabaseLock::acquire(&config.database_url).await?;
        let options = StoreOptions {
            check_first: if config.check_first { CheckFirst::Always } else { CheckFirst::AfterCrash },
            read_limit: Some(config.read_limit),
            wal_limit: config.wal_limit,
        };
        let store = Store::open_with(&config.database_url, options).await?;
        store.begin_quarters(lifecycle::quarters_from(clock.wall())).await?;
        store.list_props(props, clock.wall()).await?;
        store.delete_old_snapshot();
        let archives = Archives::new(config.archive_dir, &store.path());
        let (lifecycle, commands) = lifecycle::open();
        let log = open_log(log.zip(log_metrics), &store, clock, panics).await?;
        let logged = log.as_ref().map(|log| log.logged.clone());
        let worker = MaintenanceWorker {
            store: store.clone(),
            archives: archives.clone(),
            retention: config.retention,
            clock: clock.clone(),
            metrics: metrics.lifecycle.clone(),
            logged,
        };
        let maintenance = panics.spawn(lifecycle::run(commands, worker));
        let (journal, receiver) = journal::open(limits, clock.clone(), metrics.clone());
        let (replica, log) = log.map(|log| (log.replica, (log.monitor, log.sender))).unzip();
        let (log, erasures) = log.unzip();
        let flush = panics.spawn(flush::run(receiver, store.clone(), config.flush_interval, replica));
        let stats = StatsCache::new(store.clone(), clock.clone(), metrics.clone(), own_hosts);
        let refresh = stats.clone().refresh_on_commit(journal.committed());
        let stats_refresh = AbortOnDropHandle::new(tokio::spawn(refresh));
        Ok(Self {
            store,
            archives,
            journal,
            log,
            erasures,
            stats,
            lifecycle,
            flush,
            maintenance,
            stats_refresh,
            lock,
        })
    }
}

/// The parts of a log that is read.
struct ReadLog {
    replica: Replica,
    monitor: LogMonitor,
    sender: ErasureSender,
    logged: LoggedErasures,
}

/// Begins to read the log, if there is one.
async fn open_log(
    log: Option<(OpenLog, LogMetrics)>,
    store: &Store,
    clock: &Clock,
    panics: &Panics,
) -> Result<Option<ReadLog>, ServeError> {
    let Some((OpenLog { log, key, release }, metrics)) = log else { return Ok(None) };
    let [finished, unfinished] = store.logged_erasures().await?;
    let erasures = Erasures::new(key, finished, unfinished);
    let logged = LoggedErasures { erasures: erasures.clone(), release };
    let (store, clock, panics) = (store.clone(), clock.clone(), panics.clone());
    let parts = LogParts { log, store, clock, panics, metrics, erasures };
    let (replica, monitor, sender) = Replica::open(parts).await?;
    Ok(Some(ReadLog { replica, monitor, sender, logged }))
}

/// The hosts of the hub's own pages, as lists of referrers name them.
fn own_hosts(http: &HttpConfig) -> Vec<String> {
    let public = http.public_url.iter().map(PublicUrl::as_str);
    let hosts: BTreeSet<String> =
        http.allowed_origins.exact().chain(public).filter_map(referrer_host).collect();
    hosts.into_iter().collect()
}

fn make_admin_token() -> AdminToken {
    let token = AdminToken::random();
    info!(token = token.reveal(), "ADMIN_TOKEN is not set: this one is valid until the hub stops");
    token
}
