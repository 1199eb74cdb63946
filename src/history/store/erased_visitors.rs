//! The erasures of the log in the database, and their visitors.
//!
//! The log names a visitor by a keyed hash: the rows are found by the hashes of all visitors of the dictionary. Saved holds
//! may have visitors who are not in it.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::SqliteConnection;

use super::codec::number;
use super::{CommitError, LifecycleError, ReadError, Store};
use crate::history::log::command::VisitorHash;
use crate::history::log::erasures::LoggedErasure;
use crate::history::rollup::DictionaryId;
use crate::protocol::{Time, VisitorId};

/// Visitors per page of a search by hash.
const VISITORS_PER_PAGE: u32 = 2_000;

/// A row: hash, time, position, and whether it is finished.
type Row = (Vec<u8>, i64, Option<i64>, bool);

/// Writes erasures in the current transaction. One that the table has with this time or a later one stays as it is.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    erasures: &[LoggedErasure],
) -> Result<(), sqlx::Error> {
    // An erasure of this node: it looks at the whole log.
    const ADD: &str = "
        INSERT INTO erased_visitors (hash, until_at, position, is_done, clean_after)
        VALUES (?1, ?2, ?3, 0, iif(?3 IS NULL, 0, NULL))
        ON CONFLICT (hash) DO UPDATE
        SET until_at = excluded.until_at, position = excluded.position, is_done = 0,
            clean_after = ifnull(excluded.clean_after, erased_visitors.clean_after), cleaning = NULL
        WHERE excluded.until_at > erased_visitors.until_at";
    for LoggedErasure { visitor, until, position } in erasures {
        let query = sqlx::query(ADD).bind(visitor.as_bytes().as_slice()).bind(number(until.millis()));
        query.bind(position.map(number)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// A message of the log has erased events: the node that cleans the log looks at it again.
pub(super) async fn clean_from(connection: &mut SqliteConnection, position: u64) -> Result<(), sqlx::Error> {
    const CLEAN: &str = "
        UPDATE erased_visitors SET clean_after = min(ifnull(clean_after, ?1), ?1) WHERE position IS NULL";
    sqlx::query(CLEAN).bind(number(position.saturating_sub(1))).execute(connection).await?;
    Ok(())
}

/// The log is another one: the node cleans all of it.
pub(super) async fn clean_all(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    const CLEAN: &str = "UPDATE erased_visitors SET clean_after = 0, cleaning = NULL WHERE position IS NULL";
    sqlx::query(CLEAN).execute(connection).await?;
    Ok(())
}

impl Store {
    /// Returns the finished and the unfinished erasures of the log.
    /// Errors: the database failed.
    pub(crate) async fn logged_erasures(&self) -> Result<[Vec<LoggedErasure>; 2], ReadError> {
        const ALL: &str = "SELECT hash, until_at, position, is_done FROM erased_visitors";
        let rows: Vec<Row> = sqlx::query_as(ALL).fetch_all(&mut *self.read().await?).await?;
        let (mut finished, mut unfinished) = (Vec::new(), Vec::new());
        for (hash, until, position, is_done) in rows {
            let erasure = LoggedErasure {
                visitor: VisitorHash::from_bytes(hash.try_into().unwrap_or_default()),
                until: Time::from_millis(until.try_into().unwrap_or_default()),
                position: position.and_then(|position| position.try_into().ok()),
            };
            if is_done { &mut finished } else { &mut unfinished }.push(erasure);
        }
        Ok([finished, unfinished])
    }

    /// Records that the file has none of the erased events any more.
    /// Errors: the database is locked, full, gone or damaged. It is unchanged.
    pub(crate) async fn finish_logged_erasure(&self, erasure: &LoggedErasure) -> Result<(), CommitError> {
        const FINISH: &str = "UPDATE erased_visitors SET is_done = 1 WHERE hash = ?1 AND until_at <= ?2";
        let mut transaction = self.begin().await?;
        let query = sqlx::query(FINISH).bind(erasure.visitor.as_bytes().as_slice());
        query.bind(number(erasure.until.millis())).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// Deletes finished erasures of before a time, and the oldest ones beyond the most. Returns how many.
    /// Errors: as above.
    pub(crate) async fn forget_logged_erasures(&self, before: Time, most: usize) -> Result<u64, CommitError> {
        const FORGET: &str = "
            DELETE FROM erased_visitors
            WHERE is_done AND (until_at < ?1 OR hash IN
                (SELECT hash FROM erased_visitors ORDER BY until_at DESC LIMIT -1 OFFSET ?2))";
        let mut transaction = self.begin().await?;
        let query = sqlx::query(FORGET).bind(number(before.millis())).bind(number(most as u64));
        let done = query.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }

    /// Begins to clean the log, or goes on. Returns the position after which this node looks for erased events; none if it
    /// has not to.
    /// Errors: as above.
    pub(crate) async fn begin_cleaning(&self) -> Result<Option<u64>, CommitError> {
        const BEGIN: &str = "
            UPDATE erased_visitors
            SET cleaning = min(ifnull(cleaning, clean_after), ifnull(clean_after, cleaning)), clean_after = NULL
            WHERE clean_after IS NOT NULL";
        const FIRST: &str = "SELECT min(cleaning) FROM erased_visitors";
        let mut transaction = self.begin().await?;
        sqlx::query(BEGIN).execute(&mut *transaction).await?;
        let first: Option<i64> = sqlx::query_scalar(FIRST).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(first.and_then(|first| first.try_into().ok()))
    }

    /// Records that the log is clean up to a position; without one, that the cleaning has ended.
    /// Errors: as above.
    pub(crate) async fn cleaned(&self, position: Option<u64>) -> Result<(), CommitError> {
        const CLEANED: &str = "
            UPDATE erased_visitors SET cleaning = ?1 WHERE cleaning IS NOT NULL AND (?1 IS NULL OR cleaning < ?1)";
        let mut transaction = self.begin().await?;
        sqlx::query(CLEANED).bind(position.map(number)).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// Finds the visitors with these hashes.
    /// Errors: the database failed.
    pub(crate) async fn visitors_with(
        &self,
        hashes: &BTreeSet<VisitorHash>,
        hash: impl Fn(&str) -> VisitorHash,
    ) -> Result<BTreeMap<VisitorHash, VisitorId>, LifecycleError> {
        const VISITORS: &str = "
            SELECT number, text FROM visitors WHERE number > ?1 AND text IS NOT NULL ORDER BY number LIMIT ?2";
        const HELD: &str = "SELECT DISTINCT visitor FROM seats";
        let held: Vec<String> = sqlx::query_scalar(HELD).fetch_all(&mut *self.read().await?).await?;
        let mut found = BTreeMap::new();
        let mut add = |text: String| {
            let hash = hash(&text);
            if hashes.contains(&hash)
                && let Ok(visitor) = VisitorId::try_from(text)
            {
                found.insert(hash, visitor);
            }
        };
        held.into_iter().for_each(&mut add);
        let mut after: DictionaryId = 0;
        loop {
            let page = sqlx::query_as(VISITORS).bind(after).bind(VISITORS_PER_PAGE);
            let page: Vec<(DictionaryId, String)> = page.fetch_all(&mut *self.read().await?).await?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            after = *last;
            page.into_iter().map(|(_, text)| text).for_each(&mut add);
        }
    }
}
