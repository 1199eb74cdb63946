//! The seeded generator of all random numbers, and its distributions.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// A random number generator that gives the same numbers for the same seed.
pub(crate) struct Random(SmallRng);

impl Random {
    /// Creates the generator of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0.random_range(0..limit.max(1))
    }

    /// Returns one of the words.
    pub(crate) fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words.choose(&mut self.0).copied().unwrap_or_default()
    }

    /// Returns true with this probability.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.0.random_bool(share)
    }

    /// Returns an index below `count`, with a probability of about 1/rank (Zipf's law), as for words, pages and songs.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 1 to count + 1")]
    pub(crate) fn popular(&mut self, count: u32) -> u32 {
        let rank = f64::from(count + 1).powf(self.0.random::<f64>()) as u32;
        rank.clamp(1, count) - 1
    }

    /// Returns the ten random bytes of a version 7 UUID.
    pub(crate) fn bytes(&mut self) -> [u8; 10] {
        self.0.random()
    }
}
