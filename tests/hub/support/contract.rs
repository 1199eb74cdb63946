//! The OpenAPI and AsyncAPI documents, checked against every response and message that a test receives.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use breathing_room::internals::{ASYNCAPI, OPENAPI};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::request::Response;

/// All documented HTTP responses.
pub static HTTP: LazyLock<HttpContract> =
    LazyLock::new(|| HttpContract::of(serde_json::from_slice(OPENAPI.text()).unwrap()));

/// All documented messages of the hub.
pub static SOCKETS: LazyLock<SocketContract> =
    LazyLock::new(|| SocketContract::of(serde_json::from_slice(ASYNCAPI.text()).unwrap()));

pub struct HttpContract {
    pub document: Value,
    /// By method, path template, and status.
    responses: HashMap<(String, String, u16), ContentTypes>,
}

/// The schemas of a response body by media type. Empty for a response without a body.
type ContentTypes = HashMap<String, Validator>;

pub struct SocketContract {
    pub document: Value,
    messages: HashMap<String, Validator>,
}

/// Compiles a schema, together with the components that it may refer to.
fn validator(schema: &Value, document: &Value) -> Validator {
    jsonschema::validator_for(&json!({ "allOf": [schema], "components": document["components"] })).unwrap()
}

fn expect_valid(validator: &Validator, value: &Value, what: &str) {
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{what} does not match its schema: {errors:?} in {value}");
}

impl HttpContract {
    fn of(document: Value) -> Self {
        let mut responses = HashMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for (status, documented) in operation["responses"].as_object().unwrap() {
                    let content = documented["content"].as_object().into_iter().flatten();
                    let kinds = content
                        .map(|(kind, content)| (kind.clone(), validator(&content["schema"], &document)))
                        .collect();
                    let key = (method.to_uppercase(), path.clone(), status.parse().unwrap());
                    responses.insert(key, kinds);
                }
            }
        }
        Self { document, responses }
    }

    /// Returns each documented pair of method and path template.
    pub fn operations(&self) -> HashSet<(String, String)> {
        self.responses.keys().map(|(method, path, _)| (method.clone(), path.clone())).collect()
    }

    /// Returns the documented path template that a request's path matches.
    fn template(&self, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap();
        let matches = |pattern: &&String| {
            let (mut documented, mut requested) = (pattern.split('/'), path.split('/'));
            let mut pairs = documented.by_ref().zip(requested.by_ref());
            let fits = |(documented, requested): (&str, &str)| {
                documented == requested || (documented.starts_with('{') && !requested.is_empty())
            };
            pattern.split('/').count() == path.split('/').count() && pairs.all(fits)
        };
        self.document["paths"].as_object().unwrap().keys().find(matches).map(String::as_str)
    }

    /// Panics where a response is not documented.
    pub fn expect(&self, method: &str, path: &str, response: &Response) {
        let (is_head, what) = (method == "HEAD", format!("{} to {method} {path}", response.status));
        let Some(template) = self.template(path) else {
            return assert!([308, 404, 405].contains(&response.status), "{what}: an unknown path");
        };
        let method = if is_head { "GET" } else { method };
        if !self.operations().contains(&(method.to_owned(), template.to_owned())) {
            return assert!([204, 403, 405].contains(&response.status), "{what}: an unknown method");
        }
        let key = (method.to_owned(), template.to_owned(), response.status);
        let kinds = self.responses.get(&key).unwrap_or_else(|| panic!("{what} is not documented"));
        if kinds.is_empty() || is_head {
            return assert!(response.text.is_empty(), "{what} has a body");
        }
        let kind = response.header("content-type").split(';').next().unwrap();
        let body = kinds.get(kind).unwrap_or_else(|| panic!("{what} as {kind} is not documented"));
        let value = if kind == "application/json" {
            serde_json::from_str(&response.text).unwrap()
        } else {
            response.text.clone().into()
        };
        expect_valid(body, &value, &what);
    }
}

impl SocketContract {
    fn of(document: Value) -> Self {
        let operations = document["operations"].as_object().unwrap().values();
        let sent = operations.filter(|operation| operation["action"] == "send");
        let names = sent
            .flat_map(|operation| operation["messages"].as_array().unwrap())
            .map(|message| message["$ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned());
        let messages = names
            .map(|name| {
                let payload = &document["components"]["messages"][&name]["payload"];
                (name.clone(), validator(payload, &document))
            })
            .collect();
        Self { document, messages }
    }

    /// Panics where a message of the hub is not documented.
    pub fn expect(&self, message: &Value) {
        let kind = message["type"].as_str().unwrap();
        let payload = self.messages.get(kind).unwrap_or_else(|| panic!("{message} is not documented"));
        expect_valid(payload, message, kind);
    }
}
