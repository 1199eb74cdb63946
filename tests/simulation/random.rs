//! The seeded generator of all random numbers in a scenario.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

/// A random number generator that gives the same numbers for the same seed.
#[derive(Debug)]
pub struct Random(StdRng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Returns a number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.random_range(0..limit)
    }

    /// Returns true with probability 1/`times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Returns one of the choices, of which there must be at least one.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.0).expect("a choice")
    }

    /// Returns one of the choices, with a probability in proportion to its weight.
    pub fn weighted<T: Copy>(&mut self, choices: &[(T, u64)]) -> T {
        let mut point = self.below(choices.iter().map(|(_, weight)| weight).sum());
        for (choice, weight) in choices {
            match point.checked_sub(*weight) {
                Some(rest) => point = rest,
                None => return *choice,
            }
        }
        panic!("the point is below the sum")
    }

    /// Returns a random UUID.
    pub fn id(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.0.random()).into_uuid()
    }
}
