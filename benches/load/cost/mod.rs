//! The cost of running the hub: prints `docs/cost.md`, from runs with visitors that act as in the old app.
//!
//! `day` has the runs; this module converts them into days, months and machines. What no run measures is
//! computed here from the prices below, and the page says so.

mod day;
mod page;

use std::path::Path;

use crate::process::Subject;
use crate::{Outcome, print_error};
use day::{Day, VISITORS};

/// Prices of Fly.io in dollars, November 2026, in its cheapest regions.
mod price {
    /// shared-cpu-1x with 256 MB, a month.
    pub(super) const MACHINE: f64 = 2.02;
    /// Each further GB of memory, a month.
    pub(super) const MEMORY: f64 = 5.0;
    /// A GB of volume, a month.
    pub(super) const VOLUME: f64 = 0.15;
    /// A GB of egress, in North America and Europe.
    pub(super) const EGRESS: f64 = 0.02;
    /// A GB of volume snapshots, a month, beyond the free ones.
    pub(super) const SNAPSHOT: f64 = 0.08;
    /// GB of volume snapshots that are free.
    pub(super) const FREE_SNAPSHOTS: f64 = 10.0;
}

/// Memory of the machine that `fly.toml` deploys, in MB.
const DEPLOYED_MB: u32 = 512;
/// Days that `fly.toml` keeps snapshots.
const SNAPSHOT_DAYS: f64 = 14.0;
/// Months of raw rows that the hub keeps by default, beyond the current one.
const RETENTION: f64 = 13.0;

/// The old design, per visitor: a heartbeat every 10 s, each with a read, a write and a request.
mod old {
    pub(super) const HEARTBEATS: f64 = 8_640.0;
    /// Dollars per million heartbeats: read, write, request.
    pub(super) const MILLION: f64 = 0.5 + 5.0 + 0.5;
}

const DAYS: f64 = 30.0;
const GB: f64 = 1e9;
const MIB: f64 = 1024.0 * 1024.0;

/// Kernel memory of an idle socket, in bytes (measured on Linux 6).
const KERNEL_PER_SOCKET: f64 = 3_700.0;
/// Memory of the rest of the system on a small machine, in bytes; a high estimate.
const SYSTEM: f64 = 64.0 * MIB;
/// The part of a machine's memory that is used at most.
const FULL: f64 = 0.75;
/// Bytes of TCP and IP headers per frame, and an acknowledgement for every second frame.
const AROUND_A_FRAME: f64 = 52.0 + 26.0;

/// The cost of a measured day.
struct Bill {
    day: Day,
    /// Bytes of the process, the kernel's sockets and the rest of the system.
    needed: f64,
    machine_mb: u32,
    machine: f64,
    /// GB a month, and dollars.
    egress_gb: f64,
    egress: f64,
    volume_gb: f64,
    volume: f64,
    /// GB of the volume and of its snapshots after the whole retention, and dollars.
    full_gb: f64,
    snapshots_gb: f64,
    deployed: f64,
    old: f64,
}

impl Bill {
    fn of(day: Day) -> Self {
        let visitors = day.visitors as f64;
        let needed = day.rss + visitors * KERNEL_PER_SOCKET + SYSTEM;
        let sizes = [256_u32, 512, 1_024, 2_048];
        let fits = |size: &u32| needed <= f64::from(*size) * MIB * FULL;
        let machine_mb = sizes.into_iter().find(fits).unwrap_or(2_048);
        let machine = machine_price(machine_mb);
        let egress_gb = (day.bytes_out + day.messages_out * AROUND_A_FRAME) * DAYS / GB;
        // A month of history; the smallest volume has 1 GB.
        let volume_gb = (day.database * DAYS / GB).max(1.0);
        let egress = egress_gb * price::EGRESS;
        let full_gb = (day.database * DAYS * (RETENTION + 1.0) / GB).max(1.0);
        // Snapshots are incremental: the first has all, each later one a day of changes.
        let snapshots_gb = full_gb + day.database * (SNAPSHOT_DAYS - 1.0) / GB;
        let snapshots = (snapshots_gb - price::FREE_SNAPSHOTS).max(0.0) * price::SNAPSHOT;
        let deployed = machine_price(DEPLOYED_MB) + egress + full_gb * price::VOLUME + snapshots;
        Self {
            needed,
            machine_mb,
            machine,
            egress_gb,
            egress,
            volume_gb,
            volume: volume_gb * price::VOLUME,
            full_gb,
            snapshots_gb,
            deployed,
            old: visitors * old::HEARTBEATS * DAYS * old::MILLION / 1e6,
            day,
        }
    }

    fn total(&self) -> f64 {
        self.machine + self.egress + self.volume
    }
}

/// Dollars a month for a shared-cpu-1x machine with this much memory, in MB.
fn machine_price(mb: u32) -> f64 {
    price::MACHINE + f64::from(mb - 256) / 1_024.0 * price::MEMORY
}

/// Measures a day for each number of visitors, and prints the page.
pub(crate) fn print(hub: &Path) -> Outcome {
    let hub = Subject::Hub(hub.to_owned());
    let mut bills = Vec::new();
    for visitors in VISITORS {
        print_error(format_args!("a day of {visitors} visitors"));
        bills.push(Bill::of(day::run(&hub, visitors)?));
    }
    page::print(&bills);
    Ok(())
}
