//! The plan: what is due at some moment, by the state of each month. Pure.
//!
//! Months are those of UTC, by which the raw rows are kept.

use std::fmt;
use std::str::FromStr;

use crate::history::calendar::{DAY_MS, Month, months_before};
use crate::history::store::MonthState;
use crate::protocol::Time;

/// How long rollups of quarter hours are kept, in milliseconds.
const QUARTERS_KEPT_MS: u64 = 90 * DAY_MS;

/// How long after its end a month is summed up, in milliseconds: no event comes later than this.
const SETTLED_AFTER_MS: u64 = 8 * DAY_MS;

/// How long raw rows stay in the database after their month is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// For ever.
    Forever,
    /// So many months.
    Months(u16),
}

impl Default for Retention {
    fn default() -> Self {
        Self::Months(13)
    }
}

/// Text that is no retention.
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

/// From when on a database that is new at `now` keeps rollups of quarter hours.
#[must_use]
pub fn quarters_from(now: Time) -> Time {
    now.minus(QUARTERS_KEPT_MS)
}

/// What is due at some moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MaintenancePlan {
    /// Months that are over and get a rollup.
    pub(super) sum: Vec<Month>,
    /// Archived months that have rows in the tables again.
    pub(super) restore: Vec<Month>,
    /// Months that go to archives, after those that are restored: some may be both.
    pub(super) archive: Vec<Month>,
}

impl MaintenancePlan {
    pub(super) fn new(now: Time, retention: Retention, months: &[MonthState]) -> Self {
        let those = |is_due: &dyn Fn(&MonthState) -> bool| {
            months.iter().filter(|state| is_due(state)).map(|state| state.month).collect()
        };
        let is_over_by = |state: &MonthState, time: Time| state.month.next().start() <= time;
        let settled = now.minus(SETTLED_AFTER_MS);
        let kept_from = match retention {
            Retention::Forever => Time::from_millis(0),
            Retention::Months(months) => months_before(now, months),
        };
        Self {
            sum: those(&|state| !state.is_summed && is_over_by(state, settled)),
            restore: those(&|state| state.is_live && state.archive.is_some()),
            archive: those(&|state| state.is_live && is_over_by(state, kept_from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::calendar::time;
    use crate::history::store::months::Archive;

    fn at(text: &str) -> Time {
        time(text.parse().unwrap())
    }

    fn month(name: &str) -> Month {
        name.parse().unwrap()
    }

    fn state(name: &str, is_live: bool, is_summed: bool, is_archived: bool) -> MonthState {
        let archive =
            is_archived.then(|| Archive { name: String::new(), checksum: String::new(), restored: 0 });
        MonthState { month: month(name), is_live, changes: 1, is_summed, archive }
    }

    #[test]
    fn months_are_summed_when_no_event_can_come_any_more() {
        let months = [state("2024-01", true, true, false), state("2024-02", true, false, false)];
        let sum = |now| MaintenancePlan::new(at(now), Retention::Forever, &months).sum;
        assert_eq!(sum("2024-03-08T23:59:59Z"), []);
        assert_eq!(sum("2024-03-09T00:00:00Z"), [month("2024-02")]); // 8 days after a leap year's February
    }

    #[test]
    fn months_are_archived_when_the_retention_is_over() {
        let months = ["2024-01", "2024-02", "2024-03"].map(|name| state(name, true, true, false));
        let due = |now, retention| MaintenancePlan::new(at(now), retention, &months).archive;
        let kept = Retention::Months(13);
        assert_eq!(due("2025-02-28T23:59:59Z", kept), []);
        assert_eq!(due("2025-03-01T00:00:00Z", kept), [month("2024-01")]);
        assert_eq!(due("2025-04-01T00:00:00Z", kept), [month("2024-01"), month("2024-02")]);
        assert_eq!(due("9999-01-01T00:00:00Z", Retention::Forever), []);
        assert_eq!(due("2024-03-01T00:00:00Z", Retention::Months(1)), [month("2024-01")]);
    }

    #[test]
    fn archived_months_with_late_rows_are_restored_and_archived_again() {
        let months = [state("2024-01", true, true, true), state("2024-02", false, true, true)];
        let plan = MaintenancePlan::new(at("2026-01-01T00:00:00Z"), Retention::default(), &months);
        assert_eq!((plan.restore, plan.archive), (vec![month("2024-01")], vec![month("2024-01")]));
    }

    #[test]
    fn a_retention_is_a_number_of_months() {
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
