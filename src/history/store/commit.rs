//! One commit: merges events with the stored rows and updates the rollups that they change.
//!
//! Rollups change with the raw rows only: by an event of a new identity, and by the difference between the stored and the
//! merged row of a known one.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::insert::{self, EventRow};
use super::partition::{Partitions, RowKind};
use super::read::StoredEvent;
use super::{dictionary, month_sums, read, roll_up};
use crate::history::calendar::Month;
use crate::history::event::{Batch, PageViewEvent, TotalSample, WatchEvent, merged};
use crate::history::record_sum::SumDelta;
use crate::history::rollup::{DictionaryIds, RollupDelta};
use crate::protocol::{RoomId, Time};

/// The changes of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New or changed page views.
    pub page_views: usize,
    /// New or changed watch sessions.
    pub watch_sessions: usize,
    /// New or changed presence samples.
    pub samples: usize,
    /// The rooms with changed figures.
    pub rooms: BTreeSet<RoomId>,
    /// The starts of the days of UTC with changed figures.
    pub days: BTreeSet<Time>,
}

impl Changes {
    /// Whether nothing changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.page_views + self.watch_sessions + self.samples == 0
    }
}

/// The tables of these months have the key of an older version, and must be converted first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldKey(pub(super) BTreeSet<Month>);

/// Stores the events of `batch` in the current transaction, or writes nothing.
pub(super) async fn store(
    connection: &mut SqliteConnection,
    batch: &Batch,
) -> Result<Result<Changes, OldKey>, sqlx::Error> {
    let mut partitions = Partitions::read(connection).await?;
    let merge = Merge::find(connection, &partitions, batch.clone()).await?;
    if let Some(old_key) = merge.old_key(&partitions) {
        return Ok(Err(old_key));
    }
    let ids = dictionary::intern(connection, &[&merge.taken, &merge.merged, &merge.new]).await?;
    merge.write(connection, &mut partitions, &ids).await?;
    let mut delta = RollupDelta::default();
    delta.subtract(&merge.taken, &ids);
    delta.add(&merge.merged, &ids);
    delta.add(&merge.new, &ids);
    roll_up::apply(connection, &partitions, &delta).await?;
    let Merge { taken, merged, new, .. } = merge;
    let changes = Changes {
        page_views: merged.page_views.len() + new.page_views.len(),
        watch_sessions: merged.watches.len() + new.watches.len(),
        samples: merged.samples.len() + new.samples.len(),
        rooms: rooms(&[&taken, &merged, &new]),
        days: delta.days(),
    };
    let mut sums = SumDelta::new(&partitions.partly_summed);
    sums.subtract(taken);
    sums.add(merged);
    sums.add(new);
    month_sums::apply(connection, sums).await?;
    Ok(Ok(changes))
}

/// What events are to the rows that are stored.
#[derive(Debug, Default)]
pub(super) struct Merge {
    /// Events without a stored row of their identity.
    pub(super) new: Batch,
    /// The other events.
    pub(super) known: Batch,
    /// Stored rows that change.
    pub(super) taken: Batch,
    /// What they become.
    pub(super) merged: Batch,
    /// Stored rows that leave their month, by month: an earlier time counts.
    moved: BTreeMap<Month, Batch>,
}

impl Merge {
    /// Merges events with each other and with the stored rows.
    pub(super) async fn find(
        connection: &mut SqliteConnection,
        partitions: &Partitions,
        events: Batch,
    ) -> Result<Self, sqlx::Error> {
        let mut merge = Self::default();
        merge.add(Box::pin(find(connection, partitions, events.page_views)).await?);
        merge.add(Box::pin(find(connection, partitions, events.watches)).await?);
        merge.add(Box::pin(find(connection, partitions, events.samples)).await?);
        Ok(merge)
    }

    fn add<T: StoredEvent>(&mut self, found: Vec<Found<T>>) {
        let (mut new, mut known, mut taken, mut merged) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for Found { event, stored } in found {
            if stored.is_empty() {
                new.push(event);
                continue;
            }
            let rows = stored.iter().map(|(_, row)| row.clone());
            let all = rows.fold(event.clone(), T::merge);
            known.push(event);
            if stored.iter().all(|(_, row)| *row == all) && stored.len() == 1 {
                continue;
            }
            let month = Month::of(all.time());
            for (from, row) in stored {
                if from != month {
                    self.moved.entry(from).or_default().append(T::batch(vec![row.clone()]));
                }
                taken.push(row);
            }
            merged.push(all);
        }
        self.new.append(T::batch(new));
        self.known.append(T::batch(known));
        self.taken.append(T::batch(taken));
        self.merged.append(T::batch(merged));
    }

    /// The months to convert before these rows are written.
    pub(super) fn old_key(&self, partitions: &Partitions) -> Option<OldKey> {
        if partitions.old_key.is_empty() {
            return None;
        }
        let mut months: BTreeSet<Month> = self.moved.keys().copied().collect();
        months.extend(self.merged.months());
        months.extend(self.new.months());
        months.retain(|month| partitions.old_key.contains(month));
        (!months.is_empty()).then_some(OldKey(months))
    }

    /// Writes new and merged rows.
    pub(super) async fn write(
        &self,
        connection: &mut SqliteConnection,
        partitions: &mut Partitions,
        ids: &DictionaryIds,
    ) -> Result<(), sqlx::Error> {
        for (month, rows) in &self.moved {
            partitions.change(connection, *month).await?;
            delete_all::<PageViewEvent>(connection, *month, rows, ids).await?;
            delete_all::<WatchEvent>(connection, *month, rows, ids).await?;
            delete_all::<TotalSample>(connection, *month, rows, ids).await?;
        }
        insert_all(connection, partitions, &self.merged, ids).await?;
        insert_all(connection, partitions, &self.new, ids).await
    }
}

async fn delete_all<T: StoredEvent>(
    connection: &mut SqliteConnection,
    month: Month,
    rows: &Batch,
    ids: &DictionaryIds,
) -> Result<(), sqlx::Error> {
    let keys = read::keys(T::of(rows), ids);
    if !keys.is_empty() {
        insert::delete(connection, T::KIND, month, &keys).await?;
    }
    Ok(())
}

/// An event with the stored rows of its identity. There is more than one only while an archive is restored.
struct Found<T> {
    event: T,
    stored: Vec<(Month, T)>,
}

/// Merges events with each other, and finds the stored rows of their identities.
async fn find<T: StoredEvent>(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    events: Vec<T>,
) -> Result<Vec<Found<T>>, sqlx::Error> {
    let events = merged(events);
    let ids: Vec<Uuid> = events.iter().map(T::id).collect();
    let mut found: Vec<Found<T>> =
        events.into_iter().map(|event| Found { event, stored: Vec::new() }).collect();
    for month in &partitions.live {
        let known = read::known(connection, T::KIND, *month, &ids).await?;
        let known: Vec<T> =
            known.into_iter().filter_map(|index| found.get(index)).map(|found| found.event.clone()).collect();
        if known.is_empty() {
            continue;
        }
        for row in read::same(connection, *month, known).await? {
            let index = found.binary_search_by(|found| found.event.identity().cmp(&row.identity()));
            if let Some(found) = index.ok().and_then(|index| found.get_mut(index)) {
                found.stored.push((*month, row));
            }
        }
    }
    Ok(found)
}

fn rooms(changed: &[&Batch]) -> BTreeSet<RoomId> {
    let views = changed.iter().flat_map(|batch| &batch.page_views).map(|view| &view.actor.room);
    let watches = changed.iter().flat_map(|batch| &batch.watches).map(|watch| &watch.actor.room);
    let samples = changed.iter().flat_map(|batch| &batch.samples).flat_map(|total| total.rooms.keys());
    views.chain(watches).chain(samples).cloned().collect()
}

/// Puts events into the partitions of their months.
async fn insert_all(
    connection: &mut SqliteConnection,
    partitions: &mut Partitions,
    events: &Batch,
    ids: &DictionaryIds,
) -> Result<(), sqlx::Error> {
    for (month, views) in by_month(&events.page_views, ids) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &RowKind::PageViews.table(month), &views).await?;
    }
    for (month, watches) in by_month(&events.watches, ids) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &RowKind::WatchSessions.table(month), &watches).await?;
    }
    for (month, samples) in by_month(&events.samples, ids) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &RowKind::Presence.table(month), &samples).await?;
    }
    Ok(())
}

fn by_month<'a, T: StoredEvent>(
    events: &'a [T],
    ids: &'a DictionaryIds,
) -> BTreeMap<Month, Vec<EventRow<'a, T>>> {
    let mut months = BTreeMap::<Month, Vec<EventRow<T>>>::new();
    for event in events {
        months.entry(Month::of(event.time())).or_default().push(EventRow(event, ids));
    }
    months
}
