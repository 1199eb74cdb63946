//! The pages: files of `web/`, built into the binary.
//!
//! They are the same for everybody; what they show they ask for over the socket.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::error::ApiError;
use super::live::room_id;

const PAGE: &str = include_str!("../../web/room.html");
const SCRIPT: &str = include_str!("../../web/room.js");
const STYLE: &str = include_str!("../../web/room.css");

/// Nothing from elsewhere, and nothing inline but the empty icon.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// `GET /`: until there is a dashboard, the lobby.
pub async fn dashboard(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    app.config.dashboard.admit(&app, &headers)?;
    Ok(asset("text/html; charset=utf-8", PAGE))
}

/// `GET /room/{room}`: a page that joins the room.
pub async fn room_page(path: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    room_id(path)?;
    Ok(asset("text/html; charset=utf-8", PAGE))
}

/// `GET /assets/{file}`: what the page needs.
pub async fn file(path: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    match path.map(|Path(file)| file).unwrap_or_default().as_str() {
        "room.js" => Ok(asset("text/javascript; charset=utf-8", SCRIPT)),
        "room.css" => Ok(asset("text/css; charset=utf-8", STYLE)),
        _ => Err(ApiError::NotFound),
    }
}

fn asset(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, content).into_response()
}
