//! The settings of the cluster, and the rule for the names of nodes.
//!
//! The name of the node itself is `session::Config::node`: its presence samples have it without a cluster too.

use std::io;
use std::path::PathBuf;

use url::Url;

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

    /// Checks the settings of a node of this name.
    pub(crate) fn check(&self, node: &str, has_admin_token: bool) -> Result<(), BadCluster> {
        if !self.is_on() {
            return if self.credentials.is_some() { Err(BadCluster::NoUrl) } else { Ok(()) };
        }
        if cfg!(not(feature = "cluster")) && self.connect.is_none() {
            return Err(BadCluster::NoFeature);
        }
        if !self.urls.iter().all(|url| is_url(url)) {
            return Err(BadCluster::Url);
        }
        if !is_name(&self.name) {
            return Err(BadCluster::Name);
        }
        if !is_name(node) {
            return Err(BadCluster::Node);
        }
        if has_admin_token { Ok(()) } else { Err(BadCluster::NoAdminToken) }
    }
}

/// Whether this is the address of a NATS server.
fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "nats" | "tls") && url.has_host())
}

impl Default for Config {
    fn default() -> Self {
        Self { urls: Vec::new(), credentials: None, name: CLUSTER.to_owned(), connect: None }
    }
}

/// The settings of the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadCluster {
    /// An address is not that of a NATS server. It is not shown, since it may have a password.
    #[error("NATS_URL: must be addresses such as nats://host:4222 or tls://host:4222, separated by commas")]
    Url,
    /// The program cannot connect to NATS.
    #[error("NATS_URL: this program was built without the feature cluster: build it with --features cluster")]
    NoFeature,
    /// The hub would make an admin token of its own.
    #[error("NATS_URL: needs ADMIN_TOKEN, which must be the same on all nodes")]
    NoAdminToken,
    /// Credentials without an address.
    #[error("NATS_CREDS: needs NATS_URL")]
    NoUrl,
    /// The file of the credentials cannot be read.
    #[error("NATS_CREDS: cannot read {}: {source}", path.display())]
    NoCredentials {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file has no credentials.
    #[error("NATS_CREDS: {} has no user JWT and no seed", path.display())]
    BadCredentials {
        /// The file.
        path: PathBuf,
    },
    /// The cluster's name cannot be a part of a subject.
    #[error("CLUSTER: must be 1 to 64 of A-Z, a-z, 0-9, _, - and single dots between them")]
    Name,
    /// The node's name cannot be a part of a subject.
    #[error("NODE: must be 1 to 64 of A-Z, a-z, 0-9, _, - and single dots between them, with NATS_URL")]
    Node,
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
    fn settings_of_a_cluster_are_checked() {
        let on = |url: &str| Config { urls: vec![url.to_owned()], ..Config::default() };
        let text = |config: &Config, node, has_token| {
            config.check(node, has_token).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for good in ["nats://localhost:4222", "tls://user:secret@nats.example.org", "nats://[::1]"] {
            assert_eq!(text(&on(good), "a", true), "");
        }
        for bad in ["", "localhost:4222", "nats://", "http://localhost", "nats://user:secret@"] {
            let error = text(&on(bad), "a", true);
            assert!(error.starts_with("NATS_URL: must be") && !error.contains("secret"), "{bad}: {error}");
        }
        let good = on("nats://a");
        assert!(text(&good, "a", false).starts_with("NATS_URL: needs ADMIN_TOKEN"));
        assert!(text(&good, "a b", true).starts_with("NODE: "));
        assert!(text(&Config { name: "a.*".to_owned(), ..good }, "a", true).starts_with("CLUSTER: "));
        let alone = Config { credentials: Some("file".into()), ..Config::default() };
        assert_eq!(text(&alone, "a b", false), "NATS_CREDS: needs NATS_URL");
        assert_eq!(text(&Config::default(), "a b", false), "");
    }

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
