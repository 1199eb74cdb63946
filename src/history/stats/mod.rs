//! Stats: what the history says about a stretch of time, for the dashboard.
//!
//! Reads only, through the read-only pool. So far: totals, straight from the facts.

use serde::Serialize;

use super::store::Store;
use crate::wire::{RoomId, Time};

/// The stretches of time that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Range {
    /// The last 24 hours.
    #[serde(rename = "24h")]
    Day,
    /// The last 7 days.
    #[serde(rename = "7d")]
    Week,
    /// The last 30 days.
    #[serde(rename = "30d")]
    Month,
    /// The last 365 days.
    #[serde(rename = "12mo")]
    Year,
}

impl Range {
    /// The range of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        match name {
            "24h" => Some(Self::Day),
            "7d" => Some(Self::Week),
            "30d" => Some(Self::Month),
            "12mo" => Some(Self::Year),
            _ => None,
        }
    }

    /// Its length in milliseconds.
    #[must_use]
    pub fn millis(self) -> u64 {
        let days = match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
            Self::Year => 365,
        };
        days * 24 * 60 * 60 * 1000
    }
}

/// The database did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the history cannot be read now: {0}")]
pub struct ReadError(#[from] sqlx::Error);

/// Totals over a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Pages seen.
    pub page_views: i64,
    /// Distinct visitors who saw a page or watched something.
    pub visitors: i64,
    /// Watch sessions that started.
    pub watch_sessions: i64,
    /// Time watched in them.
    pub watched_ms: i64,
}

const TOTALS: &str = "
    WITH views AS (
        SELECT visitor FROM page_views WHERE at >= ?1 AND (?2 IS NULL OR room = ?2)
    ), watches AS (
        SELECT visitor, watched_ms
        FROM watch_sessions WHERE started_at >= ?1 AND (?2 IS NULL OR room = ?2)
    )
    SELECT (SELECT count(*) FROM views) AS page_views,
           (SELECT count(*) FROM (SELECT visitor FROM views UNION SELECT visitor FROM watches)) AS visitors,
           (SELECT count(*) FROM watches) AS watch_sessions,
           (SELECT ifnull(sum(watched_ms), 0) FROM watches) AS watched_ms";

impl Store {
    /// Totals of everything since `from`, in one room or in all.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn totals(&self, from: Time, room: Option<&RoomId>) -> Result<Totals, ReadError> {
        let from = i64::try_from(from.millis()).unwrap_or(i64::MAX);
        let totals = sqlx::query_as(TOTALS).bind(from).bind(room.map(RoomId::as_str));
        Ok(totals.fetch_one(&self.readers).await?)
    }
}
