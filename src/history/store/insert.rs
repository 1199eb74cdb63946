//! Raw rows in: facts into the tables of their month.
//!
//! Rows have values of their own in the statement, which takes half as long as one JSON parameter does.

use std::collections::BTreeMap;

use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};
use sqlx::{AssertSqlSafe, SqliteConnection};
use uuid::Uuid;

use super::dictionary::json;
use super::partition::Kind;
use super::rollups::{millis, to_json};
use crate::history::calendar::Month;
use crate::history::event::{Census, PageViewFact, Sample, WatchFact};
use crate::history::rollup::{Number, Numbers, samples};
use crate::protocol::WatchState;

/// The most rows of a statement; it has one value of each column for each.
const ROWS_PER_STATEMENT: usize = 128;

/// What is written as a row.
pub(super) trait Row: Sync {
    /// The columns, as [`bind`](Self::bind) has them, those of the primary key first.
    const COLUMNS: &'static [&'static str];
    /// How many columns the primary key has.
    const KEY: usize;

    /// Adds the values of all columns to a statement.
    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q>;
}

pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Writes rows to `table`, each instead of the one that had its key.
///
/// Statements have 128, 64, … 1 rows, so that there are few of them, which are prepared once.
pub(super) async fn rows<T: Row>(
    connection: &mut SqliteConnection,
    table: &str,
    rows: &[T],
) -> Result<(), sqlx::Error> {
    let (columns, row) = (T::COLUMNS.join(", "), format!("({})", vec!["?"; T::COLUMNS.len()].join(", ")));
    // A row stays where it is, which REPLACE would not do.
    let others = T::COLUMNS.iter().skip(T::KEY).map(|column| format!("{column} = excluded.{column}"));
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

/// A fact, and the numbers of its texts.
pub(super) struct Fact<'a, T>(pub(super) &'a T, pub(super) &'a Numbers);

impl Row for Fact<'_, PageViewFact> {
    const COLUMNS: &'static [&'static str] =
        &["id", "at", "room", "visitor", "path", "title", "referrer", "props", "is_bot"];
    const KEY: usize = 1;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let Self(fact, numbers) = self;
        statement
            .bind(fact.id.as_bytes().to_vec())
            .bind(millis(fact.at))
            .bind(numbers.room(&fact.who.room))
            .bind(numbers.visitor(&fact.who.visitor))
            .bind(numbers.text(fact.path.as_str()))
            .bind(fact.title.as_ref().map(|title| numbers.text(title.as_str())))
            .bind(fact.referrer.as_ref().map(|referrer| numbers.text(referrer.as_str())))
            .bind(fact.props.as_ref().map(|props| props.as_json().to_owned()))
            .bind(fact.who.is_bot)
    }
}

impl Row for Fact<'_, WatchFact> {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "room",
        "visitor",
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
    const KEY: usize = 1;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let Self(fact, numbers) = self;
        let state = match fact.state {
            WatchState::Playing => "playing",
            WatchState::Paused => "paused",
            WatchState::Ended => "ended",
        };
        statement
            .bind(fact.id.as_bytes().to_vec())
            .bind(numbers.room(&fact.who.room))
            .bind(numbers.visitor(&fact.who.visitor))
            .bind(numbers.text(fact.content.as_str()))
            .bind(state)
            .bind(millis(fact.at))
            .bind(signed(fact.watched_ms))
            .bind(millis(fact.started_at))
            .bind(millis(fact.seen_at))
            .bind(fact.position_ms.map(|(_, position)| signed(position.get())))
            .bind(fact.position_ms.map(|(at, _)| millis(at)))
            .bind(fact.duration_ms.map(|duration| signed(duration.get())))
            .bind(fact.props.as_ref().map(|(_, props)| props.as_json().to_owned()))
            .bind(fact.props.as_ref().map(|(at, _)| millis(*at)))
            .bind(fact.who.is_bot)
    }
}

impl Row for Fact<'_, Census> {
    const COLUMNS: &'static [&'static str] = &["id", "at", "samples"];
    const KEY: usize = 1;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let Self(census, numbers) = self;
        let samples: Vec<StoredSample> = samples(census, numbers).map(StoredSample::new).collect();
        statement.bind(census.id.as_bytes().to_vec()).bind(millis(census.at)).bind(to_json(&samples))
    }
}

/// A sample as it is stored, with its room's number. There is one for every minute and room, so that it is as short as
/// JSON can be: nobody who came and no mood are left out at the end.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StoredSample {
    pub(super) room: Number,
    present_ms: u64,
    peak: u32,
    #[serde(default)]
    joins: u32,
    #[serde(default)]
    moods_ms: BTreeMap<String, u64>,
}

impl Serialize for StoredSample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_seq(None)?;
        fields.serialize_element(&self.room)?;
        fields.serialize_element(&self.present_ms)?;
        fields.serialize_element(&self.peak)?;
        if self.joins > 0 || !self.moods_ms.is_empty() {
            fields.serialize_element(&self.joins)?;
        }
        if !self.moods_ms.is_empty() {
            fields.serialize_element(&self.moods_ms)?;
        }
        fields.end()
    }
}

impl StoredSample {
    fn new((room, sample): (Number, &Sample)) -> Self {
        let Sample { present_ms, peak, joins, moods_ms } = sample.clone();
        Self { room, present_ms, peak, joins, moods_ms }
    }
}

impl From<StoredSample> for Sample {
    fn from(StoredSample { present_ms, peak, joins, moods_ms, .. }: StoredSample) -> Self {
        Self { present_ms, peak, joins, moods_ms }
    }
}

/// SQLite's integers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Deletes rows by id.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    kind: Kind,
    month: Month,
    ids: &[Uuid],
) -> Result<u64, sqlx::Error> {
    let table = kind.table(month);
    let statement = format!("DELETE FROM {table} WHERE id IN (SELECT unhex(value) FROM json_each(?1))");
    let ids: Vec<_> = ids.iter().map(|id| id.simple()).collect();
    Ok(sqlx::query(AssertSqlSafe(statement)).bind(json(&ids)?).execute(connection).await?.rows_affected())
}
