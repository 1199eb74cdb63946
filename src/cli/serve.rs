//! `serve`: settings, logging and signals of the hub. The default command.
//!
//! Wiring only: [`Server`] does the work.

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

use super::parse::{at_least_one, duration, interval};
use crate::auth::{Access, AllowedOrigins, PublicUrl, Secret};
use crate::config::Config;
use crate::history::Retention;
use crate::http::forwarded::address_header;
use crate::http::{FrameAncestors, PublicProps};
use crate::protocol::Vocabulary;
use crate::protocol::mood::DEFAULT_MOODS;
use crate::server::Server;
use crate::time::Clock;
use crate::transport::accept::listen;
use crate::transport::{Descriptors, Limits};
use crate::{auth, history, http, panics, presence, session, transport};

/// The settings, each a flag and a variable of the same name. Durations are like 30s or 5m.
#[derive(Debug, Args)]
pub struct ServeSettings {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The SQLite file; it and its folder are made if missing
    #[arg(long, env, value_name = "URL", default_value = history::DATABASE_URL)]
    pub database_url: String,
    /// Longest time that events wait before they are written
    #[arg(long, env, value_name = "DURATION", default_value_t = history::Config::default().flush_interval.into(), value_parser = interval)]
    pub flush_interval: Span,
    /// Most events that may wait; beyond, new ones are refused until a flush
    #[arg(long, env, value_name = "EVENTS", default_value_t = history::Config::default().queue_limit, value_parser = at_least_one)]
    pub queue_limit: usize,
    /// Most bytes of memory that waiting events may take; beyond, new ones are refused until a flush
    #[arg(long, env, value_name = "BYTES", default_value_t = history::Config::default().queue_bytes, value_parser = at_least_one)]
    pub queue_bytes: usize,
    /// How long raw rows stay in the database after their month: so many months, or forever
    #[arg(long, env, value_name = "MONTHS", default_value_t)]
    pub retention: Retention,
    /// Folder for the raw rows of older months; without one, `archive` beside the database
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
    /// How long a visitor whose connection broke stays present
    #[arg(long, env, value_name = "DURATION", default_value_t = presence::Config::default().leave_grace.into(), value_parser = duration)]
    pub leave_grace: Span,
    /// How long the seats of those who were here when the hub stopped are held at the next start; 0s for not
    #[arg(long, env, value_name = "DURATION", default_value_t = presence::Config::default().seat_hold.into(), value_parser = duration)]
    pub seat_hold: Span,
    /// How long a socket may be silent before it is pinged
    #[arg(long, env, value_name = "DURATION", default_value_t = transport::Config::default().ping_interval.into(), value_parser = interval)]
    pub ping_interval: Span,
    /// Moods that may be set, in display order, separated by commas
    #[arg(long, env, value_name = "LIST", default_value = DEFAULT_MOODS, value_parser = Vocabulary::parse)]
    pub moods: Vocabulary,
    /// Token for the admin's requests, of at least 16 bytes; without one, a random one is made and logged
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// Secret of visitors' tokens (HS256), of at least 32 bytes; with it, nobody joins or posts without a token
    #[arg(long, env, value_name = "SECRET", hide_env_values = true)]
    pub token_secret: Option<Secret>,
    /// File of public keys for visitors' tokens (a JSON Web Key Set: RS256, ES256, EdDSA), instead of a secret
    #[arg(long, env, value_name = "FILE")]
    pub token_jwks: Option<PathBuf>,
    /// Whom visitors' tokens must be for: their `aud`
    #[arg(long, env, value_name = "AUDIENCE")]
    pub token_audience: Option<String>,
    /// Sites whose pages may connect: origins, separated by commas; self, localhost, or * for all
    #[arg(long, env, value_name = "LIST", default_value = AllowedOrigins::DEFAULT, value_parser = AllowedOrigins::parse)]
    pub allowed_origins: AllowedOrigins,
    /// The hub's own address as browsers see it, such as `https://hub.example.org`: the origin that self
    /// stands for; without it, that of the request's Host
    #[arg(long, env, value_name = "ORIGIN", value_parser = PublicUrl::parse)]
    pub public_url: Option<PublicUrl>,
    /// Most sockets open at once
    #[arg(long, env, value_name = "SOCKETS", default_value_t = transport::Config::default().max_connections, value_parser = at_least_one)]
    pub max_connections: usize,
    /// Most rooms at once
    #[arg(long, env, value_name = "ROOMS", default_value_t = presence::Config::default().max_rooms, value_parser = at_least_one)]
    pub max_rooms: usize,
    /// Limits per address, socket and visitor, which are the settings below; off for load tests
    #[arg(long, env, value_name = "SWITCH", default_value = "on")]
    pub rate_limits: Switch,
    /// Header in which a proxy in front tells whose request it is: a list of addresses, such as Fly-Client-IP or
    /// X-Forwarded-For, or Forwarded; without one, the limits per address go by who connects
    #[arg(long, env, value_name = "HEADER", value_parser = address_header)]
    pub client_ip_header: Option<HeaderName>,
    /// Most sockets open at once from one address (of IPv6, one /64)
    #[arg(long, env, value_name = "SOCKETS", default_value_t = Limits::DEFAULT.sockets)]
    pub address_sockets: NonZeroU32,
    /// Sockets a second that one address may open; ten seconds' worth may come at once
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.opened)]
    pub address_socket_rate: NonZeroU32,
    /// Most sockets for the live activity (/live) open at once from one address
    #[arg(long, env, value_name = "SOCKETS", default_value_t = Limits::DEFAULT.live)]
    pub address_live_sockets: NonZeroU32,
    /// HTTP posts a second of one address; ten seconds' worth may come at once
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.posts)]
    pub address_post_rate: NonZeroU32,
    /// Other HTTP requests a second of one address, files and /health excepted; ten seconds' worth may come at once
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.reads)]
    pub address_read_rate: NonZeroU32,
    /// Messages a second on one socket; ten seconds' worth may come at once
    #[arg(long, env, value_name = "RATE", default_value_t = Limits::DEFAULT.messages)]
    pub message_rate: NonZeroU32,
    /// Most rooms that one visitor may be in at once
    #[arg(long, env, value_name = "ROOMS", default_value_t = presence::Config::ROOMS_PER_VISITOR)]
    pub visitor_rooms: NonZeroU32,
    /// Most bytes of requests that are being read, and as many that wait for sockets to take them
    #[arg(long, env, value_name = "BYTES", default_value_t = transport::Config::default().max_bytes_in_flight, value_parser = at_least_one)]
    pub max_bytes_in_flight: usize,
    /// Who may see the dashboard and what it shows: the history and the live activity
    #[arg(long, env, value_name = "WHO", default_value = "public")]
    pub dashboard: Access,
    /// Properties of page views by whose values the history may be broken down without the admin token, separated
    /// by commas
    #[arg(long, env, value_name = "LIST", default_value = "", value_parser = PublicProps::parse)]
    pub public_props: PublicProps,
    /// Who may see /metrics
    #[arg(long, env, value_name = "WHO", default_value = "public")]
    pub metrics: Access,
    /// Who may show the room page in a frame: 'none', *, or 'self' and origins, separated by spaces
    #[arg(long, env, value_name = "LIST", default_value = "'self'", value_parser = FrameAncestors::parse)]
    pub frame_ancestors: FrameAncestors,
    /// How log lines look
    #[arg(long, env, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: a level, or a filter such as `breathing_room=debug`
    #[arg(long = "rust-log", env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off, for load tests.
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<ServeSettings> for Config {
    fn from(settings: ServeSettings) -> Self {
        let is_limited = settings.rate_limits == Switch::On;
        Self {
            http: http::Config {
                admin_token: settings.admin_token,
                dashboard: settings.dashboard,
                public_props: settings.public_props,
                metrics: settings.metrics,
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
                seat_hold: settings.seat_hold.into(),
            },
            history: history::Config {
                database_url: settings.database_url,
                flush_interval: settings.flush_interval.into(),
                queue_limit: settings.queue_limit,
                queue_bytes: settings.queue_bytes,
                retention: settings.retention,
                archive_dir: settings.archive_dir,
            },
            session: session::Config::default(),
            transport: transport::Config {
                ping_interval: settings.ping_interval.into(),
                max_connections: settings.max_connections,
                limits: is_limited.then_some(Limits {
                    sockets: settings.address_sockets,
                    opened: settings.address_socket_rate,
                    live: settings.address_live_sockets,
                    posts: settings.address_post_rate,
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
            clock: Clock::system(),
        }
    }
}

/// Runs the hub until SIGTERM or SIGINT.
///
/// # Errors
/// The last line of the program: why it could not start, or not stop well.
pub(crate) fn serve(settings: ServeSettings) -> Result<(), String> {
    let runtime = Runtime::new().map_err(|error| format!("cannot start any threads: {error}"))?;
    let result = runtime.block_on(run(settings));
    // A volume that hangs keeps a thread for good, but not the program.
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
    // Closed standard output is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "breathing-room is open at http://{address}/");
    server.serve(listener, signals.first()).await.map_err(|error| error.to_string())
}

fn start_logging(settings: &ServeSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log_filter)
        .map_err(|error| format!("invalid value for RUST_LOG: {error}"))?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let log = tracing_subscriber::registry().with(filter).with(filter_fn(tells_no_secret));
    match settings.log_format {
        LogFormat::Text => log.with(lines).init(),
        LogFormat::Json => log.with(lines.json()).init(),
    }
    Ok(())
}

/// Whether the log may have this, whatever `RUST_LOG` says: tungstenite logs messages whole, with the tokens that
/// are renewed in them.
fn tells_no_secret(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("tungstenite") || *metadata.level() <= Level::INFO
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

    /// Waits for the first signal, and from then on ends the program at the second.
    async fn first(mut self) {
        self.next().await;
        #[expect(clippy::disallowed_methods, reason = "somebody asked twice")]
        tokio::spawn(async move {
            let second = self.next().await;
            std::process::exit(128 + second);
        });
    }
}
