//! What has to hold for any bytes that come from outside, one module for each fuzz target.
//!
//! Each `check` takes bytes and panics where something does not hold. The fuzzers call them with bytes of
//! their own making, and `tests/hub/fuzz_seeds.rs` with those in `seeds/`, which needs no fuzzer.

pub mod body;
pub mod frames;
pub mod message;
pub mod query;
pub mod record;
pub mod token;

/// A target and its name, which is also that of its folder in `seeds/`.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 6] = [
    ("body", body::check),
    ("frames", frames::check),
    ("message", message::check),
    ("query", query::check),
    ("record", record::check),
    ("token", token::check),
];
