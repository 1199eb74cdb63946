//! The fields of an imported row, read one by one as typed values.
//!
//! Each error names the field and the rule, for all file formats. Pure.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cli::columns;
use crate::protocol::parse::ParseError;

/// Why a row is rejected: the rule, and the field if one field breaks it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub(in crate::cli) struct RowError {
    rule: String,
    /// Whether nothing behind the row can be read.
    pub(in crate::cli) is_last: bool,
}

impl RowError {
    /// An error of the whole row.
    pub(in crate::cli) fn row(rule: impl fmt::Display) -> Self {
        Self { rule: rule.to_string(), is_last: false }
    }

    /// An error after which the rest of the file cannot be read.
    pub(in crate::cli) fn last(rule: impl fmt::Display) -> Self {
        Self { rule: rule.to_string(), is_last: true }
    }

    /// An error of one field.
    pub(in crate::cli) fn field(name: &str, rule: impl fmt::Display) -> Self {
        Self::row(format_args!("{name}: {rule}"))
    }
}

impl From<ParseError> for RowError {
    fn from(problem: ParseError) -> Self {
        Self::row(problem.message)
    }
}

/// The fields of one row.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) enum Fields {
    /// Fields of a JSON object.
    Object(Map<String, Value>),
    /// Cells of a CSV row, by column.
    Cells(Map<String, Value>),
}

impl Fields {
    /// Returns a field's value as in the file. An empty cell is null.
    pub(in crate::cli) fn get(&self, name: &str) -> Option<&Value> {
        let (Self::Object(values) | Self::Cells(values)) = self;
        values.get(name)
    }

    /// Removes and parses a field, if it is present.
    pub(in crate::cli) fn optional<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, RowError> {
        let value = match self {
            Self::Object(values) => values.remove(name),
            Self::Cells(values) => values.remove(name).map(|cell| match cell {
                Value::String(text) => columns::value(name, &text),
                other => other,
            }),
        };
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                serde_json::from_value(value).map(Some).map_err(|rule| RowError::field(name, rule))
            }
        }
    }

    /// Removes and parses a required field.
    pub(in crate::cli) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, RowError> {
        self.optional(name)?.ok_or_else(|| RowError::field(name, "is missing"))
    }

    /// Rejects unknown fields, so that a misspelled name loses no value silently.
    pub(in crate::cli) fn end(self) -> Result<(), RowError> {
        let (Self::Object(values) | Self::Cells(values)) = self;
        match values.into_iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => Err(RowError::field(&name, "does not belong to this type")),
        }
    }
}
