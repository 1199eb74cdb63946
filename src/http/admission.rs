//! Who may do what: the admin's token, and those of visitors.
//!
//! A handler that is for the admin takes an [`Admin`], which only the right token makes. One that is for
//! visitors asks for their [`claims`], where the hub asks for tokens at all. Tries to be the admin that fail are
//! paced by their address; the right token always passes.

use std::fmt::{self, Write};
use std::str;
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
use super::limits::address;
use crate::address::Address;
use crate::session::offered_token;
use crate::token::{BadToken, Claims, Tokens};
use crate::wire::{Time, VisitorId};

/// The fewest bytes of an admin token.
const SHORTEST: usize = 16;

/// The token that makes whoever has it admin. Never shown by `Debug`.
#[derive(Clone)]
pub struct AdminToken(String);

/// The configured admin token could be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ADMIN_TOKEN: must have at least {SHORTEST} bytes")]
pub struct ShortToken;

impl AdminToken {
    /// The configured token.
    ///
    /// # Errors
    /// It is too short.
    pub fn new(token: String) -> Result<Self, ShortToken> {
        if token.len() < SHORTEST { Err(ShortToken) } else { Ok(Self(token)) }
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

    /// Whether the request brings it: in its header, or on a socket as a subprotocol, where it is percent-encoded.
    /// Hashes are compared, which are all of one length: how long it takes says nothing of the token, not even its
    /// length.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let same =
            |token: &[u8], own: &str| -> bool { Sha256::digest(token).ct_eq(&Sha256::digest(own)).into() };
        bearer(headers).is_some_and(|token| same(token, &self.0))
            || offered_token(headers).is_some_and(|token| same(token.as_bytes(), &percent_encoded(&self.0)))
    }
}

/// As it can stand in a subprotocol, which is a token of RFC 9110: everything else in percent and two digits.
fn percent_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if is_plain(byte) {
            encoded.push(byte.into());
        } else {
            // Writing to a text does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Lets the admin through. Whoever is not, is paced by their address.
///
/// # Errors
/// The request does not bring the admin token, or its address has failed too often.
pub fn admit_admin(app: &App, headers: &HeaderMap, address: Address) -> Result<Admin, ApiError> {
    if app.admin_token.is_in(headers) {
        return Ok(Admin(()));
    }
    app.sockets.count_admin_failure(address)?;
    Err(ApiError::Unauthorized)
}

/// What the token of a request says, from its header or its subprotocols; nothing where the hub asks for none.
///
/// # Errors
/// The hub asks for tokens, and this one is missing or not good.
pub fn claims(app: &App, headers: &HeaderMap) -> Result<Option<Claims>, ApiError> {
    let Some(tokens) = &app.room.tokens else { return Ok(None) };
    read(tokens, headers, app.clock.wall()).map(Some)
}

/// Who asks for what is kept of a visitor.
#[derive(Debug)]
pub enum Asker {
    /// The admin.
    Admin,
    /// A visitor.
    Visitor(Claims),
}

impl Asker {
    /// Who a request comes from.
    ///
    /// # Errors
    /// From neither. Where the hub asks for no tokens, nobody can show to be a visitor.
    pub fn of(app: &App, headers: &HeaderMap, address: Address) -> Result<Self, ApiError> {
        if app.admin_token.is_in(headers) {
            return Ok(Self::Admin);
        }
        let tokens = app.room.tokens.as_ref().ok_or(ApiError::Unauthorized);
        let claims = tokens.and_then(|tokens| read(tokens, headers, app.clock.wall()));
        claims.map(Self::Visitor).or_else(|refused| {
            app.sockets.count_admin_failure(address)?;
            Err(refused)
        })
    }

    /// Lets the admin through, and visitors to what is their own. A token that opens one room only does not: a
    /// visitor's own is in all of them.
    ///
    /// # Errors
    /// It is another visitor's, or the token is for one room.
    pub fn may_have(&self, visitor: &VisitorId) -> Result<(), ApiError> {
        match self {
            Self::Admin => Ok(()),
            Self::Visitor(claims) if claims.of(visitor)?.room.is_none() => Ok(()),
            Self::Visitor(_) => Err(BadToken::Room.into()),
        }
    }
}

/// A token that is offered as a subprotocol is for this hub; a header may be another's, such as a proxy's.
fn read(tokens: &Tokens, headers: &HeaderMap, now: Time) -> Result<Claims, ApiError> {
    let given = match offered_token(headers) {
        Some(offered) => offered,
        None => str::from_utf8(bearer(headers).ok_or(ApiError::NoToken)?).map_err(|_| BadToken::Malformed)?,
    };
    Ok(tokens.verify(given, now)?)
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
        admit_admin(app, &parts.headers, address(app, &parts.headers, &parts.extensions))
    }
}

impl Audience {
    /// Lets a request of this audience through.
    ///
    /// # Errors
    /// Only the admin may see it, and this is not the admin.
    pub fn admit(self, app: &App, headers: &HeaderMap, address: Address) -> Result<(), ApiError> {
        match self {
            Self::Public => Ok(()),
            Self::Admin => admit_admin(app, headers, address).map(|Admin(())| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::SEC_WEBSOCKET_PROTOCOL;

    use super::*;
    use crate::token::{Key, Secret};
    use crate::wire::RoomId;

    const TOKEN: &str = "a+secret/of 16==";

    #[test]
    fn only_the_whole_token_in_the_right_scheme_is_the_admins() {
        let token = AdminToken::new(TOKEN.into()).unwrap();
        let is_in = |name, value: &str| token.is_in(&HeaderMap::from_iter([(name, value.parse().unwrap())]));
        let is_admin = |value: &str| is_in(AUTHORIZATION, value);
        assert!(is_admin(&format!("Bearer {TOKEN}")) && is_admin(&format!("bearer {TOKEN}")));
        for wrong in
            ["a+secret/of 16==", "Bearer", "Bearer ", "Bearer a+secret/of 16=", "Bearer a+secret/of 16==="]
        {
            assert!(!is_admin(wrong), "{wrong}");
        }
        assert!(!is_admin(&format!("Basic {TOKEN}")));
        // As a browser offers it on a socket.
        let is_offered = |value: &str| is_in(SEC_WEBSOCKET_PROTOCOL, value);
        assert!(is_offered("breathing-room.v1, bearer.a%2Bsecret%2Fof%2016%3D%3D"));
        assert!(
            !is_offered("breathing-room.v1, bearer.a%2Bsecret") && !is_offered("a%2Bsecret%2Fof%2016%3D%3D")
        );
        assert!(!token.is_in(&HeaderMap::new()));
        assert_ne!(AdminToken::random().reveal(), AdminToken::random().reveal());
    }

    #[test]
    fn admin_token_has_16_bytes() {
        for short in ["", "a", "fifteen letters"] {
            let refused = AdminToken::new(short.into()).unwrap_err();
            assert_eq!(refused.to_string(), "ADMIN_TOKEN: must have at least 16 bytes");
        }
        assert!(AdminToken::new("sixteen letters.".into()).is_ok());
        assert!(AdminToken::new(AdminToken::random().reveal().to_owned()).is_ok());
    }

    fn keys() -> (Secret, Tokens) {
        let secret = Secret::from("a secret of more than thirty-two bytes".to_owned());
        let tokens = Tokens::new(vec![Key::secret(&secret).unwrap()], None);
        (secret, tokens)
    }

    #[test]
    fn offered_token_is_read_before_a_header_that_may_be_anothers() {
        let (secret, tokens) = keys();
        let now = Time::from_millis(1_000_000);
        let claims = Claims { visitor: VisitorId::try_from("ann").unwrap(), room: None, expires: now };
        let good = claims.sign(&secret, None).unwrap();
        let ask = |authorization: &str, offered: &str| {
            let values = [(AUTHORIZATION, authorization), (SEC_WEBSOCKET_PROTOCOL, offered)];
            let given = values.into_iter().filter(|(_, value)| !value.is_empty());
            let headers = given.map(|(name, value)| (name, value.parse().unwrap())).collect();
            read(&tokens, &headers, now)
                .map(|claims| claims.visitor.to_string())
                .map_err(|bad| bad.to_string())
        };
        let offered = format!("breathing-room.v1, bearer.{good}");
        for foreign in ["", "Basic YTpi", "Bearer of-a-proxy", &format!("Bearer {good}")] {
            assert_eq!(ask(foreign, &offered).as_deref(), Ok("ann"), "{foreign}");
        }
        assert_eq!(ask(&format!("Bearer {good}"), "breathing-room.v1").as_deref(), Ok("ann"));
        assert!(ask("Basic YTpi", "").unwrap_err().starts_with("this needs a token"));
        assert!(
            ask(&format!("Bearer {good}"), "bearer.bad").unwrap_err().starts_with("token: must be a JWT")
        );
    }

    #[test]
    fn what_is_a_visitors_own_opens_to_the_visitors_own_token() {
        let [ann, bob] = ["ann", "bob"].map(|name| VisitorId::try_from(name).unwrap());
        let claims = |visitor: &VisitorId, room: Option<&str>| {
            let room = room.map(|room| RoomId::try_from(room).unwrap());
            Asker::Visitor(Claims { visitor: visitor.clone(), room, expires: Time::END })
        };
        assert!(claims(&ann, None).may_have(&ann).is_ok() && Asker::Admin.may_have(&ann).is_ok());
        for other in [claims(&bob, None), claims(&ann, Some("lobby"))] {
            let (status, code) = other.may_have(&ann).unwrap_err().status_and_code();
            assert_eq!((status.as_u16(), code), (401, "unauthorized"));
        }
    }
}
