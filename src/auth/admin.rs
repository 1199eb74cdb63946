//! The admin token, and the tokens that requests bring.
//!
//! A token comes in the header `Authorization: Bearer`, or on a socket as an offered subprotocol.

use std::fmt::{self, Write};
use std::str;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::transport::offered_token;

/// The fewest bytes of an admin token.
const MIN_LENGTH: usize = 16;

/// The token that makes whoever has it admin. Never shown by `Debug`.
#[derive(Clone)]
pub(crate) struct AdminToken(String);

/// The configured admin token could be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ADMIN_TOKEN: must have at least {MIN_LENGTH} bytes")]
pub struct ShortToken;

impl AdminToken {
    /// The configured token.
    ///
    /// # Errors
    /// It is too short.
    pub(crate) fn new(token: String) -> Result<Self, ShortToken> {
        if token.len() < MIN_LENGTH { Err(ShortToken) } else { Ok(Self(token)) }
    }

    /// A random one of 244 bits.
    #[must_use]
    pub(crate) fn random() -> Self {
        Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
    }

    /// The token itself, to be told once.
    #[must_use]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the request brings it: in its header, or on a socket as a subprotocol, where it is percent-encoded.
    /// Hashes are compared, which are all of one length: how long it takes says nothing of the token, not even its
    /// length.
    pub(crate) fn matches(&self, headers: &HeaderMap) -> bool {
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
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Who may see something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// Whoever has the admin token.
    Admin,
}

#[cfg(test)]
mod tests {
    use axum::http::header::SEC_WEBSOCKET_PROTOCOL;

    use super::*;

    const TOKEN: &str = "a+secret/of 16==";

    #[test]
    fn only_the_whole_token_in_the_right_scheme_is_the_admins() {
        let token = AdminToken::new(TOKEN.into()).unwrap();
        let is_in =
            |name, value: &str| token.matches(&HeaderMap::from_iter([(name, value.parse().unwrap())]));
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
        assert!(!token.matches(&HeaderMap::new()));
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
}
