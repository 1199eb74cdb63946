//! Who may do what: the admin's token.
//!
//! A handler that is for the admin takes an [`Admin`], which only the right token makes.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::Audience;
use super::app::App;
use super::error::ApiError;
use crate::wire::VisitorId;

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

    /// Whether the request brings it. Takes the same time for every wrong token of one length.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        let (scheme, token) = value.split_at_checked("Bearer ".len()).unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(token.ct_eq(self.0.as_bytes()))
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Lets whoever may see and erase what is kept of this visitor through: the admin.
///
/// # Errors
/// This is somebody else.
pub fn admit_to_data_of(_visitor: &VisitorId, app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    if app.admin_token.is_in(headers) { Ok(()) } else { Err(ApiError::Unauthorized) }
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
}
