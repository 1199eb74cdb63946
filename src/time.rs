//! The clock: wall time for stored data, monotonic time for durations.
//!
//! Timers (publish windows, graces, intervals) use tokio's clock. This clock is for measurements, so that tests can set
//! it without an effect on the timers that sqlx needs. The only timer on it is the end of a minute.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::protocol::Time;

/// A minute, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// Returns a duration in whole milliseconds, the unit of all interfaces.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A wall clock and a monotonic clock. Cloning shares the clock.
#[derive(Debug, Clone)]
pub struct Clock(ClockSource);

#[derive(Debug, Clone)]
enum ClockSource {
    System {
        started: Instant,
    },
    /// With the elapsed milliseconds in a channel, which wakes the waiting tasks.
    Manual {
        started: Time,
        elapsed_ms: watch::Sender<u64>,
    },
}

impl Clock {
    /// Returns the machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self(ClockSource::System { started: Instant::now() })
    }

    /// Returns a clock that only [`advance`](Self::advance) moves. For tests.
    #[must_use]
    pub fn manual(started: Time) -> Self {
        Self(ClockSource::Manual { started, elapsed_ms: watch::Sender::default() })
    }

    /// Advances a manual clock by whole milliseconds. Has no effect on the system's clock.
    pub fn advance(&self, by: Duration) {
        if let ClockSource::Manual { elapsed_ms, .. } = &self.0 {
            elapsed_ms.send_modify(|elapsed| *elapsed += millis(by));
        }
    }

    /// Returns the wall time since the Unix epoch, which may jump, as precisely as the clock has it: to order what
    /// happens within a millisecond.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the clock that all other code uses")]
    pub(crate) fn since_epoch(&self) -> Duration {
        match &self.0 {
            ClockSource::System { .. } => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            ClockSource::Manual { started, elapsed_ms } => {
                Duration::from_millis(started.plus(*elapsed_ms.borrow()).millis())
            }
        }
    }

    /// Returns the wall time in whole milliseconds, which may jump: only for stored or displayed times.
    #[must_use]
    pub fn wall(&self) -> Time {
        Time::from_millis(millis(self.since_epoch()))
    }

    /// Returns the monotonic time since the clock was created: for durations.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            ClockSource::System { started } => started.elapsed(),
            ClockSource::Manual { elapsed_ms, .. } => Duration::from_millis(*elapsed_ms.borrow()),
        }
    }

    /// Waits until the wall time is in another minute than `begun`. It detects a jump of the wall clock within a minute.
    pub async fn minute_ends(&self, begun: Time) {
        let minute = |time: Time| time.millis() / MINUTE_MS;
        match &self.0 {
            ClockSource::System { .. } => {
                let mut now = self.wall();
                while minute(now) == minute(begun) {
                    sleep(Duration::from_millis(MINUTE_MS - now.millis() % MINUTE_MS)).await;
                    now = self.wall();
                }
            }
            ClockSource::Manual { started, elapsed_ms } => {
                let has_ended = |elapsed: &u64| minute(started.plus(*elapsed)) != minute(begun);
                // No error: this clock has the sender.
                let _ = elapsed_ms.subscribe().wait_for(has_ended).await;
            }
        }
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.elapsed()
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
    async fn minute_ends_when_the_manual_clock_reaches_it() {
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
        clock.minute_ends(begun).await; // still ended
    }

    #[tokio::test]
    async fn minute_far_in_the_past_or_future_ends_at_once() {
        let hour = 3_600_000;
        let now = Clock::system().wall();
        for begun in [now.minus(hour), now.plus(hour)] {
            Clock::system().minute_ends(begun).await;
        }
    }
}
