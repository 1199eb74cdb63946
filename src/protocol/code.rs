//! The codes that refusals and closes carry.
//!
//! Closed enums, so that adding one shows every place that must know it.

use serde::{Serialize, Serializer};
use strum::{IntoStaticStr, VariantArray};

/// Why a message on a socket was refused. The socket stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum ErrorCode {
    /// Not a JSON object.
    BadJson,
    /// A `type` that the protocol does not have.
    UnknownType,
    /// A field is missing or breaks its rule; the message says which and why.
    BadField,
    /// A mood that the hub's vocabulary does not have.
    UnknownMood,
    /// More messages than the rate limit allows: nothing was taken.
    TooFast,
    /// The event queue is full: nothing was taken, send it again later.
    Overloaded,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why the hub closes a socket (RFC 6455, section 7.4, and the IANA registry of close codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, VariantArray)]
pub enum CloseCode {
    /// The peer broke the WebSocket protocol: 1002.
    Protocol,
    /// A binary message, which this protocol does not have: 1003.
    Unsupported,
    /// A text message that is not UTF-8: 1007.
    NotUtf8,
    /// The token has ended, and no new one came in time: 1008.
    TokenEnded,
    /// The peer does not keep to a rule of this hub: 1008.
    Policy,
    /// A message over [`MESSAGE_LIMIT`](super::MESSAGE_LIMIT): 1009.
    TooBig,
    /// The hub made a mistake: 1011.
    Internal,
    /// The hub restarts: come back after a random wait: 1012.
    Restarting,
    /// The hub is full: come back later: 1013.
    Overloaded,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::NotUtf8 => 1007,
            Self::TokenEnded | Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Restarting => 1012,
            Self::Overloaded => 1013,
        }
    }

    /// What the close frame says besides: of 1008 a code for programs (`kicked` and `banned` are kept for later), of
    /// the others a few words for whoever reads a log.
    #[must_use]
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Protocol => "protocol violation",
            Self::Unsupported => "binary messages are not supported",
            Self::NotUtf8 => "text must be UTF-8",
            Self::TokenEnded => "token-expired",
            Self::Policy => "rate-limit",
            Self::TooBig => "a message is at most 4096 bytes",
            Self::Internal => "the hub made a mistake: come back later",
            Self::Restarting => "restarting: come back after a random wait",
            Self::Overloaded => "overloaded: come back later",
        }
    }
}
