//! Visitors' tokens: the hub under attack asks for them, and hostile peers have good ones like everybody else.
//!
//! So whatever they do, they do as visitors whom the site itself has let in, and bad tokens are an attack of their own.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

/// The hub's `TOKEN_SECRET`.
pub(super) const SECRET: &str = "the load tool and its hub share this secret";

/// Longer than any run.
const GOOD_FOR: Duration = Duration::from_hours(6);

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    /// Seconds since the Unix epoch.
    exp: u64,
}

/// A token of this visitor, for all rooms.
pub(super) fn token(visitor: &str) -> String {
    static KEY: LazyLock<EncodingKey> = LazyLock::new(|| EncodingKey::from_secret(SECRET.as_bytes()));
    static EXPIRES: LazyLock<u64> = LazyLock::new(|| {
        #[expect(
            clippy::disallowed_methods,
            reason = "tokens end by the wall clock; the tool has none to set"
        )]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (now + GOOD_FOR).as_secs()
    });
    // Without a key there is no token; the hub refuses an empty one, and the run fails at the first join.
    encode(&Header::default(), &Claims { sub: visitor, exp: *EXPIRES }, &KEY).unwrap_or_default()
}

/// The same request with this token.
pub(super) fn with_token(request: &str, token: &str) -> String {
    request.replacen("Host: hub\r\n", &format!("Host: hub\r\nAuthorization: Bearer {token}\r\n"), 1)
}
