//! Messages: what a client may send, and what the hub sends.
//!
//! [`ClientMessage::parse`] is the only way in. It is pure: whether a mood is in the vocabulary or
//! the queue has room is asked later, by those who know.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::code::ErrorCode;
use super::ids::{RoomId, SessionId, VisitorId};
use super::mood::{NamedMoods, Vocabulary};
use super::parse::{self, ParseError};
use super::value::{BoundedText, Props, SafeInteger, Time};

/// A client's number for an event on one socket: above 0, rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Ref(u64);

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a client may send on a room socket.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Set (or with `None` clear) the visitor's mood in this room. The name is not checked yet.
    Mood(Option<String>),
    /// A page was seen.
    PageView(Ref, PageView),
    /// The state of a watch session.
    Watch(Ref, Watch),
    /// The token that takes the place of the one that the socket was opened with. It is not checked yet.
    Token(String),
}

/// A page view: a fact with an id, which counts once however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PageView {
    /// Makes it idempotent.
    pub id: Uuid,
    /// The page's path.
    pub path: BoundedText<1, 512>,
    /// The page's title.
    pub title: Option<BoundedText<0, 1024>>,
    /// Where the visitor came from.
    pub referrer: Option<BoundedText<0, 1024>>,
    /// When it was seen, by the client's clock.
    pub at: Option<Time>,
    /// The app's own properties.
    pub props: Option<Props>,
}

/// The state of a watch session, sent when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// The watch session's id.
    pub id: Uuid,
    /// What is being watched.
    pub content: BoundedText<1, 512>,
    /// Whether it plays.
    pub state: WatchState,
    /// Time watched so far, as the client measured it.
    pub watched_ms: SafeInteger,
    /// When the watch session started, by the client's clock.
    pub started_at: Option<Time>,
    /// Position in the content.
    pub position_ms: Option<SafeInteger>,
    /// Length of the content.
    pub duration_ms: Option<SafeInteger>,
    /// When this state began, by the client's clock.
    pub at: Option<Time>,
    /// The app's own properties.
    pub props: Option<Props>,
}

/// The states of a watch session. Where two messages have the same `at`, the larger one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WatchState {
    /// Time stands still.
    Paused,
    /// Time runs.
    Playing,
    /// Over; no later message changes that.
    Ended,
}

/// A message was refused; it changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MessageError {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// For people: which field broke which rule.
    pub message: String,
    /// The refused message's `ref`, where it had a good one.
    pub reference: Option<Ref>,
}

impl ClientMessage {
    /// Reads one text message.
    ///
    /// # Errors
    /// The [`MessageError`] to send back: the text is no JSON object, its type is unknown, or a field is
    /// missing or wrong.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let head: Head = parse::object(text).map_err(|problem| refuse(problem, Ref::find(text)))?;
        let reference = Ref::read(&head.reference);
        let refuse = |problem| refuse(problem, reference.as_ref().ok().copied());
        match head.kind.as_str() {
            "mood" => {
                let body: MoodBody = parse::object(text).map_err(refuse)?;
                Ok(Self::Mood(body.mood))
            }
            "page-view" => {
                let body = parse::object(text).map_err(refuse)?;
                Ok(Self::PageView(reference.clone().map_err(refuse)?, body))
            }
            "watch" => {
                let body = parse::object(text).map_err(refuse)?;
                Ok(Self::Watch(reference.clone().map_err(refuse)?, body))
            }
            "token" => {
                let body: TokenBody = parse::object(text).map_err(refuse)?;
                Ok(Self::Token(body.token))
            }
            _ => Err(MessageError {
                code: ErrorCode::UnknownType,
                message: "type: must be mood, page-view, watch or token".to_owned(),
                reference: reference.ok(),
            }),
        }
    }

    /// The refusal of a message that came too fast, whatever it says.
    #[must_use]
    pub fn too_fast(text: &str) -> MessageError {
        MessageError {
            code: ErrorCode::TooFast,
            message: "too many messages: wait a moment, then send it again".to_owned(),
            reference: Ref::find(text),
        }
    }
}

fn refuse(problem: ParseError, reference: Option<Ref>) -> MessageError {
    MessageError { code: problem.code, message: problem.message, reference }
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    /// Any JSON here, so that a wrong `ref` is refused after the type is known, by name.
    #[serde(rename = "ref", default)]
    reference: serde_json::Value,
}

/// What is looked for in a message without a good type.
#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "ref", default)]
    reference: serde_json::Value,
}

impl Ref {
    fn read(json: &serde_json::Value) -> Result<Self, ParseError> {
        match json.as_u64().map(SafeInteger::try_from) {
            Some(Ok(number)) if number.get() > 0 => Ok(Self(number.get())),
            _ if json.is_null() => Err(ParseError::field("ref", "is missing")),
            _ => Err(ParseError::field("ref", "must be a whole number from 1 to 2^53 - 1")),
        }
    }

    /// That of a message, whatever else it says.
    fn find(text: &str) -> Option<Self> {
        let found: Reference = parse::object(text).ok()?;
        Self::read(&found.reference).ok()
    }
}

#[derive(Deserialize)]
struct MoodBody {
    // `deserialize_with` makes the key required: clearing a mood is said, not left out.
    #[serde(deserialize_with = "Option::deserialize")]
    mood: Option<String>,
}

#[derive(Deserialize)]
struct TokenBody {
    token: String,
}

/// What the hub sends on a room socket.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ServerMessage<'a> {
    /// The first message on every socket.
    #[serde(rename_all = "camelCase")]
    Welcome {
        /// The protocol's version.
        protocol: u32,
        /// This socket's name.
        session: SessionId,
        /// The visitor, as given or as made up.
        visitor: &'a VisitorId,
        /// The room.
        room: &'a RoomId,
        /// Which state of the room this is.
        seq: u64,
        /// Distinct visitors in the room, this one included.
        present: u32,
        /// People by mood.
        moods: NamedMoods<'a>,
        /// The moods that may be set.
        vocabulary: &'a Vocabulary,
        /// The hub's wall clock.
        server_time: Time,
    },
    /// The room's aggregate changed.
    Presence {
        /// Which state of the room this is; on one socket it only rises.
        seq: u64,
        /// Distinct visitors in the room.
        present: u32,
        /// People by mood.
        moods: NamedMoods<'a>,
    },
    /// Every event up to this `ref` is committed, or was refused by an error that named it.
    #[serde(rename_all = "camelCase")]
    Ack {
        /// The highest such `ref`.
        up_to: Ref,
    },
    /// A message was refused.
    Error {
        /// What kind of refusal.
        code: ErrorCode,
        /// For people.
        message: &'a str,
        /// The refused message's `ref`, where it had one.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
    },
}

impl<'a> From<&'a MessageError> for ServerMessage<'a> {
    fn from(refusal: &'a MessageError) -> Self {
        Self::Error { code: refusal.code, message: &refusal.message, reference: refusal.reference }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "018f0e6e-0000-7000-8000-000000000001";

    fn refusal(text: &str) -> (ErrorCode, String, Option<u64>) {
        let refusal = ClientMessage::parse(text).expect_err(text);
        (refusal.code, refusal.message, refusal.reference.map(|Ref(number)| number))
    }

    #[test]
    fn good_messages_are_taken_and_unknown_keys_ignored() {
        assert_eq!(
            ClientMessage::parse(r#"{"type":"mood","mood":"calm","x":[1]}"#),
            Ok(ClientMessage::Mood(Some("calm".into())))
        );
        assert_eq!(ClientMessage::parse(r#" {"mood":null,"type":"mood"}"#), Ok(ClientMessage::Mood(None)));
        assert_eq!(
            ClientMessage::parse(r#"{"type":"token","token":"a.b.c"}"#),
            Ok(ClientMessage::Token("a.b.c".into()))
        );
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
    fn what_is_not_a_json_object_is_bad_json() {
        for text in ["", "{", "[]", "5", "null", "{}x", r#"{"type":"mood",}"#, "\u{feff}{}"] {
            assert_eq!(refusal(text).0, ErrorCode::BadJson, "{text}");
        }
        assert_eq!(refusal(&"[".repeat(4000)).0, ErrorCode::BadJson);
        let deep = format!(r#"{{"type":"mood","mood":{}}}"#, "[".repeat(3000));
        assert_eq!(refusal(&deep).0, ErrorCode::BadJson);
    }

    #[test]
    fn a_refusal_names_the_field_and_the_rule_and_the_ref() {
        let with = |fields: &str| format!(r#"{{"type":"page-view","ref":3,{fields}}}"#);
        let cases = [
            (r#"{"mood":"calm"}"#.to_owned(), "missing field `type`", None),
            (r#"{"ref":3,"path":"/a"}"#.to_owned(), "missing field `type`", Some(3)),
            (r#"{"type":5,"ref":3}"#.to_owned(), "type: invalid type", Some(3)),
            (r#"{"type":"mood"}"#.to_owned(), "missing field `mood`", None),
            (r#"{"type":"mood","mood":5}"#.to_owned(), "mood: invalid type", None),
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
            let refused = refusal(&text);
            assert_eq!(refused.0, ErrorCode::BadField, "{text}");
            assert!(refused.1.starts_with(message), "{text}: {}", refused.1);
            assert_eq!(refused.2, reference, "{text}");
        }
    }

    #[test]
    fn a_refusal_quotes_little_of_what_it_refuses() {
        let fields =
            |deep: &str| format!(r#"{{"type":"page-view","ref":3,"id":"{ID}","path":"/","props":{deep}}}"#);
        let deep = format!(r#"{{"{}":{}{}}}"#, "x".repeat(3000), "[".repeat(200), "]".repeat(200));
        let (code, message, reference) = refusal(&fields(&deep));
        assert_eq!((code, reference), (ErrorCode::BadField, Some(3)));
        assert!(message.starts_with("props") && message.len() < 512, "{message}");
    }

    #[test]
    fn what_came_too_fast_keeps_its_ref_where_it_has_a_good_one() {
        let reference = |text| ClientMessage::too_fast(text).reference.map(|Ref(number)| number);
        assert_eq!(reference(r#"{"type":"watch","ref":9}"#), Some(9));
        assert_eq!(reference(r#"{"type":"mood","mood":null}"#), None);
        assert_eq!(reference("{"), None);
    }

    #[test]
    fn an_unknown_type_keeps_its_ref() {
        assert_eq!(refusal(r#"{"type":"heartbeat","ref":9}"#).0, ErrorCode::UnknownType);
        assert_eq!(refusal(r#"{"type":"heartbeat","ref":9}"#).2, Some(9));
    }
}
