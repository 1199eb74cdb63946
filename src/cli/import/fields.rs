//! A row's fields, from which typed values are taken one by one.
//!
//! So every refusal can name the field and the rule that it broke, wherever the row came from. Pure.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cli::sheet;
use crate::protocol::parse::ParseError;

/// Why a row was refused: the field, where it is one field's fault, and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct Refusal(String);

impl Refusal {
    /// The whole row breaks a rule.
    pub(in crate::cli) fn row(rule: impl fmt::Display) -> Self {
        Self(rule.to_string())
    }

    /// One field does.
    pub(in crate::cli) fn field(name: &str, rule: impl fmt::Display) -> Self {
        Self(format!("{name}: {rule}"))
    }
}

impl From<ParseError> for Refusal {
    fn from(problem: ParseError) -> Self {
        Self(problem.message)
    }
}

/// The fields of one row.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) enum Fields {
    /// Of a JSON object.
    Object(Map<String, Value>),
    /// Of a row of CSV: texts by column.
    Cells(Map<String, Value>),
}

impl Fields {
    /// The value of a field, as it stands in the file. An empty cell is null.
    pub(in crate::cli) fn get(&self, name: &str) -> Option<&Value> {
        let (Self::Object(values) | Self::Cells(values)) = self;
        values.get(name)
    }

    /// Takes a field's value out, where there is one.
    pub(in crate::cli) fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let value = match self {
            Self::Object(values) => values.remove(name),
            Self::Cells(values) => values.remove(name).map(|cell| match cell {
                Value::String(text) => sheet::value(name, &text),
                other => other,
            }),
        };
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|rule| Refusal::field(name, rule)),
        }
    }

    /// Takes out the value of a field that must be there.
    pub(in crate::cli) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Refusal> {
        self.optional(name)?.ok_or_else(|| Refusal::field(name, "is missing"))
    }

    /// Nothing else may be left: a wrong name would lose a value in silence.
    pub(in crate::cli) fn end(self) -> Result<(), Refusal> {
        let (Self::Object(values) | Self::Cells(values)) = self;
        match values.into_iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::field(&name, "does not belong to this type")),
        }
    }
}
