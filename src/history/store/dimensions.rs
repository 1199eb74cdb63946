//! Rollups of dimensions in the database: one row for each value of a dimension in a room and period.
//!
//! A commit adds to the rows of its own values, so its cost does not depend on how many others the period has. The key
//! begins with the period: new rows go to the end, and the rows of a period are deleted together.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, SqliteConnection};
use uuid::Uuid;

use super::codec::{decode_error, json, millis};
use super::insert::{self, Statement};
use crate::history::calendar::{Level, QUARTER_MS};
use crate::history::rollup::{
    Count, Counted, DictionaryId, Dimension, DimensionKey, DimensionRules, OTHER, RollupProp,
};
use crate::protocol::Time;

/// The table.
pub(super) const TABLE: &str = "dimension_rollups";

/// How many values of a dimension a room and period keep when their month is settled. The rest becomes `(other)`.
/// Few in tests.
pub(in crate::history) const VALUES_LIMIT: i64 = if cfg!(test) { 2 } else { 5_000 };

/// Rows that a recount folds at once.
const ROWS_PER_FOLD: u32 = 5_000;

/// Keys per deletion.
const KEYS_PER_STATEMENT: usize = 5_000;

/// The level's number in the table. Quarter hours are last, because they are deleted in the order of time.
pub(in crate::history) fn number(level: Level) -> i64 {
    match level {
        Level::Month => 0,
        Level::Day => 1,
        Level::Quarter => 2,
    }
}

/// A time in the table, in quarter hours since 1970.
pub(in crate::history) fn quarters(time: Time) -> i64 {
    millis(time) / i64::try_from(QUARTER_MS).unwrap_or(i64::MAX)
}

/// The time of a start in the table.
pub(super) fn time(quarters: i64) -> Time {
    Time::from_millis(u64::try_from(quarters).unwrap_or_default() * QUARTER_MS)
}

const DELETE_BETWEEN: &str = "
    DELETE FROM dimension_rollups WHERE (level, at, room, dimension, value) IN
        (SELECT level, at, room, dimension, value FROM dimension_rollups
         WHERE level = ?1 AND at >= ?2 AND at < ?3 LIMIT ?4)";

const HAS_ROW: &str = "
    SELECT json_group_array(EXISTS (
        SELECT 1 FROM dimension_rollups AS rollup
        WHERE (rollup.level, rollup.at, rollup.room, rollup.dimension, rollup.value)
            = (asked.value ->> 0, asked.value ->> 1, asked.value ->> 2, asked.value ->> 3, asked.value ->> 4)))
    FROM json_each(?1) AS asked";

/// The statements of commits, erasures and maintenance, for the test of query plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<String> {
    vec![delete_statement(TABLE), DELETE_BETWEEN.to_owned(), HAS_ROW.to_owned()]
}

/// A room, period and dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The length of the period.
    pub level: Level,
    /// The start of the period.
    pub at: Time,
    /// The room.
    pub room: DictionaryId,
    /// The dimension.
    pub dimension: Dimension,
}

/// Adds `changes` to the rows of `table`, and deletes rows that become zero.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    table: &str,
    changes: &[(DimensionKey, Count)],
) -> Result<(), sqlx::Error> {
    insert::rows(connection, table, changes).await?;
    // Only a row from which something was subtracted can be zero.
    let lower: Vec<_> = changes.iter().filter(|(_, by)| by.count < 0).map(|(key, _)| numbers(key)).collect();
    let statement = format!("{} AND count = 0 AND watched_ms = 0", delete_statement(table));
    for keys in lower.chunks(KEYS_PER_STATEMENT) {
        sqlx::query(AssertSqlSafe(statement.as_str())).bind(json(keys)?).execute(&mut *connection).await?;
    }
    Ok(())
}

fn delete_statement(table: &str) -> String {
    format!(
        "DELETE FROM {table} WHERE (level, at, room, dimension, value) IN
             (SELECT asked.value ->> 0, asked.value ->> 1, asked.value ->> 2, asked.value ->> 3, asked.value ->> 4
              FROM json_each(?1) AS asked)"
    )
}

/// A key as the table has it: level, start, room, dimension and value.
pub(super) type Numbers = (i64, i64, DictionaryId, u32, DictionaryId);

fn numbers(key: &DimensionKey) -> Numbers {
    (number(key.level), quarters(key.at), key.room, key.dimension.0, key.value)
}

impl insert::Row for (DimensionKey, Count) {
    const COLUMNS: &'static [&'static str] =
        &["level", "at", "room", "dimension", "value", "count", "watched_ms"];
    const KEY: usize = 5;
    const ADDS: bool = true;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let (level, at, room, dimension, value) = numbers(&self.0);
        let Count { count, watched_ms } = self.1;
        statement.bind(level).bind(at).bind(room).bind(dimension).bind(value).bind(count).bind(watched_ms)
    }
}

/// Subtracts `changes` from rows of folded months: what has no row of its own is in `(other)`.
pub(super) async fn subtract_folded(
    connection: &mut SqliteConnection,
    changes: &[(DimensionKey, Count)],
) -> Result<(), sqlx::Error> {
    for changes in changes.chunks(KEYS_PER_STATEMENT) {
        let keys: Vec<_> = changes.iter().map(|(key, _)| numbers(key)).collect();
        let has_row: String =
            sqlx::query_scalar(HAS_ROW).bind(json(&keys)?).fetch_one(&mut *connection).await?;
        let has_row: Vec<u8> = serde_json::from_str(&has_row).map_err(decode_error)?;
        let mut sums = BTreeMap::<DimensionKey, Count>::new();
        for ((key, count), has_row) in changes.iter().zip(has_row) {
            let value = if has_row > 0 { key.value } else { OTHER };
            sums.entry(DimensionKey { value, ..*key }).or_default().add(*count);
        }
        add(connection, TABLE, &sums.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Deletes up to `limit` rows of one level that begin in a range of time. Returns how many there were.
pub(super) async fn delete_between(
    connection: &mut SqliteConnection,
    level: Level,
    (from, to): (Time, Time),
    limit: u32,
) -> Result<u64, sqlx::Error> {
    let query =
        sqlx::query(DELETE_BETWEEN).bind(number(level)).bind(quarters(from)).bind(quarters(to)).bind(limit);
    Ok(query.execute(connection).await?.rows_affected())
}

/// Returns the buckets of `table` with more than the allowed values that begin in a range of time.
pub(super) async fn too_large(
    connection: &mut SqliteConnection,
    table: &str,
    level: Level,
    (from, to): (Time, Time),
) -> Result<Vec<Bucket>, sqlx::Error> {
    let statement = format!(
        "SELECT at, room, dimension FROM {table}
         WHERE level = ?1 AND at >= ?2 AND at < ?3 AND value <> 0
         GROUP BY level, at, room, dimension HAVING count(*) > ?4"
    );
    let query = sqlx::query_as(AssertSqlSafe(statement)).bind(number(level));
    let query = query.bind(quarters(from)).bind(quarters(to)).bind(VALUES_LIMIT);
    let rows: Vec<(i64, DictionaryId, u32)> = query.fetch_all(connection).await?;
    let bucket =
        |(at, room, dimension)| Bucket { level, at: time(at), room, dimension: Dimension(dimension) };
    Ok(rows.into_iter().map(bucket).collect())
}

/// The last value that a bucket keeps, in the order of lists: time watched, count, text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastKept {
    count: Count,
    text: String,
}

/// Returns the last value that a bucket keeps, if it has more than the allowed values.
pub(super) async fn last_kept(
    connection: &mut SqliteConnection,
    table: &str,
    bucket: Bucket,
) -> Result<Option<LastKept>, sqlx::Error> {
    let statement = format!(
        "SELECT watched_ms, count, ifnull((SELECT text FROM texts WHERE number = value), '') AS text
         FROM {table} WHERE level = ?1 AND at = ?2 AND room = ?3 AND dimension = ?4 AND value <> 0
         ORDER BY watched_ms DESC, count DESC, text LIMIT 1 OFFSET ?5"
    );
    let query = sqlx::query_as(AssertSqlSafe(statement)).bind(number(bucket.level)).bind(quarters(bucket.at));
    let query = query.bind(bucket.room).bind(bucket.dimension.0).bind(VALUES_LIMIT - 1);
    let found: Option<(i64, i64, String)> = query.fetch_optional(connection).await?;
    Ok(found.map(|(watched_ms, count, text)| LastKept { count: Count { count, watched_ms }, text }))
}

/// Returns up to `limit` rows that come after the last kept one, with values above `after`.
pub(super) async fn beyond(
    connection: &mut SqliteConnection,
    table: &str,
    bucket: Bucket,
    last: &LastKept,
    (after, limit): (DictionaryId, u32),
) -> Result<Vec<(DimensionKey, Count)>, sqlx::Error> {
    // Rows of equal counts are few, so that few texts are read.
    let statement = format!(
        "SELECT value, count, watched_ms FROM {table}
         WHERE level = ?1 AND at = ?2 AND room = ?3 AND dimension = ?4 AND value > ?5
           AND ((watched_ms, count) < (?6, ?7) OR ((watched_ms, count) = (?6, ?7)
                AND ifnull((SELECT text FROM texts WHERE number = value), '') > ?8))
         ORDER BY value LIMIT ?9"
    );
    let query = sqlx::query_as(AssertSqlSafe(statement)).bind(number(bucket.level)).bind(quarters(bucket.at));
    let query = query.bind(bucket.room).bind(bucket.dimension.0).bind(after);
    let query = query.bind(last.count.watched_ms).bind(last.count.count).bind(&last.text).bind(limit);
    let rows: Vec<(DictionaryId, i64, i64)> = query.fetch_all(connection).await?;
    let Bucket { level, at, room, dimension } = bucket;
    let row = |(value, count, watched_ms)| {
        (DimensionKey { level, at, room, dimension, value }, Count { count, watched_ms })
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Moves rows of one bucket to its `(other)`.
pub(super) async fn fold(
    connection: &mut SqliteConnection,
    table: &str,
    rows: &[(DimensionKey, Count)],
) -> Result<(), sqlx::Error> {
    let Some((first, _)) = rows.first() else { return Ok(()) };
    let keys: Vec<_> = rows.iter().map(|(key, _)| numbers(key)).collect();
    delete(connection, table, &keys).await?;
    let mut sum = Count::default();
    for (_, count) in rows {
        sum.add(*count);
    }
    add(connection, table, &[(DimensionKey { value: OTHER, ..*first }, sum)]).await
}

/// Moves the values of a bucket beyond the last kept one to its `(other)`.
pub(super) async fn fold_bucket(
    connection: &mut SqliteConnection,
    table: &str,
    bucket: Bucket,
) -> Result<(), sqlx::Error> {
    let Some(last) = last_kept(connection, table, bucket).await? else { return Ok(()) };
    let mut after = OTHER;
    loop {
        let found = beyond(connection, table, bucket, &last, (after, ROWS_PER_FOLD)).await?;
        let Some((key, _)) = found.last() else { return Ok(()) };
        after = key.value;
        fold(connection, table, &found).await?;
    }
}

/// Counts the rows of one level that begin in a range of time.
pub(super) async fn count_between(
    connection: &mut SqliteConnection,
    level: Level,
    from: Time,
    to: Time,
) -> Result<u64, sqlx::Error> {
    const COUNT: &str = "SELECT count(*) FROM dimension_rollups WHERE level = ?1 AND at >= ?2 AND at < ?3";
    let query = sqlx::query_scalar(COUNT).bind(number(level)).bind(quarters(from)).bind(quarters(to));
    query.fetch_one(connection).await
}

/// Returns up to `limit` keys after `after` whose dimension is in a JSON list.
pub(super) async fn of_dimensions(
    connection: &mut SqliteConnection,
    dimensions: &str,
    after: Option<Numbers>,
    limit: u32,
) -> Result<Vec<Numbers>, sqlx::Error> {
    const KEYS: &str = "
        SELECT level, at, room, dimension, value FROM dimension_rollups
        WHERE (level, at, room, dimension, value) > (?1, ?2, ?3, ?4, ?5)
          AND dimension IN (SELECT value FROM json_each(?6))
        ORDER BY level, at, room, dimension, value LIMIT ?7";
    let (level, at, room, dimension, value) = after.unwrap_or((-1, 0, 0, 0, 0));
    let query = sqlx::query_as(KEYS).bind(level).bind(at).bind(room).bind(dimension).bind(value);
    query.bind(dimensions).bind(limit).fetch_all(connection).await
}

/// Deletes rows by key.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    table: &str,
    keys: &[Numbers],
) -> Result<(), sqlx::Error> {
    let statement = delete_statement(table);
    for keys in keys.chunks(KEYS_PER_STATEMENT) {
        sqlx::query(AssertSqlSafe(statement.as_str())).bind(json(keys)?).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Encodes which rows of a month are counted, for the table of months.
pub(super) fn encode(counted: Counted) -> Vec<u8> {
    let with = |kind: u8, id: Uuid| [&[kind], id.as_bytes().as_slice()].concat();
    match counted {
        Counted::Nothing => Vec::new(),
        Counted::PageViewsBefore(id) => with(1, id),
        Counted::WatchesBefore(id) => with(2, id),
    }
}

/// Decodes which rows of a month are counted. `None` stands for all, also as an older version counted them.
pub(super) fn decode(bytes: &[u8]) -> Option<Counted> {
    match bytes {
        [] => Some(Counted::Nothing),
        [1, id @ ..] => Uuid::from_slice(id).ok().map(Counted::PageViewsBefore),
        [2, id @ ..] => Uuid::from_slice(id).ok().map(Counted::WatchesBefore),
        _ => None,
    }
}

/// Reads which rows the rollups of dimensions count.
pub(super) async fn rules(connection: &mut SqliteConnection) -> Result<DimensionRules, sqlx::Error> {
    const PROPS: &str = "SELECT id, name, from_at FROM rollup_props WHERE is_listed ORDER BY id";
    const MONTHS: &str = "SELECT month, folded, counted FROM months WHERE folded = 1 OR counted IS NOT NULL";
    let props: Vec<(u32, String, u64)> = sqlx::query_as(PROPS).fetch_all(&mut *connection).await?;
    let prop =
        |(id, name, from)| RollupProp { dimension: Dimension(id), name, from: Time::from_millis(from) };
    let props = props.into_iter().map(prop).collect();
    let rows: Vec<(String, bool, Option<Vec<u8>>)> = sqlx::query_as(MONTHS).fetch_all(connection).await?;
    let mut months = BTreeMap::new();
    for (month, is_folded, counted) in rows {
        let counted = counted.and_then(|counted| decode(&counted));
        if let Some(counted) = if is_folded { Some(Counted::Nothing) } else { counted } {
            months.insert(month.parse().map_err(decode_error)?, counted);
        }
    }
    Ok(DimensionRules { props, months })
}
