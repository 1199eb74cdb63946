//! Figures: what is measured, in which unit, and the bar.
//!
//! A scenario runs in several rounds, and each round gives samples. A figure is the median, or the 99th
//! percentile, over all rounds. This module does not know how the samples are measured.

use std::time::Duration;

/// The limit of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    /// No limit.
    None,
    /// At most this, in the figure's unit.
    AtMost(f64),
    /// At most this many times the floor's figure.
    FloorTimes(f64),
    /// The same, and at most Bun's figure where `--peers` measures it.
    FloorTimesAndBun(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Micros,
    Millis,
    Bytes,
    Percent,
    Frames,
    Times,
}

impl Unit {
    pub(crate) fn format(self, value: f64) -> String {
        match self {
            Self::Micros => format!("{value:.2} µs"),
            Self::Millis => format!("{value:.1} ms"),
            Self::Bytes => format!("{value:.0} B"),
            Self::Percent => format!("{value:.2} %"),
            Self::Frames => format!("{value:.1}"),
            Self::Times => format!("{value:.2} x"),
        }
    }
}

/// One kind of figure. Each is a constant beside the scenario that measures it.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) scenario: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// 0.5: the median of the rounds. 0.99: the percentile over the pooled samples of all rounds.
    pub(crate) quantile: f64,
    pub(crate) bar: Bar,
}

/// The values of a figure in one round: one value, or all values where they are pooled.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) figure: &'static Figure,
    pub(crate) values: Vec<f64>,
}

impl Figure {
    pub(crate) fn value(&'static self, value: f64) -> Sample {
        Sample { figure: self, values: vec![value] }
    }

    pub(crate) fn values(&'static self, values: &[f64]) -> Sample {
        Sample { figure: self, values: values.to_vec() }
    }
}

/// The middle value, or the mean of the two middle values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let reversed: Vec<f64> = values.iter().map(|value| -value).collect();
    Some(f64::midpoint(quantile(values, 0.5)?, -quantile(&reversed, 0.5)?))
}

/// The smallest value that is at or above this part of the values (nearest rank).
pub(crate) fn quantile(values: &[f64], quantile: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a short list")]
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
