//! The OpenAPI and AsyncAPI documents are complete, consistent and public.
//!
//! `support::contract` checks each response and message of all tests against them.

use std::collections::HashSet;

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::support::contract::{HTTP, SOCKETS};
use crate::support::request::Response;
use crate::support::{Hub, Request};

/// Each `.route(…)` of the table, as pairs of method and path template.
fn routes() -> HashSet<(String, String)> {
    let table = include_str!("../../src/http/routes.rs");
    let mut found = HashSet::new();
    for route in table.split(".route(\"").skip(1) {
        let (path, handlers) = route.split_once("\", ").unwrap();
        let handlers = handlers.split(".route(").next().unwrap().split(".method_not").next().unwrap();
        for method in ["get", "post", "put", "patch", "delete", "any"] {
            let call = format!("{method}(");
            if handlers.starts_with(&call) || handlers.contains(&format!(".{call}")) {
                found.insert((method.to_uppercase(), path.to_owned()));
            }
        }
    }
    found
}

#[test]
fn routes_and_openapi_operations_are_the_same() {
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    assert_eq!(routes, HTTP.operations());
}

#[test]
fn schema_references_resolve() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    for document in [&HTTP.document, &SOCKETS.document] {
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
    }
}

#[tokio::test]
async fn allow_header_lists_the_documented_methods() {
    let hub = Hub::start().await;
    for (path, methods) in HTTP.document["paths"].as_object().unwrap() {
        let methods: HashSet<_> =
            methods.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
        let path = path.replace("{room}", "lobby").replace("{visitor}", "ann").replace("{file}", "x");
        let path = path.replace("{month}", "2026-01");
        let response = Request::new(&hub.address, "PATCH", &path).send().await;
        response.expect_error(405, "method-not-allowed");
        let allowed = response.header("allow").split(',').filter(|method| *method != "HEAD");
        assert_eq!(allowed.map(str::to_owned).collect::<HashSet<_>>(), methods, "{path}");
    }
}

#[tokio::test]
async fn contract_documents_are_public_and_cached_by_etag() {
    let hub = Hub::start().await;
    for (path, version) in
        [("/openapi.json", ("openapi", "3.1.0")), ("/asyncapi.json", ("asyncapi", "3.0.0"))]
    {
        let document = hub.get(path).header("origin", "https://example.org").send().await;
        assert_eq!(document.expect(200)[version.0], version.1);
        assert_eq!(document.header("access-control-allow-origin"), "*");
        assert_eq!(document.header("cache-control"), "no-cache");
        let again = hub.get(path).header("if-none-match", document.header("etag")).send().await;
        assert_eq!((again.status, again.header("etag")), (304, document.header("etag")));
    }
}

#[tokio::test]
async fn documented_examples_are_accepted() {
    let hub = Hub::start().await;
    let mut ann = hub.join("lobby", "ann").await;
    let mut last = 0;
    for name in SOCKETS.document["channels"]["room"]["messages"].as_object().unwrap().keys() {
        let examples = SOCKETS.document["components"]["messages"][name]["examples"].as_array();
        for example in examples.into_iter().flatten() {
            last = example["payload"]["ref"].as_u64().unwrap_or(last);
            ann.send_json(example["payload"].clone()).await;
        }
    }
    ann.expect_moods(json!({ "calm": 1 })).await;
    ann.expect_ack(last).await;
    assert!(hub.get("/live-activity").send().await.expect(200)["watching"][0]["content"].is_string());
    ann.round_trip().await; // no other error was sent
}

fn response(status: u16, body: &Value) -> Response {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Response { status, headers, text: body.to_string() }
}

#[test]
#[should_panic(expected = "418 to GET /rooms/lobby is not documented")]
fn undocumented_status_is_detected() {
    HTTP.expect("GET", "/rooms/lobby", &response(418, &json!({})));
}

#[test]
#[should_panic(expected = "200 to GET /rooms/lobby?x does not match its schema")]
fn response_with_an_invalid_field_is_detected() {
    let room = json!({ "room": "Lobby", "seq": 0, "present": 0, "moods": {} });
    HTTP.expect("GET", "/rooms/lobby?x", &response(200, &room));
}

#[test]
#[should_panic(expected = "presence does not match its schema")]
fn message_with_an_invalid_field_is_detected() {
    SOCKETS.expect(&json!({ "type": "presence", "seq": 1, "present": 1, "moods": { "calm": 0 } }));
}

#[tokio::test]
async fn asyncapi_describes_parameters_and_the_close_codes_of_clients() {
    let document = Hub::start().await.get("/asyncapi.json").send().await.expect(200);
    let room = &document["channels"]["room"];
    let features = &room["bindings"]["ws"]["query"]["properties"]["features"]["description"];
    assert!(features.as_str().is_some_and(|text| text.contains("`own-sit`")), "{features}");
    let codes = room["x-client-close-codes"].as_object().expect("close codes");
    assert_eq!(codes.keys().collect::<Vec<_>>(), ["1000", "4000", "other"]);
}
