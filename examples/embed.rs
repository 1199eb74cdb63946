//! Embed: the hub inside the server of another axum program, under `/hub`.
//!
//! ```sh
//! cargo run --example embed
//! curl http://127.0.0.1:8080/hub/health
//! ```
//!
//! In a program of your own, take the crate with `default-features = false, features = ["embed"]`. The program keeps `panic = "unwind"`, which is the default: with `abort`, a panic in one session ends the process.

#![expect(clippy::print_stderr, reason = "a program reports its errors")]

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use breathing_room::{Config, ServeError, Server};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Ok(run(listener, Config::default(), stop).await?)
}

/// Serves the program's own routes and the hub's until `stop` is ready.
///
/// # Errors
/// Returns an error if the hub cannot start, or cannot write its last events.
pub async fn run(
    listener: TcpListener,
    config: Config,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let hub = Server::open(config).await?;
    let app = Router::new().route("/", get(async || "the program's own page")).nest("/hub", hub.router());
    // The hub's rate limits go by the peer's address.
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let (stop_server, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        let _ = stopped.await;
    });
    let server = tokio::spawn(async move { server.await });
    // The hub closes its sockets and writes its last events; then the server has nothing left to wait for.
    let result = hub.run(stop).await;
    drop(stop_server);
    let outcome: io::Result<()> = server.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    if let Err(error) = outcome {
        eprintln!("the server ended with an error: {error}");
    }
    result
}
