//! The figures of one phase of a run, the two tables of all phases, and the bars.
//!
//! A phase is the quiet time, a minute of the attacks, or the time after them.

use super::http_clients::Reply;
use super::members::{MEMBERS, ROOMS};
use crate::figure::quantile;
use crate::print_line;

/// The hub's default `LEAVE_GRACE` in milliseconds: a group that takes longer was handled as lost.
const GRACE: f64 = 3_000.0;

/// One line of each table.
#[derive(Default)]
pub(super) struct Phase {
    pub(super) name: String,
    /// From a mood change until each member of the room has it, in milliseconds.
    pub(super) latencies: Vec<f64>,
    /// From the leave of a group until the room has it, in milliseconds.
    pub(super) leaves: Vec<f64>,
    /// Round trips of the loopback probe, in milliseconds.
    pub(super) loopback: Vec<f64>,
    pub(super) health: Vec<Reply>,
    pub(super) durable: Vec<Reply>,
    /// In percent of a core.
    pub(super) cpu: f64,
    /// The largest of the samples, one each second, in bytes.
    pub(super) rss: f64,
    pub(super) sockets: f64,
    pub(super) connections: f64,
}

impl Phase {
    pub(super) fn p99(&self) -> f64 {
        at(&self.latencies, 0.99)
    }

    fn print_members(&self, quiet: f64) {
        print_line(format_args!(
            "| {} | {:.2} ms | {:.2} ms | {:.1} ms | {:.2} x | {:.2} ms | {:.0} % | {:.1} MB | {} | {} |",
            self.name,
            at(&self.latencies, 0.5),
            self.p99(),
            at(&self.latencies, 1.0),
            self.p99() / quiet,
            at(&self.loopback, 0.99),
            self.cpu,
            self.rss / 1e6,
            self.sockets,
            self.connections,
        ));
    }

    fn print_clients(&self) {
        let (health, durable) = (times(&self.health), times(&self.durable));
        let degraded = self.health.iter().filter(|reply| reply.result == Ok(503)).count();
        print_line(format_args!(
            "| {} | {:.1} ms | {:.1} ms | {degraded} | {} | {:.0} ms | {:.0} ms | {} | {} | {:.0} ms | {:.0} ms | {} |",
            self.name,
            at(&health, 0.99),
            at(&health, 1.0),
            durable.len(),
            at(&durable, 0.99),
            at(&durable, 1.0),
            rejected(&self.durable),
            self.leaves.len(),
            at(&self.leaves, 0.99),
            at(&self.leaves, 1.0),
            late(&self.leaves),
        ));
    }
}

/// The quantile of the values; 0 where there are none.
pub(super) fn at(values: &[f64], part: f64) -> f64 {
    quantile(values, part).unwrap_or_default()
}

/// The times in milliseconds; infinity for a request without a response.
pub(super) fn times(replys: &[Reply]) -> Vec<f64> {
    let time = |reply: &Reply| if reply.result.is_ok() { reply.millis } else { f64::INFINITY };
    replys.iter().map(time).collect()
}

pub(super) fn rejected(replys: &[Reply]) -> usize {
    replys.iter().filter(|reply| !reply.is_ok()).count()
}

/// The groups with a member who was counted until the end of the leave grace.
pub(super) fn late(leaves: &[f64]) -> usize {
    leaves.iter().filter(|millis| **millis >= GRACE).count()
}

pub(super) fn print(phases: &[Phase]) {
    let quiet = phases.first().map(Phase::p99).unwrap_or_default();
    print_line(format_args!(
        "\n{MEMBERS} honest members in {ROOMS} rooms: from a mood change until each member of the room has it.\n"
    ));
    print_line(
        "| phase | p50 | p99 | max | p99 to quiet | loopback, p99 | CPU, of a core | memory | sockets | other connections |",
    );
    print_line("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for phase in phases {
        phase.print_members(quiet);
    }
    print_line("\nHonest HTTP clients, and groups of honest members that leave at once with 1000.\n");
    print_line(
        "| phase | `/health`, p99 | max | degraded | durable posts | p99 | max | rejected | groups | leave, p99 | max | late |",
    );
    print_line("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for phase in phases {
        phase.print_clients();
    }
}

/// A measured value and its upper limit, in the same unit.
pub(super) struct Bar {
    pub(super) name: &'static str,
    pub(super) measured: f64,
    pub(super) most: f64,
    /// With a leading space, unless it is empty.
    pub(super) unit: &'static str,
}

impl Bar {
    pub(super) fn is_met(&self) -> bool {
        self.measured <= self.most
    }
}

/// Prints all bars. Returns whether all are met.
pub(super) fn print_bars(bars: &[Bar]) -> bool {
    print_line("\n| bar | measured | at most | |\n| --- | ---: | ---: | --- |");
    for bar in bars {
        let Bar { name, measured, most, unit } = bar;
        let digits = usize::from(!unit.is_empty());
        let mark = if bar.is_met() { "ok" } else { "OVER" };
        print_line(format_args!("| {name} | {measured:.digits$}{unit} | {most}{unit} | {mark} |"));
    }
    bars.iter().all(Bar::is_met)
}
