//! Raw rows in: facts into the tables of their month.
//!
//! Rows have values of their own in the statement, which takes half as long as one JSON parameter does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};
use sqlx::{AssertSqlSafe, SqliteConnection};
use uuid::Uuid;

use super::names::json;
use super::partition::Kind;
use super::rollups::{millis, to_json};
use crate::history::calendar::Month;
use crate::history::event::{Census, PageViewFact, Sample, WatchFact};
use crate::history::rollup::{Number, Numbers, samples};
use crate::wire::WatchState;

/// The most rows of a statement; it has one value of each column for each.
const ROWS_PER_STATEMENT: usize = 128;

/// What is written as a row.
pub(super) trait Row: Sync {
    /// The columns, as [`bind`](Self::bind) has them.
    const COLUMNS: &'static [&'static str];

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
    let mut rest = rows;
    while !rest.is_empty() {
        let count = ROWS_PER_STATEMENT.min(1 << rest.len().ilog2());
        let (now, later) = rest.split_at(count);
        rest = later;
        let values = vec![row.as_str(); count].join(", ");
        let text = format!("REPLACE INTO {table} ({columns}) VALUES {values}");
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

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let Self(census, numbers) = self;
        let samples: BTreeMap<Number, StoredSample> =
            samples(census, numbers).map(|(room, sample)| (room, sample.into())).collect();
        statement.bind(census.id.as_bytes().to_vec()).bind(millis(census.at)).bind(to_json(&samples))
    }
}

/// A sample as it is stored: present ms, peak, joins and, where there are any, ms by mood. There is one for every
/// minute and room, so that it is as short as JSON can be.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StoredSample(
    u64,
    u32,
    u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")] BTreeMap<String, u64>,
);

impl From<&Sample> for StoredSample {
    fn from(sample: &Sample) -> Self {
        Self(sample.present_ms, sample.peak, sample.joins, sample.moods_ms.clone())
    }
}

impl From<StoredSample> for Sample {
    fn from(StoredSample(present_ms, peak, joins, moods_ms): StoredSample) -> Self {
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
