//! What is asked of the memory: rooms, the live activity, and the sockets.
//!
//! Nothing here waits for the database, so that presence goes on whatever that does.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::{IntoParams, ToSchema};

use super::admission;
use super::app::App;
use super::bots;
use super::error::ApiError;
use crate::history::event::Who;
use crate::live::NoPlace;
use crate::panics::{Panics, Part};
use crate::session::meter::Limit;
use crate::session::room::RoomSession;
use crate::session::{Address, Admission, Handshake, Socket, viewer};
use crate::token::Claims;
use crate::wire::mood::{MOOD_RULE, NamedMoods};
use crate::wire::schema::text_like;
use crate::wire::{Mood, RoomId, VisitorId, Vocabulary};

/// How long a peer has to take earlier answers, before somebody else may have its socket's place.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);

/// A room's name from an address. A wrong one is refused with its rule.
pub(super) fn room_id(path: Result<Path<String>, PathRejection>) -> Result<RoomId, ApiError> {
    // What does not even decode is a wrong name like any other.
    let name = path.map(|Path(name)| name).unwrap_or_default();
    RoomId::try_from(name).map_err(ApiError::BadRoom)
}

/// A query's parameters.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|rejection| ApiError::BadQuery(rejection.body_text()))
}

/// A room as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Room)]
pub struct RoomState<'a> {
    room: &'a RoomId,
    /// Which state of the room this is.
    seq: u64,
    /// Distinct visitors in the room.
    present: u32,
    /// People by mood.
    moods: NamedMoods<'a>,
}

/// `GET /rooms/{room}`: the room as it is now.
pub async fn room(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let room = room_id(path)?;
    let counts = app.hub.counts(&room);
    let moods = app.hub.vocabulary().named(&counts.moods);
    let body = RoomState { room: &room, seq: counts.seq, present: counts.present, moods };
    Ok(([(CACHE_CONTROL, "public, max-age=5")], Json(body)).into_response())
}

/// `GET /live-activity`: what is going on, over all rooms.
pub async fn live_activity(State(app): State<Arc<App>>) -> Response {
    let activity = app.hub.live_activity();
    ([(CACHE_CONTROL, "no-store")], Json(activity.message(None, app.clock.wall()))).into_response()
}

/// The query of a room socket.
#[derive(Debug, Deserialize, IntoParams)]
pub struct Joining {
    /// Who joins; without it, the hub makes one up.
    #[param(value_type = VisitorId, required = false)]
    visitor: Option<String>,
    #[param(schema_with = mood_name)]
    mood: Option<String>,
}

fn mood_name() -> ObjectBuilder {
    text_like(MOOD_RULE).description(Some("One of the hub's moods."))
}

impl Joining {
    /// Who joins; somebody new, where nobody is named.
    ///
    /// # Errors
    /// The id breaks its rule.
    pub fn visitor(&self) -> Result<VisitorId, ApiError> {
        let id = self.visitor.as_deref().map(VisitorId::try_from).transpose();
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

/// `GET /rooms/{room}/socket`: joins the room for as long as the socket is open.
pub async fn room_socket(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    joining: Result<Query<Joining>, QueryRejection>,
    address: Address,
    mut request: Request,
) -> Result<Response, ApiError> {
    let handshake = Handshake::check(&mut request)?;
    let claims = admission::claims(&app, request.headers())?;
    let joining = query(joining)?;
    let room = room_id(path)?;
    let claims = claims.as_ref().map(|claims| claims.opening(&room)).transpose()?;
    let visitor = match claims {
        Some(claims) => claims.visitor.clone(),
        None => joining.visitor()?,
    };
    let end = claims.map(Claims::ends);
    let mood = joining.mood(app.hub.vocabulary())?;
    app.hub.check_place(&room, &visitor).inspect_err(|no_place| {
        app.refusals.limited(match no_place {
            NoPlace::RoomsFull => Limit::Rooms,
            NoPlace::TooManyRooms => Limit::VisitorRooms,
        });
    })?;
    let admission = app.sockets.admit(address)?;
    let who = Who { room, visitor, is_bot: bots::sent(request.headers()) };
    let context = Arc::clone(&app.room);
    Ok(open(&app.sessions, app.meter.panics(), admission, handshake, move |socket| {
        if let Some(end) = end {
            socket.set_end(end);
        }
        RoomSession::join(context, socket, &who, mood)
    }))
}

/// `GET /live`: the live activity, at once and then on change.
pub async fn live_socket(
    State(app): State<Arc<App>>,
    address: Address,
    mut request: Request,
) -> Result<Response, ApiError> {
    let handshake = Handshake::check(&mut request)?;
    let admission = app.sockets.admit(address)?;
    let (feed, refusals) = (Arc::clone(&app.feed), app.refusals.clone());
    Ok(open(&app.sessions, app.meter.panics(), admission, handshake, |socket| {
        viewer::run(feed, socket, refusals)
    }))
}

/// Answers the handshake and runs `session` on the socket that it opens, as one of `sessions`.
pub fn open<F>(
    sessions: &TaskTracker,
    panics: &Panics,
    admission: Admission,
    handshake: Handshake,
    session: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let answer = handshake.answer();
    let tracker = sessions.clone();
    let opening = async move {
        match timeout(UPGRADE_TIMEOUT, handshake.upgraded()).await {
            // In a task of its own: this one carries what the upgrade needed for as long as it lives.
            Ok(Ok(connection)) => drop(tracker.spawn(session(Socket::new(connection, admission)))),
            Ok(Err(error)) => debug!(%error, "a socket's connection ended before it was open"),
            Err(_) => debug!("nobody took what was to be sent before a socket opens"),
        }
    };
    sessions.spawn(panics.catch(Part::Session, opening));
    answer
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::task::yield_now;
    use tokio::time::sleep;

    use super::*;
    use crate::clock::Clock;
    use crate::session::meter::Meter;
    use crate::session::{Config, Sockets};

    #[tokio::test(start_paused = true)]
    async fn a_socket_whose_answer_nobody_takes_gives_its_place_back() {
        const UPGRADE: &str = "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let panics = Panics::register();
        let sockets = Sockets::new(&Config::default(), Clock::system(), Meter::register(&panics));
        let (sessions, admitting) = (TaskTracker::new(), Arc::clone(&sockets));
        let service = service_fn(move |mut request| {
            let handshake = Handshake::check(&mut request).unwrap();
            let admission = admitting.admit(Ipv4Addr::LOCALHOST.into()).unwrap();
            let answer = open(&sessions, &panics, admission, handshake, async |_| panic!("it is not open"));
            async { Ok::<_, Infallible>(answer) }
        });
        // Less than the answer has room in between.
        let (mut peer, stream) = duplex(64);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
        peer.write_all(UPGRADE.as_bytes()).await.unwrap();
        while sockets.is_empty() {
            yield_now().await;
        }
        sleep(UPGRADE_TIMEOUT.mul_f64(0.99)).await;
        assert_eq!(sockets.len(), 1);
        sleep(UPGRADE_TIMEOUT.mul_f64(0.02)).await;
        assert_eq!(sockets.len(), 0);
    }
}
