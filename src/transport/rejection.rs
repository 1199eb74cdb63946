//! Responses to connections that are rejected as soon as they are accepted, before anything is kept for them.
//!
//! The head of the request has mostly arrived by then, because the kernel defers the accept until there are bytes.

use std::io::{Read, Write};

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use httparse::EMPTY_HEADER;
use serde_json::json;
use tokio::net::TcpStream;

use super::limits::LimitExceeded;
use crate::error_page::{self, PageError, accepts_html, error_page};

/// The longest request head, in bytes.
pub(super) const HEAD_LIMIT: usize = 16 * 1024;

/// The most headers of a request that is looked at.
const HEADERS_LIMIT: usize = 100;

/// A response that is ready to be sent, in both forms.
#[derive(Debug)]
pub(super) struct Rejection {
    json: Vec<u8>,
    page: Vec<u8>,
}

impl Rejection {
    /// The connection's address has too many connections.
    pub(super) fn too_many() -> Self {
        let message = LimitExceeded::OpenConnections.to_string();
        Self::new(StatusCode::TOO_MANY_REQUESTS, 10, &PageError { code: "too-many", message: message.into() })
    }

    /// The process has no open files left for connections.
    pub(super) fn full() -> Self {
        let message = "the hub is full: try again in a while";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 5, &PageError { code: "full", message: message.into() })
    }

    /// `retry_after` is in seconds.
    fn new(status: StatusCode, retry_after: u32, error: &PageError) -> Self {
        let body = json!({ "error": { "code": error.code, "message": error.message } });
        let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Self {
            json: response(status, retry_after, &json, &body.to_string()),
            page: response(status, retry_after, &error_page::HEADERS, &error_page(status, error)),
        }
    }

    /// Sends the response without waiting: as a page to a browser whose request has arrived, and else as JSON.
    pub(super) fn send(&self, stream: TcpStream) {
        let Ok(mut stream) = stream.into_std() else { return };
        // With unread bytes the kernel sends a reset, and the peer loses the response.
        let mut head = [0; HEAD_LIMIT];
        let length = stream.read(&mut head).unwrap_or(0);
        let head = head.get(..length).unwrap_or_default();
        let response = if wants_page(head) { &self.page } else { &self.json };
        let _ = stream.write(response);
    }
}

fn response(
    status: StatusCode,
    retry_after: u32,
    headers: &[(HeaderName, HeaderValue)],
    body: &str,
) -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nretry-after: {retry_after}\r\nvary: accept\r\n\
         access-control-allow-origin: *\r\naccess-control-expose-headers: retry-after\r\nconnection: close\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in headers {
        response.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    response.extend([b"\r\n", body.as_bytes()].concat());
    response
}

/// Whether these bytes are the head of a request for a page.
fn wants_page(head: &[u8]) -> bool {
    let mut headers = [EMPTY_HEADER; HEADERS_LIMIT];
    let mut request = httparse::Request::new(&mut headers);
    let is_whole = request.parse(head).is_ok_and(|status| status.is_complete());
    let is_accept = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(ACCEPT.as_str());
    is_whole
        && request.method == Some("GET")
        && accepts_html(request.headers.iter().filter(is_accept).map(|header| header.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(response: &[u8]) -> (&str, &str) {
        str::from_utf8(response).unwrap().split_once("\r\n\r\n").unwrap()
    }

    #[test]
    fn ready_responses_have_the_right_content_length_and_code() {
        for (rejection, status, code, text) in [
            (
                Rejection::full(),
                "503 Service Unavailable",
                "full",
                "<p>The hub is full: try again in a while.</p>",
            ),
            (
                Rejection::too_many(),
                "429 Too Many Requests",
                "too-many",
                "<p>Too many connections are open from your address.</p>",
            ),
        ] {
            for response in [&rejection.json, &rejection.page] {
                let (head, body) = parts(response);
                assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
                assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
                assert!(head.contains("\r\naccess-control-allow-origin: *\r\n"), "{head}");
            }
            let body: serde_json::Value = serde_json::from_str(parts(&rejection.json).1).unwrap();
            assert_eq!(body["error"]["code"], code);
            let (head, page) = parts(&rejection.page);
            assert!(head.contains("\r\ncontent-type: text/html; charset=utf-8"), "{head}");
            assert!(page.contains(text), "{page}");
        }
    }

    #[test]
    fn only_a_whole_get_that_accepts_html_wants_a_page() {
        let browser = "GET /room/lobby HTTP/1.1\r\nHost: hub\r\nAccept: text/html,*/*;q=0.8\r\n\r\n";
        assert!(wants_page(browser.as_bytes()));
        for head in [
            "",
            "G",
            browser.trim_end(),
            &browser.replace("GET", "POST"),
            &browser.replace("text/html", "text/plain"),
            &browser.replace("Accept", "Accept-Language"),
            &browser.replace("HTTP/1.1", "HTTP"),
        ] {
            assert!(!wants_page(head.as_bytes()), "{head:?}");
        }
    }
}
