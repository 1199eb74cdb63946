//! The names of visitors whose erasures are in progress.
//!
//! Meanwhile their rows are those of another name. Sums of records count them with their own one until they are deleted.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use crate::history::event::Batch;
use crate::protocol::VisitorId;

/// The names, by those that the rows have.
#[derive(Debug)]
pub(super) struct HiddenNames(BTreeMap<String, VisitorId>);

impl HiddenNames {
    /// Reads the names.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        const NAMES: &str = "
            SELECT 'erased-' || visitors.hash, erasures.visitor
            FROM erasures JOIN visitors ON visitors.number = erasures.number WHERE visitors.text IS NULL";
        let rows: Vec<(String, String)> = sqlx::query_as(NAMES).fetch_all(connection).await?;
        let names =
            rows.into_iter().filter_map(|(hidden, name)| Some((hidden, VisitorId::try_from(name).ok()?)));
        Ok(Self(names.collect()))
    }

    /// Gives events the names that their visitors had.
    pub(super) fn restore(&self, events: &mut Batch) {
        if !self.0.is_empty() {
            events.rename_visitors(|visitor| self.0.get(visitor.as_str()).cloned());
        }
    }
}
