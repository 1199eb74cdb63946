//! `token`: one visitor's token, made with the hub's own secret.
//!
//! For tests and for apps whose server can run a program but signs nothing itself. It opens no database.

use super::{Failure, Outcome, say};
use crate::clock::{Clock, millis};
use crate::config::TokenSettings;
use crate::token::Claims;

/// Prints a token.
///
/// # Errors
/// The secret is too short.
pub fn token(settings: &TokenSettings, clock: &Clock) -> Result<Outcome, Failure> {
    let TokenSettings { visitor, room, expires, token_secret, token_audience } = settings;
    let expires = clock.wall().plus(millis(*expires));
    let claims = Claims { visitor: visitor.clone(), room: room.clone(), expires };
    say(claims.sign(token_secret, token_audience.as_deref())?);
    Ok(Outcome::Clean)
}
