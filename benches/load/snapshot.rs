//! A room's snapshot as a client gets it, and how to read it from a message.
//!
//! Most messages are only counted. While thousands of messages arrive, one number is read without
//! parsing; the last message is parsed at the end, outside of the measurement.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Outcome;

/// The fields that `welcome` and `presence` share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) seq: u64,
    pub(crate) present: u32,
    pub(crate) moods: BTreeMap<String, u32>,
}

impl Snapshot {
    pub(crate) fn parse(text: &[u8]) -> Outcome<Self> {
        let unreadable = |error| format!("{error} in {:?}", String::from_utf8_lossy(text));
        Ok(serde_json::from_slice(text).map_err(unreadable)?)
    }
}

/// The message's `present`.
pub(crate) fn present(text: &[u8]) -> Option<u32> {
    number(text, b"\"present\":")
}

/// The whole number after a key.
pub(crate) fn number(text: &[u8], key: &[u8]) -> Option<u32> {
    let at = text.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}
