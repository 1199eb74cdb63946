//! Parses JSON to typed values, with errors that name the field and the rule.
//!
//! Socket messages and HTTP bodies use it. A syntax error is `bad-json`; every other error is `bad-field`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::code::ErrorCode;

/// JSON could not be parsed to a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// `bad-json` or `bad-field`.
    pub code: ErrorCode,
    /// For humans: the field and its rule.
    pub message: String,
}

impl ParseError {
    /// `bad-field`, for a field and its rule.
    pub(crate) fn field(field: &str, rule: &str) -> Self {
        Self { code: ErrorCode::BadField, message: format!("{field}: {rule}") }
    }

    fn json(message: &str) -> Self {
        Self { code: ErrorCode::BadJson, message: message.to_owned() }
    }
}

/// Parses one JSON object.
/// Errors: `bad-json` if the text is not a JSON object, `bad-field` if a field is missing or invalid.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ParseError> {
    // Derived structs would also accept an array of their fields.
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(ParseError::json("not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize(&mut json) {
        Ok(value) => json.end().map(|()| value).map_err(|error| ParseError::json(&rule(&error))),
        Err(error) => Err(parse_error(text, &error.path().to_string(), error.inner())),
    }
}

fn parse_error(text: &str, path: &str, error: &serde_json::Error) -> ParseError {
    // A syntax error after an invalid field takes precedence.
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(syntax) => ParseError::json(&rule(&syntax)),
        Ok(_) if path == "." => ParseError { code: ErrorCode::BadField, message: rule(error) },
        Ok(_) => ParseError::field(&short(path), &rule(error)),
    }
}

/// The error without the position that `serde_json` appends, which does not help in one message.
fn rule(error: &serde_json::Error) -> String {
    let text = error.to_string();
    short(text.rsplit_once(" at line ").map_or(text.as_str(), |(rule, _)| rule))
}

/// Truncates to 200 bytes: errors quote what the client sent, but not all of it.
fn short(text: &str) -> String {
    const LIMIT: usize = 200;
    if text.len() <= LIMIT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(LIMIT);
    format!("{}…", text.get(..end).unwrap_or_default())
}
