//! Corrects the rollups of months of which an archive lost rows that the database still counts.
//!
//! That is so after a restore from a backup that is older than an erasure: the rows are no longer in the archive, so they
//! cannot be subtracted. The month is restored, and its rollups are made equal to a recount.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;
use strum::VariantArray;

use super::read::Pages;
use super::roll_up::quarters_from;
use super::{LifecycleError, Store, dictionary, months, rollups, used_texts};
use crate::history::archive::Archives;
use crate::history::calendar::{Level, Month};
use crate::history::rollup::{ActivityRollup, RollupDelta, RollupKey};

/// Rows per page.
const ROWS_PER_PAGE: u32 = 2_000;

/// Rollups per transaction.
const ROLLUPS_PER_SLICE: usize = 50;

impl Store {
    /// Corrects the rollups of all months that need it. Those of dimensions are rebuilt when the month settles.
    /// Errors: the database failed, or an archive cannot be restored. A retry starts the month again.
    pub(super) async fn correct_rollups(&self, archives: &Archives) -> Result<(), LifecycleError> {
        const END: &str = "UPDATE months SET recount = 0, counted = X'00' WHERE month = ?1 AND changes = ?2";
        for month in months::to_recount(&mut *self.read().await?).await? {
            self.restore_from(month, archives).await?;
            loop {
                let Some(state) = months::one(&mut *self.read().await?, month).await? else { break };
                let wrong = self.wrong_rollups(month, state.is_summed).await?;
                if !self.put_rollups(month, state.changes, wrong).await? {
                    continue;
                }
                let mut transaction = self.begin().await?;
                let end = sqlx::query(END).bind(month.to_string()).bind(state.changes);
                let is_same = end.execute(&mut *transaction).await?.rows_affected() > 0;
                used_texts::set_sweep_due(&mut transaction).await?;
                transaction.commit().await?;
                if is_same {
                    break;
                }
            }
            self.versions.change_all();
        }
        Ok(())
    }

    /// Returns the rollups of a month that differ from a recount, as they should be.
    async fn wrong_rollups(
        &self,
        month: Month,
        is_summed: bool,
    ) -> Result<BTreeMap<RollupKey, ActivityRollup>, LifecycleError> {
        let (mut delta, mut pages) = (RollupDelta::default(), Pages::new(month, ROWS_PER_PAGE));
        loop {
            let mut connection = self.read().await?;
            let Some(events) = pages.next(&mut connection).await? else { break };
            delta.add(&events, &dictionary::find(&mut connection, &[&events]).await?);
            delta.clear_dimensions();
        }
        let mut connection = self.read().await?;
        let from = quarters_from(&mut connection).await?;
        let mut rollups = delta.activity(|level, at| match level {
            Level::Quarter => at >= from,
            Level::Day => true,
            Level::Month => is_summed,
        });
        let stored = stored(&mut connection, month).await?;
        for (key, stored) in stored {
            if rollups.get(&key) == Some(&stored) {
                rollups.remove(&key);
            } else {
                // An empty one is deleted.
                rollups.entry(key).or_default();
            }
        }
        Ok(rollups)
    }

    /// Stores rollups of a month in slices. Returns false if the month has changed meanwhile.
    async fn put_rollups(
        &self,
        month: Month,
        changes: i64,
        mut rollups: BTreeMap<RollupKey, ActivityRollup>,
    ) -> Result<bool, LifecycleError> {
        while !rollups.is_empty() {
            let rest = rollups.keys().nth(ROLLUPS_PER_SLICE).copied().map(|key| rollups.split_off(&key));
            let mut transaction = self.begin().await?;
            let now = months::one(&mut transaction, month).await?.map(|state| state.changes);
            if now == Some(changes) {
                rollups::put_activity(&mut transaction, &rollups).await?;
            }
            transaction.commit().await?;
            if now != Some(changes) {
                return Ok(false);
            }
            rollups = rest.unwrap_or_default();
        }
        Ok(true)
    }
}

async fn stored(
    connection: &mut SqliteConnection,
    month: Month,
) -> Result<BTreeMap<RollupKey, ActivityRollup>, sqlx::Error> {
    let (from, to) = (month.start(), month.next().start());
    let mut stored = BTreeMap::new();
    for level in Level::VARIANTS {
        for room in rollups::rooms(connection, *level, month).await? {
            stored.extend(rollups::activity_between(connection, *level, room, from, to).await?);
        }
    }
    Ok(stored)
}
