//! The pace of one socket: how many messages a second it may send, with bursts.
//!
//! One word for each socket: the moment at which all that it said is paid for. A refused message has its
//! price too, so that whoever slows down is heard again, and whoever goes on is soon ten behind.

use std::num::NonZeroU32;
use std::time::Duration;

/// How many refused messages a socket may be behind before it is closed.
const IGNORED: u64 = 10;

/// So many seconds' worth may come at once.
pub const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// The pace that is asked of every socket.
#[derive(Debug, Clone, Copy)]
pub struct Tempo {
    /// The price of a message, in microseconds.
    price: u64,
    /// What may be owed.
    credit: u64,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Good,
    /// Refuse it.
    TooFast,
    /// Close the socket: it was told, and does not care.
    Ignored,
}

impl Tempo {
    /// So many messages a second.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        let price = (1_000_000 / u64::from(per_second.get())).max(1);
        Self { price, credit: price * u64::from(per_second.get()) * u64::from(BURST_SECONDS.get()) }
    }
}

/// One socket's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// When all is paid for, in microseconds of the monotonic clock.
    paid: u64,
}

impl Pace {
    /// A message has come at `now`, a time of the monotonic clock.
    pub fn step(&mut self, tempo: Tempo, now: Duration) -> Verdict {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let owed = self.paid.saturating_sub(now) + tempo.price;
        if owed > tempo.credit + IGNORED * tempo.price {
            return Verdict::Ignored;
        }
        self.paid = now.saturating_add(owed);
        if owed > tempo.credit { Verdict::TooFast } else { Verdict::Good }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Good, Ignored, TooFast};

    const NOW: Duration = Duration::from_secs(1_000);

    fn twenty() -> Tempo {
        Tempo::new(NonZeroU32::new(20).unwrap())
    }

    fn flood(pace: &mut Pace, now: Duration, messages: usize) -> Vec<Verdict> {
        (0..messages).map(|_| pace.step(twenty(), now)).collect()
    }

    #[test]
    fn a_burst_is_taken_then_ten_are_refused_and_then_it_is_over() {
        let verdicts = flood(&mut Pace::default(), NOW, 212);
        assert_eq!(verdicts, [vec![Good; 200], vec![TooFast; 10], vec![Ignored; 2]].concat());
    }

    #[test]
    fn whoever_slows_down_is_heard_again() {
        let mut pace = Pace::default();
        flood(&mut pace, NOW, 205);
        assert_eq!(flood(&mut pace, NOW + Duration::from_millis(400), 4), [Good, Good, Good, TooFast]);
        let rested = NOW + Duration::from_mins(1);
        assert_eq!(flood(&mut pace, rested, 201), [vec![Good; 200], vec![TooFast]].concat());
    }

    #[test]
    fn the_right_pace_may_go_on_for_ever_and_a_little_more_may_not() {
        let run = |millis: u64| {
            let mut pace = Pace::default();
            (0..20_000)
                .map(|n| pace.step(twenty(), NOW + Duration::from_millis(n * millis)))
                .max_by_key(|v| *v as u8)
        };
        assert_eq!(run(50), Some(Good));
        assert_eq!(run(40), Some(Ignored));
    }

    #[test]
    fn it_is_one_word() {
        assert_eq!(size_of::<Pace>(), 8);
    }
}
