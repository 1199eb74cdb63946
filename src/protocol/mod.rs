//! The protocol: names, moods, messages, features, codes, encoded frames, and their schemas.
//!
//! Each type checks its rule once, when a value is parsed, so that no other module gets an invalid value. This module
//! imports no other module of the crate. Its specification is `docs/protocol.md`.

pub(crate) mod code;
pub(crate) mod features;
pub(crate) mod frame;
pub(crate) mod ids;
pub(crate) mod message;
pub(crate) mod mood;
pub(crate) mod parse;
pub(crate) mod schema;
pub(crate) mod value;

pub(crate) use code::{CloseCode, ErrorCode, LOST_ON_PURPOSE};
pub(crate) use features::Features;
pub(crate) use ids::{RoomId, SessionId, VisitorId};
pub(crate) use message::{ClientMessage, MessageError, PageView, Ref, Watch, WatchState};
pub(crate) use mood::{Mood, MoodCounts, Vocabulary};
pub(crate) use value::{BoundedText, Props, SafeInteger, Time};

/// The protocol's version, which `welcome` has.
pub(crate) const PROTOCOL_VERSION: u32 = 1;

/// The subprotocol that the hub selects if a client offers it.
pub(crate) const SUBPROTOCOL: &str = "breathing-room.v1";

/// The prefix of an offered subprotocol that is a token. Browsers cannot set headers.
pub(crate) const BEARER_SUBPROTOCOL: &str = "bearer.";

/// The prefix of an offered subprotocol that is a visitor's id, so that URLs do not contain ids.
pub(crate) const VISITOR_SUBPROTOCOL: &str = "visitor.";

/// The request header with a visitor's id, for requests that cannot offer subprotocols.
pub(crate) const VISITOR_HEADER: &str = "visitor";

/// How long a client waits for any message of the hub before it sends a `ping`, in milliseconds. It is in `welcome`.
pub(crate) const PING_AFTER_MS: u64 = 60_000;

/// The most bytes of a message from a client.
pub(crate) const MESSAGE_LIMIT: usize = 4096;
