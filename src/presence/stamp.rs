//! Stamps: the hybrid logical clock by which nodes order what their visitors did.
//!
//! A stamp is the wall time of a node with a counter. It is later than every stamp that the node has seen, so that an
//! effect is never before its cause, and close to wall time, so that of two moods the one that was set last holds. A node
//! with a wrong clock drags others along by a minute at most.

use crate::protocol::Time;

/// How far ahead of this node's wall clock a stamp may be.
pub(crate) const AHEAD_LIMIT_MS: u64 = 60_000;

const COUNTER_BITS: u32 = 16;

/// A moment in a cluster: 48 bits of wall milliseconds, and a counter of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// Before all others: of what was never set.
    pub(crate) const NEVER: Self = Self(0);

    /// The first stamp of this wall time.
    pub(crate) fn at(time: Time) -> Self {
        Self(time.millis() << COUNTER_BITS)
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
    /// A new stamp, later than all before.
    pub(crate) fn tick(&mut self, wall: Time) -> Stamp {
        self.last = Stamp(self.last.0 + 1).max(Stamp::at(wall));
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

    #[test]
    fn stamps_rise_although_the_wall_clock_stands_or_goes_back() {
        let mut clock = StampClock::default();
        let first = clock.tick(noon());
        let second = clock.tick(noon());
        let third = clock.tick(noon().minus(5_000));
        assert!(first < second && second < third);
        assert_eq!(first, Stamp::at(noon()));
        assert_eq!(
            clock.tick(noon().plus(1)),
            Stamp::at(noon().plus(1)),
            "wall time again when it has caught up"
        );
    }

    #[test]
    fn stamp_after_a_message_is_later_than_the_message() {
        let (mut ahead, mut behind) = (StampClock::default(), StampClock::default());
        let theirs = ahead.tick(noon().plus(30_000));
        assert!(behind.tick(noon()) < theirs);
        behind.observe(theirs, noon());
        assert!(behind.tick(noon()) > theirs);
    }

    #[test]
    fn stamp_far_ahead_moves_the_clock_by_a_minute_at_most() {
        let mut clock = StampClock::default();
        clock.observe(Stamp::at(noon().plus(3_600_000)), noon());
        let next = clock.tick(noon());
        assert!(
            next > Stamp::at(noon().plus(AHEAD_LIMIT_MS))
                && next < Stamp::at(noon().plus(AHEAD_LIMIT_MS + 1))
        );
    }
}
