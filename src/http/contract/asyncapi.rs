//! The AsyncAPI 3.0 document of the sockets. The hub is the application: `send` means from the hub to a client.
//!
//! Payloads are the schemas of the types that the hub sends and parses. A message that is added to one of their enums
//! is in the document without a change here.

use serde::Serialize;
use serde_json::{Map, Value, json};
use strum::VariantArray;
use utoipa::openapi::path::ParameterIn;
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::DESCRIPTION;
use super::endpoint::{Schemas, collect};
use crate::http::websocket::JoinParams;
use crate::presence::live_activity::{LiveActivity, LiveActivityType};
use crate::protocol::message::ServerMessage;
use crate::protocol::schema::reference;
use crate::protocol::{
    BEARER_SUBPROTOCOL, ClientMessage, CloseCode, LOST_ON_PURPOSE, MESSAGE_LIMIT, PageView, Ref, RoomId,
    SUBPROTOCOL, SafeInteger, VISITOR_SUBPROTOCOL, VisitorId, Watch,
};

/// The version of the WebSocket bindings.
const BINDING: &str = "0.1.0";

/// Builds the document.
pub(super) fn document() -> Value {
    let from_hub = messages(&json(&ServerMessage::schema()), "From the hub", |_| None);
    // A request and its answer may have one type: then the request has another name in this document.
    let from_client = messages(&json(&ClientMessage::schema()), "From the client", example);
    let from_client: Map<_, _> = from_client
        .into_iter()
        .map(|(name, message)| {
            let name = if from_hub.contains_key(&name) { format!("{name}-request") } else { name };
            (name, message)
        })
        .collect();
    let activity = live_activity();
    let (sent, received) = (names(&from_hub), names(&from_client));
    let live = ["live-activity".to_owned(), "error".to_owned()];
    let mut all = from_hub;
    all.extend(from_client);
    all.insert(live[0].clone(), activity);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "breathing-room",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "channels": {
            "room": room_channel(&[sent.as_slice(), &received].concat()),
            "live": live_channel(&live),
        },
        "operations": {
            "sendToRoom": operation("send", "room", &sent),
            "receiveFromRoom": operation("receive", "room", &received),
            "sendToLive": operation("send", "live", &live),
        },
        "components": { "messages": all, "schemas": schemas() },
    })
}

fn room_channel(messages: &[String]) -> Value {
    let query: Map<String, Value> = JoinParams::into_params(|| Some(ParameterIn::Query))
        .iter()
        .map(|parameter| {
            let mut schema = json(&parameter.schema);
            if let (Value::Object(schema), Some(description)) = (&mut schema, &parameter.description) {
                schema.entry("description").or_insert_with(|| description.as_str().into());
            }
            (parameter.name.clone(), schema)
        })
        .collect();
    json!({
        "address": "/rooms/{room}/socket",
        "title": "One visitor's socket in one room",
        "description": format!("Presence is the open socket: there is no join message, and presence needs no heartbeat. \
            Messages of clients are text of at most {MESSAGE_LIMIT} bytes."),
        "parameters": { "room": { "description": "The name of the room: see the schema RoomId." } },
        "messages": references(messages),
        "bindings": { "ws": {
            "method": "GET",
            "query": { "type": "object", "properties": query },
            "headers": { "type": "object", "properties": {
                "Sec-WebSocket-Protocol": {
                    "type": "string",
                    "description": format!("`{SUBPROTOCOL}`; `{VISITOR_SUBPROTOCOL}{{id}}` with the visitor's id; and from \
                        browsers `{BEARER_SUBPROTOCOL}{{token}}`. The hub echoes only the first."),
                },
                "Authorization": {
                    "type": "string",
                    "description": "`Bearer` and the visitor's token, if the hub requires tokens.",
                },
            } },
            "bindingVersion": BINDING,
        } },
        "x-subprotocols": [SUBPROTOCOL],
        "x-close-codes": close_codes(),
        "x-client-close-codes": {
            "1000": "The visitor leaves at once, and a sit ends.",
            (LOST_ON_PURPOSE.to_string()): "The client gives up its socket, and the visitor stays as after a lost connection: \
                for the leave grace, or until the end of a sit.",
            "other": "The visitor leaves after the leave grace, and a sit ends with it, except for 1011, 1012 and 1013, \
                which are as a lost connection.",
        },
    })
}

fn live_channel(messages: &[String]) -> Value {
    json!({
        "address": "/live",
        "title": "The live activity over all rooms",
        "description": "The hub sends the live activity at once and then on change, at most once a second. Clients send \
            nothing. With `DASHBOARD=admin`, this requires the admin token: in `Authorization: Bearer`, or from a \
            browser as the subprotocol `bearer.{token}`, percent-encoded.",
        "messages": references(messages),
        "bindings": { "ws": { "method": "GET", "bindingVersion": BINDING } },
        "x-close-codes": close_codes(),
    })
}

/// The reasons of each close code. Some codes have several.
fn close_codes() -> Map<String, Value> {
    let mut codes = Map::new();
    for code in CloseCode::VARIANTS {
        let reasons = codes.entry(code.number().to_string()).or_insert_with(|| json!([]));
        if let Value::Array(reasons) = reasons {
            reasons.push(code.reason().into());
        }
    }
    codes
}

/// The messages of a tagged enum, by their `type`.
fn messages(variants: &Value, summary: &str, example: impl Fn(&str) -> Option<Value>) -> Map<String, Value> {
    let variants = variants["oneOf"].as_array().into_iter().flatten();
    let message = |payload: &Value| {
        let name = type_of(payload)?;
        let examples: Vec<_> =
            example(name).map(|example| json!({ "payload": example })).into_iter().collect();
        let message = json!({ "name": name, "summary": summary, "payload": payload, "examples": examples });
        Some((name.to_owned(), message))
    };
    variants.filter_map(message).collect()
}

/// Returns the `type` of a payload, from its schema or from a part of its `allOf`.
fn type_of(payload: &Value) -> Option<&str> {
    let own = payload.pointer("/properties/type/enum/0").and_then(Value::as_str);
    own.or_else(|| payload["allOf"].as_array()?.iter().find_map(type_of))
}

/// The message with the live activity: the payload of HTTP with a `type`.
fn live_activity() -> Value {
    let named = json!({ "type": "object", "required": ["type"] });
    let payload = json!({ "allOf": [named, json(&reference(&LiveActivity::name()))] });
    json!({ "name": "live-activity", "summary": "From the hub", "payload": payload })
}

/// An example of a client's message.
fn example(kind: &str) -> Option<Value> {
    const ID: &str = "019a9d0e-7f00-7000-8000-000000000001";
    match kind {
        "mood" => Some(json!({ "type": kind, "mood": "calm" })),
        "page-view" => {
            Some(json!({ "type": kind, "ref": 1, "id": ID, "path": "/garden", "props": { "plan": "free" } }))
        }
        "watch" => Some(json!({
            "type": kind, "ref": 2, "id": ID, "content": "morning-sit", "state": "playing", "watchedMs": 0,
        })),
        "sit" => Some(json!({ "type": kind, "forMs": 1_200_000 })),
        "ping" => Some(json!({ "type": kind })),
        _ => None,
    }
}

fn names(messages: &Map<String, Value>) -> Vec<String> {
    messages.keys().cloned().collect()
}

/// References to messages, by name.
fn references(names: &[String]) -> Map<String, Value> {
    let reference =
        |name: &String| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }));
    names.iter().map(reference).collect()
}

fn operation(action: &str, channel: &str, messages: &[String]) -> Value {
    let reference = |name| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
    json!({
        "action": action,
        "channel": { "$ref": format!("#/channels/{channel}") },
        "messages": messages.iter().map(reference).collect::<Vec<_>>(),
    })
}

/// The schemas that payloads and queries refer to.
fn schemas() -> Value {
    let mut schemas = Schemas::new();
    collect::<ServerMessage>(&mut schemas);
    collect::<LiveActivity>(&mut schemas);
    collect::<LiveActivityType>(&mut schemas);
    collect::<PageView>(&mut schemas);
    collect::<Watch>(&mut schemas);
    collect::<Ref>(&mut schemas);
    collect::<SafeInteger>(&mut schemas);
    collect::<RoomId>(&mut schemas);
    collect::<VisitorId>(&mut schemas);
    collect::<ClientMessage>(&mut schemas);
    json(&schemas)
}

#[expect(clippy::unreachable, reason = "schemas are plain JSON")]
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| unreachable!("schemas are plain JSON: {error}"))
}
