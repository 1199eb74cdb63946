//! Normalization: the one name under which a referrer's host, or the value of a property, is counted.
//!
//! Raw rows keep what clients sent. Rollups and queries use these names. Pure.

use serde_json::{Map, Number, Value};
use url::{Host, Url};

use super::event::PageViewEvent;

/// Longer values of a property are truncated to this many bytes.
const VALUE_LIMIT: usize = 64;

/// The end of a truncated value.
pub(crate) const TRUNCATED: char = '…';

/// Numbers from here on are not written as integers: 2^64, above all integers of JSON parsers.
const INTEGER_LIMIT: f64 = 18_446_744_073_709_551_616.0;

/// Returns the host of a referrer or an origin that is a URL: in ASCII (IDNA) and lower case, without a port, a final
/// dot, and `www.` if a name with a dot remains. An empty or invalid host is none.
pub(crate) fn referrer_host(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    // The URL parser leaves the hosts of schemes other than http as they are.
    let host = Host::parse(url.host_str()?).ok()?.to_string();
    // Without its final dots it may be another kind of host, such as an address.
    let host = Host::parse(host.trim_end_matches('.')).ok()?.to_string();
    let host = host.strip_prefix("www.").filter(|rest| rest.contains('.')).unwrap_or(&host);
    (!host.is_empty()).then(|| host.to_owned())
}

/// Returns a page view's properties as pairs of texts. Equal numbers have one text, and long values are truncated.
pub(crate) fn properties(view: &PageViewEvent) -> impl Iterator<Item = (String, String)> {
    let json = view.props.as_ref().map(|props| serde_json::from_str::<Value>(props.as_json()));
    let object = match json {
        Some(Ok(Value::Object(object))) => object,
        _ => Map::new(),
    };
    object.into_iter().map(|(key, value)| (key, value_text(value)))
}

/// Returns the value of one property among `props`, which are a JSON object, as [`properties`] does.
pub(crate) fn value_of(props: &str, name: &str) -> Option<String> {
    let mut object: Map<String, Value> = serde_json::from_str(props).ok()?;
    object.remove(name).map(value_text)
}

fn value_text(value: Value) -> String {
    match value {
        Value::String(text) if text.len() > VALUE_LIMIT => {
            format!("{}{TRUNCATED}", text.get(..text.floor_char_boundary(VALUE_LIMIT)).unwrap_or_default())
        }
        Value::String(text) => text,
        Value::Number(number) => number_text(&number),
        other => other.to_string(),
    }
}

/// `1`, `1.0` and `1e0` are one value.
fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < INTEGER_LIMIT => {
            #[expect(clippy::cast_possible_truncation, reason = "it is an integer below the limit")]
            let integer = float as i128;
            integer.to_string()
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::history::event::Actor;
    use crate::protocol::Time;

    #[test]
    fn each_host_has_one_name() {
        for (url, host) in [
            ("https://example.org/a?b#c", Some("example.org")),
            ("https://WWW.Example.ORG./", Some("example.org")),
            ("http://example.org:80/", Some("example.org")),
            ("https://user:word@example.org:8443/", Some("example.org")),
            ("https://www.com/", Some("www.com")),
            ("https://www.com./", Some("www.com")),
            ("https://www.localhost/", Some("www.localhost")),
            ("https://bücher.example/", Some("xn--bcher-kva.example")),
            ("https://XN--Bcher-KVA.example/", Some("xn--bcher-kva.example")),
            ("android-app://com.Google.Android.gm/", Some("com.google.android.gm")),
            ("capacitor://B%C3%BCcher.example/", Some("xn--bcher-kva.example")),
            ("http://127.1/", Some("127.0.0.1")),
            ("http://[::1]:8080/", Some("[::1]")),
            ("https://www./", Some("www")),
            ("app:///path", None),
            ("foo://./", None),
            ("about:blank", None),
            ("example.org", None),
            ("", None),
        ] {
            assert_eq!(referrer_host(url).as_deref(), host, "{url}");
        }
    }

    fn values(props: &Value) -> Vec<String> {
        let actor = Actor { room: "r".try_into().unwrap(), visitor: "v".try_into().unwrap(), is_bot: false };
        let view = json!({ "id": uuid::Uuid::nil(), "path": "/", "props": props });
        let view =
            PageViewEvent::new(actor, serde_json::from_value(view).unwrap(), Time::from_millis(1)).unwrap();
        properties(&view).map(|(_, value)| value).collect()
    }

    #[test]
    fn equal_numbers_have_one_text() {
        let props =
            r#"{"a":1,"b":1.0,"c":1e0,"d":-0.0,"e":2.5,"f":10000000000000000,"g":1e16,"h":-3.0,"i":"1.0"}"#;
        let expected = ["1", "1", "1", "0", "2.5", "10000000000000000", "10000000000000000", "-3", "1.0"];
        assert_eq!(values(&serde_json::from_str(props).unwrap()), expected);
        assert_eq!(
            values(&json!({ "a": u64::MAX, "b": 1e300, "c": true })),
            ["18446744073709551615", "1e+300", "true"]
        );
    }

    #[test]
    fn final_dots_are_removed_before_the_host_is_read() {
        let found = ["http://0../", "app://a.b%2E", "http://a.b./", "http://./"].map(referrer_host);
        assert_eq!(found.map(Option::unwrap_or_default), ["0.0.0.0", "a.b", "a.b", ""]);
    }

    #[test]
    fn long_value_is_truncated_at_a_character() {
        let long = format!("{}{TRUNCATED}", "é".repeat(32));
        assert_eq!(values(&json!({ "a": "é".repeat(40) })), [long]);
    }

    proptest! {
        #[test]
        fn host_of_a_normalized_host_is_itself(url in "(https?|app)://[a-zA-Z0-9.%:üß-]{0,20}/?") {
            if let Some(host) = referrer_host(&url) {
                prop_assert!(!host.is_empty() && !host.ends_with('.'));
                let again = referrer_host(&format!("https://{host}/"));
                prop_assert!(again.as_ref() == Some(&host) || host.starts_with("www."), "{}", url);
            }
        }
    }
}
