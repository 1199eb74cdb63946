//! References: texts that contain a visitor's id, such as the path of a profile page.
//!
//! An erasure overwrites the references that no other row uses. Uses are found in the raw rows and in day rollups,
//! which include archived rows. Archives have their own copies of texts.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::codec::json;
use super::dictionary::{self, Dictionary};
use super::partition::{Partitions, RowKind};
use super::{dimensions, rollups};
use crate::history::calendar::{Level, Month};
use crate::history::event::Batch;
use crate::history::normalize::TRUNCATED;
use crate::history::rollup::DictionaryId;
use crate::protocol::VisitorId;

/// Texts per page.
const TEXTS_PER_PAGE: u32 = 5_000;

/// The dictionary ids of texts that contain a visitor's id.
#[derive(Debug, Default)]
pub(super) struct References {
    texts: BTreeSet<DictionaryId>,
    /// References used by each month.
    used: BTreeMap<Month, BTreeSet<DictionaryId>>,
    /// The last text that was searched.
    last: DictionaryId,
}

/// Returns whether a text contains the visitor's id, in any case, since hosts are lowercase. A truncated property may
/// end within the id.
fn is_reference(text: &str, visitor: &VisitorId) -> bool {
    let (text, id) = (text.to_ascii_lowercase(), visitor.as_str().to_ascii_lowercase());
    let is_cut =
        |text: &str| (1..id.len()).any(|length| id.get(..length).is_some_and(|start| text.ends_with(start)));
    text.contains(&id) || text.strip_suffix(TRUNCATED).is_some_and(is_cut)
}

/// Returns whether properties of a row contain the visitor's id. Properties are stored in the row.
pub(super) fn are_in_rows(events: &Batch, visitor: &VisitorId) -> bool {
    let views = events.page_views.iter().filter_map(|view| view.props.as_ref());
    let watches = events.watches.iter().filter_map(|watch| watch.props.as_ref().map(|(_, props)| props));
    views.chain(watches).any(|props| is_reference(props.as_json(), visitor))
}

impl References {
    /// Adds references among the texts that were not searched before.
    pub(super) async fn find(
        &mut self,
        connection: &mut SqliteConnection,
        visitor: &VisitorId,
    ) -> Result<(), sqlx::Error> {
        const NEW: &str = "SELECT number, text FROM texts WHERE number > ?1 ORDER BY number LIMIT ?2";
        loop {
            let query = sqlx::query_as(NEW).bind(self.last).bind(TEXTS_PER_PAGE);
            let texts: Vec<(DictionaryId, Option<String>)> = query.fetch_all(&mut *connection).await?;
            let Some((last, _)) = texts.last() else { return Ok(()) };
            self.last = *last;
            let is_one =
                |text: &Option<String>| text.as_ref().is_some_and(|text| is_reference(text, visitor));
            self.texts.extend(texts.iter().filter(|(_, text)| is_one(text)).map(|(number, _)| number));
        }
    }

    /// Finds which references the rows or rollups of a month use now.
    pub(super) async fn look_in(
        &mut self,
        connection: &mut SqliteConnection,
        month: Month,
    ) -> Result<(), sqlx::Error> {
        if self.texts.is_empty() {
            return Ok(());
        }
        let mut used = rolled_up(connection, month).await?;
        if Partitions::read(connection).await?.live.contains(&month) {
            used.extend(self.in_rows(connection, month).await?);
        }
        used.retain(|text| self.texts.contains(text));
        self.used.insert(month, used);
        Ok(())
    }

    async fn in_rows(
        &self,
        connection: &mut SqliteConnection,
        month: Month,
    ) -> Result<Vec<DictionaryId>, sqlx::Error> {
        let columns = [
            (RowKind::PageViews, "room"),
            (RowKind::PageViews, "path"),
            (RowKind::PageViews, "title"),
            (RowKind::PageViews, "referrer"),
            (RowKind::WatchSessions, "room"),
            (RowKind::WatchSessions, "content"),
        ];
        let parts = columns.map(|(kind, column)| {
            let table = kind.table(month);
            format!("SELECT {column} FROM {table} WHERE {column} IN (SELECT value FROM json_each(?1))")
        });
        let statement = parts.join(" UNION ");
        sqlx::query_scalar(AssertSqlSafe(statement)).bind(json(&self.texts)?).fetch_all(connection).await
    }

    /// Overwrites the references that no month uses.
    pub(super) async fn overwrite_unused(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        let used: BTreeSet<DictionaryId> = self.used.values().flatten().copied().collect();
        let unused: Vec<DictionaryId> = self.texts.difference(&used).copied().collect();
        dictionary::overwrite(connection, Dictionary::Texts, &unused).await
    }
}

/// Returns all texts that a month's day rollups use.
async fn rolled_up(
    connection: &mut SqliteConnection,
    month: Month,
) -> Result<BTreeSet<DictionaryId>, sqlx::Error> {
    let mut used = rollups::rooms(connection, Level::Day, month).await?;
    used.extend(dimensions::texts(connection, month).await?);
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitor_id_is_found_anywhere_in_any_case() {
        let ann = VisitorId::try_from("Ann-1").unwrap();
        assert!(is_reference("/people/Ann-1/home", &ann) && is_reference("ann-1.example", &ann));
        assert!(is_reference(&format!("so on and so on an{TRUNCATED}"), &ann));
        assert!(!is_reference("Ann-", &ann) && !is_reference("", &ann) && !is_reference("Ann 1", &ann));
    }
}
