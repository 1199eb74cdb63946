//! One transaction: facts that are new, and the rollups that they change.
//!
//! Only what changes the raw rows counts: a page view or a census whose id is not stored yet, and
//! of a watch session the difference between what it was and what it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use roaring::RoaringBitmap;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::insert::{self, Fact};
use super::partition::{Kind, Partitions};
use super::{dictionary, read, rollups};
use crate::history::calendar::{Level, Month};
use crate::history::event::{Batch, Census, PageViewFact, WatchFact};
use crate::history::rollup::{ALL_ROOMS, Key, Number, Numbers, Tally, Trace};
use crate::protocol::{RoomId, Time};

/// What a transaction changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Page views that were not stored before.
    pub page_views: usize,
    /// Watch sessions that were not stored before, or not like this.
    pub watch_sessions: usize,
    /// Censuses that were not stored before.
    pub censuses: usize,
    /// The rooms whose figures changed.
    pub rooms: BTreeSet<RoomId>,
}

impl Changes {
    /// Whether everything was stored before.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.page_views + self.watch_sessions + self.censuses == 0
    }
}

/// Stores what is new in `batch`, inside the transaction that `connection` is in.
pub(super) async fn store(connection: &mut SqliteConnection, batch: &Batch) -> Result<Changes, sqlx::Error> {
    let mut partitions = Partitions::read(connection).await?;
    let views = only_new(connection, &partitions, Kind::PageViews, &batch.page_views).await?;
    let censuses = only_new(connection, &partitions, Kind::Presence, &batch.censuses).await?;
    let mut watches = merged(batch.watches.iter().cloned());
    let stored = stored_watches(connection, &partitions, watches.keys().copied().collect()).await?;
    for (_, old) in &stored {
        if let Some(new) = watches.remove(&old.id) {
            watches.insert(old.id, old.clone().merge(new));
        }
    }
    let is_same = |old: &WatchFact| watches.get(&old.id) == Some(old);
    let (same, changed): (Vec<_>, Vec<_>) = stored.into_iter().partition(|(_, old)| is_same(old));
    for (_, old) in same {
        watches.remove(&old.id);
    }
    let months = changed.iter().map(|(month, _)| *month).collect::<Vec<_>>();
    let taken = Batch { watches: changed.into_iter().map(|(_, old)| old).collect(), ..Batch::default() };
    let added = Batch { page_views: views, watches: watches.into_values().collect(), censuses };

    let numbers = dictionary::intern(connection, &[&taken, &added]).await?;
    for (old, month) in taken.watches.iter().zip(months) {
        // It may have started in another month than was known.
        partitions.change(connection, month).await?;
        insert::delete(connection, Kind::WatchSessions, month, &[old.id]).await?;
    }
    insert_all(connection, &mut partitions, &added, &numbers).await?;
    let mut tally = Tally::default();
    tally.take(&taken, &numbers);
    tally.add(&added, &numbers);
    roll_up(connection, &partitions, &tally).await?;
    Ok(Changes {
        page_views: added.page_views.len(),
        watch_sessions: added.watches.len(),
        censuses: added.censuses.len(),
        rooms: rooms(&[&taken, &added]),
    })
}

fn rooms(changed: &[&Batch]) -> BTreeSet<RoomId> {
    let views = changed.iter().flat_map(|batch| &batch.page_views).map(|view| &view.who.room);
    let watches = changed.iter().flat_map(|batch| &batch.watches).map(|watch| &watch.who.room);
    let censuses = changed.iter().flat_map(|batch| &batch.censuses).flat_map(|census| census.rooms.keys());
    views.chain(watches).chain(censuses).cloned().collect()
}

/// Writes facts that are not stored to the tables of their months.
pub(super) async fn insert_all(
    connection: &mut SqliteConnection,
    partitions: &mut Partitions,
    facts: &Batch,
    numbers: &Numbers,
) -> Result<(), sqlx::Error> {
    for (month, views) in by_month(&facts.page_views, numbers, |view| view.at) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &Kind::PageViews.table(month), &views).await?;
    }
    for (month, watches) in by_month(&facts.watches, numbers, |watch| watch.started_at) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &Kind::WatchSessions.table(month), &watches).await?;
    }
    for (month, censuses) in by_month(&facts.censuses, numbers, |census| census.at) {
        partitions.change(connection, month).await?;
        insert::rows(connection, &Kind::Presence.table(month), &censuses).await?;
    }
    Ok(())
}

/// Brings what `tally` changes to the rollups, and says which ones of page views and watch sessions. The raw
/// rows have changed before.
pub(super) async fn roll_up(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    tally: &Tally,
) -> Result<BTreeSet<Key>, sqlx::Error> {
    let kept = Kept { quarters_from: quarters_from(connection).await?, partitions };
    let gone = gone(connection, &kept, tally.traces().collect()).await?;
    let activity = tally.activity(|level, at| kept.has(level, at));
    rollups::change_activity(connection, &activity, &gone).await?;
    rollups::change_presence(connection, &tally.presence(|level, at| kept.has(level, at))).await?;
    Ok(activity.into_keys().chain(gone.into_keys()).collect())
}

/// Which rollups there are.
struct Kept<'a> {
    quarters_from: Time,
    partitions: &'a Partitions,
}

impl Kept<'_> {
    fn has(&self, level: Level, at: Time) -> bool {
        match level {
            Level::Quarter => at >= self.quarters_from,
            Level::Day => true,
            Level::Month => self.partitions.is_summed(Month::of(at)),
        }
    }
}

/// From when on there are rollups of quarter hours.
pub(in crate::history) async fn quarters_from(
    connection: &mut SqliteConnection,
) -> Result<Time, sqlx::Error> {
    let from = sqlx::query_scalar("SELECT quarters_from FROM horizon").fetch_one(connection).await?;
    Ok(Time::from_millis(from))
}

/// Of which rollups somebody is no longer part, because the last row there was taken back.
async fn gone(
    connection: &mut SqliteConnection,
    kept: &Kept<'_>,
    traces: Vec<Trace>,
) -> Result<BTreeMap<Key, RoaringBitmap>, sqlx::Error> {
    let mut gone = BTreeMap::<Key, RoaringBitmap>::new();
    let mut suspects = BTreeMap::<Month, BTreeSet<Trace>>::new();
    for trace in traces {
        suspects.entry(Month::of(trace.at)).or_default().insert(trace);
    }
    for (month, suspects) in suspects {
        let visitors: BTreeSet<Number> = suspects.iter().map(|trace| trace.visitor).collect();
        let is_live = kept.partitions.live.contains(&month);
        let rows = if is_live { read::traces(connection, month, &visitors).await? } else { Vec::new() };
        let mut present = HashSet::new();
        for row in rows {
            for level in Level::ALL {
                present.extend(
                    [row.room, ALL_ROOMS].map(|room| (row.visitor, level, room, level.floor(row.at))),
                );
            }
        }
        for trace in suspects {
            for (level, room) in
                Level::ALL.into_iter().flat_map(|level| [(level, trace.room), (level, ALL_ROOMS)])
            {
                let at = level.floor(trace.at);
                if kept.has(level, at) && !present.contains(&(trace.visitor, level, room, at)) {
                    gone.entry(Key { level, room, at }).or_default().insert(trace.visitor);
                }
            }
        }
    }
    Ok(gone)
}

/// Facts whose id is neither stored nor met before in the batch, in the order of their ids, which is the
/// order of the tables.
pub(super) async fn only_new<T: Identified>(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    kind: Kind,
    facts: &[T],
) -> Result<Vec<T>, sqlx::Error> {
    let mut new: Vec<&T> = facts.iter().collect();
    // Stable, so that of two facts with one id the first one holds.
    new.sort_by_key(|fact| fact.id());
    new.dedup_by_key(|fact| fact.id());
    for month in &partitions.live {
        let ids: Vec<Uuid> = new.iter().map(|fact| fact.id()).collect();
        let known: HashSet<usize> = read::known(connection, kind, *month, &ids).await?.into_iter().collect();
        let mut places = 0..;
        new.retain(|_| places.next().is_none_or(|place| !known.contains(&place)));
    }
    Ok(new.into_iter().cloned().collect())
}

/// A fact that has an id.
pub(super) trait Identified: Clone {
    /// Its id.
    fn id(&self) -> Uuid;
}

impl Identified for PageViewFact {
    fn id(&self) -> Uuid {
        self.id
    }
}

impl Identified for WatchFact {
    fn id(&self) -> Uuid {
        self.id
    }
}

impl Identified for Census {
    fn id(&self) -> Uuid {
        self.id
    }
}

/// All that is told of each watch session.
fn merged(watches: impl Iterator<Item = WatchFact>) -> HashMap<Uuid, WatchFact> {
    let mut all = HashMap::<Uuid, WatchFact>::new();
    for watch in watches {
        let merged = match all.remove(&watch.id) {
            Some(other) => other.merge(watch),
            None => watch,
        };
        all.insert(merged.id, merged);
    }
    all
}

/// What is stored of these watch sessions, and in which month.
async fn stored_watches(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    mut ids: Vec<Uuid>,
) -> Result<Vec<(Month, WatchFact)>, sqlx::Error> {
    ids.sort();
    let mut stored = Vec::new();
    for month in &partitions.live {
        let known = read::known(connection, Kind::WatchSessions, *month, &ids).await?;
        let known: Vec<Uuid> = known.into_iter().filter_map(|place| ids.get(place).copied()).collect();
        if !known.is_empty() {
            let rows = read::watches_by_id(connection, *month, &known).await?;
            stored.extend(rows.into_iter().map(|row| (*month, row)));
        }
    }
    Ok(stored)
}

fn by_month<'a, T>(
    facts: &'a [T],
    numbers: &'a Numbers,
    at: impl Fn(&T) -> Time,
) -> BTreeMap<Month, Vec<Fact<'a, T>>> {
    let mut months = BTreeMap::<Month, Vec<Fact<T>>>::new();
    for fact in facts {
        months.entry(Month::of(at(fact))).or_default().push(Fact(fact, numbers));
    }
    months
}
