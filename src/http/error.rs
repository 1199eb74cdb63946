//! Errors as HTTP answers: `{"error":{"code","message"}}` with a matching status.
//!
//! One enum for all handlers, so that the whole of what may go wrong is one page.

use std::sync::Arc;

use axum::Json;
use axum::http::header::{RETRY_AFTER, SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::BadToken;
use crate::history::capacity::JournalFull;
use crate::history::journal::FlushError;
use crate::history::lifecycle::MaintenanceError;
use crate::history::stats::BadRange;
use crate::history::store::{LifecycleError, ReadError};
use crate::presence::JoinError;
use crate::protocol::ids::BadName;
use crate::protocol::parse::ParseError;
use crate::quota::Exhausted;
use crate::transport::{AdmitError, LimitExceeded, UpgradeError};

/// After how many seconds whoever got a 503 should come back.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// After how many seconds whoever got a 429 should: a burst is allowed again by then.
const SLOWED_DOWN_SECONDS: HeaderValue = HeaderValue::from_static("10");

/// The body of every refusal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// Why a request was refused.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// For programs.
    code: &'static str,
    /// For people: which field broke which rule.
    message: String,
}

/// Why a request was refused. Its text is the answer's message.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A request over HTTP/1.1 names no host, or any names two.
    #[error("Host must be there, once")]
    Host,
    /// No such room name.
    #[error("room: {0}")]
    BadRoom(BadName),
    /// No such visitor id.
    #[error("visitor: {0}")]
    BadVisitor(BadName),
    /// The vocabulary does not have this mood.
    #[error("mood: must be one of this hub's moods")]
    UnknownMood,
    /// A query parameter breaks its rule.
    #[error("{name}: {rule}")]
    BadParameter {
        /// The parameter.
        name: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Two moments are no stretch of time.
    #[error("{name}: {rule}")]
    BadRange {
        /// The parameter.
        name: &'static str,
        /// What it must be.
        rule: BadRange,
    },
    /// The query as a whole cannot be read.
    #[error("the query cannot be read: {0}")]
    BadQuery(String),
    /// The body is not the JSON that is asked for.
    #[error("{}", .0.message)]
    BadBody(ParseError),
    /// The body did not come whole.
    #[error("the body did not arrive")]
    BrokenBody,
    /// The body is over the limit.
    #[error("the body is over {0} bytes")]
    TooLarge(usize),
    /// The body took too long.
    #[error("the body took too long to arrive")]
    SlowBody,
    /// The body comes in too many small pieces.
    #[error("the body comes in too many small chunks: send it in fewer")]
    Pieces,
    /// Too many bytes of bodies are on their way.
    #[error("the hub has too much to read: come back later")]
    BodyBudget(#[from] Exhausted),
    /// The body is neither JSON nor text.
    #[error("Content-Type must be application/json or text/plain")]
    MediaType,
    /// The admin's token is missing or wrong.
    #[error("this needs Authorization: Bearer with the admin token")]
    Unauthorized,
    /// Values of a property may be about people.
    #[error(
        "prop: a breakdown by this property needs Authorization: Bearer with the admin token, unless the hub's \
         PUBLIC_PROPS names it"
    )]
    PrivateProp,
    /// The hub asks for tokens, and this has none.
    #[error("this needs a token: Authorization: Bearer, or on a socket the subprotocol bearer.{{token}}")]
    NoToken,
    /// The token does not open this.
    #[error("token: {0}")]
    BadToken(#[from] BadToken),
    /// A browser comes from a site that is not allowed.
    #[error("this origin is not one of this hub's ALLOWED_ORIGINS")]
    Origin,
    /// There is nothing here.
    #[error("there is nothing at this address")]
    NotFound,
    /// The address has other methods.
    #[error("this address does not have this method")]
    Method,
    /// Heartbeats are over.
    #[error(
        "heartbeats are over: presence is the open socket. Connect a WebSocket to \
         /rooms/{{room}}/socket with the subprotocols breathing-room.v1 and visitor.{{id}}, and keep it open"
    )]
    Heartbeat,
    /// The request does not open a WebSocket.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// No socket can be opened now.
    #[error(transparent)]
    Sockets(#[from] AdmitError),
    /// There is no place in the room now.
    #[error(transparent)]
    Place(#[from] JoinError),
    /// The address does too much.
    #[error(transparent)]
    LimitExceeded(#[from] LimitExceeded),
    /// Others ask for what is kept of people.
    #[error("too many ask for what is kept of people: come back in a moment")]
    Busy,
    /// The journal is full.
    #[error(transparent)]
    Queue(#[from] JournalFull),
    /// The commit that was waited for failed.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// The database did not answer.
    #[error(transparent)]
    History(#[from] Arc<ReadError>),
    /// Maintenance or an erasure did not happen, or not to the end.
    #[error(transparent)]
    Lifecycle(#[from] MaintenanceError),
    /// A migration failed.
    #[error("the migration failed: {0}")]
    Migration(String),
    /// The handler panicked.
    #[error("the hub made a mistake, which is in its log")]
    Panic,
}

impl ApiError {
    /// The status and the code of the answer.
    #[must_use]
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Host => (StatusCode::BAD_REQUEST, "bad-host"),
            Self::BadRoom(_) => (StatusCode::BAD_REQUEST, "bad-room"),
            Self::BadVisitor(_) => (StatusCode::BAD_REQUEST, "bad-visitor"),
            Self::UnknownMood => (StatusCode::BAD_REQUEST, "unknown-mood"),
            Self::BadParameter { .. } | Self::BadRange { .. } | Self::BadQuery(_) => {
                (StatusCode::BAD_REQUEST, "bad-parameter")
            }
            Self::BadBody(problem) => (StatusCode::BAD_REQUEST, problem.code.as_str()),
            Self::BrokenBody | Self::Pieces => (StatusCode::BAD_REQUEST, "broken-body"),
            Self::Upgrade(UpgradeError::Key | UpgradeError::Body) => (StatusCode::BAD_REQUEST, "bad-upgrade"),
            Self::Origin => (StatusCode::FORBIDDEN, "forbidden-origin"),
            Self::Unauthorized | Self::PrivateProp | Self::NoToken | Self::BadToken(_) => {
                (StatusCode::UNAUTHORIZED, "unauthorized")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::Heartbeat => (StatusCode::GONE, "gone"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type"),
            Self::Upgrade(_) => (StatusCode::UPGRADE_REQUIRED, "upgrade-required"),
            Self::Migration(_) | Self::Panic => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, "too-slow"),
            Self::LimitExceeded(LimitExceeded::OpenSockets | LimitExceeded::LiveSockets)
            | Self::Sockets(AdmitError::LimitExceeded(LimitExceeded::OpenSockets))
            | Self::Place(JoinError::TooManyRooms) => (StatusCode::TOO_MANY_REQUESTS, "too-many"),
            Self::LimitExceeded(_) | Self::Sockets(AdmitError::LimitExceeded(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, "too-fast")
            }
            Self::Sockets(AdmitError::Full) | Self::Place(JoinError::RoomsFull) => {
                (StatusCode::SERVICE_UNAVAILABLE, "full")
            }
            Self::Sockets(AdmitError::Restarting) | Self::Lifecycle(MaintenanceError::Stopped) => {
                (StatusCode::SERVICE_UNAVAILABLE, "restarting")
            }
            Self::Queue(_) | Self::BodyBudget(_) | Self::Busy => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
            }
            Self::Flush(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-committed"),
            Self::Lifecycle(MaintenanceError::Failed(LifecycleError::Archive(_))) => {
                (StatusCode::SERVICE_UNAVAILABLE, "archive-unavailable")
            }
            Self::Lifecycle(MaintenanceError::Failed(_)) | Self::History(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "history-unavailable")
            }
        }
    }

    /// What the headers of a refusal with this status say.
    #[must_use]
    pub(crate) fn headers(status: StatusCode) -> Vec<(HeaderName, HeaderValue)> {
        match status {
            StatusCode::SERVICE_UNAVAILABLE => vec![(RETRY_AFTER, RETRY_AFTER_SECONDS)],
            StatusCode::TOO_MANY_REQUESTS => vec![(RETRY_AFTER, SLOWED_DOWN_SECONDS)],
            StatusCode::UNAUTHORIZED => vec![(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))],
            // Without `Upgrade`, which HTTP/2 does not have: proxies would make a bad answer of it.
            StatusCode::UPGRADE_REQUIRED => vec![(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))],
            _ => Vec::new(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let body = ErrorBody { error: ErrorDetail { code, message: self.to_string() } };
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().extend(Self::headers(status));
        response
    }
}
