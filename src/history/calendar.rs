//! Periods of UTC time for rollups and partitions: quarter hours, days and months.
//!
//! All time zones in use differ from UTC by a multiple of 15 minutes, so each local hour or day is a whole number of
//! quarter hours. Pure; knows no time zones.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Serialize, Serializer};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::protocol::Time;
use crate::protocol::schema::{schema, text_like};

/// A quarter of an hour, in milliseconds.
pub(crate) const QUARTER_MS: u64 = 15 * 60 * 1000;

/// An hour, in milliseconds.
pub(crate) const HOUR_MS: u64 = 4 * QUARTER_MS;

/// A day of UTC, in milliseconds. All have the same length.
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;

/// The length of a rollup's period. Each is a whole number of the previous one.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Level {
    /// 15 minutes.
    Quarter,
    /// A day of UTC.
    Day,
    /// A calendar month of UTC.
    Month,
}

impl Level {
    /// The level's name in the database.
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    /// The start of the period that contains `time`.
    pub(crate) fn floor(self, time: Time) -> Time {
        match self {
            Self::Quarter => time.minus(time.millis() % QUARTER_MS),
            Self::Day => time.minus(time.millis() % DAY_MS),
            Self::Month => Month::of(time).start(),
        }
    }

    /// The start of the first period at `time` or later.
    pub(crate) fn ceil(self, time: Time) -> Time {
        match self.floor(time) {
            start if start == time => start,
            start => self.after(start),
        }
    }

    /// The end of the period that begins at `start`.
    pub(crate) fn after(self, start: Time) -> Time {
        match self {
            Self::Quarter => start.plus(QUARTER_MS),
            Self::Day => start.plus(DAY_MS),
            Self::Month => Month::of(start).next().start(),
        }
    }
}

/// A calendar month of UTC, the period of a partition. Written `2026-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month {
    year: i16,
    month: i8,
}

/// A text is no month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a month such as 2026-11")]
pub struct BadMonth;

impl Month {
    /// The month that contains `time`.
    #[must_use]
    pub fn of(time: Time) -> Self {
        let date = timestamp(time).to_zoned(TimeZone::UTC).date();
        Self { year: date.year(), month: date.month() }
    }

    /// The start of the month.
    #[must_use]
    pub fn start(self) -> Time {
        let midnight =
            Date::new(self.year, self.month, 1).ok().and_then(|day| day.to_zoned(TimeZone::UTC).ok());
        midnight.map_or(Time::from_millis(0), |start| time(start.timestamp()))
    }

    /// The next month.
    #[must_use]
    pub fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            month => Self { month: month + 1, ..self },
        }
    }

    /// The month in names of tables: `2026_11`.
    #[must_use]
    pub fn suffix(self) -> String {
        format!("{:04}_{:02}", self.year, self.month)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = BadMonth;

    fn from_str(text: &str) -> Result<Self, BadMonth> {
        let (year, month) = text.split_once('-').ok_or(BadMonth)?;
        let (year, month) = (year.parse().map_err(|_| BadMonth)?, month.parse().map_err(|_| BadMonth)?);
        Date::new(year, month, 1).map_err(|_| BadMonth)?;
        Ok(Self { year, month })
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

schema!(Month, text_like("[0-9]{4}-(0[1-9]|1[0-2])").description(Some("A calendar month of UTC.")));

/// Converts to jiff's timestamp, whose range ends a day before the hub's.
pub(crate) fn timestamp(time: Time) -> Timestamp {
    let millis = i64::try_from(time.millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// Converts from jiff's timestamp.
pub(crate) fn time(timestamp: Timestamp) -> Time {
    Time::from_millis(timestamp.as_millisecond().try_into().unwrap_or(0))
}

/// The time `months` of UTC before `time`; the last day of a shorter month.
pub(crate) fn months_before(time_: Time, months: u16) -> Time {
    let zoned = timestamp(time_).to_zoned(TimeZone::UTC);
    zoned
        .checked_sub(i64::from(months).months())
        .map_or(Time::from_millis(0), |earlier| time(earlier.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        time(text.parse().unwrap())
    }

    #[test]
    fn periods_nest_at_month_ends_and_in_leap_years() {
        let instant = at("2024-02-29T23:59:59.999Z");
        assert_eq!(Level::Quarter.floor(instant), at("2024-02-29T23:45:00Z"));
        assert_eq!(Level::Day.floor(instant), at("2024-02-29T00:00:00Z"));
        assert_eq!(Level::Month.floor(instant), at("2024-02-01T00:00:00Z"));
        for level in Level::VARIANTS {
            assert_eq!(level.after(level.floor(instant)), at("2024-03-01T00:00:00Z"));
            assert_eq!(level.ceil(instant), at("2024-03-01T00:00:00Z"));
            assert_eq!(level.ceil(level.floor(instant)), level.floor(instant));
        }
        assert_eq!(Level::Month.after(at("2023-02-01T00:00:00Z")), at("2023-03-01T00:00:00Z"));
        assert_eq!(Month::of(at("1999-12-31T23:59:59Z")).next().start(), at("2000-01-01T00:00:00Z"));
    }

    #[test]
    fn month_round_trips_through_text() {
        let month = Month::of(at("2026-01-31T12:00:00Z"));
        assert_eq!((month.to_string(), month.suffix()), ("2026-01".to_owned(), "2026_01".to_owned()));
        assert_eq!("2026-01".parse(), Ok(month));
        for bad in ["", "2026", "2026-13", "2026-0", "x-1", "2026-1-1"] {
            assert_eq!(bad.parse::<Month>(), Err(BadMonth), "{bad}");
        }
        let last = Month::of(Time::from_millis(u64::MAX));
        assert_eq!(last.to_string(), "9999-12");
    }

    #[test]
    fn months_before_clamps_to_shorter_months() {
        assert_eq!(months_before(at("2026-03-31T00:00:00Z"), 1), at("2026-02-28T00:00:00Z"));
        assert_eq!(months_before(at("2026-03-31T00:00:00Z"), 13), at("2025-02-28T00:00:00Z"));
        assert_eq!(months_before(at("1970-01-01T00:00:00Z"), 1), Time::from_millis(0));
    }
}
