//! Authentication and authorization: visitor tokens, the admin token, and allowed origins.
//!
//! Everything here is pure: a decision by headers, keys and the time. `http` builds the responses.

pub(crate) mod admin;
pub(crate) mod keys;
pub(crate) mod origins;
pub(crate) mod token;

pub(crate) use admin::{Access, AdminToken, ShortToken};
pub(crate) use keys::{BadKeys, Config, Secret};
pub(crate) use origins::{AllowedOrigins, PublicUrl};
pub(crate) use token::{BadToken, Claims, Tokens};
