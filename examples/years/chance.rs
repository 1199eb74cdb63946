//! The dice: one generator with a seed, and the few ways in which things are spread.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Random numbers that are the same for the same seed.
pub(crate) struct Dice(SmallRng);

impl Dice {
    /// The dice of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0.random_range(0..limit.max(1))
    }

    /// Whether something happens that happens so often (0 to 1).
    pub(crate) fn happens(&mut self, share: f64) -> bool {
        self.0.random::<f64>() < share
    }

    /// One of `count`, the first far more often than the last: about one in `rank`, as with words, pages and
    /// songs (Zipf's law).
    pub(crate) fn popular(&mut self, count: u32) -> u32 {
        let rank = f64::from(count + 1).powf(self.0.random::<f64>()).floor();
        (rank as u32).clamp(1, count) - 1
    }

    /// 16 random bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 10] {
        self.0.random()
    }
}
