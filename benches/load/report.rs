//! The table: each figure of all rounds in one line, ratios first, and whether it meets its bar.
//!
//! Where two programs ran in turn, the ratio of a median is the median of the rounds' ratios, so that a
//! machine that becomes slower meanwhile does not count. The floor's own spread says how noisy it was.

use std::fs;

use crate::figure::{Bar, Figure, Sample, Unit, median, quantile};
use crate::say;

/// What was measured of one figure, a list for each round.
#[derive(Debug, Default, Clone)]
struct Column(Vec<Vec<f64>>);

impl Column {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rounds' own values of a figure that is a median.
    fn rounds(&self) -> Vec<f64> {
        self.0.iter().filter_map(|round| median(round)).collect()
    }

    fn value(&self, figure: &Figure) -> Option<f64> {
        if figure.quantile > 0.5 {
            quantile(&self.0.concat(), figure.quantile)
        } else {
            median(&self.rounds())
        }
    }

    /// How many times what `other` needs.
    fn times(&self, other: &Self, figure: &Figure) -> Option<f64> {
        if figure.quantile > 0.5 {
            Some(self.value(figure)? / other.value(figure)?)
        } else {
            let ratios: Vec<f64> = self.rounds().iter().zip(other.rounds()).map(|(a, b)| a / b).collect();
            median(&ratios)
        }
    }

    /// From the least to the most, as a part of the median.
    fn spread(&self) -> Option<f64> {
        let rounds = self.rounds();
        let (least, most) = (quantile(&rounds, 0.0)?, quantile(&rounds, 1.0)?);
        (rounds.len() > 1).then_some((most - least) / median(&rounds)?)
    }
}

/// The columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Hub,
    /// The hub that the first one is compared with.
    Other,
    Floor,
}

#[derive(Debug)]
struct Row {
    figure: &'static Figure,
    hub: Column,
    other: Column,
    floor: Column,
}

/// All rows so far.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Takes in one round's samples.
    pub(crate) fn take(&mut self, role: Role, samples: Vec<Sample>) {
        for Sample { figure, values } in samples {
            let at = self.0.iter().position(|row| std::ptr::eq(row.figure, figure)).unwrap_or_else(|| {
                let (hub, other, floor) = (Column::default(), Column::default(), Column::default());
                self.0.push(Row { figure, hub, other, floor });
                self.0.len() - 1
            });
            let row = &mut self.0[at];
            let column = match role {
                Role::Hub => &mut row.hub,
                Role::Other => &mut row.other,
                Role::Floor => &mut row.floor,
            };
            column.0.push(values);
        }
    }

    pub(crate) fn print(&self) {
        let with_other = self.0.iter().any(|row| !row.other.is_empty());
        let other =
            if with_other { format!(" {:>10} {:>10}", "other hub", "hub/other") } else { String::new() };
        say(format_args!(
            "\n{:>9} {:>8} {:4} {:>10} {:>10}{other}  {:>7}  figure",
            "hub/floor", "bar", "", "hub", "floor", "spread"
        ));
        let (ratios, plain): (Vec<&Row>, Vec<&Row>) = self.0.iter().partition(|row| !row.floor.is_empty());
        for row in ratios.into_iter().chain(plain) {
            row.print(with_other);
        }
    }

    /// How much the floor's own figures differ from round to round.
    pub(crate) fn print_noise(&self) {
        for row in &self.0 {
            if let Some(spread) = row.floor.spread() {
                let name = row.figure.name;
                let rounds = row.floor.rounds().len();
                say(format_args!(
                    "Noise: over {rounds} rounds the floor's own {name} differed by {:.0} % of its median.",
                    spread * 100.0
                ));
            }
        }
    }
}

impl Row {
    fn print(&self, with_other: bool) {
        let Self { figure, hub, other, floor } = self;
        let show = |unit: Unit, value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| unit.show(it));
        let ratio = hub.times(floor, figure);
        let (bar, met) = match figure.bar {
            Bar::None => (String::new(), None),
            Bar::AtMost(most) => (figure.unit.show(most), hub.value(figure).map(|value| value <= most)),
            Bar::FloorTimes(most) => (Unit::Times.show(most), ratio.map(|ratio| ratio <= most)),
        };
        let mark = met.map_or("", |met| if met { "ok" } else { "OVER" });
        let compared = if with_other {
            let value = show(figure.unit, other.value(figure));
            format!(" {value:>10} {:>10}", show(Unit::Times, hub.times(other, figure)))
        } else {
            String::new()
        };
        let spread = hub.spread().map_or_else(|| "-".to_owned(), |spread| format!("{:.0} %", spread * 100.0));
        say(format_args!(
            "{:>9} {bar:>8} {mark:4} {:>10} {:>10}{compared}  {spread:>7}  {}: {}",
            show(Unit::Times, ratio),
            show(figure.unit, hub.value(figure)),
            show(figure.unit, floor.value(figure)),
            figure.scenario,
            figure.name,
        ));
    }
}

/// One line about this machine, and the date.
pub(crate) fn print_machine() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    #[expect(clippy::disallowed_methods, reason = "a date for people; the tool has no clock to set")]
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
    say(format_args!(
        "{cores} cores, {}, Linux {}, {now}, load before {}",
        model.unwrap_or("?"),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    ));
}
