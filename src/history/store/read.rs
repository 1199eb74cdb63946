//! Reads raw rows as events.
//!
//! Rows are read by id, in pages, so that no read transaction is long.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use strum::VariantArray;
use uuid::Uuid;

use super::codec::{decode_error, from_json, json};
use super::dictionary;
use super::insert::StoredSample;
use super::partition::{Partitions, RowKind};
use super::{ReadError, Store};
use crate::history::calendar::Month;
use crate::history::event::{Actor, Batch, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use crate::history::rollup::{ALL_ROOMS, Appearance, DictionaryId};
use crate::protocol::{Props, RoomId, SafeInteger, Time, WatchState};

/// Returns the indexes of those `ids` that have a row in this month. `ids` are sorted.
///
/// Ids outside the table's range are skipped: version 7 ids (RFC 9562) rise with time, so that most months need no
/// lookup.
pub(super) async fn known(
    connection: &mut SqliteConnection,
    kind: RowKind,
    month: Month,
    ids: &[Uuid],
) -> Result<Vec<usize>, sqlx::Error> {
    let table = kind.table(month);
    let ends = format!("SELECT (SELECT min(id) FROM {table}), (SELECT max(id) FROM {table})");
    let (first, last): (Option<Vec<u8>>, Option<Vec<u8>>) =
        sqlx::query_as(AssertSqlSafe(ends)).fetch_one(&mut *connection).await?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
    let start = ids.partition_point(|id| id.as_bytes().as_slice() < first.as_slice());
    let end = ids.partition_point(|id| id.as_bytes().as_slice() <= last.as_slice());
    let Some(asked @ [_, ..]) = ids.get(start..end) else { return Ok(Vec::new()) };
    let statement = format!(
        "SELECT json_group_array(key) FROM json_each(?1) AS asked
         WHERE EXISTS (SELECT 1 FROM {table} WHERE id = unhex(asked.value))"
    );
    let asked: Vec<_> = asked.iter().map(|id| id.simple()).collect();
    let found: String =
        sqlx::query_scalar(AssertSqlSafe(statement)).bind(json(&asked)?).fetch_one(connection).await?;
    let found: Vec<usize> = serde_json::from_str(&found).map_err(decode_error)?;
    Ok(found.into_iter().map(|index| index + start).collect())
}

/// A page: up to `limit` rows behind `after`, optionally of one visitor.
#[derive(Debug, Clone, Default)]
struct Page {
    /// The id of the previous page's last row.
    after: Option<Uuid>,
    /// Maximum number of rows.
    limit: u32,
    /// The visitor's dictionary id.
    visitor: Option<DictionaryId>,
}

/// Reads all rows of a month in pages: page views, then watch sessions, then presence samples.
#[derive(Debug)]
pub(super) struct Pages {
    month: Month,
    page: Page,
    kinds: Vec<RowKind>,
}

impl Pages {
    /// Starts at the first row, with `limit` rows per page.
    pub(super) fn new(month: Month, limit: u32) -> Self {
        Self {
            month,
            page: Page { limit, ..Page::default() },
            kinds: vec![RowKind::Presence, RowKind::WatchSessions, RowKind::PageViews],
        }
    }

    /// Reads the rows of one visitor only. Presence samples have no visitors.
    pub(super) fn of_visitor(month: Month, limit: u32, visitor: DictionaryId) -> Self {
        let page = Page { limit, visitor: Some(visitor), ..Page::default() };
        Self { month, page, kinds: vec![RowKind::WatchSessions, RowKind::PageViews] }
    }

    /// Returns the next page, which has at least one row, or `None` at the end, in a read transaction of its own.
    pub(super) async fn read(&mut self, store: &Store) -> Result<Option<Batch>, sqlx::Error> {
        let mut connection = store.read().await?;
        self.next(&mut connection).await
    }

    /// Returns the next page, which has at least one row, or `None` at the end.
    pub(super) async fn next(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Batch>, sqlx::Error> {
        while let Some(kind) = self.kinds.last() {
            let mut batch = Batch::default();
            match kind {
                RowKind::PageViews => {
                    batch.page_views = page_views(connection, self.month, &self.page).await?;
                }
                RowKind::WatchSessions => batch.watches = watches(connection, self.month, &self.page).await?,
                RowKind::Presence => batch.samples = samples(connection, self.month, &self.page).await?,
            }
            if !batch.is_empty() {
                let last = batch.page_views.last().map(|view| view.id);
                let last = last.or(batch.watches.last().map(|watch| watch.id));
                self.page.after = last.or(batch.samples.last().map(|total| total.id));
                return Ok(Some(batch));
            }
            self.kinds.pop();
            self.page.after = None;
        }
        Ok(None)
    }
}

/// Reads about `limit` rows from an id on, all of each id, and the id of the next row, or `None` at the end.
pub(super) async fn from_id(
    connection: &mut SqliteConnection,
    month: Month,
    kind: RowKind,
    from: Uuid,
    mut limit: u32,
) -> Result<(Batch, Option<Uuid>), sqlx::Error> {
    let after = from.as_u128().checked_sub(1).map(Uuid::from_u128);
    loop {
        let page = Page { after, limit, visitor: None };
        let mut batch = Batch::default();
        match kind {
            RowKind::PageViews => batch.page_views = page_views(connection, month, &page).await?,
            RowKind::WatchSessions => batch.watches = watches(connection, month, &page).await?,
            RowKind::Presence => {}
        }
        if batch.len() < limit as usize {
            return Ok((batch, None));
        }
        let last = batch.page_views.last().map(|view| view.id);
        let last = last.or(batch.watches.last().map(|watch| watch.id));
        batch.page_views.retain(|view| Some(view.id) != last);
        batch.watches.retain(|watch| Some(watch.id) != last);
        if !batch.is_empty() {
            return Ok((batch, last));
        }
        limit *= 2;
    }
}

/// Reads page views by id.
async fn page_views(
    connection: &mut SqliteConnection,
    month: Month,
    page: &Page,
) -> Result<Vec<PageViewEvent>, sqlx::Error> {
    let statement = format!(
        "SELECT id, room.text, visitor.text, path.text, title.text, referrer.text, at, props, is_bot
         FROM {} AS raw
         JOIN texts AS room ON room.number = raw.room
         JOIN visitors AS visitor ON visitor.number = raw.visitor
         JOIN texts AS path ON path.number = raw.path
         LEFT JOIN texts AS title ON title.number = raw.title
         LEFT JOIN texts AS referrer ON referrer.number = raw.referrer
         WHERE raw.id > ?1 AND (?3 IS NULL OR raw.visitor = ?3)
         ORDER BY raw.id LIMIT ?2",
        RowKind::PageViews.table(month)
    );
    fetch(connection, &statement, page).await?.iter().map(page_view).collect()
}

/// Reads watch sessions by id.
async fn watches(
    connection: &mut SqliteConnection,
    month: Month,
    page: &Page,
) -> Result<Vec<WatchEvent>, sqlx::Error> {
    let statement = format!(
        "SELECT id, room.text, visitor.text, content.text, state, at, watched_ms, started_at, seen_at,
                position_ms, position_at, duration_ms, props, props_at, is_bot
         FROM {} AS raw
         JOIN texts AS room ON room.number = raw.room
         JOIN visitors AS visitor ON visitor.number = raw.visitor
         JOIN texts AS content ON content.number = raw.content
         WHERE raw.id > ?1 AND (?3 IS NULL OR raw.visitor = ?3)
         ORDER BY raw.id LIMIT ?2",
        RowKind::WatchSessions.table(month)
    );
    fetch(connection, &statement, page).await?.iter().map(watch).collect()
}

/// Reads the watch sessions with these ids.
pub(super) async fn watches_by_id(
    connection: &mut SqliteConnection,
    month: Month,
    ids: &[Uuid],
) -> Result<Vec<WatchEvent>, sqlx::Error> {
    let statement = format!(
        "SELECT raw.id, room.text, visitor.text, content.text, state, at, watched_ms, started_at,
                seen_at, position_ms, position_at, duration_ms, props, props_at, is_bot
         FROM json_each(?1) AS asked
         JOIN {} AS raw ON raw.id = unhex(asked.value)
         JOIN texts AS room ON room.number = raw.room
         JOIN visitors AS visitor ON visitor.number = raw.visitor
         JOIN texts AS content ON content.number = raw.content",
        RowKind::WatchSessions.table(month)
    );
    let ids: Vec<_> = ids.iter().map(|id| id.simple()).collect();
    let rows = sqlx::query(AssertSqlSafe(statement)).bind(json(&ids)?).fetch_all(connection).await?;
    rows.iter().map(watch).collect()
}

/// Reads presence samples by id.
async fn samples(
    connection: &mut SqliteConnection,
    month: Month,
    page: &Page,
) -> Result<Vec<TotalSample>, sqlx::Error> {
    let statement = format!(
        "SELECT id, at, samples FROM {} AS raw WHERE raw.id > ?1 AND ?3 IS NULL ORDER BY raw.id LIMIT ?2",
        RowKind::Presence.table(month)
    );
    let rows = fetch(connection, &statement, page).await?;
    let mut names = BTreeMap::<DictionaryId, RoomId>::new();
    let mut totals = Vec::with_capacity(rows.len());
    for row in &rows {
        let samples: Vec<StoredSample> = from_json(row, 2)?;
        let (mut hub, mut rooms) = (RoomSample::default(), BTreeMap::new());
        for sample in samples {
            if sample.room == ALL_ROOMS {
                hub = sample.into();
                continue;
            }
            let room = match names.get(&sample.room) {
                Some(room) => room.clone(),
                None => names.entry(sample.room).or_insert(room(connection, sample.room).await?).clone(),
            };
            rooms.insert(room, sample.into());
        }
        totals.push(TotalSample { id: id(row)?, at: time(row, 1)?, hub, rooms });
    }
    Ok(totals)
}

async fn room(connection: &mut SqliteConnection, number: DictionaryId) -> Result<RoomId, sqlx::Error> {
    let name = dictionary::text(connection, number).await?;
    name.unwrap_or_default().try_into().map_err(decode_error)
}

/// Returns the visitors' appearances in this month.
pub(super) async fn appearances(
    connection: &mut SqliteConnection,
    month: Month,
    visitors: &BTreeSet<DictionaryId>,
) -> Result<Vec<Appearance>, sqlx::Error> {
    let statement = format!(
        "SELECT DISTINCT visitor, room, at FROM {} WHERE NOT is_bot AND visitor IN (SELECT value FROM json_each(?1))
         UNION
         SELECT visitor, room, started_at FROM {}
         WHERE NOT is_bot AND visitor IN (SELECT value FROM json_each(?1))",
        RowKind::PageViews.table(month),
        RowKind::WatchSessions.table(month)
    );
    let rows: Vec<(DictionaryId, DictionaryId, u64)> =
        sqlx::query_as(AssertSqlSafe(statement)).bind(json(visitors)?).fetch_all(connection).await?;
    let appearance = |(visitor, room, at)| Appearance { visitor, room, at: Time::from_millis(at) };
    Ok(rows.into_iter().map(appearance).collect())
}

async fn fetch(
    connection: &mut SqliteConnection,
    statement: &str,
    page: &Page,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let query =
        sqlx::query(AssertSqlSafe(statement)).bind(blob(page.after)).bind(page.limit).bind(page.visitor);
    query.fetch_all(connection).await
}

/// Encodes an id. `None` sorts before all ids.
pub(super) fn blob(id: Option<Uuid>) -> Vec<u8> {
    id.map_or_else(Vec::new, |id| id.as_bytes().to_vec())
}

/// Decodes a row with the columns of [`page_views`].
pub(super) fn page_view(row: &SqliteRow) -> Result<PageViewEvent, sqlx::Error> {
    Ok(PageViewEvent {
        id: id(row)?,
        actor: Actor { room: text(row, 1)?, visitor: text(row, 2)?, is_bot: row.try_get(8)? },
        path: text(row, 3)?,
        title: optional_text(row, 4)?,
        referrer: optional_text(row, 5)?,
        at: time(row, 6)?,
        props: props(row, 7)?,
    })
}

/// Decodes a row with the columns of [`watches`].
pub(super) fn watch(row: &SqliteRow) -> Result<WatchEvent, sqlx::Error> {
    let state = match row.try_get(4)? {
        "playing" => WatchState::Playing,
        "paused" => WatchState::Paused,
        _ => WatchState::Ended,
    };
    let pair =
        |value: Option<u64>, at: Option<u64>| value.zip(at).map(|(value, at)| (Time::from_millis(at), value));
    let position_ms = match pair(row.try_get(9)?, row.try_get(10)?) {
        Some((at, position)) => Some((at, SafeInteger::try_from(position).map_err(decode_error)?)),
        None => None,
    };
    let duration_ms =
        row.try_get::<Option<u64>, _>(11)?.map(SafeInteger::try_from).transpose().map_err(decode_error)?;
    let props_at: Option<u64> = row.try_get(13)?;
    Ok(WatchEvent {
        id: id(row)?,
        actor: Actor { room: text(row, 1)?, visitor: text(row, 2)?, is_bot: row.try_get(14)? },
        content: text(row, 3)?,
        state,
        at: time(row, 5)?,
        watched_ms: row.try_get(6)?,
        started_at: time(row, 7)?,
        seen_at: time(row, 8)?,
        position_ms,
        duration_ms,
        props: props_at.map(Time::from_millis).zip(props(row, 12)?),
    })
}

fn id(row: &SqliteRow) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(row.try_get(0)?).map_err(decode_error)
}

fn time(row: &SqliteRow, column: usize) -> Result<Time, sqlx::Error> {
    Ok(Time::from_millis(row.try_get(column)?))
}

fn text<T>(row: &SqliteRow, column: usize) -> Result<T, sqlx::Error>
where
    T: TryFrom<String, Error: std::error::Error + Send + Sync + 'static>,
{
    T::try_from(row.try_get(column)?).map_err(decode_error)
}

fn optional_text<T>(row: &SqliteRow, column: usize) -> Result<Option<T>, sqlx::Error>
where
    T: TryFrom<String, Error: std::error::Error + Send + Sync + 'static>,
{
    row.try_get::<Option<String>, _>(column)?.map(T::try_from).transpose().map_err(decode_error)
}

fn props(row: &SqliteRow, column: usize) -> Result<Option<Props>, sqlx::Error> {
    row.try_get::<Option<&str>, _>(column)?.map(serde_json::from_str).transpose().map_err(decode_error)
}

/// Events per page of an export.
const ROWS_PER_PAGE: u32 = 5_000;

/// Reads the events of a month in pages, each in a read transaction of its own, so that a long export holds no
/// snapshot.
#[derive(Debug)]
pub(crate) struct EventReader {
    store: Store,
    pages: Pages,
}

impl EventReader {
    /// Returns the next page, or `None` at the end.
    /// Errors: the database failed.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, ReadError> {
        Ok(self.pages.read(&self.store).await?)
    }
}

impl Store {
    /// Returns the months that have tables.
    /// Errors: the database failed.
    pub(crate) async fn live_months(&self) -> Result<BTreeSet<Month>, ReadError> {
        let mut connection = self.read().await?;
        Ok(Partitions::read(&mut connection).await?.live)
    }

    /// Counts the events of a month that has tables.
    /// Errors: the database failed.
    pub(crate) async fn count(&self, month: Month) -> Result<u64, ReadError> {
        let counts =
            RowKind::VARIANTS.iter().map(|kind| format!("(SELECT count(*) FROM {})", kind.table(month)));
        let statement = format!("SELECT {}", counts.collect::<Vec<_>>().join(" + "));
        Ok(sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *self.read().await?).await?)
    }

    /// Reads the events of a month that has tables.
    pub(crate) fn events(&self, month: Month) -> EventReader {
        EventReader { store: self.clone(), pages: Pages::new(month, ROWS_PER_PAGE) }
    }
}
