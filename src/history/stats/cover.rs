//! The cover: the fewest rollups that make up a period. Pure.
//!
//! Where quarter-hour rollups are pruned, days of UTC are the shortest ones. A day then counts to the period that
//! contains its noon, so that it counts once.

use std::collections::BTreeSet;

use serde::Serialize;

use super::window::{Period, bound};
use crate::history::calendar::{Level, Month};
use crate::protocol::Time;

/// Which rollups exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AvailableRollups {
    /// The start of quarter-hour rollups.
    pub quarters_from: Time,
    /// Months with month rollups.
    pub months: BTreeSet<Month>,
}

/// Consecutive rollups of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    /// The length of each.
    pub level: Level,
    /// The start of the first.
    pub from: Time,
    /// The end of the last.
    pub to: Time,
}

/// Returns the rollups that make up `period`, which has bounds at quarter hours.
pub(crate) fn cover(period: Period, available: &AvailableRollups) -> Vec<Span> {
    let (mut at, to) =
        (bound(period.from, available.quarters_from), bound(period.to, available.quarters_from));
    let mut spans = Vec::<Span>::new();
    while at < to {
        let level = longest_from(at, to, available);
        let next = level.after(at);
        match spans.last_mut() {
            Some(last) if last.level == level => last.to = next,
            _ => spans.push(Span { level, from: at, to: next }),
        }
        at = next;
    }
    spans
}

fn longest_from(at: Time, to: Time, available: &AvailableRollups) -> Level {
    let fits = |level: Level| level.floor(at) == at && level.after(at) <= to;
    if fits(Level::Month) && available.months.contains(&Month::of(at)) {
        Level::Month
    } else if fits(Level::Day) {
        Level::Day
    } else {
        Level::Quarter
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::calendar::{DAY_MS, QUARTER_MS, time};

    fn at(text: &str) -> Time {
        time(text.parse().unwrap())
    }

    fn available(quarters_from: &str, months: &[&str]) -> AvailableRollups {
        let months = months.iter().map(|month| month.parse().unwrap()).collect();
        AvailableRollups { quarters_from: at(quarters_from), months }
    }

    #[test]
    fn longest_rollups_that_fit_are_used() {
        let available = available("2026-01-01T00:00:00Z", &["2026-03", "2026-04"]);
        let period = Period { from: at("2026-02-26T22:30:00Z"), to: at("2026-05-03T01:00:00Z") };
        let span = |level, from: &str, to: &str| Span { level, from: at(from), to: at(to) };
        let expected = [
            span(Level::Quarter, "2026-02-26T22:30:00Z", "2026-02-27T00:00:00Z"),
            span(Level::Day, "2026-02-27T00:00:00Z", "2026-03-01T00:00:00Z"),
            span(Level::Month, "2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z"),
            span(Level::Day, "2026-05-01T00:00:00Z", "2026-05-03T00:00:00Z"),
            span(Level::Quarter, "2026-05-03T00:00:00Z", "2026-05-03T01:00:00Z"),
        ];
        assert_eq!(cover(period, &available), expected);
    }

    #[test]
    fn old_months_of_other_zones_use_months_of_utc() {
        let available = available("2026-11-01T00:00:00Z", &["2026-03"]);
        let new_york = Period { from: at("2026-03-01T05:00:00Z"), to: at("2026-04-01T04:00:00Z") };
        let month =
            Span { level: Level::Month, from: at("2026-03-01T00:00:00Z"), to: at("2026-04-01T00:00:00Z") };
        assert_eq!(cover(new_york, &available), [month]);
    }

    proptest! {
        /// For any cuts, each quarter hour counts once, and each day where quarter hours are pruned.
        #[test]
        fn buckets_share_nothing_and_miss_nothing(
            mut cuts in proptest::collection::btree_set(0..4_000_u64, 2..12),
            horizon in 0..40_u64,
            with_month in any::<bool>(),
        ) {
            let start = at("2026-02-20T00:00:00Z");
            let available = AvailableRollups {
                quarters_from: start.plus(horizon * DAY_MS),
                months: with_month.then(|| "2026-03".parse().unwrap()).into_iter().collect(),
            };
            cuts.insert(0);
            cuts.insert(4_800);
            let cuts: Vec<Time> = cuts.into_iter().map(|quarter| start.plus(quarter * QUARTER_MS)).collect();
            let buckets = cuts.windows(2).map(|pair| Period { from: pair[0], to: pair[1] });
            let spans: Vec<Span> = buckets.flat_map(|bucket| cover(bucket, &available)).collect();
            let mut next = start;
            for span in spans {
                prop_assert_eq!(span.from, next);
                prop_assert!(span.level != Level::Quarter || span.from >= available.quarters_from);
                prop_assert!(span.level != Level::Month || with_month);
                prop_assert_eq!(span.level.floor(span.from), span.from);
                next = span.to;
            }
            prop_assert_eq!(next, *cuts.last().unwrap());
        }
    }
}
