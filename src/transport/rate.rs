//! The rate of one socket: how many messages a second it may send, and how much may be read for them, with bursts.
//!
//! Two rate limiters (GCRA) of one word each: the moments at which all messages, and all that was read, are paid
//! for. A refused message has its cost too, so that whoever slows down is heard again, and whoever goes on is
//! soon ten behind. Frames and reads have a cost besides their bytes, so that those without payload are not free.

use std::num::NonZeroU32;
use std::time::Duration;

/// How many refused messages a socket may be behind before it is closed.
const CLOSE_AFTER: u64 = 10;

/// So many seconds' worth may come at once.
pub(crate) const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// The rate that is asked of every socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimit {
    /// The cost of a message, in microseconds.
    cost: u64,
    /// What may be owed.
    burst: u64,
    /// The bytes that one message's cost pays for.
    bytes_per_message: u64,
}

/// What may be read for each message is so many times as long as the longest one.
const READ_FACTOR: u64 = 2;

/// A frame, or a read that brought anything, counts as such a part of the longest message besides its bytes: the
/// longest message may come in six pieces all the time.
const FRAME_COST: u64 = 8;

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Take it.
    Allow,
    /// Refuse it.
    Refuse,
    /// Close the socket: it was told, and does not care.
    Close,
}

impl RateLimit {
    /// So many messages a second, each of at most `message_limit` bytes.
    #[must_use]
    pub(crate) fn new(per_second: NonZeroU32, message_limit: usize) -> Self {
        let cost = (1_000_000 / u64::from(per_second.get())).max(1);
        let bytes = (message_limit as u64).saturating_mul(READ_FACTOR).max(1);
        Self {
            cost,
            burst: cost * u64::from(per_second.get()) * u64::from(BURST_SECONDS.get()),
            bytes_per_message: bytes,
        }
    }

    /// What may be owed by whoever is refused, but not closed yet.
    fn tolerance(self) -> u64 {
        self.burst + CLOSE_AFTER * self.cost
    }

    /// The cost of a read.
    fn cost_of(self, read: ReadSize) -> u64 {
        let pieces = u64::from(read.frames) + 1;
        let bytes = (read.bytes as u64)
            .saturating_add(pieces.saturating_mul(self.bytes_per_message / READ_FACTOR / FRAME_COST));
        bytes.saturating_mul(self.cost) / self.bytes_per_message
    }
}

/// What one read of a socket brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadSize {
    /// How many bytes.
    pub bytes: usize,
    /// Frames that begin in them.
    pub frames: u32,
}

/// One socket's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RateLimiter {
    /// When all messages are paid for, in microseconds of the monotonic clock.
    messages_tat: u64,
    /// When all that was read is.
    reads_tat: u64,
}

impl RateLimiter {
    /// A message has come at `now`, a time of the monotonic clock.
    pub(crate) fn check_message(&mut self, limit: RateLimit, now: Duration) -> Decision {
        let now = micros(now);
        let owed = self.messages_tat.saturating_sub(now) + limit.cost;
        if owed > limit.tolerance() {
            return Decision::Close;
        }
        self.messages_tat = now.saturating_add(owed);
        if owed > limit.burst { Decision::Refuse } else { Decision::Allow }
    }

    /// This was read at `now`. Says whether the socket may go on: whoever sends messages of the longest length at
    /// their rate, and as many more as are refused, may.
    #[must_use]
    pub(crate) fn check_read(&mut self, limit: RateLimit, read: ReadSize, now: Duration) -> bool {
        let now = micros(now);
        let owed = self.reads_tat.saturating_sub(now).saturating_add(limit.cost_of(read));
        self.reads_tat = now.saturating_add(owed);
        owed <= limit.tolerance()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Allow, Close, Refuse};

    const NOW: Duration = Duration::from_secs(1_000);

    fn twenty() -> RateLimit {
        RateLimit::new(NonZeroU32::new(20).unwrap(), 4_096)
    }

    fn flood(rate: &mut RateLimiter, now: Duration, messages: usize) -> Vec<Decision> {
        (0..messages).map(|_| rate.check_message(twenty(), now)).collect()
    }

    #[test]
    fn a_burst_is_taken_then_ten_are_refused_and_then_it_is_over() {
        let verdicts = flood(&mut RateLimiter::default(), NOW, 212);
        assert_eq!(verdicts, [vec![Allow; 200], vec![Refuse; 10], vec![Close; 2]].concat());
    }

    #[test]
    fn whoever_slows_down_is_heard_again() {
        let mut rate = RateLimiter::default();
        flood(&mut rate, NOW, 205);
        assert_eq!(flood(&mut rate, NOW + Duration::from_millis(400), 4), [Allow, Allow, Allow, Refuse]);
        let rested = NOW + Duration::from_mins(1);
        assert_eq!(flood(&mut rate, rested, 201), [vec![Allow; 200], vec![Refuse]].concat());
    }

    #[test]
    fn the_right_pace_may_go_on_for_ever_and_a_little_more_may_not() {
        let run = |millis: u64| {
            let mut rate = RateLimiter::default();
            (0..20_000)
                .map(|n| rate.check_message(twenty(), NOW + Duration::from_millis(n * millis)))
                .max_by_key(|v| *v as u8)
        };
        assert_eq!(run(50), Some(Allow));
        assert_eq!(run(40), Some(Close));
    }

    /// Reads at once until it is too much.
    fn reads(bytes: usize, frames: u32) -> usize {
        let mut rate = RateLimiter::default();
        (0..1_000_000).take_while(|_| rate.check_read(twenty(), ReadSize { bytes, frames }, NOW)).count()
    }

    #[test]
    fn longest_messages_in_six_pieces_may_come_as_fast_as_messages_may_and_are_refused() {
        let piece = |frames| ReadSize { bytes: 4_110 / 6 + 1, frames };
        let message = |rate: &mut RateLimiter, now| {
            (0..6).all(|n| rate.check_read(twenty(), piece(u32::from(n == 0)), now))
        };
        let mut rate = RateLimiter::default();
        assert!((0..210).all(|_| message(&mut rate, NOW)), "a burst, and ten that are refused");
        let mut rate = RateLimiter::default();
        let every_50_ms = |n| NOW + n * Duration::from_millis(50);
        assert!((0..20_000).all(|n| message(&mut rate, every_50_ms(n))), "for ever");
    }

    #[test]
    fn frames_and_reads_without_payload_are_not_free() {
        assert_eq!(reads(6, 1), 1_670);
        assert_eq!(reads(1, 0), 3_353);
        assert_eq!(reads(2_048, 341), 9, "a buffer full of empty frames");
        let mut rate = RateLimiter::default();
        let every_millisecond = |n| NOW + n * Duration::from_millis(1);
        let empty = ReadSize { bytes: 6, frames: 1 };
        let good =
            (0..60_000).take_while(|n| rate.check_read(twenty(), empty, every_millisecond(*n))).count();
        assert!((1_900..2_100).contains(&good), "{good} of a thousand a second");
    }

    #[test]
    fn it_is_two_words() {
        assert_eq!(size_of::<RateLimiter>(), 16);
    }
}
