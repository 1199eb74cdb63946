//! Partitions: the tables of each month, and the views over all months.
//!
//! The transaction that needs a partition creates it. The table `months` lists all partitions.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, SqliteConnection};
use strum::{IntoStaticStr, VariantArray};

use super::slices;
use crate::history::calendar::Month;

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
                "id BLOB NOT NULL PRIMARY KEY, at INTEGER NOT NULL, room INTEGER NOT NULL,
                 visitor INTEGER NOT NULL, path INTEGER NOT NULL, title INTEGER, referrer INTEGER, props TEXT,
                 is_bot INTEGER NOT NULL"
            }
            Self::WatchSessions => {
                "id BLOB NOT NULL PRIMARY KEY, room INTEGER NOT NULL, visitor INTEGER NOT NULL,
                 content INTEGER NOT NULL, state TEXT NOT NULL, at INTEGER NOT NULL,
                 watched_ms INTEGER NOT NULL, started_at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
                 position_ms INTEGER, position_at INTEGER, duration_ms INTEGER, props TEXT, props_at INTEGER,
                 is_bot INTEGER NOT NULL"
            }
            Self::Presence => {
                // [[room, present ms, peak, joins, {"mood": ms}], …]; room 0 is the whole hub; trailing fields without
                // joins or moods are left out
                "id BLOB NOT NULL PRIMARY KEY, at INTEGER NOT NULL, samples TEXT NOT NULL"
            }
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

    /// The view over all months. Without months it has the columns and no rows.
    fn view(self, months: &BTreeSet<Month>) -> String {
        let names = self.columns().split(',').filter_map(|column| column.split_whitespace().next());
        let names: Vec<&str> = names.collect();
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

/// The partitions at some point of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Partitions {
    /// Months with tables.
    pub(super) live: BTreeSet<Month>,
    /// Months with month rollups, complete or in progress. Commits change these too.
    summed: BTreeSet<Month>,
}

impl Partitions {
    /// Reads the partitions.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        const MONTHS: &str = "SELECT month, is_live, summed <> 'no' FROM months";
        let rows: Vec<(String, bool, bool)> = sqlx::query_as(MONTHS).fetch_all(connection).await?;
        let mut partitions = Self::default();
        for (month, is_live, is_summed) in rows {
            let month: Month = month.parse().map_err(|bad| sqlx::Error::Decode(Box::new(bad)))?;
            partitions.live.extend(is_live.then_some(month));
            partitions.summed.extend(is_summed.then_some(month));
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
            INSERT INTO months (month, changes) VALUES (?1, 1)
            ON CONFLICT DO UPDATE SET is_live = 1, changes = changes + 1";
        sqlx::query(COUNT).bind(month.to_string()).execute(&mut *connection).await?;
        if self.live.insert(month) {
            for kind in RowKind::VARIANTS {
                let table =
                    format!("CREATE TABLE {} ({}) {}", kind.table(month), kind.columns(), kind.options());
                sqlx::query(AssertSqlSafe(table)).execute(&mut *connection).await?;
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
        const DROPPED: &str = "UPDATE months SET is_live = 0 WHERE month = ?1";
        if self.live.remove(&month) {
            self.make_views(connection).await?;
            for kind in RowKind::VARIANTS {
                slices::retire(connection, &kind.table(month)).await?;
            }
        }
        sqlx::query(DROPPED).bind(month.to_string()).execute(connection).await?;
        Ok(())
    }

    /// Rewrites the tables of `month`, so that no deleted data is left in them: a page that SQLite has reused may keep
    /// pieces of its earlier content.
    pub(super) async fn rewrite(
        &self,
        connection: &mut SqliteConnection,
        month: Month,
    ) -> Result<(), sqlx::Error> {
        // SQLite renames no table while a view refers to a missing one.
        Self::default().make_views(connection).await?;
        for kind in RowKind::VARIANTS {
            let table = kind.table(month);
            for statement in [
                format!("CREATE TABLE {table}_new ({}) {}", kind.columns(), kind.options()),
                format!("INSERT INTO {table}_new SELECT * FROM {table} ORDER BY id"),
                format!("DROP TABLE {table}"),
                format!("ALTER TABLE {table}_new RENAME TO {table}"),
            ] {
                sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await?;
            }
        }
        self.make_views(connection).await
    }

    async fn make_views(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
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
