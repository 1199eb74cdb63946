//! What opens sockets: a visitor joins a room, or a dashboard subscribes to the live activity.
//!
//! The checks come in this order: the rate of the address, the token, everything else, and the handshake last. So a plain `GET`
//! learns why a socket would be rejected, and gets 426 where it would not be.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::ObjectBuilder;

use super::access::AccessControl;
use super::bots;
use super::error::ApiError;
use super::params::{Params, RoomPath};
use super::state::LiveState;
use crate::address::Address;
use crate::auth::Claims;
use crate::history::event::Actor;
use crate::presence::JoinError;
use crate::protocol::mood::MOOD_RULE;
use crate::protocol::schema::text_like;
use crate::protocol::{Features, Mood, VisitorId, Vocabulary};
use crate::rejections::Limit;
use crate::session::feed_session;
use crate::session::room::RoomSession;
use crate::transport::{Handshake, Socket, offered_visitor};

/// The query of a room socket.
#[derive(Debug, Deserialize, IntoParams)]
pub struct JoinParams {
    /// Who joins, unless a subprotocol `visitor.{id}` or a token says so; without any, the hub makes one up.
    #[param(value_type = VisitorId, required = false)]
    visitor: Option<String>,
    #[param(schema_with = mood_name)]
    mood: Option<String>,
    /// Messages that the client understands besides those of every client, separated by commas: `own-mood`,
    /// `own-sit`, `keepalive`. The hub ignores unknown ones.
    #[param(required = false)]
    features: Option<String>,
}

fn mood_name() -> ObjectBuilder {
    text_like(MOOD_RULE).description(Some("One of the hub's moods."))
}

impl JoinParams {
    /// Who joins: the visitor of the subprotocol, or of the query, or a random one.
    ///
    /// # Errors
    /// The id breaks its rule.
    pub fn visitor(&self, offered: Option<&str>) -> Result<VisitorId, ApiError> {
        let id = offered.or(self.visitor.as_deref()).map(VisitorId::try_from).transpose();
        Ok(id.map_err(ApiError::BadVisitor)?.unwrap_or_else(VisitorId::random))
    }

    /// The visitor's mood.
    ///
    /// # Errors
    /// The vocabulary does not have it.
    pub fn mood(&self, vocabulary: &Vocabulary) -> Result<Option<Mood>, ApiError> {
        let find = |name: &str| vocabulary.find(name).ok_or(ApiError::UnknownMood);
        self.mood.as_deref().map(find).transpose()
    }

    fn features(&self) -> Features {
        self.features.as_deref().map(Features::parse).unwrap_or_default()
    }
}

/// `GET /rooms/{room}/socket`: joins the room for as long as the socket is open.
pub(crate) async fn room(
    State(live): State<Arc<LiveState>>,
    State(access): State<Arc<AccessControl>>,
    address: Address,
    room: Result<RoomPath, ApiError>,
    params: Result<Params<JoinParams>, ApiError>,
    request: Request,
) -> Result<Response, ApiError> {
    live.sockets.check_address(address)?;
    let claims = access.claims(request.headers())?;
    let (Params(params), RoomPath(room)) = (params?, room?);
    let claims = claims.as_ref().map(|claims| claims.for_room(&room)).transpose()?;
    let visitor = match claims {
        Some(claims) => claims.visitor.clone(),
        None => params.visitor(offered_visitor(request.headers()))?,
    };
    let end = claims.map(Claims::expires_with_leeway);
    let mood = params.mood(live.context.registry.vocabulary())?;
    let features = params.features();
    live.context.registry.check_join(&room, &visitor).inspect_err(|rejected| {
        live.context.rejections.count_limit(match rejected {
            JoinError::RoomsFull => Limit::Rooms,
            JoinError::TooManyRooms => Limit::VisitorRooms,
        });
    })?;
    let permit = live.sockets.admit(address)?;
    let handshake = Handshake::check(&request)?;
    let actor = Actor { room, visitor, is_bot: bots::is_bot(request.headers()) };
    let context = Arc::clone(&live.context);
    Ok(Socket::open(&live.sessions, permit, handshake, move |socket| {
        if let Some(end) = end {
            socket.set_expiry(end);
        }
        RoomSession::join(context, socket, &actor, mood, features)
    }))
}

/// `GET /live`: the live activity, at once and then on change.
pub(crate) async fn live(
    State(live): State<Arc<LiveState>>,
    State(access): State<Arc<AccessControl>>,
    address: Address,
    request: Request,
) -> Result<Response, ApiError> {
    live.sockets.check_address(address)?;
    let feed_permit = live.sockets.admit_feed(address)?;
    access.admit(access.dashboard, request.headers(), address)?;
    let permit = live.sockets.admit(address)?;
    let handshake = Handshake::check(&request)?;
    let feed = Arc::clone(&live.feed);
    let (rejections, panics) = (live.context.rejections.clone(), live.context.panics.clone());
    Ok(Socket::open(&live.sessions, permit, handshake, |socket| {
        feed_session::run(feed, socket, feed_permit, rejections, panics)
    }))
}
