//! What the hub costs to run: `docs/cost.md`, printed from runs with people who behave as in the old app.
//!
//! The runs are in `day`; here they are turned into days, months and machines. Whatever is not read
//! from a run is computed here, from the prices below, and the text says so.

mod day;
mod page;

use std::path::Path;

use crate::process::Subject;
use crate::{Outcome, complain};
use day::{Day, PEOPLE};

/// Prices of Fly.io in dollars, as in November 2026.
mod price {
    /// shared-cpu-1x with 256 MB, a month.
    pub(super) const MACHINE: f64 = 2.02;
    /// Each further GB of memory, a month.
    pub(super) const MEMORY: f64 = 5.0;
    /// A GB of volume, a month.
    pub(super) const VOLUME: f64 = 0.15;
    /// A GB that leaves the machine, in North America and Europe.
    pub(super) const EGRESS: f64 = 0.02;
}

/// The old design, for each person: a heartbeat every 10 s, and in each a read, a write and a request.
mod old {
    pub(super) const HEARTBEATS: f64 = 8_640.0;
    /// Dollars for a million heartbeats: read, write, request.
    pub(super) const MILLION: f64 = 0.5 + 5.0 + 0.5;
}

const DAYS: f64 = 30.0;
const GB: f64 = 1e9;
const MIB: f64 = 1024.0 * 1024.0;

/// Memory of the kernel for a socket that is idle, in bytes (measured on Linux 6).
const KERNEL_PER_SOCKET: f64 = 3_700.0;
/// What the rest of a small machine's system takes, in bytes; generous.
const SYSTEM: f64 = 64.0 * MIB;
/// A machine should not be fuller than this.
const FULL: f64 = 0.75;
/// What TCP and IP put around a frame, and an acknowledgement for every second one.
const AROUND_A_FRAME: f64 = 52.0 + 26.0;

/// What follows from a day that was measured.
struct Bill {
    day: Day,
    /// Bytes of the process, the kernel's sockets and the system.
    needed: f64,
    machine_mb: u32,
    machine: f64,
    /// GB a month, and what they cost.
    egress_gb: f64,
    egress: f64,
    volume_gb: f64,
    volume: f64,
    old: f64,
}

impl Bill {
    fn of(day: Day) -> Self {
        let people = day.people as f64;
        let needed = day.rss + people * KERNEL_PER_SOCKET + SYSTEM;
        let sizes = [256_u32, 512, 1_024, 2_048];
        let fits = |size: &u32| needed <= f64::from(*size) * MIB * FULL;
        let machine_mb = sizes.into_iter().find(fits).unwrap_or(2_048);
        let machine = price::MACHINE + f64::from(machine_mb - 256) / 1_024.0 * price::MEMORY;
        let egress_gb = (day.bytes_out + day.messages_out * AROUND_A_FRAME) * DAYS / GB;
        // A month of history, and never less than the smallest volume.
        let volume_gb = (day.database * DAYS / GB).max(1.0);
        Self {
            needed,
            machine_mb,
            machine,
            egress_gb,
            egress: egress_gb * price::EGRESS,
            volume_gb,
            volume: volume_gb * price::VOLUME,
            old: people * old::HEARTBEATS * DAYS * old::MILLION / 1e6,
            day,
        }
    }

    fn total(&self) -> f64 {
        self.machine + self.egress + self.volume
    }
}

/// Measures a day for each number of people, and prints the page.
pub(crate) fn print(hub: &Path) -> Outcome {
    let hub = Subject::Hub(hub.to_owned());
    let mut bills = Vec::new();
    for people in PEOPLE {
        complain(format_args!("a day of {people} people"));
        bills.push(Bill::of(day::live(&hub, people)?));
    }
    page::print(&bills);
    Ok(())
}
