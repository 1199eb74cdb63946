//! Values inside messages. Each type can hold valid values only.
//!
//! A value that breaks its rule is an error while it is parsed. The error has the rule, and the parser adds the field's
//! name.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The largest integer that every JSON parser represents exactly: 2^53 − 1 (RFC 8259, section 6).
pub(super) const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// The last millisecond of the year 9999: calendars end there.
pub(super) const MAX_TIME: u64 = 253_402_300_799_999;

/// A value breaks the rule of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Text with too many bytes of UTF-8.
    #[error("must be at most {0} bytes")]
    TooLong(usize),
    /// Empty text where that is not allowed.
    #[error("must not be empty")]
    Empty,
    /// Text with U+0000, which truncates text in databases.
    #[error("must not contain U+0000")]
    Nul,
    /// An integer above its limit.
    #[error("must be at most {0}")]
    TooLarge(u64),
    /// Properties that are not a flat object.
    #[error("must be a flat object of strings, numbers and booleans")]
    NotFlat,
}

/// Text of `MIN` to `MAX` bytes of UTF-8, without U+0000.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct BoundedText<const MIN: usize, const MAX: usize>(Arc<str>);

impl<const MIN: usize, const MAX: usize> BoundedText<MIN, MAX> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<String> for BoundedText<MIN, MAX> {
    type Error = BadValue;

    fn try_from(text: String) -> Result<Self, BadValue> {
        match text.len() {
            n if n > MAX => Err(BadValue::TooLong(MAX)),
            n if n < MIN => Err(BadValue::Empty),
            _ if text.contains('\0') => Err(BadValue::Nul),
            _ => Ok(Self(text.into())),
        }
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Display for BoundedText<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A whole number in JSON, which may be written as `5000`, `5000.0` or `5e3` (JSON Schema 2020-12, section 6.1.1).
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_u64(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
        Ok(Whole(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
        u64::try_from(number).map(Whole).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
        if number.fract() != 0.0 || number < 0.0 {
            return Err(E::invalid_value(Unexpected::Float(number), &self));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole, and saturates"
        )]
        Ok(Whole(number as u64))
    }
}

/// An integer from 0 to 2^53 − 1: a duration or a position, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "Whole")]
pub struct SafeInteger(u64);

impl SafeInteger {
    /// The number.
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for SafeInteger {
    type Error = BadValue;

    fn try_from(number: u64) -> Result<Self, BadValue> {
        if number <= MAX_SAFE_INTEGER { Ok(Self(number)) } else { Err(BadValue::TooLarge(MAX_SAFE_INTEGER)) }
    }
}

/// A time: milliseconds since the Unix epoch, UTC, up to the end of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Whole")]
pub struct Time(u64);

impl TryFrom<Whole> for SafeInteger {
    type Error = BadValue;

    fn try_from(Whole(number): Whole) -> Result<Self, BadValue> {
        number.try_into()
    }
}

impl Time {
    /// The latest time.
    pub const MAX: Self = Self(MAX_TIME);

    /// The start of the minute.
    #[must_use]
    pub(crate) fn minute(self) -> Self {
        Self(self.0 - self.0 % 60_000)
    }

    /// The time `millis` milliseconds after the Unix epoch, at the latest [`MAX`](Self::MAX).
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min(MAX_TIME))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0
    }

    /// The time this many milliseconds later, at the latest [`MAX`](Self::MAX).
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// The time this many milliseconds earlier, at the earliest the epoch.
    #[must_use]
    pub fn minus(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }
}

impl TryFrom<u64> for Time {
    type Error = BadValue;

    fn try_from(millis: u64) -> Result<Self, BadValue> {
        if millis <= MAX_TIME { Ok(Self(millis)) } else { Err(BadValue::TooLarge(MAX_TIME)) }
    }
}

impl TryFrom<Whole> for Time {
    type Error = BadValue;

    fn try_from(Whole(millis): Whole) -> Result<Self, BadValue> {
        millis.try_into()
    }
}

/// The app's own properties of an event: a flat JSON object, stored as text of at most 1,024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>", into = "String")]
pub struct Props(Box<str>);

impl Props {
    /// The most bytes of the JSON text.
    pub const LIMIT: usize = 1024;

    /// The object as JSON text without white space.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl TryFrom<serde_json::Map<String, serde_json::Value>> for Props {
    type Error = BadValue;

    fn try_from(map: serde_json::Map<String, serde_json::Value>) -> Result<Self, BadValue> {
        if map.values().any(|value| value.is_array() || value.is_object() || value.is_null()) {
            return Err(BadValue::NotFlat);
        }
        let text = serde_json::Value::Object(map).to_string();
        if text.len() > Self::LIMIT { Err(BadValue::TooLong(Self::LIMIT)) } else { Ok(Self(text.into())) }
    }
}

impl From<Props> for String {
    fn from(props: Props) -> Self {
        props.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_bounds_are_in_bytes() {
        type Short = BoundedText<1, 4>;
        assert!(Short::try_from("abcd".to_owned()).is_ok());
        assert_eq!(Short::try_from("ééé".to_owned()), Err(BadValue::TooLong(4)));
        assert_eq!(Short::try_from(String::new()), Err(BadValue::Empty));
        assert_eq!(Short::try_from("a\0b".to_owned()), Err(BadValue::Nul));
    }

    #[test]
    fn whole_number_may_have_a_fraction_of_zero() {
        for text in ["5000", "5000.0", "5e3", "50000e-1"] {
            assert_eq!(serde_json::from_str::<SafeInteger>(text).unwrap().get(), 5000, "{text}");
            assert_eq!(serde_json::from_str::<Time>(text).unwrap().millis(), 5000, "{text}");
        }
        assert_eq!(serde_json::from_str::<SafeInteger>("-0.0").unwrap().get(), 0);
        for text in
            ["5000.5", "-1", "-1.0", "9007199254740992", "9007199254740992.0", "1e300", "\"5\"", "null"]
        {
            assert!(serde_json::from_str::<SafeInteger>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn props_are_flat_and_bounded() {
        let parse = serde_json::from_str::<Props>;
        let good = parse(r#"{ "b": 1.5, "a": "x", "c": true }"#).unwrap();
        assert_eq!(good.as_json(), r#"{"a":"x","b":1.5,"c":true}"#);
        for bad in [r#"{"a":[]}"#, r#"{"a":{}}"#, r#"{"a":null}"#] {
            assert!(parse(bad).unwrap_err().to_string().contains("flat"), "{bad}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1024));
        assert!(parse(&long).unwrap_err().to_string().contains("at most 1024 bytes"));
        assert!(parse("[1]").is_err());
    }
}
