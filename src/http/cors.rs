//! The check of `Origin`, and the answers of CORS.
//!
//! A page of a foreign site may open no socket and post nothing, and may not read answers, except why it was rejected.
//! A request without `Origin` comes from no page of another site, and is not checked here.

use std::str;
use std::time::Duration;

use super::Config;
use super::error::ApiError;
use super::forwarded::forwarded_scheme;
use super::log_throttle::LogThrottle;
use super::websocket;
use crate::auth::origins::OwnOrigin;
use crate::auth::{AllowedOrigins, PublicUrl};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, UPGRADE, VARY,
};
use axum::http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::warn;

/// What a browser may do that asked before. Chrome keeps the answer for two hours at most.
const PREFLIGHT: [(HeaderName, HeaderValue); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, DELETE")),
    (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type")),
    (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
];

/// Judges requests by their `Origin`.
#[derive(Debug)]
pub(crate) struct Origins {
    allowed: AllowedOrigins,
    own: Option<PublicUrl>,
    /// Whether a proxy in front tells the scheme of requests.
    is_proxied: bool,
    refused: LogThrottle,
}

impl Origins {
    /// As it is configured.
    #[must_use]
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            allowed: config.allowed_origins.clone(),
            own: config.public_url.clone(),
            is_proxied: config.client_ip_header.is_some(),
            refused: LogThrottle::default(),
        }
    }

    /// Judges a request; `now` is by the monotonic clock. A refused origin is logged, once an hour.
    #[must_use]
    pub(crate) fn judge<B>(&self, request: &http::Request<B>, now: Duration) -> Verdict {
        let headers = request.headers();
        let mut given = headers.get_all(ORIGIN).iter();
        let origin = given.next().cloned();
        // No browser sends two.
        let is_allowed = origin.as_ref().map(|origin| given.next().is_none() && self.allow(headers, origin));
        // A browser sends these without asking before, and shows a page no more than it may read.
        let is_harmless = matches!(*request.method(), Method::GET | Method::HEAD)
            && !headers.contains_key(UPGRADE)
            && !websocket::is_address(request.uri().path());
        let verdict = Verdict { origin, is_allowed, is_harmless };
        if let (Some(origin), Err(_)) = (&verdict.origin, verdict.check()) {
            self.log_refused(origin, now);
        }
        verdict
    }

    fn allow(&self, headers: &HeaderMap, origin: &HeaderValue) -> bool {
        let host = headers.get(HOST).and_then(|host| str::from_utf8(host.as_bytes()).ok());
        let scheme = if self.is_proxied { forwarded_scheme(headers) } else { None };
        let called = OwnOrigin::Requested { host: host.unwrap_or_default(), scheme };
        let own = self.own.as_ref().map_or(called, OwnOrigin::Configured);
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
pub(crate) struct Verdict {
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
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if self.is_allowed == Some(false) && !self.is_harmless { Err(ApiError::Origin) } else { Ok(()) }
    }

    /// What a browser is told that asks before it does something.
    pub(crate) fn preflight<B>(&self, request: &http::Request<B>) -> Option<Response> {
        let asks_before = self.is_allowed.is_some()
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        asks_before.then(|| (StatusCode::NO_CONTENT, PREFLIGHT).into_response())
    }

    /// Tells browsers which pages may read the answer. Why a socket or a post was refused may be read by all.
    pub(crate) fn tell(self, response: &mut Response) {
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
