//! Lists of a period's pages, contents, hosts and values of a property: the first ten, and the sum of all.
//!
//! SQLite sums and sorts, so that memory does not grow with the number of values.

use sqlx::SqliteConnection;

use super::cover::{AvailableRollups, cover};
use super::window::Period;
use crate::history::calendar::Month;
use crate::history::rollup::{DictionaryId, Dimension};
use crate::history::store::codec::{decode_error, json};
use crate::history::store::dimensions::{number, quarters};
use crate::protocol::Time;

/// Values by time watched, count and text. Only those that may be among the first ten get their texts.
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
    SELECT ifnull((SELECT sum(count) FROM sums), 0),
           (SELECT json_group_array(json_array(text, count, watched_ms)) FROM list)";

/// The first values of a list, and the count of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    /// Text, count and time watched, in the order of the list.
    pub rows: Vec<(String, i64, i64)>,
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
pub(super) struct ListPeriods(String);

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
        json(&periods).map(Self)
    }

    /// Reads the list of a dimension in a room, without the `excluded` values.
    pub(super) async fn list(
        &self,
        connection: &mut SqliteConnection,
        room: DictionaryId,
        dimension: Dimension,
        excluded: &[DictionaryId],
    ) -> Result<List, sqlx::Error> {
        let query = sqlx::query_as(LIST).bind(&self.0).bind(room).bind(dimension.0).bind(json(excluded)?);
        let (count, rows): (i64, String) = query.fetch_one(connection).await?;
        Ok(List { rows: serde_json::from_str(&rows).map_err(decode_error)?, count })
    }
}
