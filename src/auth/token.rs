//! Visitor tokens: who may come in where, and until when.
//!
//! A token is a JWT (RFC 7519) that the app makes for its visitors, or `breathing-room token` for tests. Reading
//! one is pure: [`keys`] were read at the start, and the time is told. This module knows names and
//! times, and neither HTTP nor sockets.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, EncodingKey, Header, decode_header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::keys::{BadKeys, Key, Secret};

use crate::protocol::parse::{self, ParseError};
use crate::protocol::{RoomId, Time, VisitorId};
use crate::time::millis;

/// How far the clocks of whoever makes tokens and of the hub may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who it was made for.
    pub visitor: VisitorId,
    /// The one room that it opens; without it, all.
    pub room: Option<RoomId>,
    /// Its `exp`.
    pub expires: Time,
}

/// A token does not open this door. The text says what is wrong, and nothing of the keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not three parts of base64 with a header that is known.
    #[error("must be a JWT, signed with an algorithm that this hub takes")]
    Malformed,
    /// No key of this hub has made it.
    #[error("is not signed with a key that this hub knows")]
    Signature,
    /// A claim is missing or breaks its rule.
    #[error("{0}")]
    Claim(String),
    /// Its time has not come.
    #[error("is not valid yet")]
    TooEarly,
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// It would end what the one before lets go on.
    #[error("exp: ends before the token that it would replace, which goes on to hold")]
    EndsSooner,
    /// It was made for something else than this hub.
    #[error("aud: is for another audience")]
    Audience,
    /// It was made for somebody else.
    #[error("sub: is another visitor's")]
    Visitor,
    /// There was no need for one.
    #[error("this hub asks for none")]
    NotConfigured,
    /// It opens another room, and only that.
    #[error("room: opens another room")]
    Room,
}

/// The keys that make a token good, and whom it must be for.
#[derive(Debug)]
pub struct Tokens {
    keys: Vec<Key>,
    audience: Option<String>,
}

/// The claims as they stand in the token.
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
    /// Takes tokens of these keys; where an audience is named, only those that are for it.
    #[must_use]
    pub fn new(keys: Vec<Key>, audience: Option<String>) -> Self {
        Self { keys, audience }
    }

    /// Reads a token and checks all that can be known without the door that it is to open.
    ///
    /// # Errors
    /// The token is not good now. Of what it claims nothing is said unless its signature is good.
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

    /// What stands in a token that one of the keys has signed.
    fn payload(&self, token: &str) -> Result<Box<RawValue>, BadToken> {
        let header = decode_header(token).map_err(|_| BadToken::Malformed)?;
        // Whoever marks a header as critical relies on its being understood (RFC 7515, section 4.1.11).
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
    /// When the token ends for the hub: a little after its `exp`, for clocks that differ.
    #[must_use]
    pub fn expires_with_leeway(&self) -> Time {
        self.expires.plus(millis(LEEWAY))
    }

    /// These claims, where they open this room.
    ///
    /// # Errors
    /// They open another one.
    pub fn for_room(&self, room: &RoomId) -> Result<&Self, BadToken> {
        if self.room.as_ref().is_none_or(|opened| opened == room) { Ok(self) } else { Err(BadToken::Room) }
    }

    /// These claims, where they are this visitor's.
    ///
    /// # Errors
    /// They are another one's.
    pub fn for_visitor(&self, visitor: &VisitorId) -> Result<&Self, BadToken> {
        if self.visitor == *visitor { Ok(self) } else { Err(BadToken::Visitor) }
    }

    /// The token that says this, signed with HS256.
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
