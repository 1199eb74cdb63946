//! Raw rows in: facts into the tables of their month.
//!
//! They go as one JSON parameter that `json_each` reads, with statements that depend on the month only.

use serde::Serialize;
use sqlx::{AssertSqlSafe, SqliteConnection};
use uuid::Uuid;

use super::names::json;
use super::partition::Kind;
use crate::history::calendar::Month;
use crate::history::event::{PageViewFact, PresenceFact, WatchFact};
use crate::history::rollup::{ALL_ROOMS, Numbers};

/// Facts per statement: past some thousands a longer one is no faster, only larger in memory.
const ROWS_PER_STATEMENT: usize = 2_000;

/// Stores page views that are not stored yet.
pub(super) async fn page_views(
    connection: &mut SqliteConnection,
    month: Month,
    views: &[&PageViewFact],
    numbers: &Numbers,
) -> Result<(), sqlx::Error> {
    let statement = format!(
        "INSERT INTO {} (id, at, room, visitor, path, title, referrer, props, is_bot)
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
                value ->> 6, value ->> 7, value ->> 8
         FROM json_each(?1)",
        Kind::PageViews.table(month)
    );
    let rows = views.iter().map(|view| {
        (
            view.id.simple(),
            view.at,
            numbers.room(&view.who.room),
            numbers.visitor(&view.who.visitor),
            numbers.text(view.path.as_str()),
            view.title.as_ref().map(|title| numbers.text(title.as_str())),
            view.referrer.as_ref().map(|referrer| numbers.text(referrer.as_str())),
            &view.props,
            u8::from(view.who.is_bot),
        )
    });
    insert(connection, &statement, &rows.collect::<Vec<_>>()).await
}

/// Stores watch sessions, each instead of the row that it had in this month.
pub(super) async fn watches(
    connection: &mut SqliteConnection,
    month: Month,
    watches: &[&WatchFact],
    numbers: &Numbers,
) -> Result<(), sqlx::Error> {
    let statement = format!(
        "REPLACE INTO {} (id, room, visitor, content, state, at, watched_ms, started_at, seen_at,
                          position_ms, position_at, duration_ms, props, props_at, is_bot)
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
                value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11,
                value ->> 12, value ->> 13, value ->> 14
         FROM json_each(?1)",
        Kind::WatchSessions.table(month)
    );
    let rows = watches.iter().map(|watch| {
        let who = (watch.id.simple(), numbers.room(&watch.who.room), numbers.visitor(&watch.who.visitor));
        let (position_at, position_ms) = watch.position_ms.unzip();
        let (props_at, props) = watch.props.as_ref().map(|(at, props)| (at, props)).unzip();
        (
            who.0,
            who.1,
            who.2,
            numbers.text(watch.content.as_str()),
            watch.state,
            watch.at,
            watch.watched_ms,
            watch.started_at,
            watch.seen_at,
            position_ms,
            position_at,
            watch.duration_ms,
            props,
            props_at,
            u8::from(watch.who.is_bot),
        )
    });
    insert(connection, &statement, &rows.collect::<Vec<_>>()).await
}

/// Stores presence samples that are not stored yet.
pub(super) async fn presence(
    connection: &mut SqliteConnection,
    month: Month,
    facts: &[&PresenceFact],
    numbers: &Numbers,
) -> Result<(), sqlx::Error> {
    let statement = format!(
        "INSERT INTO {} (id, room, at, present_ms, peak, joins, moods_ms)
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
         FROM json_each(?1)",
        Kind::Presence.table(month)
    );
    let rows = facts.iter().map(|fact| {
        let room = fact.room.as_ref().map_or(ALL_ROOMS, |room| numbers.room(room));
        (fact.id.simple(), room, fact.at, fact.present_ms, fact.peak, fact.joins, &fact.moods_ms)
    });
    insert(connection, &statement, &rows.collect::<Vec<_>>()).await
}

async fn insert<T: Serialize>(
    connection: &mut SqliteConnection,
    statement: &str,
    rows: &[T],
) -> Result<(), sqlx::Error> {
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        sqlx::query(AssertSqlSafe(statement)).bind(json(chunk)?).execute(&mut *connection).await?;
    }
    Ok(())
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
