//! The dice: one generator with a seed, and the few ways in which things are spread.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Random numbers that are the same for the same seed.
pub(crate) struct Random(SmallRng);

impl Random {
    /// The dice of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0.random_range(0..limit.max(1))
    }

    /// One of some words.
    pub(crate) fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words.choose(&mut self.0).copied().unwrap_or_default()
    }

    /// Whether something happens that happens so often (0 to 1).
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.0.random_bool(share)
    }

    /// One of `count`, the first far more often than the last: about one in `rank`, as with words, pages and
    /// songs (Zipf's law).
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 1 to count + 1")]
    pub(crate) fn popular(&mut self, count: u32) -> u32 {
        let rank = f64::from(count + 1).powf(self.0.random::<f64>()) as u32;
        rank.clamp(1, count) - 1
    }

    /// Ten random bytes, as a version 7 id has.
    pub(crate) fn bytes(&mut self) -> [u8; 10] {
        self.0.random()
    }
}
