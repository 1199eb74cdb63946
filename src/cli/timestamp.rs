//! Parses timestamps in the formats of people and databases.
//!
//! Pure. A time without an offset is UTC. A number is seconds or milliseconds, depending on its size.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::protocol::Time;
use crate::protocol::value::BadValue;

/// Numbers below this are seconds (up to the year 5138), since as milliseconds they would be before March 1973.
const SECONDS_BELOW: f64 = 1e11;

/// A text or a number is no timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTimestamp {
    /// It has none of the accepted formats.
    #[error("must be like 2026-11-20, 2026-11-20 19:30:00 (UTC), RFC 3339, or a number of (milli)seconds")]
    Format,
    /// It is before the Unix epoch.
    #[error("must not be before 1970")]
    Early,
    /// It is after the last time that the hub can store.
    #[error(transparent)]
    Late(#[from] BadValue),
}

/// Parses a timestamp from text.
/// Errors: the text is no timestamp, or out of range.
pub(crate) fn parse_timestamp(text: &str) -> Result<Time, BadTimestamp> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return from_number(number);
    }
    // A time zone in brackets is rejected, since jiff would ignore it.
    let civil =
        || text.parse::<DateTime>().ok().filter(|_| !text.contains('['))?.to_zoned(TimeZone::UTC).ok();
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| Some(civil()?.timestamp()));
    from_millis(timestamp.ok_or(BadTimestamp::Format)?.as_millisecond())
}

/// Converts a number: milliseconds since the Unix epoch, or seconds if it is below the threshold.
/// Errors: the number is not finite, or out of range.
pub(crate) fn from_number(number: f64) -> Result<Time, BadTimestamp> {
    let millis = if number.abs() < SECONDS_BELOW { number * 1000.0 } else { number };
    if !millis.is_finite() {
        return Err(BadTimestamp::Format);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a number beyond the type is out of range anyway")]
    from_millis(millis.round() as i64)
}

fn from_millis(millis: i64) -> Result<Time, BadTimestamp> {
    let millis = u64::try_from(millis).map_err(|_| BadTimestamp::Early)?;
    Ok(Time::try_from(millis)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_formats_give_the_same_time() {
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
            assert_eq!(parse_timestamp(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_timestamp("2026-11-20"), Ok(Time::from_millis(1_795_132_800_000)));
        assert_eq!(parse_timestamp("2026-11-20 19:30:00.25"), Ok(expected.plus(250)));
        assert_eq!(parse_timestamp("1795203000.25"), Ok(expected.plus(250)));
        assert_eq!(parse_timestamp("0"), Ok(Time::from_millis(0)));
        assert_eq!(parse_timestamp("99999999999"), Ok(Time::from_millis(99_999_999_999_000)), "seconds");
        assert_eq!(parse_timestamp("100000000000"), Ok(Time::from_millis(100_000_000_000)), "milliseconds");
    }

    #[test]
    fn invalid_timestamps_are_rejected() {
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
            assert_eq!(parse_timestamp(text), Err(BadTimestamp::Format), "{text}");
        }
        assert_eq!(parse_timestamp("2026-11-20T19:30:00[Europe/Vienna]"), Err(BadTimestamp::Format));
        for text in ["-1", "1969-12-31", "1969-12-31T23:59:59Z"] {
            assert_eq!(parse_timestamp(text), Err(BadTimestamp::Early), "{text}");
        }
        for text in ["253402300800000", "1e300"] {
            assert!(matches!(parse_timestamp(text), Err(BadTimestamp::Late(_))), "{text}");
        }
    }
}
