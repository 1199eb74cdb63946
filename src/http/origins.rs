//! From which sites browsers may come: the check of `Origin` and the answers of CORS.
//!
//! A page of a foreign site may open no socket and post nothing; what is to be read, it may not read, but for why it
//! was refused. Whoever sends no `Origin` is no page of another site, and is not this file's business. Origins are
//! compared as browsers write them: scheme and host in lower case, without the port that the scheme implies.

use std::str;
use std::time::Duration;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, UPGRADE, VARY,
};
use axum::http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::warn;
use url::Url;

use super::Config;
use super::error::ApiError;
use super::forwarded::told_scheme;
use super::hourly::Hourly;
use super::sockets;

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

    /// Whether a page of this origin may ask the hub, which has this one.
    #[must_use]
    pub fn allow(&self, origin: &str, own: &Own<'_>) -> bool {
        // What is no origin, such as `null`, is allowed where all are.
        let origin = canonical(origin);
        self.0.iter().any(|rule| match (rule, &origin) {
            (Rule::Any, _) => true,
            (_, None) => false,
            (Rule::Own, Some(origin)) => own.is(origin),
            (Rule::Localhost, Some(origin)) => is_localhost(origin),
            (Rule::Exact(exact), Some(origin)) => origin == exact,
        })
    }
}

/// The hub's own address as browsers see it: an origin such as `https://hub.example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Reads an origin of http or https.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_http = |origin: &String| authority(origin).is_some();
        let origin = canonical(text).filter(is_http).map(Self);
        origin.ok_or_else(|| "must be an origin such as https://hub.example.org, without a path".to_owned())
    }
}

/// The hub's own origin, as far as it is known for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own<'a> {
    /// As it is configured.
    Configured(&'a PublicUrl),
    /// By the host that was asked for, and by the scheme, where that was told.
    Called {
        /// Of the request's `Host`.
        host: &'a str,
        /// `http` or `https`.
        scheme: Option<&'static str>,
    },
}

impl Own<'_> {
    /// Whether it is this one.
    fn is(&self, origin: &str) -> bool {
        match self {
            Self::Configured(PublicUrl(own)) => origin == own,
            Self::Called { host, scheme } => authority(origin).is_some_and(|(of_origin, authority)| {
                let same_host =
                    || canonical(&format!("{of_origin}://{host}")).is_some_and(|own| own == origin);
                scheme.is_none_or(|scheme| scheme == of_origin) && (authority == *host || same_host())
            }),
        }
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

/// The scheme of a page that came over HTTP, and its host and port.
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

/// What a browser may do that asked before. Chrome keeps the answer for two hours at most.
const PREFLIGHT: [(HeaderName, HeaderValue); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, DELETE")),
    (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type")),
    (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
];

/// Judges requests by their `Origin`.
#[derive(Debug)]
pub struct Origins {
    allowed: AllowedOrigins,
    own: Option<PublicUrl>,
    /// Whether a proxy in front tells the scheme of requests.
    is_proxied: bool,
    refused: Hourly,
}

impl Origins {
    /// As it is configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            allowed: config.allowed_origins.clone(),
            own: config.public_url.clone(),
            is_proxied: config.client_ip_header.is_some(),
            refused: Hourly::default(),
        }
    }

    /// Judges a request; `now` is by the monotonic clock. A refused origin is logged, once an hour.
    #[must_use]
    pub fn judge<B>(&self, request: &http::Request<B>, now: Duration) -> Verdict {
        let headers = request.headers();
        let mut given = headers.get_all(ORIGIN).iter();
        let origin = given.next().cloned();
        // No browser sends two.
        let is_allowed = origin.as_ref().map(|origin| given.next().is_none() && self.allow(headers, origin));
        // A browser sends these without asking before, and shows a page no more than it may read.
        let is_harmless = matches!(*request.method(), Method::GET | Method::HEAD)
            && !headers.contains_key(UPGRADE)
            && !sockets::is_address(request.uri().path());
        let verdict = Verdict { origin, is_allowed, is_harmless };
        if let (Some(origin), Err(_)) = (&verdict.origin, verdict.check()) {
            self.log_refused(origin, now);
        }
        verdict
    }

    fn allow(&self, headers: &HeaderMap, origin: &HeaderValue) -> bool {
        let host = headers.get(HOST).and_then(|host| str::from_utf8(host.as_bytes()).ok());
        let scheme = if self.is_proxied { told_scheme(headers) } else { None };
        let called = Own::Called { host: host.unwrap_or_default(), scheme };
        let own = self.own.as_ref().map_or(called, Own::Configured);
        origin.to_str().is_ok_and(|origin| self.allowed.allow(origin, &own))
    }

    fn log_refused(&self, origin: &HeaderValue, now: Duration) {
        let Some(due) = self.refused.due(origin.as_bytes(), now) else { return };
        warn!(origin = %due.text, "refused a page of this origin: ALLOWED_ORIGINS does not name it");
        if due.is_last {
            warn!("many origins were refused: no others are logged until an hour has passed");
        }
    }
}

/// What becomes of a request by its `Origin`.
#[derive(Debug)]
pub struct Verdict {
    origin: Option<HeaderValue>,
    /// Whether it may ask; none where it has no origin.
    is_allowed: Option<bool>,
    /// Whether a page of any origin may ask it, and only not read the answer.
    is_harmless: bool,
}

impl Verdict {
    /// Lets through who may ask.
    ///
    /// # Errors
    /// A page of another site asks for more than it could see anyway.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.is_allowed == Some(false) && !self.is_harmless { Err(ApiError::Origin) } else { Ok(()) }
    }

    /// What a browser is told that asks before it does something.
    pub fn preflight<B>(&self, request: &http::Request<B>) -> Option<Response> {
        let asks_before = self.is_allowed.is_some()
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        asks_before.then(|| (StatusCode::NO_CONTENT, PREFLIGHT).into_response())
    }

    /// Tells browsers which pages may read the answer. Why a socket or a post was refused may be read by all.
    pub fn tell(self, response: &mut Response) {
        let is_refusal = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
        );
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let reader = match (self.origin, self.is_allowed) {
            // Never `*`: beacons bring credentials, though the hub has no use for them.
            (Some(origin), Some(true)) => {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                origin
            }
            (Some(_), _) if is_refusal && !self.is_harmless => HeaderValue::from_static("*"),
            _ => return,
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, reader);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
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
            let own = Own::Called { host, scheme: None };
            assert_eq!(allowed.allow(origin, &own), expected, "{list}: {origin} at {host}");
        }
    }

    #[test]
    fn own_origin_has_a_scheme_where_it_is_known() {
        let public = PublicUrl::parse("https://Hub.example.org:443/").unwrap();
        let called = |scheme| Own::Called { host: "hub.example.org", scheme };
        for (own, origin, expected) in [
            (called(None), "http://hub.example.org", true),
            (called(None), "https://hub.example.org", true),
            (called(Some("https")), "https://hub.example.org", true),
            (called(Some("https")), "http://hub.example.org", false),
            (called(Some("http")), "https://hub.example.org", false),
            (Own::Configured(&public), "https://hub.example.org", true),
            (Own::Configured(&public), "http://hub.example.org", false),
            (Own::Configured(&public), "https://other.example.org", false),
        ] {
            assert_eq!(AllowedOrigins::default().allow(origin, &own), expected, "{origin} at {own:?}");
        }
        for bad in ["", "hub.example.org", "https://hub.example.org/app", "capacitor://localhost", "*"] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
