//! Reads everything that is stored of one visitor, from the tables and the archives.
//!
//! The tables and the list of archives are read in one snapshot.

use std::path::PathBuf;

use serde::Serialize;
use sqlx::Connection;
use utoipa::ToSchema;

use super::dictionary::{self, Dictionary};
use super::read::Pages;
use super::{LifecycleError, Store, months};
use crate::history::archive::{ArchiveError, Archives, LINES, Source, parse_line};
use crate::history::calendar::Month;
use crate::history::event::{Batch, Mergeable, merged};
use crate::history::record::Record;
use crate::protocol::VisitorId;

/// Rows per page.
const ROWS_PER_PAGE: u32 = 2_000;

/// The stored data of one visitor, by time.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PersonalData {
    /// Page views.
    pub page_views: Vec<Record>,
    /// Watch sessions.
    pub watch_sessions: Vec<Record>,
    /// The archived months with data of the visitor.
    pub archives: Vec<Month>,
}

/// Returns the events as the answer has them. A row may be both in the tables and in an archive.
fn into_data(events: Batch, archives: Vec<Month>) -> PersonalData {
    let (mut views, mut watches) = (merged(events.page_views), merged(events.watches));
    views.sort_by_key(Mergeable::time);
    watches.sort_by_key(Mergeable::time);
    PersonalData {
        page_views: views.iter().map(Record::from).collect(),
        watch_sessions: watches.iter().map(Record::from).collect(),
        archives,
    }
}

impl Store {
    /// Reads a visitor's data, archives included. It is empty for an unknown visitor.
    /// Errors: the database failed, or an archive is missing or damaged.
    pub(crate) async fn visitor_data(
        &self,
        visitor: &VisitorId,
        archives: &Archives,
    ) -> Result<PersonalData, LifecycleError> {
        let mut connection = self.read().await?;
        // In one snapshot, a month that is archived meanwhile is read exactly once.
        let mut snapshot = connection.begin().await?;
        let number = dictionary::number(&mut snapshot, Dictionary::Visitors, visitor.as_str()).await?;
        let Some(number) = number else { return Ok(PersonalData::default()) };
        let mut found = Batch::default();
        let months = months::all(&mut snapshot).await?;
        for state in months.iter().filter(|state| state.is_live) {
            let mut pages = Pages::of_visitor(state.month, ROWS_PER_PAGE, number);
            while let Some(events) = pages.next(&mut snapshot).await? {
                found.append(events);
            }
        }
        snapshot.rollback().await?;
        drop(connection);
        let mut found_in = Vec::new();
        for state in months {
            let Some(archive) = state.archive else { continue };
            let (rows, _) = visitor_rows(archives.path(&archive.name), visitor).await?;
            if !rows.is_empty() {
                found_in.push(state.month);
                found.append(rows);
            }
        }
        Ok(into_data(found, found_in))
    }
}

/// Returns the visitor's rows in an archive, and the file's checksum.
pub(super) async fn visitor_rows(
    path: PathBuf,
    visitor: &VisitorId,
) -> Result<(Batch, String), ArchiveError> {
    let (mut rows, mut source) = (Batch::default(), Source::open(path).await?);
    loop {
        let visitor = visitor.clone();
        let (rest, slice) = source.next(LINES, move |line| visitor_event(line, &visitor)).await?;
        source = rest;
        if slice.is_empty() {
            return Ok((rows, source.checksum()));
        }
        rows.append(slice.into_iter().collect());
    }
}

/// Parses an archive's line if it belongs to the visitor; else returns an empty batch.
pub(super) fn visitor_event(line: &str, visitor: &VisitorId) -> Result<Batch, String> {
    // A line without the id needs no parsing.
    if !line.contains(visitor.as_str()) {
        return Ok(Batch::default());
    }
    let mut event = parse_line(line)?;
    event.keep_only(visitor);
    Ok(event)
}
