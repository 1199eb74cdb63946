//! From JSON text to typed values, with refusals that name the field and the rule.
//!
//! The same path serves socket messages and HTTP bodies. A syntax error is `bad-json`; everything
//! else that does not fit is `bad-field`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::code::ErrorCode;

/// A value could not be taken from JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// `bad-json` or `bad-field`.
    pub code: ErrorCode,
    /// For people: the field and the rule it broke.
    pub message: String,
}

impl ParseError {
    /// `bad-field`, for the field and the rule it broke.
    #[must_use]
    pub(crate) fn field(field: &str, rule: &str) -> Self {
        Self { code: ErrorCode::BadField, message: format!("{field}: {rule}") }
    }

    fn json(message: &str) -> Self {
        Self { code: ErrorCode::BadJson, message: message.to_owned() }
    }
}

/// Reads one JSON object.
///
/// # Errors
/// `bad-json` where the text is not a JSON object, `bad-field` where a field is missing or wrong.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ParseError> {
    // Derived structs would take an array as their fields in order.
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(ParseError::json("not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize(&mut json) {
        Ok(value) => json.end().map(|()| value).map_err(|error| ParseError::json(&rule(&error))),
        Err(error) => Err(problem(text, &error.path().to_string(), error.inner())),
    }
}

fn problem(text: &str, path: &str, error: &serde_json::Error) -> ParseError {
    // A wrong field may come before a syntax error, which is the graver of the two.
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(syntax) => ParseError::json(&rule(&syntax)),
        Ok(_) if path == "." => ParseError { code: ErrorCode::BadField, message: rule(error) },
        Ok(_) => ParseError::field(&short(path), &rule(error)),
    }
}

/// What was wrong, without the position that `serde_json` adds, which means little in one message.
fn rule(error: &serde_json::Error) -> String {
    let text = error.to_string();
    short(text.rsplit_once(" at line ").map_or(text.as_str(), |(rule, _)| rule))
}

/// Messages may quote what the client sent; they need not quote all of it.
fn short(text: &str) -> String {
    const LIMIT: usize = 200;
    if text.len() <= LIMIT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(LIMIT);
    format!("{}…", text.get(..end).unwrap_or_default())
}
