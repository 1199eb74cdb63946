//! Static files: the output of Vite in `web/app/dist`, embedded in the binary, and the headers that cache them.
//!
//! Each file is embedded up to three times, plain and compressed with brotli and gzip, so that no request compresses
//! anything. A debug build reads the folder instead. [`super::pages`] adds the headers that only pages need.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::Embed;

use super::error::ApiError;

#[derive(Embed)]
#[folder = "web/app/dist"]
struct Files;

/// The content codings of embedded files, smallest first, each with the suffix of its file names.
const CODINGS: [(&str, &str); 3] = [("br", ".br"), ("gzip", ".gz"), ("identity", "")];

/// Headers that allow pages of every origin to use a file.
pub(super) const ANY_ORIGIN: [(HeaderName, &str); 2] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
];

/// How long a browser may cache a file without revalidation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CachePolicy {
    /// For ever: the file's name contains a hash of its content.
    Immutable,
    /// For an hour: the content may change under the same name.
    Hour,
    /// Not at all: each use revalidates the file, usually with a 304.
    Revalidate,
}

impl CachePolicy {
    /// The value of `Cache-Control`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Immutable => "public, max-age=31536000, immutable",
            Self::Hour => "public, max-age=3600",
            Self::Revalidate => "no-cache",
        }
    }
}

/// `GET /assets/{file}`: scripts, styles and images of the pages. Their names contain a hash of the content.
pub(crate) async fn asset(
    path: Result<Path<String>, PathRejection>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    serve(&format!("assets/{}", name(path)), &request, CachePolicy::Immutable).ok_or(ApiError::NotFound)
}

/// `GET /client/{file}`: the browser client, as a script and as an ES module.
pub(crate) async fn client(
    path: Result<Path<String>, PathRejection>,
    request: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let file =
        serve(&format!("client/{}", name(path)), &request, CachePolicy::Hour).ok_or(ApiError::NotFound)?;
    Ok((ANY_ORIGIN, file))
}

/// Returns the file name of a request's path; empty, which no file has, if it is invalid or contains a slash.
fn name(path: Result<Path<String>, PathRejection>) -> String {
    path.map(|Path(name)| name).ok().filter(|name| !name.contains('/')).unwrap_or_default()
}

/// Returns whether the pages are embedded, that is whether they were built before the hub.
pub(super) fn has_pages() -> bool {
    Files::get("index.html").is_some()
}

/// Returns a response with the smallest coding that the browser accepts, or 304 if the browser's copy is current.
pub(super) fn serve(path: &str, request: &HeaderMap, cache: CachePolicy) -> Option<Response> {
    let content_type = content_type(path)?;
    let accepted = value(request, &ACCEPT_ENCODING);
    let (coding, file) = CODINGS
        .iter()
        .filter(|(coding, _)| *coding == "identity" || accepts(accepted, coding))
        .find_map(|(coding, suffix)| Some((*coding, Files::get(&format!("{path}{suffix}"))?)))?;
    let etag = etag_of(&file.metadata.sha256_hash());
    let common = [
        (CACHE_CONTROL, cache.as_str()),
        (VARY, ACCEPT_ENCODING.as_str()),
        (ETAG, &etag),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if is_current(request, &etag) {
        return Some((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let mut response = (common, [(CONTENT_TYPE, content_type)], file.data).into_response();
    if coding != "identity" {
        response.headers_mut().insert(CONTENT_ENCODING, coding.parse().ok()?);
    }
    Some(response)
}

fn value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns the content type by the file name's extension. Files with other extensions are not served.
fn content_type(path: &str) -> Option<&'static str> {
    match path.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "js" | "mjs" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

/// Returns whether an `Accept-Encoding` accepts this coding, by its name or else by `*`. A weight of 0 rejects it.
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

/// Returns an entity tag: the first 128 bits of a content's hash.
pub(super) fn etag_of(hash: &[u8]) -> String {
    format!("\"{:032x}\"", hash.iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte)))
}

/// Returns whether `If-None-Match` contains this tag, so that the client's copy is current (RFC 9110, section 13.1.2).
/// The comparison is weak, because proxies that compress make tags weak.
pub(super) fn is_current(request: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let lists = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coding_is_accepted_by_name_or_star_unless_its_weight_is_0() {
        for header in ["br", "gzip, br", "BR;q=0.1", "gzip;q=0, *", "*;q=0.5", "gzip , br ; q=1.0"] {
            assert!(accepts(header, "br"), "{header}");
        }
        for header in ["", "gzip", "br;q=0", "br;q=0, *", "brotli", "*;q=0", "br;q=much"] {
            assert!(!accepts(header, "br"), "{header}");
        }
    }

    #[test]
    fn only_known_extensions_are_served() {
        assert_eq!(content_type("client/breathing-room.mjs"), Some("text/javascript; charset=utf-8"));
        for other in ["assets/room.js.br", "assets/room.js.map", "assets/none", ""] {
            assert_eq!(content_type(other), None, "{other}");
        }
    }

    #[test]
    fn etag_is_found_in_a_list_by_weak_comparison() {
        let request = |tags: &str| HeaderMap::from_iter([(IF_NONE_MATCH, tags.parse().unwrap())]);
        for etag in ["\"a\"", "W/\"a\""] {
            for tags in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "\"b\",W/\"a\"", "*"] {
                assert!(is_current(&request(tags), etag), "{tags}");
            }
            for tags in ["", "\"b\"", "a", "\"ab\""] {
                assert!(!is_current(&request(tags), etag), "{tags}");
            }
            assert!(!is_current(&HeaderMap::new(), etag));
        }
    }
}
