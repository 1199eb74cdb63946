//! The settings of the cluster, and the rule for the names of nodes.
//!
//! The name of the node itself is `session::Config::node`: its presence samples have it without a cluster too.

use std::path::PathBuf;

use super::transport::Connect;

/// The default of [`Config::name`].
pub(crate) const CLUSTER: &str = "breathing-room";

/// The settings of the cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The addresses of the NATS servers; with none of them the hub is alone, and nothing of the cluster runs.
    pub urls: Vec<String>,
    /// The file with the credentials for NATS.
    pub credentials: Option<PathBuf>,
    /// The name of the cluster, with which all subjects begin.
    pub name: String,
    /// A transport instead of NATS. For tests.
    pub(crate) connect: Option<Connect>,
}

impl Config {
    /// Whether the hub is a node of a cluster.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.connect.is_some() || !self.urls.is_empty()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { urls: Vec::new(), credentials: None, name: CLUSTER.to_owned(), connect: None }
    }
}

/// Whether this can be the name of a node or of a cluster: 1 to 64 of `[A-Za-z0-9_-]` and dots. It is a part of NATS
/// subjects, where a dot separates tokens, so no dot may be first, last, or beside another one.
pub(crate) fn is_name(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    text.len() <= 64 && text.split('.').all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_1_to_64_characters_that_a_nats_subject_may_have() {
        for good in ["a", "node-1", "fra.example.org", "A_b", &"n".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a*", ">", "ü", &"n".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
