//! The check of `Origin`, and the answers of CORS.
//!
//! A page of a foreign site may open no socket and post nothing, and may not read answers, except why it was rejected.
//! A request without `Origin` comes from no page of another site, and is not checked here.

use std::str;
use std::time::Duration;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, REFERER, UPGRADE, VARY,
};
use axum::http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::warn;
use url::Url;

use super::Config;
use super::error::ApiError;
use super::forwarded::forwarded_scheme;
use super::log_throttle::LogThrottle;
use crate::auth::origins::OwnOrigin;
use crate::auth::{AllowedOrigins, PublicUrl};

/// The answer to a preflight. Chrome caches it for two hours at most.
const PREFLIGHT: [(HeaderName, HeaderValue); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, DELETE")),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, content-encoding, visitor"),
    ),
    (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
];

/// Which origins may do what.
#[derive(Debug)]
pub(crate) struct CorsPolicy {
    allowed: AllowedOrigins,
    own: Option<PublicUrl>,
    /// Whether a proxy in front sends the scheme of requests.
    is_proxied: bool,
    rejected: LogThrottle,
}

impl CorsPolicy {
    /// The policy of the configuration.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            allowed: config.allowed_origins.clone(),
            own: config.public_url.clone(),
            is_proxied: config.client_ip_header.is_some(),
            rejected: LogThrottle::default(),
        }
    }

    /// Checks the origin of a request; `opens_socket` says whether its route does. A rejected origin is logged once an
    /// hour; `now` is by the monotonic clock.
    pub(crate) fn check<B>(
        &self,
        request: &http::Request<B>,
        opens_socket: bool,
        now: Duration,
    ) -> OriginCheck {
        let headers = request.headers();
        let mut origins = headers.get_all(ORIGIN).iter();
        // A page's plain GET at its own host has no `Origin`. It asks why an upgrade is rejected, which would have one.
        let asks_why = opens_socket && !headers.contains_key(UPGRADE);
        let origin =
            origins.next().cloned().or_else(|| asks_why.then(|| referring_origin(headers)).flatten());
        // No browser sends two.
        let is_allowed =
            origin.as_ref().map(|origin| origins.next().is_none() && self.allow(headers, origin));
        // A browser sends these without a preflight, and shows a page only what it may read.
        let is_harmless = matches!(*request.method(), Method::GET | Method::HEAD)
            && !headers.contains_key(UPGRADE)
            && !opens_socket;
        let check = OriginCheck { origin, is_allowed, is_harmless };
        if let (Some(origin), Err(_)) = (&check.origin, check.result()) {
            self.log_rejected(origin, now);
        }
        check
    }

    fn allow(&self, headers: &HeaderMap, origin: &HeaderValue) -> bool {
        let host = headers.get(HOST).and_then(|host| str::from_utf8(host.as_bytes()).ok());
        let scheme = if self.is_proxied { forwarded_scheme(headers) } else { None };
        let called = OwnOrigin::Requested { host: host.unwrap_or_default(), scheme };
        let own = self.own.as_ref().map_or(called, OwnOrigin::Configured);
        origin.to_str().is_ok_and(|origin| self.allowed.allow(origin, &own))
    }

    fn log_rejected(&self, origin: &HeaderValue, now: Duration) {
        let Some(due) = self.rejected.due(origin.as_bytes(), now) else { return };
        warn!(origin = %due.text, "rejected a page of this origin: add it to ALLOWED_ORIGINS to allow it");
        if due.is_last {
            warn!("many origins are rejected: no further ones are logged for an hour");
        }
    }
}

/// The origin of the page that `Referer` names.
fn referring_origin(headers: &HeaderMap) -> Option<HeaderValue> {
    let page = Url::parse(headers.get(REFERER)?.to_str().ok()?).ok()?;
    HeaderValue::try_from(page.origin().ascii_serialization()).ok()
}

/// What a request may do by its `Origin`.
#[derive(Debug)]
pub(crate) struct OriginCheck {
    origin: Option<HeaderValue>,
    /// Whether the origin is allowed; none where the request has no origin.
    is_allowed: Option<bool>,
    /// Whether a page of any origin may send the request, and only not read the answer.
    is_harmless: bool,
}

impl OriginCheck {
    /// Whether the request may go on.
    /// Errors: a page of a foreign origin asks for more than it could see anyway.
    pub(crate) fn result(&self) -> Result<(), ApiError> {
        if self.is_allowed == Some(false) && !self.is_harmless { Err(ApiError::Origin) } else { Ok(()) }
    }

    /// The answer to a preflight, if the request is one.
    pub(crate) fn preflight<B>(&self, request: &http::Request<B>) -> Option<Response> {
        let is_preflight = self.is_allowed.is_some()
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        is_preflight.then(|| (StatusCode::NO_CONTENT, PREFLIGHT).into_response())
    }

    /// Adds the headers by which pages of allowed origins may read the answer. Pages of all origins may read why a socket
    /// or a post was rejected.
    pub(crate) fn add_headers(self, response: &mut Response) {
        let is_rejection = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
        );
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let reader = match (self.origin, self.is_allowed) {
            // Never `*`: beacons send credentials, though the hub does not use them.
            (Some(origin), Some(true)) => {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                origin
            }
            (Some(_), _) if is_rejection && !self.is_harmless => HeaderValue::from_static("*"),
            _ => return,
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, reader);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
}
