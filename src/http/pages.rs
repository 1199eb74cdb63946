//! The HTML pages: the dashboard, the room, and the form for the admin token.
//!
//! Pages are the same for all clients and contain no data; their scripts request it. This module decides which page a
//! request gets, and sets its `Content-Security-Policy`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, IF_NONE_MATCH, REFERRER_POLICY, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use tracing::warn;

use super::access::AccessControl;
use super::assets::{CachePolicy, has_pages, serve};
use super::error::ApiError;
use super::params::NamePath;
use super::state::PagesState;
use crate::address::Address;
use crate::auth::Access;
use crate::protocol::RoomId;

/// The response if the pages were not built before the hub.
const NOT_BUILT: &str = "The hub is running, but it was built without its pages.

To build the pages, stop the hub and run in its folder:  make run
Or step by step:  cd web && npm ci && npm run build && cd .. && cargo build
";

/// Logs a warning if the hub has no pages to serve.
pub(crate) fn warn_if_missing() {
    if !has_pages() {
        warn!("the hub was built without its pages: build it with `make run` or `make release`");
    }
}

/// `GET /`: the dashboard. If it requires the admin token, a request without it gets a form for the token.
pub(crate) async fn dashboard(
    State(access): State<Arc<AccessControl>>,
    address: Address,
    mut request: HeaderMap,
) -> Result<Response, ApiError> {
    let is_public = access.dashboard == Access::Public;
    // A request without a token is not a failed attempt, so it is not rate limited.
    if is_public || request.contains_key(AUTHORIZATION) {
        match access.admit(access.dashboard, &request, address) {
            Ok(()) => return Ok(page("index.html", &request, "'none'")),
            Err(ApiError::Unauthorized) => {}
            Err(rate_limited) => return Err(rate_limited),
        }
    }
    // A 401 must not become a 304.
    request.remove(IF_NONE_MATCH);
    let mut form = page("token.html", &request, "'none'");
    *form.status_mut() = StatusCode::UNAUTHORIZED;
    form.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Ok(form)
}

/// `GET /room/{room}`: a page that joins the room. Redirects to the room that is meant where the name has capital letters
/// or spaces.
pub(crate) async fn room(
    State(state): State<Arc<PagesState>>,
    NamePath(name): NamePath,
    uri: Uri,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    if let Err(bad) = RoomId::try_from(name.as_str()) {
        let room = meant_room(&name).ok_or(ApiError::BadRoom(bad))?;
        return Ok(redirect(&format!("/room/{room}"), &uri));
    }
    Ok(page("room.html", &request, state.frame_ancestors.as_str()))
}

/// Every path that is not a route. Redirects `/room/{room}/` to the room.
/// Errors: there is nothing at the path.
pub(crate) async fn missing(uri: Uri) -> Result<Response, ApiError> {
    let name = uri.path().strip_prefix("/room/").map(|name| name.trim_end_matches('/'));
    match name.filter(|name| !name.is_empty() && !name.contains('/')) {
        Some(name) => Ok(redirect(&format!("/room/{name}"), &uri)),
        None => Err(ApiError::NotFound),
    }
}

/// Returns the room that a name means which a person has typed.
fn meant_room(name: &str) -> Option<RoomId> {
    let words: Vec<_> = name.split_whitespace().collect();
    RoomId::try_from(words.join("-").to_lowercase()).ok()
}

fn redirect(path: &str, uri: &Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Redirect::permanent(&format!("{path}{query}")).into_response()
}

fn page(file: &str, request: &HeaderMap, frame_ancestors: &str) -> Response {
    let Some(page) = serve(file, request, CachePolicy::Revalidate) else {
        return (StatusCode::NOT_IMPLEMENTED, NOT_BUILT).into_response();
    };
    // Only the hub's own files and sockets, and nothing inline. Links send no referrer to other sites. `no-referrer`
    // would be too strict: beacons that a page sends when it closes would have the origin `null`.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors {frame_ancestors}"
    );
    ([(CONTENT_SECURITY_POLICY, policy.as_str()), (REFERRER_POLICY, "same-origin")], page).into_response()
}
