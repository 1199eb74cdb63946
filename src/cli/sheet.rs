//! Records as rows of a table, for CSV: one column for every field that any record has.
//!
//! A cell is the field's text, or its JSON where it is not text; where there is none, it is empty. Pure.

use serde_json::{Map, Value};

use crate::history::record::Record;

/// The columns, in their order in a file.
pub(super) const COLUMNS: [&str; 21] = [
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
    "hub",
    "rooms",
    "props",
    "propsAt",
];

/// Those whose cells are texts.
const TEXTS: [&str; 9] = ["type", "id", "room", "visitor", "path", "title", "referrer", "content", "state"];

/// The record's cells, one for each column.
pub(super) fn cells(record: &Record) -> serde_json::Result<Vec<String>> {
    let mut fields: Map<String, Value> = serde_json::from_value(serde_json::to_value(record)?)?;
    let cell = |column: &str| match fields.remove(column) {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    Ok(COLUMNS.into_iter().map(cell).collect())
}

/// The field's value that a cell tells. One that should be JSON and is not, is text, which its type refuses.
pub(super) fn value(column: &str, cell: &str) -> Value {
    match cell {
        "" => Value::Null,
        text if TEXTS.contains(&column) => Value::from(text),
        json => serde_json::from_str(json).unwrap_or_else(|_| Value::from(json)),
    }
}
