//! What opens a socket: somebody joins a room, or listens to the live activity.
//!
//! Nothing here waits. So a request that asks for a socket is answered at once, beside the router, whose layers
//! and futures would be a sixth of all that somebody who joins and leaves takes (docs/benchmarks.md). One that is
//! odd in any way goes through the router, to the same two functions.
//!
//! The order of checks is origin, the address's limits, the token, everything else, and at last the handshake: a plain
//! `GET` learns why a socket would be refused, and gets 426 where it would not be.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{self, Method};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::ObjectBuilder;

use super::app::App;
use super::bots;
use super::error::ApiError;
use super::extract::{address, admit, claims, query, room_id};
use crate::auth::Claims;
use crate::history::event::Who;
use crate::panics::Scope;
use crate::presence::JoinError;
use crate::protocol::mood::MOOD_RULE;
use crate::protocol::schema::text_like;
use crate::protocol::{Mood, RoomId, VisitorId, Vocabulary};
use crate::rejections::Limit;
use crate::session::feed_session;
use crate::session::room::RoomSession;
use crate::transport::{Handshake, Socket, offered_visitor};

/// The address of a room's socket.
pub(crate) const ROOM: &str = "/rooms/{room}/socket";

/// The address of the live activity's.
pub(crate) const ACTIVITY: &str = "/live";

/// The query of a room socket.
#[derive(Debug, Deserialize, IntoParams)]
pub struct Joining {
    /// Who joins, unless a subprotocol `visitor.{id}` or a token says so; without any, the hub makes one up.
    #[param(value_type = VisitorId, required = false)]
    visitor: Option<String>,
    #[param(schema_with = mood_name)]
    mood: Option<String>,
}

fn mood_name() -> ObjectBuilder {
    text_like(MOOD_RULE).description(Some("One of the hub's moods."))
}

impl Joining {
    /// Who joins: whom the subprotocol names, or the query; somebody new, where neither does.
    ///
    /// # Errors
    /// The id breaks its rule.
    pub fn visitor(&self, offered: Option<&str>) -> Result<VisitorId, ApiError> {
        let id = offered.or(self.visitor.as_deref()).map(VisitorId::try_from).transpose();
        Ok(id.map_err(ApiError::BadVisitor)?.unwrap_or_else(VisitorId::random))
    }

    /// In what mood.
    ///
    /// # Errors
    /// The vocabulary does not have it.
    pub fn mood(&self, vocabulary: &Vocabulary) -> Result<Option<Mood>, ApiError> {
        let find = |name: &str| vocabulary.find(name).ok_or(ApiError::UnknownMood);
        self.mood.as_deref().map(find).transpose()
    }
}

/// Whether sockets are opened at the address with this path.
#[must_use]
pub(crate) fn is_address(path: &str) -> bool {
    path == ACTIVITY || (path.starts_with("/rooms/") && path.ends_with("/socket"))
}

/// What a socket may be asked for.
enum Wanted {
    Room(RoomId),
    Activity,
}

impl Wanted {
    /// What a request plainly asks for, if that is a socket's address.
    fn of<B>(request: &http::Request<B>) -> Option<Self> {
        if request.method() != Method::GET {
            return None;
        }
        match request.uri().path() {
            ACTIVITY => Some(Self::Activity),
            path => {
                let name = path.strip_prefix("/rooms/")?.strip_suffix("/socket")?;
                RoomId::try_from(name).ok().map(Self::Room)
            }
        }
    }

    /// The pattern of its address.
    fn route(&self) -> &'static str {
        match self {
            Self::Room(_) => ROOM,
            Self::Activity => ACTIVITY,
        }
    }

    fn open<B>(self, app: &Arc<App>, request: &http::Request<B>) -> Result<Response, ApiError> {
        match self {
            Self::Room(room) => join(app, Ok(room), request),
            Self::Activity => listen(app, request),
        }
    }
}

/// Answers a request that plainly asks for a socket's address.
pub(crate) fn answer<B>(app: &Arc<App>, request: &http::Request<B>) -> Option<Response> {
    let wanted = Wanted::of(request)?;
    let (route, verdict) = (wanted.route(), app.origins.judge(request, app.clock.elapsed()));
    let answer = match verdict.check() {
        Ok(()) => app.metrics.panics().catch_sync(Scope::Request, || wanted.open(app, request)),
        Err(foreign) => Some(Err(foreign)),
    };
    let mut response = answer.unwrap_or(Err(ApiError::Panic)).into_response();
    verdict.tell(&mut response);
    app.metrics.answered(route, response.status());
    Some(response)
}

/// `GET /rooms/{room}/socket`: joins the room for as long as the socket is open.
pub(crate) async fn room(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    join(&app, room_id(path), &request)
}

/// `GET /live`: the live activity, at once and then on change.
pub(crate) async fn activity(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    listen(&app, &request)
}

fn join<B>(
    app: &Arc<App>,
    room: Result<RoomId, ApiError>,
    request: &http::Request<B>,
) -> Result<Response, ApiError> {
    let address = address(app, request.headers(), request.extensions());
    app.sockets.check_address(address)?;
    let claims = claims(app, request.headers())?;
    let joining: Joining = query(Query::try_from_uri(request.uri()))?;
    let room = room?;
    let claims = claims.as_ref().map(|claims| claims.for_room(&room)).transpose()?;
    let visitor = match claims {
        Some(claims) => claims.visitor.clone(),
        None => joining.visitor(offered_visitor(request.headers()))?,
    };
    let end = claims.map(Claims::expires_with_leeway);
    let mood = joining.mood(app.registry.vocabulary())?;
    app.registry.check_join(&room, &visitor).inspect_err(|no_place| {
        app.rejections.limited(match no_place {
            JoinError::RoomsFull => Limit::Rooms,
            JoinError::TooManyRooms => Limit::VisitorRooms,
        });
    })?;
    let admission = app.sockets.admit(address)?;
    let handshake = Handshake::check(request)?;
    let who = Who { room, visitor, is_bot: bots::sent(request.headers()) };
    let context = Arc::clone(&app.room);
    Ok(Socket::open(&app.sessions, admission, handshake, move |socket| {
        if let Some(end) = end {
            socket.set_expiry(end);
        }
        RoomSession::join(context, socket, &who, mood)
    }))
}

fn listen<B>(app: &Arc<App>, request: &http::Request<B>) -> Result<Response, ApiError> {
    let address = address(app, request.headers(), request.extensions());
    app.sockets.check_address(address)?;
    let permit = app.sockets.admit_feed(address)?;
    admit(app.config.dashboard, app, request.headers(), address)?;
    let admission = app.sockets.admit(address)?;
    let handshake = Handshake::check(request)?;
    let (feed, rejections) = (Arc::clone(&app.feed), app.rejections.clone());
    let panics = app.metrics.panics().clone();
    Ok(Socket::open(&app.sessions, admission, handshake, |socket| {
        feed_session::run(feed, socket, permit, rejections, panics)
    }))
}
