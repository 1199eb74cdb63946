//! Accepting: takes connections in, for as long as there are descriptors, and lets them go.
//!
//! Nothing that goes wrong with one connection, or with accepting, keeps the next one out.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::debug;

use super::app::App;
use super::descriptors::{AcceptErrors, Descriptors, FULL, TOO_MANY, turn_away};
use super::limits::Peer;
use super::routes::router;
use crate::panics::Part;
use crate::session::meter::Limit;
use crate::session::{ConnectionPermit, TooMuch};

/// How long a peer has to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest request head, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// How long a running request has to end.
const CONNECTION_END: Duration = Duration::from_secs(1);

/// Takes connections in and lets them go.
#[derive(Debug)]
pub struct Acceptor {
    /// A task of its own, so that it runs on the workers and not on the thread that waits for the end.
    accept: AbortOnDropHandle<()>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Acceptor {
    /// Takes connections in from now on.
    #[must_use]
    pub fn start(listener: TcpListener, app: &Arc<App>) -> Self {
        let (connections, stop) = (app.connections.clone(), CancellationToken::new());
        let accept = accept(listener, Arc::clone(app), stop.clone());
        Self { accept: AbortOnDropHandle::new(app.meter.panics().spawn(accept)), connections, stop }
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
async fn accept(listener: TcpListener, app: Arc<App>, stop: CancellationToken) {
    let limit = app.config.descriptors.map_or(usize::MAX, Descriptors::connections);
    let router = router(Arc::clone(&app));
    let mut errors = AcceptErrors::new(app.meter.accept_errors());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                errors.wait_out(&error).await;
                continue;
            }
        };
        if app.connections.len() + app.sockets.len() >= limit {
            app.refusals.limited(Limit::Descriptors);
            turn_away(stream, FULL);
            continue;
        }
        let Ok(permit) = permit(&app, peer.ip()) else {
            turn_away(stream, TOO_MANY);
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = connection(stream, peer.ip(), service, stop.clone());
        let panics = app.meter.panics().clone();
        drop(app.connections.spawn(async move {
            panics.catch(Part::Request, connection).await;
            drop(permit);
        }));
    }
}

/// Behind a proxy all connections are the proxy's, and it is the proxy's business how many there are.
fn permit(app: &Arc<App>, peer: IpAddr) -> Result<Option<ConnectionPermit>, TooMuch> {
    let has_proxy = app.config.client_ip_header.is_some();
    if has_proxy { Ok(None) } else { app.sockets.connect(peer.into()).map(Some) }
}

/// Serves one connection until it ends, or until `stop` and then for as long as its running request.
async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    router: TowerToHyperService<axum::Router>,
    stop: CancellationToken,
) {
    // Small messages must not wait for each other. It fails only where the peer is gone.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEAD_LIMIT);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request.map(Body::new))
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
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
