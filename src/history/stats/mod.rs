//! Stats: figures of a period, for the dashboard.
//!
//! A query becomes a [`window`] of buckets, and each bucket a [`cover`] of rollups, which [`query`] reads and merges.
//! [`StatsCache`] caches the results. Raw rows are not read, so their number does not matter.

pub(crate) mod cache;
pub(crate) mod cover;
pub(crate) mod lists;
pub(crate) mod query;
pub(crate) mod window;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use cache::{StatsCache, StatsResponse};
pub(crate) use window::{BadRange, Range, Step, Zone};

use crate::history::scope::Scope;
use crate::protocol::{RoomId, Time};

/// A query of the figures.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatsQuery {
    /// The period.
    pub range: Range,
    /// One room, or the whole hub.
    pub scope: Scope,
    /// The time zone of days and hours.
    pub zone: Zone,
    /// The property of page views to break down.
    pub prop: Option<String>,
}

impl StatsQuery {
    /// A query by days of UTC.
    pub(crate) fn new(scope: Scope, range: Range) -> Self {
        Self { range, scope, zone: Zone::default(), prop: None }
    }
}

/// The figures of a period.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsResult {
    /// The query's range.
    pub range: Range,
    /// The query's room.
    pub room: Option<RoomId>,
    /// The query's time zone.
    pub tz: Zone,
    /// Start of the period.
    pub from: Time,
    /// End of the period, which is exclusive.
    pub to: Time,
    /// Length of the buckets.
    pub step: Step,
    /// Figures of the whole period.
    pub totals: Totals,
    /// The period of the same length before.
    pub previous: Previous,
    /// The buckets, also empty ones.
    pub series: Vec<Point>,
    /// The most viewed pages.
    pub top_pages: Vec<TopPage>,
    /// The longest watched contents.
    pub top_content: Vec<TopContent>,
    /// The most frequent referrers' hosts.
    pub top_referrers: Vec<TopReferrer>,
    /// What is not in the lists.
    pub other: Other,
    /// Sum of the visitors' presence times by mood, in milliseconds.
    pub moods: BTreeMap<String, i64>,
    /// The breakdown by a property, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prop: Option<Breakdown>,
}

/// Figures of one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    /// Page views.
    pub page_views: i64,
    /// Distinct visitors with a page view or a watch session.
    pub visitors: u64,
    /// Watch sessions that started.
    pub watch_sessions: i64,
    /// Time watched in them, in milliseconds.
    pub watched_ms: i64,
    /// How many visitors joined a room.
    pub joins: i64,
    /// The maximum of visitors present at once.
    pub peak_present: u32,
    /// Average of visitors present, to two decimal places.
    pub average_present: f64,
    /// Average of visitors present without a socket, once for each room, to two decimal places.
    pub average_held: f64,
    /// Sits.
    pub sits: Sits,
}

/// Figures of sits in one period. A sit begins in one period and may end in another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Sits {
    /// How many began.
    pub begun: i64,
    /// How many reached their end.
    pub completed: i64,
    /// Sum of the minutes that visitors sat, to two decimal places.
    pub minutes: f64,
}

/// One bucket of the series.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    /// Start of the bucket.
    pub at: Time,
    /// Figures of the bucket.
    #[serde(flatten)]
    pub totals: Totals,
    /// Sum of the visitors' presence times by mood, in milliseconds.
    pub moods: BTreeMap<String, i64>,
}

/// The previous period.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct Previous {
    /// Start of the period.
    pub from: Time,
    /// End of the period, which is exclusive.
    pub to: Time,
    /// Figures of the period.
    pub totals: Totals,
}

/// A page and its views.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Page)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopPage {
    /// The path.
    pub path: String,
    /// Number of views.
    pub page_views: i64,
}

/// A content and its watch sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Content)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopContent {
    /// The content.
    pub content: String,
    /// Number of sessions.
    pub watch_sessions: i64,
    /// Time watched, in milliseconds.
    pub watched_ms: i64,
}

/// A referrer and its page views.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Referrer)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopReferrer {
    /// The host, without `www.`.
    pub referrer: String,
    /// Number of page views.
    pub page_views: i64,
}

/// The figures of what is not in the lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Other {
    /// All other pages.
    pub pages: OtherViews,
    /// All other contents.
    pub content: OtherContent,
    /// All other referrers. Page views without a referrer are not among them.
    pub referrers: OtherViews,
}

/// Page views of what is not in a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OtherViews {
    /// Number of page views.
    pub page_views: i64,
}

/// Watch sessions of contents that are not in the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OtherContent {
    /// Number of sessions.
    pub watch_sessions: i64,
    /// Time watched, in milliseconds.
    pub watched_ms: i64,
}

/// Page views by the values of a property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Breakdown {
    /// The property.
    pub key: String,
    /// The most frequent values.
    pub values: Vec<PropValue>,
    /// All other values. Page views without the property are not among them.
    pub other: OtherViews,
    /// Page views before this time are not counted, because the hub did not list the property yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// A property's value and its page views.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PropValue {
    /// The value as text; long values are truncated.
    pub value: String,
    /// Number of page views.
    pub page_views: i64,
}

#[cfg(test)]
mod tests;
