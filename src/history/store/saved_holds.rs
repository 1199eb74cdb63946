//! Seats: who counts as present without a socket, and who was present when a hub stopped, for the next one.
//!
//! No history: nothing reads them but the next start. They stand in the table until others take their place.

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{CommitError, Store};
use crate::protocol::{RoomId, Time, VisitorId};

/// A visitor's place in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SavedHold {
    /// In which room.
    pub room: RoomId,
    /// Whose it is.
    pub visitor: VisitorId,
    /// In what mood.
    pub mood: Option<String>,
    /// Why it is held, by the reason's name.
    pub reason: String,
    /// Until when it is held.
    pub held_until: Time,
}

impl Store {
    /// Saves these seats, and no others. They are taken when it is this transaction's turn, so that whoever was erased
    /// before is not among them. Where there are none, neither here nor there, nothing is written.
    ///
    /// # Errors
    /// The database is locked, full, gone or broken. Nothing has changed.
    pub(crate) async fn save_holds(&self, seats: impl FnOnce() -> Vec<SavedHold>) -> Result<(), CommitError> {
        const INSERT: &str = "INSERT INTO seats (room, visitor, mood, reason, held_until)
            SELECT value ->> 'room', value ->> 'visitor', value ->> 'mood', value ->> 'reason', value ->> 'held_until'
            FROM json_each(?1)";
        const IS_EMPTY: &str = "SELECT NOT EXISTS (SELECT 1 FROM seats)";
        let mut transaction = self.begin().await?;
        let seats = seats();
        let is_empty: bool = sqlx::query_scalar(IS_EMPTY).fetch_one(&mut *transaction).await?;
        if !(seats.is_empty() && is_empty) {
            let json = serde_json::to_string(&seats).map_err(|error| sqlx::Error::Encode(error.into()))?;
            sqlx::query("DELETE FROM seats").execute(&mut *transaction).await?;
            sqlx::query(INSERT).bind(json).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// The saved seats. One that this version cannot read, since another one wrote it, is none.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn saved_holds(&self) -> Result<Vec<Option<SavedHold>>, CommitError> {
        let query = sqlx::query("SELECT room, visitor, mood, reason, held_until FROM seats");
        let rows = query.fetch_all(&mut *self.connection().await?).await?;
        Ok(rows.iter().map(seat).collect())
    }
}

fn seat(row: &SqliteRow) -> Option<SavedHold> {
    Some(SavedHold {
        room: RoomId::try_from(row.get::<&str, _>(0)).ok()?,
        visitor: VisitorId::try_from(row.get::<&str, _>(1)).ok()?,
        mood: row.get(2),
        reason: row.get(3),
        held_until: Time::from_millis(u64::try_from(row.get::<i64, _>(4)).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(visitor: &str, mood: Option<&str>) -> SavedHold {
        SavedHold {
            room: RoomId::try_from("lobby").unwrap(),
            visitor: VisitorId::try_from(visitor).unwrap(),
            mood: mood.map(str::to_owned),
            reason: "restart".to_owned(),
            held_until: Time::from_millis(1_800_000_000_000),
        }
    }

    #[tokio::test]
    async fn seats_stay_until_others_take_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        assert_eq!(store.saved_holds().await.unwrap(), []);
        store.save_holds(|| vec![seat("old", None)]).await.unwrap();
        let grace = SavedHold { reason: "grace".to_owned(), ..seat("bob", None) };
        let seats = [seat("ann", Some("calm")), grace];
        store.save_holds(|| seats.to_vec()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(store.saved_holds().await.unwrap(), seats.clone().map(Some));
        }
        store.save_holds(Vec::new).await.unwrap();
        assert_eq!(store.saved_holds().await.unwrap(), []);
    }
}
