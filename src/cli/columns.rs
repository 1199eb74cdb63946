//! Records as CSV rows, with one column for each field of all record types.
//!
//! A cell is the field's text, or JSON if it is no text. An absent field is an empty cell. Pure.

use serde_json::{Map, Value};

use crate::history::record::Record;

/// The columns, in file order.
pub(super) const COLUMNS: [&str; 22] = [
    "type",
    "id",
    "room",
    "visitor",
    "isBot",
    "path",
    "title",
    "referrer",
    "content",
    "state",
    "at",
    "startedAt",
    "seenAt",
    "watchedMs",
    "positionMs",
    "positionAt",
    "durationMs",
    "nodes",
    "hub",
    "rooms",
    "props",
    "propsAt",
];

/// The columns of text; others are JSON.
const TEXTS: [&str; 9] = ["type", "id", "room", "visitor", "path", "title", "referrer", "content", "state"];

/// Returns the record's cells, one for each column.
pub(super) fn cells(record: &Record) -> serde_json::Result<Vec<String>> {
    let mut fields: Map<String, Value> = serde_json::from_value(serde_json::to_value(record)?)?;
    let cell = |column: &str| match fields.remove(column) {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    Ok(COLUMNS.into_iter().map(cell).collect())
}

/// Parses a cell. Invalid JSON becomes text, which the field's type then rejects.
pub(super) fn value(column: &str, cell: &str) -> Value {
    match cell {
        "" => Value::Null,
        text if TEXTS.contains(&column) => Value::from(text),
        json => serde_json::from_str(json).unwrap_or_else(|_| Value::from(json)),
    }
}
