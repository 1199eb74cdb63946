//! Tokens: one that no key has signed is never valid; the claims of a signed one are accepted or rejected.

use std::sync::LazyLock;

use breathing_room::config::{Secret, Time};
use breathing_room::internals::{BadToken, TokenKey, Tokens};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::value::RawValue;

const SECRET: &str = "a secret of more than thirty-two bytes";

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let key = TokenKey::secret(&Secret::from(SECRET.to_owned())).expect("a long secret");
    Tokens::new(vec![key], Some("rooms".to_owned()))
});

pub fn check(bytes: &[u8]) {
    let now = Time::from_millis(1_800_000_000_000);
    let Ok(text) = str::from_utf8(bytes) else { return };
    assert!(TOKENS.verify(text, now).is_err(), "valid without a signature: {text}");
    let Ok(claims) = serde_json::from_str::<&RawValue>(text) else { return };
    match TOKENS.verify(&signed(claims), now) {
        Ok(claims) => {
            assert!(claims.expires_with_leeway() > now);
            assert!(claims.for_visitor(&claims.visitor).is_ok());
            assert!(claims.room.as_ref().is_none_or(|room| claims.for_room(room).is_ok()));
        }
        Err(bad) => {
            assert!(!matches!(bad, BadToken::Signature | BadToken::Visitor | BadToken::NotConfigured));
        }
    }
}

/// Signs a token with these claims.
fn signed(claims: &RawValue) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
}
