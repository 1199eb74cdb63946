//! Reads the rollups of a window in one snapshot, and merges them.
//!
//! Each statement uses the primary key of rollups or an index of the dictionary; a test checks the query plans.

use std::collections::BTreeMap;
use std::time::Instant;

use roaring::RoaringBitmap;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::cover::{AvailableRollups, cover};
use super::window::{Bucket, Period, Window};
use super::{
    Breakdown, Point, Previous, PropValue, StatsQuery, StatsResult, TopContent, TopPage, TopReferrer, Totals,
};
use crate::history::calendar::Month;
use crate::history::metrics::HistoryMetrics;
use crate::history::rollup::{ALL_ROOMS, Counts, DictionaryId, PresenceRollup, add_all};
use crate::history::store::codec::{from_json, json, to_visitors};
use crate::history::store::dictionary::{self, Dictionary};
use crate::history::store::{ReadError, Store};
use crate::protocol::Time;

/// Maximum length of the lists of pages, contents, referrers and values.
const TOP: usize = 10;

/// How many texts are looked up for a list, so that equally frequent ones can be ordered by name.
const CANDIDATES: usize = 50;

const HORIZON: &str = "SELECT quarters_from FROM horizon WHERE only_row = 1";

const MONTHS: &str = "SELECT month FROM months WHERE summed = 'yes'";

const TOPS: &str = "
    SELECT pages, contents, referrers
    FROM json_each(?1) AS span CROSS JOIN activity_rollups AS rollup
    ON rollup.level = span.value ->> 1 AND rollup.room = ?2
       AND rollup.at >= span.value ->> 2 AND rollup.at < span.value ->> 3";

const ACTIVITY: &str = "
    SELECT span.value ->> 0, page_views, watch_sessions, watched_ms, visitor_set
    FROM json_each(?1) AS span CROSS JOIN activity_rollups AS rollup
    ON rollup.level = span.value ->> 1 AND rollup.room = ?2
       AND rollup.at >= span.value ->> 2 AND rollup.at < span.value ->> 3";

const PRESENCE: &str = "
    SELECT span.value ->> 0, joins, peak, present_ms, moods_ms
    FROM json_each(?1) AS span CROSS JOIN presence_rollups AS rollup
    ON rollup.level = span.value ->> 1 AND rollup.room = ?2
       AND rollup.at >= span.value ->> 2 AND rollup.at < span.value ->> 3";

const PROPS: &str = "
    SELECT props -> ?3
    FROM json_each(?1) AS span CROSS JOIN activity_rollups AS rollup
    ON rollup.level = span.value ->> 1 AND rollup.room = ?2
       AND rollup.at >= span.value ->> 2 AND rollup.at < span.value ->> 3";

const TEXTS: &str = "
    SELECT number, text FROM json_each(?1) AS asked CROSS JOIN texts ON number = asked.value";

impl Store {
    /// Computes the figures of a query at the time `now`.
    /// Errors: the database failed.
    pub(crate) async fn stats(
        &self,
        query: &StatsQuery,
        now: Time,
        metrics: &HistoryMetrics,
    ) -> Result<StatsResult, ReadError> {
        let mut connection = self.read().await?;
        let mut snapshot = connection.begin().await?;
        Ok(compute(&mut snapshot, query, now, metrics).await?)
    }
}

async fn compute(
    connection: &mut SqliteConnection,
    query: &StatsQuery,
    now: Time,
    metrics: &HistoryMetrics,
) -> Result<StatsResult, sqlx::Error> {
    let started = Instant::now();
    let available = available_rollups(connection).await?;
    let window = Window::new(query.range, &query.zone, now, available.quarters_from);
    let room = match &query.room {
        None => Some(ALL_ROOMS),
        Some(room) => dictionary::number(connection, Dictionary::Texts, room.as_str()).await?,
    };
    let mut sums: Vec<Sum> = vec![Sum::default(); window.buckets.len()];
    let mut tops = Tops::default();
    let (mut previous, mut values) = (Sum::default(), Counts::new());
    // An unknown room has no figures.
    if let Some(room) = room {
        // The lists need the whole period only, which few rollups cover. The series needs many rollups, but few
        // columns.
        let buckets = (0..).zip(&window.buckets);
        let buckets =
            buckets.flat_map(|(index, bucket)| bucket.periods.iter().map(move |period| (index, *period)));
        let series = spans(buckets, &available)?;
        let whole = spans([(0, window.whole)], &available)?;
        let before = spans([(0, window.previous)], &available)?;
        metrics.query("plan", started);

        let started = Instant::now();
        for row in sqlx::query(ACTIVITY).bind(&series).bind(room).fetch_all(&mut *connection).await? {
            bucket(&mut sums, &row)?.add_activity(&row)?;
        }
        metrics.query("activity", started);

        let started = Instant::now();
        for row in sqlx::query(TOPS).bind(&whole).bind(room).fetch_all(&mut *connection).await? {
            tops.add(&row)?;
        }
        metrics.query("tops", started);

        let started = Instant::now();
        for row in sqlx::query(PRESENCE).bind(&series).bind(room).fetch_all(&mut *connection).await? {
            bucket(&mut sums, &row)?.add_presence(&row)?;
        }
        metrics.query("presence", started);

        let started = Instant::now();
        for row in sqlx::query(ACTIVITY).bind(&before).bind(room).fetch_all(&mut *connection).await? {
            previous.add_activity(&row)?;
        }
        for row in sqlx::query(PRESENCE).bind(&before).bind(room).fetch_all(&mut *connection).await? {
            previous.add_presence(&row)?;
        }
        metrics.query("previous", started);

        if let Some(prop) = &query.prop {
            let started = Instant::now();
            values = prop_values(connection, &whole, room, prop).await?;
            metrics.query("props", started);
        }
    }

    let started = Instant::now();
    let mut whole = Sum::default();
    for sum in &sums {
        whole.merge(sum);
    }
    let tops = tops.resolve(connection).await?;
    let prop = match &query.prop {
        None => None,
        Some(key) => Some(Breakdown { key: key.clone(), values: named_values(connection, &values).await? }),
    };
    metrics.query("texts", started);
    let point = |(bucket, sum): (&Bucket, &Sum)| Point {
        at: bucket.at,
        totals: sum.totals(bucket.periods.iter().map(|period| period.passed(now)).sum()),
        moods: sum.presence.moods_ms.clone(),
    };
    Ok(StatsResult {
        range: query.range,
        room: query.room.clone(),
        tz: query.zone.clone(),
        from: window.whole.from,
        to: window.whole.to,
        step: window.step,
        totals: whole.totals(window.whole.passed(now)),
        previous: Previous {
            from: window.previous.from,
            to: window.previous.to,
            totals: previous.totals(window.previous.passed(now)),
        },
        series: window.buckets.iter().zip(&sums).map(point).collect(),
        top_pages: tops.pages,
        top_content: tops.contents,
        top_referrers: tops.referrers,
        moods: whole.presence.moods_ms,
        prop,
    })
}

/// Returns the sum of the bucket in the row's first column.
fn bucket<'a>(sums: &'a mut [Sum], row: &SqliteRow) -> Result<&'a mut Sum, sqlx::Error> {
    let (index, len) = (row.try_get::<u32, _>(0)? as usize, sums.len());
    sums.get_mut(index).ok_or(sqlx::Error::ColumnIndexOutOfBounds { index, len })
}

async fn available_rollups(connection: &mut SqliteConnection) -> Result<AvailableRollups, sqlx::Error> {
    let quarters_from: u64 = sqlx::query_scalar(HORIZON).fetch_one(&mut *connection).await?;
    let months: Vec<String> = sqlx::query_scalar(MONTHS).fetch_all(connection).await?;
    let months = months.iter().filter_map(|month| month.parse::<Month>().ok()).collect();
    Ok(AvailableRollups { quarters_from: Time::from_millis(quarters_from), months })
}

/// Encodes the rollups of periods as a parameter: the period's index, and level and bounds of each span.
fn spans(
    periods: impl IntoIterator<Item = (u32, Period)>,
    available: &AvailableRollups,
) -> Result<String, sqlx::Error> {
    let spans = periods.into_iter().flat_map(|(index, period)| {
        cover(period, available).into_iter().map(move |span| (index, span.level, span.from, span.to))
    });
    json(&spans.collect::<Vec<_>>())
}

/// The sum of a bucket's rollups.
#[derive(Debug, Clone, Default)]
struct Sum {
    page_views: i64,
    watch_sessions: i64,
    watched_ms: i64,
    visitors: RoaringBitmap,
    presence: PresenceRollup,
}

impl Sum {
    fn add_activity(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        self.page_views += row.try_get::<i64, _>(1)?;
        self.watch_sessions += row.try_get::<i64, _>(2)?;
        self.watched_ms += row.try_get::<i64, _>(3)?;
        self.visitors |= to_visitors(row.try_get(4)?)?;
        Ok(())
    }

    fn add_presence(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        self.presence.merge(&PresenceRollup {
            joins: row.try_get(1)?,
            peak: row.try_get(2)?,
            present_ms: row.try_get(3)?,
            moods_ms: from_json(row, 4)?,
        });
        Ok(())
    }

    fn merge(&mut self, other: &Self) {
        self.page_views += other.page_views;
        self.watch_sessions += other.watch_sessions;
        self.watched_ms += other.watched_ms;
        self.visitors |= &other.visitors;
        self.presence.merge(&other.presence);
    }

    /// Returns the figures of a period of which `passed_ms` have passed.
    fn totals(&self, passed_ms: u64) -> Totals {
        let average = self.presence.present_ms as f64 / passed_ms.max(1) as f64;
        Totals {
            page_views: self.page_views,
            visitors: self.visitors.len(),
            watch_sessions: self.watch_sessions,
            watched_ms: self.watched_ms,
            joins: self.presence.joins,
            peak_present: self.presence.peak,
            average_present: (average * 100.0).round() / 100.0,
        }
    }
}

/// Counts of pages, contents and referrers.
#[derive(Debug, Default)]
struct Tops {
    pages: Counts,
    /// Watch sessions and milliseconds.
    contents: BTreeMap<DictionaryId, (i64, i64)>,
    referrers: Counts,
}

/// The most frequent, with their texts.
#[derive(Debug, Default)]
struct NamedTops {
    pages: Vec<TopPage>,
    contents: Vec<TopContent>,
    referrers: Vec<TopReferrer>,
}

impl Tops {
    fn add(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        add_all(&mut self.pages, &from_json(row, 0)?);
        for (content, (sessions, ms)) in from_json::<BTreeMap<DictionaryId, (i64, i64)>>(row, 1)? {
            let sum = self.contents.entry(content).or_default();
            *sum = (sum.0 + sessions, sum.1 + ms);
        }
        add_all(&mut self.referrers, &from_json(row, 2)?);
        Ok(())
    }

    async fn resolve(&self, connection: &mut SqliteConnection) -> Result<NamedTops, sqlx::Error> {
        let longest = self.contents.iter().map(|(content, (_, ms))| (*content, *ms)).collect();
        let pages = named(connection, &self.pages).await?;
        let contents = named(connection, &longest).await?;
        let referrers = named(connection, &self.referrers).await?;
        let sessions =
            |content: DictionaryId| self.contents.get(&content).map_or(0, |(sessions, _)| *sessions);
        Ok(NamedTops {
            pages: pages.into_iter().map(|(_, path, page_views)| TopPage { path, page_views }).collect(),
            contents: contents
                .into_iter()
                .map(|(number, content, watched_ms)| TopContent {
                    content,
                    watch_sessions: sessions(number),
                    watched_ms,
                })
                .collect(),
            referrers: referrers
                .into_iter()
                .map(|(_, referrer, page_views)| TopReferrer { referrer, page_views })
                .collect(),
        })
    }
}

async fn prop_values(
    connection: &mut SqliteConnection,
    spans: &str,
    room: DictionaryId,
    prop: &str,
) -> Result<Counts, sqlx::Error> {
    let mut values = Counts::new();
    if let Some(key) = dictionary::number(connection, Dictionary::Texts, prop).await? {
        let path = format!("$.\"{key}\"");
        let rows: Vec<Option<String>> =
            sqlx::query_scalar(PROPS).bind(spans).bind(room).bind(path).fetch_all(connection).await?;
        for row in rows.into_iter().flatten() {
            let counts = serde_json::from_str(&row).map_err(|error| sqlx::Error::Decode(error.into()))?;
            add_all(&mut values, &counts);
        }
    }
    Ok(values)
}

async fn named_values(
    connection: &mut SqliteConnection,
    values: &Counts,
) -> Result<Vec<PropValue>, sqlx::Error> {
    let values = named(connection, values).await?;
    Ok(values.into_iter().map(|(_, value, page_views)| PropValue { value, page_views }).collect())
}

/// Returns the most frequent texts. Equally frequent ones are ordered by text.
async fn named(
    connection: &mut SqliteConnection,
    counts: &Counts,
) -> Result<Vec<(DictionaryId, String, i64)>, sqlx::Error> {
    let mut most: Vec<(DictionaryId, i64)> = counts.iter().map(|(number, count)| (*number, *count)).collect();
    most.sort_by_key(|(number, count)| (std::cmp::Reverse(*count), *number));
    most.truncate(CANDIDATES);
    let ids: Vec<DictionaryId> = most.iter().map(|(number, _)| *number).collect();
    let texts: Vec<(DictionaryId, Option<String>)> =
        sqlx::query_as(TEXTS).bind(json(&ids)?).fetch_all(connection).await?;
    let texts: BTreeMap<DictionaryId, Option<String>> = texts.into_iter().collect();
    let name = |number| texts.get(&number).cloned().flatten();
    let named = most.into_iter().filter_map(|(number, count)| Some((number, name(number)?, count)));
    let mut named: Vec<_> = named.collect();
    named.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.1.cmp(&b.1)));
    named.truncate(TOP);
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No statement may scan a table that grows.
    #[tokio::test]
    async fn each_query_uses_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let find_text = dictionary::find_statement(Dictionary::Texts);
        for statement in [HORIZON, MONTHS, ACTIVITY, TOPS, PRESENCE, PROPS, TEXTS, find_text] {
            let plan = format!("EXPLAIN QUERY PLAN {statement}");
            let mut reader = store.read().await.unwrap();
            let rows = sqlx::query(sqlx::AssertSqlSafe(plan)).fetch_all(&mut *reader).await.unwrap();
            let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            for step in &steps {
                // Parameters are scanned, and so is the table of months, with twelve rows a year.
                let is_small = ["SCAN json_each", "SCAN span", "SCAN asked", "SCAN months"];
                let is_fine = !step.contains("SCAN") || is_small.iter().any(|small| step.starts_with(small));
                assert!(is_fine, "{step} in {statement}");
            }
            assert!(!steps.is_empty());
        }
    }
}
