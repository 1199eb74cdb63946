//! One commit: inserts new events and updates the rollups that they change.
//!
//! Rollups change with the raw rows only: by a page view or sample with a new id, and by the difference between the
//! stored and the merged state of a watch session.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::insert::{self, EventRow};
use super::partition::{Partitions, RowKind};
use super::{dictionary, read, roll_up};
use crate::history::calendar::Month;
use crate::history::event::{Batch, PageViewEvent, TotalSample, WatchEvent};
use crate::history::rollup::{DictionaryIds, RollupDelta};
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
    /// The starts of the days of UTC with changed figures.
    pub days: BTreeSet<Time>,
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
    roll_up::apply(connection, &partitions, &delta).await?;
    Ok(Changes {
        page_views: added.page_views.len(),
        watch_sessions: added.watches.len(),
        samples: added.samples.len(),
        rooms: rooms(&[&taken, &added]),
        days: delta.days(),
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
