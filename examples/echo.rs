//! An echo server on the hub's transport, without rooms.
//!
//! It accepts, upgrades, reads, limits and writes as the hub does, and sends each message back. Autobahn's fuzzing client
//! (`make autobahn`) and `tests/hub/echo.rs` test it.
//!
//! ```sh
//! LISTEN=127.0.0.1:9001 cargo run --release --example echo
//! ```

#![expect(clippy::print_stdout, reason = "it prints its address")]

use std::future::{poll_fn, ready};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use breathing_room::config::{Clock, TransportConfig};
use breathing_room::internals::{
    AcceptConfig, Acceptor, ApiError, Frame, Handshake, Panics, Rejections, Socket, SocketInput, Sockets,
    TransportMetrics, stall_limit, sweep,
};
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// The longest message of Autobahn's cases.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::var("LISTEN").as_deref().unwrap_or("127.0.0.1:9001").parse()?;
    let listener = breathing_room::listen(address)?;
    println!("echoes on ws://{}/", listener.local_addr()?);
    serve(listener).await?;
    Ok(())
}

/// Sends back each message, on any path, for as long as it is polled.
///
/// # Errors
/// Returns an error if the listener cannot be used.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let mut config = TransportConfig::default();
    config.message_limit = MESSAGE_LIMIT;
    config.limits = None;
    config.max_bytes_in_flight = usize::MAX;
    let clock = Clock::system();
    let transport_metrics = TransportMetrics::register(Rejections::register(), Panics::register());
    let sockets = Sockets::new(&config, clock.clone(), transport_metrics.clone());
    let accept = AcceptConfig {
        limit: usize::MAX,
        has_proxy: false,
        stall_limit: stall_limit(config.ping_interval),
        sockets: Arc::clone(&sockets),
        connections: TaskTracker::new(),
        errors: metrics::Counter::noop(),
        metrics: transport_metrics,
    };
    let sessions = TaskTracker::new();
    let service = service_fn({
        let sockets = Arc::clone(&sockets);
        move |request| {
            let handshake = Handshake::check(&request).map_err(ApiError::from);
            let opened: Result<Response, ApiError> = handshake.and_then(|handshake| {
                let admission = sockets.admit(Ipv4Addr::UNSPECIFIED.into())?;
                Ok(Socket::open(&sessions, admission, handshake, echo))
            });
            ready(Ok(opened.into_response()))
        }
    });
    let _acceptor = Acceptor::start(listener, service, accept)?;
    sweep::run(&sockets, config.ping_interval, &clock).await;
    Ok(())
}

async fn echo(mut socket: Socket) {
    loop {
        let back = match poll_fn(|cx| socket.poll_next(cx)).await {
            SocketInput::Text(text) | SocketInput::TooFast(text) => Frame::text(text),
            SocketInput::Binary(bytes) => Frame::binary(bytes),
            SocketInput::Ended(_) => break,
        };
        socket.writer().send(&back);
    }
    poll_fn(|cx| socket.poll_finish(cx)).await;
}
