//! Reads what is stored of one visitor, from the tables and the archives, in pages.
//!
//! Months are read in order, each first in its tables and then in its archive. If one is archived or restored between
//! two pages, its rows may be on both, and none is missed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::SqliteConnection;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::dictionary::{self, Dictionary};
use super::partition::{Partitions, RowKind};
use super::{LifecycleError, Store, months, read};
use crate::history::archive::{ArchiveError, Archives, LINES, Source, parse_line};
use crate::history::calendar::Month;
use crate::history::event::{Batch, Event, Mergeable, merged};
use crate::history::record::Record;
use crate::history::rollup::DictionaryId;
use crate::protocol::schema::{schema, text_like};
use crate::protocol::{RoomId, VisitorId};

/// Rows per read. Few in tests, so that there are many.
const ROWS_PER_READ: u32 = if cfg!(test) { 3 } else { 500 };

/// Bytes of a page. The last record may exceed them.
const PAGE_BYTES: usize = if cfg!(test) { 8 << 10 } else { 1 << 20 };

/// A page ends after this time, if it has made any progress.
const PAGE_TIME: Duration = Duration::from_secs(2);

/// A page of the stored data of one visitor, by time.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PersonalData {
    /// Page views.
    pub page_views: Vec<Record>,
    /// Watch sessions.
    pub watch_sessions: Vec<Record>,
    /// The archived months with data on this page.
    pub archives: Vec<Month>,
    /// The cursor of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next: Option<DataCursor>,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataCursor {
    month: Month,
    part: Part,
}

schema!(DataCursor, {
    let rows = format!("[pw](\\.[0-9a-f]{{32}}\\.{})?", RoomId::RULE);
    text_like(&format!("[0-9]{{4}}-(0[1-9]|1[0-2])\\.(a\\.[0-9]{{1,15}}|{rows})"))
});

/// A position within a month.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Page views or watch sessions in the tables, behind a row.
    Rows(RowKind, Option<(Uuid, RoomId)>),
    /// The archive, from this line on.
    Lines(u64),
}

/// The first rows of a month.
const START: Part = Part::Rows(RowKind::PageViews, None);

/// A text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the `next` of an earlier page")]
pub(crate) struct BadCursor;

impl fmt::Display for DataCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |kind: &RowKind| if *kind == RowKind::PageViews { 'p' } else { 'w' };
        match &self.part {
            Part::Rows(rows, None) => write!(f, "{}.{}", self.month, kind(rows)),
            Part::Rows(rows, Some((id, room))) => {
                write!(f, "{}.{}.{}.{room}", self.month, kind(rows), id.simple())
            }
            Part::Lines(line) => write!(f, "{}.a.{line}", self.month),
        }
    }
}

impl FromStr for DataCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let parts: Vec<&str> = text.split('.').collect();
        let (month, part) = match parts.as_slice() {
            [month, "a", line] => (month, Part::Lines(line.parse().map_err(|_| BadCursor)?)),
            [month, kind @ ("p" | "w"), rest @ ..] => {
                let kind = if *kind == "p" { RowKind::PageViews } else { RowKind::WatchSessions };
                let after = match rest {
                    [] => None,
                    [id, room] => Some((
                        id.parse().map_err(|_| BadCursor)?,
                        RoomId::try_from(*room).map_err(|_| BadCursor)?,
                    )),
                    _ => return Err(BadCursor),
                };
                (month, Part::Rows(kind, after))
            }
            _ => return Err(BadCursor),
        };
        Ok(Self { month: month.parse().map_err(|_| BadCursor)?, part })
    }
}

impl Serialize for DataCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataCursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A page that is being filled.
#[derive(Debug)]
struct Page {
    events: Batch,
    bytes: usize,
    archives: Vec<Month>,
    deadline: Instant,
}

impl Page {
    fn new() -> Self {
        let deadline = Instant::now() + PAGE_TIME;
        Self { events: Batch::default(), bytes: 0, archives: Vec::new(), deadline }
    }

    fn add(&mut self, event: Batch) {
        let bytes = |record: Record| serde_json::to_vec(&record).map_or(0, |json| json.len() + 1);
        self.bytes += Record::of(event.clone()).map(bytes).sum::<usize>();
        self.events.append(event);
    }

    fn is_full(&self) -> bool {
        self.bytes >= PAGE_BYTES || Instant::now() > self.deadline
    }

    fn into_data(self, next: Option<DataCursor>) -> PersonalData {
        PersonalData { next, ..into_data(self.events, self.archives) }
    }
}

/// Returns the events as the answer has them. A row may be both in the tables and in an archive.
fn into_data(events: Batch, archives: Vec<Month>) -> PersonalData {
    let (mut views, mut watches) = (merged(events.page_views), merged(events.watches));
    views.sort_by_key(Mergeable::time);
    watches.sort_by_key(Mergeable::time);
    PersonalData {
        page_views: views.into_iter().map(Record::from).collect(),
        watch_sessions: watches.into_iter().map(Record::from).collect(),
        archives,
        next: None,
    }
}

impl Store {
    /// Reads a page of a visitor's data, archives included: the first, or the one at `cursor`. It is empty for an unknown
    /// visitor.
    /// Errors: the database failed, or an archive is missing or damaged.
    pub(crate) async fn visitor_data(
        &self,
        visitor: &VisitorId,
        archives: &Archives,
        cursor: Option<DataCursor>,
    ) -> Result<PersonalData, LifecycleError> {
        let mut connection = self.read().await?;
        let id = dictionary::id(&mut connection, Dictionary::Visitors, visitor.as_str()).await?;
        let Some(id) = id else { return Ok(PersonalData::default()) };
        let mut next = match cursor {
            Some(cursor) => Some(cursor),
            None => month_after(&mut connection, None).await?,
        };
        drop(connection);
        let (mut page, reader) = (Page::new(), Reader { store: self, archives, visitor, id });
        while let Some(cursor) = next {
            next = reader.read(cursor, &mut page).await?;
            if page.is_full() {
                break;
            }
        }
        Ok(page.into_data(next))
    }
}

struct Reader<'a> {
    store: &'a Store,
    archives: &'a Archives,
    visitor: &'a VisitorId,
    id: DictionaryId,
}

impl Reader<'_> {
    /// Reads what is at a cursor into the page, and returns the next one, or `None` at the end.
    async fn read(&self, cursor: DataCursor, page: &mut Page) -> Result<Option<DataCursor>, LifecycleError> {
        let DataCursor { month, part } = cursor;
        let part = match part {
            Part::Rows(kind, after) => Some(self.read_rows(month, kind, after, page).await?),
            Part::Lines(line) => self.read_lines(month, line, page).await?,
        };
        match part {
            Some(part) => Ok(Some(DataCursor { month, part })),
            None => Ok(month_after(&mut *self.store.read().await?, Some(month)).await?),
        }
    }

    async fn read_rows(
        &self,
        month: Month,
        kind: RowKind,
        after: Option<(Uuid, RoomId)>,
        page: &mut Page,
    ) -> Result<Part, LifecycleError> {
        let mut connection = self.store.read().await?;
        if !Partitions::read(&mut connection).await?.live.contains(&month) {
            return Ok(Part::Lines(0));
        }
        let after = after.map(|(id, room)| (id, self.visitor.clone(), room));
        let rows = read::of_visitor(&mut connection, month, kind, self.id, after, ROWS_PER_READ).await?;
        drop(connection);
        let mut last = None;
        let views = rows
            .page_views
            .into_iter()
            .map(|view| ((view.id, view.actor.room.clone()), Event::PageView(view)));
        let watches =
            rows.watches.into_iter().map(|watch| ((watch.id, watch.actor.room.clone()), Event::Watch(watch)));
        for (key, event) in views.chain(watches) {
            last = Some(key);
            page.add([event].into_iter().collect());
            if page.is_full() {
                break;
            }
        }
        Ok(match (last, kind) {
            (Some(last), _) => Part::Rows(kind, Some(last)),
            (None, RowKind::PageViews) => Part::Rows(RowKind::WatchSessions, None),
            (None, _) => Part::Lines(0),
        })
    }

    /// Reads an archive until the page is full. Returns `None` at its end.
    async fn read_lines(
        &self,
        month: Month,
        mut line: u64,
        page: &mut Page,
    ) -> Result<Option<Part>, LifecycleError> {
        let mut connection = self.store.read().await?;
        let state = months::one(&mut connection, month).await?;
        let Some(archive) = state.and_then(|state| state.archive) else {
            // Restored since the last page.
            return Ok((line > 0).then_some(START));
        };
        let visitors = months::archived_visitors(&mut connection, month).await?;
        drop(connection);
        if visitors.is_some_and(|visitors| !visitors.contains(self.id)) {
            return Ok(None);
        }
        let mut source = Source::open(self.archives.path(&archive.name)).await?;
        let mut skip = line;
        while skip > 0 {
            let lines = usize::try_from(skip).unwrap_or(LINES).min(LINES);
            let (rest, skipped) = source.next(lines, |_| Ok(())).await?;
            source = rest;
            if skipped.is_empty() {
                return Ok(None);
            }
            skip -= skipped.len() as u64;
        }
        loop {
            let visitor = self.visitor.clone();
            let (rest, events) = source.next(LINES, move |line| visitor_event(line, &visitor)).await?;
            source = rest;
            if events.is_empty() {
                return Ok(None);
            }
            for event in events {
                line += 1;
                if !event.is_empty() {
                    page.add(event);
                    if page.archives.last() != Some(&month) {
                        page.archives.push(month);
                    }
                    if page.is_full() {
                        return Ok(Some(Part::Lines(line)));
                    }
                }
            }
            if page.is_full() {
                return Ok(Some(Part::Lines(line)));
            }
        }
    }
}

/// The start of the first month, or of the one behind `month`.
async fn month_after(
    connection: &mut SqliteConnection,
    month: Option<Month>,
) -> Result<Option<DataCursor>, sqlx::Error> {
    let months = months::all(connection).await?;
    let next =
        months.into_iter().map(|state| state.month).find(|other| month.is_none_or(|month| *other > month));
    Ok(next.map(|month| DataCursor { month, part: START }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_read_back_as_written() {
        let month: Month = "2024-02".parse().unwrap();
        let behind = Some((Uuid::from_u128(7), RoomId::try_from("a-room").unwrap()));
        for part in [START, Part::Rows(RowKind::WatchSessions, behind), Part::Lines(12)] {
            let cursor = DataCursor { month, part };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "x", "2024-02", "2024-02.p.1", "2024-02.a.-1", "2024-02.p.7.A room", "2024-13.p"] {
            assert_eq!(bad.parse::<DataCursor>(), Err(BadCursor), "{bad}");
        }
    }
}
