//! Error pages: what a browser shows to a person instead of the JSON of an error response.
//!
//! A page is an answer to a `GET` that accepts `text/html`. It has the status, the headers and the message of the JSON.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue};

/// The headers of an error page.
pub(crate) const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
        ),
    ),
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
];

/// An error for an error page.
#[derive(Debug, Clone)]
pub(crate) struct PageError {
    /// The error code.
    pub code: &'static str,
    /// The message for people.
    pub message: Cow<'static, str>,
}

/// Whether one of these values of `Accept` names HTML.
pub(crate) fn accepts_html<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    let lists = values.filter_map(|value| str::from_utf8(value).ok());
    let mut types = lists.flat_map(|list| list.split(',')).filter_map(|item| item.split(';').next());
    types.any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// The page of an error response with this status.
pub(crate) fn error_page(status: StatusCode, error: &PageError) -> String {
    let title = match status {
        StatusCode::BAD_REQUEST => "This address is not right",
        StatusCode::UNAUTHORIZED => "This needs a token",
        StatusCode::FORBIDDEN => "This is not allowed",
        StatusCode::NOT_FOUND => "There is no page at this address",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        StatusCode::SERVICE_UNAVAILABLE => "Not available now",
        _ => "The hub cannot answer this",
    };
    let message = match error.code {
        "bad-room" => {
            "The name of a room has letters from a to z, digits and hyphens. It begins with a letter or a digit, and has at \
             most 64 characters"
        }
        _ => &error.message,
    };
    let message = escape(&sentence(message));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<main>\n<h1>{title}</h1>\n<p>{message}.</p>\n</main>\n</html>\n"
    )
}

/// A message begins in lower case, for logs and programs.
fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    characters.next().into_iter().flat_map(char::to_uppercase).chain(characters).collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_escapes_its_message() {
        let error = PageError { code: "bad-query", message: "<script>\"&".into() };
        let page = error_page(StatusCode::BAD_REQUEST, &error);
        assert!(page.contains("<p>&lt;script&gt;&quot;&amp;.</p>"), "{page}");
    }

    #[test]
    fn page_begins_its_message_in_upper_case() {
        let error = PageError { code: "full", message: "the hub is full".into() };
        let page = error_page(StatusCode::SERVICE_UNAVAILABLE, &error);
        assert!(page.contains("<p>The hub is full.</p>"), "{page}");
    }

    #[test]
    fn only_a_client_that_names_html_gets_a_page() {
        let accepts = |accept: &'static str| accepts_html([accept.as_bytes()].into_iter());
        assert!(
            accepts("text/html,application/xhtml+xml,*/*;q=0.8")
                && accepts("application/json, Text/HTML;q=0.1")
        );
        assert!(!accepts("*/*") && !accepts("application/json") && !accepts_html([].into_iter()));
    }
}
