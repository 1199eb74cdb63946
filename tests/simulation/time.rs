//! Time that stands still until it is moved, while SQLite works in its own threads.
//!
//! Everything runs on one thread, with tokio's clock paused. A paused clock jumps to the next timer as soon as
//! nothing is left to do, which sqlx would take for a database that does not answer; a blocking task that
//! runs keeps it from that (see `tokio::time::pause`). The same task is a pulse in real time, by which
//! whoever waits for something else than time finds out that it does not come.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use breathing_room::config::Clock;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::{spawn_blocking, yield_now};

use super::model::Millis;

/// How long, in real time, anything may take that is not to do with time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the pulse beats.
const BEAT: Duration = Duration::from_millis(1);

/// Turns of the runtime after which everything is done that was to do: each polls every task that was woken, and
/// then the sockets and the timers. Six were enough for 500 stories.
const TURNS: usize = 8;

/// A runtime in which time stands still.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

/// Lets everything happen that can happen now.
pub async fn settle() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

/// Moves both clocks at once. What was waiting for it happens next.
pub async fn pass(clock: &Clock, millis: Millis) {
    let by = Duration::from_millis(millis);
    clock.advance(by);
    tokio::time::advance(by).await;
}

/// Beats in real time until it is dropped, and keeps the paused clock where it is.
#[derive(Debug)]
pub struct Pulse {
    beat: Arc<Notify>,
    _stops_when_dropped: Sender<()>,
}

impl Pulse {
    pub fn start() -> Self {
        let (sender, stopped) = channel();
        let beat = Arc::new(Notify::new());
        let beating = Arc::clone(&beat);
        spawn_blocking(move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                beating.notify_waiters();
            }
        });
        Self { beat, _stops_when_dropped: sender }
    }

    /// Waits until it is so, without moving time.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "in vain waited for {what}");
            self.beat.notified().await;
        }
    }

    /// What comes of this, without moving time.
    pub async fn in_time<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        tokio::select! {
            result = future => result,
            () = self.until(what, || false) => unreachable!("it waits for ever"),
        }
    }
}
