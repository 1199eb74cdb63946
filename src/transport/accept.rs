//! Accepting: takes connections in, for as long as there are descriptors, and lets them go.
//!
//! Nothing that goes wrong with one connection, or with accepting, keeps the next one out.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::{FutureExt, TryFutureExt};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::debug;

use super::descriptors::{AcceptErrors, FULL_RESPONSE, TOO_MANY_RESPONSE, reject};
use super::limits::LimitExceeded;
use super::sockets::{ConnectionPermit, Sockets};
use crate::panics::Scope;
use crate::rejections::Limit;
use crate::transport::metrics::TransportMetrics;

/// Connections that may wait to be accepted. Beyond it the kernel drops them, and peers try again after
/// a second; the system's own limit (`net.core.somaxconn`) may be lower.
const BACKLOG: u32 = 4096;

/// How long a peer has to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest request head, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// What the kernel may keep unsent per socket: a stalled client costs little and is noticed.
const SEND_BUFFER: usize = 32 * 1024;

/// The kernel ends whoever takes nothing so much later than the sweep would, which counts whom it ends.
#[cfg(target_os = "linux")]
const USER_TIMEOUT_MARGIN: Duration = Duration::from_secs(2);

/// After so many requests in a row that were answered with 429 a connection is closed.
const REJECTED_LIMIT: u32 = 10;

/// How long a running request has to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The address of a request's connection: an extension of every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub IpAddr);

/// Binds a listener that can take a storm: everybody who comes back after a restart comes at once.
///
/// # Errors
/// The address is taken, or not one of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A hub that is started again must not wait for the sockets of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How many may come in, and what is counted of those who may not.
#[derive(Debug, Clone)]
pub struct AcceptConfig {
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
    /// Counts what could not be accepted.
    pub errors: Counter,
    /// Counts rejected connections and panics.
    pub metrics: TransportMetrics,
}

impl AcceptConfig {
    fn permit(&self, peer: IpAddr) -> Result<Option<ConnectionPermit>, LimitExceeded> {
        if self.has_proxy { Ok(None) } else { self.sockets.admit_connection(peer.into()).map(Some) }
    }
}

/// What answers requests.
pub(crate) trait ConnectionService:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + Unpin>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> ConnectionService for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + Unpin>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Sets what all connections inherit.
fn set_options(listener: &TcpListener, stall_limit: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // Small messages must not wait for each other.
    socket.set_tcp_nodelay(true)?;
    // The sweep looks after sockets only. The kernel ends whoever asks for something else and does not take
    // it, and what it still keeps for sockets that were cut off.
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from((stall_limit + USER_TIMEOUT_MARGIN).as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(listener, millis)?;
        super::defer::defer_accept(listener)?;
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
    /// Takes connections in from now on, and has `service` answer what is asked on them.
    ///
    /// # Errors
    /// The listener takes no options.
    pub fn start<S: ConnectionService>(
        listener: TcpListener,
        service: S,
        config: AcceptConfig,
    ) -> io::Result<Self> {
        set_options(&listener, config.stall_limit)?;
        let (connections, stop, panics) =
            (config.connections.clone(), CancellationToken::new(), config.metrics.panics.clone());
        let accept = panics.spawn(accept(listener, service, config, stop.clone()));
        Ok(Self { accept: AbortOnDropHandle::new(accept), connections, stop })
    }

    /// Accepts no more, and lets running requests finish, for a moment.
    pub(crate) async fn drain(self) {
        drop(self.accept);
        self.stop.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

/// Accepts connections, whatever happens.
async fn accept(
    listener: TcpListener,
    service: impl ConnectionService,
    config: AcceptConfig,
    stop: CancellationToken,
) {
    let mut errors = AcceptErrors::new(config.errors.clone());
    let http = http();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                errors.back_off(&error).await;
                continue;
            }
        };
        if config.connections.len() + config.sockets.len() >= config.limit {
            config.metrics.rejections.limited(Limit::Descriptors);
            reject(stream, FULL_RESPONSE);
            continue;
        }
        let Ok(permit) = config.permit(peer.ip()) else {
            reject(stream, TOO_MANY_RESPONSE);
            continue;
        };
        let connection = connection(http.clone(), stream, peer.ip(), service.clone(), stop.clone());
        let connection = config.metrics.panics.catch(Scope::Request, connection);
        drop(config.connections.spawn(connection.map(move |_| drop(permit))));
    }
}

/// How HTTP is spoken.
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEAD_LIMIT);
    http
}

/// Closes a connection whose requests were answered with 429 so often in a row: whoever goes on regardless is not
/// heard for nothing.
fn close_after_many(rejected: &AtomicU32, mut response: Response) -> Response {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        rejected.store(0, Ordering::Relaxed);
    } else if rejected.fetch_add(1, Ordering::Relaxed) + 1 >= REJECTED_LIMIT {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Serves one connection until it ends or is a socket's, or until `stop` and then for as long as its running
/// request.
async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    peer: IpAddr,
    service: impl ConnectionService,
    stop: CancellationToken,
) {
    let rejected = AtomicU32::new(0);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        service.call(request).map_ok(|response| close_after_many(&rejected, response))
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Ok(ended),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN_TIMEOUT, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection ended early"),
        Err(_) => debug!("a request was not answered before the end"),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::net::Ipv4Addr;

    use axum::body::Body;
    use axum::response::IntoResponse;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::yield_now;
    use tokio::time::sleep;

    use super::super::{Config, Handshake, Socket};
    use super::*;
    use crate::panics::Panics;
    use crate::rejections::Rejections;
    use crate::time::Clock;

    #[tokio::test(start_paused = true)]
    async fn a_socket_has_a_place_when_its_peer_has_taken_all_that_comes_before() {
        const BEFORE: &str = "GET /before HTTP/1.1\r\nhost: hub\r\n\r\n";
        const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let sockets = Sockets::new(
            &Config::default(),
            Clock::system(),
            TransportMetrics::register(Rejections::register(), Panics::register()),
        );
        let (sessions, admitter) = (TaskTracker::new(), Arc::clone(&sockets));
        let service = service_fn(move |request: Request<Incoming>| {
            ready(Ok(if request.uri().path() == "/before" {
                Body::from(vec![b' '; 64 * 1024]).into_response()
            } else {
                let handshake = Handshake::check(&request).unwrap();
                let permit = admitter.admit(Ipv4Addr::LOCALHOST.into()).unwrap();
                Socket::open(&sessions, permit, handshake, async |_open: Socket| pending().await)
            }))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        tokio::spawn(connection(http(), stream, address.ip(), service, CancellationToken::new()));
        // The answers are more than the kernel keeps for a peer that reads nothing.
        peer.write_all((BEFORE.repeat(200) + UPGRADE).as_bytes()).await.unwrap();
        sleep(Duration::from_secs(1)).await; // this clock stands until nothing else is to be done
        assert_eq!(sockets.len(), 0);
        let mut buffer = vec![0; 64 * 1024];
        while sockets.len() == 0 {
            assert_ne!(peer.read(&mut buffer).await.unwrap(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn place_of_a_socket_whose_answer_is_not_taken_is_free_after_five_seconds() {
        const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let sockets = Sockets::new(
            &Config::default(),
            Clock::system(),
            TransportMetrics::register(Rejections::register(), Panics::register()),
        );
        let (sessions, admitter) = (TaskTracker::new(), Arc::clone(&sockets));
        let service = service_fn(move |request: Request<Incoming>| {
            let handshake = Handshake::check(&request).unwrap();
            let permit = admitter.admit(Ipv4Addr::LOCALHOST.into()).unwrap();
            ready(Ok(Socket::open(&sessions, permit, handshake, async |_open: Socket| pending().await)))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        // The peer reads nothing, and the kernel has no room for an answer.
        stream.writable().await.unwrap();
        while stream.try_write(&[0; 8 * 1024]).is_ok() {}
        tokio::spawn(connection(http(), stream, address.ip(), service, CancellationToken::new()));
        peer.write_all(UPGRADE.as_bytes()).await.unwrap();
        while sockets.len() == 0 {
            yield_now().await;
        }
        sleep(Duration::from_millis(4_900)).await;
        assert_eq!(sockets.len(), 1);
        sleep(Duration::from_millis(200)).await;
        assert_eq!(sockets.len(), 0);
        drop(peer);
    }

    #[tokio::test]
    async fn connections_inherit_what_the_listener_has() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        set_options(&listener, Duration::from_secs(30)).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(b"G").await.unwrap();
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
