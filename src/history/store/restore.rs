//! Restoring: the rows of an archive come back into the tables of their month.
//!
//! The rollups count them already. Only a row that was told again since then, and so is in the tables, was
//! counted twice: its second count is taken back. How many lines are done is part of each transaction, so
//! that a restore that was cut short goes on where it was.

use std::collections::HashSet;
use std::path::PathBuf;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::commit::{self, Identified};
use super::months::{self, Archive};
use super::partition::{Kind, Partitions};
use super::{LifecycleError, Store, dictionary};
use crate::history::archive::{Archives, FileError, LINES, Source, checksum, fact};
use crate::history::calendar::Month;
use crate::history::event::Batch;
use crate::history::rollup::Tally;

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
            return Err(FileError::Checksum { path: file, expected, found }.into());
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
            let (rest, slice) = source.next(LINES, fact).await?;
            source = rest;
            let lines = slice.len() as u64;
            let facts = slice.into_iter().collect();
            let expected = Archive { restored: done, ..archive.clone() };
            self.restore_slice(month, &expected, &facts).await?;
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
    pub(crate) async fn reopen(&self, month: Month, archives: &Archives) -> Result<(), LifecycleError> {
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
        facts: &Batch,
    ) -> Result<(), LifecycleError> {
        let mut transaction = self.begin().await?;
        let state = months::one(&mut transaction, month).await?;
        if state.and_then(|state| state.archive).as_ref() != Some(expected) {
            return Err(LifecycleError::Changed(month));
        }
        if facts.is_empty() {
            Partitions::read(&mut transaction).await?.change(&mut transaction, month).await?;
            months::set_archive(&mut transaction, month, None).await?;
        } else {
            bring_back(&mut transaction, facts).await?;
            months::add_restored(&mut transaction, month, facts.len() as u64).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// Puts facts that count already into the tables. Those that are there too have counted twice.
async fn bring_back(connection: &mut SqliteConnection, facts: &Batch) -> Result<(), sqlx::Error> {
    let mut partitions = Partitions::read(connection).await?;
    let back = Batch {
        page_views: commit::only_new(connection, &partitions, Kind::PageViews, &facts.page_views).await?,
        watches: commit::only_new(connection, &partitions, Kind::WatchSessions, &facts.watches).await?,
        censuses: commit::only_new(connection, &partitions, Kind::Presence, &facts.censuses).await?,
    };
    let twice = Batch {
        page_views: without(&facts.page_views, &back.page_views),
        watches: without(&facts.watches, &back.watches),
        censuses: without(&facts.censuses, &back.censuses),
    };
    let numbers = dictionary::intern(connection, &[facts]).await?;
    commit::insert_all(connection, &mut partitions, &back, &numbers).await?;
    let mut tally = Tally::default();
    tally.take(&twice, &numbers);
    // What was taken back may have been the last trace of a visitor whose rows come only now.
    tally.meet(&back, &numbers);
    commit::roll_up(connection, &partitions, &tally).await?;
    // Of a watch session both may know something.
    commit::store(connection, &Batch { watches: twice.watches, ..Batch::default() }).await?;
    Ok(())
}

fn without<T: Identified>(all: &[T], some: &[T]) -> Vec<T> {
    let some: HashSet<Uuid> = some.iter().map(Identified::id).collect();
    all.iter().filter(|fact| !some.contains(&fact.id())).cloned().collect()
}
