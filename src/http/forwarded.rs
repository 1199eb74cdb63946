//! Parsing of the headers that a proxy adds: the client's address, and the scheme of its request.
//!
//! They are read only if `CLIENT_IP_HEADER` is set, because any client can send them. The last address counts: the
//! nearest proxy wrote it.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Common headers that do not contain an address, or not in a form that is parsed here.
const NO_ADDRESS: [&str; 20] = [
    "authorization",
    "cloudfront-viewer-address",
    "connection",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "origin",
    "proxy-authorization",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// Prefixes of further headers that do not contain an address.
const NO_ADDRESS_PREFIXES: [&str; 6] = ["accept", "access-control-", "cache-", "content-", "if-", "sec-"];

/// Parses the name of a header in which a proxy sends the client's address.
/// Errors: it is not a valid header name, or it is a header that is known to contain something else.
pub(crate) fn address_header(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::try_from(name)
        .map_err(|_| "must be the name of a header, such as X-Forwarded-For".to_owned())?;
    let name = header.as_str();
    if NO_ADDRESS.contains(&name) || NO_ADDRESS_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err("must be a header with the client's address, such as X-Forwarded-For, X-Real-IP, Fly-Client-IP or \
                    Forwarded: this one has no address, or not in a form that the hub can parse"
            .to_owned());
    }
    Ok(header)
}

/// Returns the client's address as the nearest proxy saw it: the last one of `Forwarded` (RFC 7239) or of a list of
/// addresses.
pub(crate) fn forwarded_address(headers: &HeaderMap, header: &HeaderName) -> Option<IpAddr> {
    let value = headers.get_all(header).iter().next_back()?.to_str().ok()?;
    let nearest = split(value, ',').filter(|element| !element.is_empty()).last()?;
    if *header == FORWARDED { parameter(nearest, "for").and_then(node) } else { node(nearest) }
}

/// Returns the scheme of the browser's request, `http` or `https`: the first one of the list, because each further
/// proxy appends the scheme of the proxy before it. Scripts in pages cannot set these headers.
pub(crate) fn forwarded_scheme(headers: &HeaderMap) -> Option<&'static str> {
    let list = headers.get("x-forwarded-proto").and_then(first_element);
    let forwarded = || first_element(headers.get(FORWARDED)?).and_then(|element| parameter(element, "proto"));
    // Traefik sends `ws` or `wss` for a WebSocket.
    match unquoted(list.or_else(forwarded)?) {
        scheme if ["https", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => Some("https"),
        scheme if ["http", "ws"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => Some("http"),
        _ => None,
    }
}

fn first_element(value: &HeaderValue) -> Option<&str> {
    split(value.to_str().ok()?, ',').next()
}

/// Returns the value of a parameter in one element of `Forwarded`.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    split(element, ';').find_map(|pair| {
        let (found, value) = pair.split_once('=')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Parses an address, optionally quoted, in brackets, with a port or with a zone.
fn node(text: &str) -> Option<IpAddr> {
    let text = unquoted(text);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.split('%').next()?.parse().ok()
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim()
}

/// Splits a text at a separator, but not inside quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let split = text.split(move |c| {
        let is_literal = is_escaped;
        is_escaped = is_quoted && !is_literal && c == '\\';
        is_quoted ^= c == '"' && !is_literal;
        c == separator && !is_quoted
    });
    split.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, values: &[&str]) -> HeaderMap {
        let name = HeaderName::try_from(name).unwrap();
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn address_in(name: &str, values: &[&str]) -> Option<String> {
        let header = address_header(name).unwrap();
        forwarded_address(&headers(name, values), &header).map(|address| address.to_string())
    }

    #[test]
    fn last_address_of_a_list_is_parsed_in_every_form() {
        let list = |values: &[&str]| address_in("X-Forwarded-For", values);
        for (values, address) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&[" 192.0.2.1 "], "192.0.2.1"),
            (&["10.0.0.1, 2001:db8::1"], "2001:db8::1"),
            (&["10.0.0.1", "192.0.2.1:1234"], "192.0.2.1"),
            (&["192.0.2.1,"], "192.0.2.1"),
            (&["[2001:db8::1]:80"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["\"[2001:db8::1]\""], "2001:db8::1"),
            (&["\"[2001:db8::1]:80\""], "2001:db8::1"),
            (&["\"192.0.2.1\""], "192.0.2.1"),
            (&["fe80::1%eth0"], "fe80::1"),
            (&["::ffff:192.0.2.1"], "::ffff:192.0.2.1"),
        ] {
            assert_eq!(list(values).as_deref(), Some(address), "{values:?}");
        }
        for invalid in [&[][..], &[""], &["unknown"], &["192.0.2.1, me"], &["192.0.2.01"], &["for=192.0.2.1"]]
        {
            assert_eq!(list(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn last_for_parameter_of_forwarded_is_parsed() {
        let forwarded = |values: &[&str]| address_in("Forwarded", values);
        for (values, address) in [
            (&["for=192.0.2.1;proto=https"][..], "192.0.2.1"),
            (&["proto=https; For=192.0.2.1"], "192.0.2.1"),
            (&["for=\"[2001:db8::1]:4711\""], "2001:db8::1"),
            (&["for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=10.0.0.1, for=192.0.2.1"], "192.0.2.1"),
            (&["for=10.0.0.1", "for=192.0.2.1;by=10.0.0.2"], "192.0.2.1"),
            (&["for=192.0.2.1;host=\"a,for=b\\\",c\""], "192.0.2.1"),
        ] {
            assert_eq!(forwarded(values).as_deref(), Some(address), "{values:?}");
        }
        for invalid in
            [&["192.0.2.1"][..], &["for=unknown"], &["for=_hidden"], &["for=192.0.2.1, by=10.0.0.1"]]
        {
            assert_eq!(forwarded(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn first_scheme_of_a_list_counts() {
        for (name, value, scheme) in [
            ("x-forwarded-proto", "https", Some("https")),
            ("x-forwarded-proto", "HTTP", Some("http")),
            ("x-forwarded-proto", "https, http", Some("https")),
            ("x-forwarded-proto", "wss", Some("https")),
            ("x-forwarded-proto", "on", None),
            ("forwarded", "for=192.0.2.1;proto=https, for=10.0.0.1;proto=http", Some("https")),
            ("forwarded", "proto=\"http\"", Some("http")),
            ("forwarded", "for=192.0.2.1", None),
            ("x-other", "https", None),
        ] {
            assert_eq!(forwarded_scheme(&headers(name, &[value])), scheme, "{name}: {value}");
        }
    }

    #[test]
    fn header_without_address_is_rejected() {
        for name in ["X-Forwarded-For", "x-real-ip", "Fly-Client-IP", "CF-Connecting-IP", "Forwarded"] {
            assert!(address_header(name).is_ok(), "{name}");
        }
        for name in
            ["", "no header", "Host", "cookie", "Authorization", "X-Forwarded-Proto", "Sec-Fetch-Site"]
        {
            assert!(address_header(name).is_err(), "{name}");
        }
    }
}
