//! Who may do what: the admin's token, and those of visitors.
//!
//! A handler that is for the admin takes an [`Admin`], which only the right token makes. One that is for
//! visitors asks for their [`claims`], where the hub asks for tokens at all.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::Audience;
use super::app::App;
use super::error::ApiError;
use crate::session::offered_token;
use crate::token::{BadToken, Claims, Tokens};
use crate::wire::{Time, VisitorId};

/// The token that makes whoever has it admin. Never shown by `Debug`.
#[derive(Clone)]
pub struct AdminToken(String);

impl AdminToken {
    /// The configured token.
    #[must_use]
    pub fn new(token: String) -> Self {
        Self(token)
    }

    /// A random one of 244 bits.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
    }

    /// The token itself, to be told once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the request brings it. Hashes are compared, which are all of one length: how long it takes
    /// says nothing of the token, not even its length.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let same = |token: &[u8]| Sha256::digest(token).ct_eq(&Sha256::digest(&self.0));
        bearer(headers).is_some_and(|token| same(token).into())
    }
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// What the token of a request says, from its header or its subprotocols; nothing where the hub asks for none.
///
/// # Errors
/// The hub asks for tokens, and this one is missing or not good.
pub fn claims(app: &App, headers: &HeaderMap) -> Result<Option<Claims>, ApiError> {
    let Some(tokens) = &app.room.tokens else { return Ok(None) };
    read(tokens, headers, app.clock.wall()).map(Some)
}

/// Lets the admin through, and a visitor to what is the visitor's own. A token that opens one room only does
/// not: a visitor's own is in all of them.
///
/// # Errors
/// It is neither. Where the hub asks for no tokens, nobody can show to be a visitor.
pub fn admit_visitor_or_admin(app: &App, headers: &HeaderMap, visitor: &VisitorId) -> Result<(), ApiError> {
    if app.admin_token.is_in(headers) {
        return Ok(());
    }
    admit_visitor(app.room.tokens.as_ref(), headers, app.clock.wall(), visitor)
}

fn admit_visitor(
    tokens: Option<&Tokens>,
    headers: &HeaderMap,
    now: Time,
    visitor: &VisitorId,
) -> Result<(), ApiError> {
    let claims = read(tokens.ok_or(ApiError::Unauthorized)?, headers, now)?;
    if claims.of(visitor)?.room.is_none() { Ok(()) } else { Err(BadToken::Room.into()) }
}

fn read(tokens: &Tokens, headers: &HeaderMap, now: Time) -> Result<Claims, ApiError> {
    let text = |token| std::str::from_utf8(token).map_err(|_| BadToken::Malformed);
    let given = bearer(headers).map(text).transpose()?;
    let token = given.or_else(|| offered_token(headers)).ok_or(ApiError::NoToken)?;
    Ok(tokens.verify(token, now)?)
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Proof that a request is the admin's.
#[derive(Debug, Clone, Copy)]
pub struct Admin(());

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if app.admin_token.is_in(&parts.headers) { Ok(Self(())) } else { Err(ApiError::Unauthorized) }
    }
}

impl Audience {
    /// Lets a request of this audience through.
    ///
    /// # Errors
    /// Only the admin may see it, and this is not the admin.
    pub fn admit(self, app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
        match self {
            Self::Public => Ok(()),
            Self::Admin if app.admin_token.is_in(headers) => Ok(()),
            Self::Admin => Err(ApiError::Unauthorized),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Key, Secret};
    use crate::wire::RoomId;

    #[test]
    fn only_the_whole_token_in_the_right_scheme_is_the_admins() {
        let token = AdminToken::new("secret".into());
        let is_admin = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            token.is_in(&headers)
        };
        assert!(is_admin("Bearer secret") && is_admin("bearer secret"));
        for wrong in ["secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret"] {
            assert!(!is_admin(wrong), "{wrong}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        assert_ne!(AdminToken::random().reveal(), AdminToken::random().reveal());
    }

    #[test]
    fn what_is_a_visitors_own_opens_to_the_visitors_own_token() {
        let secret = Secret::from("a secret of more than thirty-two bytes".to_owned());
        let tokens = Tokens::new(vec![Key::secret(&secret).unwrap()], None);
        let [ann, bob] = ["ann", "bob"].map(|name| VisitorId::try_from(name).unwrap());
        let expires = Time::from_millis(1_000_000);
        let headers = |visitor: &VisitorId, room| {
            let claims = Claims { visitor: visitor.clone(), room, expires };
            let value = format!("Bearer {}", claims.sign(&secret, None).unwrap());
            HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
        };
        let admit = |headers: &HeaderMap, now| admit_visitor(Some(&tokens), headers, now, &ann);
        assert!(admit(&headers(&ann, None), expires).is_ok());
        let lobby = RoomId::try_from("lobby").unwrap();
        for (headers, now) in [
            (HeaderMap::new(), expires),
            (headers(&bob, None), expires),
            (headers(&ann, Some(lobby)), expires),
            (headers(&ann, None), expires.plus(30_000)),
        ] {
            let (status, code) = admit(&headers, now).unwrap_err().status_and_code();
            assert_eq!((status.as_u16(), code), (401, "unauthorized"));
        }
        // Without keys there are no tokens, and what looks like one is none.
        assert!(admit_visitor(None, &headers(&ann, None), expires, &ann).is_err());
    }
}
