//! The maintenance plan: what is due at a time, by the state of each month.
//!
//! Months are UTC, as partitions are. Pure.

use std::fmt;
use std::str::FromStr;

use crate::history::calendar::{DAY_MS, Month, months_before};
use crate::history::store::MonthState;
use crate::protocol::Time;

/// Retention of rollups of quarter hours, in milliseconds: 90 days.
const QUARTERS_RETENTION_MS: u64 = 90 * DAY_MS;

/// How long after its end a month gets its rollup, in milliseconds. Later events cannot arrive.
const SETTLED_AFTER_MS: u64 = 8 * DAY_MS;

/// How long raw rows stay in the database after their month is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// No limit.
    Forever,
    /// A number of months.
    Months(u16),
}

impl Default for Retention {
    fn default() -> Self {
        Self::Months(13)
    }
}

/// A text is no retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a number of months from 1 to 1200 such as 13months, or forever")]
pub struct BadRetention;

impl FromStr for Retention {
    type Err = BadRetention;

    fn from_str(text: &str) -> Result<Self, BadRetention> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let number = text.strip_suffix("months").or(text.strip_suffix("month")).unwrap_or(text);
        match number.trim_end().parse() {
            Ok(months @ 1..=1200) => Ok(Self::Months(months)),
            _ => Err(BadRetention),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::Months(months) => write!(f, "{months}months"),
        }
    }
}

/// The start of quarter-hour rollups in a database that is new at `now`.
#[must_use]
pub fn quarters_from(now: Time) -> Time {
    now.minus(QUARTERS_RETENTION_MS)
}

/// The months to process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MaintenancePlan {
    /// Months that are over and have no rollup.
    pub(super) sum: Vec<Month>,
    /// Archived months that have rows in the tables again, or rollups to rebuild after an erasure.
    pub(super) restore: Vec<Month>,
    /// Months to settle, after the restores, and whether they are over.
    pub(super) settle: Vec<(Month, bool)>,
    /// Months whose records are not summed up, after the restores.
    pub(super) sum_records: Vec<Month>,
    /// Months to archive, after the restores, since a month may be in both lists.
    pub(super) archive: Vec<Month>,
}

impl MaintenancePlan {
    pub(super) fn new(now: Time, retention: Retention, months: &[MonthState]) -> Self {
        let those = |is_due: &dyn Fn(&MonthState) -> bool| {
            months.iter().filter(|state| is_due(state)).map(|state| state.month).collect()
        };
        let is_over_by = |state: &MonthState, time: Time| state.month.next().start() <= time;
        let settled = now.minus(SETTLED_AFTER_MS);
        let retained_from = match retention {
            Retention::Forever => Time::from_millis(0),
            Retention::Months(months) => months_before(now, months),
        };
        let settle = |state: &MonthState| {
            let is_over = is_over_by(state, settled);
            let is_due = is_over && state.dimensions.settled != Some(state.changes);
            (is_due || state.needs_rebuild() && state.is_live).then_some((state.month, is_over))
        };
        Self {
            settle: months.iter().filter_map(settle).collect(),
            sum: those(&|state| !state.is_summed && is_over_by(state, settled)),
            restore: those(&|state| {
                let is_stale = state.dimensions.is_folded && state.needs_rebuild();
                state.archive.is_some() && (state.is_live || is_stale)
            }),
            sum_records: those(&|state| !state.has_record_sum),
            archive: those(&|state| state.is_live && is_over_by(state, retained_from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::calendar::time;
    use crate::history::store::months::{Archive, DimensionState};

    fn at(text: &str) -> Time {
        time(text.parse().unwrap())
    }

    fn month(name: &str) -> Month {
        name.parse().unwrap()
    }

    fn state(name: &str, is_live: bool, is_summed: bool, is_archived: bool) -> MonthState {
        let archive =
            is_archived.then(|| Archive { name: String::new(), checksum: String::new(), restored: 0 });
        let dimensions = DimensionState { settled: Some(1), ..DimensionState::default() };
        let has_record_sum = true;
        MonthState { month: month(name), is_live, changes: 1, is_summed, dimensions, archive, has_record_sum }
    }

    #[test]
    fn month_gets_its_rollup_when_events_can_no_longer_arrive() {
        let months = [state("2024-01", true, true, false), state("2024-02", true, false, false)];
        let sum = |now| MaintenancePlan::new(at(now), Retention::Forever, &months).sum;
        assert_eq!(sum("2024-03-08T23:59:59Z"), []);
        assert_eq!(sum("2024-03-09T00:00:00Z"), [month("2024-02")]); // 8 days after a leap year's February
    }

    #[test]
    fn month_is_archived_after_its_retention() {
        let months = ["2024-01", "2024-02", "2024-03"].map(|name| state(name, true, true, false));
        let due = |now, retention| MaintenancePlan::new(at(now), retention, &months).archive;
        let retention = Retention::Months(13);
        assert_eq!(due("2025-02-28T23:59:59Z", retention), []);
        assert_eq!(due("2025-03-01T00:00:00Z", retention), [month("2024-01")]);
        assert_eq!(due("2025-04-01T00:00:00Z", retention), [month("2024-01"), month("2024-02")]);
        assert_eq!(due("9999-01-01T00:00:00Z", Retention::Forever), []);
        assert_eq!(due("2024-03-01T00:00:00Z", Retention::Months(1)), [month("2024-01")]);
    }

    #[test]
    fn archived_month_with_late_rows_is_restored_and_archived() {
        let months = [state("2024-01", true, true, true), state("2024-02", false, true, true)];
        let plan = MaintenancePlan::new(at("2026-01-01T00:00:00Z"), Retention::default(), &months);
        assert_eq!((plan.restore, plan.archive), (vec![month("2024-01")], vec![month("2024-01")]));
    }

    #[test]
    fn month_is_settled_when_it_is_over_and_again_after_each_change() {
        let due = |now: &str, dimensions: DimensionState| {
            let state = MonthState { dimensions, ..state("2024-02", true, true, false) };
            MaintenancePlan::new(at(now), Retention::Forever, &[state]).settle
        };
        let with = |settled, is_folded, counted| DimensionState { settled, is_folded, counted };
        let is_over = vec![(month("2024-02"), true)];
        assert_eq!(due("2024-03-08T23:59:59Z", with(None, false, None)), []);
        assert_eq!(due("2024-03-09T00:00:00Z", with(None, false, None)), is_over);
        assert_eq!(due("2024-03-09T00:00:00Z", with(Some(1), false, None)), []);
        assert_eq!(due("2024-03-09T00:00:00Z", with(Some(0), true, None)), is_over);
        assert_eq!(
            due("2024-02-09T00:00:00Z", with(None, false, Some(vec![0]))),
            [(month("2024-02"), false)]
        );
    }

    #[test]
    fn retention_parses_months_and_forever() {
        for (text, retention) in [("13months", 13), ("1month", 1), ("24", 24), ("6 months", 6)] {
            assert_eq!(text.parse(), Ok(Retention::Months(retention)));
        }
        assert_eq!("forever".parse(), Ok(Retention::Forever));
        for bad in ["", "0", "0months", "months", "400d", "-1", "1201", "ever"] {
            assert_eq!(bad.parse::<Retention>(), Err(BadRetention), "{bad}");
        }
        assert_eq!(Retention::default().to_string().parse(), Ok(Retention::default()));
    }
}
