//! Reads raw rows as events.
//!
//! Rows are read in pages, so that no read transaction is long. Their order is that of identities, in which texts count
//! and not their dictionary ids: it is the same in each database with these events.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use strum::VariantArray;
use uuid::Uuid;

use super::codec::{decode_error, from_json, json};
use super::dictionary;
use super::insert::{Key, StoredSample, has_key};
use super::partition::{Partitions, RowKind};
use super::{ReadError, Store};
use crate::history::calendar::Month;
use crate::history::event::{Actor, Batch, Mergeable, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use crate::history::rollup::{ALL_ROOMS, Appearance, DictionaryId, DictionaryIds};
use crate::protocol::{Props, RoomId, SafeInteger, Time, VisitorId, WatchState};

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

/// An event that is stored as a row, with what a statement needs to read it.
pub(super) trait StoredEvent: Mergeable {
    /// The kind of its rows.
    const KIND: RowKind;
    /// The columns of [`decode`](Self::decode), of a table `raw` and of what is joined.
    const COLUMNS: &'static str;
    /// The joins of texts.
    const JOINS: &'static str;
    /// The order of identities with the same id: two texts.
    const ORDER: [&'static str; 2];

    /// Decodes a row.
    fn decode(row: &SqliteRow) -> Result<Self, sqlx::Error>;

    /// The values of [`ORDER`](Self::ORDER).
    fn order(&self) -> [String; 2];

    /// The row's key. `ids` must have the texts of the identity.
    fn key(&self, ids: &DictionaryIds) -> Key;

    /// The events of this kind in a batch.
    fn of(batch: &Batch) -> &[Self];

    /// A batch of these events.
    fn batch(events: Vec<Self>) -> Batch;
}

impl StoredEvent for PageViewEvent {
    const KIND: RowKind = RowKind::PageViews;
    const COLUMNS: &'static str = "raw.id, room.text, ifnull(visitor.text, 'erased-' || visitor.hash), path.text, title.text, referrer.text, raw.at, raw.props, raw.is_bot";
    const JOINS: &'static str = "
         JOIN texts AS room ON room.number = raw.room
         JOIN visitors AS visitor ON visitor.number = raw.visitor
         JOIN texts AS path ON path.number = raw.path
         LEFT JOIN texts AS title ON title.number = raw.title
         LEFT JOIN texts AS referrer ON referrer.number = raw.referrer";
    const ORDER: [&'static str; 2] = ["ifnull(visitor.text, 'erased-' || visitor.hash)", "room.text"];

    fn decode(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        page_view(row)
    }

    fn order(&self) -> [String; 2] {
        self.actor.order()
    }

    fn key(&self, ids: &DictionaryIds) -> Key {
        self.actor.key(self.id, ids)
    }

    fn of(batch: &Batch) -> &[Self] {
        &batch.page_views
    }

    fn batch(page_views: Vec<Self>) -> Batch {
        Batch { page_views, ..Batch::default() }
    }
}

impl StoredEvent for WatchEvent {
    const KIND: RowKind = RowKind::WatchSessions;
    const COLUMNS: &'static str =
        "raw.id, room.text, ifnull(visitor.text, 'erased-' || visitor.hash), content.text, raw.state, raw.at, raw.watched_ms, raw.started_at,
         raw.seen_at, raw.position_ms, raw.position_at, raw.duration_ms, raw.props, raw.props_at, raw.is_bot";
    const JOINS: &'static str = "
         JOIN texts AS room ON room.number = raw.room
         JOIN visitors AS visitor ON visitor.number = raw.visitor
         JOIN texts AS content ON content.number = raw.content";
    const ORDER: [&'static str; 2] = ["ifnull(visitor.text, 'erased-' || visitor.hash)", "room.text"];

    fn decode(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        watch(row)
    }

    fn order(&self) -> [String; 2] {
        self.actor.order()
    }

    fn key(&self, ids: &DictionaryIds) -> Key {
        self.actor.key(self.id, ids)
    }

    fn of(batch: &Batch) -> &[Self] {
        &batch.watches
    }

    fn batch(watches: Vec<Self>) -> Batch {
        Batch { watches, ..Batch::default() }
    }
}

impl StoredEvent for TotalSample {
    const KIND: RowKind = RowKind::Presence;
    const COLUMNS: &'static str = "
        raw.id, raw.at, raw.samples,
        (SELECT json_group_object(number, text) FROM texts
         WHERE number IN (SELECT value ->> 0 FROM json_each(raw.samples)))";
    const JOINS: &'static str = "";
    const ORDER: [&'static str; 2] = ["format('%015d', raw.at)", "''"];

    fn decode(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        sample(row)
    }

    fn order(&self) -> [String; 2] {
        [format!("{:015}", self.at.millis()), String::new()]
    }

    fn key(&self, _: &DictionaryIds) -> Key {
        (self.id.simple().to_string(), self.at.millis(), None)
    }

    fn of(batch: &Batch) -> &[Self] {
        &batch.samples
    }

    fn batch(samples: Vec<Self>) -> Batch {
        Batch { samples, ..Batch::default() }
    }
}

impl Actor {
    fn order(&self) -> [String; 2] {
        [self.visitor.as_str().to_owned(), self.room.as_str().to_owned()]
    }

    fn key(&self, id: Uuid, ids: &DictionaryIds) -> Key {
        (id.simple().to_string(), ids.visitor(&self.visitor).into(), Some(ids.room(&self.room).into()))
    }
}

/// Returns the keys of events. No row has that of an event whose visitor or room has no dictionary id.
pub(super) fn keys<T: StoredEvent>(events: &[T], ids: &DictionaryIds) -> Vec<Key> {
    events.iter().map(|event| event.key(ids)).collect()
}

/// Reads the rows of a month that have the identity of one of the events.
pub(super) async fn same<T: StoredEvent>(
    connection: &mut SqliteConnection,
    month: Month,
    events: Vec<T>,
) -> Result<Vec<T>, sqlx::Error> {
    let (table, has_key) = (T::KIND.table(month), has_key(T::KIND, "raw"));
    let statement = format!(
        "SELECT {} FROM json_each(?1) AS asked CROSS JOIN {table} AS raw ON {has_key} {}",
        T::COLUMNS,
        T::JOINS
    );
    let batch = T::batch(events);
    let keys = keys(T::of(&batch), &dictionary::find(connection, &[&batch]).await?);
    let rows = sqlx::query(AssertSqlSafe(statement)).bind(json(&keys)?).fetch_all(connection).await?;
    rows.iter().map(T::decode).collect()
}

/// The position behind the last row of a page: its id, and the texts of its [order](StoredEvent::order).
type Cursor = (Uuid, [String; 2]);

/// A page: up to `limit` rows behind `after`, optionally of one visitor.
#[derive(Debug, Clone, Default)]
struct Page {
    /// The end of the previous page.
    after: Option<Cursor>,
    /// Maximum number of rows.
    limit: u32,
    /// The visitor's dictionary id.
    visitor: Option<DictionaryId>,
}

impl Page {
    fn statement<T: StoredEvent>(&self, month: Month) -> String {
        let [first, second] = T::ORDER;
        let visitor = if self.visitor.is_some() { "AND raw.visitor = ?5" } else { "" };
        format!(
            "SELECT {} FROM {} AS raw {}
             WHERE raw.id >= ?1 AND (raw.id > ?1 OR ({first}, {second}) > (?2, ?3)) {visitor}
             ORDER BY raw.id, {first}, {second} LIMIT ?4",
            T::COLUMNS,
            T::KIND.table(month),
            T::JOINS
        )
    }

    /// Reads the page of a month.
    async fn read<T: StoredEvent>(
        &self,
        connection: &mut SqliteConnection,
        month: Month,
    ) -> Result<Vec<T>, sqlx::Error> {
        let (id, order) = self.after.clone().unzip();
        let (first, second) = order.map(<(String, String)>::from).unzip();
        let query = sqlx::query(AssertSqlSafe(self.statement::<T>(month))).bind(blob(id));
        let query = query.bind(first).bind(second).bind(self.limit).bind(self.visitor);
        query.fetch_all(connection).await?.iter().map(T::decode).collect()
    }
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
            let batch = match kind {
                RowKind::PageViews => self.page_of::<PageViewEvent>(connection).await?,
                RowKind::WatchSessions => self.page_of::<WatchEvent>(connection).await?,
                RowKind::Presence => self.page_of::<TotalSample>(connection).await?,
            };
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
            self.kinds.pop();
            self.page.after = None;
        }
        Ok(None)
    }

    async fn page_of<T: StoredEvent>(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Batch, sqlx::Error> {
        let events = self.page.read::<T>(connection, self.month).await?;
        if let Some(last) = events.last() {
            self.page.after = Some((last.id(), last.order()));
        }
        Ok(T::batch(events))
    }
}

/// Reads about `limit` rows from an id on, all of each id, and the id of the next row, or `None` at the end.
pub(super) async fn from_id(
    connection: &mut SqliteConnection,
    month: Month,
    kind: RowKind,
    from: Uuid,
    limit: u32,
) -> Result<(Batch, Option<Uuid>), sqlx::Error> {
    match kind {
        RowKind::PageViews => whole_ids::<PageViewEvent>(connection, month, from, limit).await,
        RowKind::WatchSessions => whole_ids::<WatchEvent>(connection, month, from, limit).await,
        RowKind::Presence => whole_ids::<TotalSample>(connection, month, from, limit).await,
    }
}

async fn whole_ids<T: StoredEvent>(
    connection: &mut SqliteConnection,
    month: Month,
    from: Uuid,
    mut limit: u32,
) -> Result<(Batch, Option<Uuid>), sqlx::Error> {
    loop {
        // No text is smaller than an empty one.
        let page = Page { after: Some((from, Default::default())), limit, visitor: None };
        let mut events = page.read::<T>(connection, month).await?;
        let last = events.last().map(T::id);
        if events.len() < limit as usize {
            return Ok((T::batch(events), None));
        }
        events.retain(|event| Some(event.id()) != last);
        if !events.is_empty() {
            return Ok((T::batch(events), last));
        }
        limit *= 2;
    }
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

/// Reads the next rows of a visitor, of one kind.
pub(super) async fn of_visitor(
    connection: &mut SqliteConnection,
    month: Month,
    kind: RowKind,
    id: DictionaryId,
    after: Option<(Uuid, VisitorId, RoomId)>,
    limit: u32,
) -> Result<Batch, sqlx::Error> {
    let order = |visitor: VisitorId, room: RoomId| [visitor.as_str().to_owned(), room.as_str().to_owned()];
    let after = after.map(|(id, visitor, room)| (id, order(visitor, room)));
    let page = Page { after, limit, visitor: Some(id) };
    Ok(match kind {
        RowKind::PageViews => PageViewEvent::batch(page.read(connection, month).await?),
        RowKind::WatchSessions => WatchEvent::batch(page.read(connection, month).await?),
        RowKind::Presence => Batch::default(),
    })
}

/// Returns the visitors with rows in a month.
pub(super) async fn visitors(
    connection: &mut SqliteConnection,
    month: Month,
) -> Result<RoaringBitmap, sqlx::Error> {
    let statement = format!(
        "SELECT json_group_array(visitor) FROM (SELECT visitor FROM {} UNION SELECT visitor FROM {})",
        RowKind::PageViews.table(month),
        RowKind::WatchSessions.table(month)
    );
    let visitors: String = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(connection).await?;
    let visitors: Vec<DictionaryId> = serde_json::from_str(&visitors).map_err(decode_error)?;
    Ok(visitors.into_iter().collect())
}

/// Encodes an id. `None` sorts before all ids.
pub(super) fn blob(id: Option<Uuid>) -> Vec<u8> {
    id.map_or_else(Vec::new, |id| id.as_bytes().to_vec())
}

/// Decodes a row with the columns of a page view.
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

/// Decodes a row with the columns of a watch session.
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

fn sample(row: &SqliteRow) -> Result<TotalSample, sqlx::Error> {
    let (samples, names): (Vec<StoredSample>, BTreeMap<DictionaryId, RoomId>) =
        (from_json(row, 2)?, from_json(row, 3)?);
    let (mut hub, mut rooms, mut nodes) = (RoomSample::default(), BTreeMap::new(), BTreeSet::new());
    for sample in samples {
        if sample.room == ALL_ROOMS {
            nodes.clone_from(&sample.nodes);
            hub = sample.into();
        } else if let Some(room) = names.get(&sample.room) {
            rooms.insert(room.clone(), sample.into());
        } else {
            return Err(sqlx::Error::Decode("a sample of a room without a name".into()));
        }
    }
    Ok(TotalSample { id: id(row)?, at: time(row, 1)?, nodes, hub, rooms })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_use_the_keys_of_their_table() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let mut writer = store.begin().await.unwrap();
        let month: Month = "2024-02".parse().unwrap();
        Partitions::read(&mut writer).await.unwrap().change(&mut writer, month).await.unwrap();
        for (visitor, expected) in [(None, "PRIMARY KEY (id>?)"), (Some(7), "(visitor=? AND id>?)")] {
            let page = Page { visitor, ..Page::default() };
            for statement in [page.statement::<PageViewEvent>(month), page.statement::<WatchEvent>(month)] {
                let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")));
                let plan: Vec<String> =
                    plan.fetch_all(&mut *writer).await.unwrap().iter().map(|row| row.get(3)).collect();
                let raw: Vec<&String> = plan.iter().filter(|step| step.contains(" raw ")).collect();
                assert!(raw.len() == 1 && raw[0].contains(expected), "{plan:#?}");
                // Only rows with one id are sorted.
                let sort = plan.iter().find(|step| step.starts_with("USE TEMP B-TREE"));
                assert!(sort.unwrap().starts_with("USE TEMP B-TREE FOR LAST "), "{plan:#?}");
            }
        }
    }
}
