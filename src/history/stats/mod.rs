//! Stats: what the history says about a stretch of time, for the dashboard.
//!
//! A query becomes a [`window`] of buckets, each bucket a [`cover`] of rollups, which a [`query`] reads
//! and merges, and [`StatsCache`] keeps. Raw rows are never read: how many there are does not matter.

pub(crate) mod cache;
pub(crate) mod cover;
pub(crate) mod query;
pub(crate) mod window;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use cache::{StatsCache, StatsResponse};
pub(crate) use window::{BadRange, Range, Step, Zone};

use crate::protocol::{RoomId, Time};

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatsQuery {
    /// When.
    pub range: Range,
    /// One room, or none for all.
    pub room: Option<RoomId>,
    /// Whose days and hours.
    pub zone: Zone,
    /// The property of page views to break down.
    pub prop: Option<String>,
}

impl StatsQuery {
    /// About all rooms by the days of UTC.
    #[must_use]
    pub(crate) fn new(range: Range) -> Self {
        Self { range, room: None, zone: Zone::default(), prop: None }
    }
}

/// What the history says.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsResult {
    /// As asked.
    pub range: Range,
    /// As asked.
    pub room: Option<RoomId>,
    /// As asked.
    pub tz: Zone,
    /// The first moment that is counted.
    pub from: Time,
    /// The end, which is not.
    pub to: Time,
    /// How long the points of the series are.
    pub step: Step,
    /// Over all of it.
    pub totals: Totals,
    /// The stretch of the same length just before.
    pub previous: Previous,
    /// Bucket by bucket, also where there was nothing.
    pub series: Vec<Point>,
    /// The pages that were seen most.
    pub top_pages: Vec<Page>,
    /// What was watched longest.
    pub top_content: Vec<Content>,
    /// The hosts from which most page views came.
    pub top_referrers: Vec<Referrer>,
    /// How long each person was in each mood, added up, in milliseconds.
    pub moods: BTreeMap<String, i64>,
    /// The breakdown by a property, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prop: Option<Breakdown>,
}

/// Figures of one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    /// Pages seen.
    pub page_views: i64,
    /// Distinct visitors who saw a page or started to watch something.
    pub visitors: u64,
    /// Watch sessions that started.
    pub watch_sessions: i64,
    /// Time watched in them.
    pub watched_ms: i64,
    /// People who came to a room.
    pub joins: i64,
    /// The most who were present at once.
    pub peak_present: u32,
    /// How many were present on average, to two digits.
    pub average_present: f64,
}

/// One bucket of the series.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    /// When it begins.
    pub at: Time,
    /// Its figures.
    #[serde(flatten)]
    pub totals: Totals,
    /// How long each person was in each mood, added up, in milliseconds.
    pub moods: BTreeMap<String, i64>,
}

/// The stretch before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct Previous {
    /// Its first moment.
    pub from: Time,
    /// Its end.
    pub to: Time,
    /// Its figures.
    pub totals: Totals,
}

/// A page, and how often it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    /// Its path.
    pub path: String,
    /// How often.
    pub page_views: i64,
}

/// Something to watch, and how long it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Content {
    /// What.
    pub content: String,
    /// How often it was started.
    pub watch_sessions: i64,
    /// How long it was watched.
    pub watched_ms: i64,
}

/// Where page views came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    /// The host, without `www.`.
    pub referrer: String,
    /// How many.
    pub page_views: i64,
}

/// Page views by the values of a property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Breakdown {
    /// The property.
    pub key: String,
    /// The most frequent values.
    pub values: Vec<PropValue>,
}

/// A property's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PropValue {
    /// As text; of a long one only its beginning.
    pub value: String,
    /// How many page views had it.
    pub page_views: i64,
}

#[cfg(test)]
mod tests;
