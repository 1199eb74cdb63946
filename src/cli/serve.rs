//! `serve`, the default command: settings, logging and signals of the hub.
//!
//! [`Server`] does the work.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use axum::http::HeaderName;
use clap::{Args, ValueEnum};
use humantime::Duration as Span;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::args::{LISTEN, at_least_one, duration, event_rate, interval, node};
use crate::auth::{Access, AllowedOrigins, PublicUrl, Secret};
use crate::cluster::config::CLUSTER;
use crate::config::Config;
use crate::history::{PropNames, Retention};
use crate::http::forwarded::address_header;
use crate::http::{FrameAncestors, Mode};
use crate::protocol::Vocabulary;
use crate::protocol::mood::DEFAULT_MOODS;
use crate::server::Server;
use crate::time::Clock;
use crate::transport::accept::listen;
use crate::transport::{Descriptors, Limits};
use crate::{auth, cluster, history, http, panics, presence, session, transport};

/// The settings. Each is a flag and an environment variable of the same name. Durations are like 30s or 5m.
#[derive(Debug, Args)]
pub(crate) struct ServeSettings {
    /// Address and port to listen on; port 0 is any free port
    #[arg(long, env, value_name = "ADDRESS", default_value = LISTEN)]
    pub listen: SocketAddr,
    /// The SQLite file; it and its folder are created if missing
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// Check the whole database before serving; off checks it while serving, unless the machine crashed
    #[arg(long, env, value_name = "SWITCH", default_value = "off", num_args = 0..=1, default_missing_value = "on")]
    pub check_first: Switch,
    /// Longest time before pending events are written
    #[arg(long, env, value_name = "DURATION", default_value_t = history::Config::default().flush_interval.into(), value_parser = interval)]
    pub flush_interval: Span,
    /// Most pending events; above it, new ones are rejected until a flush
    #[arg(long, env, value_name = "EVENTS", default_value_t = history::Config::default().queue_limit, value_parser = at_least_one)]
    pub queue_limit: usize,
    /// Most bytes of memory for pending events; above it, new ones are rejected until a flush
    #[arg(long, env, value_name = "BYTES", default_value_t = history::Config::default().queue_bytes, value_parser = at_least_one)]
    pub queue_bytes: usize,
    /// How long raw rows stay in the database after their month: a number of months, or forever
    #[arg(long, env, value_name = "MONTHS", default_value_t)]
    pub retention: Retention,
    /// Folder for archives of older months; by default `archive` beside the database
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
    /// The name of this hub among the nodes of its cluster, which presence samples are known by; by default the host's
    /// name
    #[arg(long, env, value_name = "NAME", default_value_t = session::host_name(), hide_default_value = true, value_parser = node)]
    pub node: String,
    /// NATS servers that connect this hub with the other nodes of its cluster, separated by commas, the nearest one first;
    /// without them, it is a hub of its own
    #[arg(long, env, value_name = "URLS", value_delimiter = ',', hide_env_values = true)]
    pub nats_url: Vec<String>,
    /// File with the credentials for NATS (a user's JWT and seed)
    #[arg(long, env, value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
    /// The name of the cluster: nodes with the same name and the same NATS servers have the same rooms
    #[arg(long, env, value_name = "NAME", default_value = CLUSTER)]
    pub cluster: String,
    /// How long a visitor stays present after the connection broke
    #[arg(long, env, value_name = "DURATION", default_value_t = presence::Config::default().leave_grace.into(), value_parser = duration)]
    pub leave_grace: Span,
    /// Longest sit, over which a visitor without a connection stays present; 0s turns sits off
    #[arg(long, env, value_name = "DURATION", default_value_t = presence::Config::default().sit_limit.into(), value_parser = duration)]
    pub sit_limit: Span,
    /// How long visitors stay present over a restart of the hub; 0s turns this off
    #[arg(long, env, value_name = "DURATION", default_value_t = presence::Config::default().seat_hold.into(), value_parser = duration)]
    pub seat_hold: Span,
    /// Idle time of a socket before the hub pings it
    #[arg(long, env, value_name = "DURATION", default_value_t = transport::Config::default().ping_interval.into(), value_parser = interval)]
    pub ping_interval: Span,
    /// Moods that visitors may set, in display order, separated by commas
    #[arg(long, env, value_name = "LIST", default_value = DEFAULT_MOODS, value_parser = Vocabulary::parse)]
    pub moods: Vocabulary,
    /// What the hub is for: rooms and the history, or as a replica the history and the dashboard only
    #[arg(long, env, value_name = "MODE", default_value = "hub")]
    pub mode: Mode,
    /// Token for admin requests, of at least 16 bytes; by default the hub generates one and logs it
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// Secret of visitors' tokens (HS256), of at least 32 bytes; with it, joining and posting need a token
    #[arg(long, env, value_name = "SECRET", hide_env_values = true)]
    pub token_secret: Option<Secret>,
    /// File of public keys for visitors' tokens (a JSON Web Key Set: RS256, ES256, EdDSA), instead of a secret
    #[arg(long, env, value_name = "FILE")]
    pub token_jwks: Option<PathBuf>,
    /// The audience (`aud`) that visitors' tokens must have
    #[arg(long, env, value_name = "AUDIENCE")]
    pub token_audience: Option<String>,
    /// Origins that may connect, separated by commas; also self, localhost, or * for all
    #[arg(long, env, value_name = "LIST", default_value = AllowedOrigins::DEFAULT, value_parser = AllowedOrigins::parse)]
    pub allowed_origins: AllowedOrigins,
    /// The hub's public address, such as `https://hub.example.org`: the origin that self means; by default that of
    /// the request's Host
    #[arg(long, env, value_name = "ORIGIN", value_parser = PublicUrl::parse)]
    pub public_url: Option<PublicUrl>,
    /// Most open sockets
    #[arg(long, env, value_name = "SOCKETS", default_value_t = transport::Config::default().max_connections, value_parser = at_least_one)]
    pub max_connections: usize,
    /// Most rooms
    #[arg(long, env, value_name = "ROOMS", default_value_t = presence::Config::default().max_rooms, value_parser = at_least_one)]
    pub max_rooms: usize,
    /// Limits per address, socket and visitor, as set below; off for load tests
    #[arg(long, env, value_name = "SWITCH", default_value = "on")]
    pub rate_limits: Switch,
    /// Header with the client's address from a proxy in front: Fly-Client-IP, X-Forwarded-For, Forwarded or another
    /// list of addresses; by default, limits per address use the connection's address
    #[arg(long, env, value_name = "HEADER", value_parser = address_header)]
    pub client_ip_header: Option<HeaderName>,
    /// Most open sockets of one address (for IPv6, one /64)
    #[arg(long, env, value_name = "SOCKETS", default_value_t = Limits::DEFAULT.sockets)]
    pub address_sockets: NonZeroU32,
    /// Sockets per second that one address may open; the burst is ten seconds' worth
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.opened)]
    pub address_socket_rate: NonZeroU32,
    /// Most open sockets of one address for the live activity (/live)
    #[arg(long, env, value_name = "SOCKETS", default_value_t = Limits::DEFAULT.live)]
    pub address_live_sockets: NonZeroU32,
    /// HTTP posts per second of one address; the burst is ten seconds' worth
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.posts)]
    pub address_post_rate: NonZeroU32,
    /// Events per second of one address, over sockets and posts together, at least 10; the burst is 25 seconds' worth
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.events, value_parser = event_rate)]
    pub address_event_rate: NonZeroU32,
    /// Other HTTP requests per second of one address, except files and /health; the burst is ten seconds' worth
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.reads)]
    pub address_read_rate: NonZeroU32,
    /// Messages per second on one socket; the burst is ten seconds' worth
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.messages)]
    pub message_rate: NonZeroU32,
    /// Most rooms of one visitor at the same time
    #[arg(long, env, value_name = "ROOMS", default_value_t = presence::Config::ROOMS_PER_VISITOR)]
    pub visitor_rooms: NonZeroU32,
    /// Most bytes of request bodies in progress, and as many of unsent messages
    #[arg(long, env, value_name = "BYTES", default_value_t = transport::Config::default().max_bytes_in_flight, value_parser = at_least_one)]
    pub max_bytes_in_flight: usize,
    /// Access to the dashboard and its data: the history and the live activity
    #[arg(long, env, value_name = "ACCESS", default_value = "public")]
    pub dashboard: Access,
    /// Properties of page views that the history may be broken down by without the admin token, separated by
    /// commas
    #[arg(long, env, value_name = "LIST", default_value = "", value_parser = PropNames::parse)]
    pub public_props: PropNames,
    /// Properties of page views that are counted by value as they arrive, separated by commas; others are counted when
    /// they are asked for
    #[arg(long, env, value_name = "LIST", default_value = "", value_parser = PropNames::parse)]
    pub rollup_props: PropNames,
    /// Access to /metrics
    #[arg(long, env, value_name = "ACCESS", default_value = "public")]
    pub metrics: Access,
    /// A private address and port for /metrics and /health, without a token; /metrics is then only there
    #[arg(long, env, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Sites that may show the room page in a frame: 'none', *, or 'self' and origins, separated by spaces
    #[arg(long, env, value_name = "LIST", default_value = FrameAncestors::DEFAULT, value_parser = FrameAncestors::parse)]
    pub frame_ancestors: FrameAncestors,
    /// Format of log lines
    #[arg(long, env, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Log level, or a filter such as `breathing_room=debug`
    #[arg(long = "rust-log", env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl From<ServeSettings> for Config {
    fn from(settings: ServeSettings) -> Self {
        let is_limited = settings.rate_limits == Switch::On;
        Self {
            http: http::Config {
                mode: settings.mode,
                admin_token: settings.admin_token,
                dashboard: settings.dashboard,
                public_props: settings.public_props,
                metrics: settings.metrics,
                metrics_listen: settings.metrics_listen,
                allowed_origins: settings.allowed_origins,
                public_url: settings.public_url,
                frame_ancestors: settings.frame_ancestors,
                client_ip_header: settings.client_ip_header,
            },
            presence: presence::Config {
                moods: settings.moods,
                max_rooms: settings.max_rooms,
                max_rooms_per_visitor: is_limited.then_some(settings.visitor_rooms.get()),
                leave_grace: settings.leave_grace.into(),
                sit_limit: settings.sit_limit.into(),
                seat_hold: settings.seat_hold.into(),
                ..presence::Config::default()
            },
            history: history::Config {
                database_url: settings.database_url,
                flush_interval: settings.flush_interval.into(),
                queue_limit: settings.queue_limit,
                queue_bytes: settings.queue_bytes,
                rollup_props: settings.rollup_props,
                retention: settings.retention,
                archive_dir: settings.archive_dir,
                check_first: settings.check_first == Switch::On,
                ..history::Config::default()
            },
            session: session::Config { node: settings.node, ..session::Config::default() },
            transport: transport::Config {
                ping_interval: settings.ping_interval.into(),
                max_connections: settings.max_connections,
                limits: is_limited.then_some(Limits {
                    sockets: settings.address_sockets,
                    opened: settings.address_socket_rate,
                    live: settings.address_live_sockets,
                    posts: settings.address_post_rate,
                    events: settings.address_event_rate,
                    reads: settings.address_read_rate,
                    messages: settings.message_rate,
                }),
                max_bytes_in_flight: if is_limited { settings.max_bytes_in_flight } else { usize::MAX },
                ..transport::Config::default()
            },
            auth: auth::Config {
                secret: settings.token_secret,
                jwks: settings.token_jwks,
                audience: settings.token_audience,
            },
            cluster: cluster::Config {
                urls: settings.nats_url,
                credentials: settings.nats_creds,
                name: settings.cluster,
                ..cluster::Config::default()
            },
            clock: Clock::system(),
        }
    }
}

/// Runs the hub until SIGTERM or SIGINT.
/// Errors: why the hub could not start, or not stop cleanly: the program's last line.
pub(crate) fn serve(settings: ServeSettings) -> Result<(), String> {
    let runtime = Runtime::new().map_err(|error| format!("cannot start any threads: {error}"))?;
    let result = runtime.block_on(run(settings));
    // A thread that hangs in I/O must not keep the program from ending.
    runtime.shutdown_background();
    result
}

async fn run(settings: ServeSettings) -> Result<(), String> {
    start_logging(&settings)?;
    panics::log_all();
    let cannot_listen = |error| format!("cannot listen on {}: {error}", settings.listen);
    let signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let listener = listen(settings.listen).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let mut config = Config::from(settings);
    config.transport.descriptors = Some(Descriptors::raise());
    let server = Server::open(config).await.map_err(|error| error.to_string())?;
    // A closed standard output is no error.
    let _ = writeln!(std::io::stdout(), "breathing-room is open at http://{address}/");
    server.serve(listener, signals.first()).await.map_err(|error| error.to_string())
}

fn start_logging(settings: &ServeSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log_filter)
        .map_err(|error| format!("invalid value for RUST_LOG: {error}"))?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let log = tracing_subscriber::registry().with(filter).with(filter_fn(may_be_logged));
    match settings.log_format {
        LogFormat::Text => log.with(lines).init(),
        LogFormat::Json => log.with(lines.json()).init(),
    }
    Ok(())
}

/// Returns whether a target may be logged at its level, for any `RUST_LOG`. Below info, tungstenite logs whole messages, with
/// the tokens in them. From info on, the client of NATS logs each failed try, and the hub has lines of its own for that.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let (target, level) = (metadata.target(), *metadata.level());
    (!target.starts_with("tungstenite") || level <= Level::INFO)
        && (!target.starts_with("async_nats") || level > Level::INFO)
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }

    /// Waits for the first signal. A second signal then ends the program at once.
    async fn first(mut self) {
        self.next().await;
        #[expect(clippy::disallowed_methods, reason = "a second signal skips the graceful shutdown")]
        tokio::spawn(async move {
            let second = self.next().await;
            std::process::exit(128 + second);
        });
    }
}
