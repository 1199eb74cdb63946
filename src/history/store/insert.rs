//! Upserts of raw rows and rollups, and the columns of raw rows.
//!
//! Statements bind each value as a parameter, which takes half as long as one JSON parameter.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::codec::{json, millis, signed, to_json};
use super::partition::RowKind;
use crate::history::calendar::Month;
use crate::history::event::{NodeName, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use crate::history::rollup::{ALL_ROOMS, DictionaryId, DictionaryIds, room_samples};
use crate::protocol::WatchState;

/// Limit of rows per statement. Each row binds a parameter for each column.
const ROWS_PER_STATEMENT: usize = 128;

/// A value that is stored as a row.
pub(super) trait Row: Sync {
    /// The columns in the order of [`bind`](Self::bind), the primary key first.
    const COLUMNS: &'static [&'static str];
    /// The number of columns of the primary key.
    const KEY: usize;
    /// Whether an upsert adds to the other columns instead of replacing them.
    const ADDS: bool = false;

    /// Binds the values of all columns.
    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q>;
}

pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Upserts rows into `table`.
///
/// Statements have 128, 64, … 1 rows, so that few distinct statements are prepared.
pub(super) async fn rows<T: Row>(
    connection: &mut SqliteConnection,
    table: &str,
    rows: &[T],
) -> Result<(), sqlx::Error> {
    let (columns, row) = (T::COLUMNS.join(", "), format!("({})", vec!["?"; T::COLUMNS.len()].join(", ")));
    // An upsert keeps the row in its place; REPLACE deletes and inserts.
    let others = T::COLUMNS.iter().skip(T::KEY).map(|column| {
        let added = if T::ADDS { format!("{column} + ") } else { String::new() };
        format!("{column} = {added}excluded.{column}")
    });
    let others = others.collect::<Vec<_>>().join(", ");
    let mut rest = rows;
    while !rest.is_empty() {
        let count = ROWS_PER_STATEMENT.min(1 << rest.len().ilog2());
        let (now, later) = rest.split_at(count);
        rest = later;
        let values = vec![row.as_str(); count].join(", ");
        let text =
            format!("INSERT INTO {table} ({columns}) VALUES {values} ON CONFLICT DO UPDATE SET {others}");
        let statement =
            now.iter().fold(sqlx::query(AssertSqlSafe(text)), |statement, row| row.bind(statement));
        statement.execute(&mut *connection).await?;
    }
    Ok(())
}

/// An event with the dictionary ids of its texts.
pub(super) struct EventRow<'a, T>(pub(super) &'a T, pub(super) &'a DictionaryIds);

impl Row for EventRow<'_, PageViewEvent> {
    const COLUMNS: &'static [&'static str] =
        &["id", "visitor", "room", "at", "path", "title", "referrer", "props", "is_bot"];
    const KEY: usize = 3;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let Self(event, ids) = self;
        statement
            .bind(event.id.as_bytes().to_vec())
            .bind(ids.visitor(&event.actor.visitor))
            .bind(ids.room(&event.actor.room))
            .bind(millis(event.at))
            .bind(ids.text(event.path.as_str()))
            .bind(event.title.as_ref().map(|title| ids.text(title.as_str())))
            .bind(event.referrer.as_ref().map(|referrer| ids.text(referrer.as_str())))
            .bind(event.props.as_ref().map(|props| props.as_json().to_owned()))
            .bind(event.actor.is_bot)
    }
}

impl Row for EventRow<'_, WatchEvent> {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "visitor",
        "room",
        "content",
        "state",
        "at",
        "watched_ms",
        "started_at",
        "seen_at",
        "position_ms",
        "position_at",
        "duration_ms",
        "props",
        "props_at",
        "is_bot",
    ];
    const KEY: usize = 3;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let Self(event, ids) = self;
        let state = match event.state {
            WatchState::Playing => "playing",
            WatchState::Paused => "paused",
            WatchState::Ended => "ended",
        };
        statement
            .bind(event.id.as_bytes().to_vec())
            .bind(ids.visitor(&event.actor.visitor))
            .bind(ids.room(&event.actor.room))
            .bind(ids.text(event.content.as_str()))
            .bind(state)
            .bind(millis(event.at))
            .bind(signed(event.watched_ms))
            .bind(millis(event.started_at))
            .bind(millis(event.seen_at))
            .bind(event.position_ms.map(|(_, position)| signed(position.get())))
            .bind(event.position_ms.map(|(at, _)| millis(at)))
            .bind(event.duration_ms.map(|duration| signed(duration.get())))
            .bind(event.props.as_ref().map(|(_, props)| props.as_json().to_owned()))
            .bind(event.props.as_ref().map(|(at, _)| millis(*at)))
            .bind(event.actor.is_bot)
    }
}

impl Row for EventRow<'_, TotalSample> {
    const COLUMNS: &'static [&'static str] = &["id", "at", "samples"];
    const KEY: usize = 2;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let Self(total, ids) = self;
        let mut samples: Vec<StoredSample> = room_samples(total, ids).map(StoredSample::new).collect();
        // The nodes are those of all rooms, so the sample of the whole hub has them.
        if let Some(hub) = samples.iter_mut().find(|sample| sample.room == ALL_ROOMS) {
            hub.nodes.clone_from(&total.nodes);
        }
        statement.bind(total.id.as_bytes().to_vec()).bind(millis(total.at)).bind(to_json(&samples))
    }
}

/// A room sample as it is stored, with its room's dictionary id. There is one for each minute and room, so the JSON is
/// short: trailing fields of zero are left out.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StoredSample {
    pub(super) room: DictionaryId,
    present_ms: u64,
    peak: u32,
    #[serde(default)]
    joins: u32,
    #[serde(default)]
    moods_ms: BTreeMap<String, u64>,
    #[serde(default)]
    held_ms: u64,
    #[serde(default)]
    sits_begun: u64,
    #[serde(default)]
    sits_completed: u64,
    #[serde(default)]
    sat_ms: u64,
    #[serde(default)]
    pub(super) nodes: BTreeSet<NodeName>,
}

impl Serialize for StoredSample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let last = [self.held_ms, self.sits_begun, self.sits_completed, self.sat_ms];
        let has_nodes = !self.nodes.is_empty();
        let last_used = last.iter().rposition(|number| *number > 0).map_or(0, |index| index + 1);
        let last_used = if has_nodes { last.len() } else { last_used };
        let has_moods = !self.moods_ms.is_empty() || last_used > 0;
        let mut fields = serializer.serialize_seq(None)?;
        fields.serialize_element(&self.room)?;
        fields.serialize_element(&self.present_ms)?;
        fields.serialize_element(&self.peak)?;
        if self.joins > 0 || has_moods {
            fields.serialize_element(&self.joins)?;
        }
        if has_moods {
            fields.serialize_element(&self.moods_ms)?;
        }
        for number in last.iter().take(last_used) {
            fields.serialize_element(number)?;
        }
        if has_nodes {
            fields.serialize_element(&self.nodes)?;
        }
        fields.end()
    }
}

impl StoredSample {
    fn new((room, sample): (DictionaryId, &RoomSample)) -> Self {
        let RoomSample { present_ms, peak, joins, moods_ms, held_ms, sits_begun, sits_completed, sat_ms } =
            sample.clone();
        let nodes = BTreeSet::new();
        Self { room, present_ms, peak, joins, moods_ms, held_ms, sits_begun, sits_completed, sat_ms, nodes }
    }
}

impl From<StoredSample> for RoomSample {
    fn from(stored: StoredSample) -> Self {
        let StoredSample { present_ms, peak, joins, moods_ms, .. } = stored;
        let StoredSample { held_ms, sits_begun, sits_completed, sat_ms, .. } = stored;
        Self { present_ms, peak, joins, moods_ms, held_ms, sits_begun, sits_completed, sat_ms }
    }
}

/// The values of a row's primary key: the id in hexadecimal, and then dictionary ids or a time.
pub(super) type Key = (String, u64, Option<u64>);

/// The condition that a row of `table` has the [`Key`] in `asked`.
pub(super) fn has_key(kind: RowKind, table: &str) -> String {
    let rest = kind.key().iter().enumerate().skip(1);
    let rest = rest.map(|(index, column)| format!("{table}.{column} = asked.value ->> {index}"));
    format!("{table}.id = unhex(asked.value ->> 0) AND {}", rest.collect::<Vec<_>>().join(" AND "))
}

/// Deletes rows by key.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    kind: RowKind,
    month: Month,
    keys: &[Key],
) -> Result<u64, sqlx::Error> {
    let (table, key) = (kind.table(month), kind.key().join(", "));
    let rest = (1..kind.key().len()).map(|index| format!("value ->> {index}"));
    let rest = rest.collect::<Vec<_>>().join(", ");
    let statement = format!(
        "DELETE FROM {table} WHERE ({key}) IN (SELECT unhex(value ->> 0), {rest} FROM json_each(?1))"
    );
    Ok(sqlx::query(AssertSqlSafe(statement)).bind(json(keys)?).execute(connection).await?.rows_affected())
}
