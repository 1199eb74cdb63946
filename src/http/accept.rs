//! Accepting: takes connections in, for as long as there are descriptors, and lets them go.
//!
//! Nothing that goes wrong with one connection, or with accepting, keeps the next one out.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::Counter;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::debug;

use super::descriptors::{AcceptErrors, FULL, TOO_MANY, turn_away};
use super::limits::Peer;
use crate::panics::{Panics, Part};
use crate::session::meter::{Limit, Meter};
use crate::session::{ConnectionPermit, Sockets, TooMuch, Upgradable};

/// How long a peer has to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest request head, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// What the kernel may keep unsent per socket: a stalled client costs little and is noticed.
const SEND_BUFFER: usize = 32 * 1024;

/// The kernel ends whoever takes nothing so much later than the sweep would, which counts whom it ends.
#[cfg(target_os = "linux")]
const AFTER_THE_SWEEP: Duration = Duration::from_secs(2);

/// How long a running request has to end.
const CONNECTION_END: Duration = Duration::from_secs(1);

/// How many may come in, and what is counted of those who may not.
#[derive(Debug)]
pub struct Door {
    /// The most connections, those with a socket on them included.
    pub limit: usize,
    /// Whether a proxy is in front: then all connections are the proxy's, and how many is its business.
    pub has_proxy: bool,
    /// How long somebody may take nothing of what waits for them.
    pub stall_limit: Duration,
    /// All open sockets.
    pub sockets: Arc<Sockets>,
    /// The tasks of all connections that are no sockets.
    pub connections: TaskTracker,
    /// Counts who was turned away.
    pub refusals: Meter,
    /// Counts what could not be accepted.
    pub errors: Counter,
    /// What becomes of a connection that panics, and of accepting.
    pub panics: Panics,
}

impl Door {
    fn permit(&self, peer: IpAddr) -> Result<Option<ConnectionPermit>, TooMuch> {
        if self.has_proxy { Ok(None) } else { self.sockets.connect(peer.into()).map(Some) }
    }
}

/// Sets what all connections inherit.
fn set_up(listener: &TcpListener, stall_limit: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // Small messages must not wait for each other.
    socket.set_tcp_nodelay(true)?;
    // The sweep looks after sockets only. The kernel ends whoever asks for something else and does not take
    // it, and what it still keeps for sockets that were cut off.
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from((stall_limit + AFTER_THE_SWEEP).as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(listener, millis)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stall_limit;
    Ok(())
}

/// Takes connections in and lets them go.
#[derive(Debug)]
pub struct Acceptor {
    /// A task of its own, so that it runs on the workers and not on the thread that waits for the end.
    accept: AbortOnDropHandle<()>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Acceptor {
    /// Takes connections in from now on, and has the router answer what is asked on them.
    ///
    /// # Errors
    /// The listener takes no options.
    pub fn start(listener: TcpListener, router: Router, door: Door) -> io::Result<Self> {
        set_up(&listener, door.stall_limit)?;
        let (connections, stop, panics) =
            (door.connections.clone(), CancellationToken::new(), door.panics.clone());
        let accept = panics.spawn(accept(listener, router, door, stop.clone()));
        Ok(Self { accept: AbortOnDropHandle::new(accept), connections, stop })
    }

    /// Accepts no more, and lets running requests finish, for a moment.
    pub async fn end(self) {
        drop(self.accept);
        self.stop.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

/// Accepts connections, whatever happens.
async fn accept(listener: TcpListener, router: Router, door: Door, stop: CancellationToken) {
    let mut errors = AcceptErrors::new(door.errors.clone());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                errors.wait_out(&error).await;
                continue;
            }
        };
        if door.connections.len() + door.sockets.len() >= door.limit {
            door.refusals.limited(Limit::Descriptors);
            turn_away(stream, FULL);
            continue;
        }
        let Ok(permit) = door.permit(peer.ip()) else {
            turn_away(stream, TOO_MANY);
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = connection(stream, peer.ip(), service, stop.clone());
        let connection = door.panics.catch(Part::Request, connection);
        drop(door.connections.spawn(connection.map(move |_| drop(permit))));
    }
}

/// Serves one connection until it ends, or until `stop` and then for as long as its running request.
async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    router: TowerToHyperService<Router>,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEAD_LIMIT);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request.map(Body::new))
    });
    let mut connection =
        pin!(http.serve_connection(TokioIo::new(Upgradable::from(stream)), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(CONNECTION_END, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_inherit_what_the_listener_has() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        set_up(&listener, Duration::from_secs(30)).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        // Linux doubles it, for its own needs.
        assert!(
            (SEND_BUFFER..=2 * SEND_BUFFER).contains(&SockRef::from(&stream).send_buffer_size().unwrap())
        );
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&stream).unwrap(), 32_000);
    }
}
