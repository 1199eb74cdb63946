//! Files: what Vite built from `web/`, taken into the binary, and how each is served.
//!
//! Each file stands there up to three times, as it is and compressed by brotli and gzip, so that
//! no request costs a compression. A debug build reads the folder instead. What is said about a
//! page beyond its file is the business of [`super::pages`].

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::Embed;

use super::error::ApiError;
use super::etag::{is_known, tag_of};

#[derive(Embed)]
#[folder = "web/app/dist"]
struct Files;

/// In which forms a file is there, the smallest first: its coding, and how its name then ends.
const CODINGS: [(&str, &str); 3] = [("br", ".br"), ("gzip", ".gz"), ("identity", "")];

/// What other people's pages use: anybody may, from anywhere.
pub(super) const FOR_ALL: [(HeaderName, &str); 2] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
];

/// How long a browser may keep a file without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// As long as it likes: another content would have another name.
    Forever,
    /// An hour: the name stays when the content changes.
    Hour,
    /// Not at all: it asks each time, which mostly costs a 304.
    Asking,
}

impl Keep {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Forever => "public, max-age=31536000, immutable",
            Self::Hour => "public, max-age=3600",
            Self::Asking => "no-cache",
        }
    }
}

/// `GET /assets/{file}`: what the pages need, under names that hold a hash of the content.
pub(crate) async fn asset(
    path: Result<Path<String>, PathRejection>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    serve(&format!("assets/{}", name(path)), &request, Keep::Forever).ok_or(ApiError::NotFound)
}

/// `GET /client/{file}`: the client library, as a script and as an ES module.
pub(crate) async fn client(
    path: Result<Path<String>, PathRejection>,
    request: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let file = serve(&format!("client/{}", name(path)), &request, Keep::Hour).ok_or(ApiError::NotFound)?;
    Ok((FOR_ALL, file))
}

/// A file's name from an address. What is no name, or leads elsewhere, names nothing.
fn name(path: Result<Path<String>, PathRejection>) -> String {
    path.map(|Path(name)| name).ok().filter(|name| !name.contains('/')).unwrap_or_default()
}

/// Whether the pages were built before the hub.
pub(super) fn are_built() -> bool {
    Files::get("index.html").is_some()
}

/// A file in the smallest form that the browser takes, or 304 where it has that already.
pub(super) fn serve(path: &str, request: &HeaderMap, keep: Keep) -> Option<Response> {
    let kind = content_type(path)?;
    let accepted = value(request, &ACCEPT_ENCODING);
    let (coding, file) = CODINGS
        .iter()
        .filter(|(coding, _)| *coding == "identity" || accepts(accepted, coding))
        .find_map(|(coding, end)| Some((*coding, Files::get(&format!("{path}{end}"))?)))?;
    let tag = tag_of(&file.metadata.sha256_hash());
    let common = [
        (CACHE_CONTROL, keep.as_str()),
        (VARY, ACCEPT_ENCODING.as_str()),
        (ETAG, &tag),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if is_known(request, &tag) {
        return Some((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let mut response = (common, [(CONTENT_TYPE, kind)], file.data).into_response();
    if coding != "identity" {
        response.headers_mut().insert(CONTENT_ENCODING, coding.parse().ok()?);
    }
    Some(response)
}

fn value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What a file is, by the end of its name; no other files are served.
fn content_type(path: &str) -> Option<&'static str> {
    match path.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "js" | "mjs" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

/// Whether an `Accept-Encoding` takes this coding: by its name, else by `*`; 0 means no.
fn accepts(header: &str, coding: &str) -> bool {
    let weight = |wanted: &str| {
        header.split(',').find_map(|entry| {
            let (name, weight) = entry.split_once(';').unwrap_or((entry, "q=1"));
            let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
            name.trim().eq_ignore_ascii_case(wanted).then(|| weight.unwrap_or(0.0))
        })
    };
    weight(coding).or_else(|| weight("*")).unwrap_or_default() > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_taken_by_name_or_by_star_and_not_where_its_weight_is_0() {
        for header in ["br", "gzip, br", "BR;q=0.1", "gzip;q=0, *", "*;q=0.5", "gzip , br ; q=1.0"] {
            assert!(accepts(header, "br"), "{header}");
        }
        for header in ["", "gzip", "br;q=0", "br;q=0, *", "brotli", "*;q=0", "br;q=much"] {
            assert!(!accepts(header, "br"), "{header}");
        }
    }

    #[test]
    fn only_what_pages_are_made_of_is_served() {
        assert_eq!(content_type("client/breathing-room.mjs"), Some("text/javascript; charset=utf-8"));
        for other in ["assets/room.js.br", "assets/room.js.map", "assets/none", ""] {
            assert_eq!(content_type(other), None, "{other}");
        }
    }
}
