//! Moments as people and databases write them.
//!
//! Pure. What has no offset is UTC; a number is seconds or milliseconds by its size.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::protocol::Time;
use crate::protocol::value::BadValue;

/// A number below this is seconds, up to the year 5138; as milliseconds it would be before March 1973.
const SECONDS_BELOW: f64 = 1e11;

/// Text or a number that is no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMoment {
    /// In none of the forms.
    #[error("must be like 2026-11-20, 2026-11-20 19:30:00 (UTC), RFC 3339, or a number of (milli)seconds")]
    Form,
    /// Before the Unix epoch.
    #[error("must not be before 1970")]
    Early,
    /// After the last moment there is.
    #[error(transparent)]
    Late(#[from] BadValue),
}

/// The moment that a text tells.
///
/// # Errors
/// It tells none.
pub(crate) fn moment(text: &str) -> Result<Time, BadMoment> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return from_number(number);
    }
    // A time zone in brackets would be ignored.
    let civil =
        || text.parse::<DateTime>().ok().filter(|_| !text.contains('['))?.to_zoned(TimeZone::UTC).ok();
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| Some(civil()?.timestamp()));
    from_millis(timestamp.ok_or(BadMoment::Form)?.as_millisecond())
}

/// The moment that a number tells: milliseconds since the Unix epoch, or seconds where it is too small.
///
/// # Errors
/// It tells none.
pub(crate) fn from_number(number: f64) -> Result<Time, BadMoment> {
    let millis = if number.abs() < SECONDS_BELOW { number * 1000.0 } else { number };
    if !millis.is_finite() {
        return Err(BadMoment::Form);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a number too large for the type is too late anyway")]
    from_millis(millis.round() as i64)
}

fn from_millis(millis: i64) -> Result<Time, BadMoment> {
    let millis = u64::try_from(millis).map_err(|_| BadMoment::Early)?;
    Ok(Time::try_from(millis)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_moment_may_be_written_in_many_ways() {
        let expected = Time::from_millis(1_795_203_000_000);
        for text in [
            "2026-11-20T19:30:00Z",
            "2026-11-20T20:30:00+01:00",
            "2026-11-20 19:30:00Z",
            "2026-11-20T19:30:00.000Z",
            "2026-11-20 19:30:00",
            "2026-11-20T19:30:00",
            "2026-11-20 19:30",
            " 2026-11-20 19:30:00 ",
            "1795203000",
            "1795203000.0",
            "1795203000000",
            "1795203000000.4",
        ] {
            assert_eq!(moment(text), Ok(expected), "{text}");
        }
        assert_eq!(moment("2026-11-20"), Ok(Time::from_millis(1_795_132_800_000)));
        assert_eq!(moment("2026-11-20 19:30:00.25"), Ok(expected.plus(250)));
        assert_eq!(moment("1795203000.25"), Ok(expected.plus(250)));
        assert_eq!(moment("0"), Ok(Time::from_millis(0)));
        assert_eq!(moment("99999999999"), Ok(Time::from_millis(99_999_999_999_000)), "seconds");
        assert_eq!(moment("100000000000"), Ok(Time::from_millis(100_000_000_000)), "milliseconds");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-02-30",
            "20.11.2026",
            "NaN",
            "inf",
            "19:30",
            "2026-11-20 25:00",
        ] {
            assert_eq!(moment(text), Err(BadMoment::Form), "{text}");
        }
        assert_eq!(moment("2026-11-20T19:30:00[Europe/Vienna]"), Err(BadMoment::Form));
        for text in ["-1", "1969-12-31", "1969-12-31T23:59:59Z"] {
            assert_eq!(moment(text), Err(BadMoment::Early), "{text}");
        }
        for text in ["253402300800000", "1e300"] {
            assert!(matches!(moment(text), Err(BadMoment::Late(_))), "{text}");
        }
    }
}
