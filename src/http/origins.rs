//! From which sites browsers may come: the check of `Origin` and the answers of CORS.
//!
//! A page of a foreign site may open no socket and post nothing; what is to be read, it may not read. Whoever sends
//! no `Origin` is no page of another site, and is not this file's business.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, UPGRADE, VARY,
};
use axum::http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use url::Url;

use super::error::ApiError;

/// From which sites browsers may come: as long as a request matches one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// `*`: from anywhere.
    Any,
    /// `self`: from this hub's own pages, by whatever name it was called.
    Own,
    /// `localhost`: from this machine, on any port.
    Localhost,
    /// From just this one.
    Exact(String),
}

impl Default for AllowedOrigins {
    fn default() -> Self {
        Self(vec![Rule::Own, Rule::Localhost])
    }
}

impl AllowedOrigins {
    /// What holds where nothing is configured.
    pub const DEFAULT: &str = "self,localhost";

    /// Reads `*`, `self`, `localhost` and origins such as `https://example.org`, separated by commas.
    ///
    /// # Errors
    /// Something else stands in it, or nothing.
    pub fn parse(list: &str) -> Result<Self, String> {
        let rule = |item: &str| match item {
            "*" => Ok(Rule::Any),
            "self" => Ok(Rule::Own),
            "localhost" => Ok(Rule::Localhost),
            origin => canonical(origin).map(Rule::Exact).ok_or_else(|| {
                format!("{origin:?} is no origin such as https://example.org, nor self, localhost or *")
            }),
        };
        list.split(',').map(str::trim).map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a page of this origin may ask a hub that it called by this host.
    #[must_use]
    pub fn allow(&self, origin: &str, host: &str) -> bool {
        self.0.iter().any(|rule| match rule {
            Rule::Any => true,
            Rule::Own => is_own(origin, host),
            Rule::Localhost => is_localhost(origin),
            Rule::Exact(exact) => origin.eq_ignore_ascii_case(exact),
        })
    }

    fn allow_request(&self, headers: &HeaderMap, origin: &HeaderValue) -> bool {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        origin.to_str().is_ok_and(|origin| self.allow(origin, host))
    }
}

/// An origin as browsers write it: in lower case, without the port that its scheme implies.
fn canonical(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(Url::has_host)?;
    // A `*` would pass for a part of a name.
    let is_bare = !text.contains('*')
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let origin = url.origin();
    // Apps in a shell have schemes of their own, as in capacitor://localhost.
    let own_scheme = || text.trim_end_matches('/').to_ascii_lowercase();
    is_bare.then(|| if origin.is_tuple() { origin.ascii_serialization() } else { own_scheme() })
}

/// The host and port of a page that came over HTTP, and the port that its scheme implies.
fn authority(origin: &str) -> Option<(&str, &str)> {
    let (scheme, authority) = origin.split_once("://")?;
    match scheme {
        "https" => Some((authority, ":443")),
        "http" => Some((authority, ":80")),
        _ => None,
    }
}

fn is_own(origin: &str, host: &str) -> bool {
    authority(origin).is_some_and(|(authority, port)| {
        let host = host.strip_suffix(port).unwrap_or(host);
        !host.is_empty() && authority.eq_ignore_ascii_case(host)
    })
}

fn is_localhost(origin: &str) -> bool {
    authority(origin).is_some_and(|(authority, _)| {
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
            let port = authority.strip_prefix(name);
            port.is_some_and(|port| port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        })
    })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a browser may do that asked before. Chrome keeps the answer for two hours at most.
const PREFLIGHT: [(HeaderName, HeaderValue); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, DELETE")),
    (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type")),
    (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
];

/// What becomes of a request by its `Origin`.
#[derive(Debug)]
pub struct Verdict {
    origin: Option<HeaderValue>,
    /// Whether it may ask; none where it has no origin.
    is_allowed: Option<bool>,
}

impl Verdict {
    /// Judges a request by these headers.
    #[must_use]
    pub fn of(allowed: &AllowedOrigins, headers: &HeaderMap) -> Self {
        let origin = headers.get(ORIGIN).cloned();
        let is_allowed = origin.as_ref().map(|origin| allowed.allow_request(headers, origin));
        Self { origin, is_allowed }
    }

    /// Lets through who may ask.
    ///
    /// # Errors
    /// A page of another site asks for more than it could see anyway.
    pub fn check<B>(&self, request: &http::Request<B>) -> Result<(), ApiError> {
        // A browser sends these without asking before, and shows a page no more than it may read.
        let is_harmless = || {
            matches!(*request.method(), Method::GET | Method::HEAD)
                && !request.headers().contains_key(UPGRADE)
        };
        if self.is_allowed == Some(false) && !is_harmless() { Err(ApiError::Origin) } else { Ok(()) }
    }

    /// What a browser is told that asks before it does something.
    pub fn preflight<B>(&self, request: &http::Request<B>) -> Option<Response> {
        let asks_before = self.is_allowed.is_some()
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        asks_before.then(|| (StatusCode::NO_CONTENT, PREFLIGHT).into_response())
    }

    /// Tells browsers which pages may read the answer.
    pub fn tell(self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let (Some(origin), Some(true)) = (self.origin, self.is_allowed) {
            // Never `*`: beacons bring credentials, though the hub has no use for them.
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_words_and_origins_as_browsers_write_them() {
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
    fn an_origin_is_allowed_by_its_whole_name() {
        const HOST: &str = "hub.example.org";
        let cases = [
            ("self", "https://hub.example.org", HOST, true),
            ("self", "http://hub.example.org", HOST, true),
            ("self", "https://hub.example.org", "HUB.example.org:443", true),
            ("self", "https://hub.example.org:8443", "hub.example.org:8443", true),
            ("self", "https://hub.example.org:8443", HOST, false),
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
            ("localhost", "http://localhost:", HOST, false),
            ("localhost", "https://hub.example.org", HOST, false),
            ("https://app.example", "https://app.example", HOST, true),
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
            assert_eq!(allowed.allow(origin, host), expected, "{list}: {origin} at {host}");
        }
    }
}
