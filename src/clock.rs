//! The two clocks: wall time for what is stored, monotonic time for durations.
//!
//! Timers (windows, graces, intervals) run on tokio's clock; this one is for what is *measured*, so
//! that tests can set it without touching the timers that sqlx needs. It imports nothing of ours but
//! the type for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::wire::Time;

/// A duration in whole milliseconds, as everything outside is told.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Tells both times. Cloning shares the clock.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System { started: Instant },
    Manual { started: Time, elapsed_ms: Arc<AtomicU64> },
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands still until [`advance`](Self::advance) moves it. For tests.
    #[must_use]
    pub fn manual(started: Time) -> Self {
        Self(Source::Manual { started, elapsed_ms: Arc::default() })
    }

    /// Moves a manual clock on by whole milliseconds. The system's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { elapsed_ms, .. } = &self.0 {
            elapsed_ms.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Wall time, which may jump: only for what is stored or shown.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else must use")]
    pub fn wall(&self) -> Time {
        match &self.0 {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Time::from_millis(millis(since))
            }
            Source::Manual { started, elapsed_ms } => started.plus(elapsed_ms.load(Ordering::SeqCst)),
        }
    }

    /// Time since the clock was made, which only rises: for durations.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual { elapsed_ms, .. } => Duration::from_millis(elapsed_ms.load(Ordering::SeqCst)),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}
