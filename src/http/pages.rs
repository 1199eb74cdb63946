//! Pages: the dashboard, the room, and the question for the token before the dashboard.
//!
//! They are the same for everybody and hold no data; what they show they ask for. Here is said
//! who gets which, and what a browser may do with it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, IF_NONE_MATCH, REFERRER_POLICY, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::access::AccessControl;
use super::assets::{Keep, are_built, serve};
use super::error::ApiError;
use super::params::RoomPath;
use super::state::PagesState;
use crate::address::Address;
use crate::auth::Access;

/// What there is to see where the pages were not built before the hub.
const NOT_BUILT: &str = "The hub runs, but it was built without its pages.

To have them, stop it and type in its folder:  make run
Or, step by step:  cd web && npm ci && npm run build && cd .. && cargo build
";

/// Warns at the start of a hub that has no pages to serve.
pub(crate) fn warn_if_missing() {
    if !are_built() {
        warn!("this program was built without its pages: build it with `make run` or `make release`");
    }
}

/// Who may show the room page in a frame: the sources of a Content-Security-Policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameAncestors(String);

impl Default for FrameAncestors {
    /// This hub's own pages.
    fn default() -> Self {
        Self("'self'".to_owned())
    }
}

impl FrameAncestors {
    /// Reads `'none'`, `*`, or a list of `'self'` and origins, separated by spaces.
    ///
    /// # Errors
    /// Something else stands in it.
    pub fn parse(list: &str) -> Result<Self, String> {
        let sources: Vec<&str> = list.split_whitespace().collect();
        let all_good = match sources.as_slice() {
            [] => false,
            ["'none'" | "*"] => true,
            several => several.iter().all(|source| *source == "'self'" || is_origin(source)),
        };
        if all_good {
            Ok(Self(sources.join(" ")))
        } else {
            Err("must be 'none', *, or a list of 'self' and origins such as https://example.org".to_owned())
        }
    }
}

/// `https://example.org`, also with a port, or with `*` for all names below.
fn is_origin(source: &str) -> bool {
    let host = source.strip_prefix("https://").or_else(|| source.strip_prefix("http://")).unwrap_or_default();
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:*[]".contains(&byte))
}

/// `GET /`: the dashboard. Where it is the admin's, whoever has no token gets a page that asks for it.
pub(crate) async fn dashboard(
    State(access): State<Arc<AccessControl>>,
    address: Address,
    mut request: HeaderMap,
) -> Result<Response, ApiError> {
    let is_public = access.dashboard == Access::Public;
    // Whoever brings no token has not tried any.
    if is_public || request.contains_key(AUTHORIZATION) {
        match access.admit(access.dashboard, &request, address) {
            Ok(()) => return Ok(page("index.html", &request, "'none'")),
            Err(ApiError::Unauthorized) => {}
            Err(paced) => return Err(paced),
        }
    }
    // A refusal is never "not modified".
    request.remove(IF_NONE_MATCH);
    let mut asking = page("token.html", &request, "'none'");
    *asking.status_mut() = StatusCode::UNAUTHORIZED;
    asking.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Ok(asking)
}

/// `GET /room/{room}`: a page that joins the room.
pub(crate) async fn room(
    State(state): State<Arc<PagesState>>,
    _: RoomPath,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    Ok(page("room.html", &request, &state.frame_ancestors.0))
}

fn page(file: &str, request: &HeaderMap, frame_ancestors: &str) -> Response {
    let Some(page) = serve(file, request, Keep::Asking) else {
        return (StatusCode::NOT_IMPLEMENTED, NOT_BUILT).into_response();
    };
    // Our own files and sockets, and nothing inline. Other sites learn nothing from a link, but a
    // page keeps its origin: without it, the beacons that it sends at its end would have none.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors {frame_ancestors}"
    );
    ([(CONTENT_SECURITY_POLICY, policy.as_str()), (REFERRER_POLICY, "same-origin")], page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_ancestors_are_none_all_or_a_list() {
        for good in [
            "'none'",
            "*",
            "'self'",
            "'self' https://example.org",
            "https://*.example.org http://localhost:3000",
        ] {
            assert_eq!(FrameAncestors::parse(good), Ok(FrameAncestors(good.to_owned())));
        }
        let tidied = FrameAncestors::parse("  'self'   https://a.example ").unwrap();
        assert_eq!(tidied.0, "'self' https://a.example");
        for bad in
            ["", "none", "example.org", "'none' 'self'", "https://", "https://a;script-src *", "https://a/b"]
        {
            assert!(FrameAncestors::parse(bad).is_err(), "{bad}");
        }
    }
}
