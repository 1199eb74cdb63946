//! The two clocks: wall time for what is stored, monotonic time for durations.
//!
//! Timers (windows, graces, intervals) run on tokio's clock; this one is for what is *measured*, so
//! that tests can set it without touching the timers that sqlx needs. The one thing that waits for it is
//! the end of a minute. It imports nothing of ours but the type for a moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::protocol::Time;

/// A minute, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// A duration in whole milliseconds, as everything outside is told.
#[must_use]
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Tells both times. Cloning shares the clock.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System {
        started: Instant,
    },
    /// With the milliseconds that have passed; whoever waits is told.
    Manual {
        started: Time,
        elapsed_ms: watch::Sender<u64>,
    },
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
        Self(Source::Manual { started, elapsed_ms: watch::Sender::default() })
    }

    /// Moves a manual clock on by whole milliseconds. The system's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { elapsed_ms, .. } = &self.0 {
            elapsed_ms.send_modify(|elapsed| *elapsed += millis(by));
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
            Source::Manual { started, elapsed_ms } => started.plus(*elapsed_ms.borrow()),
        }
    }

    /// Time since the clock was made, which only rises: for durations.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual { elapsed_ms, .. } => Duration::from_millis(*elapsed_ms.borrow()),
        }
    }

    /// Waits until the wall time is in another minute than `begun`: the next one, as a rule. A clock that
    /// is set anew is noticed within a minute.
    pub async fn minute_ends(&self, begun: Time) {
        let minute = |time: Time| time.millis() / MINUTE_MS;
        match &self.0 {
            Source::System { .. } => {
                let mut now = self.wall();
                while minute(now) == minute(begun) {
                    sleep(Duration::from_millis(MINUTE_MS - now.millis() % MINUTE_MS)).await;
                    now = self.wall();
                }
            }
            Source::Manual { started, elapsed_ms } => {
                let has_ended = |elapsed: &u64| minute(started.plus(*elapsed)) != minute(begun);
                // It has a sender as long as this clock lives.
                let _ = elapsed_ms.subscribe().wait_for(has_ended).await;
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_minute_ends_when_a_manual_clock_says_so() {
        let clock = Clock::manual(Time::from_millis(59_000));
        let begun = clock.wall();
        let waiting = tokio::spawn({
            let clock = clock.clone();
            async move { clock.minute_ends(begun).await }
        });
        clock.advance(Duration::from_millis(999));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        clock.advance(Duration::from_millis(1));
        waiting.await.unwrap();
        clock.minute_ends(begun).await; // and it stays over
    }

    #[tokio::test]
    async fn a_minute_of_another_time_is_over_at_once() {
        let hour = 3_600_000;
        let now = Clock::system().wall();
        for begun in [now.minus(hour), now.plus(hour)] {
            Clock::system().minute_ends(begun).await;
        }
    }
}
