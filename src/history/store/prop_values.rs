//! Counts page views by the values of a property without rollups, from the raw rows.
//!
//! Rows are read in pages, each in a short read transaction. The values are summed in a temporary database, so that
//! memory does not grow with their number. One such count runs at a time.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};

use super::codec::{decode_error, json, millis};
use super::dictionary::ScopeId;
use super::partition::RowKind;
use super::{ReadError, Store, months};
use crate::history::calendar::{Level, Month};
use crate::history::normalize::value_of;
use crate::history::rollup::DictionaryId;
use crate::protocol::Time;

/// Rows per page.
const ROWS_PER_PAGE: u32 = if cfg!(test) { 3 } else { 5_000 };

/// The page views to count.
#[derive(Debug, Clone, Copy)]
pub(in crate::history) struct PropQuery<'a> {
    /// The property.
    pub prop: &'a str,
    /// The room, or all.
    pub scope: ScopeId,
    /// The start of the period.
    pub from: Time,
    /// The end of the period, which is exclusive.
    pub to: Time,
}

/// The count of all values, and the most frequent ones.
pub(in crate::history) type PropCounts = (i64, Vec<(String, i64)>);

/// The last row of a page: its id in hexadecimal, visitor and room.
type Last = (String, DictionaryId, DictionaryId);

impl Store {
    /// Counts page views by the values of a property. Bots do not count.
    /// Errors: some of the period's rows are archived, or the database failed.
    pub(in crate::history) async fn prop_values(
        &self,
        query: PropQuery<'_>,
    ) -> Result<PropCounts, ReadError> {
        const CREATE: &str =
            "CREATE TABLE sums (value TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID";
        const ADD: &str = "
            INSERT INTO sums SELECT value, count(*) FROM json_each(?1) WHERE true GROUP BY value
            ON CONFLICT DO UPDATE SET count = count + excluded.count";
        const TOP: &str = "SELECT value, count FROM sums ORDER BY count DESC, value LIMIT 10";
        const ALL: &str = "SELECT ifnull(sum(count), 0) FROM sums";
        let _one = self.prop_counts.acquire().await;
        let months = self.unarchived_months(query).await?;
        // Without a name the database is temporary, and SQLite deletes its file.
        let mut sums = SqliteConnectOptions::new().filename("").create_if_missing(true).connect().await?;
        sqlx::query(CREATE).execute(&mut sums).await?;
        for month in months {
            let mut last = (String::new(), 0, 0);
            while let Some((next, values)) = page(&mut *self.read().await?, month, &last, query).await? {
                sqlx::query(ADD).bind(json(&values)?).execute(&mut sums).await?;
                last = next;
            }
        }
        let top = sqlx::query_as(TOP).fetch_all(&mut sums).await?;
        let all = sqlx::query_scalar(ALL).fetch_one(&mut sums).await?;
        sums.close().await?;
        Ok((all, top))
    }

    /// Returns the months with page views of the scope in the period. Those without are not looked at, so that what
    /// happens in other rooms changes nothing.
    /// Errors: some of their rows are archived.
    async fn unarchived_months(&self, query: PropQuery<'_>) -> Result<Vec<Month>, ReadError> {
        let mut connection = self.read().await?;
        let (mut live, mut archived) = (Vec::new(), None);
        for state in months::all(&mut connection).await? {
            let (from, to) = (state.month.start().max(query.from), state.month.next().start().min(query.to));
            if from >= to || !has_page_views(&mut connection, query.scope, from, to).await? {
                continue;
            }
            if state.archive.is_some() {
                archived = Some(state.month);
            } else if state.is_live {
                live.push(state.month);
            }
        }
        match archived {
            Some(last) => Err(ReadError::Archived { first: last.next() }),
            None => Ok(live),
        }
    }
}

/// Whether a scope has page views on the days from `from` to `to`.
async fn has_page_views(
    connection: &mut SqliteConnection,
    scope: ScopeId,
    from: Time,
    to: Time,
) -> Result<bool, sqlx::Error> {
    const EXISTS: &str = "
        SELECT EXISTS (SELECT 1 FROM activity_rollups
                       WHERE level = 'day' AND room = ?1 AND at >= ?2 AND at < ?3 AND page_views > 0)";
    let exists = sqlx::query_scalar(EXISTS).bind(scope.id()).bind(millis(Level::Day.floor(from)));
    exists.bind(millis(to)).fetch_one(connection).await
}

/// Reads a page of rows behind `last`. Returns its last row and the values, or `None` at the end.
async fn page(
    connection: &mut SqliteConnection,
    month: Month,
    last: &Last,
    query: PropQuery<'_>,
) -> Result<Option<(Last, Vec<String>)>, sqlx::Error> {
    // The limit counts all rows, so that a page is short however few rows have properties.
    let statement = format!(
        "WITH page AS MATERIALIZED (
             SELECT id, visitor, room, at, is_bot, props FROM {}
             WHERE (id, visitor, room) > (unhex(?1), ?2, ?3) ORDER BY id, visitor, room LIMIT ?4
         )
         SELECT (SELECT json_array(hex(id), visitor, room) FROM page
                 ORDER BY id DESC, visitor DESC, room DESC LIMIT 1),
                (SELECT json_group_array(props) FROM page
                 WHERE props IS NOT NULL AND NOT is_bot AND at >= ?5 AND at < ?6 AND (?7 = 0 OR room = ?7))",
        RowKind::PageViews.table(month)
    );
    let page = sqlx::query_as(AssertSqlSafe(statement)).bind(&last.0).bind(last.1).bind(last.2);
    let page = page.bind(ROWS_PER_PAGE).bind(millis(query.from)).bind(millis(query.to));
    let (last, props): (Option<String>, String) =
        page.bind(query.scope.id()).fetch_one(&mut *connection).await?;
    let Some(last) = last else { return Ok(None) };
    let props: Vec<String> = serde_json::from_str(&props).map_err(decode_error)?;
    let values = props.iter().filter_map(|props| value_of(props, query.prop)).collect();
    Ok(Some((serde_json::from_str(&last).map_err(decode_error)?, values)))
}
