//! Saved holds: which visitors count as present without a socket, for the hub's next start.
//!
//! They are no history: only the next start reads them. The table `seats` keeps them until the next save.

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{CommitError, Store};
use crate::protocol::{RoomId, Time, VisitorId};

/// A visitor's hold in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SavedHold {
    /// The room.
    pub room: RoomId,
    /// The visitor.
    pub visitor: VisitorId,
    /// The visitor's mood.
    pub mood: Option<String>,
    /// The name of the hold's reason.
    pub reason: String,
    /// The hold's deadline, if the hub does not stop.
    pub held_until: Time,
    /// When the hub stopped in order. While it runs there is none.
    pub stopped_at: Option<Time>,
    /// The latest deadline, over all restarts.
    pub latest: Time,
    /// The end of the visitor's sit, if the hub does not stop.
    pub sit_until: Option<Time>,
    /// The latest end of the sit, over all restarts.
    pub sit_latest: Option<Time>,
}

impl Store {
    /// Replaces the saved holds. `holds` is called within the transaction, so that visitors who were erased before are
    /// not included. Writes nothing if there are no holds before and after.
    /// Errors: the database is locked, full, gone or damaged. It is unchanged.
    pub(crate) async fn save_holds(&self, holds: impl FnOnce() -> Vec<SavedHold>) -> Result<(), CommitError> {
        const INSERT: &str = "INSERT INTO seats
                (room, visitor, mood, reason, held_until, stopped_at, latest, sit_until, sit_latest)
            SELECT value ->> 'room', value ->> 'visitor', value ->> 'mood', value ->> 'reason', value ->> 'held_until',
                   value ->> 'stopped_at', value ->> 'latest', value ->> 'sit_until', value ->> 'sit_latest'
            FROM json_each(?1)";
        const IS_EMPTY: &str = "SELECT NOT EXISTS (SELECT 1 FROM seats)";
        let mut transaction = self.begin().await?;
        let holds = holds();
        let is_empty: bool = sqlx::query_scalar(IS_EMPTY).fetch_one(&mut *transaction).await?;
        if !(holds.is_empty() && is_empty) {
            let json = serde_json::to_string(&holds).map_err(|error| sqlx::Error::Encode(error.into()))?;
            sqlx::query("DELETE FROM seats").execute(&mut *transaction).await?;
            sqlx::query(INSERT).bind(json).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// Reads the saved holds. One of another version that this version cannot read is `None`.
    /// Errors: as above.
    pub(crate) async fn saved_holds(&self) -> Result<Vec<Option<SavedHold>>, CommitError> {
        const ALL: &str = "
            SELECT room, visitor, mood, reason, held_until, stopped_at, coalesce(latest, held_until), sit_until,
                   sit_latest
            FROM seats";
        let rows = sqlx::query(ALL).fetch_all(&mut *self.connection().await?).await?;
        Ok(rows.iter().map(decode).collect())
    }
}

fn decode(row: &SqliteRow) -> Option<SavedHold> {
    Some(SavedHold {
        room: RoomId::try_from(row.get::<&str, _>(0)).ok()?,
        visitor: VisitorId::try_from(row.get::<&str, _>(1)).ok()?,
        mood: row.get(2),
        reason: row.get(3),
        held_until: time(row.get(4))?,
        stopped_at: row.get::<Option<i64>, _>(5).and_then(time),
        latest: time(row.get(6))?,
        sit_until: row.get::<Option<i64>, _>(7).and_then(time),
        sit_latest: row.get::<Option<i64>, _>(8).and_then(time),
    })
}

fn time(millis: i64) -> Option<Time> {
    Some(Time::from_millis(u64::try_from(millis).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(visitor: &str, mood: Option<&str>) -> SavedHold {
        SavedHold {
            room: RoomId::try_from("lobby").unwrap(),
            visitor: VisitorId::try_from(visitor).unwrap(),
            mood: mood.map(str::to_owned),
            reason: "restart".to_owned(),
            held_until: Time::from_millis(1_800_000_000_000),
            stopped_at: None,
            latest: Time::from_millis(1_800_000_001_000),
            sit_until: None,
            sit_latest: None,
        }
    }

    #[tokio::test]
    async fn saved_holds_stay_until_the_next_save() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        assert_eq!(store.saved_holds().await.unwrap(), []);
        store.save_holds(|| vec![hold("old", None)]).await.unwrap();
        let stopped_at = Some(Time::from_millis(1_700_000_000_000));
        let grace = SavedHold { reason: "grace".to_owned(), stopped_at, ..hold("bob", None) };
        let (sit_until, sit_latest) = (stopped_at, stopped_at);
        let sit = SavedHold { reason: "sit".to_owned(), sit_until, sit_latest, ..hold("eve", None) };
        let holds = [hold("ann", Some("calm")), grace, sit];
        store.save_holds(|| holds.to_vec()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(store.saved_holds().await.unwrap(), holds.clone().map(Some));
        }
        store.save_holds(Vec::new).await.unwrap();
        assert_eq!(store.saved_holds().await.unwrap(), []);
    }
}
