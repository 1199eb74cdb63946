//! The settings of HTTP, and the lists in them that are parsed from text.
//!
//! Plain values; the handlers' state has what each group of routes needs of them.

use std::net::SocketAddr;

use axum::http::HeaderName;

use crate::auth::{Access, AllowedOrigins, PublicUrl};
use crate::history::PropNames;

/// What a hub is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Mode {
    /// Rooms, events and the history.
    #[default]
    Hub,
    /// The history and the dashboard only.
    Replica,
}

impl Mode {
    /// Whether a replica rejects requests of this route: those that open room sockets or write events, and the page that
    /// would open such a socket.
    pub(super) fn rejects(self, route: &str) -> bool {
        let is_of_rooms =
            matches!(route, "/rooms/{room}/socket" | "/page-view" | "/watch-session" | "/room/{room}");
        self == Self::Replica && is_of_rooms
    }
}

/// The settings of HTTP.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// What the hub is for.
    pub mode: Mode,
    /// The admin token, of at least 16 bytes; without one, the hub makes a random one at start and logs it.
    pub admin_token: Option<String>,
    /// Access to the dashboard and its data: the history and the live activity.
    pub dashboard: Access,
    /// The properties of page views by which the history may be broken down without the admin token.
    pub public_props: PropNames,
    /// Access to `/metrics`.
    pub metrics: Access,
    /// A private address for `/metrics` and `/health`, without a token. `/metrics` is only there then.
    pub metrics_listen: Option<SocketAddr>,
    /// The origins whose pages may connect.
    pub allowed_origins: AllowedOrigins,
    /// The hub's own origin as browsers see it; without it, the request's `Host` counts.
    pub public_url: Option<PublicUrl>,
    /// The sites that may show the room page in a frame.
    pub frame_ancestors: FrameAncestors,
    /// The header with the client's address that the proxy in front sends; without one, the peer's address counts.
    pub client_ip_header: Option<HeaderName>,
}

/// The sites that may show the room page in a frame: sources of a `Content-Security-Policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameAncestors(String);

impl Default for FrameAncestors {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl FrameAncestors {
    /// The default: this hub's own pages.
    pub(crate) const DEFAULT: &str = "'self'";

    /// Parses `'none'`, `*`, or a list of `'self'` and origins, separated by spaces.
    ///
    /// # Errors
    /// The list contains anything else.
    pub fn parse(list: &str) -> Result<Self, String> {
        let sources: Vec<&str> = list.split_whitespace().collect();
        let is_valid = match sources.as_slice() {
            [] => false,
            ["'none'" | "*"] => true,
            several => several.iter().all(|source| *source == "'self'" || is_origin(source)),
        };
        if is_valid {
            Ok(Self(sources.join(" ")))
        } else {
            Err("must be 'none', *, or a list of 'self' and origins such as https://example.org".to_owned())
        }
    }

    /// The list, as the header has it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether `source` is like `https://example.org`, optionally with a port, or with `*` for all subdomains.
fn is_origin(source: &str) -> bool {
    let host = source.strip_prefix("https://").or_else(|| source.strip_prefix("http://")).unwrap_or_default();
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:*[]".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_ancestors_are_parsed_or_rejected() {
        for valid in [
            "'none'",
            "*",
            "'self'",
            "'self' https://example.org",
            "https://*.example.org http://localhost:3000",
        ] {
            assert_eq!(FrameAncestors::parse(valid), Ok(FrameAncestors(valid.to_owned())));
        }
        let normalized = FrameAncestors::parse("  'self'   https://a.example ").unwrap();
        assert_eq!(normalized.0, "'self' https://a.example");
        for invalid in
            ["", "none", "example.org", "'none' 'self'", "https://", "https://a;script-src *", "https://a/b"]
        {
            assert!(FrameAncestors::parse(invalid).is_err(), "{invalid}");
        }
    }
}
