//! Reads the rollups of a window in one snapshot, and merges them.
//!
//! Each statement uses the primary key of rollups or an index of the dictionary; a test checks the query plans. Only a
//! breakdown by a property without rollups reads raw rows, after the snapshot.

use std::collections::BTreeSet;
use std::time::Instant;

use roaring::RoaringBitmap;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::cover::{AvailableRollups, cover};
use super::lists::{List, ListPeriods};
use super::window::{Bucket, Period, Window};
use super::{
    Breakdown, Other, OtherContent, OtherViews, Point, Previous, PropValue, Sits, StatsQuery, StatsResult,
    TopContent, TopPage, TopReferrer, Totals,
};
use crate::history::calendar::Month;
use crate::history::metrics::HistoryMetrics;
use crate::history::rollup::{Dimension, PresenceRollup};
use crate::history::store::codec::{json, to_visitors};
use crate::history::store::dictionary::{self, Dictionary, ScopeId};
use crate::history::store::prop_values::PropQuery;
use crate::history::store::rollups::presence_from;
use crate::history::store::{ReadError, Store, props};
use crate::protocol::Time;

/// A minute, in milliseconds.
const MINUTE_MS: f64 = 60_000.0;

const HORIZON: &str = "SELECT quarters_from FROM horizon WHERE only_row = 1";

const MONTHS: &str = "SELECT month, summed = 'yes' FROM months";

const ACTIVITY: &str = "
    SELECT span.value ->> 0, page_views, watch_sessions, watched_ms, visitor_set
    FROM json_each(?1) AS span CROSS JOIN activity_rollups AS rollup
    ON rollup.level = span.value ->> 1 AND rollup.room = ?2
       AND rollup.at >= span.value ->> 2 AND rollup.at < span.value ->> 3";

const PRESENCE: &str = "
    SELECT span.value ->> 0, joins, peak, present_ms, moods_ms, held_ms, sits_begun, sits_completed, sat_ms
    FROM json_each(?1) AS span CROSS JOIN presence_rollups AS rollup
    ON rollup.level = span.value ->> 1 AND rollup.room = ?2
       AND rollup.at >= span.value ->> 2 AND rollup.at < span.value ->> 3";

impl Store {
    /// Computes the figures of a query at the time `now`, without `own_hosts` in the list of referrers.
    /// Errors: the database failed, or a breakdown needs rows that are archived.
    pub(crate) async fn stats(
        &self,
        query: &StatsQuery,
        now: Time,
        own_hosts: &[String],
        metrics: &HistoryMetrics,
    ) -> Result<StatsResult, ReadError> {
        let mut connection = self.read().await?;
        let mut snapshot = connection.begin().await?;
        let (available, months) = available_rollups(&mut snapshot).await?;
        let window = Window::new(query.range, &query.zone, now, available.quarters_from);
        let periods = ListPeriods::new(window.whole, now, &available, months)?;
        let plan = Plan { window: &window, available: &available, periods: &periods, own_hosts };
        let mut figures = Figures::read(&mut snapshot, query, &plan, metrics).await?;
        drop(snapshot);
        drop(connection);
        if let (Some(prop), None) = (&query.prop, &figures.prop) {
            let started = Instant::now();
            figures.prop = Some(self.raw_prop(prop, figures.scope, window.whole).await?);
            metrics.query("props", started);
        }
        Ok(figures.result(query, &window, now))
    }

    async fn raw_prop(
        &self,
        prop: &str,
        scope: Option<ScopeId>,
        whole: Period,
    ) -> Result<(List, Option<Time>), ReadError> {
        // An unknown room has no figures.
        let Some(scope) = scope else { return Ok((List::default(), None)) };
        let (count, rows) =
            self.prop_values(PropQuery { prop, scope, from: whole.from, to: whole.to }).await?;
        let rows = rows.into_iter().map(|(value, count)| (value, count, 0)).collect();
        Ok((List { rows, count }, None))
    }
}

/// What to read for a query.
struct Plan<'a> {
    window: &'a Window,
    available: &'a AvailableRollups,
    /// The lists need the whole period only, which few rollups cover. The series needs many, but few columns.
    periods: &'a ListPeriods,
    own_hosts: &'a [String],
}

/// What the database has of a query.
#[derive(Debug, Default)]
struct Figures {
    scope: Option<ScopeId>,
    sums: Vec<Sum>,
    previous: Sum,
    pages: List,
    contents: List,
    referrers: List,
    /// The breakdown by a property with rollups, and since when they count.
    prop: Option<(List, Option<Time>)>,
}

impl Figures {
    async fn read(
        connection: &mut SqliteConnection,
        query: &StatsQuery,
        plan: &Plan<'_>,
        metrics: &HistoryMetrics,
    ) -> Result<Self, sqlx::Error> {
        let started = Instant::now();
        let Plan { window, available, periods, own_hosts } = *plan;
        let mut figures = Self { sums: vec![Sum::default(); window.buckets.len()], ..Self::default() };
        figures.scope = dictionary::scope(connection, &query.scope).await?;
        let prop = match &query.prop {
            Some(prop) => props::listed(connection, prop).await?,
            None => None,
        };
        // An unknown room has no figures.
        let Some(scope) = figures.scope else {
            figures.prop = prop.map(|_| (List::default(), None));
            return Ok(figures);
        };
        let buckets = (0..).zip(&window.buckets);
        let buckets =
            buckets.flat_map(|(index, bucket)| bucket.periods.iter().map(move |period| (index, *period)));
        let series = spans(buckets, available)?;
        let before = spans([(0, window.previous)], available)?;
        metrics.query("plan", started);
        figures.read_sums(connection, scope, (&series, &before), metrics).await?;

        let started = Instant::now();
        let views: i64 = figures.sums.iter().map(|sum| sum.page_views).sum();
        let sessions = figures.sums.iter().map(|sum| sum.watch_sessions).sum();
        let watched_ms = figures.sums.iter().map(|sum| sum.watched_ms).sum();
        // Every page view has a path and every watch session a content, so their totals are those of the lists.
        let of = (scope, Dimension::PATH);
        figures.pages = periods.list(connection, of, (views, Some(views)), &[]).await?;
        let of = (scope, Dimension::CONTENT);
        figures.contents = periods.list(connection, of, (watched_ms, Some(sessions)), &[]).await?;
        let own = dictionary::ids(connection, Dictionary::Texts, own_hosts).await?;
        // Some page views have no referrer: a fraction of all is about right.
        let of = (scope, Dimension::HOST);
        figures.referrers = periods.list(connection, of, (views / 4, None), &own).await?;
        metrics.query("tops", started);

        if let Some(prop) = prop {
            let started = Instant::now();
            let list = periods.list(connection, (scope, prop.dimension), (views / 4, None), &[]).await?;
            let since = (prop.from > window.whole.from).then_some(prop.from);
            figures.prop = Some((list, since));
            metrics.query("props", started);
        }
        Ok(figures)
    }

    async fn read_sums(
        &mut self,
        connection: &mut SqliteConnection,
        scope: ScopeId,
        (series, before): (&str, &str),
        metrics: &HistoryMetrics,
    ) -> Result<(), sqlx::Error> {
        let started = Instant::now();
        for row in sqlx::query(ACTIVITY).bind(series).bind(scope.id()).fetch_all(&mut *connection).await? {
            bucket(&mut self.sums, &row)?.add_activity(&row)?;
        }
        metrics.query("activity", started);

        let started = Instant::now();
        for row in sqlx::query(PRESENCE).bind(series).bind(scope.id()).fetch_all(&mut *connection).await? {
            bucket(&mut self.sums, &row)?.add_presence(&row)?;
        }
        metrics.query("presence", started);

        let started = Instant::now();
        for row in sqlx::query(ACTIVITY).bind(before).bind(scope.id()).fetch_all(&mut *connection).await? {
            self.previous.add_activity(&row)?;
        }
        for row in sqlx::query(PRESENCE).bind(before).bind(scope.id()).fetch_all(&mut *connection).await? {
            self.previous.add_presence(&row)?;
        }
        metrics.query("previous", started);
        Ok(())
    }

    fn result(self, query: &StatsQuery, window: &Window, now: Time) -> StatsResult {
        let mut whole = Sum::default();
        for sum in &self.sums {
            whole.merge(sum);
        }
        let point = |(bucket, sum): (&Bucket, &Sum)| Point {
            at: bucket.at,
            totals: sum.totals(bucket.periods.iter().map(|period| period.passed(now)).sum()),
            moods: sum.presence.moods_ms.clone(),
        };
        let totals = whole.totals(window.whole.passed(now));
        let previous = self.previous.totals(window.previous.passed(now));
        let watched_ms = totals.watched_ms - self.contents.rows.iter().map(|(_, _, ms)| ms).sum::<i64>();
        let other = Other {
            pages: OtherViews { page_views: self.pages.other() },
            content: OtherContent { watch_sessions: self.contents.other(), watched_ms: watched_ms.max(0) },
            referrers: OtherViews { page_views: self.referrers.other() },
        };
        let prop = query.prop.clone().zip(self.prop).map(|(key, (list, since))| {
            let other = OtherViews { page_views: list.other() };
            let values = list.rows.into_iter().map(|(value, page_views, _)| PropValue { value, page_views });
            Breakdown { key, values: values.collect(), other, since }
        });
        let page = |(path, page_views, _)| TopPage { path, page_views };
        let content =
            |(content, watch_sessions, watched_ms)| TopContent { content, watch_sessions, watched_ms };
        let referrer = |(referrer, page_views, _)| TopReferrer { referrer, page_views };
        StatsResult {
            range: query.range,
            room: query.scope.room().cloned(),
            tz: query.zone.clone(),
            from: window.whole.from,
            to: window.whole.to,
            step: window.step,
            totals,
            previous: Previous { from: window.previous.from, to: window.previous.to, totals: previous },
            series: window.buckets.iter().zip(&self.sums).map(point).collect(),
            top_pages: self.pages.rows.into_iter().map(page).collect(),
            top_content: self.contents.rows.into_iter().map(content).collect(),
            top_referrers: self.referrers.rows.into_iter().map(referrer).collect(),
            other,
            moods: whole.presence.moods_ms,
            prop,
        }
    }
}

/// Returns the sum of the bucket in the row's first column.
fn bucket<'a>(sums: &'a mut [Sum], row: &SqliteRow) -> Result<&'a mut Sum, sqlx::Error> {
    let (index, len) = (row.try_get::<u32, _>(0)? as usize, sums.len());
    sums.get_mut(index).ok_or(sqlx::Error::ColumnIndexOutOfBounds { index, len })
}

/// Returns which rollups of activity exist, and all months with rollups of dimensions.
async fn available_rollups(
    connection: &mut SqliteConnection,
) -> Result<(AvailableRollups, BTreeSet<Month>), sqlx::Error> {
    let quarters_from: u64 = sqlx::query_scalar(HORIZON).fetch_one(&mut *connection).await?;
    let rows: Vec<(String, bool)> = sqlx::query_as(MONTHS).fetch_all(connection).await?;
    let rows = rows.iter().filter_map(|(month, is_summed)| Some((month.parse::<Month>().ok()?, *is_summed)));
    let (mut months, mut all) = (BTreeSet::new(), BTreeSet::new());
    for (month, is_summed) in rows {
        all.insert(month);
        months.extend(is_summed.then_some(month));
    }
    Ok((AvailableRollups { quarters_from: Time::from_millis(quarters_from), months }, all))
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
        self.presence.merge(&presence_from(row, 1)?);
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
        let average = |sum: i64| rounded(sum as f64 / passed_ms.max(1) as f64);
        Totals {
            page_views: self.page_views,
            visitors: self.visitors.len(),
            watch_sessions: self.watch_sessions,
            watched_ms: self.watched_ms,
            joins: self.presence.joins,
            peak_present: self.presence.peak,
            average_present: average(self.presence.present_ms),
            average_held: average(self.presence.held_ms),
            sits: Sits {
                begun: self.presence.sits_begun,
                completed: self.presence.sits_completed,
                minutes: rounded(self.presence.sat_ms as f64 / MINUTE_MS),
            },
        }
    }
}

/// The number, to two decimal places.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::super::lists::{ALL, FIRST, LIST, candidate_statement};
    use super::*;

    /// No statement may scan a table that grows.
    #[tokio::test]
    async fn each_query_uses_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let find_text = dictionary::find_statement(Dictionary::Texts);
        let candidates = [Dimension::PATH, Dimension::CONTENT].map(candidate_statement);
        let [path, content] = candidates.each_ref().map(String::as_str);
        let lists = [LIST, FIRST, ALL, path, content];
        for statement in [HORIZON, MONTHS, ACTIVITY, PRESENCE, find_text].into_iter().chain(lists) {
            let plan = format!("EXPLAIN QUERY PLAN {statement}");
            let mut reader = store.read().await.unwrap();
            let rows = sqlx::query(sqlx::AssertSqlSafe(plan)).fetch_all(&mut *reader).await.unwrap();
            let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            for step in &steps {
                // Parameters are scanned, and so is the table of months, with twelve rows a year.
                let is_small = [
                    "SCAN json_each",
                    "SCAN span",
                    "SCAN asked",
                    "SCAN months",
                    "SCAN period",
                    "SCAN sums",
                    "SCAN tenth",
                    "SCAN list",
                    "SCAN CONSTANT ROW",
                    "SCAN (subquery",
                ];
                let is_fine = !step.contains("SCAN") || is_small.iter().any(|small| step.starts_with(small));
                assert!(is_fine, "{step} in {statement}");
            }
            assert!(!steps.is_empty());
        }
    }
}
