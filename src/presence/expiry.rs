//! Ends holds at their deadlines: one task for each hub.
//!
//! It sleeps until the first deadline, and wakes up when a new hold ends before all others.

use std::ops::ControlFlow;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::hold::FAR;
use super::registry::Registry;

/// Holds that are ended between two yields.
const CHUNK: usize = 64;

/// Ends each hold at its deadline. Never returns.
pub(crate) async fn run(registry: &Registry) {
    let earlier = registry.earlier_deadline();
    loop {
        let next = expire_due(registry).await.unwrap_or_else(|| Instant::now() + FAR);
        tokio::select! {
            () = sleep_until(next) => {}
            () = earlier.notified() => {}
        }
    }
}

/// Ends all holds whose deadline has passed, and returns the next deadline.
pub(crate) async fn expire_due(registry: &Registry) -> Option<Instant> {
    let mut ended = 0;
    loop {
        match registry.expire_next(Instant::now()) {
            ControlFlow::Continue(()) => ended += 1,
            ControlFlow::Break(next) => return next,
        }
        if ended % CHUNK == 0 {
            yield_now().await;
        }
    }
}
