//! Moves a month's raw rows to an archive, and restores them.
//!
//! The archive is complete and synced before one transaction retires the tables, and only if no row changed since the
//! archive was begun; their rows are deleted in slices afterwards. So a month's rows are always in its tables, in an archive with the right checksum, or in both. A
//! restore counts its progress in each transaction, so that an interrupted one continues.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sqlx::SqliteConnection;
use tracing::info;

use super::commit::{Merge, OldKey};
use super::months::{self, Archive, MonthState};
use super::partition::Partitions;
use super::read::Pages;
use super::{LifecycleError, Store, dictionary, month_sums, read, roll_up, used_texts};
use crate::history::archive::{ArchiveError, Archives, Draft, LINES, Source, Written, checksum, parse_line};
use crate::history::calendar::Month;
use crate::history::event::Batch;
use crate::history::ledger::Ledger;
use crate::history::record_sum::SumDelta;
use crate::history::rollup::RollupDelta;
use crate::history::sent_file::SentFile;

/// Rows per page. Few in tests, so that there are many pages.
const ROWS_PER_PAGE: u32 = if cfg!(test) { 4 } else { 2_000 };

impl Store {
    /// Moves the rows of a month to an archive, and deletes its tables in slices. A month without rows gets no archive. Returns what
    /// was written, or `None` if rows changed meanwhile and nothing was moved.
    /// Errors: the database or a file operation failed; the rows are unchanged.
    pub(crate) async fn archive(
        &self,
        month: Month,
        archives: &Archives,
    ) -> Result<Option<Written>, LifecycleError> {
        let before = months::one(&mut *self.read().await?, month).await?;
        let Some(before) = before.filter(is_whole) else { return Ok(None) };
        let mut draft = Draft::start(archives, month).await?;
        let mut pages = Pages::new(month, ROWS_PER_PAGE);
        while let Some(events) = pages.read(self).await? {
            draft = draft.add(events).await?;
        }
        let written = draft.finish().await?;
        let visitors = read::visitors(&mut *self.read().await?, month).await?;

        let mut transaction = self.begin().await?;
        let now = months::one(&mut transaction, month).await?.filter(is_whole);
        let is_same = now.is_some_and(|now| now.changes == before.changes);
        if !is_same || written.rows == 0 {
            archives.discard(month).await?;
        }
        if !is_same {
            return Ok(None);
        }
        if written.rows > 0 {
            archives.publish(month, &written.checksum).await?;
            let archive = (Archives::name(month), written.checksum.as_str());
            months::set_archive(&mut transaction, month, Some((&archive.0, archive.1))).await?;
            months::set_archived_visitors(&mut transaction, month, &visitors).await?;
        }
        Partitions::read(&mut transaction).await?.retire_tables(&mut transaction, month).await?;
        used_texts::set_sweep_due(&mut transaction).await?;
        transaction.commit().await?;
        self.drop_retired().await?;
        Ok(Some(written))
    }

    /// Completes or deletes what a crash left in the folder of archives.
    /// Errors: the database or a file operation failed.
    pub(crate) async fn recover_archives(&self, archives: &Archives) -> Result<(), LifecycleError> {
        self.accept_rewritten(archives).await?;
        let known = self.months().await?.into_iter();
        let known: BTreeMap<Month, _> =
            known.filter_map(|state| Some((state.month, state.archive?.checksum))).collect();
        for (month, checksum) in &known {
            archives.finish(*month, checksum).await?;
        }
        for month in archives.months(true).await? {
            archives.discard(month).await?;
        }
        Ok(())
    }
}

impl Store {
    /// Accepts archives with another checksum than recorded, if the ledger says that erasures rewrote them: the database
    /// was restored from an older backup.
    async fn accept_rewritten(&self, archives: &Archives) -> Result<(), LifecycleError> {
        const ACCEPT: &str = "
            UPDATE months SET checksum = ?3, restored = 0, recount = 1, record_sum = zeroblob(16),
                              record_sum_before = zeroblob(17)
            WHERE month = ?1 AND checksum = ?2";
        let ledger = Ledger::read(archives).await?;
        for state in self.months().await? {
            let Some(archive) = state.archive else { continue };
            if !ledger.has_rewritten(state.month, &archive.checksum) {
                continue;
            }
            match checksum(archives.path(&archive.name)).await {
                Ok(found) if ledger.explains(state.month, &archive.checksum, &found) => {
                    let accept = sqlx::query(ACCEPT).bind(state.month.to_string());
                    let accept = accept.bind(archive.checksum).bind(&found);
                    accept.execute(&mut *self.connection().await?).await?;
                    info!(month = %state.month, "accepted an archive that an erasure has rewritten");
                }
                Ok(_) | Err(ArchiveError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Restores the rows of an archived month from `file`, which is not deleted. Rollups count archived rows already. A
    /// row that arrived again since then was counted duplicates, so one count is subtracted.
    /// Errors: the month is not archived, the file is not its archive, or a commit failed. The month stays archived
    /// until all rows are restored.
    pub(crate) async fn restore(&self, month: Month, file: PathBuf) -> Result<(), LifecycleError> {
        let state = months::one(&mut *self.read().await?, month).await?;
        let archive = state.and_then(|state| state.archive).ok_or(LifecycleError::NotArchived(month))?;
        let found = checksum(file.clone()).await?;
        if found != archive.checksum {
            let expected = archive.checksum;
            return Err(ArchiveError::Checksum { path: file, expected, found }.into());
        }
        let mut source = Source::open(file).await?;
        let mut left = archive.restored;
        while left > 0 {
            let lines = usize::try_from(left).unwrap_or(LINES).min(LINES);
            let (rest, skipped) = source.next(lines, |_| Ok(())).await?;
            (source, left) = (rest, left - skipped.len() as u64);
            if skipped.is_empty() {
                return Err(LifecycleError::Changed(month));
            }
        }
        let mut done = archive.restored;
        loop {
            let (rest, slice) = source.next(LINES, parse_line).await?;
            source = rest;
            let lines = slice.len() as u64;
            let events = slice.into_iter().collect();
            let expected = Archive { restored: done, ..archive.clone() };
            self.restore_slice(month, &expected, &events).await?;
            done += lines;
            if lines == 0 {
                return Ok(());
            }
        }
    }

    /// Opens the archive of a month, to send it; none if the month is not archived.
    /// Errors: the archive is missing or damaged.
    pub(crate) async fn archive_of(
        &self,
        month: Month,
        archives: &Archives,
    ) -> Result<Option<SentFile>, LifecycleError> {
        let state = months::one(&mut *self.read().await?, month).await?;
        let Some(archive) = state.and_then(|state| state.archive) else { return Ok(None) };
        Ok(Some(archives.open(&archive.name, &archive.checksum).await?))
    }

    /// Restores a month from the folder of archives, if it is archived.
    /// Errors: its archive is missing or cannot be restored.
    pub(crate) async fn restore_from(&self, month: Month, archives: &Archives) -> Result<(), LifecycleError> {
        self.accept_rewritten(archives).await?;
        let state = months::one(&mut *self.read().await?, month).await?;
        let Some(archive) = state.and_then(|state| state.archive) else { return Ok(()) };
        archives.finish(month, &archive.checksum).await?;
        self.restore(month, archives.path(&archive.name)).await?;
        self.versions.change_all();
        Ok(())
    }

    /// Restores one slice, if the month's archive is still `expected`. An empty slice ends the restore.
    async fn restore_slice(
        &self,
        month: Month,
        expected: &Archive,
        events: &Batch,
    ) -> Result<(), LifecycleError> {
        while let Err(OldKey(months)) = self.try_restore_slice(month, expected, events).await? {
            self.convert(&months).await?;
        }
        Ok(())
    }

    async fn try_restore_slice(
        &self,
        month: Month,
        expected: &Archive,
        events: &Batch,
    ) -> Result<Result<(), OldKey>, LifecycleError> {
        let mut transaction = self.begin().await?;
        let state = months::one(&mut transaction, month).await?;
        if state.and_then(|state| state.archive).as_ref() != Some(expected) {
            return Err(LifecycleError::Changed(month));
        }
        let mut restored = Ok(());
        if events.is_empty() {
            Partitions::read(&mut transaction).await?.change(&mut transaction, month).await?;
            months::set_archive(&mut transaction, month, None).await?;
        } else {
            restored = restore_rows(&mut transaction, events.clone()).await?;
            if restored.is_ok() {
                months::add_restored(&mut transaction, month, events.len() as u64).await?;
            }
        }
        transaction.commit().await?;
        Ok(restored)
    }
}

/// Restores events that rollups and sums count already. Those that are in the tables too were counted twice.
async fn restore_rows(
    connection: &mut SqliteConnection,
    events: Batch,
) -> Result<Result<(), OldKey>, sqlx::Error> {
    let mut partitions = Partitions::read(connection).await?;
    let merge = Merge::find(connection, &partitions, events).await?;
    if let Some(old_key) = merge.old_key(&partitions) {
        return Ok(Err(old_key));
    }
    let ids =
        dictionary::intern(connection, &[&merge.new, &merge.known, &merge.taken, &merge.merged]).await?;
    merge.write(connection, &mut partitions, &ids).await?;
    let Merge { new, known, taken, merged, .. } = merge;
    let mut delta = RollupDelta::default();
    delta.subtract(&known, &ids);
    delta.subtract(&taken, &ids);
    delta.add(&merged, &ids);
    // A subtracted event may be the last appearance of a visitor whose rows are restored only now.
    delta.add_visitors(&new, &ids);
    roll_up::apply(connection, &partitions, &delta).await?;
    let mut sums = SumDelta::new(&partitions.partly_summed);
    sums.subtract(known);
    sums.subtract(taken);
    sums.add(merged);
    month_sums::apply(connection, sums).await?;
    Ok(Ok(()))
}

/// Whether all rows of a month are in its tables, and neither rollups nor a sum are made from them.
fn is_whole(state: &MonthState) -> bool {
    state.is_live && state.archive.is_none() && !state.needs_rebuild() && state.has_record_sum
}
