//! Error responses for people: a browser that opens an address gets a small page, and a program JSON.
//!
//! A page is an answer to a `GET` that accepts `text/html`. It has the status, the headers and the message of the JSON.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

/// The error of a response, for a page.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The error code.
    pub code: &'static str,
    /// The message for people.
    pub message: String,
}

/// Answers with a page instead of JSON where the client prefers one.
pub(super) async fn as_page(request: Request, next: Next) -> Response {
    let wants_page = *request.method() == Method::GET && accepts_html(request.headers());
    let mut response = next.run(request).await;
    let Some(refusal) = response.extensions_mut().remove::<Refusal>() else { return response };
    let status = response.status();
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Accept"));
    if wants_page {
        const POLICY: &str =
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        *response.body_mut() = Body::from(page(status, &refusal));
    }
    response
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = lists.flat_map(|list| list.split(',')).filter_map(|item| item.split(';').next());
    types.any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

fn page(status: StatusCode, refusal: &Refusal) -> String {
    let title = match status {
        StatusCode::BAD_REQUEST => "This address is not right",
        StatusCode::UNAUTHORIZED => "This needs a token",
        StatusCode::FORBIDDEN => "This is not allowed",
        StatusCode::NOT_FOUND => "There is no page at this address",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        StatusCode::SERVICE_UNAVAILABLE => "Not available now",
        _ => "The hub cannot answer this",
    };
    let message = match refusal.code {
        "bad-room" => {
            "The name of a room has letters from a to z, digits and hyphens. It begins with a letter or a digit, and has at \
             most 64 characters"
        }
        _ => &refusal.message,
    };
    let message = escape(message);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<main>\n<h1>{title}</h1>\n<p>{message}.</p>\n</main>\n</html>\n"
    )
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
        let refusal = Refusal { code: "bad-query", message: "<script>\"&".to_owned() };
        let page = page(StatusCode::BAD_REQUEST, &refusal);
        assert!(page.contains("<p>&lt;script&gt;&quot;&amp;.</p>"), "{page}");
    }

    #[test]
    fn only_a_client_that_names_html_gets_a_page() {
        let accepts = |accept: &str| {
            accepts_html(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).unwrap())]))
        };
        assert!(
            accepts("text/html,application/xhtml+xml,*/*;q=0.8")
                && accepts("application/json, Text/HTML;q=0.1")
        );
        assert!(!accepts("*/*") && !accepts("application/json") && !accepts_html(&HeaderMap::new()));
    }
}
