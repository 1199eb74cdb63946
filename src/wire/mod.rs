//! The words that go over the network: names, moods, messages, codes, ready frames, and their schemas.
//!
//! Everything here is a pure value with its rules, checked once when it is parsed, so that the rest
//! of the house never meets a bad one. This module imports nothing of ours; `docs/protocol.md`
//! is its specification.

pub mod code;
pub mod frame;
pub mod ids;
pub mod message;
pub mod mood;
pub mod parse;
pub mod schema;
pub mod value;

pub use code::{CloseCode, ErrorCode};
pub use ids::{RoomId, SessionId, VisitorId};
pub use message::{ClientMessage, PageView, Ref, Refusal, Watch, WatchState};
pub use mood::{Mood, MoodCounts, Vocabulary};
pub use value::{Label, Props, Time, Whole};

/// The protocol's version, as `welcome` says it.
pub const PROTOCOL: u32 = 1;

/// The subprotocol that is echoed when a client offers it.
pub const SUBPROTOCOL: &str = "breathing-room.v1";

/// How a browser, which cannot set headers, offers its token: as a subprotocol with this before it.
pub const BEARER_SUBPROTOCOL: &str = "bearer.";

/// How a client offers the visitor's id, so that it stands in no address: as a subprotocol with this before it.
pub const VISITOR_SUBPROTOCOL: &str = "visitor.";

/// The longest message that a client may send, in bytes.
pub const MESSAGE_LIMIT: usize = 4096;
