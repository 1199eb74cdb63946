//! The accept loop: accepts TCP connections within the limit of open files, and serves HTTP on them until they end.
//!
//! An error of one connection, or of accepting, does not stop the loop.

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

use super::descriptors::AcceptErrors;
use super::limits::LimitExceeded;
use super::rejection::{HEAD_LIMIT, Rejection};
use super::sockets::{ConnectionPermit, Sockets};
use crate::panics::PanicScope;
use crate::rejections::Limit;
use crate::transport::metrics::TransportMetrics;

/// The listen backlog. The kernel drops connections beyond it, and peers retry after a second. The system's limit
/// (`net.core.somaxconn`) may be lower.
const BACKLOG: u32 = 4096;

/// The time limit for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel's send buffer of a socket, in bytes: small, so that a stalled peer uses little memory and is detected.
const SEND_BUFFER: usize = 32 * 1024;

/// How much later than the sweep the kernel ends a stalled connection, so that the sweep can count it.
#[cfg(target_os = "linux")]
const USER_TIMEOUT_MARGIN: Duration = Duration::from_secs(2);

/// The hub closes a connection after this many responses with 429 in a row.
const REJECTED_LIMIT: u32 = 10;

/// The time limit for running requests at a graceful shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The IP address of a request's connection: an extension of every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub IpAddr);

/// Binds a listener with a backlog for a reconnect storm, in which all clients connect at once after a restart.
///
/// # Errors
/// The address is in use, or not an address of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted hub must not wait for the TIME_WAIT sockets of the previous one.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The limits and the counters of the accept loop.
#[derive(Debug, Clone)]
pub struct AcceptConfig {
    /// The most connections, including those that became sockets.
    pub limit: usize,
    /// Whether a proxy is in front. All connections are the proxy's then, and the limit for each address does not apply.
    pub has_proxy: bool,
    /// How long a peer may accept no byte of the unsent ones.
    pub stall_limit: Duration,
    /// All open sockets.
    pub sockets: Arc<Sockets>,
    /// The tasks of all connections that are not sockets.
    pub connections: TaskTracker,
    /// Counts errors of `accept(2)`.
    pub errors: Counter,
    /// Counts rejected connections and panics.
    pub metrics: TransportMetrics,
}

impl AcceptConfig {
    fn permit(&self, peer: IpAddr) -> Result<Option<ConnectionPermit>, LimitExceeded> {
        if self.has_proxy { Ok(None) } else { self.sockets.admit_connection(peer.into()).map(Some) }
    }
}

/// The service that answers the requests of a connection.
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

/// Sets the socket options that all connections inherit from the listener.
fn set_options(listener: &TcpListener, stall_limit: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // No Nagle delay for small messages.
    socket.set_tcp_nodelay(true)?;
    // The sweep checks sockets only. The kernel ends other connections whose peer does not read the response, and
    // connections that an abort left with unsent bytes.
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

/// A running accept loop.
#[derive(Debug)]
pub struct Acceptor {
    /// A task, so that it runs on the runtime's workers and not on the thread that waits for the shutdown.
    accept: AbortOnDropHandle<()>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Acceptor {
    /// Starts to accept connections. `service` answers their requests.
    ///
    /// # Errors
    /// A socket option of the listener cannot be set.
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

    /// Stops accepting, and waits until running requests are answered, up to a second.
    pub(crate) async fn drain(self) {
        drop(self.accept);
        self.stop.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

/// Accepts connections without end.
async fn accept(
    listener: TcpListener,
    service: impl ConnectionService,
    config: AcceptConfig,
    stop: CancellationToken,
) {
    let mut errors = AcceptErrors::new(config.errors.clone());
    let (too_many, full) = (Rejection::too_many(), Rejection::full());
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
            config.metrics.rejections.count_limit(Limit::Descriptors);
            full.send(stream);
            continue;
        }
        let Ok(permit) = config.permit(peer.ip()) else {
            too_many.send(stream);
            continue;
        };
        let connection = connection(http.clone(), stream, peer.ip(), service.clone(), stop.clone());
        let connection = config.metrics.panics.catch(PanicScope::Request, connection);
        drop(config.connections.spawn(connection.map(move |_| drop(permit))));
    }
}

/// The settings of HTTP/1.1.
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEAD_LIMIT);
    http
}

/// Closes the connection with this response if it is the tenth 429 in a row.
fn close_after_many(rejected: &AtomicU32, mut response: Response) -> Response {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        rejected.store(0, Ordering::Relaxed);
    } else if rejected.fetch_add(1, Ordering::Relaxed) + 1 >= REJECTED_LIMIT {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Serves one connection until it ends or becomes a socket. After `stop`, only its running request is answered.
async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    peer: IpAddr,
    service: impl ConnectionService,
    stop: CancellationToken,
) {
    let rejected = AtomicU32::new(0);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
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
        Ok(Err(error)) => debug!(%error, "a connection ended with an error"),
        Err(_) => debug!("a request was not answered in time at the shutdown: its connection is closed"),
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
    async fn upgrade_counts_as_a_socket_after_earlier_responses_are_sent() {
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
        // The responses are longer than the kernel's buffers.
        peer.write_all((BEFORE.repeat(200) + UPGRADE).as_bytes()).await.unwrap();
        sleep(Duration::from_secs(1)).await; // the paused clock advances when all tasks are idle
        assert_eq!(sockets.len(), 0);
        let mut buffer = vec![0; 64 * 1024];
        while sockets.len() == 0 {
            assert_ne!(peer.read(&mut buffer).await.unwrap(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn upgrade_whose_response_is_not_read_stops_counting_after_five_seconds() {
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
        // The peer reads nothing, and the kernel's buffers are full.
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
    async fn connections_inherit_the_options_of_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        set_options(&listener, Duration::from_secs(30)).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(b"G").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        // Linux doubles the value for its own bookkeeping.
        assert!(
            (SEND_BUFFER..=2 * SEND_BUFFER).contains(&SockRef::from(&stream).send_buffer_size().unwrap())
        );
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&stream).unwrap(), 32_000);
    }
}
