//! The page `docs/cost.md`, in Markdown.

use super::day::{IN_A_ROOM, LENGTH, SPEED};
use super::{Bill, FULL, GB, MIB, old, price};
use crate::print_line;

type Cell<'a> = &'a dyn Fn(&Bill) -> String;

pub(super) fn print(bills: &[Bill]) {
    print_line("# What it costs\n");
    print_line("`make cost` measures and generates this page; do not edit it by hand.\n");
    print_line(format_args!(
        "Visitors are present all day, in rooms of up to {IN_A_ROOM}, and behave as in the old web app: a change of \
         mood every\n5 minutes, a page view a minute. Every third visitor watches something, in sessions of \
         15 minutes with four changes of\nstate. Each run takes {} s on this machine and simulates time {SPEED} times \
         as fast, including the hub's flushes and pings.\n",
        LENGTH.as_secs()
    ));
    print_measured(bills);
    print_computed(bills);
    print_deployed(bills);
    print_old(bills);
    print_notes();
}

fn print_measured(bills: &[Bill]) {
    print_line("## Measured, extrapolated to a day\n");
    table(
        bills,
        &[
            ("messages to the hub", &|it| count(it.day.messages_in)),
            ("messages from the hub", &|it| count(it.day.messages_out)),
            ("bytes to the hub", &|it| bytes(it.day.bytes_in)),
            ("bytes from the hub", &|it| bytes(it.day.bytes_out)),
            ("database transactions", &|it| count(it.day.transactions)),
            ("database rows added", &|it| count(it.day.rows)),
            ("database growth", &|it| bytes(it.day.database)),
            ("database reads for presence", &|_| "0".to_owned()),
            ("CPU, of one core of this machine", &|it| format!("{:.2} %", it.day.cpu)),
            ("memory of the process", &|it| format!("{:.0} MiB", it.day.rss / MIB)),
        ],
    );
}

fn print_computed(bills: &[Bill]) {
    print_line("## Computed: the smallest Fly machine, per month\n");
    table(
        bills,
        &[
            ("memory with kernel sockets and system", &|it| format!("{:.0} MiB", it.needed / MIB)),
            ("memory of the shared-cpu-1x machine", &|it| format!("{} MB", it.machine_mb)),
            ("machine", &|it| dollars(it.machine)),
            ("egress, GB", &|it| format!("{:.1}", it.egress_gb)),
            ("egress", &|it| dollars(it.egress)),
            ("volume for one month of history, GB", &|it| format!("{:.1}", it.volume_gb)),
            ("volume", &|it| dollars(it.volume)),
            ("**total**", &|it| format!("**{}**", dollars(it.total()))),
        ],
    );
}

fn print_deployed(bills: &[Bill]) {
    print_line("## Computed: what `fly.toml` deploys, per month, when 13 months of history are there\n");
    table(
        bills,
        &[
            ("volume, GB", &|it| format!("{:.1}", it.full_gb)),
            ("14 daily snapshots, GB", &|it| format!("{:.1}", it.snapshots_gb)),
            ("**512 MB machine, egress, volume and snapshots**", &|it| {
                format!("**{}**", dollars(it.deployed))
            }),
        ],
    );
}

fn print_old(bills: &[Bill]) {
    print_line("## Compared with the old design\n");
    table(
        bills,
        &[
            ("old: heartbeats per day", &|it| count(it.day.visitors as f64 * old::HEARTBEATS)),
            ("old: key-value reads per day", &|it| count(it.day.visitors as f64 * old::HEARTBEATS)),
            ("old: key-value writes per day", &|it| count(it.day.visitors as f64 * old::HEARTBEATS)),
            ("old: cost per month", &|it| dollars(it.old)),
            ("new: cost per month", &|it| dollars(it.total())),
            ("old / new", &|it| format!("{:.0} x", it.old / it.total())),
        ],
    );
}

fn print_notes() {
    print_line("Notes:\n");
    print_line(format_args!(
        "- Measured: messages, bytes, transactions (the hub's own counter of flushes), rows, growth, CPU and memory. Each run \
         checks\n  that every visitor has the last state of the room, and that every page view and watch session is in \
         SQLite.\n\
         - Computed: days from runs, months of 30 days, machines, prices. The memory of a machine is that of the process, \
         3.7 KB of\n  kernel memory for each socket, and 64 MiB for the system; at most {:.0} % of a machine is used. \
         Egress is the measured\n  bytes and 78 B for each message, for TCP, IP and acknowledgements, without TLS.",
        FULL * 100.0
    ));
    print_line(format_args!(
        "- Prices: shared-cpu-1x with 256 MB {}, {} for each additional GB of memory, {} for a GB of volume, {} for a \
         GB of\n  egress (North America, Europe), {} for a GB of snapshots beyond {:.0} GB. Fly's prices of machines \
         depend on the region;\n  these are of its cheapest ones, and Frankfurt (`fra` in `fly.toml`) costs more. \
         Snapshots are computed as incremental.",
        dollars(price::MACHINE),
        dollars(price::MEMORY),
        dollars(price::VOLUME),
        dollars(price::EGRESS),
        dollars(price::SNAPSHOT),
        price::FREE_SNAPSHOTS
    ));
    print_line(format_args!(
        "- The old design is not measured here. It has {} heartbeats per visitor and day, each with a key-value read \
         ($0.50 a\n  million), a write ($5.00) and a request ($0.50). Its operators estimated \
         about\n  $13, $156, $1,560 and $15,600 a month. Its database version read 15 billion rows in two days; here \
         presence reads none.",
        old::HEARTBEATS
    ));
    print_line(
        "- The cost of a change of mood grows with the room, because it is broadcast to all of its visitors. In one room of \
         10,000 the hub\n  coalesces the changes of half a second or more, so it broadcasts at most 2 states a second \
         (computed).",
    );
}

fn table(bills: &[Bill], rows: &[(&str, Cell<'_>)]) {
    let visitors: Vec<String> = bills.iter().map(|bill| count(bill.day.visitors as f64)).collect();
    print_line(format_args!("| visitors | {} |", visitors.join(" | ")));
    print_line(format_args!("| :--- |{}", " ---: |".repeat(bills.len())));
    for (name, cell) in rows {
        let cells: Vec<String> = bills.iter().map(cell).collect();
        print_line(format_args!("| {name} | {} |", cells.join(" | ")));
    }
    print_line("");
}

/// A whole number with commas.
fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let from_end = |(at, digit): (usize, char)| {
        let comma = at > 0 && (digits.len() - at).is_multiple_of(3);
        [comma.then_some(','), Some(digit)]
    };
    digits.chars().enumerate().flat_map(from_end).flatten().collect()
}

fn bytes(number: f64) -> String {
    match number {
        ..50e3 => "< 0.1 MB".to_owned(),
        ..GB => format!("{:.1} MB", number / 1e6),
        _ => format!("{:.2} GB", number / GB),
    }
}

fn dollars(number: f64) -> String {
    if number >= 1_000.0 { format!("${}", count(number)) } else { format!("${number:.2}") }
}
