//! Stamps: the hybrid logical clock by which nodes order what their visitors did.
//!
//! A stamp is the wall time of a node, in units of 2⁻¹⁶ ms. It is later than every stamp that the node has seen, so that
//! an effect is never before its cause, and close to wall time, so that of two moods the one that was set last holds. A
//! node with a wrong clock drags others along by a minute at most.
//!
//! Two nodes that have not heard of each other in between agree on the order as well as their clocks do.

use std::time::Duration;

use crate::protocol::Time;
use crate::time::millis;

/// How far ahead of this node's wall clock a stamp may be.
pub(crate) const AHEAD_LIMIT_MS: u64 = 60_000;

const FRACTION_BITS: u32 = 16;

const NANOS_PER_MS: u32 = 1_000_000;

/// A moment in a cluster: 48 bits of wall milliseconds, and 16 bits of their fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// Before all others: of what was never set.
    pub(crate) const NEVER: Self = Self(0);

    /// The first stamp of this wall time.
    pub(crate) fn at(time: Time) -> Self {
        Self(time.millis() << FRACTION_BITS)
    }

    /// The stamp of this wall time since the Unix epoch.
    fn of(since_epoch: Duration) -> Self {
        let nanos = u64::from(since_epoch.subsec_nanos() % NANOS_PER_MS);
        let fraction = (nanos << FRACTION_BITS) / u64::from(NANOS_PER_MS);
        Self(Self::at(Time::from_millis(millis(since_epoch))).0 + fraction)
    }

    /// The stamp with these bits.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// All bits, for messages.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The first stamp after this one.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The stamp, or the latest one that is allowed at this wall time.
    pub(crate) fn clamped(self, wall: Time) -> Self {
        self.min(Self::at(wall.plus(AHEAD_LIMIT_MS)))
    }
}

/// The clock of one node. Its stamps rise.
#[derive(Debug, Default)]
pub(crate) struct StampClock {
    last: Stamp,
}

impl StampClock {
    /// A new stamp at this wall time since the Unix epoch, later than all before.
    pub(crate) fn tick(&mut self, since_epoch: Duration) -> Stamp {
        self.last = self.last.next().max(Stamp::of(since_epoch));
        self.last
    }

    /// Notes a stamp of another node: later stamps of this node are later than it, if it is not too far ahead.
    pub(crate) fn observe(&mut self, stamp: Stamp, wall: Time) {
        self.last = self.last.max(stamp.clamped(wall));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Time {
        Time::from_millis(1_796_083_200_000)
    }

    fn since_epoch(time: Time) -> Duration {
        Duration::from_millis(time.millis())
    }

    #[test]
    fn stamps_rise_although_the_wall_clock_stands_or_goes_back() {
        let mut clock = StampClock::default();
        let first = clock.tick(since_epoch(noon()));
        let second = clock.tick(since_epoch(noon()));
        let third = clock.tick(since_epoch(noon().minus(5_000)));
        assert!(first < second && second < third);
        assert_eq!(first, Stamp::at(noon()));
        assert_eq!(
            clock.tick(since_epoch(noon().plus(1))),
            Stamp::at(noon().plus(1)),
            "wall time again when it has caught up"
        );
    }

    #[test]
    fn stamps_of_two_nodes_within_a_millisecond_are_in_the_order_of_their_clocks() {
        let (mut busy, mut other) = (StampClock::default(), StampClock::default());
        let at = |nanos| since_epoch(noon()) + Duration::from_nanos(nanos);
        let mut last = busy.tick(at(300_000));
        for _ in 0..100 {
            last = busy.tick(at(300_000));
        }
        assert!(other.tick(at(310_000)) > last);
        assert!(other.tick(at(999_999)) < Stamp::at(noon().plus(1)));
    }

    #[test]
    fn stamp_after_a_message_is_later_than_the_message() {
        let (mut ahead, mut behind) = (StampClock::default(), StampClock::default());
        let theirs = ahead.tick(since_epoch(noon().plus(30_000)));
        assert!(behind.tick(since_epoch(noon())) < theirs);
        behind.observe(theirs, noon());
        assert!(behind.tick(since_epoch(noon())) > theirs);
    }

    #[test]
    fn stamp_far_ahead_moves_the_clock_by_a_minute_at_most() {
        let mut clock = StampClock::default();
        clock.observe(Stamp::at(noon().plus(3_600_000)), noon());
        let next = clock.tick(since_epoch(noon()));
        assert!(
            next > Stamp::at(noon().plus(AHEAD_LIMIT_MS))
                && next < Stamp::at(noon().plus(AHEAD_LIMIT_MS + 1))
        );
    }
}
