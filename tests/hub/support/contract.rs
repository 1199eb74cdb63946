//! The contract for machines, held against every answer and every message that any test gets.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use breathing_room::internals::{ASYNCAPI, OPENAPI};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::request::Response;

/// What HTTP may answer.
pub static HTTP: LazyLock<HttpContract> =
    LazyLock::new(|| HttpContract::of(serde_json::from_slice(OPENAPI.text()).unwrap()));

/// What the hub may say on a socket.
pub static SOCKETS: LazyLock<SocketContract> =
    LazyLock::new(|| SocketContract::of(serde_json::from_slice(ASYNCAPI.text()).unwrap()));

pub struct HttpContract {
    pub document: Value,
    /// By method, address, and status.
    responses: HashMap<(String, String, u16), ContentTypes>,
}

/// The bodies that an answer may have, by their types; none where it has none.
type ContentTypes = HashMap<String, Validator>;

pub struct SocketContract {
    pub document: Value,
    messages: HashMap<String, Validator>,
}

/// A schema, with all that it may refer to.
fn validator(schema: &Value, document: &Value) -> Validator {
    jsonschema::validator_for(&json!({ "allOf": [schema], "components": document["components"] })).unwrap()
}

fn expect_valid(validator: &Validator, value: &Value, what: &str) {
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{what} is not as documented: {errors:?} in {value}");
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

    /// Every documented method of every address.
    pub fn operations(&self) -> HashSet<(String, String)> {
        self.responses.keys().map(|(method, path, _)| (method.clone(), path.clone())).collect()
    }

    /// The documented address that a request's path matches.
    fn address(&self, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap();
        let matches = |pattern: &&String| {
            let (mut told, mut asked) = (pattern.split('/'), path.split('/'));
            let same = told.by_ref().zip(asked.by_ref());
            let fits =
                |(told, asked): (&str, &str)| told == asked || (told.starts_with('{') && !asked.is_empty());
            pattern.split('/').count() == path.split('/').count() && { same }.all(fits)
        };
        self.document["paths"].as_object().unwrap().keys().find(matches).map(String::as_str)
    }

    /// Panics where an answer is not documented.
    pub fn expect(&self, method: &str, path: &str, response: &Response) {
        let (is_head, what) = (method == "HEAD", format!("{} to {method} {path}", response.status));
        let Some(address) = self.address(path) else {
            return assert!([404, 405].contains(&response.status), "{what}: an unknown address");
        };
        let method = if is_head { "GET" } else { method };
        if !self.operations().contains(&(method.to_owned(), address.to_owned())) {
            return assert!([204, 403, 405].contains(&response.status), "{what}: an unknown method");
        }
        let key = (method.to_owned(), address.to_owned(), response.status);
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

    /// Panics where a message from the hub is not documented.
    pub fn expect(&self, message: &Value) {
        let kind = message["type"].as_str().unwrap();
        let payload = self.messages.get(kind).unwrap_or_else(|| panic!("{message} is not documented"));
        expect_valid(payload, message, kind);
    }
}
