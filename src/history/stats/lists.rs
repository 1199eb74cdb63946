//! Lists of a period's pages, contents, hosts and values of a property: the first ten, and the sum of all.
//!
//! SQLite sums and sorts, so that memory does not grow with the number of values. Mostly few values can be among the
//! first ten: only these are summed. A value that is below a threshold in each of the rollups is below the sum of the
//! thresholds in all.

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::cover::{AvailableRollups, cover};
use super::window::Period;
use crate::history::calendar::Month;
use crate::history::rollup::{DictionaryId, Dimension};
use crate::history::store::codec::{decode_error, json};
use crate::history::store::dictionary::ScopeId;
use crate::history::store::dimensions::{number, quarters};
use crate::protocol::Time;

/// How many values are looked at more closely.
const CANDIDATES: usize = 100;

/// The share of all from which on a value is looked at more closely, if all rollups had the same.
const SHARE: i64 = 90;

/// The values that reach a threshold in one of the rollups, up to one more than are looked at. `{column}` is what the
/// list is ordered by.
const CANDIDATE: &str = "
    SELECT json_group_array(value) FROM (
        SELECT DISTINCT rollup.value AS value
        FROM json_each(?1) AS period CROSS JOIN dimension_rollups AS rollup
        ON level = period.value ->> 0 AND at = period.value ->> 1 AND room = ?2 AND dimension = ?3
        WHERE {column} >= ?4 AND rollup.value <> 0 LIMIT 101)";

/// The first of some values.
pub(super) const FIRST: &str = "
    WITH sums AS MATERIALIZED (
        SELECT asked.value AS value, sum(count) AS count, sum(watched_ms) AS watched_ms
        FROM json_each(?4) AS asked CROSS JOIN json_each(?1) AS period CROSS JOIN dimension_rollups AS rollup
        ON level = period.value ->> 0 AND at = period.value ->> 1 AND room = ?2 AND dimension = ?3
           AND rollup.value = asked.value
        GROUP BY asked.value
    )
    SELECT json_group_array(json_array(text, count, watched_ms)) FROM (
        SELECT text, count, watched_ms FROM sums JOIN texts ON number = value
        WHERE count > 0 AND text IS NOT NULL ORDER BY watched_ms DESC, count DESC, text LIMIT 10)";

/// The count of all values.
pub(super) const ALL: &str = "
    SELECT ifnull(sum(count), 0)
    FROM json_each(?1) AS period CROSS JOIN dimension_rollups AS rollup
    ON level = period.value ->> 0 AND at = period.value ->> 1 AND room = ?2 AND dimension = ?3
    WHERE rollup.value NOT IN (SELECT value FROM json_each(?4))";

/// The statement for candidates of a list that is ordered by a column.
pub(super) fn candidate_statement(dimension: Dimension) -> String {
    let column = if dimension == Dimension::CONTENT { "watched_ms" } else { "count" };
    CANDIDATE.replace("{column}", column)
}

/// All values by time watched, count and text. Only those that may be among the first ten get their texts.
pub(super) const LIST: &str = "
    WITH sums AS MATERIALIZED (
        SELECT rollup.value AS value, sum(count) AS count, sum(watched_ms) AS watched_ms
        FROM json_each(?1) AS period CROSS JOIN dimension_rollups AS rollup
        ON level = period.value ->> 0 AND at = period.value ->> 1 AND room = ?2 AND dimension = ?3
        WHERE rollup.value NOT IN (SELECT value FROM json_each(?4))
        GROUP BY rollup.value
    ), tenth AS MATERIALIZED (
        SELECT watched_ms, count FROM sums WHERE value <> 0 ORDER BY watched_ms DESC, count DESC LIMIT 1 OFFSET 9
    ), list AS (
        SELECT text, count, watched_ms FROM sums JOIN texts ON number = value
        WHERE value <> 0 AND count > 0 AND text IS NOT NULL
          AND (watched_ms, count) >= (ifnull((SELECT watched_ms FROM tenth), 0), ifnull((SELECT count FROM tenth), 0))
        ORDER BY watched_ms DESC, count DESC, text LIMIT 10
    )
    SELECT json_group_array(json_array(text, count, watched_ms)) FROM list";

/// Text, count and time watched of a value.
pub(super) type Row = (String, i64, i64);

/// The first values of a list, and the count of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    /// The values in the order of the list.
    pub rows: Vec<Row>,
    /// The count of all values, also those that have no row of their own.
    pub count: i64,
}

impl List {
    /// The count of all values that are not among the first ones.
    pub(super) fn other(&self) -> i64 {
        (self.count - self.rows.iter().map(|(_, count, _)| count).sum::<i64>()).max(0)
    }
}

/// The rollups that make up a period, for lists.
#[derive(Debug, Clone)]
pub(super) struct ListPeriods {
    json: String,
    count: i64,
}

impl ListPeriods {
    /// Returns the rollups of `whole` at the time `now`. Nothing is later than now, so that the current day and month
    /// are each one rollup. `months` have some rollups.
    pub(super) fn new(
        whole: Period,
        now: Time,
        available: &AvailableRollups,
        months: impl IntoIterator<Item = Month>,
    ) -> Result<Self, sqlx::Error> {
        let to = if whole.to > now { whole.to.max(Month::of(now).next().start()) } else { whole.to };
        let available = AvailableRollups { months: months.into_iter().collect(), ..available.clone() };
        let mut periods = Vec::new();
        for span in cover(Period { from: whole.from, to }, &available) {
            let mut at = span.from;
            while at < span.to {
                periods.push((number(span.level), quarters(at)));
                at = span.level.after(at);
            }
        }
        let count = i64::try_from(periods.len()).unwrap_or(i64::MAX);
        Ok(Self { json: json(&periods)?, count })
    }

    /// Reads the list of a dimension in a scope, without the `excluded` values. `sum` is about what all have together of
    /// what the list is ordered by; without the count of all, the list counts all.
    pub(super) async fn list(
        &self,
        connection: &mut SqliteConnection,
        (scope, dimension): (ScopeId, Dimension),
        (sum, count): (i64, Option<i64>),
        excluded: &[DictionaryId],
    ) -> Result<List, sqlx::Error> {
        let rows = match self.first(connection, (scope, dimension), sum, excluded).await? {
            Some(rows) => rows,
            None => self.fetch(connection, LIST, (scope, dimension), &json(excluded)?).await?,
        };
        if let Some(count) = count {
            return Ok(List { rows, count });
        }
        let query = sqlx::query_scalar(ALL).bind(&self.json).bind(scope.id()).bind(dimension.0);
        let count = query.bind(json(excluded)?).fetch_one(connection).await?;
        Ok(List { rows, count })
    }

    /// Returns the list from few candidates, if no other value can be in it.
    async fn first(
        &self,
        connection: &mut SqliteConnection,
        (scope, dimension): (ScopeId, Dimension),
        sum: i64,
        excluded: &[DictionaryId],
    ) -> Result<Option<Vec<Row>>, sqlx::Error> {
        let below = sum / SHARE / self.count.max(1);
        let statement = candidate_statement(dimension);
        let query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(&self.json).bind(scope.id());
        let found: String = query.bind(dimension.0).bind(below + 1).fetch_one(&mut *connection).await?;
        let mut candidates: Vec<DictionaryId> = serde_json::from_str(&found).map_err(decode_error)?;
        if candidates.len() > CANDIDATES {
            return Ok(None);
        }
        candidates.retain(|value| !excluded.contains(value));
        let rows = self.fetch(connection, FIRST, (scope, dimension), &json(&candidates)?).await?;
        let last =
            rows.get(9).map(|(_, count, ms)| if dimension == Dimension::CONTENT { *ms } else { *count });
        // Content that was not watched has no time, and is no candidate.
        let are_all = below == 0 && dimension != Dimension::CONTENT;
        let is_first = are_all || last.is_some_and(|last| last > below.saturating_mul(self.count));
        Ok(is_first.then_some(rows))
    }

    async fn fetch(
        &self,
        connection: &mut SqliteConnection,
        statement: &'static str,
        (scope, dimension): (ScopeId, Dimension),
        values: &str,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let query = sqlx::query_scalar(statement).bind(&self.json).bind(scope.id()).bind(dimension.0);
        let rows: String = query.bind(values).fetch_one(connection).await?;
        serde_json::from_str(&rows).map_err(decode_error)
    }
}
