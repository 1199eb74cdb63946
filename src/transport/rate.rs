//! The rate limiter of one socket: messages a second, and the bytes and frames that are read for them, with bursts.
//!
//! It is the GCRA twice, with one word each: the theoretical arrival time (TAT) of the next message and of the next
//! read. A rejected message has its cost too: a client that slows down is accepted again, and one that does not is soon
//! ten messages behind and is closed. A frame and a read have a cost besides their bytes, so that empty ones are not free.

use std::num::NonZeroU32;
use std::time::Duration;

/// The hub closes a socket that is this many rejected messages behind.
const CLOSE_AFTER: u64 = 10;

/// The burst, in seconds of the rate.
pub(crate) const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// The rate limit of every socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimit {
    /// The cost of a message, in microseconds: the GCRA's emission interval.
    cost: u64,
    /// The burst tolerance, in microseconds.
    burst: u64,
    /// The bytes that may be read for the cost of one message.
    bytes_per_message: u64,
}

/// The bytes that may be read for each message, as a multiple of the longest message.
const READ_FACTOR: u64 = 2;

/// A frame, and a read, each cost this part (1/8) of the longest message besides their bytes, so that the longest
/// message may always arrive in six pieces.
const FRAME_COST_DIVISOR: u64 = 8;

/// What the hub does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It accepts the message.
    Allow,
    /// It rejects the message with an error.
    Reject,
    /// It closes the socket, which ignored the errors before.
    Close,
}

impl RateLimit {
    /// A limit of `per_second` messages of at most `message_limit` bytes.
    pub(crate) fn new(per_second: NonZeroU32, message_limit: usize) -> Self {
        let cost = (1_000_000 / u64::from(per_second.get())).max(1);
        let bytes = (message_limit as u64).saturating_mul(READ_FACTOR).max(1);
        Self {
            cost,
            burst: cost * u64::from(per_second.get()) * u64::from(BURST_SECONDS.get()),
            bytes_per_message: bytes,
        }
    }

    /// The tolerance, in microseconds, before the hub closes the socket.
    fn tolerance(self) -> u64 {
        self.burst + CLOSE_AFTER * self.cost
    }

    /// The cost of a read, in microseconds.
    fn cost_of(self, read: ReadSize) -> u64 {
        let pieces = u64::from(read.frames) + 1;
        let bytes = (read.bytes as u64)
            .saturating_add(pieces.saturating_mul(self.bytes_per_message / READ_FACTOR / FRAME_COST_DIVISOR));
        bytes.saturating_mul(self.cost) / self.bytes_per_message
    }
}

/// The size of one read of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadSize {
    /// Bytes.
    pub bytes: usize,
    /// Frames whose header ends in the bytes.
    pub frames: u32,
}

/// The rate limiter of one socket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RateLimiter {
    /// The TAT of messages, in microseconds of the monotonic clock.
    messages_tat: u64,
    /// The TAT of reads.
    reads_tat: u64,
}

impl RateLimiter {
    /// Counts a message at `now`, by the monotonic clock.
    pub(crate) fn check_message(&mut self, limit: RateLimit, now: Duration) -> Decision {
        let now = micros(now);
        let debt = self.messages_tat.saturating_sub(now) + limit.cost;
        if debt > limit.tolerance() {
            return Decision::Close;
        }
        self.messages_tat = now.saturating_add(debt);
        if debt > limit.burst { Decision::Reject } else { Decision::Allow }
    }

    /// Counts a read at `now`. Returns whether the socket may stay open. The longest messages at the full rate, with as
    /// many rejected ones as are allowed, never exceed this.
    pub(crate) fn check_read(&mut self, limit: RateLimit, read: ReadSize, now: Duration) -> bool {
        let now = micros(now);
        let debt = self.reads_tat.saturating_sub(now).saturating_add(limit.cost_of(read));
        self.reads_tat = now.saturating_add(debt);
        debt <= limit.tolerance()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Allow, Close, Reject};

    const NOW: Duration = Duration::from_secs(1_000);

    fn twenty() -> RateLimit {
        RateLimit::new(NonZeroU32::new(20).unwrap(), 4_096)
    }

    fn flood(rate: &mut RateLimiter, now: Duration, messages: usize) -> Vec<Decision> {
        (0..messages).map(|_| rate.check_message(twenty(), now)).collect()
    }

    #[test]
    fn burst_is_accepted_then_ten_messages_are_rejected_then_the_socket_closes() {
        let verdicts = flood(&mut RateLimiter::default(), NOW, 212);
        assert_eq!(verdicts, [vec![Allow; 200], vec![Reject; 10], vec![Close; 2]].concat());
    }

    #[test]
    fn messages_are_accepted_again_after_a_pause() {
        let mut rate = RateLimiter::default();
        flood(&mut rate, NOW, 205);
        assert_eq!(flood(&mut rate, NOW + Duration::from_millis(400), 4), [Allow, Allow, Allow, Reject]);
        let rested = NOW + Duration::from_mins(1);
        assert_eq!(flood(&mut rate, rested, 201), [vec![Allow; 200], vec![Reject]].concat());
    }

    #[test]
    fn sustained_rate_is_accepted_and_a_higher_one_is_not() {
        let run = |millis: u64| {
            let mut rate = RateLimiter::default();
            (0..20_000)
                .map(|n| rate.check_message(twenty(), NOW + Duration::from_millis(n * millis)))
                .max_by_key(|v| *v as u8)
        };
        assert_eq!(run(50), Some(Allow));
        assert_eq!(run(40), Some(Close));
    }

    /// The number of reads at one moment before the limit.
    fn reads(bytes: usize, frames: u32) -> usize {
        let mut rate = RateLimiter::default();
        (0..1_000_000).take_while(|_| rate.check_read(twenty(), ReadSize { bytes, frames }, NOW)).count()
    }

    #[test]
    fn longest_messages_in_six_pieces_stay_within_the_read_limit() {
        let piece = |frames| ReadSize { bytes: 4_110 / 6 + 1, frames };
        let message = |rate: &mut RateLimiter, now| {
            (0..6).all(|n| rate.check_read(twenty(), piece(u32::from(n == 0)), now))
        };
        let mut rate = RateLimiter::default();
        assert!((0..210).all(|_| message(&mut rate, NOW)), "a burst, and ten rejected messages");
        let mut rate = RateLimiter::default();
        let every_50_ms = |n| NOW + n * Duration::from_millis(50);
        assert!((0..20_000).all(|n| message(&mut rate, every_50_ms(n))), "at the sustained rate");
    }

    #[test]
    fn empty_frames_and_reads_have_a_cost() {
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
    fn rate_limiter_is_two_words() {
        assert_eq!(size_of::<RateLimiter>(), 16);
    }
}
