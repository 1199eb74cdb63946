//! What a proxy in front tells of a request: whose it is, and by which scheme it was sent.
//!
//! Read only where `CLIENT_IP_HEADER` says that there is a proxy, since anybody can send these headers. Of
//! addresses the last one counts, which the nearest proxy wrote. It knows headers and no connection.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Headers that proxies and browsers send, and in which no plain address stands.
const OTHERS: [&str; 20] = [
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

/// How the names of whole families of such headers begin.
const FAMILIES: [&str; 6] = ["accept", "access-control-", "cache-", "content-", "if-", "sec-"];

/// The name of a header in which a proxy tells whose request it is.
///
/// # Errors
/// It is no header's name, or that of a header whose form is known to be another than that of addresses.
pub(crate) fn address_header(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::try_from(name)
        .map_err(|_| "must be the name of a header, such as X-Forwarded-For".to_owned())?;
    let name = header.as_str();
    if OTHERS.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family)) {
        return Err("must be a header of addresses, such as X-Forwarded-For, X-Real-IP, Fly-Client-IP or \
                    Forwarded: no address stands in this one, or in a form that is not understood"
            .to_owned());
    }
    Ok(header)
}

/// The address that the nearest proxy tells: the last one of `Forwarded` (RFC 7239), or of a list of addresses.
#[must_use]
pub(crate) fn forwarded_address(headers: &HeaderMap, header: &HeaderName) -> Option<IpAddr> {
    let value = headers.get_all(header).iter().next_back()?.to_str().ok()?;
    let nearest = parts(value, ',').filter(|part| !part.is_empty()).last()?;
    if *header == FORWARDED { parameter(nearest, "for").and_then(node) } else { node(nearest) }
}

/// The scheme by which the browser asked, `http` or `https`: the first one that is told, since each further
/// proxy tells how it was asked by the one before. No page can send these headers.
#[must_use]
pub(crate) fn forwarded_scheme(headers: &HeaderMap) -> Option<&'static str> {
    let list = headers.get("x-forwarded-proto").and_then(first);
    let forwarded = || first(headers.get(FORWARDED)?).and_then(|element| parameter(element, "proto"));
    // Some proxies tell the scheme of the socket (Traefik).
    match unquoted(list.or_else(forwarded)?) {
        scheme if ["https", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => Some("https"),
        scheme if ["http", "ws"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => Some("http"),
        _ => None,
    }
}

fn first(value: &HeaderValue) -> Option<&str> {
    parts(value.to_str().ok()?, ',').next()
}

/// The value of a parameter of one element of `Forwarded`.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    parts(element, ';').find_map(|pair| {
        let (found, value) = pair.split_once('=')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// An address, perhaps quoted, in brackets, with a port or a zone.
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

/// The parts of a text between these separators, which do not count in quotes.
fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
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

    fn told_by(name: &str, values: &[&str]) -> Option<String> {
        let header = address_header(name).unwrap();
        forwarded_address(&headers(name, values), &header).map(|address| address.to_string())
    }

    #[test]
    fn address_of_the_nearest_proxy_is_read_in_every_form() {
        let list = |values: &[&str]| told_by("X-Forwarded-For", values);
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
        for nothing in [&[][..], &[""], &["unknown"], &["192.0.2.1, me"], &["192.0.2.01"], &["for=192.0.2.1"]]
        {
            assert_eq!(list(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn address_of_forwarded_is_the_last_elements_for() {
        let forwarded = |values: &[&str]| told_by("Forwarded", values);
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
        for nothing in
            [&["192.0.2.1"][..], &["for=unknown"], &["for=_hidden"], &["for=192.0.2.1, by=10.0.0.1"]]
        {
            assert_eq!(forwarded(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn scheme_is_the_browsers() {
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
    fn header_of_another_form_is_no_address_header() {
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
