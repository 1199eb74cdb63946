//! `token`: one visitor's token, made with the hub's own secret.
//!
//! For tests and for apps whose server can run a program but signs nothing itself. It opens no database.

use std::time::Duration;

use clap::Args;

use super::parse::{lifetime, room, visitor};
use super::{Failure, Outcome, say};
use crate::auth::{Claims, Secret};
use crate::protocol::{RoomId, VisitorId};
use crate::time::{Clock, millis};

/// The settings of `token`.
#[derive(Debug, Args)]
pub struct TokenSettings {
    /// Who the token is for
    #[arg(long, value_name = "ID", value_parser = visitor)]
    pub visitor: VisitorId,
    /// The one room that it opens; without it, all
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomId>,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    pub expires: Duration,
    /// The secret that the hub has, of at least 32 bytes
    #[arg(long, env, value_name = "SECRET", hide_env_values = true)]
    pub token_secret: Secret,
    /// Whom it is for, where the hub asks for that
    #[arg(long, env, value_name = "AUDIENCE")]
    pub token_audience: Option<String>,
}

/// Prints a token.
///
/// # Errors
/// The secret is too short.
pub(crate) fn token(settings: &TokenSettings, clock: &Clock) -> Result<Outcome, Failure> {
    let TokenSettings { visitor, room, expires, token_secret, token_audience } = settings;
    let expires = clock.wall().plus(millis(*expires));
    let claims = Claims { visitor: visitor.clone(), room: room.clone(), expires };
    say(claims.sign(token_secret, token_audience.as_deref())?);
    Ok(Outcome::Clean)
}
