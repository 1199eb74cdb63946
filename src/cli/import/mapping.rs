//! The old worker's rows: page views and watch sessions under the names of its tables.
//!
//! A [`Mapping`] says what each of our columns is called there. Ids that are no UUIDs become some that
//! depend on nothing but the kind and the id, so that a row is the same fact every time. Pure.

use std::collections::HashMap;
use std::str::FromStr;

use clap::ValueEnum;
use serde_json::Value;
use uuid::Uuid;

use super::fields::{Fields, Refusal};
use super::record::FUTURE;
use crate::cli::moment::{from_number, moment};
use crate::history::record::Record;
use crate::protocol::{RoomId, Time, WatchState};

/// The namespace of UUIDs made from other ids (RFC 9562, section 5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x4b1a_6d0e_93c2_4f57_8e21_7f6f_52d4_c0aa);

/// What the old worker's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Pages that were seen.
    PageViews,
    /// Watch sessions.
    WatchSessions,
}

/// Our columns of such rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "camelCase")]
pub(crate) enum Column {
    /// What makes the row unique in its table.
    Id,
    /// The room.
    Room,
    /// The visitor.
    Visitor,
    /// The page's path.
    Path,
    /// The page's title.
    Title,
    /// Where the visitor came from.
    Referrer,
    /// When the page was seen.
    At,
    /// What was watched.
    Content,
    /// When that started.
    StartedAt,
    /// How long it was watched, in seconds.
    Duration,
    /// Whether it was watched to its end.
    Completed,
}

impl Column {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What the old worker called it.
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

/// What one of our columns is called in a file, written `ours=theirs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    ours: Column,
    theirs: String,
}

/// Text that renames no column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRenaming {
    /// No two names.
    #[error("must be like visitor=member: our name, and that in the file")]
    Form,
    /// The first one is none of ours.
    #[error("{name:?} is none of {}", Column::value_variants().iter().map(|ours| ours.name()).collect::<Vec<_>>().join(", "))]
    Unknown {
        /// As it was given.
        name: String,
    },
}

impl FromStr for Renamed {
    type Err = BadRenaming;

    fn from_str(text: &str) -> Result<Self, BadRenaming> {
        match text.split_once('=') {
            Some((ours, theirs)) if !theirs.is_empty() => {
                let unknown = |_| BadRenaming::Unknown { name: ours.to_owned() };
                Ok(Self { ours: Column::from_str(ours, false).map_err(unknown)?, theirs: theirs.to_owned() })
            }
            _ => Err(BadRenaming::Form),
        }
    }
}

/// How the old worker's rows are read.
#[derive(Debug)]
pub(super) struct Mapping {
    kind: Option<Kind>,
    room: RoomId,
    names: HashMap<Column, String>,
}

impl Mapping {
    /// Rows of `kind`, or of what their columns look like; in `room`, where they name none.
    pub(super) fn new(kind: Option<Kind>, room: RoomId, renamed: Vec<Renamed>) -> Self {
        let names = renamed.into_iter().map(|Renamed { ours, theirs }| (ours, theirs)).collect();
        Self { kind, room, names }
    }

    /// Whether a row is one of the old worker's: it was said so, or it has no type as ours have.
    pub(super) fn applies_to(&self, row: &Fields) -> bool {
        self.kind.is_some() || row.get("type").is_none()
    }

    /// The record that such a row tells, of which nothing may be later than `latest`.
    pub(super) fn record(&self, row: &Fields, latest: Time) -> Result<Record, Refusal> {
        let has = |column| row.get(self.theirs(column)).is_some();
        let row = Cells { row, mapping: self, latest };
        match self.kind {
            Some(Kind::PageViews) => row.page_view(),
            Some(Kind::WatchSessions) => row.watch_session(),
            None if has(Column::Content) => row.watch_session(),
            None if has(Column::Path) => row.page_view(),
            None => {
                let (path, content) = (self.theirs(Column::Path), self.theirs(Column::Content));
                let rule = format!("has no type, no {path} and no {content}: --kind or --field would help");
                Err(Refusal::row(rule))
            }
        }
    }

    fn theirs(&self, column: Column) -> &str {
        self.names.get(&column).map_or(column.default_name(), String::as_str)
    }
}

/// A row, by our columns.
struct Cells<'a> {
    row: &'a Fields,
    mapping: &'a Mapping,
    latest: Time,
}

impl Cells<'_> {
    fn page_view(&self) -> Result<Record, Refusal> {
        Ok(Record::PageView {
            id: self.id("page-view")?,
            room: self.text(Column::Room)?.unwrap_or_else(|| self.mapping.room.clone()),
            visitor: self.required(Column::Visitor, Self::text)?,
            is_bot: false,
            path: self.required(Column::Path, Self::text)?,
            title: self.text(Column::Title)?,
            referrer: self.text(Column::Referrer)?,
            at: self.required(Column::At, Self::moment)?,
            props: None,
        })
    }

    /// The time watched is all that such a row tells of how long it went on.
    fn watch_session(&self) -> Result<Record, Refusal> {
        let started_at = self.required(Column::StartedAt, Self::moment)?;
        let watched_ms = self.seconds(Column::Duration)?;
        let ended_at = started_at.plus(watched_ms);
        if ended_at > self.latest {
            return Err(self.refusal(Column::Duration, "ends more than 5 minutes in the future"));
        }
        let is_over = self.truth(Column::Completed)?;
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

    /// A value that is there: neither null nor empty.
    fn get(&self, column: Column) -> Option<&Value> {
        let value = self.row.get(self.mapping.theirs(column));
        value.filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn refusal(&self, column: Column, rule: impl std::fmt::Display) -> Refusal {
        match (column.name(), self.mapping.theirs(column)) {
            (ours, theirs) if ours == theirs => Refusal::field(theirs, rule),
            (ours, theirs) => Refusal::field(&format!("{ours} ({theirs})"), rule),
        }
    }

    fn required<T>(
        &self,
        column: Column,
        read: impl Fn(&Self, Column) -> Result<Option<T>, Refusal>,
    ) -> Result<T, Refusal> {
        read(self, column)?.ok_or_else(|| self.refusal(column, "is missing"))
    }

    fn text<T>(&self, column: Column) -> Result<Option<T>, Refusal>
    where
        T: TryFrom<String, Error: std::fmt::Display>,
    {
        let text = match self.get(column) {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(self.refusal(column, "must be text")),
        };
        T::try_from(text).map(Some).map_err(|rule| self.refusal(column, rule))
    }

    fn id(&self, kind: &str) -> Result<Uuid, Refusal> {
        let id: String = self.required(Column::Id, Self::text)?;
        let made = || Uuid::new_v5(&NAMESPACE, format!("{kind}:{id}").as_bytes());
        Ok(Uuid::try_parse(&id).unwrap_or_else(|_| made()))
    }

    fn moment(&self, column: Column) -> Result<Option<Time>, Refusal> {
        let Some(value) = self.get(column) else { return Ok(None) };
        let moment = match value {
            Value::Number(number) => from_number(number.as_f64().unwrap_or(f64::NAN)),
            other => moment(other.as_str().unwrap_or_default()),
        };
        match moment {
            Ok(at) if at > self.latest => Err(self.refusal(column, FUTURE)),
            Ok(at) => Ok(Some(at)),
            Err(rule) => Err(self.refusal(column, rule)),
        }
    }

    /// Seconds as milliseconds. Without any, none.
    fn seconds(&self, column: Column) -> Result<u64, Refusal> {
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
                reason = "it is in these bounds"
            )]
            Some(seconds @ 0.0..=LIMIT) => Ok((seconds * 1000.0).round() as u64),
            _ => Err(self.refusal(column, "must be a number of seconds, from 0 to 1000000000")),
        }
    }

    /// Yes or no. Without either, no.
    fn truth(&self, column: Column) -> Result<bool, Refusal> {
        let text = match self.get(column) {
            None => return Ok(false),
            Some(Value::String(text)) => text.trim().to_ascii_lowercase(),
            Some(other) => other.to_string(),
        };
        match text.as_str() {
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => Err(self.refusal(column, "must be true, false, 1 or 0")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LATEST: u64 = 1_800_000_000_000;

    fn mapping(kind: Option<Kind>, renamed: &[&str]) -> Mapping {
        let renamed = renamed.iter().map(|text| text.parse().unwrap()).collect();
        Mapping::new(kind, RoomId::try_from("lobby").unwrap(), renamed)
    }

    fn read(mapping: &Mapping, row: Value) -> Result<Value, String> {
        let row = Fields::Object(serde_json::from_value(row).unwrap());
        let record =
            mapping.record(&row, Time::from_millis(LATEST)).map_err(|refusal| refusal.to_string())?;
        Ok(serde_json::to_value(record).unwrap())
    }

    fn refused(row: Value) -> String {
        read(&mapping(None, &[]), row).unwrap_err()
    }

    #[test]
    fn rows_of_the_old_worker_become_records() {
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
    fn truth_is_written_in_many_ways() {
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
    fn columns_may_have_other_names_and_rows_another_kind() {
        let mapping =
            mapping(Some(Kind::PageViews), &["visitor=member", "at=seen", "path=content_id", "room=place"]);
        let row = json!({ "id": "x", "member": "ann", "seen": 5, "content_id": "/", "place": "garden", "type": "visit" });
        assert!(mapping.applies_to(&Fields::Object(serde_json::from_value(row.clone()).unwrap())));
        let view = read(&mapping, row).unwrap();
        assert_eq!(
            (&view["visitor"], &view["at"], &view["room"]),
            (&json!("ann"), &json!(5_000), &json!("garden"))
        );
    }

    #[test]
    fn ids_that_are_no_uuids_always_become_the_same_one() {
        let id = |kind, id: Value| {
            let row = json!({ "id": id, "user_id": "a", "path": "/", "content_id": "c", "timestamp": 1, "started_at": 1 });
            read(&mapping(Some(kind), &[]), row).unwrap()["id"].as_str().unwrap().to_owned()
        };
        let view = id(Kind::PageViews, json!(17));
        // Fixed for ever: another one would make every row of an earlier import new.
        assert_eq!(view, "99d1474f-268e-5d8e-bee4-bd232d1272f5");
        assert_eq!(view, id(Kind::PageViews, json!("17")));
        assert_ne!(view, id(Kind::PageViews, json!(18)));
        assert_ne!(view, id(Kind::WatchSessions, json!(17)));
        let uuid = "01890000-0000-7000-8000-00000000000a";
        assert_eq!(id(Kind::PageViews, json!(uuid.to_uppercase())), uuid);
    }

    #[test]
    fn what_is_wrong_is_named_as_in_the_file() {
        let view = |change: Value| {
            let mut row = json!({ "id": 1, "user_id": "ann", "path": "/", "timestamp": 1 });
            row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            refused(row)
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
            refused(row)
        };
        let seconds = "duration: must be a number of seconds, from 0 to 1000000000";
        for value in [json!(-1), json!("long"), json!("NaN"), json!(1e10)] {
            assert_eq!(watch("duration", value), seconds);
        }
        let row = json!({ "id": 1, "user_id": "a", "content_id": "c", "started_at": LATEST - 1_000, "duration": 2 });
        assert_eq!(refused(row), "duration: ends more than 5 minutes in the future");
        assert_eq!(watch("completed", json!("maybe")), "completed: must be true, false, 1 or 0");
        assert!(refused(json!({ "id": 1, "name": "x" })).contains("no path and no content_id"));
    }

    #[test]
    fn a_renaming_has_two_names() {
        assert_eq!(
            "startedAt=begin".parse(),
            Ok(Renamed { ours: Column::StartedAt, theirs: "begin".to_owned() })
        );
        for bad in ["visitor", "visitor="] {
            assert_eq!(bad.parse::<Renamed>(), Err(BadRenaming::Form), "{bad}");
        }
        let unknown = "user=user_id".parse::<Renamed>().unwrap_err().to_string();
        assert!(unknown.contains("id, room, visitor, path") && unknown.contains("startedAt"), "{unknown}");
    }
}
