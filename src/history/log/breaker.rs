//! The circuit breaker: whether messages go to the log now.
//!
//! One failure opens it. Some time later, or when a message of the log is read, one message may try again (half-open):
//! its success closes the breaker, and its failure doubles that time. Pure: the caller passes the monotonic time.

use std::time::Duration;

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};
use utoipa::ToSchema;

/// The time from the first failure to the first try; it doubles with each further failure.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest time between two tries.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// What the breaker does: the label `state` of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum BreakerState {
    /// Messages go to the log.
    Closed,
    /// The log is away: batches are committed to the file and to the outbox.
    Open,
    /// One message tries whether the log is back.
    HalfOpen,
}

/// A circuit breaker.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: BreakerState,
    /// From when on a message may try again, while it is open.
    retry_at: Duration,
    /// The time from the last failure to the try.
    delay: Duration,
}

impl Breaker {
    /// A closed one.
    pub(crate) fn new() -> Self {
        Self { state: BreakerState::Closed, retry_at: Duration::ZERO, delay: RETRY_MIN }
    }

    /// What it does.
    pub(crate) fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether a try is due that would close it.
    pub(crate) fn is_try_due(&self, now: Duration) -> bool {
        self.state == BreakerState::Open && now >= self.retry_at
    }

    /// Begins the try that is due.
    pub(crate) fn begin_try(&mut self) {
        self.state = BreakerState::HalfOpen;
    }

    /// A message was stored.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// A message of the log was read: the log may be back, so that a try is due.
    pub(crate) fn was_read(&mut self, now: Duration) {
        if self.state == BreakerState::Open {
            self.retry_at = self.retry_at.min(now);
        }
    }

    /// A message was not stored in time. Messages that were sent before the breaker opened change nothing.
    pub(crate) fn failed(&mut self, now: Duration) {
        match self.state {
            BreakerState::Open => return,
            BreakerState::Closed => self.delay = RETRY_MIN,
            BreakerState::HalfOpen => self.delay = (self.delay * 2).min(RETRY_MAX),
        }
        (self.state, self.retry_at) = (BreakerState::Open, now + self.delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failure_opens_it_and_one_success_closes_it() {
        let mut breaker = Breaker::new();
        assert_eq!((breaker.state(), breaker.is_try_due(seconds(9))), (BreakerState::Closed, false));
        breaker.failed(seconds(10));
        assert_eq!((breaker.state(), breaker.is_try_due(seconds(10))), (BreakerState::Open, false));
        assert!(breaker.is_try_due(seconds(11)));
        breaker.begin_try();
        assert_eq!((breaker.state(), breaker.is_try_due(seconds(99))), (BreakerState::HalfOpen, false));
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn tries_are_1_s_apart_and_then_twice_as_long_up_to_15_s() {
        let (mut breaker, mut now, mut delays) = (Breaker::new(), seconds(0), Vec::new());
        breaker.failed(now);
        for _ in 0..6 {
            let failed = now;
            while !breaker.is_try_due(now) {
                now += Duration::from_millis(100);
            }
            delays.push(now.saturating_sub(failed).as_secs());
            breaker.begin_try();
            breaker.failed(now);
        }
        assert_eq!(delays, [1, 2, 4, 8, 15, 15]);
        // After a success it begins again with 1 s.
        breaker.succeeded();
        breaker.failed(now);
        assert!(!breaker.is_try_due(now) && breaker.is_try_due(now + seconds(1)));
    }

    #[test]
    fn message_that_is_read_makes_a_try_due() {
        let mut breaker = Breaker::new();
        breaker.was_read(seconds(9));
        breaker.failed(seconds(10));
        breaker.was_read(seconds(10));
        assert!(breaker.is_try_due(seconds(10)));
        // It says nothing about the try that is under way.
        breaker.begin_try();
        breaker.was_read(seconds(11));
        breaker.failed(seconds(12));
        assert!(!breaker.is_try_due(seconds(13)) && breaker.is_try_due(seconds(14)));
    }

    #[test]
    fn messages_that_were_under_way_do_not_move_the_next_try() {
        let mut breaker = Breaker::new();
        breaker.failed(seconds(10));
        breaker.failed(seconds(11));
        assert!(breaker.is_try_due(seconds(11)));
    }
}
