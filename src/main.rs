//! The program: arguments, configuration, serve, signal.
//!
//! Wiring only: whatever can be tested lives in the library.

use std::future::ready;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use breathing_room::Server;
use breathing_room::clock::Clock;
use breathing_room::command::{self, Outcome};
use breathing_room::config::{Cli, Command, Config, LogFormat, Settings};
use breathing_room::http::Descriptors;
use breathing_room::panics;
use clap::Parser;
use clap::error::ErrorKind;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// tokio's tasks are aligned to 128 bytes, between which glibc's allocator leaves gaps: an idle socket takes a
/// sixth less with this one (`docs/benchmarks.md`).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Why the program did not do what it was asked to, for its last line.
type Failure = String;

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.into_command(),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            error.exit()
        }
        Err(error) => {
            // clap explains at length; what stands before the first blank line names the setting and its rule.
            let text = error.to_string();
            let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
            return fail(&lines.collect::<Vec<_>>().join(" "), 2);
        }
    };
    match command {
        Command::Serve(settings) => match serve(*settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => fail(&format!("error: {failure}"), 1),
        },
        Command::Check(settings) => finish(command::check(settings)),
        Command::Export(settings) => finish(command::export(settings)),
        Command::Import(settings) => finish(command::import(settings)),
        Command::Token(settings) => finish(ready(command::token(&settings, &Clock::system()))),
    }
}

/// Runs a command. 1 says that it found something wrong; 2, that it could not do its work.
#[tokio::main]
async fn finish(command: impl Future<Output = Result<Outcome, command::Failure>>) -> ExitCode {
    match command.await {
        Ok(outcome) => outcome.into(),
        Err(failure) => fail(&format!("error: {failure}"), 2),
    }
}

fn serve(settings: Settings) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| format!("cannot start any threads: {error}"))?;
    let result = runtime.block_on(run(settings));
    // A volume that hangs keeps a thread for good, but not the program.
    runtime.shutdown_background();
    result
}

async fn run(settings: Settings) -> Result<(), Failure> {
    start_logging(&settings)?;
    panics::log_all();
    let cannot_listen = |error| format!("cannot listen on {}: {error}", settings.listen);
    let signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let listener = breathing_room::listen(settings.listen).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let mut config = Config::from(settings);
    config.http.descriptors = Some(Descriptors::raise());
    let server = Server::open(config).await.map_err(|error| error.to_string())?;
    // Closed standard output is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "breathing-room is open at http://{address}/");
    server.serve(listener, signals.first()).await.map_err(|error| error.to_string())
}

fn start_logging(settings: &Settings) -> Result<(), Failure> {
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

fn fail(line: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(code)
}
