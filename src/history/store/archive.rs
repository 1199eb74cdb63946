//! Archiving: a month's raw rows go into a file, and only then their tables go.
//!
//! The file is complete and on the disk before the one transaction that drops the tables, and that one
//! does so only if nothing has changed since the file was begun. So at every moment a month's rows are in its
//! tables, or in an archive whose checksum is right, or in both.

use std::collections::BTreeMap;

use super::months::{self, MonthState};
use super::partition::Partitions;
use super::read::Pages;
use super::{LifecycleError, Store};
use crate::history::archive::{Archives, Draft, Written};
use crate::history::calendar::Month;

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
        while let Some(facts) = pages.next(&mut reader).await? {
            draft = draft.add(facts).await?;
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
    pub(crate) async fn settle(&self, archives: &Archives) -> Result<(), LifecycleError> {
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

/// Whether all rows are in the tables.
fn is_whole(state: &MonthState) -> bool {
    state.is_live && state.archive.is_none()
}
