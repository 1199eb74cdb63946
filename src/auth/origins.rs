//! Allowed origins: the sites whose pages may connect and post.
//!
//! Origins are compared as browsers write them (RFC 6454): scheme and host in lower case, without the scheme's default
//! port.

use url::Url;

/// The allowed origins. A request needs to match one of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// `*`: every origin.
    Any,
    /// `self`: the hub's own origin.
    Own,
    /// `localhost`: this machine, on any port.
    Localhost,
    /// Exactly this origin.
    Exact(String),
}

impl Default for AllowedOrigins {
    fn default() -> Self {
        Self(vec![Rule::Own, Rule::Localhost])
    }
}

impl AllowedOrigins {
    /// The default of `ALLOWED_ORIGINS`.
    pub const DEFAULT: &str = "self,localhost";

    /// Parses `*`, `self`, `localhost` and origins such as `https://example.org`, separated by commas.
    ///
    /// # Errors
    /// The list is empty, or an item is none of these.
    pub fn parse(list: &str) -> Result<Self, String> {
        let rule = |item: &str| match item {
            "*" => Ok(Rule::Any),
            "self" => Ok(Rule::Own),
            "localhost" => Ok(Rule::Localhost),
            origin => canonical(origin).map(Rule::Exact).ok_or_else(|| {
                format!("{origin:?} must be an origin such as https://example.org, or self, localhost or *")
            }),
        };
        list.split(',').map(str::trim).map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// The origins that are listed themselves.
    pub(crate) fn exact(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|rule| match rule {
            Rule::Exact(origin) => Some(origin.as_str()),
            _ => None,
        })
    }

    /// Whether a page of `origin` may use the hub, whose own origin is `own`.
    #[must_use]
    pub fn allow(&self, origin: &str, own: &OwnOrigin<'_>) -> bool {
        // Only `*` allows a value that is not an origin, such as `null`.
        let origin = canonical(origin);
        self.0.iter().any(|rule| match (rule, &origin) {
            (Rule::Any, _) => true,
            (_, None) => false,
            (Rule::Own, Some(origin)) => own.matches(origin),
            (Rule::Localhost, Some(origin)) => is_localhost(origin),
            (Rule::Exact(exact), Some(origin)) => origin == exact,
        })
    }
}

/// The hub's own origin as browsers see it, such as `https://hub.example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The origin.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses an origin with the scheme http or https.
    ///
    /// # Errors
    /// The text is not such an origin.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_http = |origin: &String| authority(origin).is_some();
        let origin = canonical(text).filter(is_http).map(Self);
        origin.ok_or_else(|| "must be an origin such as https://hub.example.org, without a path".to_owned())
    }
}

/// The hub's own origin, as far as a request shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnOrigin<'a> {
    /// The configured one.
    Configured(&'a PublicUrl),
    /// The host of the request, and its scheme, if a proxy sends it.
    Requested {
        /// The `Host` of the request.
        host: &'a str,
        /// `http` or `https`.
        scheme: Option<&'static str>,
    },
}

impl OwnOrigin<'_> {
    /// Whether `origin` is the hub's own one.
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Configured(PublicUrl(own)) => origin == own,
            Self::Requested { host, scheme } => {
                authority(origin).is_some_and(|(origin_scheme, authority)| {
                    let same_host =
                        || canonical(&format!("{origin_scheme}://{host}")).is_some_and(|own| own == origin);
                    scheme.is_none_or(|scheme| scheme == origin_scheme) && (authority == *host || same_host())
                })
            }
        }
    }
}

/// Returns an origin as browsers write it: in lower case, without its scheme's default port.
fn canonical(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(Url::has_host)?;
    // The URL parser accepts a `*` in a host name.
    let is_bare = !text.contains('*')
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let origin = url.origin();
    // Native shells use their own schemes, as in capacitor://localhost.
    let own_scheme = || text.trim_end_matches('/').to_ascii_lowercase();
    is_bare.then(|| if origin.is_tuple() { origin.ascii_serialization() } else { own_scheme() })
}

/// Splits an origin with the scheme http or https into the scheme and the host with its port.
fn authority(origin: &str) -> Option<(&str, &str)> {
    origin.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
}

fn is_localhost(origin: &str) -> bool {
    authority(origin).is_some_and(|(_, authority)| {
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
            let port = authority.strip_prefix(name);
            port.is_some_and(|port| port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        })
    })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_has_keywords_and_canonical_origins() {
        assert_eq!(AllowedOrigins::parse(AllowedOrigins::DEFAULT), Ok(AllowedOrigins::default()));
        for (text, origin) in [
            ("https://example.org", "https://example.org"),
            ("https://Example.org:443/", "https://example.org"),
            ("http://example.org:8080", "http://example.org:8080"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            let expected = AllowedOrigins(vec![Rule::Exact(origin.to_owned())]);
            assert_eq!(AllowedOrigins::parse(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "https://example.org,",
            "example.org",
            "null",
            "https://",
            "https://example.org/app",
            "https://example.org?",
            "https://me@example.org",
            "https://*.example.org",
            "https://a.example https://b.example",
            "file:///",
        ] {
            assert!(AllowedOrigins::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origin_must_match_a_rule_as_a_whole() {
        const HOST: &str = "hub.example.org";
        let cases = [
            ("self", "https://hub.example.org", HOST, true),
            ("self", "http://hub.example.org", HOST, true),
            ("self", "https://hub.example.org", "HUB.example.org:443", true),
            ("self", "https://hub.example.org:8443", "hub.example.org:8443", true),
            ("self", "https://hub.example.org:443", HOST, true),
            ("self", "https://hub.example.org:443", "hub.example.org:443", true),
            ("self", "http://hub.example.org:80", HOST, true),
            ("self", "HTTPS://HUB.example.org/", HOST, true),
            ("self", "http://[2001:db8::1]:8080", "[2001:DB8:0::1]:8080", true),
            ("self", "https://xn--bcher-kva.example", "bücher.example", true),
            ("self", "https://hub.example.org:8443", HOST, false),
            ("self", "https://hub.example.org:0", HOST, false),
            ("self", "https://hub.example.org", "hub.example.org.", false),
            ("self", "wss://hub.example.org", HOST, false),
            ("self", "https://me@hub.example.org", HOST, false),
            ("self", "https://hub.example.org/app", HOST, false),
            ("self", "http://hub.example.org", "hub.example.org:443", false),
            ("self", "https://hub.example.org.evil.example", HOST, false),
            ("self", "https://evil.example", HOST, false),
            ("self", "ftp://hub.example.org", HOST, false),
            ("self", "https://", "", false),
            ("self", "null", "null", false),
            ("localhost", "http://localhost", HOST, true),
            ("localhost", "http://localhost:5173", HOST, true),
            ("localhost", "https://127.0.0.1:8080", HOST, true),
            ("localhost", "http://[::1]:8080", HOST, true),
            ("localhost", "http://localhost.evil.example", HOST, false),
            ("localhost", "http://localhost:1.evil.example", HOST, false),
            ("localhost", "http://127.0.0.1.evil.example", HOST, false),
            ("localhost", "http://localhost:", HOST, true),
            ("localhost", "https://hub.example.org", HOST, false),
            ("https://app.example", "https://app.example", HOST, true),
            ("https://app.example", "https://app.example:443", HOST, true),
            ("https://app.example", "https://App.example/", HOST, true),
            ("https://app.example", "http://app.example", HOST, false),
            ("https://app.example", "https://app.example:8443", HOST, false),
            ("https://app.example", "https://www.app.example", HOST, false),
            ("https://app.example", "https://hub.example.org", HOST, false),
            ("https://app.example", "http://localhost", HOST, false),
            ("https://a.example, https://b.example", "https://b.example", HOST, true),
            ("self,localhost,https://app.example", "null", HOST, false),
            ("*", "null", HOST, true),
            ("*", "https://evil.example", HOST, true),
        ];
        for (list, origin, host, expected) in cases {
            let allowed = AllowedOrigins::parse(list).unwrap();
            let own = OwnOrigin::Requested { host, scheme: None };
            assert_eq!(allowed.allow(origin, &own), expected, "{list}: {origin} at {host}");
        }
    }

    #[test]
    fn own_origin_includes_the_scheme_if_it_is_known() {
        let public = PublicUrl::parse("https://Hub.example.org:443/").unwrap();
        let requested = |scheme| OwnOrigin::Requested { host: "hub.example.org", scheme };
        for (own, origin, expected) in [
            (requested(None), "http://hub.example.org", true),
            (requested(None), "https://hub.example.org", true),
            (requested(Some("https")), "https://hub.example.org", true),
            (requested(Some("https")), "http://hub.example.org", false),
            (requested(Some("http")), "https://hub.example.org", false),
            (OwnOrigin::Configured(&public), "https://hub.example.org", true),
            (OwnOrigin::Configured(&public), "http://hub.example.org", false),
            (OwnOrigin::Configured(&public), "https://other.example.org", false),
        ] {
            assert_eq!(AllowedOrigins::default().allow(origin, &own), expected, "{origin} at {own:?}");
        }
        for bad in ["", "hub.example.org", "https://hub.example.org/app", "capacitor://localhost", "*"] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
