//! The settings of HTTP, and the lists in them that are parsed from text.
//!
//! Plain values; the handlers' state has what each group of routes needs of them.

use axum::http::HeaderName;

use crate::auth::{Access, AllowedOrigins, PublicUrl};

/// The settings of HTTP.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// The admin token, of at least 16 bytes; without one, the hub makes a random one at start and logs it.
    pub admin_token: Option<String>,
    /// Access to the dashboard and its data: the history and the live activity.
    pub dashboard: Access,
    /// The properties of page views by which the history may be broken down without the admin token.
    pub public_props: PublicProps,
    /// Access to `/metrics`.
    pub metrics: Access,
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
    /// `'self'`: this hub's own pages.
    fn default() -> Self {
        Self("'self'".to_owned())
    }
}

impl FrameAncestors {
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

/// The maximum length of a property's name, in bytes: events cannot have longer ones.
pub(super) const PROP_LIMIT: usize = 1024;

/// The properties of page views whose values are public. The default is none, because values may be about people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublicProps(Vec<String>);

impl PublicProps {
    /// Parses names of properties, separated by commas.
    ///
    /// # Errors
    /// A name is empty or too long.
    pub fn parse(list: &str) -> Result<Self, String> {
        if list.trim().is_empty() {
            return Ok(Self::default());
        }
        let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().all(|name| is_prop(name)) {
            Ok(Self(names))
        } else {
            Err("must be names of properties of 1 to 1024 bytes, separated by commas".to_owned())
        }
    }

    /// Whether the property is one of them.
    pub(super) fn has(&self, prop: &str) -> bool {
        self.0.iter().any(|public| public == prop)
    }
}

/// Whether a name is short enough for a property.
pub(super) fn is_prop(name: &str) -> bool {
    (1..=PROP_LIMIT).contains(&name.len())
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

    #[test]
    fn public_props_are_parsed_from_a_list() {
        let props = PublicProps::parse("plan, utm_source").unwrap();
        assert!(props.has("plan") && props.has("utm_source") && !props.has("email") && !props.has(""));
        assert_eq!(PublicProps::parse(" "), Ok(PublicProps::default()));
        for invalid in ["plan,", ",", &"x".repeat(1025)] {
            assert!(PublicProps::parse(invalid).is_err(), "{invalid}");
        }
    }
}
