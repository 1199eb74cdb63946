//! Serializes what reads or erases all data of a visitor: one request at a time, and a rest after each.
//!
//! Such a request may take long. The others wait in a bounded line with a quota per address, so that the dashboard keeps its
//! database readers, and the flush the writer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

use super::error::ApiError;
use crate::address::Address;
use crate::quota::{Permit, Quota, Sharing};
use crate::sync::lock;

/// The most requests that run, wait, or have an answer that is still being sent. One address has at most three of them.
const LINE: u64 = 8;

/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the gate rests, for each unit of time that a request took: all of them together use a quarter of a core.
const REST: u32 = 3;

/// The longest rest: less than the timeout, so that the next in the line has its turn.
const LONGEST_REST: Duration = Duration::from_secs(4);

/// Time between two flushes for such requests.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// The gate that requests for personal data pass one by one.
#[derive(Debug)]
pub(crate) struct PersonalDataGate {
    line: Arc<Quota>,
    turn: Semaphore,
    /// The end of the rest. Held for O(1).
    rests_until: Mutex<Instant>,
    /// The time of the last flush. Held for one comparison.
    flushed: Mutex<Option<Instant>>,
}

impl PersonalDataGate {
    /// An open gate.
    pub(crate) fn new(sharing: Sharing) -> Self {
        let (line, turn) = (Arc::new(Quota::new(LINE, sharing)), Semaphore::new(1));
        Self { line, turn, rests_until: Mutex::new(Instant::now()), flushed: Mutex::default() }
    }

    /// Whether a request may flush: the last one that did is some seconds ago. Counts as a flush.
    pub(crate) fn may_flush(&self) -> bool {
        let (mut flushed, now) = (lock(&self.flushed), Instant::now());
        let may_flush = flushed.is_none_or(|flushed| now >= flushed + FLUSH_INTERVAL);
        if may_flush {
            *flushed = Some(now);
        }
        may_flush
    }

    /// Waits for the turn of a request from this address. Returns its place in the line, and the turn.
    /// Errors: the line is full, or the turn did not come in time.
    pub(crate) async fn pass(&self, address: Address) -> Result<(Permit, Turn<'_>), ApiError> {
        let place = self.line.try_acquire(address, 1).map_err(|_| ApiError::Busy)?;
        let turn = async {
            let turn = self.turn.acquire().await;
            let rests_until = *lock(&self.rests_until);
            sleep_until(rests_until).await;
            turn
        };
        match timeout(TURN_TIMEOUT, turn).await {
            Ok(Ok(permit)) => Ok((place, Turn { gate: self, began: Instant::now(), _permit: permit })),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(ApiError::Busy),
        }
    }
}

/// The turn of a request. When it is dropped, the gate rests.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    gate: &'a PersonalDataGate,
    began: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let rest = (self.began.elapsed() * REST).min(LONGEST_REST);
        *lock(&self.gate.rests_until) = Instant::now() + rest;
    }
}

/// The bytes of an answer that keeps its place in the line until all of it has been sent.
pub(super) fn body(json: Vec<u8>, place: Permit) -> Bytes {
    struct HeldBody(Vec<u8>, #[expect(dead_code, reason = "held until the bytes are dropped")] Permit);

    impl AsRef<[u8]> for HeldBody {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    Bytes::from_owner(HeldBody(json, place))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::task::Poll;

    use futures_util::poll;
    use tokio::time::advance;

    use super::*;

    fn address(last: u8) -> Address {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_flush_at_most_once_in_five_seconds() {
        let gate = PersonalDataGate::new(Sharing::Fair);
        assert!(gate.may_flush() && !gate.may_flush());
        advance(FLUSH_INTERVAL).await;
        assert!(gate.may_flush() && !gate.may_flush());
    }

    #[tokio::test(start_paused = true)]
    async fn gate_rests_three_times_as_long_as_a_request_took_up_to_four_seconds() {
        let gate = PersonalDataGate::new(Sharing::Fair);
        for (took, rest) in [(20, 60), (2_000, 4_000)].map(|(took, rest)| (millis(took), millis(rest))) {
            let (_place, turn) = gate.pass(address(1)).await.unwrap();
            advance(took).await;
            drop(turn);
            let mut next = Box::pin(gate.pass(address(2)));
            assert!(poll!(&mut next).is_pending());
            advance(rest.saturating_sub(millis(1))).await;
            assert!(poll!(&mut next).is_pending());
            advance(millis(1)).await;
            next.await.unwrap();
        }
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_passes_at_a_time_and_one_address_has_three_places_in_the_line() {
        let gate = PersonalDataGate::new(Sharing::Fair);
        let first = gate.pass(address(1)).await.unwrap();
        let mut line = [1, 1, 2].map(|last| Box::pin(gate.pass(address(last))));
        for waiting in &mut line {
            assert!(poll!(waiting).is_pending());
        }
        assert!(matches!(gate.pass(address(1)).await, Err(ApiError::Busy)), "without a wait");
        drop(first);
        let [second, mut third, mut other] = line;
        let second = second.await.unwrap();
        assert!(poll!(&mut third).is_pending());
        advance(TURN_TIMEOUT).await;
        assert!(matches!(third.await, Err(ApiError::Busy)), "after the timeout");
        assert!(matches!(poll!(&mut other), Poll::Ready(Err(ApiError::Busy))));
        drop(second);
        assert_eq!(gate.line.used(), 0);
        let (place, turn) = gate.pass(address(1)).await.unwrap();
        let body = body(b"{}".to_vec(), place);
        drop(turn);
        assert_eq!(gate.line.used(), 1, "until the answer has been sent");
        drop(body);
        assert_eq!(gate.line.used(), 0);
    }
}
