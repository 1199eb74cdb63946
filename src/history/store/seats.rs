//! Seats: who was present when a hub stopped, for the next one.
//!
//! No history: nothing reads them but the next start, which deletes them in the same transaction.

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{CommitError, Store};
use crate::wire::{RoomId, Time, VisitorId};

/// A visitor's place in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seat {
    /// In which room.
    pub room: RoomId,
    /// Whose it is.
    pub visitor: VisitorId,
    /// In what mood.
    pub mood: Option<String>,
    /// Until when it is held.
    pub held_until: Time,
}

impl Store {
    /// Saves these seats, and no others.
    ///
    /// # Errors
    /// The database is locked, full, gone or broken. Nothing has changed.
    pub async fn save_seats(&self, seats: &[Seat]) -> Result<(), CommitError> {
        const INSERT: &str = "INSERT INTO seats (room, visitor, mood, held_until)
            SELECT value ->> 'room', value ->> 'visitor', value ->> 'mood', value ->> 'held_until'
            FROM json_each(?1)";
        let json = serde_json::to_string(seats).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM seats").execute(&mut *transaction).await?;
        sqlx::query(INSERT).bind(json).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// The saved seats, which are deleted.
    ///
    /// # Errors
    /// As above.
    pub async fn take_seats(&self) -> Result<Vec<Seat>, CommitError> {
        let mut transaction = self.begin().await?;
        let rows = sqlx::query("SELECT room, visitor, mood, held_until FROM seats")
            .fetch_all(&mut *transaction)
            .await?;
        if !rows.is_empty() {
            sqlx::query("DELETE FROM seats").execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        // Names that another version took and this one does not are nobody's.
        Ok(rows.iter().filter_map(seat).collect())
    }
}

fn seat(row: &SqliteRow) -> Option<Seat> {
    Some(Seat {
        room: RoomId::try_from(row.get::<&str, _>(0)).ok()?,
        visitor: VisitorId::try_from(row.get::<&str, _>(1)).ok()?,
        mood: row.get(2),
        held_until: Time::from_millis(u64::try_from(row.get::<i64, _>(3)).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(visitor: &str, mood: Option<&str>) -> Seat {
        Seat {
            room: RoomId::try_from("lobby").unwrap(),
            visitor: VisitorId::try_from(visitor).unwrap(),
            mood: mood.map(str::to_owned),
            held_until: Time::from_millis(1_800_000_000_000),
        }
    }

    #[tokio::test]
    async fn seats_are_taken_once_and_saved_anew() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        assert_eq!(store.take_seats().await.unwrap(), []);
        store.save_seats(&[seat("old", None)]).await.unwrap();
        let seats = [seat("ann", Some("calm")), seat("bob", None)];
        store.save_seats(&seats).await.unwrap();
        assert_eq!(store.take_seats().await.unwrap(), seats);
        assert_eq!(store.take_seats().await.unwrap(), []);
    }
}
