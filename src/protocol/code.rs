//! Codes of errors and closes.
//!
//! Closed enums: the compiler reports every match that a new code needs.

use serde::{Serialize, Serializer};
use strum::{IntoStaticStr, VariantArray};

/// Why a message was rejected. The socket stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum ErrorCode {
    /// Not a JSON object.
    BadJson,
    /// The protocol does not have this `type`.
    UnknownType,
    /// A field is missing or breaks its rule. The error's message has both.
    BadField,
    /// The hub's vocabulary does not have this mood.
    UnknownMood,
    /// More messages than the rate limit allows. The message had no effect.
    TooFast,
    /// The event queue is full, or the visitor's address sends too many events. The message had no effect; send it again
    /// later.
    Overloaded,
    /// A limit of sits is reached, or a bot sent the message. It had no effect.
    SitRefused,
}

impl ErrorCode {
    /// The code on the wire.
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

/// The close code of a client that gives up its socket on purpose, while its visitor stays: a page that the system freezes.
pub(crate) const LOST_ON_PURPOSE: u16 = 4000;

/// Why the hub closes a socket (RFC 6455, section 7.4, and the IANA registry of close codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, VariantArray)]
pub enum CloseCode {
    /// The peer broke the WebSocket protocol: 1002.
    Protocol,
    /// A binary message, which the protocol does not have: 1003.
    Unsupported,
    /// A text message that is not UTF-8: 1007.
    NotUtf8,
    /// The token has expired, and no new one arrived in time: 1008.
    TokenEnded,
    /// The peer broke a rule of this hub: 1008.
    Policy,
    /// A message over [`MESSAGE_LIMIT`](super::MESSAGE_LIMIT): 1009.
    TooBig,
    /// An internal error of the hub: 1011.
    Internal,
    /// The hub restarts, connect again after a random wait: 1012.
    Restarting,
    /// The hub is full, connect again later: 1013.
    Overloaded,
}

impl CloseCode {
    /// Whether a visitor whose socket the hub closes with this code counts as lost, so that a sit goes on.
    pub(crate) fn is_loss(self) -> bool {
        match self {
            Self::TokenEnded | Self::Internal | Self::Restarting | Self::Overloaded => true,
            Self::Protocol | Self::Unsupported | Self::NotUtf8 | Self::Policy | Self::TooBig => false,
        }
    }

    /// The number on the wire.
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

    /// The reason in the close frame. For 1008 it is a code for programs (`kicked` and `banned` are reserved); for the
    /// others it is a text for logs.
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
