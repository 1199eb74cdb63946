//! One commit: inserts new events and updates the rollups that they change.
//!
//! Rollups change with the raw rows only: by a page view or sample with a new id, and by the difference between the
//! stored and the merged state of a watch session.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use roaring::RoaringBitmap;
use sqlx::SqliteConnection;
use strum::VariantArray;
use uuid::Uuid;

use super::insert::{self, EventRow};
use super::partition::{Partitions, RowKind};
use super::{dictionary, read, rollups};
use crate::history::calendar::{Level, Month};
use crate::history::event::{Batch, PageViewEvent, TotalSample, WatchEvent};
use crate::history::rollup::{ALL_ROOMS, Appearance, DictionaryId, DictionaryIds, RollupDelta, RollupKey};
use crate::protocol::{RoomId, Time};

/// The changes of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New page views.
    pub page_views: usize,
    /// New or changed watch sessions.
    pub watch_sessions: usize,
    /// New presence samples.
    pub samples: usize,
    /// The rooms with changed figures.
    pub rooms: BTreeSet<RoomId>,
}

impl Changes {
    /// Whether nothing changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.page_views + self.watch_sessions + self.samples == 0
    }
}

/// Stores the new events of `batch` in the current transaction.
pub(super) async fn store(connection: &mut SqliteConnection, batch: &Batch) -> Result<Changes, sqlx::Error> {
    let mut partitions = Partitions::read(connection).await?;
    let views = only_new(connection, &partitions, RowKind::PageViews, &batch.page_views).await?;
    let samples = only_new(connection, &partitions, RowKind::Presence, &batch.samples).await?;
    let mut watches = merged(batch.watches.iter().cloned());
    let stored = stored_watches(connection, &partitions, watches.keys().copied().collect()).await?;
    for (_, old) in &stored {
        if let Some(new) = watches.remove(&old.id) {
            watches.insert(old.id, old.clone().merge(new));
        }
    }
    let is_same = |old: &WatchEvent| watches.get(&old.id) == Some(old);
    let (same, changed): (Vec<_>, Vec<_>) = stored.into_iter().partition(|(_, old)| is_same(old));
    for (_, old) in same {
        watches.remove(&old.id);
    }
    let months = changed.iter().map(|(month, _)| *month).collect::<Vec<_>>();
    let taken = Batch { watches: changed.into_iter().map(|(_, old)| old).collect(), ..Batch::default() };
    let added = Batch { page_views: views, watches: watches.into_values().collect(), samples };

    let ids = dictionary::intern(connection, &[&taken, &added]).await?;
    for (old, month) in taken.watches.iter().zip(months) {
        // The merged session may have started in another month.
        partitions.change(connection, month).await?;
        insert::delete(connection, RowKind::WatchSessions, month, &[old.id]).await?;
    }
    insert_all(connection, &mut partitions, &added, &ids).await?;
    let mut delta = RollupDelta::default();
    delta.subtract(&taken, &ids);
    delta.add(&added, &ids);
    roll_up(connection, &partitions, &delta).await?;
    Ok(Changes {
        page_views: added.page_views.len(),
        watch_sessions: added.watches.len(),
        samples: added.samples.len(),
        rooms: rooms(&[&taken, &added]),
    })
}

fn rooms(changed: &[&Batch]) -> BTreeSet<RoomId> {
    let views = changed.iter().flat_map(|batch| &batch.page_views).map(|view| &view.actor.room);
    let watches = changed.iter().flat_map(|batch| &batch.watches).map(|watch| &watch.actor.room);
    let samples = changed.iter().flat_map(|batch| &batch.samples).flat_map(|total| total.rooms.keys());
    views.chain(watches).chain(samples).cloned().collect()
}

/// Inserts new events into the partitions of their months.
pub(super) async fn insert_all(
    connection: &mut SqliteConnection,
    partitions: &mut Partitions,
    events: &Batch,
    ids: &DictionaryIds,
) -> Result<(), sqlx::Error> {
    for (month, views) in by_month(&events.page_views, ids, |view| view.at) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &RowKind::PageViews.table(month), &views).await?;
    }
    for (month, watches) in by_month(&events.watches, ids, |watch| watch.started_at) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &RowKind::WatchSessions.table(month), &watches).await?;
    }
    for (month, samples) in by_month(&events.samples, ids, |total| total.at) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &RowKind::Presence.table(month), &samples).await?;
    }
    Ok(())
}

/// Applies `delta` to the rollups, after the raw rows, and returns the changed rollups of page views and watch
/// sessions.
pub(super) async fn roll_up(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    delta: &RollupDelta,
) -> Result<BTreeSet<RollupKey>, sqlx::Error> {
    let retained = RetainedRollups { quarters_from: quarters_from(connection).await?, partitions };
    let removed = removed_visitors(connection, &retained, delta.removed().collect()).await?;
    let activity = delta.activity(|level, at| retained.has(level, at));
    rollups::change_activity(connection, &activity, &removed).await?;
    rollups::change_presence(connection, &delta.presence(|level, at| retained.has(level, at))).await?;
    Ok(activity.into_keys().chain(removed.into_keys()).collect())
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
pub(in crate::history) async fn quarters_from(
    connection: &mut SqliteConnection,
) -> Result<Time, sqlx::Error> {
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

/// Returns the events whose id is neither stored nor earlier in the batch, in the order of ids, as the tables are.
pub(super) async fn only_new<T: Identified>(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    kind: RowKind,
    events: &[T],
) -> Result<Vec<T>, sqlx::Error> {
    let mut new: Vec<&T> = events.iter().collect();
    // The sort is stable: of two events with one id the first remains.
    new.sort_by_key(|event| event.id());
    new.dedup_by_key(|event| event.id());
    for month in &partitions.live {
        let ids: Vec<Uuid> = new.iter().map(|event| event.id()).collect();
        let known: HashSet<usize> = read::known(connection, kind, *month, &ids).await?.into_iter().collect();
        let mut indexes = 0..;
        new.retain(|_| indexes.next().is_none_or(|index| !known.contains(&index)));
    }
    Ok(new.into_iter().cloned().collect())
}

/// An event with an id.
pub(super) trait Identified: Clone {
    /// The event's id.
    fn id(&self) -> Uuid;
}

impl Identified for PageViewEvent {
    fn id(&self) -> Uuid {
        self.id
    }
}

impl Identified for WatchEvent {
    fn id(&self) -> Uuid {
        self.id
    }
}

impl Identified for TotalSample {
    fn id(&self) -> Uuid {
        self.id
    }
}

/// Merges the states of each watch session.
fn merged(watches: impl Iterator<Item = WatchEvent>) -> HashMap<Uuid, WatchEvent> {
    let mut all = HashMap::<Uuid, WatchEvent>::new();
    for watch in watches {
        let merged = match all.remove(&watch.id) {
            Some(other) => other.merge(watch),
            None => watch,
        };
        all.insert(merged.id, merged);
    }
    all
}

/// Returns the stored states of watch sessions, with their months.
async fn stored_watches(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    mut ids: Vec<Uuid>,
) -> Result<Vec<(Month, WatchEvent)>, sqlx::Error> {
    ids.sort();
    let mut stored = Vec::new();
    for month in &partitions.live {
        let known = read::known(connection, RowKind::WatchSessions, *month, &ids).await?;
        let known: Vec<Uuid> = known.into_iter().filter_map(|index| ids.get(index).copied()).collect();
        if !known.is_empty() {
            let rows = read::watches_by_id(connection, *month, &known).await?;
            stored.extend(rows.into_iter().map(|row| (*month, row)));
        }
    }
    Ok(stored)
}

fn by_month<'a, T>(
    events: &'a [T],
    ids: &'a DictionaryIds,
    at: impl Fn(&T) -> Time,
) -> BTreeMap<Month, Vec<EventRow<'a, T>>> {
    let mut months = BTreeMap::<Month, Vec<EventRow<T>>>::new();
    for event in events {
        months.entry(Month::of(at(event))).or_default().push(EventRow(event, ids));
    }
    months
}
