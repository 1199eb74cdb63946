//! The admin token, and how requests send tokens.
//!
//! A request has its token in the header `Authorization: Bearer`, or, for a socket, as an offered subprotocol.

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

/// The admin token. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct AdminToken(String);

/// The configured admin token is short enough to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ADMIN_TOKEN: must have at least {MIN_LENGTH} bytes")]
pub struct ShortToken;

impl AdminToken {
    /// Checks the configured token.
    /// Errors: it is too short.
    pub(crate) fn new(token: String) -> Result<Self, ShortToken> {
        if token.len() < MIN_LENGTH { Err(ShortToken) } else { Ok(Self(token)) }
    }

    /// Returns a random token of 244 bits.
    pub(crate) fn random() -> Self {
        Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
    }

    /// Returns the token itself, for the log line at the start.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether a request has this token: in its header, or as a subprotocol, where it is percent-encoded. It compares
    /// hashes, which have one length, so that the duration does not depend on the token, not even on its length.
    pub(crate) fn matches(&self, headers: &HeaderMap) -> bool {
        let same =
            |token: &[u8], own: &str| -> bool { Sha256::digest(token).ct_eq(&Sha256::digest(own)).into() };
        bearer(headers).is_some_and(|token| same(token, &self.0))
            || offered_token(headers).is_some_and(|token| same(token.as_bytes(), &percent_encoded(&self.0)))
    }
}

/// Returns the text as a subprotocol, which is a token of RFC 9110: percent-encoded, except for unreserved characters.
fn percent_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if is_plain(byte) {
            encoded.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// Returns the token of `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Who may read a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Access {
    /// Everyone.
    #[default]
    Public,
    /// Requests with the admin token.
    Admin,
}

#[cfg(test)]
mod tests {
    use axum::http::header::SEC_WEBSOCKET_PROTOCOL;

    use super::*;

    const TOKEN: &str = "a+secret/of 16==";

    #[test]
    fn admin_token_must_match_as_a_whole_and_in_its_scheme() {
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
        // A browser offers it as a subprotocol.
        let is_offered = |value: &str| is_in(SEC_WEBSOCKET_PROTOCOL, value);
        assert!(is_offered("breathing-room.v1, bearer.a%2Bsecret%2Fof%2016%3D%3D"));
        assert!(
            !is_offered("breathing-room.v1, bearer.a%2Bsecret") && !is_offered("a%2Bsecret%2Fof%2016%3D%3D")
        );
        assert!(!token.matches(&HeaderMap::new()));
        assert_ne!(AdminToken::random().reveal(), AdminToken::random().reveal());
    }

    #[test]
    fn admin_token_has_at_least_16_bytes() {
        for short in ["", "a", "fifteen letters"] {
            let refused = AdminToken::new(short.into()).unwrap_err();
            assert_eq!(refused.to_string(), "ADMIN_TOKEN: must have at least 16 bytes");
        }
        assert!(AdminToken::new("sixteen letters.".into()).is_ok());
        assert!(AdminToken::new(AdminToken::random().reveal().to_owned()).is_ok());
    }
}
