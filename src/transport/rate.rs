//! The rate of one socket: how many messages a second it may send, and how much may be read for them, with bursts.
//!
//! Two rate limiters (GCRA) of one word each: the moments at which all messages, and all that was read, are paid
//! for. A refused message has its price too, so that whoever slows down is heard again, and whoever goes on is
//! soon ten behind. Frames and reads have a price besides their bytes, so that those without payload are not free.

use std::num::NonZeroU32;
use std::time::Duration;

/// How many refused messages a socket may be behind before it is closed.
const IGNORED: u64 = 10;

/// So many seconds' worth may come at once.
pub(crate) const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// The rate that is asked of every socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimit {
    /// The price of a message, in microseconds.
    price: u64,
    /// What may be owed.
    credit: u64,
    /// The bytes that one message's price pays for.
    bytes: u64,
}

/// What may be read for each message is so many times as long as the longest one.
const ROOM: u64 = 2;

/// A frame, or a read that brought anything, counts as such a part of the longest message besides its bytes: the
/// longest message may come in six pieces all the time.
const OVERHEAD: u64 = 8;

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take it.
    Good,
    /// Refuse it.
    TooFast,
    /// Close the socket: it was told, and does not care.
    Ignored,
}

impl RateLimit {
    /// So many messages a second, each of at most `message_limit` bytes.
    #[must_use]
    pub(crate) fn new(per_second: NonZeroU32, message_limit: usize) -> Self {
        let price = (1_000_000 / u64::from(per_second.get())).max(1);
        let bytes = (message_limit as u64).saturating_mul(ROOM).max(1);
        Self { price, credit: price * u64::from(per_second.get()) * u64::from(BURST_SECONDS.get()), bytes }
    }

    /// What may be owed by whoever is refused, but not closed yet.
    fn most(self) -> u64 {
        self.credit + IGNORED * self.price
    }

    /// The price of a read.
    fn of(self, read: Received) -> u64 {
        let pieces = u64::from(read.frames) + 1;
        let bytes = (read.bytes as u64).saturating_add(pieces.saturating_mul(self.bytes / ROOM / OVERHEAD));
        bytes.saturating_mul(self.price) / self.bytes
    }
}

/// What one read of a socket brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// How many bytes.
    pub bytes: usize,
    /// Frames that begin in them.
    pub frames: u32,
}

/// One socket's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RateLimiter {
    /// When all messages are paid for, in microseconds of the monotonic clock.
    messages: u64,
    /// When all that was read is.
    received: u64,
}

impl RateLimiter {
    /// A message has come at `now`, a time of the monotonic clock.
    pub(crate) fn step(&mut self, tempo: RateLimit, now: Duration) -> Verdict {
        let now = micros(now);
        let owed = self.messages.saturating_sub(now) + tempo.price;
        if owed > tempo.most() {
            return Verdict::Ignored;
        }
        self.messages = now.saturating_add(owed);
        if owed > tempo.credit { Verdict::TooFast } else { Verdict::Good }
    }

    /// This was read at `now`. Says whether the socket may go on: whoever sends messages of the longest length at
    /// their rate, and as many more as are refused, may.
    #[must_use]
    pub(crate) fn read(&mut self, tempo: RateLimit, read: Received, now: Duration) -> bool {
        let now = micros(now);
        let owed = self.received.saturating_sub(now).saturating_add(tempo.of(read));
        self.received = now.saturating_add(owed);
        owed <= tempo.most()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Good, Ignored, TooFast};

    const NOW: Duration = Duration::from_secs(1_000);

    fn twenty() -> RateLimit {
        RateLimit::new(NonZeroU32::new(20).unwrap(), 4_096)
    }

    fn flood(rate: &mut RateLimiter, now: Duration, messages: usize) -> Vec<Verdict> {
        (0..messages).map(|_| rate.step(twenty(), now)).collect()
    }

    #[test]
    fn a_burst_is_taken_then_ten_are_refused_and_then_it_is_over() {
        let verdicts = flood(&mut RateLimiter::default(), NOW, 212);
        assert_eq!(verdicts, [vec![Good; 200], vec![TooFast; 10], vec![Ignored; 2]].concat());
    }

    #[test]
    fn whoever_slows_down_is_heard_again() {
        let mut rate = RateLimiter::default();
        flood(&mut rate, NOW, 205);
        assert_eq!(flood(&mut rate, NOW + Duration::from_millis(400), 4), [Good, Good, Good, TooFast]);
        let rested = NOW + Duration::from_mins(1);
        assert_eq!(flood(&mut rate, rested, 201), [vec![Good; 200], vec![TooFast]].concat());
    }

    #[test]
    fn the_right_pace_may_go_on_for_ever_and_a_little_more_may_not() {
        let run = |millis: u64| {
            let mut rate = RateLimiter::default();
            (0..20_000)
                .map(|n| rate.step(twenty(), NOW + Duration::from_millis(n * millis)))
                .max_by_key(|v| *v as u8)
        };
        assert_eq!(run(50), Some(Good));
        assert_eq!(run(40), Some(Ignored));
    }

    /// Reads at once until it is too much.
    fn reads(bytes: usize, frames: u32) -> usize {
        let mut rate = RateLimiter::default();
        (0..1_000_000).take_while(|_| rate.read(twenty(), Received { bytes, frames }, NOW)).count()
    }

    #[test]
    fn longest_messages_in_six_pieces_may_come_as_fast_as_messages_may_and_are_refused() {
        let piece = |frames| Received { bytes: 4_110 / 6 + 1, frames };
        let message =
            |rate: &mut RateLimiter, now| (0..6).all(|n| rate.read(twenty(), piece(u32::from(n == 0)), now));
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
        let empty = Received { bytes: 6, frames: 1 };
        let good = (0..60_000).take_while(|n| rate.read(twenty(), empty, every_millisecond(*n))).count();
        assert!((1_900..2_100).contains(&good), "{good} of a thousand a second");
    }

    #[test]
    fn it_is_two_words() {
        assert_eq!(size_of::<RateLimiter>(), 16);
    }
}
