//! Erases a visitor from raw rows, rollups, archives and the dictionary.
//!
//! After the archives, the visitor's dictionary entry is hidden: later events are those of a new visitor, so that the rows
//! to delete are a closed set. The table of erasures has the visitor's id until they are gone, so that a retry or
//! maintenance continues; the ledger beside the archives has its hash, for a database restored from a backup. At the end,
//! tables that may have copies of deleted properties are rewritten, texts that nothing uses are overwritten, and free
//! pages and the write-ahead log, which may have copies, are returned to the disk: once for all erasures before.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::time::{Instant, sleep};
use tracing::warn;
use utoipa::ToSchema;
use uuid::Uuid;

use super::codec::{json, number};
use super::commit::{self, Changes};
use super::dictionary::{self, Dictionary};
use super::months::{self, Archive, MonthRows, MonthState};
use super::partition::{Partitions, RowKind};
use super::read::Pages;
use super::slices::SliceSize;
use super::visitor_data::{visitor_event, visitor_rows};
use super::{LifecycleError, Store, month_sums, roll_up, used_texts};
use crate::history::archive::{ArchiveError, Archives, Draft, LINES, Source};
use crate::history::calendar::{Month, timestamp};
use crate::history::event::{Actor, Batch};
use crate::history::ledger::Ledger;
use crate::history::record_sum::SumDelta;
use crate::history::rollup::{DictionaryId, DictionaryIds, RollupKey};
use crate::protocol::{Time, VisitorId};

/// How long an erasure waits for readers of the write-ahead log.
const READERS_PATIENCE: Duration = Duration::from_secs(3);

/// Visitors per page of a search by hash.
const VISITORS_PER_PAGE: u32 = 2_000;

/// The result of an erasure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Erased {
    /// Page views in the tables.
    pub page_views: u64,
    /// Watch sessions in the tables.
    pub watch_sessions: u64,
    /// Changed rollups.
    pub rollups: usize,
    /// Deleted lines of archives.
    pub archives: Vec<MonthRows>,
    /// Whether neither the file nor the write-ahead log has a copy left. If not, the worker overwrites it later.
    #[serde(skip)]
    pub wal_truncated: bool,
}

impl Erased {
    /// Whether nothing was erased.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self { wal_truncated: self.wal_truncated, ..Self::default() }
    }
}

/// What an erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Erasure {
    /// Its id in the ledger.
    pub id: Uuid,
    /// When it was asked for.
    pub at: Time,
    /// The time of the last event that it deletes; none if it deletes all of the visitor.
    pub until: Option<Time>,
}

impl Erasure {
    /// An erasure of all that a visitor has.
    pub(crate) fn of_all(at: Time) -> Self {
        Self { id: Uuid::new_v4(), at, until: None }
    }
}

/// An erasure that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    /// The visitor's dictionary id.
    dictionary_id: DictionaryId,
    /// The erasure's id in the ledger.
    id: Uuid,
    visitor: VisitorId,
    /// The time of the last event to delete; none if all of the visitor are deleted.
    until: Option<Time>,
}

impl Store {
    /// Deletes a visitor's rows, lines of archives and dictionary entry. Does nothing for an unknown visitor. Copies may be
    /// left until [`overwrite_erased`](Self::overwrite_erased).
    /// Errors: the database or a file operation failed, or an archive is missing. A retry continues.
    pub(crate) async fn delete_visitor(
        &self,
        visitor: &VisitorId,
        archives: &Archives,
        erasure: Erasure,
    ) -> Result<Erased, LifecycleError> {
        self.recover_archives(archives).await?;
        self.begin_erasure(visitor, archives, erasure).await?;
        let mut pending = self.pending_erasures().await?;
        pending.retain(|pending| pending.visitor == *visitor);
        let erased = self.erase_pending(pending, archives, erasure.at).await?;
        delete_holds(&mut *self.connection().await?, visitor).await?;
        self.erase_from_outbox(visitor, erasure.until).await?;
        Ok(erased)
    }

    /// Overwrites the copies that deletions have left in the file, and returns free pages to the disk. Returns whether the
    /// write-ahead log has no copy left either.
    /// Errors: the database failed. A retry continues.
    pub(crate) async fn overwrite_erased(&self) -> Result<bool, LifecycleError> {
        self.remove_leftovers().await?;
        self.vacuum().await?;
        self.truncate_log().await
    }

    /// Deletes a visitor and overwrites the copies.
    #[cfg(test)]
    pub(in crate::history) async fn erase(
        &self,
        visitor: &VisitorId,
        archives: &Archives,
        erasure: Erasure,
    ) -> Result<Erased, LifecycleError> {
        let mut erased = self.delete_visitor(visitor, archives, erasure).await?;
        erased.wal_truncated = self.overwrite_erased().await?;
        Ok(erased)
    }

    /// Continues interrupted erasures, and repeats those of the ledger that the database does not have. Returns how many
    /// visitors were erased.
    /// Errors: those of [`erase`](Self::erase).
    pub(crate) async fn continue_erasures(
        &self,
        archives: &Archives,
        at: Time,
    ) -> Result<u64, LifecycleError> {
        self.recover_archives(archives).await?;
        self.repeat_erasures(archives).await?;
        let pending = self.pending_erasures().await?;
        let count = pending.len() as u64;
        self.erase_pending(pending, archives, at).await?;
        self.correct_rollups(archives).await?;
        Ok(count)
    }

    /// Whether erasures have begun and not ended.
    pub(crate) async fn has_pending_erasures(&self) -> Result<bool, LifecycleError> {
        Ok(!self.pending_erasures().await?.is_empty())
    }

    /// Deletes what erasures and archiving have left: retired tables, copies of deleted rows, and unused texts. Returns
    /// how many tables and texts.
    /// Errors: the database failed. A retry continues.
    pub(crate) async fn remove_leftovers(&self) -> Result<u64, LifecycleError> {
        Ok(self.drop_retired().await? + self.rewrite_months().await? + self.sweep_texts().await?)
    }

    /// Records that the erasure of a known visitor begins, in the ledger and in the database.
    async fn begin_erasure(
        &self,
        visitor: &VisitorId,
        archives: &Archives,
        Erasure { id, at, until }: Erasure,
    ) -> Result<(), LifecycleError> {
        const HAS_BEGUN: &str = "SELECT count(*) FROM erasures WHERE number = ?1";
        let mut reader = self.read().await?;
        let dictionary_id = dictionary::id(&mut reader, Dictionary::Visitors, visitor.as_str()).await?;
        let Some(dictionary_id) = dictionary_id else { return Ok(()) };
        let has_begun: i64 =
            sqlx::query_scalar(HAS_BEGUN).bind(dictionary_id).fetch_one(&mut *reader).await?;
        let months = months::all(&mut reader).await?;
        drop(reader);
        // Checked first: if an archive is missing, nothing is changed.
        for archive in months.iter().filter_map(|state| state.archive.as_ref()) {
            Source::open(archives.path(&archive.name)).await?;
        }
        if has_begun == 0 {
            Ledger::read(archives).await?.add((id, visitor, at), None).await?;
            let pending = Pending { dictionary_id, id, visitor: visitor.clone(), until };
            let mut transaction = self.begin().await?;
            add_pending(&mut transaction, &pending).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    async fn pending_erasures(&self) -> Result<Vec<Pending>, LifecycleError> {
        const PENDING: &str = "SELECT number, id, visitor, until_at FROM erasures ORDER BY number";
        let rows: Vec<(DictionaryId, String, String, Option<i64>)> =
            sqlx::query_as(PENDING).fetch_all(&mut *self.read().await?).await?;
        let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
        let pending = rows.into_iter().map(|(dictionary_id, id, visitor, until)| {
            let id = id.parse().map_err(|error| decode(Box::new(error)))?;
            let visitor = VisitorId::try_from(visitor).map_err(|error| decode(Box::new(error)))?;
            let until = until.and_then(|until| until.try_into().ok()).map(Time::from_millis);
            Ok(Pending { dictionary_id, id, visitor, until })
        });
        Ok(pending.collect::<Result<_, sqlx::Error>>()?)
    }

    /// Begins the erasures of the ledger that this database does not have: it was restored from an older backup.
    async fn repeat_erasures(&self, archives: &Archives) -> Result<(), LifecycleError> {
        const KNOWN: &str = "SELECT id FROM applied_erasures UNION SELECT id FROM erasures";
        const VISITORS: &str = "
            SELECT number, text FROM visitors WHERE number > ?1 AND text IS NOT NULL ORDER BY number LIMIT ?2";
        let ledger = Ledger::read(archives).await?;
        let known: Vec<String> = sqlx::query_scalar(KNOWN).fetch_all(&mut *self.read().await?).await?;
        let known: BTreeSet<Uuid> = known.iter().filter_map(|id| id.parse().ok()).collect();
        if let Some((id, at)) = ledger.first_after_removed() {
            if !known.contains(&id) {
                let before = timestamp(at);
                warn!(%before, "the database is older than the ledger of erasures: repeat the erasures before this time");
            }
            forget_applied(&mut *self.connection().await?, ledger.ids()).await?;
        }
        let mut unknown: BTreeSet<Uuid> = ledger.ids().filter(|id| !known.contains(id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = sqlx::query_as(VISITORS).bind(after).bind(VISITORS_PER_PAGE);
            let page: Vec<(DictionaryId, String)> = page.fetch_all(&mut *self.read().await?).await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (dictionary_id, text) in page {
                let id = ledger.erasure_of(&text, |id| unknown.contains(id));
                if let (Some(id), Ok(visitor)) = (id, VisitorId::try_from(text)) {
                    found.push(Pending { dictionary_id, id, visitor, until: None });
                }
            }
        }
        let mut transaction = self.begin().await?;
        for pending in &found {
            unknown.remove(&pending.id);
            add_pending(&mut transaction, pending).await?;
        }
        for id in unknown {
            set_applied(&mut transaction, id).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn erase_pending(
        &self,
        pending: Vec<Pending>,
        archives: &Archives,
        at: Time,
    ) -> Result<Erased, LifecycleError> {
        let mut erased = Erased::default();
        for pending in pending {
            let (visitor, until) = (pending.visitor.clone(), pending.until);
            let mut run = Eraser { store: self, archives, at, pending, erased, rollups: BTreeSet::new() };
            run.run().await?;
            erased = run.erased;
            erased.rollups += run.rollups.len();
            self.erase_from_outbox(&visitor, until).await?;
            self.versions.change_all();
        }
        Ok(erased)
    }

    /// Truncates the write-ahead log, and waits for its readers up to a limit.
    async fn truncate_log(&self) -> Result<bool, LifecycleError> {
        let deadline = Instant::now() + READERS_PATIENCE;
        loop {
            match self.checkpoint().await? {
                true => return Ok(true),
                false if Instant::now() > deadline => return Ok(false),
                false => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn add_pending(connection: &mut SqliteConnection, pending: &Pending) -> Result<(), sqlx::Error> {
    const ADD: &str =
        "INSERT OR IGNORE INTO erasures (number, id, visitor, until_at) VALUES (?1, ?2, ?3, ?4)";
    let query = sqlx::query(ADD).bind(pending.dictionary_id).bind(pending.id.to_string());
    let query = query.bind(pending.visitor.as_str()).bind(pending.until.map(|until| number(until.millis())));
    query.execute(connection).await?;
    Ok(())
}

async fn set_applied(connection: &mut SqliteConnection, id: Uuid) -> Result<(), sqlx::Error> {
    const ADD: &str = "INSERT OR IGNORE INTO applied_erasures (id) VALUES (?1)";
    sqlx::query(ADD).bind(id.to_string()).execute(connection).await?;
    Ok(())
}

/// Forgets the applied erasures that the ledger has no longer.
async fn forget_applied(
    connection: &mut SqliteConnection,
    ids: impl Iterator<Item = Uuid>,
) -> Result<(), sqlx::Error> {
    const FORGET: &str = "DELETE FROM applied_erasures WHERE id NOT IN (SELECT value FROM json_each(?1))";
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    sqlx::query(FORGET).bind(json(&ids)?).execute(connection).await?;
    Ok(())
}

async fn delete_holds(connection: &mut SqliteConnection, visitor: &VisitorId) -> Result<(), sqlx::Error> {
    let delete = sqlx::query("DELETE FROM seats WHERE visitor = ?1").bind(visitor.as_str());
    delete.execute(connection).await?;
    Ok(())
}

/// An erasure in progress.
struct Eraser<'a> {
    store: &'a Store,
    archives: &'a Archives,
    at: Time,
    pending: Pending,
    erased: Erased,
    /// Changed rollups.
    rollups: BTreeSet<RollupKey>,
}

impl Eraser<'_> {
    async fn run(&mut self) -> Result<(), LifecycleError> {
        // Archives have no lines of a visitor who is hidden.
        if self.is_visible().await? {
            let months = self.unsplit_months().await?;
            for state in &months {
                if let Some(archive) = &state.archive {
                    self.erase_archive(state.month, archive).await?;
                }
            }
            self.erase_remaining_files(&months).await?;
            self.hide().await?;
        }
        for month in Partitions::read(&mut *self.store.read().await?).await?.live {
            self.erase_month(month).await?;
        }
        self.end().await
    }

    async fn is_visible(&self) -> Result<bool, LifecycleError> {
        const IS_VISIBLE: &str = "SELECT text IS NOT NULL FROM visitors WHERE number = ?1";
        let visible = sqlx::query_scalar(IS_VISIBLE).bind(self.pending.dictionary_id);
        Ok(visible.fetch_optional(&mut *self.store.read().await?).await?.unwrap_or_default())
    }

    /// Returns all months, after restoring those that are both in tables and in an archive.
    async fn unsplit_months(&self) -> Result<Vec<MonthState>, LifecycleError> {
        let both = self.store.months().await?.into_iter();
        for state in both.filter(|state| state.is_live && state.archive.is_some()) {
            self.store.restore_from(state.month, self.archives).await?;
        }
        self.store.months().await
    }

    /// Rewrites an archive without the visitor's lines. The ledger and then the database record the new checksum before
    /// the rename, so that recovery after a crash can decide by the checksum.
    async fn erase_archive(&mut self, month: Month, archive: &Archive) -> Result<(), LifecycleError> {
        let (path, dictionary_id) = (self.archives.path(&archive.name), self.pending.dictionary_id);
        let visitors = months::archived_visitors(&mut *self.store.read().await?, month).await?;
        if visitors.as_ref().is_some_and(|visitors| !visitors.contains(dictionary_id)) {
            return Ok(());
        }
        let (rows, found) = visitor_rows(path.clone(), &self.pending.visitor).await?;
        if found != archive.checksum {
            let expected = archive.checksum.clone();
            return Err(ArchiveError::Checksum { path, expected, found }.into());
        }
        if rows.is_empty() {
            return Ok(());
        }
        let checksum = self.draft_without(month, path, &found).await?;
        let mut transaction = self.store.begin().await?;
        let now = months::one(&mut transaction, month).await?.and_then(|state| state.archive);
        if now.as_ref() != Some(archive) {
            return Err(LifecycleError::Changed(month));
        }
        self.subtract(&mut transaction, &rows).await?;
        months::set_archive(&mut transaction, month, Some((&archive.name, &checksum))).await?;
        if let Some(mut visitors) = visitors {
            visitors.remove(dictionary_id);
            months::set_archived_visitors(&mut transaction, month, &visitors).await?;
        }
        used_texts::set_sweep_due(&mut transaction).await?;
        transaction.commit().await?;
        self.archives.publish(month, &checksum).await?;
        self.erased.archives.push(MonthRows { month, rows: rows.len() as u64 });
        Ok(())
    }

    /// Rewrites archive files that remained after a restore. Their rows are in the tables and are counted there.
    async fn erase_remaining_files(&mut self, months: &[MonthState]) -> Result<(), LifecycleError> {
        for month in self.archives.months(false).await? {
            if months.iter().any(|state| state.month == month && state.archive.is_some()) {
                continue;
            }
            let path = self.archives.path(&Archives::name(month));
            let (rows, found) = visitor_rows(path.clone(), &self.pending.visitor).await?;
            if !rows.is_empty() {
                let checksum = self.draft_without(month, path, &found).await?;
                self.archives.publish(month, &checksum).await?;
            }
        }
        Ok(())
    }

    /// Writes the draft of an archive without the visitor's lines. Records its checksum in the ledger, and returns it.
    async fn draft_without(&self, month: Month, path: PathBuf, from: &str) -> Result<String, ArchiveError> {
        let mut source = Source::open(path).await?;
        let mut draft = Draft::start(self.archives, month).await?;
        loop {
            let visitor = self.pending.visitor.clone();
            let read = move |line: &str| Ok((line.to_owned(), visitor_event(line, &visitor)?.is_empty()));
            let (rest, lines) = source.next(LINES, read).await?;
            source = rest;
            if lines.is_empty() {
                break;
            }
            let others = lines.into_iter().filter(|(_, is_other)| *is_other);
            draft = draft.add_lines(others.map(|(line, _)| line).collect()).await?;
        }
        let to = draft.finish().await?.checksum;
        let ledger = Ledger::read(self.archives).await?;
        ledger.add((self.pending.id, &self.pending.visitor, self.at), Some((month, from, &to))).await?;
        Ok(to)
    }

    /// Hides the visitor's dictionary entry: its text goes, and a random number takes the place of its hash. The row gets
    /// no longer, so that its page is not reorganized.
    async fn hide(&self) -> Result<(), LifecycleError> {
        const HIDE: &str = "UPDATE visitors SET text = NULL, hash = ?2 WHERE number = ?1";
        let [_, _, bytes @ .., _, _, _, _, _, _, _, _] = Uuid::new_v4().into_bytes();
        let random = bytes.into_iter().fold(0_i64, |number, byte| number << 8 | i64::from(byte)) >> 1;
        let mut transaction = self.store.begin().await?;
        sqlx::query(HIDE).bind(self.pending.dictionary_id).bind(random).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Deletes the visitor's rows of a month in slices.
    async fn erase_month(&mut self, month: Month) -> Result<(), LifecycleError> {
        self.store.convert(&BTreeSet::from([month])).await?;
        let mut size = SliceSize::rows();
        loop {
            let mut page = Pages::of_visitor(month, size.get(), self.pending.dictionary_id);
            let Some(rows) = page.read(self.store).await? else { return Ok(()) };
            let mut transaction = self.store.begin().await?;
            let started = Instant::now();
            if self.delete(&mut transaction, month, &rows).await? {
                transaction.commit().await?;
            }
            size.adapt(started.elapsed());
        }
    }

    /// Deletes rows, and subtracts them from the rollups. Returns false if some do not exist any more.
    async fn delete(
        &mut self,
        connection: &mut SqliteConnection,
        month: Month,
        rows: &Batch,
    ) -> Result<bool, sqlx::Error> {
        const REWRITE: &str = "UPDATE months SET rewrite = 1 WHERE month = ?1";
        Partitions::read(connection).await?.change(connection, month).await?;
        let ids = dictionary::find(connection, &[rows]).await?;
        let views = rows.page_views.iter().map(|view| key(view.id, &view.actor, &ids)).collect();
        let views = self.delete_rows(connection, RowKind::PageViews.table(month), views).await?;
        let watches = rows.watches.iter().map(|watch| key(watch.id, &watch.actor, &ids)).collect();
        let watches = self.delete_rows(connection, RowKind::WatchSessions.table(month), watches).await?;
        if views + watches != rows.len() as u64 {
            return Ok(false);
        }
        self.subtract(connection, rows).await?;
        let kept = self.keep_later(connection, rows).await?;
        let has_props = rows.page_views.iter().any(|view| view.props.is_some())
            || rows.watches.iter().any(|watch| watch.props.is_some());
        if has_props {
            sqlx::query(REWRITE).bind(month.to_string()).execute(&mut *connection).await?;
        }
        used_texts::set_sweep_due(connection).await?;
        self.erased.page_views += views - kept.page_views as u64;
        self.erased.watch_sessions += watches - kept.watch_sessions as u64;
        Ok(true)
    }

    /// Stores deleted rows of after the erasure again: those of a visitor who has returned since.
    async fn keep_later(
        &self,
        connection: &mut SqliteConnection,
        rows: &Batch,
    ) -> Result<Changes, sqlx::Error> {
        let Some(until) = self.pending.until else { return Ok(Changes::default()) };
        let mut later = rows.clone();
        later.retain(|_, time| time > until);
        if later.is_empty() {
            return Ok(Changes::default());
        }
        later.rename_visitors(|_| Some(self.pending.visitor.clone()));
        // The month is converted.
        Ok(Box::pin(commit::store(connection, &later)).await?.unwrap_or_default())
    }

    async fn delete_rows(
        &self,
        connection: &mut SqliteConnection,
        table: String,
        keys: Vec<(String, DictionaryId)>,
    ) -> Result<u64, sqlx::Error> {
        let delete = format!(
            "DELETE FROM {table} WHERE visitor = ?1 AND (id, room) IN
                 (SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?2))"
        );
        let query = sqlx::query(AssertSqlSafe(delete)).bind(self.pending.dictionary_id).bind(json(&keys)?);
        Ok(query.execute(connection).await?.rows_affected())
    }

    /// Subtracts deleted rows from the rollups and the sums.
    async fn subtract(&mut self, connection: &mut SqliteConnection, rows: &Batch) -> Result<(), sqlx::Error> {
        self.rollups.extend(roll_up::erase(connection, rows).await?);
        let mut records = rows.clone();
        records.rename_visitors(|_| Some(self.pending.visitor.clone()));
        let partitions = Partitions::read(connection).await?;
        let mut sums = SumDelta::new(&partitions.partly_summed);
        sums.subtract(records);
        month_sums::apply(connection, sums).await
    }

    /// Ends the erasure: no row has the visitor's dictionary id any more.
    async fn end(&self) -> Result<(), LifecycleError> {
        const UNLINK: &str = "UPDATE visitors SET hash = NULL WHERE number = ?1";
        const END: &str = "DELETE FROM erasures WHERE number = ?1";
        let mut transaction = self.store.begin().await?;
        for statement in [UNLINK, END] {
            sqlx::query(statement).bind(self.pending.dictionary_id).execute(&mut *transaction).await?;
        }
        set_applied(&mut transaction, self.pending.id).await?;
        delete_holds(&mut transaction, &self.pending.visitor).await?;
        Ok(transaction.commit().await?)
    }
}

/// What identifies a row of the visitor: its id in hexadecimal, and its room.
fn key(id: Uuid, actor: &Actor, ids: &DictionaryIds) -> (String, DictionaryId) {
    (id.simple().to_string(), ids.room(&actor.room))
}
