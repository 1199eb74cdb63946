//! The sweep: overwrites the texts that no row and no rollup uses.
//!
//! It is due after rows were erased or archived. It looks through all rows and rollups in short reads, and then
//! overwrites the texts that it has not found. A commit meanwhile, of any process, records the texts that it uses, so
//! that these stay. A text that is needed again later gets a new dictionary id.

use std::time::Duration;

use roaring::RoaringBitmap;
use sqlx::{AssertSqlSafe, SqliteConnection};
use strum::VariantArray;
use tokio::time::Instant;

use super::dictionary;
use super::partition::{Partitions, RowKind};
use super::read::Pages;
use super::slices::SliceSize;
use super::{LifecycleError, Store};
use crate::history::calendar::{Level, Month};
use crate::history::rollup::DictionaryId;

/// Rows of the first read.
const FIRST_ROWS: u32 = if cfg!(test) { 3 } else { 2_000 };

/// Maximum rows of a read.
const MOST_ROWS: u32 = 50_000;

/// After a read longer than this, the next one is smaller.
const LONG: Duration = Duration::from_millis(50);

impl Store {
    /// Overwrites all texts that nothing uses, if a sweep is due. Returns how many.
    /// Errors: the database failed. The sweep stays due.
    pub(super) async fn sweep_texts(&self) -> Result<u64, LifecycleError> {
        const IS_DUE: &str = "SELECT state <> 'done' FROM text_sweep";
        const BEGIN: &str = "UPDATE text_sweep SET state = 'running'";
        const LAST: &str = "SELECT ifnull(max(number), 0) FROM texts";
        const END: &str = "UPDATE text_sweep SET state = 'done' WHERE state = 'running'";
        if !sqlx::query_scalar(IS_DUE).fetch_one(&mut *self.read().await?).await? {
            return Ok(0);
        }
        // Those of archived months use texts that no other row has.
        self.convert_old_rollups().await?;
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM used_texts").execute(&mut *transaction).await?;
        sqlx::query(BEGIN).execute(&mut *transaction).await?;
        let last: DictionaryId = sqlx::query_scalar(LAST).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;

        let used = self.used_texts().await?;
        let overwritten = self.overwrite_unused(&used, last).await?;
        let mut transaction = self.begin().await?;
        sqlx::query(END).execute(&mut *transaction).await?;
        sqlx::query("DELETE FROM used_texts").execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(overwritten)
    }

    /// Returns the texts that rows and rollups use.
    async fn used_texts(&self) -> Result<RoaringBitmap, LifecycleError> {
        let mut used = RoaringBitmap::new();
        for table in ["activity_rollups", "presence_rollups"] {
            for level in Level::VARIANTS {
                used.extend(rooms(&mut *self.read().await?, table, *level).await?);
            }
        }
        self.find_in_rollups(&mut used).await?;
        for state in self.months().await?.into_iter().filter(|state| state.is_live) {
            let month = state.month;
            if state.dimensions.is_folded {
                self.find_in_events(month, &mut used).await?;
                continue;
            }
            for kind in RowKind::VARIANTS {
                self.find_in_rows(*kind, month, &mut used).await?;
            }
        }
        Ok(used)
    }

    /// Finds the values of dimensions.
    async fn find_in_rollups(&self, used: &mut RoaringBitmap) -> Result<(), LifecycleError> {
        const PAGE: &str = "
            WITH page AS MATERIALIZED (
                SELECT level, at, room, dimension, value FROM dimension_rollups
                WHERE (level, at, room, dimension, value) > (?1, ?2, ?3, ?4, ?5)
                ORDER BY level, at, room, dimension, value LIMIT ?6
            )
            SELECT level, at, room, dimension, value, (SELECT count(*) FROM page),
                   (SELECT json_group_array(DISTINCT value) FROM page)
            FROM page ORDER BY level DESC, at DESC, room DESC, dimension DESC, value DESC LIMIT 1";
        let (mut size, mut after) = (SliceSize::new(FIRST_ROWS, MOST_ROWS, LONG), [-1_i64, 0, 0, 0, 0]);
        loop {
            let started = Instant::now();
            let page = after.iter().fold(sqlx::query_as(PAGE), |query, id| query.bind(*id));
            let page = page.bind(size.get()).fetch_optional(&mut *self.read().await?).await?;
            let Some((level, at, room, dimension, value, rows, texts)) = page else { return Ok(()) };
            let (rows, texts): (u32, String) = (rows, texts);
            used.extend(ids(&texts)?);
            if rows < size.get() {
                return Ok(());
            }
            after = [level, at, room, dimension, value];
            size.adapt(started.elapsed());
        }
    }

    /// Finds the texts of the events of a month, hosts and properties included: in a folded month no rollup has those that
    /// are summed up as `(other)`, and a recount needs them.
    async fn find_in_events(&self, month: Month, used: &mut RoaringBitmap) -> Result<(), LifecycleError> {
        let mut pages = Pages::new(month, FIRST_ROWS);
        loop {
            let mut connection = self.read().await?;
            if !Partitions::read(&mut connection).await?.live.contains(&month) {
                return Ok(());
            }
            let Some(events) = pages.next(&mut connection).await? else { return Ok(()) };
            let ids = dictionary::find(&mut connection, &[&events]).await?;
            used.extend(ids.texts.values().chain(ids.hosts.values()));
        }
    }

    async fn find_in_rows(
        &self,
        kind: RowKind,
        month: Month,
        used: &mut RoaringBitmap,
    ) -> Result<(), LifecycleError> {
        let (columns, texts) = match kind {
            RowKind::PageViews => (
                "room, path, title, referrer",
                "SELECT room AS text FROM page UNION SELECT path FROM page UNION SELECT title FROM page
                 UNION SELECT referrer FROM page",
            ),
            RowKind::WatchSessions => {
                ("room, content", "SELECT room AS text FROM page UNION SELECT content FROM page")
            }
            RowKind::Presence => {
                ("samples", "SELECT DISTINCT value ->> 0 AS text FROM page, json_each(samples)")
            }
        };
        let statement = format!(
            "WITH page AS MATERIALIZED (
                 SELECT id, {columns} FROM {} WHERE id >= ?1 ORDER BY id LIMIT ?2
             )
             SELECT (SELECT max(id) FROM page), (SELECT count(*) FROM page),
                    (SELECT json_group_array(text) FROM ({texts}) WHERE text IS NOT NULL)",
            kind.table(month)
        );
        let (mut size, mut from) = (SliceSize::new(FIRST_ROWS, MOST_ROWS, LONG), Vec::new());
        loop {
            let mut connection = self.read().await?;
            // Archived meanwhile.
            if !Partitions::read(&mut connection).await?.live.contains(&month) {
                return Ok(());
            }
            let started = Instant::now();
            let page = sqlx::query_as(AssertSqlSafe(statement.as_str())).bind(&from).bind(size.get());
            let (last, rows, texts): (Option<Vec<u8>>, u32, String) =
                page.fetch_one(&mut *connection).await?;
            drop(connection);
            used.extend(ids(&texts)?);
            if rows < size.get() {
                return Ok(());
            }
            let last = last.unwrap_or_default();
            // The next page begins with the rows of the same id, since more may follow.
            if last == from {
                size = SliceSize::new(size.get().saturating_mul(2), u32::MAX, LONG);
            } else {
                size.adapt(started.elapsed());
                from = last;
            }
        }
    }

    /// Overwrites the texts up to `last` that are not in `used` and that no commit has used meanwhile.
    async fn overwrite_unused(
        &self,
        used: &RoaringBitmap,
        last: DictionaryId,
    ) -> Result<u64, LifecycleError> {
        const TEXTS: &str = "
            SELECT number FROM texts WHERE number > ?1 AND number <= ?2 AND text IS NOT NULL ORDER BY number LIMIT ?3";
        let (mut size, mut after, mut overwritten) = (SliceSize::rows(), 0, 0);
        loop {
            let texts = sqlx::query_scalar(TEXTS).bind(after).bind(last).bind(MOST_ROWS);
            let texts: Vec<DictionaryId> = texts.fetch_all(&mut *self.read().await?).await?;
            let Some(end) = texts.last() else { return Ok(overwritten) };
            after = *end;
            let unused: Vec<DictionaryId> = texts.into_iter().filter(|text| !used.contains(*text)).collect();
            let mut rest = unused.as_slice();
            while !rest.is_empty() {
                let (slice, later) = rest.split_at(rest.len().min(size.get() as usize));
                rest = later;
                let mut transaction = self.begin().await?;
                let started = Instant::now();
                overwritten += dictionary::overwrite_unused(&mut transaction, slice).await?;
                transaction.commit().await?;
                size.adapt(started.elapsed());
            }
        }
    }
}

/// Returns the rooms with rollups of a level, by one index seek for each.
async fn rooms(
    connection: &mut SqliteConnection,
    table: &str,
    level: Level,
) -> Result<Vec<DictionaryId>, sqlx::Error> {
    let statement = format!(
        "WITH RECURSIVE rooms (room) AS (
             SELECT min(room) FROM {table} WHERE level = ?1
             UNION ALL
             SELECT (SELECT min(room) FROM {table} WHERE level = ?1 AND room > rooms.room)
             FROM rooms WHERE rooms.room IS NOT NULL
         )
         SELECT json_group_array(room) FROM rooms WHERE room IS NOT NULL"
    );
    let rooms: String =
        sqlx::query_scalar(AssertSqlSafe(statement)).bind(level.name()).fetch_one(connection).await?;
    ids(&rooms)
}

fn ids(json: &str) -> Result<Vec<DictionaryId>, sqlx::Error> {
    serde_json::from_str(json).map_err(super::codec::decode_error)
}
