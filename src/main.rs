//! The program `breathing-room`. The library's module `cli` does everything.

use std::process::ExitCode;

/// tokio's tasks are aligned to 128 bytes, between which glibc's allocator leaves gaps: an idle socket takes a
/// sixth less with this one (`docs/decisions.md`).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    breathing_room::main()
}
