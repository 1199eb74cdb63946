//! Commands of the log: what all nodes do, each at the same place in the order of messages.
//!
//! Erasure is the only one. A command of a later version is skipped, as a message is that cannot be read. Commands of
//! which the last writer wins will have a stamp, the hybrid logical clock of the cluster, as one more field of their
//! variant; an erasure merges by its time and needs none. Pure.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::derived_key::{KeyedHash, Purpose};
use crate::protocol::Time;

/// The most visitors of one command: 300 KB of JSON, of which most are hexadecimal digits, so that the message is small
/// enough.
pub(crate) const MOST_ERASED: usize = 1_500;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Erases visitors.
    Erase {
        /// The visitors, at most [`MOST_ERASED`].
        visitors: Vec<ErasedVisitor>,
    },
}

/// The erasure of a visitor over all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErasedVisitor {
    /// Who is erased.
    pub visitor: VisitorHash,
    /// The time of the last event that is erased. Later ones are those of a visitor who returned.
    pub until: Time,
    /// Made of both with the key: shows that a node made it, and identifies the erasure in the ledgers of all nodes.
    pub seal: Uuid,
}

/// 128 bits of a keyed hash of a visitor's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct VisitorHash(Uuid);

impl VisitorHash {
    /// The hash of these bytes.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// The key of the hashes, which all nodes derive from the admin token: the log has no ids, and only who has the token
/// can find out whether a visitor was erased.
#[derive(Clone)]
pub(crate) struct ErasureKey(KeyedHash);

impl ErasureKey {
    /// Derives the key from the admin token, which all nodes share, and the name of the cluster.
    pub(crate) fn derive(admin_token: &str, cluster: &str) -> Self {
        Self(KeyedHash::derive(Purpose::Erasures, admin_token, cluster))
    }

    /// The hash of a visitor.
    pub(crate) fn hash(&self, visitor: &str) -> VisitorHash {
        VisitorHash::from_bytes(self.0.cut(&[b"visitor\0", visitor.as_bytes()]))
    }

    /// The erasure of a visitor's events up to a time.
    pub(crate) fn erasure(&self, visitor: VisitorHash, until: Time) -> ErasedVisitor {
        let seal = self.0.cut(&[b"erasure\0", visitor.as_bytes(), &until.millis().to_be_bytes()]);
        ErasedVisitor { visitor, until, seal: Uuid::from_bytes(seal) }
    }

    /// Whether a node with this key made an erasure.
    pub(crate) fn has_made(&self, erasure: &ErasedVisitor) -> bool {
        self.erasure(erasure.visitor, erasure.until).seal == erasure.seal
    }
}

impl std::fmt::Debug for ErasureKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ErasureKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erasure_names_the_visitor_by_a_hash_of_the_key() {
        let key = ErasureKey::derive("an admin token", "a");
        let ann = key.hash("ann");
        assert_eq!(key.hash("ann"), ann);
        assert_ne!(key.hash("Ann"), ann);
        assert_ne!(ErasureKey::derive("an admin token", "b").hash("ann"), ann);
        let other = ErasureKey::derive("another token", "a");
        assert_ne!(other.hash("ann"), ann);
        assert_eq!(VisitorHash::from_bytes(*ann.as_bytes()), ann);

        let erasure = key.erasure(ann, Time::from_millis(5));
        assert!(key.has_made(&erasure) && !other.has_made(&erasure));
        let later = ErasedVisitor { until: Time::from_millis(6), ..erasure };
        assert!(!key.has_made(&later), "a repeat cannot erase more");
    }

    #[test]
    fn hash_and_seal_of_an_erasure_are_those_of_earlier_versions() {
        let key = ErasureKey::derive("the-admins-token", "test");
        let ErasedVisitor { visitor, seal, .. } = key.erasure(key.hash("ann"), Time::from_millis(5));
        assert_eq!(visitor.0.to_string(), "8709d7b1-e77c-dc89-edf7-3d28b268a554");
        assert_eq!(seal.to_string(), "f6e7679b-b3e3-a075-0fdc-d94ad4717fdf");
    }

    #[test]
    fn command_is_one_line_with_its_name() {
        let erasure = ErasureKey::derive("t", "c").erasure(VisitorHash(Uuid::nil()), Time::from_millis(5));
        let command = Command::Erase { visitors: vec![erasure] };
        let text = serde_json::to_string(&command).unwrap();
        assert!(text.starts_with(r#"{"command":"erase","visitors":[{"visitor":"0000"#), "{text}");
        assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
        assert!(serde_json::from_str::<Command>(r#"{"command":"ban"}"#).is_err());
    }
}
