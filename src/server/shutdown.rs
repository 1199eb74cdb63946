//! Graceful shutdown: ends each part when nothing can come to it any more.
//!
//! In this order: sessions, connections and their requests, the journal with its last presence samples and its last flush, holds,
//! the database.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::{ServeError, Server};
use crate::http::state::LiveState;
use crate::protocol::CloseCode;
use crate::session::samples;
use crate::transport::accept::Acceptor;

/// The time over which the close frames are spread, so that clients do not come back all at once.
const CLOSE_SPREAD: Duration = Duration::from_secs(2);

/// The time from the signal until sessions that have not ended are aborted.
const SESSIONS_DEADLINE: Duration = Duration::from_secs(6);

/// How long an aborted session has to end.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The time from the signal until everything has ended.
const DEADLINE: Duration = Duration::from_millis(9_500);

/// Ends the hub in order, and its connections, where they are its own.
/// Errors: the last flush did not succeed in time.
pub(super) async fn shut_down(server: Server, acceptors: Vec<Acceptor>) -> Result<(), ServeError> {
    let Server {
        app, mount, holds, node, flush, maintenance, background, stats_refresh, lock: _lock, ..
    } = server;
    let signalled = Instant::now();
    let live = &app.live;
    if !holds.seat_hold.is_zero() {
        live.context.registry.begin_restart();
    }
    info!(sockets = live.sockets.len(), "shutting down");
    // The hub still accepts connections, and answers a request for a socket with 503 and Retry-After.
    end_sessions(live, signalled + SESSIONS_DEADLINE).await;
    for acceptor in acceptors {
        acceptor.drain().await;
    }
    mount.close();
    // A socket may have been opened in the last moment.
    abort_sessions(live).await;
    // Both have handles of the journal.
    drop(background);
    drop(stats_refresh);
    samples::take(&live.context);
    let present = holds.at_stop();
    if let Some(node) = node {
        node.leave().await;
    }

    // The journal ends with its last handle, and the flush task with the journal. The maintenance task ends with its last
    // handle too, and drops what it does.
    let (store, pending) = (app.operate.store.clone(), app.live.context.journal.status().pending());
    drop(app);
    let flush_task = flush.abort_handle();
    if timeout_at(signalled + DEADLINE, flush).await.is_err() {
        flush_task.abort(); // it would retry forever
        return Err(ServeError::Unflushed(pending));
    }
    let _ = timeout_at(signalled + DEADLINE, maintenance).await;
    if timeout_at(signalled + DEADLINE, holds.save(present)).await.is_err() {
        warn!(
            "the shutdown deadline passed before the holds were saved: the next start does not know who was present"
        );
    }
    match timeout_at(signalled + DEADLINE, store.end_run()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "cannot store that this run ended in order"),
        Err(_) => warn!("the shutdown deadline passed before it was stored that this run ended in order"),
    }
    // Readers may still be busy; everything is on disk either way.
    let _ = timeout_at(signalled + DEADLINE, store.close()).await;
    info!(took = ?signalled.elapsed(), "stopped");
    Ok(())
}

async fn end_sessions(live: &LiveState, deadline: Instant) {
    live.sessions.close();
    let closed = async {
        live.sockets.close_all(CloseCode::Restarting, CLOSE_SPREAD).await;
        live.sessions.wait().await;
    };
    let _ = timeout_at(deadline, closed).await;
    abort_sessions(live).await;
}

/// Aborts the sessions that have not ended.
async fn abort_sessions(live: &LiveState) {
    if !live.sessions.is_empty() {
        warn!(sockets = live.sockets.len(), "aborting sockets that did not close in time");
        live.sockets.abort_all();
        let _ = timeout(ABORT_TIMEOUT, live.sessions.wait()).await;
    }
}
