//! The table: one line for each figure over all rounds, with its ratio, its bar and the result.
//!
//! Programs run in turn, and the ratio of a median is the median of the rounds' ratios, so that a machine
//! that slows down during the run does not change it. The floor's own spread shows the noise.

use std::fs;

use crate::figure::{Bar, Figure, Sample, Unit, median, quantile};
use crate::peer::Peer;
use crate::print_line;

/// The samples of one figure, a list for each round.
#[derive(Debug, Default, Clone)]
struct Column(Vec<Vec<f64>>);

impl Column {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The median of each round.
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

    /// The ratio of this column to another.
    fn ratio(&self, other: &Self, figure: &Figure) -> Option<f64> {
        if figure.quantile > 0.5 {
            Some(self.value(figure)? / other.value(figure)?)
        } else {
            let ratios: Vec<f64> = self.rounds().iter().zip(other.rounds()).map(|(a, b)| a / b).collect();
            median(&ratios)
        }
    }

    /// The range of the rounds, as a part of their median.
    fn spread(&self) -> Option<f64> {
        let rounds = self.rounds();
        let (least, most) = (quantile(&rounds, 0.0)?, quantile(&rounds, 1.0)?);
        (rounds.len() > 1).then_some((most - least) / median(&rounds)?)
    }
}

/// The programs that are compared, in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Hub,
    Floor,
    /// The hub of `--against`.
    Other,
    Ws,
    Bun,
}

impl Role {
    const ALL: [Self; 5] = [Self::Hub, Self::Floor, Self::Other, Self::Ws, Self::Bun];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Floor => "floor",
            Self::Other => "other hub",
            Self::Ws => "ws",
            Self::Bun => "bun",
        }
    }

    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Ws | Self::Bun)
    }
}

impl From<Peer> for Role {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Ws => Self::Ws,
            Peer::Bun => Self::Bun,
        }
    }
}

#[derive(Debug)]
struct Row {
    figure: &'static Figure,
    /// By role.
    columns: [Column; Role::ALL.len()],
}

/// A scenario that a peer failed.
#[derive(Debug)]
struct Failed {
    role: Role,
    scenario: &'static str,
    reason: String,
}

/// All rows so far.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    failed: Vec<Failed>,
}

impl Table {
    /// Adds the samples of one round.
    pub(crate) fn add(&mut self, role: Role, samples: Vec<Sample>) {
        for Sample { figure, values } in samples {
            let at = self.rows.iter().position(|row| std::ptr::eq(row.figure, figure)).unwrap_or_else(|| {
                self.rows.push(Row { figure, columns: Default::default() });
                self.rows.len() - 1
            });
            self.rows[at].columns[role as usize].0.push(values);
        }
    }

    /// Marks a peer's figures of a scenario as failed.
    pub(crate) fn fail(&mut self, role: Role, scenario: &'static str, reason: String) {
        self.failed.push(Failed { role, scenario, reason });
    }

    pub(crate) fn has_failed(&self, role: Role, scenario: &str) -> bool {
        self.failed.iter().any(|failed| failed.role == role && failed.scenario == scenario)
    }

    pub(crate) fn print(&self) {
        let is_used = |role: &Role| {
            self.rows.iter().any(|row| !row.column(*role).is_empty())
                || self.failed.iter().any(|failed| failed.role == *role)
        };
        let roles: Vec<Role> = Role::ALL.into_iter().filter(is_used).collect();
        let with_other = roles.contains(&Role::Other);
        let names = roles.iter().map(|role| format!(" {:>10}", role.name())).collect::<Vec<_>>().concat();
        let ratio = if with_other { format!(" {:>9}", "hub/other") } else { String::new() };
        print_line(format_args!(
            "\n{:>9}{ratio} {:>8} {:4}{names}  {:>7}  figure",
            "hub/floor", "bar", "", "spread"
        ));
        let (ratios, plain): (Vec<&Row>, Vec<&Row>) =
            self.rows.iter().partition(|row| !row.column(Role::Floor).is_empty());
        for row in ratios.into_iter().chain(plain) {
            self.print_row(row, &roles);
        }
        for row in &self.rows {
            row.print_bun();
        }
        for Failed { role, scenario, reason } in &self.failed {
            print_line(format_args!("FAILED: {} in {scenario}: {reason}", role.name()));
        }
    }

    fn print_row(&self, row: &Row, roles: &[Role]) {
        let figure = row.figure;
        let cell = |role: &Role| {
            let value = if self.has_failed(*role, figure.scenario) {
                "failed".to_owned()
            } else {
                format(figure.unit, row.column(*role).value(figure))
            };
            format!(" {value:>10}")
        };
        let hub = row.column(Role::Hub);
        let ratio = hub.ratio(row.column(Role::Floor), figure);
        let (bar, is_met) = match figure.bar {
            Bar::None => (String::new(), None),
            Bar::AtMost(most) => (figure.unit.format(most), hub.value(figure).map(|value| value <= most)),
            Bar::FloorTimes(most) | Bar::FloorTimesAndBun(most) => {
                (Unit::Times.format(most), ratio.map(|ratio| ratio <= most))
            }
        };
        let mark = is_met.map_or("", |met| if met { "ok" } else { "OVER" });
        let spread = hub.spread().map_or_else(|| "-".to_owned(), |spread| format!("{:.0} %", spread * 100.0));
        let other = roles
            .contains(&Role::Other)
            .then(|| format!(" {:>9}", format(Unit::Times, hub.ratio(row.column(Role::Other), figure))));
        print_line(format_args!(
            "{:>9}{} {bar:>8} {mark:4}{}  {spread:>7}  {}: {}",
            format(Unit::Times, ratio),
            other.unwrap_or_default(),
            roles.iter().map(cell).collect::<Vec<_>>().concat(),
            figure.scenario,
            figure.name,
        ));
    }

    /// Prints how much the floor's own figures differ from round to round.
    pub(crate) fn print_noise(&self) {
        for row in &self.rows {
            let floor = row.column(Role::Floor);
            if let Some(spread) = floor.spread() {
                print_line(format_args!(
                    "Noise: over {} rounds the floor's {}: {} has a spread of {:.0} % of its median.",
                    floor.rounds().len(),
                    row.figure.scenario,
                    row.figure.name,
                    spread * 100.0
                ));
            }
        }
    }
}

impl Row {
    fn column(&self, role: Role) -> &Column {
        &self.columns[role as usize]
    }

    /// Prints the second bar of a figure that has to be below Bun's.
    fn print_bun(&self) {
        let Self { figure, .. } = self;
        let ratio = self.column(Role::Hub).ratio(self.column(Role::Bun), figure);
        if let (Bar::FloorTimesAndBun(_), Some(ratio)) = (figure.bar, ratio) {
            let mark = if ratio <= 1.0 { "ok" } else { "OVER" };
            print_line(format_args!(
                "{}: {}: {ratio:.2} times Bun's, bar 1.00 x {mark}",
                figure.scenario, figure.name
            ));
        }
    }
}

fn format(unit: Unit, value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| unit.format(value))
}

/// Prints the machine and the date in one line.
pub(crate) fn print_machine() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    #[expect(clippy::disallowed_methods, reason = "a date to print; the tool has no Clock")]
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
    print_line(format_args!(
        "{cores} cores, {}, Linux {}, {now}, load average before the run {}",
        model.unwrap_or("?"),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    ));
}
