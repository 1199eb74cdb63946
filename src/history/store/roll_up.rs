//! Applies the changes of events to the rollups that exist.
//!
//! Rollups change with the raw rows only, in the same transaction and after them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use roaring::RoaringBitmap;
use sqlx::SqliteConnection;
use strum::VariantArray;

use super::partition::Partitions;
use super::{dictionary, dimensions, months, read, rollups};
use crate::history::calendar::{Level, Month};
use crate::history::event::Batch;
use crate::history::rollup::{ALL_ROOMS, Appearance, DictionaryId, RollupDelta, RollupKey};
use crate::protocol::Time;

/// Applies `delta` to the rollups, after the raw rows, and returns the changed rollups of page views and watch
/// sessions.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    delta: &RollupDelta,
) -> Result<BTreeSet<RollupKey>, sqlx::Error> {
    let retained = RetainedRollups { quarters_from: quarters_from(connection).await?, partitions };
    let removed = removed_visitors(connection, &retained, delta.removed().collect()).await?;
    let activity = delta.activity(|level, at| retained.has(level, at));
    rollups::change_activity(connection, &activity, &removed).await?;
    rollups::change_presence(connection, &delta.presence(|level, at| retained.has(level, at))).await?;
    // All levels of dimensions exist, so that a list of a long period reads few rows.
    let is_retained = |level, at| level != Level::Quarter || at >= retained.quarters_from;
    dimensions::add(connection, dimensions::TABLE, &delta.dimensions(is_retained)).await?;
    Ok(activity.into_keys().chain(removed.into_keys()).collect())
}

/// Subtracts erased events from the rollups, after the raw rows, and returns the changed rollups of page views and
/// watch sessions. No value that only they had is left, also in folded months, which are rebuilt later.
pub(super) async fn erase(
    connection: &mut SqliteConnection,
    events: &Batch,
) -> Result<BTreeSet<RollupKey>, sqlx::Error> {
    const UNSETTLE: &str = "UPDATE months SET settled = NULL WHERE month = ?1 AND folded = 1";
    let partitions = Partitions::read(connection).await?;
    let mut ids = dictionary::find(connection, &[events]).await?;
    let mut delta = RollupDelta::default();
    delta.subtract(events, &ids);
    let changed = apply(connection, &partitions, &delta).await?;

    let folded: Vec<Month> = months::folded(connection).await?;
    let mut events = events.clone();
    events.page_views.retain(|view| folded.contains(&Month::of(view.at)));
    events.watches.retain(|watch| folded.contains(&Month::of(watch.started_at)));
    if !events.is_empty() {
        ids.rules.months.clear();
        let mut delta = RollupDelta::default();
        delta.subtract(&events, &ids);
        dimensions::subtract_folded(connection, &delta.dimensions(|_, _| true)).await?;
        for month in events.months() {
            sqlx::query(UNSETTLE).bind(month.to_string()).execute(&mut *connection).await?;
        }
    }
    Ok(changed)
}

/// Which rollups exist.
struct RetainedRollups<'a> {
    quarters_from: Time,
    partitions: &'a Partitions,
}

impl RetainedRollups<'_> {
    fn has(&self, level: Level, at: Time) -> bool {
        match level {
            Level::Quarter => at >= self.quarters_from,
            Level::Day => true,
            Level::Month => self.partitions.is_summed(Month::of(at)),
        }
    }
}

/// The start of quarter-hour rollups.
pub(super) async fn quarters_from(connection: &mut SqliteConnection) -> Result<Time, sqlx::Error> {
    let from = sqlx::query_scalar("SELECT quarters_from FROM horizon").fetch_one(connection).await?;
    Ok(Time::from_millis(from))
}

/// Returns the visitors to remove from each rollup, because their last row there was deleted.
async fn removed_visitors(
    connection: &mut SqliteConnection,
    retained: &RetainedRollups<'_>,
    appearances: Vec<Appearance>,
) -> Result<BTreeMap<RollupKey, RoaringBitmap>, sqlx::Error> {
    let mut removed = BTreeMap::<RollupKey, RoaringBitmap>::new();
    let mut candidates = BTreeMap::<Month, BTreeSet<Appearance>>::new();
    for appearance in appearances {
        candidates.entry(Month::of(appearance.at)).or_default().insert(appearance);
    }
    for (month, candidates) in candidates {
        let visitors: BTreeSet<DictionaryId> =
            candidates.iter().map(|appearance| appearance.visitor).collect();
        let is_live = retained.partitions.live.contains(&month);
        let rows = if is_live { read::appearances(connection, month, &visitors).await? } else { Vec::new() };
        let mut present = HashSet::new();
        for row in rows {
            for level in Level::VARIANTS.iter().copied() {
                present.extend(
                    [row.room, ALL_ROOMS].map(|room| (row.visitor, level, room, level.floor(row.at))),
                );
            }
        }
        for appearance in candidates {
            for (level, room) in Level::VARIANTS
                .iter()
                .copied()
                .flat_map(|level| [(level, appearance.room), (level, ALL_ROOMS)])
            {
                let at = level.floor(appearance.at);
                if retained.has(level, at) && !present.contains(&(appearance.visitor, level, room, at)) {
                    removed.entry(RollupKey { level, room, at }).or_default().insert(appearance.visitor);
                }
            }
        }
    }
    Ok(removed)
}
