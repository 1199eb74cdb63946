//! The server: opens all parts of a hub, serves, and shuts down gracefully.
//!
//! [`open`] builds the parts, [`background`] runs beside the sessions, [`shutdown`] ends everything in order, and [`holds`]
//! brings presence over a restart.

mod background;
mod holds;
mod mount;
mod open;
mod shutdown;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::auth::{BadKeys, ShortToken};
use crate::cluster::BadCluster;
use crate::cluster::node::Running;
use crate::config::Config;
use crate::history::store::{DatabaseLock, OpenError, ReadError};
use crate::http::routes::{private_router, router};
use crate::http::state::App;
use crate::transport::accept::{AcceptConfig, Acceptor};
use holds::HoldStore;
use mount::Mount;

/// The hub could not start, or not shut down well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The position in the log cannot be read.
    #[error(transparent)]
    Position(#[from] ReadError),
    /// The admin token cannot be used.
    #[error(transparent)]
    AdminToken(#[from] ShortToken),
    /// The keys of visitor tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] BadKeys),
    /// The settings of the cluster cannot be used.
    #[error(transparent)]
    Cluster(#[from] BadCluster),
    /// The listener has no address, or does not accept its socket options.
    #[error("cannot use the listening socket: {0}")]
    Listener(io::Error),
    /// The private address for metrics cannot be used.
    #[error("cannot listen on METRICS_LISTEN {0}: {1}")]
    Metrics(SocketAddr, io::Error),
    /// A task that the hub needs panicked, so the hub shut down. What was acknowledged is committed.
    #[error("a task of the hub panicked and the hub shut down (its log has the reason): start it again")]
    Panicked,
    /// The last flush did not succeed in time.
    #[error("{0} events could not be written to the database before the shutdown deadline")]
    Unflushed(usize),
}

/// A hub whose database is open, ready to serve.
///
/// Dropping it, or the future of [`serve`](Self::serve), stops the hub at once and without a flush: sockets end without a
/// close frame, and events that are not committed are lost. To shut down gracefully, resolve the `shutdown` future.
#[derive(Debug)]
pub struct Server {
    app: App,
    accept: AcceptConfig,
    mount: Mount,
    /// At the private address for metrics, if there is one.
    metrics: Option<TcpListener>,
    holds: Arc<HoldStore>,
    node: Option<Running>,
    flush: JoinHandle<()>,
    maintenance: JoinHandle<()>,
    background: AbortOnDropHandle<()>,
    stats_refresh: AbortOnDropHandle<()>,
    /// Keeps other hubs from the database until everything has ended.
    lock: DatabaseLock,
}

/// Serves on `listener` until `shutdown` is ready, then shuts down within 10 s.
///
/// # Errors
/// The database cannot be used, or events could not be written at the end.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Server::open(config).await?.serve(listener, shutdown).await
}

impl Server {
    /// Opens the database and builds all parts.
    ///
    /// # Errors
    /// The database, the admin token or the keys of visitor tokens cannot be used.
    pub async fn open(config: Config) -> Result<Self, ServeError> {
        // In a box: with a cluster it has 23 KB, which each caller would have on its stack.
        Box::pin(open::open(config)).await
    }

    /// Serves on `listener` until `shutdown` is ready, then shuts down within 10 s.
    ///
    /// # Errors
    /// Events could not be written at the end, or a task of the hub panicked. What was acknowledged is committed.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let service = TowerToHyperService::new(router(self.app.clone()));
        let acceptor =
            Acceptor::start(listener, service, self.accept.clone()).map_err(ServeError::Listener)?;
        self.run_until(shutdown, vec![acceptor]).await
    }

    /// The routes of the hub, for the server of another program: `app.nest("/hub", server.router())`.
    ///
    /// They answer while [`run`](Self::run) does, and 503 afterwards. The other server needs:
    ///
    /// - axum's [`ConnectInfo`] of a `SocketAddr`, for the rate limits by address;
    /// - plain TCP connections, for sockets: hyper's, or with the feature `embed` those of [`axum::serve`](fn@axum::serve);
    /// - limits of its own for connections and slow requests, which [`serve`](Self::serve) has.
    ///
    /// The pages need the root path.
    ///
    /// [`ConnectInfo`]: axum::extract::ConnectInfo
    pub fn router(&self) -> Router {
        self.mount.router()
    }

    /// Runs the hub behind its [`router`](Self::router) until `shutdown` is ready, then shuts down within 10 s.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        self.run_until(shutdown, Vec::new()).await
    }

    async fn run_until(
        mut self,
        shutdown: impl Future<Output = ()>,
        mut acceptors: Vec<Acceptor>,
    ) -> Result<(), ServeError> {
        if let Some(listener) = self.metrics.take() {
            let service = TowerToHyperService::new(private_router(self.app.clone()));
            let acceptor = Acceptor::start(listener, service, self.accept.clone());
            acceptors.push(acceptor.map_err(ServeError::Listener)?);
        }
        let panics = self.accept.metrics.panics.clone();
        let has_panicked = tokio::select! {
            () = shutdown => false,
            () = panics.task_panicked() => true,
        };
        shutdown::shut_down(self, acceptors).await?;
        if has_panicked { Err(ServeError::Panicked) } else { Ok(()) }
    }

    /// All rooms, for the simulation.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn registry(&self) -> &Arc<crate::presence::Registry> {
        &self.app.live.context.registry
    }

    /// The pending events, for the simulation.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn journal(&self) -> crate::history::journal::JournalMonitor {
        self.app.events.context.journal.monitor()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::StreamExt;
    use tokio_tungstenite::connect_async;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::history;
    use crate::transport::accept::listen;

    #[tokio::test]
    async fn a_hub_that_lost_a_part_stops_in_order_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let database_url = format!("sqlite://{}/hub.db", folder.path().display());
        let history = history::Config { database_url, ..history::Config::default() };
        let server = Server::open(Config { history, ..Config::default() }).await.unwrap();
        let panics = server.accept.metrics.panics.clone();
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(server.serve(listener, pending()));
        let (mut ann, _) = connect_async(format!("ws://{address}/rooms/lobby/socket")).await.unwrap();
        ann.next().await.unwrap().unwrap();
        drop(panics.spawn(async { panic!("a test") }));
        let end = loop {
            if let Message::Close(frame) = ann.next().await.unwrap().unwrap() {
                break frame.unwrap();
            }
        };
        assert_eq!(u16::from(end.code), 1012, "people come back to the next hub");
        assert!(matches!(serving.await.unwrap(), Err(ServeError::Panicked)));
    }
}
