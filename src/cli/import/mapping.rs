//! Rows of the old worker's tables of page views and watch sessions, mapped to records.
//!
//! A [`Mapping`] has the file's column name for each of the hub's columns. An id that is no UUID becomes a version 5 UUID
//! of its kind and value, so that each import of a row gives the same event. Pure.

use std::collections::HashMap;
use std::str::FromStr;

use clap::ValueEnum;
use serde_json::Value;
use uuid::Uuid;

use super::fields::{Fields, RowError};
use super::native::FUTURE;
use crate::cli::timestamp::{from_number, parse_timestamp};
use crate::history::record::Record;
use crate::protocol::{RoomId, Time, WatchState};

/// The namespace of UUIDs that are made from other ids (RFC 9562, section 5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x4b1a_6d0e_93c2_4f57_8e21_7f6f_52d4_c0aa);

/// The kinds of the old worker's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LegacyKind {
    /// Page views.
    PageViews,
    /// Watch sessions.
    WatchSessions,
}

/// The hub's columns of such rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "camelCase")]
pub(crate) enum Column {
    /// The row's id, unique in its table.
    Id,
    /// The room.
    Room,
    /// The visitor.
    Visitor,
    /// The page's path.
    Path,
    /// The page's title.
    Title,
    /// The referrer.
    Referrer,
    /// Time of the page view.
    At,
    /// The content.
    Content,
    /// Start of the watch session.
    StartedAt,
    /// Time watched, in seconds.
    Duration,
    /// Whether the content was watched to its end.
    Completed,
}

impl Column {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The old worker's column name.
    fn default_name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Room => "room",
            Self::Visitor => "user_id",
            Self::Path => "path",
            Self::Title => "title",
            Self::Referrer => "referrer",
            Self::At => "timestamp",
            Self::Content => "content_id",
            Self::StartedAt => "started_at",
            Self::Duration => "duration",
            Self::Completed => "completed",
        }
    }
}

/// A column's name in a file, written `ours=theirs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnName {
    ours: Column,
    theirs: String,
}

/// A text is no `ours=theirs`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadColumnName {
    /// It is not two names.
    #[error("must be like visitor=member: our name, and that in the file")]
    Format,
    /// The first name is no column of the hub.
    #[error("{name:?} is none of {}", Column::value_variants().iter().map(|ours| ours.name()).collect::<Vec<_>>().join(", "))]
    Unknown {
        /// The first name.
        name: String,
    },
}

impl FromStr for ColumnName {
    type Err = BadColumnName;

    fn from_str(text: &str) -> Result<Self, BadColumnName> {
        match text.split_once('=') {
            Some((ours, theirs)) if !theirs.is_empty() => {
                let unknown = |_| BadColumnName::Unknown { name: ours.to_owned() };
                Ok(Self { ours: Column::from_str(ours, false).map_err(unknown)?, theirs: theirs.to_owned() })
            }
            _ => Err(BadColumnName::Format),
        }
    }
}

/// The shape of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Of an export or an archive: it has a `type`.
    Native,
    /// Of the old worker.
    Legacy(LegacyKind),
}

/// The mapping of the old worker's rows.
#[derive(Debug)]
pub(super) struct Mapping {
    kind: Option<LegacyKind>,
    room: RoomId,
    names: HashMap<Column, String>,
}

impl Mapping {
    /// A mapping of rows of `kind`, by default as their columns suggest. `room` is for rows without a room.
    pub(super) fn new(kind: Option<LegacyKind>, room: RoomId, columns: Vec<ColumnName>) -> Self {
        let names = columns.into_iter().map(|ColumnName { ours, theirs }| (ours, theirs)).collect();
        Self { kind, room, names }
    }

    /// Returns the shape of rows with these columns.
    /// Errors: it is unknown.
    pub(super) fn shape(&self, has: impl Fn(&str) -> bool) -> Result<Shape, RowError> {
        let has_ours = |column| has(self.file_name(column));
        match self.kind {
            Some(kind) if Column::value_variants().iter().any(|column| has_ours(*column)) => {
                Ok(Shape::Legacy(kind))
            }
            Some(_) => Err(RowError::row("has none of our columns: set --field")),
            None if has("type") => Ok(Shape::Native),
            None if has_ours(Column::Content) => Ok(Shape::Legacy(LegacyKind::WatchSessions)),
            None if has_ours(Column::Path) => Ok(Shape::Legacy(LegacyKind::PageViews)),
            None => {
                let (path, content) = (self.file_name(Column::Path), self.file_name(Column::Content));
                let rule = format!("has no type, no {path} and no {content}: set --kind or --field");
                Err(RowError::row(rule))
            }
        }
    }

    /// Converts a row. No time in it may be later than `latest`.
    pub(super) fn record(&self, kind: LegacyKind, row: &Fields, latest: Time) -> Result<Record, RowError> {
        let row = LegacyRow { row, mapping: self, latest };
        match kind {
            LegacyKind::PageViews => row.page_view(),
            LegacyKind::WatchSessions => row.watch_session(),
        }
    }

    fn file_name(&self, column: Column) -> &str {
        self.names.get(&column).map_or(column.default_name(), String::as_str)
    }
}

/// A row, read by the hub's columns.
struct LegacyRow<'a> {
    row: &'a Fields,
    mapping: &'a Mapping,
    latest: Time,
}

impl LegacyRow<'_> {
    fn page_view(&self) -> Result<Record, RowError> {
        Ok(Record::PageView {
            id: self.id("page-view")?,
            room: self.text(Column::Room)?.unwrap_or_else(|| self.mapping.room.clone()),
            visitor: self.required(Column::Visitor, Self::text)?,
            is_bot: false,
            path: self.required(Column::Path, Self::text)?,
            title: self.text(Column::Title)?,
            referrer: self.text(Column::Referrer)?,
            at: self.required(Column::At, Self::timestamp)?,
            props: None,
        })
    }

    /// Such a row has no end: start plus time watched is the end.
    fn watch_session(&self) -> Result<Record, RowError> {
        let started_at = self.required(Column::StartedAt, Self::timestamp)?;
        let watched_ms = self.seconds(Column::Duration)?;
        let ended_at = started_at.plus(watched_ms);
        if ended_at > self.latest {
            return Err(self.error(Column::Duration, "ends more than 5 minutes in the future"));
        }
        let is_over = self.boolean(Column::Completed)?;
        Ok(Record::Watch {
            id: self.id("watch")?,
            room: self.text(Column::Room)?.unwrap_or_else(|| self.mapping.room.clone()),
            visitor: self.required(Column::Visitor, Self::text)?,
            is_bot: false,
            content: self.required(Column::Content, Self::text)?,
            state: if is_over { WatchState::Ended } else { WatchState::Paused },
            at: ended_at,
            watched_ms,
            started_at,
            seen_at: ended_at,
            position_ms: None,
            position_at: None,
            duration_ms: None,
            props: None,
            props_at: None,
        })
    }

    /// Returns a value that is neither null nor empty.
    fn get(&self, column: Column) -> Option<&Value> {
        let value = self.row.get(self.mapping.file_name(column));
        value.filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn error(&self, column: Column, rule: impl std::fmt::Display) -> RowError {
        match (column.name(), self.mapping.file_name(column)) {
            (ours, theirs) if ours == theirs => RowError::field(theirs, rule),
            (ours, theirs) => RowError::field(&format!("{ours} ({theirs})"), rule),
        }
    }

    fn required<T>(
        &self,
        column: Column,
        read: impl Fn(&Self, Column) -> Result<Option<T>, RowError>,
    ) -> Result<T, RowError> {
        read(self, column)?.ok_or_else(|| self.error(column, "is missing"))
    }

    fn text<T>(&self, column: Column) -> Result<Option<T>, RowError>
    where
        T: TryFrom<String, Error: std::fmt::Display>,
    {
        let text = match self.get(column) {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(self.error(column, "must be text")),
        };
        T::try_from(text).map(Some).map_err(|rule| self.error(column, rule))
    }

    fn id(&self, kind: &str) -> Result<Uuid, RowError> {
        let id: String = self.required(Column::Id, Self::text)?;
        let made = || Uuid::new_v5(&NAMESPACE, format!("{kind}:{id}").as_bytes());
        Ok(Uuid::try_parse(&id).unwrap_or_else(|_| made()))
    }

    fn timestamp(&self, column: Column) -> Result<Option<Time>, RowError> {
        let Some(value) = self.get(column) else { return Ok(None) };
        let timestamp = match value {
            Value::Number(number) => from_number(number.as_f64().unwrap_or(f64::NAN)),
            other => parse_timestamp(other.as_str().unwrap_or_default()),
        };
        match timestamp {
            Ok(at) if at > self.latest => Err(self.error(column, FUTURE)),
            Ok(at) => Ok(Some(at)),
            Err(rule) => Err(self.error(column, rule)),
        }
    }

    /// Parses seconds, by default 0, and returns milliseconds.
    fn seconds(&self, column: Column) -> Result<u64, RowError> {
        const LIMIT: f64 = 1e9;
        let seconds = match self.get(column) {
            None => Some(0.0),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(value) => value.as_f64(),
        };
        match seconds {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the pattern has the bounds"
            )]
            Some(seconds @ 0.0..=LIMIT) => Ok((seconds * 1000.0).round() as u64),
            _ => Err(self.error(column, "must be a number of seconds, from 0 to 1000000000")),
        }
    }

    /// Parses a boolean, by default false.
    fn boolean(&self, column: Column) -> Result<bool, RowError> {
        let text = match self.get(column) {
            None => return Ok(false),
            Some(Value::String(text)) => text.trim().to_ascii_lowercase(),
            Some(other) => other.to_string(),
        };
        match text.as_str() {
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => Err(self.error(column, "must be true, false, 1 or 0")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LATEST: u64 = 1_800_000_000_000;

    fn mapping(kind: Option<LegacyKind>, columns: &[&str]) -> Mapping {
        let columns = columns.iter().map(|text| text.parse().unwrap()).collect();
        Mapping::new(kind, RoomId::try_from("lobby").unwrap(), columns)
    }

    fn read(mapping: &Mapping, row: Value) -> Result<Value, String> {
        let row = Fields::Object(serde_json::from_value(row).unwrap());
        let shape = mapping.shape(|name| row.get(name).is_some()).map_err(|error| error.to_string())?;
        let Shape::Legacy(kind) = shape else { panic!("{row:?}") };
        let record =
            mapping.record(kind, &row, Time::from_millis(LATEST)).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(record).unwrap())
    }

    fn rejected(row: Value) -> String {
        read(&mapping(None, &[]), row).unwrap_err()
    }

    #[test]
    fn legacy_rows_become_records() {
        let id = "01890000-0000-7000-8000-000000000001";
        let view = json!({ "id": id, "user_id": 17, "path": "/a", "referrer": "", "timestamp": "2023-11-14 22:13:20",
            "user_agent": "ignored" });
        let expected = json!({ "type": "page-view", "id": id, "room": "lobby", "visitor": "17", "path": "/a",
            "at": 1_700_000_000_000_u64 });
        assert_eq!(read(&mapping(None, &[]), view), Ok(expected));
        let watch = json!({ "id": id, "user_id": "ann", "content_id": "film", "started_at": 1_700_000_000,
            "duration": "12.5", "completed": 0, "room": "garden" });
        let expected = json!({ "type": "watch", "id": id, "room": "garden", "visitor": "ann", "content": "film",
            "state": "paused", "at": 1_700_000_012_500_u64, "watchedMs": 12_500, "startedAt": 1_700_000_000_000_u64,
            "seenAt": 1_700_000_012_500_u64 });
        assert_eq!(read(&mapping(None, &[]), watch), Ok(expected));
    }

    #[test]
    fn booleans_have_several_spellings() {
        for (completed, state) in [
            (json!(true), "ended"),
            (json!(1), "ended"),
            (json!("1"), "ended"),
            (json!("TRUE"), "ended"),
            (json!("t"), "ended"),
            (json!(false), "paused"),
            (json!("false"), "paused"),
            (json!(null), "paused"),
            (json!(""), "paused"),
        ] {
            let row = json!({ "id": 1, "user_id": "a", "content_id": "c", "started_at": 1, "completed": completed });
            assert_eq!(read(&mapping(None, &[]), row).unwrap()["state"], state, "{completed}");
        }
    }

    #[test]
    fn column_names_and_kind_can_be_set() {
        let mapping = mapping(
            Some(LegacyKind::PageViews),
            &["visitor=member", "at=seen", "path=content_id", "room=place"],
        );
        let row = json!({ "id": "x", "member": "ann", "seen": 5, "content_id": "/", "place": "garden", "type": "visit" });
        let views = Shape::Legacy(LegacyKind::PageViews);
        assert_eq!(mapping.shape(|name| row.get(name).is_some()), Ok(views), "the type is not the hub's");
        assert!(mapping.shape(|name| name == "html").is_err());
        let view = read(&mapping, row).unwrap();
        assert_eq!(
            (&view["visitor"], &view["at"], &view["room"]),
            (&json!("ann"), &json!(5_000), &json!("garden"))
        );
    }

    #[test]
    fn id_that_is_no_uuid_gives_a_stable_uuid() {
        let id = |kind, id: Value| {
            let row = json!({ "id": id, "user_id": "a", "path": "/", "content_id": "c", "timestamp": 1, "started_at": 1 });
            read(&mapping(Some(kind), &[]), row).unwrap()["id"].as_str().unwrap().to_owned()
        };
        let view = id(LegacyKind::PageViews, json!(17));
        // Must never change: with another value, a repeated import would count each row twice.
        assert_eq!(view, "99d1474f-268e-5d8e-bee4-bd232d1272f5");
        assert_eq!(view, id(LegacyKind::PageViews, json!("17")));
        assert_ne!(view, id(LegacyKind::PageViews, json!(18)));
        assert_ne!(view, id(LegacyKind::WatchSessions, json!(17)));
        let uuid = "01890000-0000-7000-8000-00000000000a";
        assert_eq!(id(LegacyKind::PageViews, json!(uuid.to_uppercase())), uuid);
    }

    #[test]
    fn row_error_names_the_column_of_the_file() {
        let view = |change: Value| {
            let mut row = json!({ "id": 1, "user_id": "ann", "path": "/", "timestamp": 1 });
            row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            rejected(row)
        };
        assert_eq!(view(json!({ "id": null })), "id: is missing");
        assert_eq!(view(json!({ "user_id": "a@b" })), "visitor (user_id): must match [A-Za-z0-9_-]{1,64}");
        assert_eq!(view(json!({ "user_id": true })), "visitor (user_id): must be text");
        assert_eq!(view(json!({ "path": "" })), "path: is missing");
        assert_eq!(view(json!({ "path": "x".repeat(513) })), "path: must be at most 512 bytes");
        assert_eq!(view(json!({ "room": "The Lobby" })), "room: must match [a-z0-9][a-z0-9-]{0,63}");
        assert!(view(json!({ "timestamp": "soon" })).starts_with("at (timestamp): must be like 2026-11-20"));
        assert_eq!(view(json!({ "timestamp": LATEST + 1 })), format!("at (timestamp): {FUTURE}"));
        let watch = |name: &str, value: Value| {
            let mut row =
                json!({ "id": 1, "user_id": "ann", "content_id": "c", "started_at": 1, "duration": 1 });
            row[name] = value;
            rejected(row)
        };
        let seconds = "duration: must be a number of seconds, from 0 to 1000000000";
        for value in [json!(-1), json!("long"), json!("NaN"), json!(1e10)] {
            assert_eq!(watch("duration", value), seconds);
        }
        let row = json!({ "id": 1, "user_id": "a", "content_id": "c", "started_at": LATEST - 1_000, "duration": 2 });
        assert_eq!(rejected(row), "duration: ends more than 5 minutes in the future");
        assert_eq!(watch("completed", json!("maybe")), "completed: must be true, false, 1 or 0");
        assert!(rejected(json!({ "id": 1, "name": "x" })).contains("no path and no content_id"));
    }

    #[test]
    fn column_name_has_two_parts() {
        assert_eq!(
            "startedAt=begin".parse(),
            Ok(ColumnName { ours: Column::StartedAt, theirs: "begin".to_owned() })
        );
        for bad in ["visitor", "visitor="] {
            assert_eq!(bad.parse::<ColumnName>(), Err(BadColumnName::Format), "{bad}");
        }
        let unknown = "user=user_id".parse::<ColumnName>().unwrap_err().to_string();
        assert!(unknown.contains("id, room, visitor, path") && unknown.contains("startedAt"), "{unknown}");
    }
}
