//! The recount: a consistency check that computes rollups from the raw rows and compares them with the stored ones.
//!
//! One read transaction sees one snapshot, so that a hub may write meanwhile.

use std::collections::BTreeSet;
use std::fmt;

use sqlx::{Connection, SqliteConnection};
use strum::VariantArray;

use super::hidden_names::HiddenNames;
use super::partition::Partitions;
use super::roll_up::quarters_from;
use super::{ReadError, Store, dictionary, dimensions, month_sums, months, read, rollups};
use crate::history::calendar::{Level, Month, timestamp};
use crate::history::record_sum::{PartlySummed, SumDelta};
use crate::history::rollup::{ActivityRollup, Dimension, OTHER, PresenceRollup, RollupDelta, RollupKey};
use crate::protocol::Time;

/// Limit of differences of dimensions that are reported for a month and level.
const DIFFERENCES_LIMIT: u32 = 1_000;

/// Raw rows per page.
const ROWS_PER_PAGE: u32 = 5_000;

/// A difference between a stored rollup and the raw rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The length of the period.
    pub level: Level,
    /// The start of the period.
    pub at: Time,
    /// The room; none for the whole hub.
    pub room: Option<String>,
    /// The part of the rollup.
    pub part: &'static str,
    /// The stored value.
    pub stored: String,
    /// The recounted value.
    pub recounted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let room = self.room.as_deref().unwrap_or("all rooms");
        write!(f, "{} {} in {room}: {} ", self.level.name(), timestamp(self.at), self.part)?;
        write!(f, "{} is stored, {} recounted", self.stored, self.recounted)
    }
}

/// The result of a recount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recount {
    /// Counted raw rows.
    pub rows: u64,
    /// Compared rollups.
    pub rollups: u64,
    /// Archived months, which are not recounted.
    pub archived: Vec<Month>,
    /// Months whose rollups of dimensions wait to be rebuilt by maintenance, and are not compared.
    pub unsettled: Vec<Month>,
    /// Months whose records wait to be summed up by maintenance, and whose sums are not compared.
    pub unsummed: Vec<Month>,
    /// Differences.
    pub differences: Vec<Difference>,
}

impl Store {
    /// Recounts all months whose raw rows are in the database.
    ///
    /// # Errors
    /// The database failed.
    pub async fn recount(&self) -> Result<Recount, ReadError> {
        let mut connection = self.read().await?;
        let mut snapshot = connection.begin().await?;
        let mut recount = Recount::default();
        let partitions = Partitions::read(&mut snapshot).await?;
        let archived = months::archived(&mut snapshot).await?;
        let mut months = partitions.live.clone();
        months.extend(rolled_up_months(&mut snapshot).await?);
        for month in months {
            if archived.contains(&month) {
                recount.archived.push(month);
            } else {
                recount_month(&mut snapshot, &partitions, month, &mut recount).await?;
            }
        }
        Ok(recount)
    }
}

async fn rolled_up_months(connection: &mut SqliteConnection) -> Result<BTreeSet<Month>, sqlx::Error> {
    const DAYS: &str = "
        SELECT DISTINCT at FROM activity_rollups WHERE level = 'day'
        UNION SELECT DISTINCT at FROM presence_rollups WHERE level = 'day'";
    let days: Vec<u64> = sqlx::query_scalar(DAYS).fetch_all(connection).await?;
    Ok(days.into_iter().map(|day| Month::of(Time::from_millis(day))).collect())
}

async fn recount_month(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    month: Month,
    recount: &mut Recount,
) -> Result<(), sqlx::Error> {
    let state = months::one(connection, month).await?;
    let mut dimensions = match &state {
        Some(state) if state.needs_rebuild() => {
            recount.unsettled.push(month);
            None
        }
        _ => Some(DimensionRecount::start(connection, month).await?),
    };
    let mut delta = RollupDelta::default();
    let all = PartlySummed::new();
    let mut sums = SumDelta::new(&all);
    if partitions.live.contains(&month) {
        let hidden = HiddenNames::read(connection).await?;
        let mut page = read::Pages::new(month, ROWS_PER_PAGE);
        while let Some(mut batch) = page.next(connection).await? {
            recount.rows += batch.len() as u64;
            let mut ids = dictionary::find(connection, &[&batch]).await?;
            ids.rules.months.clear();
            delta.add(&batch, &ids);
            if let Some(dimensions) = &mut dimensions {
                dimensions.add(connection, &delta).await?;
            }
            delta.clear_dimensions();
            hidden.restore(&mut batch);
            sums.add(batch);
        }
    }
    compare_sum(connection, month, sums, partitions, recount).await?;
    if let Some(dimensions) = dimensions {
        let is_folded = state.as_ref().is_some_and(|state| state.dimensions.is_folded);
        dimensions.compare(connection, is_folded, recount).await?;
    }
    let quarters_from = quarters_from(connection).await?;
    let is_summed = state.is_some_and(|state| state.is_summed);
    let is_retained = |level: Level, at: Time| match level {
        Level::Quarter => at >= quarters_from,
        Level::Day => true,
        Level::Month => is_summed,
    };
    let (mut activity, mut presence) = (delta.activity(is_retained), delta.presence(is_retained));
    let mut differences = Vec::new();
    // While a month's rollups are being made, some rooms have sums and others have parts.
    let is_half_done = partitions.is_summed(month) && !is_summed;
    for level in Level::VARIANTS.iter().copied().filter(|level| *level != Level::Month || !is_half_done) {
        for room in rollups::rooms(connection, level, month).await? {
            let (from, to) = (month.start(), month.next().start());
            let stored = rollups::activity_between(connection, level, room, from, to).await?;
            for (key, stored) in stored {
                recount.rollups += 1;
                let recounted = activity.remove(&key).unwrap_or_default();
                compare_activity(key, &stored, &recounted, &mut differences);
            }
            let stored = rollups::presence_between(connection, level, room, from, to).await?;
            for (key, stored) in stored {
                recount.rollups += 1;
                let recounted = presence.remove(&key).unwrap_or_default();
                compare_presence(key, &stored, &recounted, &mut differences);
            }
        }
    }
    // These have no stored rollup.
    for (key, recounted) in &activity {
        compare_activity(*key, &ActivityRollup::default(), recounted, &mut differences);
    }
    for (key, recounted) in &presence {
        compare_presence(*key, &PresenceRollup::default(), recounted, &mut differences);
    }
    for (key, part, stored, recounted) in differences {
        let room = dictionary::text(connection, key.room).await?;
        recount.differences.push(Difference { level: key.level, at: key.at, room, part, stored, recounted });
    }
    Ok(())
}

async fn compare_sum(
    connection: &mut SqliteConnection,
    month: Month,
    sums: SumDelta<'_>,
    partitions: &Partitions,
    recount: &mut Recount,
) -> Result<(), sqlx::Error> {
    if partitions.partly_summed.contains_key(&month) {
        recount.unsummed.push(month);
        return Ok(());
    }
    let stored = month_sums::stored(connection, month).await?;
    let recounted = sums.months().remove(&month).unwrap_or_default();
    if stored != recounted {
        let (stored, recounted) = (stored.to_string(), recounted.to_string());
        let (level, at, part) = (Level::Month, month.start(), "the sum of records");
        recount.differences.push(Difference { level, at, room: None, part, stored, recounted });
    }
    Ok(())
}

/// The recount of a month's rollups of dimensions, in a temporary table, since there may be many.
struct DimensionRecount {
    month: Month,
    quarters_from: Time,
}

/// A row of both tables: level, start, room, dimension and value, and the count and time watched of each table.
type BothCounts = (i64, i64, u32, u32, u32, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

impl DimensionRecount {
    const TABLE: &str = "temp.recounted_dimensions";

    async fn start(connection: &mut SqliteConnection, month: Month) -> Result<Self, sqlx::Error> {
        const DROP: &str = "DROP TABLE IF EXISTS temp.recounted_dimensions";
        const CREATE: &str = "
            CREATE TEMP TABLE recounted_dimensions (
                level INTEGER, at INTEGER, room INTEGER, dimension INTEGER, value INTEGER, count INTEGER,
                watched_ms INTEGER, PRIMARY KEY (level, at, room, dimension, value)) WITHOUT ROWID";
        sqlx::query(DROP).execute(&mut *connection).await?;
        sqlx::query(CREATE).execute(&mut *connection).await?;
        Ok(Self { month, quarters_from: quarters_from(connection).await? })
    }

    async fn add(&self, connection: &mut SqliteConnection, delta: &RollupDelta) -> Result<(), sqlx::Error> {
        let is_retained = |level, at| level != Level::Quarter || at >= self.quarters_from;
        dimensions::add(connection, Self::TABLE, &delta.dimensions(is_retained)).await
    }

    /// Compares with the stored rollups, after folding by the same rule.
    async fn compare(
        self,
        connection: &mut SqliteConnection,
        is_folded: bool,
        recount: &mut Recount,
    ) -> Result<(), sqlx::Error> {
        let between = (self.month.start(), self.month.next().start());
        for level in Level::VARIANTS.iter().filter(|_| is_folded) {
            for bucket in dimensions::too_large(connection, Self::TABLE, *level, between).await? {
                dimensions::fold_bucket(connection, Self::TABLE, bucket).await?;
            }
        }
        let stored = |level: Level| match level {
            Level::Quarter => (between.0.max(self.quarters_from), between.1),
            _ => between,
        };
        for level in Level::VARIANTS {
            let (from, to) = stored(*level);
            for row in self.differences(connection, *level, from, to).await? {
                let difference = self.describe(connection, *level, row).await?;
                recount.differences.push(difference);
            }
            recount.rollups += dimensions::count_between(connection, *level, from, to).await?;
        }
        Ok(())
    }

    async fn differences(
        &self,
        connection: &mut SqliteConnection,
        level: Level,
        from: Time,
        to: Time,
    ) -> Result<Vec<BothCounts>, sqlx::Error> {
        const DIFFERENT: &str = "
            SELECT level, at, room, dimension, value, stored.count, stored.watched_ms, recounted.count,
                   recounted.watched_ms
            FROM dimension_rollups AS stored LEFT JOIN temp.recounted_dimensions AS recounted
            USING (level, at, room, dimension, value)
            WHERE level = ?1 AND at >= ?2 AND at < ?3
              -- Maintenance deletes those of properties that are no longer listed.
              AND (dimension < 16 OR dimension IN (SELECT id FROM rollup_props WHERE is_listed))
              AND (stored.count, stored.watched_ms) IS NOT (recounted.count, recounted.watched_ms)
            UNION ALL
            SELECT level, at, room, dimension, value, NULL, NULL, count, watched_ms
            FROM temp.recounted_dimensions AS recounted
            WHERE level = ?1 AND NOT EXISTS (
                SELECT 1 FROM dimension_rollups AS stored
                WHERE (stored.level, stored.at, stored.room, stored.dimension, stored.value)
                    = (recounted.level, recounted.at, recounted.room, recounted.dimension, recounted.value))
            LIMIT ?4";
        let query =
            sqlx::query_as(DIFFERENT).bind(dimensions::number(level)).bind(dimensions::quarters(from));
        query.bind(dimensions::quarters(to)).bind(DIFFERENCES_LIMIT).fetch_all(connection).await
    }

    async fn describe(
        &self,
        connection: &mut SqliteConnection,
        level: Level,
        row: BothCounts,
    ) -> Result<Difference, sqlx::Error> {
        let (_, at, room, dimension, value, count, watched_ms, recounted, recounted_ms) = row;
        let room = dictionary::text(connection, room).await?;
        let value = match value {
            OTHER => "(other)".to_owned(),
            value => format!("{:?}", dictionary::text(connection, value).await?.unwrap_or_default()),
        };
        let number = |count: Option<i64>, ms: Option<i64>| match (count.unwrap_or(0), ms.unwrap_or(0)) {
            (count, 0) => format!("{value}: {count}"),
            (count, ms) => format!("{value}: {count} ({ms} ms)"),
        };
        let (stored, recounted) = (number(count, watched_ms), number(recounted, recounted_ms));
        let (at, part) = (dimensions::time(at), Dimension(dimension).name());
        Ok(Difference { level, at, room, part, stored, recounted })
    }
}

type FoundDifference = (RollupKey, &'static str, String, String);

fn compare_activity(
    key: RollupKey,
    stored: &ActivityRollup,
    recounted: &ActivityRollup,
    found: &mut Vec<FoundDifference>,
) {
    let mut number = |part, stored: i64, recounted: i64| {
        if stored != recounted {
            found.push((key, part, stored.to_string(), recounted.to_string()));
        }
    };
    number("page views", stored.page_views, recounted.page_views);
    number("watch sessions", stored.watch_sessions, recounted.watch_sessions);
    number("watched ms", stored.watched_ms, recounted.watched_ms);
    if stored.visitors != recounted.visitors {
        found.push((key, "visitors", format!("{:?}", stored.visitors), format!("{:?}", recounted.visitors)));
    }
}

fn compare_presence(
    key: RollupKey,
    stored: &PresenceRollup,
    recounted: &PresenceRollup,
    found: &mut Vec<FoundDifference>,
) {
    if stored != recounted {
        found.push((key, "presence", format!("{stored:?}"), format!("{recounted:?}")));
    }
}
