//! Archiving: a month's raw rows go into a file, and only then their tables go.
//!
//! The file is complete and on the disk before the one transaction that drops the tables, and that one
//! does so only if nothing has changed since the file was begun. So at every moment a month's rows are in its
//! tables, or in an archive whose checksum is right, or in both.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::commit::{self, Identified};
use super::months::{self, Archive, MonthState};
use super::partition::{Partitions, RowKind};
use super::read::Pages;
use super::{LifecycleError, Store, dictionary};
use crate::history::archive::{ArchiveError, Archives, Draft, LINES, Source, Written, checksum, parse_line};
use crate::history::calendar::Month;
use crate::history::event::Batch;
use crate::history::rollup::RollupDelta;

/// Rows that are read at once. Few in tests, so that there are many pages.
const ROWS_PER_PAGE: u32 = if cfg!(test) { 4 } else { 2_000 };

impl Store {
    /// Moves the rows of a month to an archive and drops its tables; a month without rows needs no
    /// archive. Says what was written; nothing, where rows changed meanwhile and all is as it was.
    ///
    /// # Errors
    /// The database or the disk did not do it; the rows are where they were.
    pub(crate) async fn archive(
        &self,
        month: Month,
        archives: &Archives,
    ) -> Result<Option<Written>, LifecycleError> {
        let mut reader = self.readers.acquire().await?;
        let Some(before) = months::one(&mut reader, month).await?.filter(is_whole) else { return Ok(None) };
        let mut draft = Draft::start(archives, month).await?;
        let mut pages = Pages::new(month, ROWS_PER_PAGE);
        while let Some(events) = pages.next(&mut reader).await? {
            draft = draft.add(events).await?;
        }
        drop(reader);
        let written = draft.finish().await?;

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
        }
        Partitions::read(&mut transaction).await?.drop_tables(&mut transaction, month).await?;
        transaction.commit().await?;
        Ok(Some(written))
    }

    /// Finishes or throws away what a crash left in the folder of archives.
    ///
    /// # Errors
    /// The database or the disk did not do it.
    pub(crate) async fn recover_archives(&self, archives: &Archives) -> Result<(), LifecycleError> {
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
    /// Brings the rows of an archived month back from `file`, which stays.
    ///
    /// # Errors
    /// The month is not archived, the file is not its archive, or the database did not take the rows. The month
    /// counts as archived until all rows are back.
    pub(crate) async fn restore(&self, month: Month, file: PathBuf) -> Result<(), LifecycleError> {
        let state = months::one(&mut *self.readers.acquire().await?, month).await?;
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

    /// Restores an archived month from the folder of archives. A month that is not archived is as it is.
    ///
    /// # Errors
    /// Its archive is missing, which says where, or cannot be restored.
    pub(crate) async fn restore_from(&self, month: Month, archives: &Archives) -> Result<(), LifecycleError> {
        let state = months::one(&mut *self.readers.acquire().await?, month).await?;
        let Some(archive) = state.and_then(|state| state.archive) else { return Ok(()) };
        archives.finish(month, &archive.checksum).await?;
        self.restore(month, archives.path(&archive.name)).await?;
        self.versions.change_all();
        Ok(())
    }

    /// Brings one slice back, if the archive is as `expected`; after the last one the month is whole.
    async fn restore_slice(
        &self,
        month: Month,
        expected: &Archive,
        events: &Batch,
    ) -> Result<(), LifecycleError> {
        let mut transaction = self.begin().await?;
        let state = months::one(&mut transaction, month).await?;
        if state.and_then(|state| state.archive).as_ref() != Some(expected) {
            return Err(LifecycleError::Changed(month));
        }
        if events.is_empty() {
            Partitions::read(&mut transaction).await?.change(&mut transaction, month).await?;
            months::set_archive(&mut transaction, month, None).await?;
        } else {
            bring_back(&mut transaction, events).await?;
            months::add_restored(&mut transaction, month, events.len() as u64).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// Puts events that count already into the tables. Those that are there too have counted twice.
async fn bring_back(connection: &mut SqliteConnection, events: &Batch) -> Result<(), sqlx::Error> {
    let mut partitions = Partitions::read(connection).await?;
    let back = Batch {
        page_views: commit::only_new(connection, &partitions, RowKind::PageViews, &events.page_views).await?,
        watches: commit::only_new(connection, &partitions, RowKind::WatchSessions, &events.watches).await?,
        samples: commit::only_new(connection, &partitions, RowKind::Presence, &events.samples).await?,
    };
    let twice = Batch {
        page_views: without(&events.page_views, &back.page_views),
        watches: without(&events.watches, &back.watches),
        samples: without(&events.samples, &back.samples),
    };
    let ids = dictionary::intern(connection, &[events]).await?;
    commit::insert_all(connection, &mut partitions, &back, &ids).await?;
    let mut delta = RollupDelta::default();
    delta.take(&twice, &ids);
    // What was taken back may have been the last trace of a visitor whose rows come only now.
    delta.meet(&back, &ids);
    commit::roll_up(connection, &partitions, &delta).await?;
    // Of a watch session both may know something.
    commit::store(connection, &Batch { watches: twice.watches, ..Batch::default() }).await?;
    Ok(())
}

fn without<T: Identified>(all: &[T], some: &[T]) -> Vec<T> {
    let some: HashSet<Uuid> = some.iter().map(Identified::id).collect();
    all.iter().filter(|event| !some.contains(&event.id())).cloned().collect()
}

/// Whether all rows are in the tables.
fn is_whole(state: &MonthState) -> bool {
    state.is_live && state.archive.is_none()
}
