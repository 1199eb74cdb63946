//! Erases a visitor from raw rows, rollups, archives and the dictionary.
//!
//! Rows refer to a visitor by dictionary id, so the visitor's id is stored in one place, which is overwritten last.
//! Until then an interrupted erasure can be continued by a retry. At the end, free pages and the write-ahead log, which
//! may have copies, are returned to the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use sqlx::SqliteConnection;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use super::dictionary::{self, Dictionary};
use super::months::{self, Archive, MonthRows, MonthState};
use super::partition::{Partitions, RowKind};
use super::read::{self, Pages};
use super::references::{self, References};
use super::visitor_data::{visitor_event, visitor_rows};
use super::{LifecycleError, Store, insert, roll_up};
use crate::history::archive::{ArchiveError, Archives, Draft, LINES, Source};
use crate::history::calendar::Month;
use crate::history::event::Batch;
use crate::history::rollup::{DictionaryId, RollupKey};
use crate::protocol::VisitorId;

/// Rows per transaction. Few in tests, so that there are many transactions.
const ROWS_PER_SLICE: u32 = if cfg!(test) { 3 } else { 2_000 };

/// How long an erasure waits for readers of the write-ahead log.
const READERS_PATIENCE: Duration = Duration::from_secs(3);

/// The result of an erasure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Erased {
    /// Page views in the tables.
    pub page_views: u64,
    /// Watch sessions in the tables.
    pub watch_sessions: u64,
    /// Changed rollups.
    pub rollups: usize,
    /// Deleted lines of archives.
    pub archives: Vec<MonthRows>,
    /// Whether the write-ahead log has no copy left. If not, the next maintenance run truncates it.
    #[serde(skip)]
    pub wal_truncated: bool,
}

impl Erased {
    /// Whether nothing was erased.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self { wal_truncated: self.wal_truncated, ..Self::default() }
    }
}

impl Store {
    /// Erases a visitor. Does nothing for an unknown visitor.
    /// Errors: the database or a file operation failed, or an archive is missing. A retry continues.
    pub(crate) async fn erase(
        &self,
        visitor: &VisitorId,
        archives: &Archives,
    ) -> Result<Erased, LifecycleError> {
        self.recover_archives(archives).await?;
        let mut reader = self.read().await?;
        let number = dictionary::number(&mut reader, Dictionary::Visitors, visitor.as_str()).await?;
        drop(reader);
        let mut erased = match number {
            Some(number) => Eraser::new(self, archives, visitor, number).run().await?,
            None => Erased::default(),
        };
        self.versions.change_all();
        let delete_holds = sqlx::query("DELETE FROM seats WHERE visitor = ?1").bind(visitor.as_str());
        delete_holds.execute(&mut *self.connection().await?).await?;
        // The tables that were converted or rewritten still have the visitor's rows.
        self.drop_retired().await?;
        self.vacuum().await?;
        erased.wal_truncated = self.truncate_log().await?;
        Ok(erased)
    }

    /// Truncates the write-ahead log, and waits for its readers up to a limit.
    async fn truncate_log(&self) -> Result<bool, LifecycleError> {
        let deadline = Instant::now() + READERS_PATIENCE;
        loop {
            match self.checkpoint().await? {
                true => return Ok(true),
                false if Instant::now() > deadline => return Ok(false),
                false => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// An erasure in progress.
struct Eraser<'a> {
    store: &'a Store,
    archives: &'a Archives,
    visitor: &'a VisitorId,
    number: DictionaryId,
    erased: Erased,
    /// Changed rollups.
    rollups: BTreeSet<RollupKey>,
    /// The change counter of each month in which the visitor has no rows left.
    clean: BTreeMap<Month, i64>,
}

impl<'a> Eraser<'a> {
    fn new(store: &'a Store, archives: &'a Archives, visitor: &'a VisitorId, number: DictionaryId) -> Self {
        let (rollups, clean) = (BTreeSet::new(), BTreeMap::new());
        Self { store, archives, visitor, number, erased: Erased::default(), rollups, clean }
    }

    async fn run(mut self) -> Result<Erased, LifecycleError> {
        let months = self.unsplit_months().await?;
        // Checked first: if an archive is missing, nothing is changed.
        for archive in months.iter().filter_map(|state| state.archive.as_ref()) {
            Source::open(self.archives.path(&archive.name)).await?;
        }
        for state in &months {
            if let Some(archive) = &state.archive {
                self.erase_archive(state.month, archive).await?;
            }
        }
        self.erase_remaining_files(&months).await?;
        for state in months.iter().filter(|state| state.is_live) {
            self.erase_month(state.month).await?;
        }
        self.erase_texts().await?;
        self.erased.rollups = self.rollups.len();
        Ok(self.erased)
    }

    /// Returns all months, after restoring those that are both in tables and in an archive.
    async fn unsplit_months(&self) -> Result<Vec<MonthState>, LifecycleError> {
        let both = self.store.months().await?.into_iter();
        for state in both.filter(|state| state.is_live && state.archive.is_some()) {
            self.store.restore_from(state.month, self.archives).await?;
        }
        self.store.months().await
    }

    /// Rewrites an archive without the visitor's lines. The database records the new checksum before the rename, so
    /// that recovery after a crash can decide by the checksum.
    async fn erase_archive(&mut self, month: Month, archive: &Archive) -> Result<(), LifecycleError> {
        let path = self.archives.path(&archive.name);
        let (rows, found) = visitor_rows(path.clone(), self.visitor).await?;
        if found != archive.checksum {
            let expected = archive.checksum.clone();
            return Err(ArchiveError::Checksum { path, expected, found }.into());
        }
        if rows.is_empty() {
            return Ok(());
        }
        let checksum = self.draft_without(month, path).await?;
        let mut transaction = self.store.begin().await?;
        let now = months::one(&mut transaction, month).await?.and_then(|state| state.archive);
        if now.as_ref() != Some(archive) {
            return Err(LifecycleError::Changed(month));
        }
        self.subtract(&mut transaction, &rows).await?;
        months::set_archive(&mut transaction, month, Some((&archive.name, &checksum))).await?;
        transaction.commit().await?;
        self.archives.publish(month, &checksum).await?;
        self.erased.archives.push(MonthRows { month, rows: rows.len() as u64 });
        Ok(())
    }

    /// Rewrites archive files that remained after a restore. Their rows are in the tables and are counted there.
    async fn erase_remaining_files(&mut self, months: &[MonthState]) -> Result<(), LifecycleError> {
        for month in self.archives.months(false).await? {
            if months.iter().any(|state| state.month == month && state.archive.is_some()) {
                continue;
            }
            let path = self.archives.path(&Archives::name(month));
            let (rows, _) = visitor_rows(path.clone(), self.visitor).await?;
            if !rows.is_empty() {
                let checksum = self.draft_without(month, path).await?;
                self.archives.publish(month, &checksum).await?;
            }
        }
        Ok(())
    }

    /// Writes the draft of an archive without the visitor's lines, and returns its checksum.
    async fn draft_without(&self, month: Month, path: PathBuf) -> Result<String, ArchiveError> {
        let mut source = Source::open(path).await?;
        let mut draft = Draft::start(self.archives, month).await?;
        loop {
            let visitor = self.visitor.clone();
            let read = move |line: &str| Ok((line.to_owned(), visitor_event(line, &visitor)?.is_empty()));
            let (rest, lines) = source.next(LINES, read).await?;
            source = rest;
            if lines.is_empty() {
                return Ok(draft.finish().await?.checksum);
            }
            let others = lines.into_iter().filter(|(_, is_other)| *is_other);
            draft = draft.add_lines(others.map(|(line, _)| line).collect()).await?;
        }
    }

    /// Deletes the visitor's rows of a month, in several transactions.
    async fn erase_month(&mut self, month: Month) -> Result<(), LifecycleError> {
        self.store.convert(&BTreeSet::from([month])).await?;
        let state = months::one(&mut *self.store.read().await?, month).await?;
        self.clean.extend(state.map(|state| (month, state.changes)));
        let mut pages = Pages::of_visitor(month, ROWS_PER_SLICE, self.number);
        while let Some(found) = pages.read(self.store).await? {
            let mut transaction = self.store.begin().await?;
            self.delete(&mut transaction, month, found).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Deletes those of the rows that still exist, as they are now.
    async fn delete(
        &mut self,
        connection: &mut SqliteConnection,
        month: Month,
        found: Batch,
    ) -> Result<(), sqlx::Error> {
        let rows = Batch {
            page_views: read::same(connection, month, found.page_views).await?,
            watches: read::same(connection, month, found.watches).await?,
            samples: Vec::new(),
        };
        let ids = dictionary::find(connection, &[&rows]).await?;
        let before = months::one(connection, month).await?.map(|state| state.changes);
        let mut partitions = Partitions::read(connection).await?;
        partitions.change(connection, month).await?;
        let views = read::keys(&rows.page_views, &ids);
        self.erased.page_views += insert::delete(connection, RowKind::PageViews, month, &views).await?;
        let watches = read::keys(&rows.watches, &ids);
        self.erased.watch_sessions +=
            insert::delete(connection, RowKind::WatchSessions, month, &watches).await?;
        // No other commit changed the month: this change is the only one.
        if before == self.clean.get(&month).copied() {
            self.clean.entry(month).and_modify(|changes| *changes += 1);
        }
        self.subtract(connection, &rows).await?;
        if references::are_in_rows(&rows, self.visitor) {
            partitions.rewrite(connection, month).await?;
        }
        Ok(())
    }

    /// Subtracts deleted rows from the rollups.
    async fn subtract(&mut self, connection: &mut SqliteConnection, rows: &Batch) -> Result<(), sqlx::Error> {
        self.rollups.extend(roll_up::erase(connection, rows).await?);
        Ok(())
    }

    /// Whether rows were added to the month since its last deletion.
    fn has_changed(&self, state: &MonthState) -> bool {
        state.is_live && self.clean.get(&state.month) != Some(&state.changes)
    }

    /// Overwrites the visitor's id and the texts that no other row uses. Rows that arrived meanwhile are erased first.
    async fn erase_texts(&mut self) -> Result<(), LifecycleError> {
        let (mut references, mut looked_at) = (References::default(), BTreeMap::new());
        references.find(&mut *self.store.read().await?, self.visitor).await?;
        for state in self.store.months().await? {
            references.look_in(&mut *self.store.read().await?, state.month).await?;
            looked_at.insert(state.month, state.changes);
        }
        for state in self.store.months().await? {
            if self.has_changed(&state) {
                self.erase_month(state.month).await?;
            }
        }
        let mut transaction = self.store.begin().await?;
        references.find(&mut transaction, self.visitor).await?;
        for state in months::all(&mut transaction).await? {
            let has_changed = self.has_changed(&state);
            if has_changed {
                let mut pages = Pages::of_visitor(state.month, ROWS_PER_SLICE, self.number);
                while let Some(found) = pages.next(&mut transaction).await? {
                    self.delete(&mut transaction, state.month, found).await?;
                }
            }
            if has_changed || looked_at.get(&state.month) != Some(&state.changes) {
                references.look_in(&mut transaction, state.month).await?;
            }
        }
        references.overwrite_unused(&mut transaction).await?;
        dictionary::overwrite(&mut transaction, Dictionary::Visitors, &[self.number]).await?;
        transaction.commit().await?;
        Ok(())
    }
}
