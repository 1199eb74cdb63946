//! Parsers of flags whose types have no `FromStr` with the right limits, and a default that two commands share.
//!
//! Each error is the rule only: clap adds the flag and the value.

use std::num::NonZeroU32;
use std::time::Duration;

use humantime::Duration as Span;

use crate::history::capacity::RATE_MIN;
use crate::protocol::ids::BadName;
use crate::protocol::{RoomId, VisitorId};

/// Where the hub listens by default.
pub(super) const LISTEN: &str = "127.0.0.1:8080";

pub(super) fn room(text: &str) -> Result<RoomId, BadName> {
    RoomId::try_from(text)
}

pub(super) fn visitor(text: &str) -> Result<VisitorId, BadName> {
    VisitorId::try_from(text)
}

pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Ok(_) => Err("must be at least 1s".to_owned()),
        Err(_) => Err("must be a duration such as 1h or 30days".to_owned()),
    }
}

pub(super) fn duration(text: &str) -> Result<Span, String> {
    const LIMIT: Duration = Duration::from_hours(24);
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LIMIT => Ok(duration.into()),
        Ok(_) => Err("must be at most 24h".to_owned()),
        Err(_) => Err("must be a duration such as 30s or 5m".to_owned()),
    }
}

pub(super) fn interval(text: &str) -> Result<Span, String> {
    match duration(text)? {
        interval if *interval >= Duration::from_millis(10) => Ok(interval),
        _ => Err("must be at least 10ms".to_owned()),
    }
}

pub(super) fn node(text: &str) -> Result<String, String> {
    match text.len() {
        1..=255 => Ok(text.to_owned()),
        _ => Err("must have 1 to 255 bytes".to_owned()),
    }
}

/// An event rate of one address.
pub(super) fn event_rate(text: &str) -> Result<NonZeroU32, String> {
    match text.parse() {
        Ok(rate) if rate >= RATE_MIN => Ok(rate),
        _ => Err(format!("must be a whole number from {RATE_MIN} on")),
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("must be a whole number above 0".to_owned()),
    }
}
