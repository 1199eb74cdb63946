//! Tests of the hub from outside: real sockets, real HTTP, a real SQLite file.
//!
//! One binary, so that everything links once. `support` has the shared helpers; each other file tests one feature.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]
#![expect(clippy::indexing_slicing, reason = "a panic here is a failed test")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]
#![expect(clippy::print_stdout, reason = "a randomized test prints its seed")]
#![expect(unreachable_pub, reason = "a test binary exports nothing")]

mod access;
mod assets;
mod audit;
mod backpressure;
mod backup;
mod bots;
mod cluster;
mod contract;
mod crash;
mod database_failures;
mod docs;
mod echo;
mod embed;
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
mod nodes;
mod origins;
mod presence_samples;
mod private_port;
mod process;
mod quotas;
mod refusals;
mod replica;
mod request_bodies;
mod rooms;
mod sits;
mod stats;
mod support;
mod threats;
mod tokens;
mod wal;
mod watch_sessions;
