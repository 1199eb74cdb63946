//! Visitor tokens: which visitor may join which room, and until when.
//!
//! A token is a JWT (RFC 7519) that the app issues for its visitors, or `breathing-room token` for tests. Verification
//! is pure: the [`keys`](super::keys) are read at the start, and the time is an argument. This module does not know HTTP
//! or sockets.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, EncodingKey, Header, decode_header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::keys::{BadKeys, Secret, TokenKey};
use crate::protocol::parse::{self, ParseError};
use crate::protocol::{RoomId, Time, VisitorId};
use crate::time::millis;

/// The tolerated difference between the clocks of the issuer and of the hub.
const LEEWAY: Duration = Duration::from_secs(30);

/// The claims of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Its `sub`.
    pub visitor: VisitorId,
    /// The only room that it opens; none for all rooms.
    pub room: Option<RoomId>,
    /// Its `exp`.
    pub expires: Time,
}

/// Why a token is rejected. The text reveals nothing of the keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not a JWT, or its header has an unsupported algorithm or extension.
    #[error("must be a JWT, signed with an algorithm that this hub accepts")]
    Malformed,
    /// No key of this hub has signed it.
    #[error("is not signed with a key that this hub knows")]
    Signature,
    /// A claim is missing or breaks its rule.
    #[error("{0}")]
    Claim(String),
    /// Its `nbf` is in the future.
    #[error("is not valid yet")]
    TooEarly,
    /// Its `exp` is in the past.
    #[error("has expired")]
    Expired,
    /// It expires before the token that it would replace.
    #[error("exp: ends before the current token, which stays valid")]
    EndsSooner,
    /// It is for another audience than this hub.
    #[error("aud: is for another audience")]
    Audience,
    /// It is for another visitor.
    #[error("sub: is another visitor's")]
    Visitor,
    /// The hub takes no tokens.
    #[error("this hub takes no tokens")]
    NotConfigured,
    /// It opens only another room.
    #[error("room: opens another room")]
    Room,
}

/// The keys and the audience of valid tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    keys: Vec<TokenKey>,
    audience: Option<String>,
}

/// The claims as the token has them.
#[derive(Deserialize)]
struct Payload {
    sub: VisitorId,
    room: Option<RoomId>,
    exp: NumericDate,
    nbf: Option<NumericDate>,
    aud: Option<Audience>,
}

/// Seconds since the epoch, which may have a fraction (RFC 7519, section 2).
#[derive(Deserialize)]
#[serde(from = "f64")]
struct NumericDate(Time);

impl From<f64> for NumericDate {
    fn from(seconds: f64) -> Self {
        let since = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        Self(Time::from_millis(millis(since)))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Several(several) => several.iter().any(|one| one == wanted),
        }
    }
}

impl Tokens {
    /// Accepts tokens that one of these keys signed, and only for the audience, if there is one.
    #[must_use]
    pub fn new(keys: Vec<TokenKey>, audience: Option<String>) -> Self {
        Self { keys, audience }
    }

    /// Verifies the signature, the times and the audience of a token, and returns its claims. The room and the visitor
    /// are still to be checked: see [`Claims`].
    ///
    /// # Errors
    /// The token is not valid now. The error reveals nothing of the claims unless the signature is valid.
    pub fn verify(&self, token: &str, now: Time) -> Result<Claims, BadToken> {
        let payload = self.payload(token)?;
        let Payload { sub, room, exp, nbf, aud } =
            parse::object(payload.get()).map_err(|ParseError { message, .. }| BadToken::Claim(message))?;
        let claims = Claims { visitor: sub, room, expires: exp.0 };
        if nbf.is_some_and(|NumericDate(from)| now < from.minus(millis(LEEWAY))) {
            return Err(BadToken::TooEarly);
        }
        if now >= claims.expires_with_leeway() {
            return Err(BadToken::Expired);
        }
        match &self.audience {
            Some(wanted) if !aud.is_some_and(|aud| aud.has(wanted)) => Err(BadToken::Audience),
            _ => Ok(claims),
        }
    }

    /// Returns the payload of a token that one of the keys has signed.
    fn payload(&self, token: &str) -> Result<Box<RawValue>, BadToken> {
        let header = decode_header(token).map_err(|_| BadToken::Malformed)?;
        // A critical header must be understood (RFC 7515, section 4.1.11), and none is.
        if header.crit.is_some() || !self.keys.iter().any(|key| key.is_for(header.alg)) {
            return Err(BadToken::Malformed);
        }
        for key in self.keys.iter().filter(|key| key.may_have_signed(&header)) {
            match key.verify(token) {
                Ok(payload) => return Ok(payload),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(_) => return Err(BadToken::Malformed),
            }
        }
        Err(BadToken::Signature)
    }
}

impl Claims {
    /// When the hub regards the token as expired: 30 s after its `exp`, for clocks that differ.
    #[must_use]
    pub fn expires_with_leeway(&self) -> Time {
        self.expires.plus(millis(LEEWAY))
    }

    /// Returns these claims if they open `room`.
    ///
    /// # Errors
    /// They open only another room.
    pub fn for_room(&self, room: &RoomId) -> Result<&Self, BadToken> {
        if self.room.as_ref().is_none_or(|opened| opened == room) { Ok(self) } else { Err(BadToken::Room) }
    }

    /// Returns these claims if they are for `visitor`.
    ///
    /// # Errors
    /// They are for another visitor.
    pub fn for_visitor(&self, visitor: &VisitorId) -> Result<&Self, BadToken> {
        if self.visitor == *visitor { Ok(self) } else { Err(BadToken::Visitor) }
    }

    /// Returns a token with these claims, signed with HS256.
    ///
    /// # Errors
    /// The secret is too short.
    pub fn sign(&self, secret: &Secret, audience: Option<&str>) -> Result<String, BadKeys> {
        #[derive(Serialize)]
        struct Signed<'a> {
            sub: &'a VisitorId,
            #[serde(skip_serializing_if = "Option::is_none")]
            room: Option<&'a RoomId>,
            exp: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            aud: Option<&'a str>,
        }
        let exp = self.expires.millis() / 1000;
        let payload = Signed { sub: &self.visitor, room: self.room.as_ref(), exp, aud: audience };
        let key = EncodingKey::from_secret(secret.bytes()?);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &payload, &key).map_err(BadKeys::Sign)
    }
}
