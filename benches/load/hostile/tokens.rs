//! Visitor tokens: the hub under attack requires them, and the attackers have valid ones too.
//!
//! So the attacks come from visitors whom the site authenticates. Invalid tokens are a separate attack.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

/// The hub's `TOKEN_SECRET`.
pub(super) const SECRET: &str = "the load tool and its hub share this secret";

/// The lifetime of a token, longer than any run.
const LIFETIME: Duration = Duration::from_hours(6);

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    /// Seconds since the Unix epoch.
    exp: u64,
}

/// A token for a visitor, valid for all rooms.
pub(super) fn token(visitor: &str) -> String {
    static KEY: LazyLock<EncodingKey> = LazyLock::new(|| EncodingKey::from_secret(SECRET.as_bytes()));
    static EXPIRES: LazyLock<u64> = LazyLock::new(|| {
        #[expect(
            clippy::disallowed_methods,
            reason = "tokens expire by the wall clock; the tool has no Clock"
        )]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (now + LIFETIME).as_secs()
    });
    // Where encoding fails, the token is empty; the hub refuses it, and the run fails at the first join.
    encode(&Header::default(), &Claims { sub: visitor, exp: *EXPIRES }, &KEY).unwrap_or_default()
}

/// Adds the token to a request.
pub(super) fn with_token(request: &str, token: &str) -> String {
    request.replacen("Host: hub\r\n", &format!("Host: hub\r\nAuthorization: Bearer {token}\r\n"), 1)
}
