//! Keys that all nodes of a cluster derive from `ADMIN_TOKEN` and `CLUSTER`.
//!
//! Each purpose has a key of its own, so that what is made with one says nothing about another. Nodes of different
//! versions work with each other: a key and its hashes never change. Pure.

use sha2::{Digest, Sha256};

/// What a key is for. Its name is part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Names visitors in shares.
    Presence,
    /// Seals questions between nodes, and their answers.
    Questions,
    /// Names visitors in erasures, and seals these.
    Erasures,
}

/// Derives the key for a purpose from the admin token, which all nodes share, and the name of the cluster.
pub(crate) fn derive_key(purpose: Purpose, admin_token: &str, cluster: &str) -> [u8; 32] {
    let prefix = match purpose {
        Purpose::Presence => "breathing-room presence\0",
        Purpose::Questions => "breathing-room questions\0",
        Purpose::Erasures => "breathing-room erasures\0",
    };
    let secret = Sha256::new_with_prefix(prefix).chain_update(cluster).chain_update("\0");
    secret.chain_update(admin_token).finalize().into()
}

/// A hash that only nodes with the key can compute.
#[derive(Clone)]
pub(crate) struct KeyedHash(Sha256);

impl KeyedHash {
    /// The hash with the key for this purpose.
    pub(crate) fn derive(purpose: Purpose, admin_token: &str, cluster: &str) -> Self {
        let key = derive_key(purpose, admin_token, cluster);
        // The state after a whole block, so that a short text takes one more.
        Self(Sha256::new_with_prefix([key, key].concat()))
    }

    /// The first `N` bytes, at most 16, of the hash of a text in parts: a part of the hash cannot be extended.
    pub(crate) fn cut<const N: usize>(&self, parts: &[&[u8]]) -> [u8; N] {
        const { assert!(N <= 16) };
        let hash = parts.iter().fold(self.0.clone(), Sha256::chain_update).finalize();
        hash.first_chunk().copied().unwrap_or([0; N])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_earlier_versions() {
        let key = |purpose| data_encoding::HEXLOWER.encode(&derive_key(purpose, "the-admins-token", "test"));
        assert_eq!(
            [Purpose::Presence, Purpose::Questions, Purpose::Erasures].map(key),
            [
                "e0020cad783c97be87c59a24d924b48155ba1d99133825c624a3627e3bacb391",
                "cf662bdd74c8412353f07bea35a67988c5162fa5fba1b948c2b0578805c164af",
                "9cb12c350d4ef6929ed1707fc0b88a221b4315ba4c4a7b16766c0ee5e6cd7d73",
            ]
        );
    }
}
