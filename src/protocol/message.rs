//! Messages of clients and of the hub.
//!
//! [`ClientMessage::parse`] is the only way to read a client's message. It is pure: the caller makes the checks that
//! need state, for example that the vocabulary has a mood.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::code::ErrorCode;
use super::ids::{RoomId, SessionId, VisitorId};
use super::mood::{NamedMoods, Vocabulary};
use super::parse::{self, ParseError};
use super::value::{BoundedText, Props, SafeInteger, Time};

/// A client's number for an event on one socket. It is above 0 and rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Ref(u64);

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message of a client on a room socket.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Sets the visitor's mood in this room, or clears it with `None`. The name is not checked yet.
    Mood(Option<String>),
    /// A page view.
    PageView(Ref, PageView),
    /// A new state of a watch session.
    Watch(Ref, Watch),
    /// A token that replaces the token of this socket. It is not checked yet.
    Token(String),
    /// Begins a sit of this many milliseconds in this room, or ends it with 0.
    Sit(SafeInteger),
    /// Asks whether the path to the hub works.
    Ping,
}

/// A page view. It is idempotent: the hub counts an id once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PageView {
    /// The page view's id.
    pub id: Uuid,
    /// The page's path.
    pub path: BoundedText<1, 512>,
    /// The page's title.
    pub title: Option<BoundedText<0, 1024>>,
    /// The page before this one.
    pub referrer: Option<BoundedText<0, 1024>>,
    /// When the page was viewed, by the client's clock.
    pub at: Option<Time>,
    /// The app's own properties.
    pub props: Option<Props>,
}

/// A state of a watch session. A client sends it when the state changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// The watch session's id.
    pub id: Uuid,
    /// The content that is watched.
    pub content: BoundedText<1, 512>,
    /// The state.
    pub state: WatchState,
    /// The time watched so far, as measured by the client.
    pub watched_ms: SafeInteger,
    /// When the watch session started, by the client's clock.
    pub started_at: Option<Time>,
    /// The position in the content.
    pub position_ms: Option<SafeInteger>,
    /// The length of the content.
    pub duration_ms: Option<SafeInteger>,
    /// When this state began, by the client's clock.
    pub at: Option<Time>,
    /// The app's own properties.
    pub props: Option<Props>,
}

/// The states of a watch session. Of two messages with the same `at`, the larger state applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WatchState {
    /// The watched time does not grow.
    Paused,
    /// The watched time grows.
    Playing,
    /// The watch session has ended. No later message changes that.
    Ended,
}

/// A message was rejected. It had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MessageError {
    /// The code.
    pub code: ErrorCode,
    /// For humans: the field and its rule.
    pub message: String,
    /// The `ref` of the rejected message, if it is valid.
    pub reference: Option<Ref>,
}

impl ClientMessage {
    /// Parses one text message.
    ///
    /// # Errors
    /// The [`MessageError`] to send back: the text is not a JSON object, its type is unknown, or a field is missing or
    /// invalid.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let head: Head = parse::object(text).map_err(|error| reject(error, Ref::find(text)))?;
        let reference = Ref::read(&head.reference);
        let reject = |error| reject(error, reference.as_ref().ok().copied());
        match head.kind.as_str() {
            "mood" => {
                let body: MoodBody = parse::object(text).map_err(reject)?;
                Ok(Self::Mood(body.mood))
            }
            "page-view" => {
                let body = parse::object(text).map_err(reject)?;
                Ok(Self::PageView(reference.clone().map_err(reject)?, body))
            }
            "watch" => {
                let body = parse::object(text).map_err(reject)?;
                Ok(Self::Watch(reference.clone().map_err(reject)?, body))
            }
            "token" => {
                let body: TokenBody = parse::object(text).map_err(reject)?;
                Ok(Self::Token(body.token))
            }
            "sit" => {
                let body: SitBody = parse::object(text).map_err(reject)?;
                Ok(Self::Sit(body.for_ms))
            }
            "ping" => Ok(Self::Ping),
            _ => Err(MessageError {
                code: ErrorCode::UnknownType,
                message: "type: must be mood, page-view, watch, sit, ping or token".to_owned(),
                reference: reference.ok(),
            }),
        }
    }

    /// The error for a message above the rate limit. Only the message's `ref` is parsed.
    #[must_use]
    pub fn too_fast(text: &str) -> MessageError {
        MessageError {
            code: ErrorCode::TooFast,
            message: "too many messages: wait a moment, then send it again".to_owned(),
            reference: Ref::find(text),
        }
    }
}

fn reject(error: ParseError, reference: Option<Ref>) -> MessageError {
    MessageError { code: error.code, message: error.message, reference }
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    /// Any JSON, so that an invalid `ref` is an error of the type's own fields.
    #[serde(rename = "ref", default)]
    reference: serde_json::Value,
}

/// The only field that is parsed of a message without a valid type.
#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "ref", default)]
    reference: serde_json::Value,
}

impl Ref {
    fn read(json: &serde_json::Value) -> Result<Self, ParseError> {
        match SafeInteger::deserialize(json) {
            Ok(number) if number.get() > 0 => Ok(Self(number.get())),
            _ if json.is_null() => Err(ParseError::field("ref", "is missing")),
            _ => Err(ParseError::field("ref", "must be a whole number from 1 to 2^53 - 1")),
        }
    }

    /// Finds the `ref` of a message, which may be invalid otherwise.
    fn find(text: &str) -> Option<Self> {
        let found: Reference = parse::object(text).ok()?;
        Self::read(&found.reference).ok()
    }
}

#[derive(Deserialize)]
struct MoodBody {
    // `deserialize_with` makes the key required: to clear a mood, send `null`.
    #[serde(deserialize_with = "Option::deserialize")]
    mood: Option<String>,
}

#[derive(Deserialize)]
struct TokenBody {
    token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SitBody {
    for_ms: SafeInteger,
}

/// A message of the hub on a room socket.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ServerMessage<'a> {
    /// The first message on every socket.
    #[serde(rename_all = "camelCase")]
    Welcome {
        /// The protocol's version.
        protocol: u32,
        /// This socket's id.
        session: SessionId,
        /// The visitor, as given by the client or as created by the hub.
        visitor: &'a VisitorId,
        /// The room.
        room: &'a RoomId,
        /// The number of the room's state.
        seq: u64,
        /// Distinct visitors in the room, with this one.
        present: u32,
        /// Visitors by mood.
        moods: NamedMoods<'a>,
        /// The moods that visitors may set.
        vocabulary: &'a Vocabulary,
        /// The hub's wall clock.
        server_time: Time,
        /// How long a client waits for any message of the hub before it sends a `ping`, in milliseconds.
        ping_after_ms: u64,
        /// The end of the visitor's sit in this room. Only while there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        sit: Option<Time>,
        /// The visitor's mood in this room. Only with the feature `own-mood`.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(required = false)]
        mood: Option<Option<&'a str>>,
    },
    /// The room's state has changed.
    Presence {
        /// The number of the room's state. On one socket it only rises.
        seq: u64,
        /// Distinct visitors in the room.
        present: u32,
        /// Visitors by mood.
        moods: NamedMoods<'a>,
    },
    /// Every event up to this `ref` is committed, or was rejected by an error with its `ref`.
    #[serde(rename_all = "camelCase")]
    Ack {
        /// The highest such `ref`.
        up_to: Ref,
    },
    /// The answer to a `ping`.
    #[serde(rename_all = "camelCase")]
    Pong {
        /// The hub's wall clock.
        server_time: Time,
    },
    /// The path to the hub works. Sent with a ping, only with the feature `keepalive`.
    Keepalive {},
    /// The answer to a `sit`.
    Sit {
        /// The end of the visitor's sit in this room; null if there is none.
        until: Option<Time>,
    },
    /// The visitor's sit in this room was set or ended on one of their sockets. Only with the feature `own-sit`.
    OwnSit {
        /// The end of the sit; null if there is none.
        until: Option<Time>,
    },
    /// The visitor's mood in this room was set on one of their sockets. Only with the feature `own-mood`.
    OwnMood {
        /// The mood; null if it was cleared.
        mood: Option<&'a str>,
    },
    /// A message was rejected.
    Error {
        /// The code.
        code: ErrorCode,
        /// For humans.
        message: &'a str,
        /// The `ref` of the rejected message, if it has one.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
    },
}

impl<'a> From<&'a MessageError> for ServerMessage<'a> {
    fn from(error: &'a MessageError) -> Self {
        Self::Error { code: error.code, message: &error.message, reference: error.reference }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "018f0e6e-0000-7000-8000-000000000001";

    fn rejected(text: &str) -> (ErrorCode, String, Option<u64>) {
        let error = ClientMessage::parse(text).expect_err(text);
        (error.code, error.message, error.reference.map(|Ref(number)| number))
    }

    #[test]
    fn valid_messages_are_parsed_and_unknown_keys_ignored() {
        assert_eq!(
            ClientMessage::parse(r#"{"type":"mood","mood":"calm","x":[1]}"#),
            Ok(ClientMessage::Mood(Some("calm".into())))
        );
        assert_eq!(ClientMessage::parse(r#" {"mood":null,"type":"mood"}"#), Ok(ClientMessage::Mood(None)));
        assert_eq!(
            ClientMessage::parse(r#"{"type":"token","token":"a.b.c"}"#),
            Ok(ClientMessage::Token("a.b.c".into()))
        );
        assert_eq!(ClientMessage::parse(r#"{"type":"ping","at":1}"#), Ok(ClientMessage::Ping));
        assert!(matches!(
            ClientMessage::parse(r#"{"type":"sit","forMs":5000.0}"#),
            Ok(ClientMessage::Sit(length)) if length.get() == 5_000
        ));
        let view = format!(r#"{{"type":"page-view","ref":7,"id":"{ID}","path":"/a","title":""}}"#);
        assert!(
            matches!(ClientMessage::parse(&view), Ok(ClientMessage::PageView(Ref(7), view)) if view.path.to_string() == "/a")
        );
        let watch =
            format!(r#"{{"type":"watch","ref":8,"id":"{ID}","content":"c","state":"paused","watchedMs":5}}"#);
        assert!(
            matches!(ClientMessage::parse(&watch), Ok(ClientMessage::Watch(Ref(8), watch)) if watch.state == WatchState::Paused)
        );
    }

    #[test]
    fn text_that_is_not_a_json_object_is_bad_json() {
        for text in ["", "{", "[]", "5", "null", "{}x", r#"{"type":"mood",}"#, "\u{feff}{}"] {
            assert_eq!(rejected(text).0, ErrorCode::BadJson, "{text}");
        }
        assert_eq!(rejected(&"[".repeat(4000)).0, ErrorCode::BadJson);
        let deep = format!(r#"{{"type":"mood","mood":{}}}"#, "[".repeat(3000));
        assert_eq!(rejected(&deep).0, ErrorCode::BadJson);
    }

    #[test]
    fn bad_field_error_has_the_field_the_rule_and_the_ref() {
        let with = |fields: &str| format!(r#"{{"type":"page-view","ref":3,{fields}}}"#);
        let cases = [
            (r#"{"mood":"calm"}"#.to_owned(), "missing field `type`", None),
            (r#"{"ref":3,"path":"/a"}"#.to_owned(), "missing field `type`", Some(3)),
            (r#"{"type":5,"ref":3}"#.to_owned(), "type: invalid type", Some(3)),
            (r#"{"type":"mood"}"#.to_owned(), "missing field `mood`", None),
            (r#"{"type":"mood","mood":5}"#.to_owned(), "mood: invalid type", None),
            (r#"{"type":"sit"}"#.to_owned(), "missing field `forMs`", None),
            (r#"{"type":"sit","forMs":-1}"#.to_owned(), "forMs: ", None),
            (with(r#""path":"/a""#), "missing field `id`", Some(3)),
            (with(r#""id":"x","path":"/a""#), "id: ", Some(3)),
            (with(&format!(r#""id":"{ID}","path":"""#)), "path: must not be empty", Some(3)),
            (
                with(&format!(r#""id":"{ID}","path":"{}""#, "x".repeat(513))),
                "path: must be at most 512 bytes",
                Some(3),
            ),
            (
                with(&format!(r#""id":"{ID}","path":"/","props":{{"a":[]}}"#)),
                "props: must be a flat",
                Some(3),
            ),
            (with(&format!(r#""id":"{ID}","path":"/","at":-1"#)), "at: ", Some(3)),
            (format!(r#"{{"type":"page-view","id":"{ID}","path":"/"}}"#), "ref: is missing", None),
            (
                format!(r#"{{"type":"page-view","ref":0,"id":"{ID}","path":"/"}}"#),
                "ref: must be a whole number",
                None,
            ),
            (
                format!(
                    r#"{{"type":"watch","ref":4,"id":"{ID}","content":"c","state":"stopped","watchedMs":1}}"#
                ),
                "state: unknown variant",
                Some(4),
            ),
            (
                format!(
                    r#"{{"type":"watch","ref":4,"id":"{ID}","content":"c","state":"ended","watchedMs":1.5}}"#
                ),
                "watchedMs: ",
                Some(4),
            ),
        ];
        for (text, message, reference) in cases {
            let error = rejected(&text);
            assert_eq!(error.0, ErrorCode::BadField, "{text}");
            assert!(error.1.starts_with(message), "{text}: {}", error.1);
            assert_eq!(error.2, reference, "{text}");
        }
    }

    #[test]
    fn error_truncates_what_it_quotes() {
        let fields =
            |deep: &str| format!(r#"{{"type":"page-view","ref":3,"id":"{ID}","path":"/","props":{deep}}}"#);
        let deep = format!(r#"{{"{}":{}{}}}"#, "x".repeat(3000), "[".repeat(200), "]".repeat(200));
        let (code, message, reference) = rejected(&fields(&deep));
        assert_eq!((code, reference), (ErrorCode::BadField, Some(3)));
        assert!(message.starts_with("props") && message.len() < 512, "{message}");
    }

    #[test]
    fn too_fast_error_has_a_valid_ref() {
        let reference = |text| ClientMessage::too_fast(text).reference.map(|Ref(number)| number);
        assert_eq!(reference(r#"{"type":"watch","ref":9}"#), Some(9));
        assert_eq!(reference(r#"{"type":"mood","mood":null}"#), None);
        assert_eq!(reference("{"), None);
    }

    #[test]
    fn unknown_type_error_has_the_ref() {
        assert_eq!(rejected(r#"{"type":"heartbeat","ref":9}"#).0, ErrorCode::UnknownType);
        assert_eq!(rejected(r#"{"type":"heartbeat","ref":9}"#).2, Some(9));
    }
}
