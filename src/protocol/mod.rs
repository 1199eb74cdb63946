//! The words that go over the network: names, moods, messages, codes, ready frames, and their schemas.
//!
//! Everything here is a pure value with its rules, checked once when it is parsed, so that the rest
//! of the house never meets a bad one. This module imports nothing of ours; `docs/protocol.md`
//! is its specification.

pub(crate) mod code;
pub(crate) mod frame;
pub(crate) mod ids;
pub(crate) mod message;
pub(crate) mod mood;
pub(crate) mod parse;
pub(crate) mod schema;
pub(crate) mod value;

pub(crate) use code::{CloseCode, ErrorCode};
pub(crate) use ids::{RoomId, SessionId, VisitorId};
pub(crate) use message::{ClientMessage, MessageError, PageView, Ref, Watch, WatchState};
pub(crate) use mood::{Mood, MoodCounts, Vocabulary};
pub(crate) use value::{BoundedText, Props, SafeInteger, Time};

/// The protocol's version, as `welcome` says it.
pub(crate) const PROTOCOL_VERSION: u32 = 1;

/// The subprotocol that is echoed when a client offers it.
pub(crate) const SUBPROTOCOL: &str = "breathing-room.v1";

/// How a browser, which cannot set headers, offers its token: as a subprotocol with this before it.
pub(crate) const BEARER_SUBPROTOCOL: &str = "bearer.";

/// How a client offers the visitor's id, so that it stands in no address: as a subprotocol with this before it.
pub(crate) const VISITOR_SUBPROTOCOL: &str = "visitor.";

/// The longest message that a client may send, in bytes.
pub(crate) const MESSAGE_LIMIT: usize = 4096;
