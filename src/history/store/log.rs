//! The log's tables: how far this file has the log, and the messages that are not in it yet.
//!
//! Both change in the transaction that commits the events, so that the position is that of the rows, and a message waits
//! in the outbox exactly if its events are in the file and not in the log.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::{Connection, Row, SqliteConnection};

use super::codec::number;
use super::{CommitError, LifecycleError, ReadError, Store, erased_visitors, month_sums};
use crate::history::journal::TRANSACTION_BYTES;
use crate::history::log::erasures::LoggedErasure;
use crate::history::log::message::without;
use crate::history::log::status::RecordsAt;
use crate::history::record_sum::RecordSum;
use crate::protocol::{Time, VisitorId};

/// What a commit changes besides the events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogChange {
    /// The new position.
    pub moved: Option<Moved>,
    /// Messages that wait for the log from now on, with their ids.
    pub outbox: Vec<(String, Bytes)>,
    /// The last message in the log whose events are own ones, and are committed now.
    pub own: Option<u64>,
    /// Erasures that begin.
    pub erasures: Vec<LoggedErasure>,
    /// The first message of the log that has events of an erased visitor.
    pub late: Option<u64>,
}

/// A step in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The name of the log.
    pub log: Arc<str>,
    /// The position that the file must have. With another one, which a file that was replaced has, nothing moves.
    pub from: u64,
    /// The position afterwards.
    pub to: u64,
}

/// The position of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRow {
    /// The name of the log.
    pub log: String,
    /// The last message that is in the file.
    pub position: u64,
    /// From when on events are to be published again.
    pub resend_from: Option<Time>,
}

/// A message that is not in the log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxMessage {
    /// Its number in the outbox.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// Its bytes.
    pub message: Bytes,
}

impl LogChange {
    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.moved.is_none() && self.outbox.is_empty() && self.erasures.is_empty() && self.late.is_none()
    }

    /// Writes the changes in the current transaction. Returns whether the file had the expected position.
    pub(super) async fn write(&self, connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        const MOVE: &str = "UPDATE log SET position = ?1 WHERE name = ?2 AND position = ?3";
        const ADD: &str = "INSERT INTO outbox (id, message) VALUES (?1, ?2)";
        let mut is_expected = true;
        if let Some(Moved { log, from, to }) = &self.moved {
            let query = sqlx::query(MOVE).bind(number(*to)).bind(&**log).bind(number(*from));
            is_expected = query.execute(&mut *connection).await?.rows_affected() == 1;
        }
        for (id, message) in &self.outbox {
            sqlx::query(ADD).bind(id).bind(&message[..]).execute(&mut *connection).await?;
        }
        if let Some(own) = self.own {
            set_own_position(connection, own).await?;
        }
        erased_visitors::add(connection, &self.erasures).await?;
        if let Some(position) = self.late {
            erased_visitors::clean_from(connection, position).await?;
        }
        Ok(is_expected)
    }
}

/// Notes that the file has the events of an own message of the log.
async fn set_own_position(connection: &mut SqliteConnection, position: u64) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE log SET own_position = max(own_position, ?1)";
    sqlx::query(SET).bind(number(position)).execute(connection).await.map(drop)
}

impl Store {
    /// Returns the position of the file; none before its first log.
    /// Errors: the database failed.
    pub(crate) async fn log_row(&self) -> Result<Option<LogRow>, ReadError> {
        const ROW: &str = "SELECT name, position, resend_from FROM log";
        let row = sqlx::query(ROW).fetch_optional(&mut *self.read().await?).await?;
        Ok(row.map(|row| LogRow {
            log: row.get(0),
            position: row.get::<i64, _>(1).try_into().unwrap_or_default(),
            resend_from: row
                .get::<Option<i64>, _>(2)
                .and_then(|at| at.try_into().ok())
                .map(Time::from_millis),
        }))
    }

    /// Sets the position of the file.
    /// Errors: the database is locked, full, gone or damaged. It is unchanged.
    pub(crate) async fn set_log_row(&self, row: &LogRow) -> Result<(), CommitError> {
        const SET: &str =
            "INSERT OR REPLACE INTO log (one, name, position, resend_from) VALUES (1, ?1, ?2, ?3)";
        let mut transaction = self.begin().await?;
        let resend_from = row.resend_from.map(|at| number(at.millis()));
        let query = sqlx::query(SET).bind(&row.log).bind(number(row.position)).bind(resend_from);
        query.execute(&mut *transaction).await?;
        if row.resend_from.is_some() {
            erased_visitors::clean_all(&mut transaction).await?;
        }
        transaction.commit().await
    }

    /// All events of this log are published again, the last ones at this position.
    /// Errors: as above.
    pub(crate) async fn end_resend(&self, log: &str, position: u64) -> Result<(), CommitError> {
        let mut transaction = self.begin().await?;
        set_own_position(&mut transaction, position).await?;
        let query = sqlx::query("UPDATE log SET resend_from = NULL WHERE name = ?1").bind(log);
        query.execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// Counts the messages of the outbox.
    /// Errors: the database failed.
    pub(crate) async fn outbox_len(&self) -> Result<u64, ReadError> {
        let mut connection = self.read().await?;
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&mut *connection).await?;
        Ok(count.try_into().unwrap_or_default())
    }

    /// Returns the oldest messages of the outbox: so many at most, and not many more bytes than in a transaction.
    /// Errors: the database failed.
    pub(crate) async fn oldest_in_outbox(&self, most: u32) -> Result<Vec<OutboxMessage>, ReadError> {
        const OLDEST: &str = "SELECT number, id, message FROM outbox ORDER BY number LIMIT ?1";
        let mut connection = self.read().await?;
        let mut rows = sqlx::query(OLDEST).bind(most).fetch(&mut *connection);
        let (mut oldest, mut bytes) = (Vec::new(), 0);
        while bytes < TRANSACTION_BYTES
            && let Some(row) = rows.try_next().await?
        {
            let message: Bytes = row.get::<Vec<u8>, _>(2).into();
            bytes += message.len();
            oldest.push(OutboxMessage { number: row.get(0), id: row.get(1), message });
        }
        Ok(oldest)
    }

    /// Removes messages from the outbox: the log has them at these positions. Returns how many are left.
    /// Errors: the database is locked, full, gone or damaged. It is unchanged.
    pub(crate) async fn remove_from_outbox(
        &self,
        stored: &[(OutboxMessage, u64)],
    ) -> Result<u64, CommitError> {
        // In a file that was replaced since, the number may be that of another message.
        const REMOVE: &str = "DELETE FROM outbox WHERE number = ?1 AND id = ?2";
        let mut transaction = self.begin().await?;
        for (message, position) in stored {
            set_own_position(&mut transaction, *position).await?;
            let query = sqlx::query(REMOVE).bind(message.number).bind(&message.id);
            query.execute(&mut *transaction).await?;
        }
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(left.try_into().unwrap_or_default())
    }
}

impl Store {
    /// Returns what the records of the file add up to at its position; none while it has events that the log has only
    /// later or not yet, erasures that are not finished, or sums that maintenance has still to make.
    /// Errors: the database failed.
    pub(crate) async fn records_at_position(&self) -> Result<Option<RecordsAt>, ReadError> {
        const WHOLE: &str = "
            SELECT name, position FROM log
            WHERE own_position <= position AND resend_from IS NULL AND NOT EXISTS (SELECT 1 FROM outbox)
              AND NOT EXISTS (SELECT 1 FROM erasures)
              AND NOT EXISTS (SELECT 1 FROM erased_visitors WHERE NOT is_done)";
        let mut connection = self.read().await?;
        let mut snapshot = connection.begin().await?;
        let Some(row) = sqlx::query(WHOLE).fetch_optional(&mut *snapshot).await? else { return Ok(None) };
        let mut sum = RecordSum::default();
        for month in month_sums::all(&mut snapshot).await? {
            let Some(known) = month.sum else { return Ok(None) };
            sum.add(known);
        }
        let (log, position): (String, i64) = (row.get(0), row.get(1));
        Ok(Some(RecordsAt { log: log.into(), position: position.try_into().unwrap_or_default(), sum }))
    }
}

impl Store {
    /// Removes a visitor's events up to a time from the messages of the outbox; all of them, without a time.
    /// Errors: the database is locked, full, gone or damaged. A retry continues.
    pub(super) async fn erase_from_outbox(
        &self,
        visitor: &VisitorId,
        until: Option<Time>,
    ) -> Result<(), LifecycleError> {
        const NEXT: &str = "SELECT number, message FROM outbox WHERE number > ?1 ORDER BY number LIMIT 1";
        const REWRITE: &str = "UPDATE outbox SET message = ?2 WHERE number = ?1";
        let is_kept =
            |other: &VisitorId, time: Time| other != visitor || until.is_some_and(|until| time > until);
        let mut after = 0_i64;
        loop {
            let next: Option<(i64, Vec<u8>)> =
                sqlx::query_as(NEXT).bind(after).fetch_optional(&mut *self.read().await?).await?;
            let Some((number, message)) = next else { return Ok(()) };
            if let Some(rewritten) = without(&message, is_kept) {
                let mut transaction = self.begin().await?;
                let query = sqlx::query(REWRITE).bind(number).bind(&rewritten[..]);
                query.execute(&mut *transaction).await?;
                transaction.commit().await?;
            }
            after = number;
        }
    }
}

#[cfg(test)]
impl Store {
    /// Removing a message from the outbox fails, as on a full disk, or not any more.
    pub(in crate::history) async fn keep_outbox(&self, keeps: bool) {
        const KEEP: &str = "
            CREATE TRIGGER kept BEFORE DELETE ON outbox BEGIN SELECT raise(ABORT, 'it is kept'); END";
        let query = if keeps { KEEP } else { "DROP TRIGGER kept" };
        sqlx::query(query).execute(&mut *self.connection().await.unwrap()).await.unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::archive::{Archives, parse_line};
    use crate::history::event::Batch;
    use crate::history::log::message::{Body, Encoder, Origin, decode};
    use crate::history::store::Erasure;

    #[tokio::test]
    async fn position_moves_from_the_expected_one_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        assert_eq!(store.log_row().await.unwrap(), None);
        let resend_from = Some(Time::from_millis(7));
        let row = LogRow { log: "a".to_owned(), position: 3, resend_from };
        store.set_log_row(&row).await.unwrap();
        let moved = |log: &str, from, to| LogChange {
            moved: Some(Moved { log: log.into(), from, to }),
            ..LogChange::default()
        };
        for (change, position) in [(moved("a", 3, 5), 5), (moved("a", 3, 9), 5), (moved("b", 5, 9), 5)] {
            let is_expected = store.commit_logged(&Batch::default(), &change).await.unwrap();
            let (from, to) = change.moved.map(|moved| (moved.from, moved.to)).unwrap();
            assert_eq!(
                (store.log_row().await.unwrap().unwrap().position, is_expected),
                (position, from == 3 && to == 5)
            );
        }
        store.end_resend("b", 0).await.unwrap();
        assert_eq!(store.log_row().await.unwrap(), Some(LogRow { position: 5, ..row.clone() }));
        store.end_resend("a", 0).await.unwrap();
        assert_eq!(store.log_row().await.unwrap(), Some(LogRow { position: 5, resend_from: None, ..row }));
    }

    #[tokio::test]
    async fn sum_is_that_of_a_position_only_if_the_file_has_nothing_beyond_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let position = async || store.records_at_position().await.unwrap().map(|records| records.position);
        assert_eq!(position().await, None, "no log");
        store.set_log_row(&LogRow { log: "a".to_owned(), position: 3, resend_from: None }).await.unwrap();
        assert_eq!(position().await, Some(3));
        let commit = async |change| store.commit_logged(&Batch::default(), &change).await.unwrap();
        let to = |from, to| Some(Moved { log: "a".into(), from, to });
        // Own events that this node has not read back yet.
        commit(LogChange { own: Some(5), ..LogChange::default() }).await;
        assert_eq!(position().await, None);
        commit(LogChange { moved: to(3, 4), ..LogChange::default() }).await;
        assert_eq!(position().await, None);
        commit(LogChange { moved: to(4, 6), own: Some(4), ..LogChange::default() }).await;
        assert_eq!(position().await, Some(6));
        // Events that are not in the log.
        let outbox = vec![("id".to_owned(), Bytes::new())];
        commit(LogChange { outbox, ..LogChange::default() }).await;
        assert_eq!(position().await, None);
        let oldest = store.oldest_in_outbox(9).await.unwrap().remove(0);
        let other = OutboxMessage { id: "of another file".to_owned(), ..oldest.clone() };
        assert_eq!(store.remove_from_outbox(&[(other, 7)]).await.unwrap(), 1);
        assert_eq!(store.remove_from_outbox(&[(oldest, 7)]).await.unwrap(), 0);
        assert_eq!(position().await, None, "it is in the log, and not read back");
        commit(LogChange { moved: to(6, 7), ..LogChange::default() }).await;
        assert_eq!(position().await, Some(7));
        // Events that are published again.
        let from = Some(Time::from_millis(7));
        store.set_log_row(&LogRow { log: "b".to_owned(), position: 0, resend_from: from }).await.unwrap();
        assert_eq!(position().await, None);
        store.end_resend("b", 2).await.unwrap();
        assert_eq!(position().await, None);
    }

    #[tokio::test]
    async fn erased_visitor_is_in_no_message_of_the_outbox() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let view = |visitor: &str, id: u8| {
            let line = format!(
                r#"{{"type":"page-view","id":"018f0e6e-0000-7000-8000-0000000000{id:02}","room":"r","visitor":"{visitor}","path":"/","at":1700000000000}}"#
            );
            parse_line(&line).unwrap()
        };
        let mut encoder = Encoder::new(Origin::new());
        let mut outbox = Vec::new();
        for batch in [
            Batch::from_iter([view("ann", 1), view("bob", 2)]),
            view("bob", 3),
            Batch::from_iter([view("ann", 4), view("ann", 5)]),
        ] {
            for encoded in encoder.encode(batch) {
                outbox.push((encoded.id.to_string(), encoded.message));
            }
        }
        let change = LogChange { outbox, ..LogChange::default() };
        store.commit_logged(&view("ann", 1), &change).await.unwrap();
        let archives = Archives::new(Some(folder.path().join("archive")), &store.path());
        let ann = VisitorId::try_from("ann").unwrap();
        store.erase(&ann, &archives, Erasure::of_all(Time::from_millis(1))).await.unwrap();
        let oldest = store.oldest_in_outbox(9).await.unwrap();
        let left: Vec<_> = oldest.iter().map(|oldest| decode(&oldest.message).unwrap()).collect();
        assert_eq!(left, [view("bob", 2), view("bob", 3), Batch::default()].map(Body::Events));
    }

    #[tokio::test]
    async fn outbox_is_read_in_the_order_of_commits_up_to_a_number_and_some_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let oldest = async |most| store.oldest_in_outbox(most).await.unwrap();
        assert_eq!(oldest(9).await, []);
        let large = Bytes::from(vec![b'x'; TRANSACTION_BYTES]);
        for messages in [vec![("a", "1".into()), ("b", "2".into())], vec![("c", large), ("d", "4".into())]] {
            let outbox = messages.into_iter().map(|(id, message)| (id.to_owned(), message)).collect();
            let change = LogChange { outbox, ..LogChange::default() };
            store.commit_logged(&Batch::default(), &change).await.unwrap();
        }
        let ids =
            |oldest: &[OutboxMessage]| oldest.iter().map(|oldest| oldest.id.clone()).collect::<String>();
        let first = oldest(2).await;
        assert_eq!((ids(&first), &first[1].message[..]), ("ab".to_owned(), &b"2"[..]));
        assert_eq!(ids(&oldest(9).await), "abc", "the third has as many bytes as a transaction");
        let stored: Vec<_> = first.into_iter().zip([7, 8]).collect();
        assert_eq!(store.remove_from_outbox(&stored).await.unwrap(), 2);
        assert_eq!((ids(&oldest(9).await), store.outbox_len().await.unwrap()), ("c".to_owned(), 2));
    }
}
