//! Facts out, a month and a page at a time, for exports.
//!
//! Every page is a read of its own, so that a long export keeps no state of the file alive.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, SqlitePool};

use super::partition::{Kind, Partitions};
use super::{Store, read};
use crate::history::calendar::Month;
use crate::history::event::Batch;
use crate::history::stats::ReadError;

/// Facts that are read at once.
const ROWS_PER_PAGE: u32 = 5_000;

/// The facts of a month: page views, then watch sessions, then censuses, each by their ids.
#[derive(Debug)]
pub(crate) struct Facts {
    readers: SqlitePool,
    pages: read::Pages,
}

impl Facts {
    /// The next ones, or none when there are no more.
    ///
    /// # Errors
    /// The database did not answer.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, ReadError> {
        let mut connection = self.readers.acquire().await?;
        Ok(self.pages.next(&mut connection).await?)
    }
}

impl Store {
    /// The months whose facts are in the database.
    ///
    /// # Errors
    /// The database did not answer.
    pub(crate) async fn live_months(&self) -> Result<BTreeSet<Month>, ReadError> {
        let mut connection = self.readers.acquire().await?;
        Ok(Partitions::read(&mut connection).await?.live)
    }

    /// How many facts there are in a month, which is in the database.
    ///
    /// # Errors
    /// The database did not answer.
    pub(crate) async fn count(&self, month: Month) -> Result<u64, ReadError> {
        let counts = Kind::ALL.map(|kind| format!("(SELECT count(*) FROM {})", kind.table(month)));
        let statement = format!("SELECT {}", counts.join(" + "));
        Ok(sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&self.readers).await?)
    }

    /// Reads the facts of a month, which is in the database.
    #[must_use]
    pub(crate) fn facts(&self, month: Month) -> Facts {
        Facts { readers: self.readers.clone(), pages: read::Pages::new(month, ROWS_PER_PAGE) }
    }
}
