//! Partitions: the tables of each month, and the views over all months.
//!
//! The transaction that needs a partition creates it. The table `months` lists all partitions.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, SqliteConnection};
use strum::{IntoStaticStr, VariantArray};

use super::codec::decode_error;
use super::slices;
use crate::history::calendar::Month;
use crate::history::record_sum::{self, PartlySummed};

/// The kinds of raw rows. Each has a table for each month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(super) enum RowKind {
    /// Page views.
    PageViews,
    /// Watch sessions, each merged from all its messages.
    WatchSessions,
    /// Presence samples.
    Presence,
}

impl RowKind {
    fn name(self) -> &'static str {
        self.into()
    }

    /// The columns. Rooms, visitors, paths, titles, referrers and contents are dictionary ids.
    fn columns(self) -> &'static str {
        match self {
            Self::PageViews => {
                "id BLOB NOT NULL, at INTEGER NOT NULL, room INTEGER NOT NULL,
                 visitor INTEGER NOT NULL, path INTEGER NOT NULL, title INTEGER, referrer INTEGER, props TEXT,
                 is_bot INTEGER NOT NULL"
            }
            Self::WatchSessions => {
                "id BLOB NOT NULL, room INTEGER NOT NULL, visitor INTEGER NOT NULL,
                 content INTEGER NOT NULL, state TEXT NOT NULL, at INTEGER NOT NULL,
                 watched_ms INTEGER NOT NULL, started_at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
                 position_ms INTEGER, position_at INTEGER, duration_ms INTEGER, props TEXT, props_at INTEGER,
                 is_bot INTEGER NOT NULL"
            }
            Self::Presence => {
                // [[room, present ms, peak, joins, {"mood": ms}, held ms, sits begun, sits completed, sat ms, [node, …]], …];
                // room 0 is the whole hub, and it alone has the nodes; trailing fields of zero are left out
                "id BLOB NOT NULL, at INTEGER NOT NULL, samples TEXT NOT NULL"
            }
        }
    }

    /// The columns of the primary key.
    pub(super) fn key(self) -> &'static [&'static str] {
        match self {
            Self::PageViews | Self::WatchSessions => &["id", "visitor", "room"],
            Self::Presence => &["id", "at"],
        }
    }

    /// The keys. A constraint is the index by visitor, because SQLite renames its index with the table.
    fn constraints(self) -> &'static str {
        match self {
            Self::PageViews | Self::WatchSessions => {
                "PRIMARY KEY (id, visitor, room), UNIQUE (visitor, id, room)"
            }
            Self::Presence => "PRIMARY KEY (id, at)",
        }
    }

    /// Rows larger than a quarter of a page are better in a rowid table (<https://www.sqlite.org/withoutrowid.html>,
    /// section 4).
    fn options(self) -> &'static str {
        match self {
            Self::PageViews | Self::WatchSessions => "STRICT, WITHOUT ROWID",
            Self::Presence => "STRICT",
        }
    }

    /// The name of the table for `month`.
    pub(super) fn table(self, month: Month) -> String {
        format!("{}_{}", self.name(), month.suffix())
    }

    /// The name of the table to which the rows of `month` are copied.
    pub(super) fn copy(self, month: Month) -> String {
        format!("{}_new", self.table(month))
    }

    /// The statement that creates a table, unless it exists.
    pub(super) fn create(self, table: &str) -> String {
        let (columns, constraints, options) = (self.columns(), self.constraints(), self.options());
        format!("CREATE TABLE IF NOT EXISTS {table} ({columns}, {constraints}) {options}")
    }

    /// The names of the columns.
    pub(super) fn names(self) -> Vec<&'static str> {
        self.columns().split(',').filter_map(|column| column.split_whitespace().next()).collect()
    }

    /// The view over all months. Without months it has the columns and no rows.
    fn view(self, months: &BTreeSet<Month>) -> String {
        let names = self.names();
        let tables =
            months.iter().map(|month| format!("SELECT {} FROM {}", names.join(", "), self.table(*month)));
        let tables: Vec<String> = tables.collect();
        let nulls: Vec<String> = names.iter().map(|name| format!("NULL AS {name}")).collect();
        match tables.as_slice() {
            [] => format!("SELECT {} WHERE false", nulls.join(", ")),
            tables => tables.join(" UNION ALL "),
        }
    }
}

/// A month, whether it has tables, month rollups and the old key, and how far its records are summed up.
type Row = (String, bool, bool, bool, Option<Vec<u8>>);

/// The partitions at some point of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Partitions {
    /// Months with tables.
    pub(super) live: BTreeSet<Month>,
    /// Months with month rollups, complete or in progress. Commits change these too.
    summed: BTreeSet<Month>,
    /// Live months whose tables have the key of an older version. They are [converted](super::convert) before a change.
    pub(super) old_key: BTreeSet<Month>,
    /// Months of which not all records are [summed up](super::month_sums).
    pub(super) partly_summed: PartlySummed,
}

impl Partitions {
    /// Reads the partitions.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        const MONTHS: &str = "
            SELECT month, is_live, summed <> 'no', is_live AND row_key = 0, record_sum_before FROM months";
        let rows: Vec<Row> = sqlx::query_as(MONTHS).fetch_all(connection).await?;
        let mut partitions = Self::default();
        for (month, is_live, is_summed, has_old_key, before) in rows {
            let month: Month = month.parse().map_err(|bad| sqlx::Error::Decode(Box::new(bad)))?;
            partitions.live.extend(is_live.then_some(month));
            partitions.summed.extend(is_summed.then_some(month));
            partitions.old_key.extend(has_old_key.then_some(month));
            if let Some(before) = before {
                let before = record_sum::decode(&before).map_err(decode_error)?;
                partitions.partly_summed.insert(month, before);
            }
        }
        Ok(partitions)
    }

    /// Whether commits change the month rollups of this month.
    pub(super) fn is_summed(&self, month: Month) -> bool {
        self.summed.contains(&month)
    }

    /// Increments a month's change counter, and creates its tables if they are missing.
    pub(super) async fn change(
        &mut self,
        connection: &mut SqliteConnection,
        month: Month,
    ) -> Result<(), sqlx::Error> {
        const COUNT: &str = "
            INSERT INTO months (month, changes, row_key) VALUES (?1, 1, 1)
            ON CONFLICT DO UPDATE SET is_live = 1, changes = changes + 1,
                                      row_key = CASE WHEN is_live THEN row_key ELSE 1 END";
        sqlx::query(COUNT).bind(month.to_string()).execute(&mut *connection).await?;
        if self.live.insert(month) {
            for kind in RowKind::VARIANTS {
                sqlx::query(AssertSqlSafe(kind.create(&kind.table(month)))).execute(&mut *connection).await?;
            }
            self.make_views(connection).await?;
        }
        Ok(())
    }

    /// Retires the tables of `month`.
    pub(super) async fn retire_tables(
        &mut self,
        connection: &mut SqliteConnection,
        month: Month,
    ) -> Result<(), sqlx::Error> {
        const DROPPED: &str = "UPDATE months SET is_live = 0, rewrite = 0 WHERE month = ?1";
        if self.live.remove(&month) {
            self.make_views(connection).await?;
            for kind in RowKind::VARIANTS {
                slices::retire(connection, &kind.table(month)).await?;
                // A conversion may have begun.
                slices::retire(connection, &kind.copy(month)).await?;
            }
        }
        sqlx::query(DROPPED).bind(month.to_string()).execute(connection).await?;
        Ok(())
    }

    /// Replaces the tables of `month` with their copies.
    pub(super) async fn replace(
        &self,
        connection: &mut SqliteConnection,
        month: Month,
    ) -> Result<(), sqlx::Error> {
        // SQLite renames no table while a view refers to a missing one.
        Self::default().make_views(connection).await?;
        for kind in RowKind::VARIANTS {
            let (table, copy) = (kind.table(month), kind.copy(month));
            slices::retire(connection, &table).await?;
            let rename = format!("ALTER TABLE {copy} RENAME TO {table}");
            sqlx::query(AssertSqlSafe(rename)).execute(&mut *connection).await?;
        }
        self.make_views(connection).await
    }

    /// Replaces the views by those over these months.
    pub(super) async fn make_views(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for kind in RowKind::VARIANTS {
            for statement in [
                format!("DROP VIEW IF EXISTS raw_{}", kind.name()),
                format!("CREATE VIEW raw_{} AS {}", kind.name(), kind.view(&self.live)),
            ] {
                sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}
