//! Rollups of activity and presence in the database; `dimensions` has those of dimensions.
//!
//! A commit reads them, merges its changes, and writes them back in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::codec::{from_json, from_visitors, json, millis, to_json, to_visitors};
use super::insert::{self, Statement};
use crate::history::calendar::{Level, Month};
use crate::history::rollup::{ActivityRollup, DictionaryId, PresenceRollup, RollupKey};
use crate::protocol::Time;

/// Rollups per statement. A set of a million visitors has 125 KB.
const ROWS_PER_STATEMENT: usize = 200;

/// Adds `changes` to the rollups of page views and watch sessions, and removes the visitors in `removed`.
pub(super) async fn change_activity(
    connection: &mut SqliteConnection,
    changes: &BTreeMap<RollupKey, ActivityRollup>,
    removed: &BTreeMap<RollupKey, RoaringBitmap>,
) -> Result<(), sqlx::Error> {
    let keys: BTreeSet<RollupKey> = changes.keys().chain(removed.keys()).copied().collect();
    let keys: Vec<RollupKey> = keys.into_iter().collect();
    for chunk in keys.chunks(ROWS_PER_STATEMENT) {
        let mut rollups = activity(connection, chunk).await?;
        for key in chunk {
            let rollup = rollups.entry(*key).or_default();
            if let Some(change) = changes.get(key) {
                rollup.merge(change);
            }
            if let Some(removed) = removed.get(key) {
                rollup.visitors -= removed;
            }
        }
        put_activity(connection, &rollups).await?;
    }
    Ok(())
}

/// Adds `changes` to the rollups of presence.
pub(super) async fn change_presence(
    connection: &mut SqliteConnection,
    changes: &BTreeMap<RollupKey, PresenceRollup>,
) -> Result<(), sqlx::Error> {
    let keys: Vec<RollupKey> = changes.keys().copied().collect();
    for chunk in keys.chunks(ROWS_PER_STATEMENT) {
        let mut rollups = presence(connection, chunk).await?;
        for key in chunk {
            let rollup = rollups.entry(*key).or_default();
            changes.get(key).into_iter().for_each(|change| rollup.merge(change));
        }
        put_presence(connection, &rollups).await?;
    }
    Ok(())
}

/// Reads the rollups of page views and watch sessions with these keys.
pub(super) async fn activity(
    connection: &mut SqliteConnection,
    keys: &[RollupKey],
) -> Result<BTreeMap<RollupKey, ActivityRollup>, sqlx::Error> {
    const FIND: &str = "
        SELECT rollup.level, room, at, page_views, watch_sessions, watched_ms, visitor_set
        FROM json_each(?1) AS asked CROSS JOIN activity_rollups AS rollup
        ON rollup.level = value ->> 0 AND room = value ->> 1 AND at = value ->> 2";
    let rows = sqlx::query(FIND).bind(json(&triples(keys))?).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((key(row)?, to_activity(row)?))).collect()
}

/// Reads the rollups of presence with these keys.
pub(super) async fn presence(
    connection: &mut SqliteConnection,
    keys: &[RollupKey],
) -> Result<BTreeMap<RollupKey, PresenceRollup>, sqlx::Error> {
    const FIND: &str = "
        SELECT rollup.level, room, at, joins, peak, present_ms, moods_ms, held_ms, sits_begun,
               sits_completed, sat_ms
        FROM json_each(?1) AS asked CROSS JOIN presence_rollups AS rollup
        ON rollup.level = value ->> 0 AND room = value ->> 1 AND at = value ->> 2";
    let rows = sqlx::query(FIND).bind(json(&triples(keys))?).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((key(row)?, to_presence(row)?))).collect()
}

/// Reads the rollups of page views and watch sessions that begin in a range of time.
pub(super) async fn activity_between(
    connection: &mut SqliteConnection,
    level: Level,
    room: DictionaryId,
    from: Time,
    to: Time,
) -> Result<BTreeMap<RollupKey, ActivityRollup>, sqlx::Error> {
    const BETWEEN: &str = "
        SELECT level, room, at, page_views, watch_sessions, watched_ms, visitor_set
        FROM activity_rollups WHERE level = ?1 AND room = ?2 AND at >= ?3 AND at < ?4";
    let query = sqlx::query(BETWEEN).bind(level.name()).bind(room).bind(millis(from)).bind(millis(to));
    query.fetch_all(connection).await?.iter().map(|row| Ok((key(row)?, to_activity(row)?))).collect()
}

/// Reads the rollups of presence that begin in a range of time.
pub(super) async fn presence_between(
    connection: &mut SqliteConnection,
    level: Level,
    room: DictionaryId,
    from: Time,
    to: Time,
) -> Result<BTreeMap<RollupKey, PresenceRollup>, sqlx::Error> {
    const BETWEEN: &str = "
        SELECT level, room, at, joins, peak, present_ms, moods_ms, held_ms, sits_begun,
               sits_completed, sat_ms
        FROM presence_rollups WHERE level = ?1 AND room = ?2 AND at >= ?3 AND at < ?4";
    let query = sqlx::query(BETWEEN).bind(level.name()).bind(room).bind(millis(from)).bind(millis(to));
    query.fetch_all(connection).await?.iter().map(|row| Ok((key(row)?, to_presence(row)?))).collect()
}

/// Returns the rooms with rollups in a month.
pub(super) async fn rooms(
    connection: &mut SqliteConnection,
    level: Level,
    month: Month,
) -> Result<BTreeSet<DictionaryId>, sqlx::Error> {
    const ROOMS: &str = "
        SELECT room FROM activity_rollups WHERE level = ?1 AND at >= ?2 AND at < ?3
        UNION SELECT room FROM presence_rollups WHERE level = ?1 AND at >= ?2 AND at < ?3";
    let (from, to) = (millis(month.start()), millis(month.next().start()));
    let rows = sqlx::query(ROOMS).bind(level.name()).bind(from).bind(to).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Upserts rollups, and deletes empty ones.
pub(super) async fn put_activity(
    connection: &mut SqliteConnection,
    rollups: &BTreeMap<RollupKey, ActivityRollup>,
) -> Result<(), sqlx::Error> {
    const DROP: &str = "
        DELETE FROM activity_rollups WHERE (level, room, at) IN
            (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1))";
    let (empty, full): (Vec<_>, Vec<_>) = rollups.iter().partition(|(_, rollup)| rollup.is_empty());
    insert::rows(connection, "activity_rollups", &full).await?;
    let empty: Vec<RollupKey> = empty.into_iter().map(|(key, _)| *key).collect();
    if !empty.is_empty() {
        sqlx::query(DROP).bind(json(&triples(&empty))?).execute(connection).await?;
    }
    Ok(())
}

/// Upserts rollups.
pub(super) async fn put_presence(
    connection: &mut SqliteConnection,
    rollups: &BTreeMap<RollupKey, PresenceRollup>,
) -> Result<(), sqlx::Error> {
    insert::rows(connection, "presence_rollups", &rollups.iter().collect::<Vec<_>>()).await
}

impl insert::Row for (&RollupKey, &ActivityRollup) {
    const COLUMNS: &'static [&'static str] =
        &["level", "room", "at", "page_views", "watch_sessions", "watched_ms", "visitors", "visitor_set"];
    const KEY: usize = 3;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let (key, rollup) = self;
        statement
            .bind(key.level.name())
            .bind(key.room)
            .bind(millis(key.at))
            .bind(rollup.page_views)
            .bind(rollup.watch_sessions)
            .bind(rollup.watched_ms)
            .bind(i64::try_from(rollup.visitors.len()).unwrap_or(i64::MAX))
            .bind(from_visitors(&rollup.visitors))
    }
}

impl insert::Row for (&RollupKey, &PresenceRollup) {
    const COLUMNS: &'static [&'static str] = &[
        "level",
        "room",
        "at",
        "joins",
        "peak",
        "present_ms",
        "moods_ms",
        "held_ms",
        "sits_begun",
        "sits_completed",
        "sat_ms",
    ];
    const KEY: usize = 3;

    fn bind<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let (key, rollup) = self;
        statement
            .bind(key.level.name())
            .bind(key.room)
            .bind(millis(key.at))
            .bind(rollup.joins)
            .bind(rollup.peak)
            .bind(rollup.present_ms)
            .bind(to_json(&rollup.moods_ms))
            .bind(rollup.held_ms)
            .bind(rollup.sits_begun)
            .bind(rollup.sits_completed)
            .bind(rollup.sat_ms)
    }
}

fn triples(keys: &[RollupKey]) -> Vec<(Level, DictionaryId, Time)> {
    keys.iter().map(|key| (key.level, key.room, key.at)).collect()
}

fn key(row: &SqliteRow) -> Result<RollupKey, sqlx::Error> {
    let level = match row.try_get(0)? {
        "quarter" => Level::Quarter,
        "day" => Level::Day,
        _ => Level::Month,
    };
    Ok(RollupKey { level, room: row.try_get(1)?, at: Time::from_millis(row.try_get(2)?) })
}

fn to_activity(row: &SqliteRow) -> Result<ActivityRollup, sqlx::Error> {
    Ok(ActivityRollup {
        page_views: row.try_get(3)?,
        watch_sessions: row.try_get(4)?,
        watched_ms: row.try_get(5)?,
        visitors: to_visitors(row.try_get(6)?)?,
    })
}

fn to_presence(row: &SqliteRow) -> Result<PresenceRollup, sqlx::Error> {
    presence_from(row, 3)
}

/// Reads the figures of presence from this column on, in the order of the table.
pub(in crate::history) fn presence_from(
    row: &SqliteRow,
    column: usize,
) -> Result<PresenceRollup, sqlx::Error> {
    Ok(PresenceRollup {
        joins: row.try_get(column)?,
        peak: row.try_get(column + 1)?,
        present_ms: row.try_get(column + 2)?,
        moods_ms: from_json(row, column + 3)?,
        held_ms: row.try_get(column + 4)?,
        sits_begun: row.try_get(column + 5)?,
        sits_completed: row.try_get(column + 6)?,
        sat_ms: row.try_get(column + 7)?,
    })
}
