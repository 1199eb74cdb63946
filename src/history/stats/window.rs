//! The window of a query: its period, and the buckets of its series.
//!
//! Buckets are hours, days or months of a time zone, so they may be shorter or longer when the clocks change. All
//! bounds are quarter hours. Pure.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::history::calendar::{DAY_MS, HOUR_MS, Level, QUARTER_MS, time, timestamp};
use crate::protocol::Time;
use crate::protocol::schema::{one_of, schema};

/// Maximum length of a period, in milliseconds: 20 years.
const LONGEST_MS: u64 = 20 * 366 * DAY_MS;

/// The range of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range {
    /// At least the last 24 hours, by whole hours.
    Day,
    /// The last 7 days and today.
    Week,
    /// The last 30 days and today.
    Month,
    /// The last 12 months and this one.
    Year,
    /// A range of time, extended to whole quarter hours.
    Between {
        /// Start of the range.
        from: Time,
        /// End of the range, which is exclusive.
        to: Time,
    },
}

impl Range {
    /// The named ranges, the shortest first.
    pub(crate) const NAMED: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    /// Returns the range of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|range| range.name() == name)
    }

    /// The name of the range in requests and answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
            Self::Year => "12mo",
            Self::Between { .. } => "custom",
        }
    }

    /// Returns the range from `from` to `to`.
    /// Errors: it is empty, ends before it begins, or is longer than 20 years.
    pub(crate) fn between(from: Time, to: Time) -> Result<Self, BadRange> {
        match to.millis().checked_sub(from.millis()) {
            None | Some(0) => Err(BadRange::Backwards),
            Some(length) if length > LONGEST_MS => Err(BadRange::TooLong),
            Some(_) => Ok(Self::Between { from, to }),
        }
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

schema!(Range, {
    let custom = Self::Between { from: Time::from_millis(0), to: Time::MAX };
    one_of(Self::NAMED.iter().chain([&custom]).map(|range| range.name()))
});

/// A range is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRange {
    /// It ends before or at its start.
    #[error("must be after from")]
    Backwards,
    /// It is too long.
    #[error("must be at most 20 years after from")]
    TooLong,
}

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Zone(String);

/// The time zone is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an IANA time zone such as Europe/Berlin")]
pub struct BadZone;

impl Zone {
    /// Returns the time zone of this name.
    ///
    /// # Errors
    /// The name is unknown.
    pub fn find(name: &str) -> Result<Self, BadZone> {
        let zone = TimeZone::get(name).map_err(|_| BadZone)?;
        // The database's spelling, so that each zone has one name.
        Ok(Self(zone.iana_name().unwrap_or(name).to_owned()))
    }

    fn rules(&self) -> TimeZone {
        TimeZone::get(&self.0).unwrap_or(TimeZone::UTC)
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

schema!(Zone, ObjectBuilder::new().schema_type(Type::String).description(Some("An IANA time zone.")));

/// The length of a bucket, by the zone's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A calendar month.
    Month,
}

/// A period of time. Its end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The start.
    pub from: Time,
    /// The end, which is exclusive.
    pub to: Time,
}

impl Period {
    /// The length in milliseconds.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.to.millis().saturating_sub(self.from.millis())
    }
}

/// The period and buckets of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The whole period.
    pub whole: Period,
    /// Length of the buckets.
    pub step: Step,
    /// The consecutive buckets. The first and the last may be shorter.
    pub buckets: Vec<Period>,
    /// The period of the same length before.
    pub previous: Period,
}

impl Window {
    /// Returns the window of `range` in a zone at the time `now`.
    #[must_use]
    pub fn new(range: Range, zone: &Zone, now: Time) -> Self {
        let zone = zone.rules();
        let today = timestamp(now).to_zoned(zone.clone()).date();
        // The current quarter hour is included.
        let end = Level::Quarter.floor(now).plus(QUARTER_MS);
        let days_ago =
            |days: i64| today.checked_sub(days.days()).map_or(now, |date| start_of_day(date, &zone));
        let (from, to, step) = match range {
            Range::Day => (start_of_hour(now.minus(DAY_MS), &zone), end, Step::Hour),
            Range::Week => (days_ago(7), end, Step::Hour),
            Range::Month => (days_ago(30), end, Step::Day),
            Range::Year => {
                let month = today.first_of_month().checked_sub(12.months());
                (month.map_or(now, |date| start_of_day(date, &zone)), end, Step::Month)
            }
            Range::Between { from, to } => {
                let step = match to.millis().saturating_sub(from.millis()) / DAY_MS {
                    0..=8 => Step::Hour,
                    9..=100 => Step::Day,
                    _ => Step::Month,
                };
                (from, to, step)
            }
        };
        let whole = Period { from: Level::Quarter.floor(from), to: Level::Quarter.ceil(to) };
        let previous = Period { from: whole.from.minus(whole.millis()), to: whole.from };
        Self { whole, step, buckets: buckets(whole, step, &zone), previous }
    }
}

fn buckets(whole: Period, step: Step, zone: &TimeZone) -> Vec<Period> {
    let mut buckets = Vec::new();
    let mut from = whole.from;
    while from < whole.to {
        let next = match step {
            Step::Hour => start_of_hour(from, zone).plus(HOUR_MS),
            Step::Day => {
                local(from, zone).date().tomorrow().map_or(whole.to, |date| start_of_day(date, zone))
            }
            Step::Month => {
                let next = local(from, zone).date().first_of_month().checked_add(1.months());
                next.map_or(whole.to, |date| start_of_day(date, zone))
            }
        };
        // Until the 1970s some zones differed from UTC by 20 or 40 minutes. `max` guarantees progress for any zone's
        // history.
        let to = Level::Quarter.ceil(next).max(from.plus(QUARTER_MS)).min(whole.to);
        buckets.push(Period { from, to });
        from = to;
    }
    buckets
}

fn local(at: Time, zone: &TimeZone) -> Zoned {
    timestamp(at).to_zoned(zone.clone())
}

/// The start of the hour by the zone's clocks, which may be at the half hour of UTC.
fn start_of_hour(at: Time, zone: &TimeZone) -> Time {
    let local = local(at, zone);
    let seconds = u64::from(local.minute().unsigned_abs()) * 60 + u64::from(local.second().unsigned_abs());
    at.minus(seconds * 1_000 + at.millis() % 1_000)
}

fn start_of_day(date: Date, zone: &TimeZone) -> Time {
    date.to_zoned(zone.clone()).map_or(Time::from_millis(0), |start| time(start.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        time(text.parse().unwrap())
    }

    fn window(range: Range, zone: &str, now: &str) -> Window {
        let window = Window::new(range, &Zone::find(zone).unwrap(), at(now));
        // The buckets cover the whole period without gaps.
        assert_eq!(window.buckets.first().unwrap().from, window.whole.from);
        assert_eq!(window.buckets.last().unwrap().to, window.whole.to);
        assert!(window.buckets.windows(2).all(|pair| pair[0].to == pair[1].from));
        assert_eq!(window.previous.millis(), window.whole.millis());
        window
    }

    fn hours(window: &Window) -> Vec<u64> {
        window.buckets.iter().map(|bucket| bucket.millis() / HOUR_MS).collect()
    }

    #[test]
    fn named_ranges_end_now_and_start_with_a_whole_bucket() {
        let day = window(Range::Day, "UTC", "2026-11-20T10:20:00Z");
        assert_eq!(day.whole, Period { from: at("2026-11-19T10:00:00Z"), to: at("2026-11-20T10:30:00Z") });
        assert_eq!((day.step, day.buckets.len()), (Step::Hour, 25));
        let week = window(Range::Week, "UTC", "2026-11-20T10:20:00Z");
        assert_eq!((week.whole.from, week.buckets.len()), (at("2026-11-13T00:00:00Z"), 7 * 24 + 11));
        let month = window(Range::Month, "UTC", "2026-11-20T10:20:00Z");
        assert_eq!((month.whole.from, month.buckets.len()), (at("2026-10-21T00:00:00Z"), 31));
        let year = window(Range::Year, "UTC", "2026-11-20T10:20:00Z");
        assert_eq!((year.whole.from, year.buckets.len()), (at("2025-11-01T00:00:00Z"), 13));
    }

    #[test]
    fn days_have_23_or_25_hours_when_clocks_change() {
        // Germany: 2026-03-29 has 23 hours; New York: 2026-11-01 has 25.
        let spring = window(Range::Month, "Europe/Berlin", "2026-04-02T12:00:00Z");
        let short = spring.buckets.iter().find(|day| day.from == at("2026-03-28T23:00:00Z")).unwrap();
        assert_eq!(short.millis(), 23 * HOUR_MS);
        assert_eq!(hours(&spring).iter().filter(|hours| **hours == 23).count(), 1);
        let autumn = window(Range::Month, "America/New_York", "2026-11-20T10:20:00Z");
        let long = autumn.buckets.iter().find(|day| day.from == at("2026-11-01T04:00:00Z")).unwrap();
        assert_eq!(long.millis(), 25 * HOUR_MS);
        assert_eq!(hours(&autumn).iter().filter(|hours| **hours == 25).count(), 1);
    }

    #[test]
    fn half_hour_zones_start_hours_and_days_at_the_half_hour_of_utc() {
        let day = window(Range::Day, "Asia/Kolkata", "2026-11-20T10:20:00Z");
        assert_eq!(day.whole.from, at("2026-11-19T09:30:00Z"));
        let month = window(Range::Month, "Asia/Kathmandu", "2026-11-20T10:20:00Z");
        assert_eq!(month.whole.from, at("2026-10-20T18:15:00Z"));
    }

    #[test]
    fn zones_with_odd_offsets_have_whole_hours_and_days() {
        for zone in ["Pacific/Kiritimati", "Africa/Monrovia"] {
            let range = Range::between(at("1970-01-20T00:00:00Z"), at("1970-01-27T00:00:00Z")).unwrap();
            let hours = hours(&window(range, zone, "2026-11-20T10:20:00Z"));
            assert!(hours[1..hours.len() - 1].iter().all(|hours| *hours == 1), "{zone}: {hours:?}");
            let range = Range::between(at("1970-03-02T00:00:00Z"), at("1970-04-02T00:00:00Z")).unwrap();
            let days = window(range, zone, "2026-11-20T10:20:00Z").buckets;
            assert!(days[1..days.len() - 1].iter().all(|day| day.millis() == DAY_MS), "{zone}: {days:?}");
        }
    }

    #[test]
    fn custom_ranges_extend_to_quarter_hours_and_split_at_local_bounds() {
        let range = Range::between(at("2026-11-01T10:07:00Z"), at("2026-11-20T10:01:00Z")).unwrap();
        let custom = window(range, "UTC", "2026-11-20T10:20:00Z");
        assert_eq!(custom.whole, Period { from: at("2026-11-01T10:00:00Z"), to: at("2026-11-20T10:15:00Z") });
        assert_eq!((custom.step, custom.buckets.len()), (Step::Day, 20));
        assert_eq!(custom.buckets[1].from, at("2026-11-02T00:00:00Z"));
        assert_eq!(
            Range::between(at("2026-11-01T00:00:00Z"), at("2026-11-01T00:00:00Z")),
            Err(BadRange::Backwards)
        );
        assert_eq!(Range::between(Time::from_millis(0), at("2026-11-01T00:00:00Z")), Err(BadRange::TooLong));
        assert_eq!(Zone::find("Mars/Olympus"), Err(BadZone));
    }
}
