//! Rows of exports and archives, parsed field by field into records.
//!
//! The format is that of `history::record`. Pure.

use super::fields::{Fields, RowError};
use crate::history::record::Record;
use crate::protocol::{SafeInteger, Time};

/// The error of a time that is too far in the future.
pub(in crate::cli) const FUTURE: &str = "must not be more than 5 minutes in the future";

/// The values of `type`.
pub(in crate::cli) const KINDS: [&str; 3] = ["page-view", "watch", "census"];

/// Parses a row of an export. No time in it may be later than `latest`.
pub(in crate::cli) fn read(mut row: Fields, latest: Time) -> Result<Record, RowError> {
    let kind: String = row.required("type")?;
    let record = match kind.as_str() {
        "page-view" => Record::PageView {
            id: row.required("id")?,
            room: row.required("room")?,
            visitor: row.required("visitor")?,
            is_bot: row.optional("isBot")?.unwrap_or_default(),
            path: row.required("path")?,
            title: row.optional("title")?,
            referrer: row.optional("referrer")?,
            at: row.required("at")?,
            props: row.optional("props")?,
        },
        "watch" => Record::Watch {
            id: row.required("id")?,
            room: row.required("room")?,
            visitor: row.required("visitor")?,
            is_bot: row.optional("isBot")?.unwrap_or_default(),
            content: row.required("content")?,
            state: row.required("state")?,
            at: row.required("at")?,
            watched_ms: row.required::<SafeInteger>("watchedMs")?.get(),
            started_at: row.required("startedAt")?,
            seen_at: row.required("seenAt")?,
            position_ms: row.optional("positionMs")?,
            position_at: row.optional("positionAt")?,
            duration_ms: row.optional("durationMs")?,
            props: row.optional("props")?,
            props_at: row.optional("propsAt")?,
        },
        "census" => Record::Census {
            id: row.required("id")?,
            at: row.required("at")?,
            nodes: row.optional("nodes")?.unwrap_or_default(),
            hub: row.required("hub")?,
            rooms: row.required("rooms")?,
        },
        _ => return Err(RowError::field("type", "must be page-view, watch or census")),
    };
    row.end()?;
    check(&record, latest)?;
    Ok(record)
}

fn check(record: &Record, latest: Time) -> Result<(), RowError> {
    let times = match record {
        Record::PageView { at, .. } | Record::Census { at, .. } => vec![("at", Some(*at))],
        Record::Watch { at, started_at, seen_at, position_at, props_at, .. } => vec![
            ("startedAt", Some(*started_at)),
            ("seenAt", Some(*seen_at)),
            ("at", Some(*at)),
            ("positionAt", *position_at),
            ("propsAt", *props_at),
        ],
    };
    match times.into_iter().find(|(_, at)| at.is_some_and(|at| at > latest)) {
        None => Ok(()),
        Some((name, _)) => Err(RowError::field(name, FUTURE)),
    }
}
