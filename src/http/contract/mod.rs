//! The contract for machines: `/openapi.json` for HTTP and `/asyncapi.json` for the sockets.
//!
//! Both are made from the types that are sent and read, once, when somebody first asks. `openapi` is the
//! table of what HTTP answers, told in the words of `endpoint`; `asyncapi` tells what is said on the
//! sockets. That they are true is tested against a real hub (`tests/hub/contract.rs`, `tests/contract`).

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

use super::assets::{FOR_ALL, Keep};
use super::etag::{is_known, tag_of};

/// What both documents say of themselves.
const DESCRIPTION: &str = env!("CARGO_PKG_DESCRIPTION");

/// What there is over HTTP.
pub static OPENAPI: LazyLock<Document> = LazyLock::new(|| Document::new(&openapi::document()));

/// What is said on the sockets.
pub static ASYNCAPI: LazyLock<Document> = LazyLock::new(|| Document::new(&asyncapi::document()));

/// `GET /openapi.json`: what there is over HTTP.
pub(crate) async fn openapi(request: HeaderMap) -> Response {
    OPENAPI.answer(&request)
}

/// `GET /asyncapi.json`: what is said on the sockets.
pub(crate) async fn asyncapi(request: HeaderMap) -> Response {
    ASYNCAPI.answer(&request)
}

/// A document, ready to be sent.
#[derive(Debug)]
pub struct Document {
    text: Bytes,
    tag: String,
}

impl Document {
    #[expect(clippy::unreachable, reason = "documents are plain JSON")]
    fn new(document: &impl Serialize) -> Self {
        let text = serde_json::to_vec(document)
            .unwrap_or_else(|problem| unreachable!("documents are plain JSON with string keys: {problem}"));
        let tag = tag_of(&Sha256::digest(&text));
        Self { text: text.into(), tag }
    }

    /// Its JSON.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    fn answer(&self, request: &HeaderMap) -> Response {
        let common =
            [(CACHE_CONTROL, Keep::Asking.as_str()), (ETAG, &self.tag), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        if is_known(request, &self.tag) {
            return (StatusCode::NOT_MODIFIED, FOR_ALL, common).into_response();
        }
        (FOR_ALL, common, [(CONTENT_TYPE, "application/json")], self.text.clone()).into_response()
    }
}
