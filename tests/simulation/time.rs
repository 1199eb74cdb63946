//! Manual time, while SQLite works in its own threads.
//!
//! Everything runs on one thread, with tokio's clock paused. An idle runtime advances a paused clock to the next timer,
//! which sqlx would treat as a timeout of the database. A running blocking task prevents that (see
//! `tokio::time::pause`). The same task gives ticks in real time, with which waits other than for time have a timeout.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use breathing_room::config::Clock;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::{spawn_blocking, yield_now};

use super::model::Millis;

/// The longest wait, in real time, for anything that does not depend on the clock.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The interval of the ticks in real time.
const TICK: Duration = Duration::from_millis(1);

/// Yields after which the runtime is idle: each polls all woken tasks, and then the sockets and the timers. Six were
/// enough for 500 scenarios on an idle machine; a busy one delivers packets later.
const YIELDS: usize = 24;

/// Returns a runtime with a paused clock.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

/// Runs all tasks that can make progress at the current time.
pub async fn run_until_idle() {
    for _ in 0..YIELDS {
        yield_now().await;
    }
}

/// Advances the hub's clock and tokio's clock together.
pub async fn pass(clock: &Clock, millis: Millis) {
    let by = Duration::from_millis(millis);
    clock.advance(by);
    tokio::time::advance(by).await;
}

/// Ticks in real time until it is dropped, and prevents the paused clock from advancing.
#[derive(Debug)]
pub struct RealTimeTicker {
    tick: Arc<Notify>,
    _stops_when_dropped: Sender<()>,
}

impl RealTimeTicker {
    pub fn start() -> Self {
        let (sender, stopped) = channel();
        let tick = Arc::new(Notify::new());
        let notify = Arc::clone(&tick);
        spawn_blocking(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                notify.notify_waiters();
            }
        });
        Self { tick, _stops_when_dropped: sender }
    }

    /// Waits until the condition is true, without advancing the clock.
    pub async fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < TIMEOUT, "timed out waiting for {what}");
            self.tick.notified().await;
        }
    }

    /// Awaits the future with a timeout, without advancing the clock.
    pub async fn with_timeout<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        tokio::select! {
            result = future => result,
            () = self.wait_until(what, || false) => unreachable!("the wait only panics"),
        }
    }
}
