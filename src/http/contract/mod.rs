//! The machine-readable contract: `/openapi.json` for HTTP and `/asyncapi.json` for the sockets.
//!
//! Both documents are generated from the types that the hub sends and parses, once, at the first request. `openapi` lists
//! the endpoints with the builder in `endpoint`; `asyncapi` lists the messages. Tests compare both documents with a
//! running hub (`tests/hub/contract.rs`, `tests/contract`).

mod asyncapi;
mod endpoint;
mod openapi;

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::assets::{ANY_ORIGIN, CachePolicy, etag_of, is_current};

/// The description of the hub in both documents.
const DESCRIPTION: &str = env!("CARGO_PKG_DESCRIPTION");

/// The OpenAPI document: everything over HTTP.
pub static OPENAPI: LazyLock<Document> = LazyLock::new(|| Document::new(&openapi::document()));

/// The AsyncAPI document: the messages on the sockets.
pub static ASYNCAPI: LazyLock<Document> = LazyLock::new(|| Document::new(&asyncapi::document()));

/// `GET /openapi.json`: everything over HTTP.
pub(crate) async fn openapi(request: HeaderMap) -> Response {
    OPENAPI.respond(&request)
}

/// `GET /asyncapi.json`: the messages on the sockets.
pub(crate) async fn asyncapi(request: HeaderMap) -> Response {
    ASYNCAPI.respond(&request)
}

/// A serialized document with its entity tag.
#[derive(Debug)]
pub struct Document {
    text: Bytes,
    etag: String,
}

impl Document {
    #[expect(clippy::unreachable, reason = "documents are plain JSON")]
    fn new(document: &impl Serialize) -> Self {
        let text = serde_json::to_vec(document)
            .unwrap_or_else(|error| unreachable!("documents are plain JSON with string keys: {error}"));
        let etag = etag_of(&Sha256::digest(&text));
        Self { text: text.into(), etag }
    }

    /// Returns the document as JSON.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    fn respond(&self, request: &HeaderMap) -> Response {
        let common = [
            (CACHE_CONTROL, CachePolicy::Revalidate.as_str()),
            (ETAG, &self.etag),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        if is_current(request, &self.etag) {
            return (StatusCode::NOT_MODIFIED, ANY_ORIGIN, common).into_response();
        }
        (ANY_ORIGIN, common, [(CONTENT_TYPE, "application/json")], self.text.clone()).into_response()
    }
}
