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
mod audit;
mod bad_input;
mod bodies;
mod bots;
mod contract;
mod disk;
mod echo;
mod entry;
mod erasure;
mod events;
mod flood;
mod flush;
mod handbook;
mod handshake;
mod http;
mod kill;
mod layers;
mod leaving;
mod lifecycle;
mod limits;
mod pages;
mod presence;
mod process;
mod quotas;
mod rooms;
mod seats;
mod seeds;
mod slow;
mod stats;
mod support;
mod threats;
mod transfer;
mod watching;
