//! Encodes and decodes the values of SQLite columns, and lists as JSON parameters of statements.
//!
//! SQLite has neither unsigned integers nor lists.

use roaring::RoaringBitmap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::protocol::Time;

/// Encodes a number. SQLite's integers have a sign.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Encodes rows as one JSON parameter.
pub(in crate::history) fn json<T: Serialize + ?Sized>(rows: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Encodes a map or list of ids and texts, which cannot fail.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Decodes a column of JSON text.
pub(in crate::history) fn from_json<T: DeserializeOwned>(
    row: &SqliteRow,
    column: usize,
) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(decode_error)
}

/// Encodes a set of visitors.
pub(super) fn from_visitors(visitors: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(visitors.serialized_size());
    // A write to memory does not fail.
    let _ = visitors.serialize_into(&mut bytes);
    bytes
}

/// Decodes a set of visitors.
pub(in crate::history) fn to_visitors(bytes: &[u8]) -> Result<RoaringBitmap, sqlx::Error> {
    RoaringBitmap::deserialize_from(bytes).map_err(decode_error)
}

/// Converts to SQLite's integers, which are signed.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a time to milliseconds as SQLite stores them.
pub(super) fn millis(time: Time) -> i64 {
    signed(time.millis())
}

pub(in crate::history) fn decode_error(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
