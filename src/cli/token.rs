//! `token`: signs a visitor's token with the hub's secret.
//!
//! For tests, and for apps whose server can run a program but signs no tokens. It opens no database.

use std::time::Duration;

use clap::Args;

use super::args::{lifetime, room, visitor};
use super::output::print;
use super::{CommandError, Outcome};
use crate::auth::{Claims, Secret};
use crate::protocol::{RoomId, VisitorId};
use crate::time::{Clock, millis};

/// The settings of `token`.
#[derive(Debug, Args)]
pub(crate) struct TokenSettings {
    /// The visitor
    #[arg(long, value_name = "ID", value_parser = visitor)]
    pub visitor: VisitorId,
    /// The only room that the token admits to; all rooms by default
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomId>,
    /// How long the token is valid
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    pub expires: Duration,
    /// The hub's secret, of at least 32 bytes
    #[arg(long, env, value_name = "SECRET", hide_env_values = true)]
    pub token_secret: Secret,
    /// The token's audience (`aud`), if the hub requires one
    #[arg(long, env, value_name = "AUDIENCE")]
    pub token_audience: Option<String>,
}

/// Prints a token.
/// Errors: the secret is too short.
pub(crate) fn token(settings: &TokenSettings, clock: &Clock) -> Result<Outcome, CommandError> {
    let TokenSettings { visitor, room, expires, token_secret, token_audience } = settings;
    let expires = clock.wall().plus(millis(*expires));
    let claims = Claims { visitor: visitor.clone(), room: room.clone(), expires };
    print(claims.sign(token_secret, token_audience.as_deref())?);
    Ok(Outcome::Success)
}
