//! The recount: a consistency check that computes rollups from the raw rows and compares them with the stored ones.
//!
//! One read transaction sees one snapshot, so that a hub may write meanwhile.

use std::collections::BTreeSet;
use std::fmt;

use sqlx::{Connection, SqliteConnection};
use strum::VariantArray;

use super::partition::Partitions;
use super::roll_up::quarters_from;
use super::{ReadError, Store, dictionary, months, read, rollups};
use crate::history::calendar::{Level, Month, timestamp};
use crate::history::rollup::{ActivityRollup, PresenceRollup, RollupDelta, RollupKey};
use crate::protocol::Time;

/// Raw rows per page.
const ROWS_PER_PAGE: u32 = 5_000;

/// A difference between a stored rollup and the raw rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The length of the period.
    pub level: Level,
    /// The start of the period.
    pub at: Time,
    /// The room; none for the whole hub.
    pub room: Option<String>,
    /// The part of the rollup.
    pub part: &'static str,
    /// The stored value.
    pub stored: String,
    /// The recounted value.
    pub recounted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let room = self.room.as_deref().unwrap_or("all rooms");
        write!(f, "{} {} in {room}: {} ", self.level.name(), timestamp(self.at), self.part)?;
        write!(f, "{} is stored, {} recounted", self.stored, self.recounted)
    }
}

/// The result of a recount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recount {
    /// Counted raw rows.
    pub rows: u64,
    /// Compared rollups.
    pub rollups: u64,
    /// Archived months, which are not recounted.
    pub archived: Vec<Month>,
    /// Differences.
    pub differences: Vec<Difference>,
}

impl Store {
    /// Recounts all months whose raw rows are in the database.
    ///
    /// # Errors
    /// The database failed.
    pub async fn recount(&self) -> Result<Recount, ReadError> {
        let mut connection = self.read().await?;
        let mut snapshot = connection.begin().await?;
        let mut recount = Recount::default();
        let partitions = Partitions::read(&mut snapshot).await?;
        let archived = months::archived(&mut snapshot).await?;
        let mut months = partitions.live.clone();
        months.extend(rolled_up_months(&mut snapshot).await?);
        for month in months {
            if archived.contains(&month) {
                recount.archived.push(month);
            } else {
                recount_month(&mut snapshot, &partitions, month, &mut recount).await?;
            }
        }
        Ok(recount)
    }
}

async fn rolled_up_months(connection: &mut SqliteConnection) -> Result<BTreeSet<Month>, sqlx::Error> {
    const DAYS: &str = "
        SELECT DISTINCT at FROM activity_rollups WHERE level = 'day'
        UNION SELECT DISTINCT at FROM presence_rollups WHERE level = 'day'";
    let days: Vec<u64> = sqlx::query_scalar(DAYS).fetch_all(connection).await?;
    Ok(days.into_iter().map(|day| Month::of(Time::from_millis(day))).collect())
}

async fn recount_month(
    connection: &mut SqliteConnection,
    partitions: &Partitions,
    month: Month,
    recount: &mut Recount,
) -> Result<(), sqlx::Error> {
    let mut delta = RollupDelta::default();
    if partitions.live.contains(&month) {
        let mut page = read::Pages::new(month, ROWS_PER_PAGE);
        while let Some(batch) = page.next(connection).await? {
            recount.rows += batch.len() as u64;
            delta.add(&batch, &dictionary::find(connection, &[&batch]).await?);
        }
    }
    let quarters_from = quarters_from(connection).await?;
    let is_summed = months::one(connection, month).await?.is_some_and(|state| state.is_summed);
    let is_retained = |level: Level, at: Time| match level {
        Level::Quarter => at >= quarters_from,
        Level::Day => true,
        Level::Month => is_summed,
    };
    let (mut activity, mut presence) = (delta.activity(is_retained), delta.presence(is_retained));
    let mut differences = Vec::new();
    // While a month's rollups are being made, some rooms have sums and others have parts.
    let is_half_done = partitions.is_summed(month) && !is_summed;
    for level in Level::VARIANTS.iter().copied().filter(|level| *level != Level::Month || !is_half_done) {
        for room in rollups::rooms(connection, level, month).await? {
            let (from, to) = (month.start(), month.next().start());
            let stored = rollups::activity_between(connection, level, room, from, to).await?;
            for (key, stored) in stored {
                recount.rollups += 1;
                let recounted = activity.remove(&key).unwrap_or_default();
                compare_activity(key, &stored, &recounted, &mut differences);
            }
            let stored = rollups::presence_between(connection, level, room, from, to).await?;
            for (key, stored) in stored {
                recount.rollups += 1;
                let recounted = presence.remove(&key).unwrap_or_default();
                compare_presence(key, &stored, &recounted, &mut differences);
            }
        }
    }
    // These have no stored rollup.
    for (key, recounted) in &activity {
        compare_activity(*key, &ActivityRollup::default(), recounted, &mut differences);
    }
    for (key, recounted) in &presence {
        compare_presence(*key, &PresenceRollup::default(), recounted, &mut differences);
    }
    for (key, part, stored, recounted) in differences {
        let room = dictionary::text(connection, key.room).await?;
        recount.differences.push(Difference { level: key.level, at: key.at, room, part, stored, recounted });
    }
    Ok(())
}

type Found = (RollupKey, &'static str, String, String);

fn compare_activity(
    key: RollupKey,
    stored: &ActivityRollup,
    recounted: &ActivityRollup,
    found: &mut Vec<Found>,
) {
    let mut number = |part, stored: i64, recounted: i64| {
        if stored != recounted {
            found.push((key, part, stored.to_string(), recounted.to_string()));
        }
    };
    number("page views", stored.page_views, recounted.page_views);
    number("watch sessions", stored.watch_sessions, recounted.watch_sessions);
    number("watched ms", stored.watched_ms, recounted.watched_ms);
    let mut part = |part, is_same: bool, stored: &dyn fmt::Debug, recounted: &dyn fmt::Debug| {
        if !is_same {
            found.push((key, part, format!("{stored:?}"), format!("{recounted:?}")));
        }
    };
    let parts = (stored, recounted);
    part("visitors", parts.0.visitors == parts.1.visitors, &parts.0.visitors, &parts.1.visitors);
    part("pages", parts.0.pages == parts.1.pages, &parts.0.pages, &parts.1.pages);
    part("contents", parts.0.contents == parts.1.contents, &parts.0.contents, &parts.1.contents);
    part("referrers", parts.0.referrers == parts.1.referrers, &parts.0.referrers, &parts.1.referrers);
    part("props", parts.0.props == parts.1.props, &parts.0.props, &parts.1.props);
}

fn compare_presence(
    key: RollupKey,
    stored: &PresenceRollup,
    recounted: &PresenceRollup,
    found: &mut Vec<Found>,
) {
    if stored != recounted {
        found.push((key, "presence", format!("{stored:?}"), format!("{recounted:?}")));
    }
}
