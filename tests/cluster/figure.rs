//! Figures of the scenarios: how long they run, what they measured, and the table of `make cluster-test`.

use std::fmt::Write;

/// How long a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// In `make test`: a few rounds, whose figures have no bars.
    Short,
    /// In `make cluster-test`.
    Long,
}

impl Scale {
    /// The value of this scale.
    pub fn of<T>(self, short: T, long: T) -> T {
        if self == Self::Short { short } else { long }
    }
}

/// A figure that a scenario measured, with the bar that it may not exceed.
#[derive(Debug, Clone)]
pub struct Figure {
    scenario: &'static str,
    name: &'static str,
    values: Vec<f64>,
    unit: &'static str,
    bar: f64,
}

impl Figure {
    /// Durations in milliseconds, of which the 99th percentile counts.
    pub fn millis(scenario: &'static str, name: &'static str, values: Vec<f64>, bar: f64) -> Self {
        Self { scenario, name, values, unit: "ms", bar }
    }

    /// The nearest-rank quantile.
    fn quantile(&self, quantile: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
        let rank = (quantile * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// Whether the 99th percentile is within the bar.
    pub fn is_within_bar(&self) -> bool {
        self.quantile(0.99) <= self.bar
    }
}

/// A Markdown table of all figures.
pub fn table(figures: &[Figure]) -> String {
    let mut table = "| scenario | figure | rounds | median | p99 | bar | |\n| --- | --- | --- | --- | --- | --- | --- |\n".to_owned();
    for figure in figures {
        let Figure { scenario, name, values, unit, bar } = figure;
        let verdict = if figure.is_within_bar() { "ok" } else { "MISSED" };
        let (median, p99) = (figure.quantile(0.5), figure.quantile(0.99));
        let rounds = values.len();
        writeln!(
            table,
            "| {scenario} | {name} | {rounds} | {median:.0} {unit} | {p99:.0} {unit} | {bar:.0} {unit} | {verdict} |"
        )
        .unwrap();
    }
    table
}
