//! Names of rooms, visitors and sessions.
//!
//! Clients choose the names of rooms and visitors, which are checked when they are parsed. The hub creates the ids of
//! sessions. All are cheap to clone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A name does not match its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must match {0}")]
pub struct BadName(&'static str);

macro_rules! name {
    ($text:literal, $name:ident, $rule:literal, $check:expr) => {
        #[doc = concat!($text, "\n\nMatches `", $rule, "`.")]
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The description in schemas.
            pub(super) const DESCRIPTION: &str = $text;

            /// The regular expression that a whole name matches.
            pub(crate) const RULE: &str = $rule;

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = BadName;

            fn try_from(text: &str) -> Result<Self, BadName> {
                let check: fn(&[u8]) -> bool = $check;
                if check(text.as_bytes()) { Ok(Self(text.into())) } else { Err(BadName($rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                Self::try_from(text.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    "A breathing room's name.",
    RoomId, "[a-z0-9][a-z0-9-]{0,63}", |name| {
        matches!(name.len(), 1..=64)
            && !name.starts_with(b"-")
            && name.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    }
}

name! {
    "A visitor's opaque id, which the client chooses.",
    VisitorId, "[A-Za-z0-9_-]{1,64}", |name| {
        matches!(name.len(), 1..=64)
            && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    }
}

impl VisitorId {
    /// Creates a random id, for a client that has none.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }
}

/// The id of one socket: a UUIDv7 (RFC 9562), so that ids sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct SessionId(Uuid);

impl SessionId {
    /// Creates a new id.
    pub(crate) fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for SessionId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_has_1_to_64_bytes_of_lower_case() {
        for good in ["a", "0", "lobby", "morning-sit-2", &"a".repeat(64)] {
            assert!(RoomId::try_from(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "Lobby", "a_b", "a b", "é", "a/b", &"a".repeat(65)] {
            assert!(RoomId::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn visitor_has_1_to_64_bytes_of_base64url() {
        for good in ["a", "-", "_", "A-b_9", VisitorId::random().as_str(), &"Z".repeat(64)] {
            assert!(VisitorId::try_from(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a.b", "ü", &"Z".repeat(65)] {
            assert!(VisitorId::try_from(bad).is_err(), "{bad}");
        }
    }
}
