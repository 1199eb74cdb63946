//! Configuration: flags and environment, parsed and checked before anything starts.
//!
//! A flag and its variable have the same name. What is parsed here is handed to the parts as
//! the section that each of them owns; no part sees the command line.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clock::Clock;
use crate::command::moment::moment;
use crate::command::{Format, Kind, Renamed};
use crate::history::Retention;
use crate::http::forwarded::address_header;
use crate::http::{AllowedOrigins, PublicUrl};
use crate::session::Limits;
use crate::wire::ids::BadName;
use crate::wire::mood::DEFAULT_MOODS;
use crate::wire::{MESSAGE_LIMIT, RoomId, Time, VisitorId, Vocabulary};
use crate::{history, http, live, session, token};

/// A self-hosted presence hub: who is here now, in what mood, and what they looked at.
///
/// Each visitor holds one WebSocket; that is what being present means. Counts are kept in memory
/// and pushed when they change. Page views and watch sessions are written to SQLite in batches.
#[derive(Debug, Parser)]
#[command(name = "breathing-room", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without a command, `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `serve`.
    #[command(flatten)]
    pub serve: Settings,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the hub (the default)
    Serve(Box<Settings>),
    /// Recount the history and print each figure that is wrong
    Check(CheckSettings),
    /// Write the history to a file, also while the hub runs
    Export(ExportSettings),
    /// Take in exports, archives, and tables of the old worker
    Import(ImportSettings),
    /// Make a token for a visitor and print it
    Token(TokenSettings),
}

impl Cli {
    /// What to do: `serve`, where nothing was named.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

/// The settings of `check`.
#[derive(Debug, Args)]
pub struct CheckSettings {
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = "sqlite://data/breathing-room.db")]
    pub database_url: String,
}

/// The settings of `export`. Moments are like 2026-11-20, RFC 3339, or milliseconds.
#[derive(Debug, Args)]
pub struct ExportSettings {
    /// The SQLite file
    #[arg(long, env, value_name = "URL", default_value = "sqlite://data/breathing-room.db")]
    pub database_url: String,
    /// Only what happened at this moment or later
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub from: Option<Time>,
    /// Only what happened before this moment
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub to: Option<Time>,
    /// Only what happened in this room
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomId>,
    /// How it is written; by default as the file's name ends, or else jsonl
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// The file; without one, or with -, standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// The settings of `import`.
#[derive(Debug, Args)]
pub struct ImportSettings {
    /// Files of JSON Lines, a JSON array or CSV, also compressed with gzip
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The SQLite file; it and its folder are made if missing
    #[arg(long, env, value_name = "URL", default_value = "sqlite://data/breathing-room.db")]
    pub database_url: String,
    /// The folder of archives, from which months come back that the files have something of [default: archive
    /// beside the database]
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
    /// What the old worker's rows are; by default, what their columns look like
    #[arg(long, value_name = "KIND")]
    pub kind: Option<Kind>,
    /// What a column is called in the old worker's files, as in visitor=member; may be repeated. Ours are
    /// id, room, visitor, path, title, referrer, at, content, startedAt, duration, completed
    #[arg(long = "field", value_name = "OURS=THEIRS")]
    pub fields: Vec<Renamed>,
    /// The room of the old worker's rows that name none
    #[arg(long, value_name = "ROOM", default_value = "lobby", value_parser = room)]
    pub room: RoomId,
    /// Read and check everything, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// A file for all refused rows; the first 20 are printed in any case
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// The settings of `token`.
#[derive(Debug, Args)]
pub struct TokenSettings {
    /// Who the token is for
    #[arg(long, value_name = "ID", value_parser = visitor)]
    pub visitor: VisitorId,
    /// The one room that it opens; without it, all
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomId>,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    pub expires: Duration,
    /// The secret that the hub has, of at least 32 bytes
    #[arg(long, env, value_name = "SECRET", hide_env_values = true)]
    pub token_secret: token::Secret,
    /// Whom it is for, where the hub asks for that
    #[arg(long, env, value_name = "AUDIENCE")]
    pub token_audience: Option<String>,
}

/// The settings, each a flag and a variable of the same name. Durations are like 30s or 5m.
#[derive(Debug, Args)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The SQLite file; it and its folder are made if missing
    #[arg(long, env, value_name = "URL", default_value = "sqlite://data/breathing-room.db")]
    pub database_url: String,
    /// Longest time that events wait before they are written
    #[arg(long, env, value_name = "DURATION", default_value = "30s", value_parser = interval)]
    pub flush_interval: Duration,
    /// Most events that may wait; beyond, new ones are refused until a flush
    #[arg(long, env, value_name = "EVENTS", default_value = "50000", value_parser = at_least_one)]
    pub queue_limit: usize,
    /// Most bytes of memory that waiting events may take; beyond, new ones are refused until a flush
    #[arg(long, env, value_name = "BYTES", default_value = "67108864", value_parser = at_least_one)]
    pub queue_bytes: usize,
    /// How long raw rows stay in the database after their month: so many months, or forever
    #[arg(long, env, value_name = "MONTHS", default_value_t)]
    pub retention: Retention,
    /// Folder for the raw rows of older months; without one, `archive` beside the database
    #[arg(long, env, value_name = "FOLDER")]
    pub archive_dir: Option<PathBuf>,
    /// How long a visitor whose connection broke stays present
    #[arg(long, env, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    pub leave_grace: Duration,
    /// How long the seats of those who were here when the hub stopped are held at the next start; 0s for not
    #[arg(long, env, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub seat_hold: Duration,
    /// How long a socket may be silent before it is pinged
    #[arg(long, env, value_name = "DURATION", default_value = "25s", value_parser = interval)]
    pub ping_interval: Duration,
    /// Moods that may be set, in display order, separated by commas
    #[arg(long, env, value_name = "LIST", default_value = DEFAULT_MOODS, value_parser = Vocabulary::parse)]
    pub moods: Vocabulary,
    /// Token for the admin's requests, of at least 16 bytes; without one, a random one is made and logged
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// Secret of visitors' tokens (HS256), of at least 32 bytes; with it, nobody joins or posts without a token
    #[arg(long, env, value_name = "SECRET", hide_env_values = true)]
    pub token_secret: Option<token::Secret>,
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
    #[arg(long, env, value_name = "SOCKETS", default_value = "15000", value_parser = at_least_one)]
    pub max_connections: usize,
    /// Most rooms at once
    #[arg(long, env, value_name = "ROOMS", default_value = "10000", value_parser = at_least_one)]
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
    #[arg(long, env, value_name = "ROOMS", default_value_t = live::ROOMS_PER_VISITOR)]
    pub visitor_rooms: NonZeroU32,
    /// Most bytes of requests that are being read, and as many that wait for sockets to take them
    #[arg(long, env, value_name = "BYTES", default_value = "67108864", value_parser = at_least_one)]
    pub max_bytes_in_flight: usize,
    /// Who may see the dashboard and what it shows: the history and the live activity
    #[arg(long, env, value_name = "WHO", default_value = "public")]
    pub dashboard: http::Audience,
    /// Properties of page views by whose values the history may be broken down without the admin token, separated
    /// by commas
    #[arg(long, env, value_name = "LIST", default_value = "", value_parser = http::PublicProps::parse)]
    pub public_props: http::PublicProps,
    /// Who may see /metrics
    #[arg(long, env, value_name = "WHO", default_value = "public")]
    pub metrics: http::Audience,
    /// Who may show the room page in a frame: 'none', *, or 'self' and origins, separated by spaces
    #[arg(long, env, value_name = "LIST", default_value = "'self'", value_parser = http::FrameAncestors::parse)]
    pub frame_ancestors: http::FrameAncestors,
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

/// What the hub runs with: a section for each part.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Of HTTP.
    pub http: http::Config,
    /// Of the live side.
    pub live: live::Config,
    /// Of the history side.
    pub history: history::Config,
    /// Of the sessions.
    pub session: session::Config,
    /// Of the visitors' tokens.
    pub token: token::Config,
    /// Both clocks; tests set them.
    pub clock: Clock,
}

impl From<Settings> for Config {
    fn from(settings: Settings) -> Self {
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
                descriptors: None,
            },
            live: live::Config {
                moods: settings.moods,
                max_rooms: settings.max_rooms,
                max_rooms_per_visitor: is_limited.then_some(settings.visitor_rooms.get()),
            },
            history: history::Config {
                database_url: settings.database_url,
                flush_interval: settings.flush_interval,
                queue_limit: settings.queue_limit,
                queue_bytes: settings.queue_bytes,
                retention: settings.retention,
                archive_dir: settings.archive_dir,
            },
            session: session::Config {
                leave_grace: settings.leave_grace,
                seat_hold: settings.seat_hold,
                ping_interval: settings.ping_interval,
                max_connections: settings.max_connections,
                message_limit: MESSAGE_LIMIT,
                limits: is_limited.then_some(Limits {
                    sockets: settings.address_sockets,
                    opened: settings.address_socket_rate,
                    live: settings.address_live_sockets,
                    posts: settings.address_post_rate,
                    reads: settings.address_read_rate,
                    messages: settings.message_rate,
                }),
                watch_clocks: session::Config::default().watch_clocks,
                live_state: session::Config::default().live_state,
                max_bytes_in_flight: if is_limited { settings.max_bytes_in_flight } else { usize::MAX },
            },
            token: token::Config {
                secret: settings.token_secret,
                jwks: settings.token_jwks,
                audience: settings.token_audience,
            },
            clock: Clock::system(),
        }
    }
}

fn room(text: &str) -> Result<RoomId, BadName> {
    RoomId::try_from(text)
}

fn visitor(text: &str) -> Result<VisitorId, BadName> {
    VisitorId::try_from(text)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Ok(_) => Err("must be at least 1s".to_owned()),
        Err(_) => Err("must be a duration such as 1h or 30days".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    const LIMIT: Duration = Duration::from_hours(24);
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LIMIT => Ok(duration),
        Ok(_) => Err("must be at most 24h".to_owned()),
        Err(_) => Err("must be a duration such as 30s or 5m".to_owned()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if interval >= Duration::from_millis(10) => Ok(interval),
        _ => Err("must be at least 10ms".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("must be a whole number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_may_be_left_out() {
        for args in [vec!["breathing-room"], vec!["breathing-room", "serve"]] {
            let cli = Cli::try_parse_from(args.into_iter().chain(["--listen", "127.0.0.1:1"])).unwrap();
            assert!(matches!(cli.into_command(), Command::Serve(settings) if settings.listen.port() == 1));
        }
    }

    #[test]
    fn a_wrong_value_is_named_in_one_line() {
        for (flag, value) in [
            ("--listen", "here"),
            ("--flush-interval", "soon"),
            ("--flush-interval", "0s"),
            ("--leave-grace", "25h"),
            ("--queue-limit", "0"),
            ("--queue-bytes", "64MB"),
            ("--retention", "400d"),
            ("--message-rate", "0"),
            ("--client-ip-header", "no header"),
            ("--client-ip-header", "Cookie"),
            ("--public-url", "hub.example.org"),
            ("--moods", "Calm"),
            ("--dashboard", "friends"),
            ("--public-props", "plan,"),
            ("--frame-ancestors", "example.org"),
            ("--allowed-origins", "example.org"),
        ] {
            let error = Cli::try_parse_from(["breathing-room", flag, value]).unwrap_err().to_string();
            assert!(error.lines().next().unwrap().contains(flag), "{error}");
        }
        for (command, flag, value) in [
            ("export", "--from", "yesterday"),
            ("export", "--room", "The Lobby"),
            ("export", "--format", "xml"),
            ("import", "--field", "user_id"),
            ("import", "--field", "user=user_id"),
            ("import", "--kind", "sessions"),
            ("token", "--visitor", "a b"),
            ("token", "--expires", "0s"),
        ] {
            let error =
                Cli::try_parse_from(["breathing-room", command, flag, value]).unwrap_err().to_string();
            assert!(error.lines().next().unwrap().contains(flag), "{error}");
        }
    }
}
