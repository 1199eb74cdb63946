//! The hub from outside: real sockets, real HTTP, a real SQLite file.
//!
//! One binary, so that everything links once. `support` is the small vocabulary in which all tests
//! are told; each other file is one part of the contract.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]
#![expect(clippy::indexing_slicing, reason = "a panic here is a failed test")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]
#![expect(clippy::print_stdout, reason = "a test that draws lots says its seed")]
#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod access;
mod assets;
mod audit;
mod backpressure;
mod bots;
mod contract;
mod crash;
mod database_failures;
mod docs;
mod echo;
mod erasure;
mod events;
mod flood;
mod flush;
mod fuzz_seeds;
mod handshake;
mod holds;
mod http;
mod import_export;
mod invalid_input;
mod layers;
mod leaving;
mod lifecycle;
mod limits;
mod presence_samples;
mod process;
mod quotas;
mod request_bodies;
mod rooms;
mod stats;
mod support;
mod threats;
mod tokens;
mod watch_sessions;
