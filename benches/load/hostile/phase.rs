//! What was measured in one stretch of time, the two tables of all of them, and the bars.

use super::http_clients::Answer;
use super::members::{MEMBERS, ROOMS};
use crate::figure::quantile;
use crate::say;

/// The hub's default `LEAVE_GRACE`, in milliseconds: who leaves is gone before, who is lost is not.
const GRACE: f64 = 3_000.0;

/// One line of the tables.
#[derive(Default)]
pub(super) struct Line {
    pub(super) name: String,
    /// Milliseconds from a change of mood until each member of the room is told.
    pub(super) latencies: Vec<f64>,
    /// Milliseconds until the room is told that a group has left.
    pub(super) leaves: Vec<f64>,
    /// What the machine takes by itself.
    pub(super) echo: Vec<f64>,
    pub(super) health: Vec<Answer>,
    pub(super) durable: Vec<Answer>,
    /// Percent of a core.
    pub(super) cpu: f64,
    /// Bytes, the most of any second.
    pub(super) rss: f64,
    pub(super) sockets: f64,
    pub(super) connections: f64,
}

impl Line {
    pub(super) fn p99(&self) -> f64 {
        at(&self.latencies, 0.99)
    }

    fn print_members(&self, quiet: f64) {
        say(format_args!(
            "| {} | {:.2} ms | {:.2} ms | {:.1} ms | {:.2} x | {:.2} ms | {:.0} % | {:.1} MB | {} | {} |",
            self.name,
            at(&self.latencies, 0.5),
            self.p99(),
            at(&self.latencies, 1.0),
            self.p99() / quiet,
            at(&self.echo, 0.99),
            self.cpu,
            self.rss / 1e6,
            self.sockets,
            self.connections,
        ));
    }

    fn print_honest(&self) {
        let (health, durable) = (times(&self.health), times(&self.durable));
        let degraded = self.health.iter().filter(|answer| answer.result == Ok(503)).count();
        say(format_args!(
            "| {} | {:.1} ms | {:.1} ms | {degraded} | {} | {:.0} ms | {:.0} ms | {} | {} | {:.0} ms | {:.0} ms | {} |",
            self.name,
            at(&health, 0.99),
            at(&health, 1.0),
            durable.len(),
            at(&durable, 0.99),
            at(&durable, 1.0),
            not_taken(&self.durable),
            self.leaves.len(),
            at(&self.leaves, 0.99),
            at(&self.leaves, 1.0),
            late(&self.leaves),
        ));
    }
}

/// The value of this quantile, or 0 where there is none.
pub(super) fn at(values: &[f64], part: f64) -> f64 {
    quantile(values, part).unwrap_or_default()
}

/// Milliseconds; one without an answer waits for ever.
pub(super) fn times(answers: &[Answer]) -> Vec<f64> {
    let time = |answer: &Answer| if answer.result.is_ok() { answer.millis } else { f64::INFINITY };
    answers.iter().map(time).collect()
}

pub(super) fn not_taken(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| !answer.is_ok()).count()
}

/// Groups of which somebody was counted until the leave grace was over.
pub(super) fn late(leaves: &[f64]) -> usize {
    leaves.iter().filter(|millis| **millis >= GRACE).count()
}

pub(super) fn print(lines: &[Line]) {
    let quiet = lines.first().map(Line::p99).unwrap_or_default();
    say(format_args!(
        "\n{MEMBERS} good members in {ROOMS} rooms: from a change of mood until each member of the room is told.\n"
    ));
    say(
        "| time | p50 | p99 | max | p99 to quiet | echo, p99 | CPU, of a core | memory | sockets | other connections |",
    );
    say("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for line in lines {
        line.print_members(quiet);
    }
    say("\nHonest clients over HTTP, and groups of good members that leave at once with 1000.\n");
    say(
        "| time | `/health`, p99 | max | degraded | durable posts | p99 | max | not taken | groups | told, p99 | max | late |",
    );
    say("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for line in lines {
        line.print_honest();
    }
}

/// Something that must not be more than a bar, in the same unit.
pub(super) struct Bar {
    pub(super) name: &'static str,
    pub(super) measured: f64,
    pub(super) most: f64,
    /// With the space before it, where it has one.
    pub(super) unit: &'static str,
}

impl Bar {
    pub(super) fn is_met(&self) -> bool {
        self.measured <= self.most
    }
}

/// Prints all bars, and says whether all are met.
pub(super) fn print_bars(bars: &[Bar]) -> bool {
    say("\n| bar | measured | at most | |\n| --- | ---: | ---: | --- |");
    for bar in bars {
        let Bar { name, measured, most, unit } = bar;
        let digits = usize::from(!unit.is_empty());
        let mark = if bar.is_met() { "ok" } else { "OVER" };
        say(format_args!("| {name} | {measured:.digits$}{unit} | {most}{unit} | {mark} |"));
    }
    bars.iter().all(Bar::is_met)
}
