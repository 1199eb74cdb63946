//! The window of a query: its period, and the buckets of its series.
//!
//! Buckets are hours, days or months of a time zone, so they may be shorter or longer when the clocks change. A quarter
//! hour of UTC is in the hour, day and month in which it begins. Where quarter hours are pruned, days of UTC are the
//! shortest periods: the step and the bounds say so. Pure.

use std::fmt;

use jiff::civil::{self, Date, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Timestamp, ToSpan};
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
    /// A range of time, extended to whole quarter hours, or rounded to days of UTC where quarter hours are pruned.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
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

    /// How much has passed at the time `now`, in milliseconds.
    pub(super) fn passed(self, now: Time) -> u64 {
        Self { to: self.to.min(now), ..self }.millis()
    }
}

/// One bucket of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The start by the zone's clocks.
    pub at: Time,
    /// The periods that the bucket has the figures of: one, or two where the clocks go back to the day before. They have
    /// whole days of UTC where quarter hours are pruned.
    pub periods: Vec<Period>,
}

/// The period and buckets of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The whole period.
    pub whole: Period,
    /// Length of the buckets.
    pub step: Step,
    /// The buckets, whose periods add up to the whole. The first and the last may be shorter.
    pub buckets: Vec<Bucket>,
    /// The period of the same length before.
    pub previous: Period,
}

impl Window {
    /// Returns the window of `range` in a zone at the time `now`. Quarter hours before `quarters_from` are pruned.
    #[must_use]
    pub fn new(range: Range, zone: &Zone, now: Time, quarters_from: Time) -> Self {
        let zone = zone.rules();
        let (asked, step) = asked(range, &zone, now);
        let is_pruned = asked.from < quarters_from;
        let step = if is_pruned { step.max(Step::Day) } else { step };
        let (from, to) = (bound(asked.from, quarters_from), bound(asked.to, quarters_from));
        let (whole, buckets) = if from < to {
            let known = |period: &Period| Period {
                from: bound(period.from, quarters_from),
                to: bound(period.to, quarters_from),
            };
            let mut buckets = buckets(asked, step, &zone);
            for Bucket { at, periods } in &mut buckets {
                if *at < quarters_from {
                    *at = start_of_day(local(*at, &zone).0.date(), &zone);
                }
                *periods = periods.iter().map(known).filter(|period| period.millis() > 0).collect();
            }
            buckets.retain(|bucket| !bucket.periods.is_empty());
            (Period { from, to }, buckets)
        } else {
            // No noon is in the range: the day of UTC in which it begins is the least that is known.
            let from = Level::Day.floor(asked.from);
            let day = Period { from, to: Level::Day.after(from) };
            let at = start_of_day(local(from.plus(DAY_MS / 2), &zone).0.date(), &zone);
            (day, vec![Bucket { at, periods: vec![day] }])
        };
        let before = bound(whole.from.minus(whole.millis()), quarters_from);
        let before = if before < whole.from { before } else { whole.from.minus(DAY_MS) };
        Self { whole, step, buckets, previous: Period { from: before, to: whole.from } }
    }
}

/// Returns the period of a range, in whole quarter hours, and its step.
fn asked(range: Range, zone: &TimeZone, now: Time) -> (Period, Step) {
    let today = local(now, zone).0.date();
    let days_ago = |days: i64| today.checked_sub(days.days()).map_or(now, |date| start_of_day(date, zone));
    // The current quarter hour is included.
    let end = Level::Quarter.floor(now).plus(QUARTER_MS);
    let (from, to, step) = match range {
        Range::Day => (start_of_hour(now.minus(DAY_MS), zone), end, Step::Hour),
        Range::Week => (days_ago(7), end, Step::Hour),
        Range::Month => (days_ago(30), end, Step::Day),
        Range::Year => {
            let month = today.first_of_month().checked_sub(12.months());
            (month.map_or(now, |date| start_of_day(date, zone)), end, Step::Month)
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
    (Period { from: Level::Quarter.floor(from), to: Level::Quarter.ceil(to) }, step)
}

/// Returns the bound of a period where figures are known. Before `quarters_from` that is the start of the next day of
/// UTC whose noon is not before `at`, so that each day counts once.
pub(super) fn bound(at: Time, quarters_from: Time) -> Time {
    if at >= quarters_from { at } else { Level::Day.ceil(at.minus(DAY_MS / 2)) }
}

/// Splits a period into the hours, days or months of the zone.
fn buckets(whole: Period, step: Step, zone: &TimeZone) -> Vec<Bucket> {
    let mut buckets = Vec::<Bucket>::new();
    let mut from = whole.from;
    while from < whole.to {
        let to = next_start(from, step, zone).min(whole.to);
        let period = Period { from, to };
        let mut newest = buckets.iter_mut().rev().take(2);
        // An hour that the clocks repeat is another one; a day or a month is not.
        let same = newest.find(|bucket| step != Step::Hour && is_same(bucket.at, from, step, zone));
        match same {
            Some(bucket) => bucket.periods.push(period),
            None => buckets.push(Bucket { at: from, periods: vec![period] }),
        }
        from = to;
    }
    buckets
}

/// Returns the first quarter hour after `at` that begins in another hour, day or month of the zone.
fn next_start(at: Time, step: Step, zone: &TimeZone) -> Time {
    let date = local(at, zone).0.date();
    let (date, unit) = match step {
        Step::Hour => {
            let mut next = (1..4).map(|quarters| at.plus(quarters * QUARTER_MS));
            return next.find(|next| !is_same(at, *next, step, zone)).unwrap_or(at.plus(HOUR_MS));
        }
        Step::Day => (date, 1.day()),
        Step::Month => (date.first_of_month(), 1.month()),
    };
    // The clocks may go back over the midnight at which `date` began, and skip the next date.
    let dates = (0..3).filter_map(|count| date.checked_add(unit * count).ok());
    dates.flat_map(|date| midnights(date, zone)).find(|start| *start > at).unwrap_or(Time::MAX)
}

/// Returns the zone's date and time, and its offset from UTC.
fn local(at: Time, zone: &TimeZone) -> (DateTime, Offset) {
    let at = timestamp(at);
    let offset = zone.to_offset(at);
    (offset.to_datetime(at), offset)
}

/// Whether two times are in the same hour, day or month of the zone. An hour that the clocks repeat is another one.
fn is_same(one: Time, other: Time, step: Step, zone: &TimeZone) -> bool {
    let ((one, one_offset), (other, other_offset)) = (local(one, zone), local(other, zone));
    match step {
        Step::Hour => (one.date(), one.hour(), one_offset) == (other.date(), other.hour(), other_offset),
        Step::Day => one.date() == other.date(),
        Step::Month => one.date().first_of_month() == other.date().first_of_month(),
    }
}

/// Returns the first quarter hour that begins in the same hour of the zone as that of `at`.
fn start_of_hour(at: Time, zone: &TimeZone) -> Time {
    let at = Level::Quarter.floor(at);
    let before = (0..4).map(|quarters| at.minus(quarters * QUARTER_MS));
    before.take_while(|before| is_same(at, *before, Step::Hour, zone)).last().unwrap_or(at)
}

/// Returns the first quarter hour of a date in the zone.
fn start_of_day(date: Date, zone: &TimeZone) -> Time {
    midnights(date, zone).into_iter().next().unwrap_or(Time::MAX)
}

/// Returns the quarter hours at which the zone's date becomes `date`, or becomes the date before again. There are three
/// where the clocks go back from `date` to the date before, else one.
fn midnights(date: Date, zone: &TimeZone) -> Vec<Time> {
    let midnight = date.to_datetime(civil::Time::midnight());
    let by = |offset: Offset| offset.to_timestamp(midnight).unwrap_or(Timestamp::MAX);
    let change = |until: Timestamp| {
        let mut changes = zone.preceding(until.saturating_add(1.nanosecond()).unwrap_or(until));
        changes.next().map_or(until, |change| change.timestamp())
    };
    let starts = match zone.to_ambiguous_timestamp(midnight).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![by(offset)],
        AmbiguousOffset::Gap { before, .. } => vec![change(by(before))],
        // The clocks go back to midnight itself.
        AmbiguousOffset::Fold { before, after } if change(by(after)) == by(after) => vec![by(before)],
        AmbiguousOffset::Fold { before, after } => vec![by(before), change(by(after)), by(after)],
    };
    starts.into_iter().map(|start| Level::Quarter.ceil(time(start))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Time {
        time(text.parse().unwrap())
    }

    fn window(range: Range, zone: &str, now: &str) -> Window {
        let window = window_from(range, zone, now, Time::from_millis(0));
        assert_eq!(window.previous.millis(), window.whole.millis());
        assert!(window.buckets.iter().all(|bucket| bucket.at == bucket.periods[0].from));
        window
    }

    fn window_from(range: Range, zone: &str, now: &str, quarters_from: Time) -> Window {
        let window = Window::new(range, &Zone::find(zone).unwrap(), at(now), quarters_from);
        // The buckets cover the whole period without gaps.
        expect_partition(window.whole, &window.buckets);
        assert_eq!(window.previous.to, window.whole.from);
        window
    }

    /// The periods of all buckets are the whole, without gaps.
    fn expect_partition(whole: Period, buckets: &[Bucket]) {
        let mut periods: Vec<Period> =
            buckets.iter().flat_map(|bucket| bucket.periods.iter().copied()).collect();
        periods.sort_by_key(|period| period.from);
        assert_eq!((periods[0].from, periods[periods.len() - 1].to), (whole.from, whole.to));
        assert!(periods.windows(2).all(|pair| pair[0].to == pair[1].from), "{periods:?}");
        assert!(periods.iter().all(|period| period.from < period.to), "{periods:?}");
    }

    fn length(bucket: &Bucket) -> u64 {
        bucket.periods.iter().map(|period| period.millis()).sum()
    }

    fn hours(window: &Window) -> Vec<u64> {
        window.buckets.iter().map(|bucket| length(bucket) / HOUR_MS).collect()
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
        let short = spring.buckets.iter().find(|day| day.at == at("2026-03-28T23:00:00Z")).unwrap();
        assert_eq!(length(short), 23 * HOUR_MS);
        assert_eq!(hours(&spring).iter().filter(|hours| **hours == 23).count(), 1);
        let autumn = window(Range::Month, "America/New_York", "2026-11-20T10:20:00Z");
        let long = autumn.buckets.iter().find(|day| day.at == at("2026-11-01T04:00:00Z")).unwrap();
        assert_eq!(length(long), 25 * HOUR_MS);
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
            assert!(days[1..days.len() - 1].iter().all(|day| length(day) == DAY_MS), "{zone}: {days:?}");
        }
    }

    #[test]
    fn custom_ranges_extend_to_quarter_hours_and_split_at_local_bounds() {
        let range = Range::between(at("2026-11-01T10:07:00Z"), at("2026-11-20T10:01:00Z")).unwrap();
        let custom = window(range, "UTC", "2026-11-20T10:20:00Z");
        assert_eq!(custom.whole, Period { from: at("2026-11-01T10:00:00Z"), to: at("2026-11-20T10:15:00Z") });
        assert_eq!((custom.step, custom.buckets.len()), (Step::Day, 20));
        assert_eq!(custom.buckets[1].at, at("2026-11-02T00:00:00Z"));
        assert_eq!(
            Range::between(at("2026-11-01T00:00:00Z"), at("2026-11-01T00:00:00Z")),
            Err(BadRange::Backwards)
        );
        assert_eq!(Range::between(Time::from_millis(0), at("2026-11-01T00:00:00Z")), Err(BadRange::TooLong));
        assert_eq!(Zone::find("Mars/Olympus"), Err(BadZone));
    }

    #[test]
    fn hours_begin_by_the_clocks_around_a_change_that_is_not_on_the_hour() {
        // Chatham goes from 02:45 to 03:45, and back from 03:45 to 02:45; Lord Howe by half an hour, at 02:00.
        let minutes = |zone, from: &str, to: &str| -> Vec<u64> {
            let range = Range::between(at(from), at(to)).unwrap();
            let window = window(range, zone, "2026-11-20T10:20:00Z");
            window.buckets.iter().map(|bucket| length(bucket) / 60_000).collect()
        };
        assert_eq!(
            minutes("Pacific/Chatham", "2026-09-26T12:15:00Z", "2026-09-26T15:15:00Z"),
            [60, 45, 15, 60],
            "the hours 1, 2, 3 and 4"
        );
        assert_eq!(
            minutes("Pacific/Chatham", "2026-04-04T12:15:00Z", "2026-04-04T16:15:00Z"),
            [60, 45, 15, 60, 60],
            "the hours 2, 3, 2, 3 and 4"
        );
        assert_eq!(
            minutes("Australia/Lord_Howe", "2026-10-03T14:30:00Z", "2026-10-03T17:00:00Z"),
            [60, 30, 60],
            "the hours 1, 2 and 3"
        );
        assert_eq!(
            minutes("Australia/Lord_Howe", "2026-04-04T14:00:00Z", "2026-04-04T16:30:00Z"),
            [60, 30, 60],
            "the hours 1, 1 and 2"
        );
    }

    #[test]
    fn day_begins_where_the_clocks_skip_or_repeat_midnight() {
        let midnight =
            |zone: &str, date: &str| start_of_day(date.parse().unwrap(), &TimeZone::get(zone).unwrap());
        // From 23:00 to 00:00, from 24:00 to 23:00, from 01:00 to 00:00, and the 30th of December is skipped.
        assert_eq!(midnight("America/Scoresbysund", "2024-03-31"), at("2024-03-31T01:00:00Z"));
        assert_eq!(midnight("America/Sao_Paulo", "2018-11-04"), at("2018-11-04T03:00:00Z"));
        assert_eq!(midnight("America/Sao_Paulo", "2018-02-18"), at("2018-02-18T03:00:00Z"));
        assert_eq!(midnight("America/Havana", "2026-11-01"), at("2026-11-01T04:00:00Z"));
        assert_eq!(midnight("Pacific/Apia", "2011-12-30"), midnight("Pacific/Apia", "2011-12-31"));
    }

    #[test]
    fn day_to_which_the_clocks_go_back_has_one_bucket() {
        // From 02:00 on the 5th to 23:00 on the 4th.
        let range = Range::between(at("2010-02-27T16:00:00Z"), at("2010-03-09T16:00:00Z")).unwrap();
        let casey = window(range, "Antarctica/Casey", "2026-11-20T10:20:00Z");
        let period = |from: &str, to: &str| Period { from: at(from), to: at(to) };
        let [fourth, fifth] = &casey.buckets[4..6] else { panic!("{casey:?}") };
        assert_eq!(
            fourth.periods,
            [
                period("2010-03-03T13:00:00Z", "2010-03-04T13:00:00Z"),
                period("2010-03-04T15:00:00Z", "2010-03-04T16:00:00Z")
            ]
        );
        assert_eq!(
            fifth.periods,
            [
                period("2010-03-04T13:00:00Z", "2010-03-04T15:00:00Z"),
                period("2010-03-04T16:00:00Z", "2010-03-05T16:00:00Z")
            ]
        );
    }

    #[test]
    fn range_without_quarter_hours_says_its_days() {
        let quarters_from = at("2026-08-22T00:00:00Z");
        let between = |zone, from: &str, to: &str| {
            let range = Range::between(at(from), at(to)).unwrap();
            window_from(range, zone, "2026-11-20T10:20:00Z", quarters_from)
        };
        let day = Period { from: at("2026-05-05T00:00:00Z"), to: at("2026-05-06T00:00:00Z") };
        for (from, to) in [("11", "13"), ("14", "16"), ("00", "23")] {
            let two_hours =
                between("UTC", &format!("2026-05-05T{from}:00:00Z"), &format!("2026-05-05T{to}:00:00Z"));
            assert_eq!((two_hours.step, two_hours.whole), (Step::Day, day), "{from} to {to}");
            assert_eq!(two_hours.buckets, [Bucket { at: day.from, periods: vec![day] }]);
        }
        // A day of New York has the day of UTC with the same noon.
        let new_york = between("America/New_York", "2026-05-05T04:00:00Z", "2026-05-07T04:00:00Z");
        assert_eq!(new_york.whole, Period { from: day.from, to: at("2026-05-07T00:00:00Z") });
        assert_eq!(new_york.buckets[0], Bucket { at: at("2026-05-05T04:00:00Z"), periods: vec![day] });
        assert_eq!(new_york.previous, Period { from: at("2026-05-03T00:00:00Z"), to: day.from });
        // A range over the limit has days; its end is exact.
        let both = between("UTC", "2026-08-20T07:00:00Z", "2026-08-23T07:00:00Z");
        assert_eq!(both.whole, Period { from: at("2026-08-20T00:00:00Z"), to: at("2026-08-23T07:00:00Z") });
        assert_eq!((both.step, hours(&both)), (Step::Day, vec![24, 24, 24, 7]));
        // Only the period before is older.
        let recent = between("UTC", "2026-08-22T01:00:00Z", "2026-08-22T03:00:00Z");
        assert_eq!((recent.step, hours(&recent)), (Step::Hour, vec![1, 1]));
        assert_eq!(recent.previous, Period { from: quarters_from, to: recent.whole.from });
    }

    /// Checks that buckets are the units of the zone, each once. Looks at the quarter hours around their bounds.
    fn expect_units(whole: Period, step: Step, name: &str, zone: &TimeZone) {
        let buckets = buckets(whole, step, zone);
        expect_partition(whole, &buckets);
        let mut units = std::collections::BTreeSet::new();
        for bucket in &buckets {
            let (local, offset) = local(bucket.at, zone);
            let is_new = units.insert(match step {
                Step::Hour => (local.date(), local.hour(), offset.seconds()),
                Step::Day => (local.date(), 0, 0),
                Step::Month => (local.date().first_of_month(), 0, 0),
            });
            assert!(is_new, "{name}: {step:?} {bucket:?}");
            for period in &bucket.periods {
                let quarters = period.millis() / QUARTER_MS;
                let near = (0..quarters).filter(|quarter| *quarter < 6 || quarters - quarter < 6);
                let mut near = near.map(|quarter| period.from.plus(quarter * QUARTER_MS));
                assert!(near.all(|at| is_same(at, bucket.at, step, zone)), "{name}: {step:?} {bucket:?}");
            }
        }
    }

    /// The first of January 2040: the rules of all zones repeat each year long before.
    const LAST_CHANGE: u64 = 2_208_988_800_000;

    const STEPS: [Step; 3] = [Step::Hour, Step::Day, Step::Month];

    fn zones() -> Vec<(String, TimeZone)> {
        let names = jiff::tz::db().available().map(|name| name.as_str().to_owned());
        names.map(|name| (name.clone(), TimeZone::get(&name).unwrap())).collect()
    }

    #[test]
    fn every_hour_day_and_month_has_its_bucket_around_every_change_of_every_zone() {
        assert!(zones().len() > 500);
        let mut seen = std::collections::HashSet::new();
        for (name, zone) in zones() {
            let changes = zone.following(Timestamp::UNIX_EPOCH);
            let changes = changes.map(|change| (time(change.timestamp()), change.offset().seconds()));
            let changes: Vec<_> = changes.take_while(|(at, _)| at.millis() < LAST_CHANGE).collect();
            let first = zone.to_offset(Timestamp::UNIX_EPOCH).seconds();
            if !seen.insert((first, changes.clone())) {
                continue; // another name of a zone
            }
            for (change, _) in changes {
                let change = Level::Quarter.floor(change);
                let around = |ms| Period { from: change.minus(ms), to: change.plus(ms) };
                expect_units(around(4 * HOUR_MS), Step::Hour, &name, &zone);
                expect_units(around(3 * DAY_MS), Step::Day, &name, &zone);
                expect_units(around(40 * DAY_MS), Step::Month, &name, &zone);
            }
        }
    }

    proptest! {
        #[test]
        fn every_event_is_in_the_bucket_of_its_hour_day_and_month(
            zone in proptest::sample::select(zones()),
            from in 0..2_200_000_u64,
            quarters in 1..700_u64,
            step in proptest::sample::select(STEPS.to_vec()),
        ) {
            let from = Time::from_millis(from * QUARTER_MS);
            let length = quarters * QUARTER_MS * [1, 10, 40][step as usize];
            expect_units(Period { from, to: from.plus(length) }, step, &zone.0, &zone.1);
            let start = start_of_hour(from, &zone.1);
            prop_assert!(is_same(start, from, Step::Hour, &zone.1));
            prop_assert!(start.millis() == 0 || !is_same(start.minus(QUARTER_MS), from, Step::Hour, &zone.1));
        }
    }
}
